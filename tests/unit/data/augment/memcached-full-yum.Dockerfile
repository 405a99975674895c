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
"tool=\n\
for t in dnf microdnf yum; do\n\
    if [ -z \"$tool\" ] && command -v \"$t\" >/dev/null; then\n\
        tool=$t\n\
    fi\n\
done\n\
if ! \"$tool\" -y makecache; then\n\
    release=$(sed -n -E 's/^CentOS .*release ([56][.][0-9]+).*/\\1/p' /etc/redhat-release 2>/dev/null || :)\n\
    for f in /etc/yum.repos.d/*.repo; do\n\
        [ -f \"$f\" ] || continue\n\
        cp -p \"$f\" \"$f.tbnode\"\n\
        sed -n -E -i '\n\
            1{h;$!d}\n\
            /^\\[/!{H;$!d}\n\
            x\n\
            /\\n# *baseurl=|\\nbaseurl=/{\n\
                /baseurl=https?:[/][/](mirror[.]centos[.]org|[a-z]+[.](example|fedoraproject[.]org)[/]pub[/]fedora[/]linux)[/]/{\n\
                    s/\\n(mirrorlist|metalink)=/\\n#\\1=/g\n\
                    s/\\n# *baseurl=/\\nbaseurl=/g\n\
                    s#https?://mirror[.]centos[.]org/#http://vault.centos.org/#g\n\
                    s#https?://[a-z]+[.](example|fedoraproject[.]org)/pub/fedora/linux/#https://archives.fedoraproject.org/pub/archive/fedora/linux/#g\n\
                }\n\
            }\n\
            p' \"$f\"\n\
        if [ -n \"$release\" ]; then\n\
            sed -i -E \"/vault[.]centos[.]org/s/[$]releasever/$release/\" \"$f\"\n\
        fi\n\
    done\n\
    \"$tool\" clean all\n\
    \"$tool\" -y makecache\n\
fi\n\
\"$tool\" -y install ca-certificates gcc gcc-c++ make glibc-devel patch sudo flex git openssl-devel openssh-server rsyslog iproute iputils less\n\
if ! \"$tool\" -y --setopt=strict=0 install wget byacc libtool libpcap-devel boost-devel python3 python3-devel python python-devel perl file tar net-tools bridge-utils logrotate tcpdump traceroute rsync nano psmisc tcsh zsh ksh perl-libwww-perl; then\n\
    for p in wget byacc libtool libpcap-devel boost-devel python3 python3-devel python python-devel perl file tar net-tools bridge-utils logrotate tcpdump traceroute rsync nano psmisc tcsh zsh ksh perl-libwww-perl; do\n\
        \"$tool\" -y install \"$p\" || echo \"not in this release: $p\"\n\
    done\n\
fi\n\
\"$tool\" clean all\n\
rm -rf /var/cache/yum /var/cache/dnf /var/cache/libdnf5\n\
for f in /etc/yum.repos.d/*.tbnode; do\n\
    [ ! -f \"$f\" ] || mv \"$f\" \"${f%.tbnode}\"\n\
done\n"]

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
