# SPDX-License-Identifier: LGPL-2.1-or-later
# Debian, Ubuntu and their like. Where the mirrors no longer have the release, the distribution's archive has it; the
# image's own lists of mirrors are put back in the end.
export DEBIAN_FRONTEND=noninteractive
if ! apt-get update; then
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        [ -f "$f" ] || continue
        cp -p "$f" "$f.tbnode"
        sed -i -E \
            -e 's#https?://(deb|security|httpredir|ftp[.a-z0-9]*)[.]debian[.]org/(debian-security|debian)#http://archive.debian.org/\2#g' \
            -e 's#https?://[-.a-z0-9]*([.]archive|archive|security|ports)[.]ubuntu[.]com#http://old-releases.ubuntu.com#g' \
            -e '/archive[.]debian[.]org.*-(updates|backports)/d' \
            "$f"
    done
    apt-get -o Acquire::Check-Valid-Until=false update
fi
wanted=
for p in @WANTED@; do
    if apt-cache -q policy "$p" 2>/dev/null | grep -q 'Candidate: [0-9]'; then
        wanted="$wanted $p"
    fi
done
apt-get install -y --no-install-recommends @NEEDED@ $wanted
for f in /etc/apt/sources.list.tbnode /etc/apt/sources.list.d/*.tbnode; do
    [ ! -f "$f" ] || mv "$f" "${f%.tbnode}"
done
apt-get clean
rm -rf /var/lib/apt/lists/*
