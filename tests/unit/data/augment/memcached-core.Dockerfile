# docker.io/library/fixture:1.0 as a testbed node: level core, linux/amd64. Written by tbnode @VERSION@.
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

# What this image was made from, and with what.
LABEL "org.opencontainers.image.base.name"="docker.io/library/fixture:1.0" \
      "org.opencontainers.image.base.digest"="sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" \
      "org.tbnode.version"="@VERSION@" \
      "org.tbnode.level"="core" \
      "org.tbnode.payload"="sha256:5ea41603e530c3a42f22350ba67cfe269e9fc025ff93a1e40cc415bbb325276d"

# The first process. What follows -- is the image's own ENTRYPOINT; arguments of docker run, or
# CMD, come behind it as always.
ENTRYPOINT ["/tbnode/init", "--user", "memcache", "--level", "core", "--", "docker-entrypoint.sh"]

# Restated, because ENTRYPOINT clears the inherited CMD.
CMD ["memcached"]
