# docker.io/library/fixture:1.0 as a testbed node: level full, linux/amd64. Written by tbnode @VERSION@.
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

# Level full: a compiler and its friends, servers and tools, from the distribution's own packages.
# What a release does not have is left out.
RUN ["/bin/sh", "-euc", \
"apk update\n\
wanted=\n\
for p in byacc libtool openssl-dev libressl-dev libpcap-dev boost-dev linux-headers python3 python3-dev perl file bash bridge-utils bridge vlan logrotate tcpdump rsync nano psmisc tcsh zsh shadow; do\n\
    if [ -n \"$(apk search -e \"$p\")\" ]; then\n\
        wanted=\"$wanted $p\"\n\
    fi\n\
done\n\
apk add ca-certificates gcc g++ make musl-dev patch wget sudo flex git openssh rsyslog iproute2 iputils net-tools less $wanted\n\
rm -rf /var/cache/apk/*\n"]

# The image's own user again.
USER "memcache"

# What this image was made from, and with what.
LABEL "org.opencontainers.image.base.name"="docker.io/library/fixture:1.0" \
      "org.opencontainers.image.base.digest"="sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" \
      "org.tbnode.version"="@VERSION@" \
      "org.tbnode.level"="full" \
      "org.tbnode.payload"="sha256:5ea41603e530c3a42f22350ba67cfe269e9fc025ff93a1e40cc415bbb325276d"

# The first process. What follows -- is the image's own ENTRYPOINT; arguments of docker run, or
# CMD, come behind it as always.
ENTRYPOINT ["/tbnode/init", "--user", "memcache", "--level", "full", "--", "docker-entrypoint.sh"]

# Restated, because ENTRYPOINT clears the inherited CMD.
CMD ["memcached"]
