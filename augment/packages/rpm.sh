# SPDX-License-Identifier: LGPL-2.1-or-later
# Fedora, CentOS, AlmaLinux, Rocky, Oracle and Amazon Linux: dnf, microdnf or yum. Where the mirrors no longer have the
# release, the distribution's archive has it; the image's own repositories are put back in the end. What is somebody
# else's, like EPEL, has its own mirrors: only sections that name the distribution's own are changed.
tool=
for t in dnf microdnf yum; do
    if [ -z "$tool" ] && command -v "$t" >/dev/null; then
        tool=$t
    fi
done
if ! "$tool" -y makecache; then
    release=$(sed -n -E 's/^CentOS .*release ([56][.][0-9]+).*/\1/p' /etc/redhat-release 2>/dev/null || :)
    for f in /etc/yum.repos.d/*.repo; do
        [ -f "$f" ] || continue
        cp -p "$f" "$f.tbnode"
        # One section at a time: what was gathered (H) is changed and printed when the next one begins.
        sed -n -E -i '
            1{h;$!d}
            /^\[/!{H;$!d}
            x
            /\n# *baseurl=|\nbaseurl=/{
                /baseurl=https?:[/][/](mirror[.]centos[.]org|[a-z]+[.](example|fedoraproject[.]org)[/]pub[/]fedora[/]linux)[/]/{
                    s/\n(mirrorlist|metalink)=/\n#\1=/g
                    s/\n# *baseurl=/\nbaseurl=/g
                    s#https?://mirror[.]centos[.]org/#http://vault.centos.org/#g
                    s#https?://[a-z]+[.](example|fedoraproject[.]org)/pub/fedora/linux/#https://archives.fedoraproject.org/pub/archive/fedora/linux/#g
                }
            }
            p' "$f"
        if [ -n "$release" ]; then
            sed -i -E "/vault[.]centos[.]org/s/[$]releasever/$release/" "$f"
        fi
    done
    "$tool" clean all
    "$tool" -y makecache
fi
"$tool" -y install @NEEDED@
# At once where the tool can leave out what is not there.
if ! "$tool" -y --setopt=strict=0 install @WANTED@; then
    for p in @WANTED@; do
        "$tool" -y install "$p" || echo "not in this release: $p"
    done
fi
"$tool" clean all
rm -rf /var/cache/yum /var/cache/dnf /var/cache/libdnf5
for f in /etc/yum.repos.d/*.tbnode; do
    [ ! -f "$f" ] || mv "$f" "${f%.tbnode}"
done
