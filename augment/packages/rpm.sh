# SPDX-License-Identifier: LGPL-2.1-or-later
# Fedora, CentOS, AlmaLinux, Rocky, Oracle and Amazon Linux: dnf, microdnf or yum. Where the mirrors no longer have the
# release, the distribution's archive has it; the image's own repositories are put back in the end.
tool=
for t in dnf microdnf yum; do
    if [ -z "$tool" ] && command -v "$t" >/dev/null; then
        tool=$t
    fi
done
if ! "$tool" -y makecache; then
    for f in /etc/yum.repos.d/*.repo; do
        [ -f "$f" ] || continue
        cp -p "$f" "$f.tbnode"
        sed -i -E \
            -e 's/^(mirrorlist|metalink)=/#&/' \
            -e 's/^# *baseurl=/baseurl=/' \
            -e 's#https?://mirror[.]centos[.]org/#http://vault.centos.org/#' \
            -e 's#https?://(download[.]example|download[.]fedoraproject[.]org|dl[.]fedoraproject[.]org)/pub/fedora/linux#https://archives.fedoraproject.org/pub/archive/fedora/linux#' \
            "$f"
    done
    if grep -qs 'CentOS.* 6[.]' /etc/centos-release; then
        release=$(sed -E 's/[^0-9.]//g' /etc/centos-release)
        sed -i "s/[$]releasever/$release/" /etc/yum.repos.d/*.repo
    fi
    "$tool" clean all
    "$tool" -y makecache
fi
"$tool" -y install @NEEDED@
for p in @WANTED@; do
    "$tool" -y install "$p" || echo "not in this release: $p"
done
"$tool" clean all
rm -rf /var/cache/yum /var/cache/dnf
for f in /etc/yum.repos.d/*.tbnode; do
    [ ! -f "$f" ] || mv "$f" "${f%.tbnode}"
done
