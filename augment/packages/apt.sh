# SPDX-License-Identifier: LGPL-2.1-or-later
# Debian, Ubuntu and their like. Where the mirrors no longer have the release, the distribution's archive has it; the
# image's own lists of mirrors are put back in the end. A source of somebody else that fails is no reason for that.
export DEBIAN_FRONTEND=noninteractive
options=
if ! apt-get update && [ -z "$(apt-cache madison gcc)" ]; then
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        [ -f "$f" ] || continue
        cp -p "$f" "$f.tbnode"
        sed -i -E \
            -e 's#https?://(deb|security|httpredir|ftp[.a-z0-9]*)[.]debian[.]org/(debian-security|debian)#http://archive.debian.org/\2#g' \
            -e 's#https?://security[.]debian[.]org/?([[:space:]]|$)#http://archive.debian.org/debian-security\1#g' \
            -e 's#https?://[-.a-z0-9]*([.]archive|archive|security|ports)[.]ubuntu[.]com/ubuntu(-ports)?#http://old-releases.ubuntu.com/ubuntu#g' \
            -e '/^deb.*archive[.]debian[.]org.*-(updates|backports)/d' \
            "$f"
        if grep -q 'archive[.]debian[.]org' "$f"; then
            sed -i -E '/^Suites:/s/ [a-z]+-(updates|backports)\b//g' "$f"
        fi
    done
    options='-o Acquire::Check-Valid-Until=false'
    case $(cat /etc/debian_version) in
    [789].*)
        # The keys of these have expired, too.
        echo 'This release is so old that the signatures of its archive have expired: its packages are not verified.'
        options="$options -o Acquire::AllowInsecureRepositories=true -o APT::Get::AllowUnauthenticated=true"
        ;;
    esac
    apt-get $options update
fi
wanted=
for p in @WANTED@; do
    if apt-cache -q policy "$p" 2>/dev/null | grep -q 'Candidate: [0-9]'; then
        wanted="$wanted $p"
    fi
done
apt-get $options install -y --no-install-recommends @NEEDED@ $wanted
for f in /etc/apt/sources.list.tbnode /etc/apt/sources.list.d/*.tbnode; do
    [ ! -f "$f" ] || mv "$f" "${f%.tbnode}"
done
apt-get clean
rm -rf /var/lib/apt/lists/*
