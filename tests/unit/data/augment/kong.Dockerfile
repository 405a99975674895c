# docker.io/library/fixture:1.0 as a testbed node: level basic, linux/amd64. Written by tbnode @VERSION@.
#
# Build it where the files that it adds are: docker build .
# To take the base image from a mirror: docker build --build-arg BASE=mirror/name@sha256:... .

ARG BASE=docker.io/library/fixture:1.0@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
FROM ${BASE}

# The testbed's software: static programs, all of them under /tbnode.
# No file of the image is touched.
ADD basic.tar.gz /

# What this image was made from, and with what.
LABEL "org.opencontainers.image.base.name"="docker.io/library/fixture:1.0" \
      "org.opencontainers.image.base.digest"="sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" \
      "org.tbnode.version"="@VERSION@" \
      "org.tbnode.level"="basic" \
      "org.tbnode.payload"="sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

# The first process. What follows -- is the image's own ENTRYPOINT; arguments of docker run, or
# CMD, come behind it as always.
ENTRYPOINT ["/tbnode/init", "--user", "kong", "--keep-home", "--stop-signal", "SIGQUIT", "--level", "basic", "--", "/entrypoint.sh"]

# Restated, because ENTRYPOINT clears the inherited CMD.
CMD ["kong", "docker-start"]
