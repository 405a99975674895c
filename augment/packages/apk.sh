# SPDX-License-Identifier: LGPL-2.1-or-later
# Alpine. Its mirrors keep every release.
apk update
wanted=
for p in @WANTED@; do
    if [ -n "$(apk search -e "$p")" ]; then
        wanted="$wanted $p"
    fi
done
apk add @NEEDED@ $wanted
rm -rf /var/cache/apk/*
