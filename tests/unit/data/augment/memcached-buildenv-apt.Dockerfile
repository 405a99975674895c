# docker.io/library/fixture:1.0 as a testbed node: level buildenv, linux/amd64. Written by tbnode @VERSION@.
#
# Build it where the files that it adds are: docker build .
# To take the base image from a mirror: docker build --build-arg BASE=mirror/name@sha256:... .

ARG BASE=docker.io/library/fixture:1.0@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
FROM ${BASE}

# The testbed's software: static programs, all of them under /tbnode.
# No file of the image is touched.
ADD basic.tar.gz /

# Level core: the testbed client beside them.
ADD core.tar.gz /

# Packages are installed by root.
USER "0"

# Level buildenv: a compiler and its friends, from the distribution's own packages.
# What a release does not have is left out.
RUN ["/bin/sh", "-euc", \
"export DEBIAN_FRONTEND=noninteractive\n\
options=\n\
if ! apt-get update && [ -z \"$(apt-cache madison gcc)\" ]; then\n\
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do\n\
        [ -f \"$f\" ] || continue\n\
        cp -p \"$f\" \"$f.tbnode\"\n\
        sed -i -E \\\n\
            -e 's#https?://(deb|security|httpredir|ftp[.a-z0-9]*)[.]debian[.]org/(debian-security|debian)#http://archive.debian.org/\\2#g' \\\n\
            -e 's#https?://security[.]debian[.]org/?([[:space:]]|$)#http://archive.debian.org/debian-security\\1#g' \\\n\
            -e 's#https?://[-.a-z0-9]*([.]archive|archive|security|ports)[.]ubuntu[.]com/ubuntu(-ports)?#http://old-releases.ubuntu.com/ubuntu#g' \\\n\
            -e '/^deb.*archive[.]debian[.]org.*-(updates|backports)/d' \\\n\
            \"$f\"\n\
        if grep -q 'archive[.]debian[.]org' \"$f\"; then\n\
            sed -i -E '/^Suites:/s/ [a-z]+-(updates|backports)\\b//g' \"$f\"\n\
        fi\n\
    done\n\
    options='-o Acquire::Check-Valid-Until=false'\n\
    case $(cat /etc/debian_version) in\n\
    [789].*)\n\
        echo 'This release is so old that the signatures of its archive have expired: its packages are not verified.'\n\
        options=\"$options -o Acquire::AllowInsecureRepositories=true -o APT::Get::AllowUnauthenticated=true\"\n\
        ;;\n\
    esac\n\
    apt-get $options update\n\
fi\n\
wanted=\n\
for p in libtool-bin libtool libboost-dev python3 python3-dev python python-dev perl file; do\n\
    if apt-cache -q policy \"$p\" 2>/dev/null | grep -q 'Candidate: [0-9]'; then\n\
        wanted=\"$wanted $p\"\n\
    fi\n\
done\n\
apt-get $options install -y --no-install-recommends ca-certificates gcc g++ make libc6-dev patch wget sudo flex byacc git libssl-dev libpcap-dev $wanted\n\
for f in /etc/apt/sources.list.tbnode /etc/apt/sources.list.d/*.tbnode; do\n\
    [ ! -f \"$f\" ] || mv \"$f\" \"${f%.tbnode}\"\n\
done\n\
apt-get clean\n\
rm -rf /var/lib/apt/lists/*\n"]

# The image's own user again.
USER "memcache"

# What this image was made from, and with what.
LABEL "org.opencontainers.image.base.name"="docker.io/library/fixture:1.0" \
      "org.opencontainers.image.base.digest"="sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" \
      "org.tbnode.version"="@VERSION@" \
      "org.tbnode.level"="buildenv" \
      "org.tbnode.payload"="sha256:5ea41603e530c3a42f22350ba67cfe269e9fc025ff93a1e40cc415bbb325276d"

# The first process. What follows -- is the image's own ENTRYPOINT; arguments of docker run, or
# CMD, come behind it as always.
ENTRYPOINT ["/tbnode/init", "--user", "memcache", "--level", "buildenv", "--", "docker-entrypoint.sh"]

# Restated, because ENTRYPOINT clears the inherited CMD.
CMD ["memcached"]
