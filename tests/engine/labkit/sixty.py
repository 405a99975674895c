# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sixty images that "Supporting Docker in Emulab-Based Network Testbeds" (CSET'18) tried, each as a fixture: the family
it is built on, the configuration that its publisher gives it, an entrypoint that does what its own does (defaults its
arguments, hands directories over, steps down from root), and a program under the name of its own.

A third of them are elsewhere already, most with the real service (services.py, families.py); for the others the program
is the one that dumps its world and waits for the signal that ends it. What is known of their configurations comes from
their repositories and from docker-library/repo-info.
"""

from .families import GROUP, PASSWD, first_line, rest_of_log
from .fixture import OCI, PATH, Fixture, Line
from .services import script

# In the paper's order.
NAMES = ("alpine centos debian ubuntu amazonlinux busybox fedora buildpack-deps cassandra chronograf drupal elasticsearch ghost golang "
         "gradle groovy haproxy httpd influxdb java jenkins jruby kibana logstash mariadb maven memcached mongo mysql nextcloud nginx "
         "node openjdk owncloud percona perl php postgres python rabbitmq redis rethinkdb rocket.chat ruby sentry solr sonarqube "
         "tomcat wordpress telegraf consul docker kong neo4j vault registry hello-world nats swarm traefik").split()

GLIBC, OLD, MUSL, RPM = "glibc, usrmerge", "glibc, no usrmerge", "musl", "glibc, rpm family"

# The program of an image without one of its own kind: says what it is, and waits.
PROGRAM = script("#!/bin/sh\nexec /usr/local/bin/world \"${0##*/}\" \"$@\" hold\n")
PLAIN = "#!/bin/sh\nset -e\nexec \"$@\"\n"
# "docker run IMAGE --option" is the program's.
OPTIONS = "#!/bin/sh\nset -e\nif [ \"${1#-}\" != \"$1\" ]; then set -- PROGRAM \"$@\"; fi\nexec \"$@\"\n"
# As root for as long as it takes to hand the data over.
STEP_DOWN = """#!/bin/sh
set -e
if [ "${1#-}" != "$1" ]; then set -- PROGRAM "$@"; fi
if [ "$1" = PROGRAM ] && [ "$(id -u)" = 0 ]; then
    mkdir -p DATA
    chown USER DATA
    exec gosu USER "$0" "$@"
fi
exec "$@"
"""
APACHE = """#!/bin/sh
set -e
if [ "$1" = apache2-foreground ] && [ ! -e index.php ]; then
    echo "$0: copying" >&2
    echo '<?php' >index.php
    chown www-data index.php
fi
exec "$@"
"""


def entry(text, program="", user="", data="/tmp"):
    return script(text.replace("PROGRAM", program).replace("USER", user).replace("DATA", data))


def ports(*numbers):
    return {"ExposedPorts": {n if "/" in str(n) else f"{n}/tcp": {} for n in numbers}}


def volumes(*paths):
    return {"Volumes": {p: {} for p in paths}}


def env(*entries, first=""):
    """first: directories before the usual PATH."""
    return {"Env": [f"PATH={first}:{PATH[5:]}" if first else PATH, *entries]}


def accounts(**users):
    """/etc/passwd and /etc/group with these: name=uid or (uid, gid)."""
    passwd, group = PASSWD, GROUP
    for name, ids in users.items():
        uid, gid = ids if isinstance(ids, tuple) else (ids, ids)
        passwd += f"{name}:x:{uid}:{gid}::/home/{name}:/bin/sh\n".encode()
        group += f"{name}:x:{gid}:\n".encode() if gid else b""
    return {"etc/passwd": passwd, "etc/group": group}


class Sixty:
    """Those that are in no other file: Sixty(parts).fixtures()."""

    def __init__(self, parts):
        self.parts = parts
        self.common = {"usr/local/bin/world": parts.world}

    def fixtures(self):
        return [*self.distributions(), *self.databases(), *self.search(), *self.applications(), *self.languages(), *self.go()]

    # ---- families ----

    def image(self, name, config, files, family=GLIBC, base=None, lines=(), **more):
        layers = base or ["debian", "tools"]
        return Fixture(name.replace(".", "-"), family, "world", [*layers, {**self.common, **files}],
                       {**env(), **config}, list(lines), **{"ask": first_line, "log": rest_of_log, "levels": ("core",), **more})

    def ubuntu(self, name, config, files, version="24.04", **more):
        release = f'NAME="Ubuntu"\nVERSION_ID="{version}"\nID=ubuntu\nID_LIKE=debian\n'.encode()
        labels = {"Labels": {"org.opencontainers.image.ref.name": "ubuntu", "org.opencontainers.image.version": version}}
        return self.image(name, {**labels, **config}, {"etc/os-release": release, **files}, formats=OCI, **more)

    def rpm(self, name, config, files, ident="centos", version="7", like="rhel fedora", release="CentOS Linux release 7.9.2009 (Core)",
            **more):
        """The layout of CentOS and its like: usrmerge, lib64, rpm's database, a package tool; nothing of dpkg."""
        tool = "yum" if version == "7" else "dnf"
        shape = {"etc/os-release": f'NAME="{ident}"\nID="{ident}"\nVERSION_ID="{version}"\nID_LIKE="{like}"\n'.encode(),
                 "etc/redhat-release": release.encode() + b"\n", "etc/yum.repos.d/base.repo": b"[base]\nname=base\n",
                 "var/lib/rpm/Packages": b"", f"usr/bin/{tool}": script("#!/bin/sh\nexit 1\n"), "usr/bin/rpm": script("#!/bin/sh\nexit 1\n"),
                 "usr/bin/.wh.apt-get": b"", "usr/bin/.wh.dpkg": b"", "var/lib/.wh.dpkg": b"", "etc/.wh.debian_version": b"",
                 "etc/.wh.apt": b"", "etc/sysconfig/network": b""}
        return self.image(name, config, {**shape, **files}, RPM, **more)

    def old(self, name, config, files, **more):
        """Debian before usrmerge: /bin, /sbin and /lib are directories."""
        base = {**self.parts.without_usrmerge(), "usr/bin/gosu": self.parts.gosu, "bin/tini": self.parts.tini,
                "bin/busybox": self.parts.box, **{f"bin/{a}": "->busybox" for a in ("mkdir", "chown", "touch", "id")}}
        return self.image(name, config, files, OLD, [base], formats=OCI, **more)

    def alpine(self, name, config, files, **more):
        return self.image(name, config, {"sbin/su-exec": "->../usr/local/bin/gosu", "usr/local/bin/world": self.parts.world_musl, **files},
                          MUSL, [self.parts.alpine()], **more)

    # ---- the images ----

    def distributions(self):
        hold = {"node_command": ("world", "hold"), "lines": [Line(), Line(stdin="cat /etc/os-release; exit 2\n")]}
        bash = {"Cmd": ["/bin/bash"]}
        return [
            self.rpm("centos", {**bash, "Labels": {"org.label-schema.name": "CentOS Base Image", "org.label-schema.license": "GPLv2"}}, {},
                     **hold),
            self.rpm("amazonlinux", bash, {}, "amzn", "2023", "fedora", "Amazon Linux release 2023 (Amazon Linux)", **hold),
            self.rpm("fedora", {**bash, **env("DISTTAG=f43container", "FGC=f43", "container=oci"),
                                "Labels": {"version": "43"}}, {}, "fedora", "43", "", "Fedora release 43 (Forty Three)", **hold),
            self.image("buildpack-deps", {"Cmd": ["bash"]}, {"usr/bin/gcc": PROGRAM}, **hold),
        ]

    def databases(self):
        data = "/var/lib/mysql"
        return [
            self.image("cassandra", {
                "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["cassandra", "-f"], **volumes("/var/lib/cassandra"),
                **ports(7000, 7001, 7199, 9042, 9160),
                **env("GOSU_VERSION=1.19", "JAVA_HOME=/opt/java/openjdk", "LANG=en_US.UTF-8", "CASSANDRA_HOME=/opt/cassandra",
                      "CASSANDRA_CONF=/etc/cassandra", first="/opt/java/openjdk/bin:/opt/cassandra/bin")},
                       {"usr/local/bin/docker-entrypoint.sh": entry(STEP_DOWN, "cassandra", "cassandra", "/var/lib/cassandra"),
                        "opt/cassandra/bin/cassandra": PROGRAM, **accounts(cassandra=999)}),
            self.image("influxdb", {
                "Entrypoint": ["/entrypoint.sh"], "Cmd": ["influxd"], **volumes("/var/lib/influxdb2", "/etc/influxdb2"), **ports(8086),
                **env("GOSU_VER=1.19", "INFLUX_CONFIGS_PATH=/etc/influxdb2/influx-configs", "DOCKER_INFLUXDB_INIT_CLI_CONFIG_NAME=default")},
                       {"entrypoint.sh": entry(STEP_DOWN, "influxd", "influxdb", "/var/lib/influxdb2/engine"), "usr/bin/influxd": PROGRAM,
                        **accounts(influxdb=1001)}),
            self.ubuntu("mongo", {
                "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["mongod"], **volumes("/data/db", "/data/configdb"), **ports(27017),
                **env("GOSU_VERSION=1.19", "JSYAML_VERSION=3.13.1", "MONGO_PACKAGE=mongodb-org", "MONGO_MAJOR=8.3", "HOME=/data/db",
                      "GLIBC_TUNABLES=glibc.pthread.rseq=0")},
                        {"usr/local/bin/docker-entrypoint.sh": entry(STEP_DOWN, "mongod", "mongodb", "/data/db"), "usr/bin/mongod": PROGRAM,
                         **accounts(mongodb=(999, 999))}, docker_builder=True),
            self.rpm("mysql", {
                "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["mysqld"], **volumes(data), **ports(3306, 33060),
                **env("GOSU_VERSION=1.19", "MYSQL_MAJOR=innovation", "MYSQL_VERSION=26.7.0-1.el9", "MYSQL_SHELL_VERSION=9.4.0-1.el9")},
                     {"usr/local/bin/docker-entrypoint.sh": entry(STEP_DOWN, "mysqld", "mysql", data), "usr/sbin/mysqld": PROGRAM,
                      **accounts(mysql=999)}, "ol", "9", "fedora", "Red Hat Enterprise Linux release 9.6 (Plow)"),
            self.rpm("percona", {
                "Entrypoint": ["/docker-entrypoint.sh"], "Cmd": ["mysqld"], "User": "mysql", **volumes(data, "/var/log/mysql"),
                **ports(3306, 33060), **env("PS_VERSION=8.0.42-33.1", "OS_VER=el9", "FULL_PERCONA_VERSION=8.0.42-33.1.el9")},
                     {"docker-entrypoint.sh": entry(OPTIONS, "mysqld"), "usr/sbin/mysqld": PROGRAM, **accounts(mysql=1001),
                      "var/lib/mysql": (None, 0o750, 1001, 1001), "var/log/mysql": (None, 0o750, 1001, 1001)}),
            self.image("rethinkdb", {
                "Cmd": ["rethinkdb", "--bind", "all"], "WorkingDir": "/data", **volumes("/data"), **ports(28015, 29015, 8080),
                **env("RETHINKDB_PACKAGE_VERSION=2.4.4~0bookworm")}, {"usr/bin/rethinkdb": PROGRAM}, formats=OCI),
            self.image("neo4j", {
                "Entrypoint": ["tini", "-g", "--", "/startup/docker-entrypoint.sh"], "Cmd": ["neo4j"], "WorkingDir": "/var/lib/neo4j",
                **volumes("/data", "/logs"), **ports(7474, 7473, 7687),
                **env("JAVA_HOME=/opt/java/openjdk", "NEO4J_EDITION=community", "NEO4J_HOME=/var/lib/neo4j", "LANG=C.UTF-8",
                      first="/var/lib/neo4j/bin:/opt/java/openjdk/bin")},
                       {"startup/docker-entrypoint.sh": entry(STEP_DOWN, "neo4j", "neo4j", "/data"), "var/lib/neo4j/bin/neo4j": PROGRAM,
                        **accounts(neo4j=7474)}),
        ]

    def search(self):
        tini = {"usr/bin/tini": self.parts.tini}
        java = "JAVA_HOME=/opt/java/openjdk"
        return [
            self.ubuntu("elasticsearch", {
                "Entrypoint": ["/bin/tini", "--", "/usr/local/bin/docker-entrypoint.sh"], "Cmd": ["eswrapper"], "User": "1000:0",
                "WorkingDir": "/usr/share/elasticsearch", **ports(9200, 9300),
                **env("SHELL=/bin/bash", "ELASTIC_CONTAINER=true", first="/usr/share/elasticsearch/bin")},
                        {**tini, "usr/local/bin/docker-entrypoint.sh": entry(PLAIN),
                         "usr/share/elasticsearch/bin/eswrapper": PROGRAM, **accounts(elasticsearch=(1002, 0))}, "20.04"),
            self.ubuntu("kibana", {
                "Entrypoint": ["/bin/tini", "--"], "Cmd": ["/usr/local/bin/kibana-docker"], "User": "1000",
                "WorkingDir": "/usr/share/kibana", **ports(5601), **env("ELASTIC_CONTAINER=true", first="/usr/share/kibana/bin")},
                        {**tini, "usr/local/bin/kibana-docker": PROGRAM, "usr/share/kibana": (None, 0o775, 1000, 0)}, "20.04"),
            self.rpm("logstash", {
                "Entrypoint": ["/usr/local/bin/docker-entrypoint"], "User": "1000", "WorkingDir": "/usr/share/logstash", **ports(9600, 5044),
                **env("ELASTIC_CONTAINER=true", "LC_ALL=C.UTF-8", first="/usr/share/logstash/bin")},
                     {"usr/local/bin/docker-entrypoint": entry("#!/bin/sh\nif [ -z \"$1\" ] || [ \"${1#-}\" != \"$1\" ]; then exec logstash \"$@\"; fi\n"
                                                              "exec \"$@\"\n"), "usr/share/logstash/bin/logstash": PROGRAM}),
            self.ubuntu("solr", {
                "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["solr-foreground"], "User": "8983", "WorkingDir": "/opt/solr-9.9.0",
                **volumes("/var/solr"), **ports(8983), **env("SOLR_USER=solr", "SOLR_UID=8983", "SOLR_HOME=/var/solr/data", java,
                                                             first="/opt/solr/bin:/opt/solr/docker/scripts:/opt/java/openjdk/bin")},
                        {"opt/solr/docker/scripts/docker-entrypoint.sh": entry(OPTIONS, "solr-foreground"),
                         "opt/solr/docker/scripts/solr-foreground": PROGRAM, "opt/solr-9.9.0": None, "var/solr": (None, 0o770, 8983, 8983),
                         **accounts(solr=8983)}),
            self.ubuntu("sonarqube", {
                "Entrypoint": ["/opt/sonarqube/docker/entrypoint.sh"], "User": "sonarqube", "WorkingDir": "/opt/sonarqube",
                "StopSignal": "SIGINT", **ports(9000),
                **volumes("/opt/sonarqube/data", "/opt/sonarqube/extensions", "/opt/sonarqube/logs", "/opt/sonarqube/temp"),
                **env(java, "DOCKER_RUNNING=true", "SONARQUBE_HOME=/opt/sonarqube", "SONAR_VERSION=26.8.0.126808", "ES_TMPDIR=/opt/sonarqube/temp")},
                        {"opt/sonarqube/docker/entrypoint.sh": entry("#!/bin/sh\nset -e\nif [ $# -eq 0 ] || [ \"${1#-}\" != \"$1\" ]; then set -- "
                                                                    "/opt/sonarqube/docker/sonar.sh \"$@\"; fi\nexec \"$@\"\n"),
                         "opt/sonarqube/docker/sonar.sh": PROGRAM, **accounts(sonarqube=(1003, 0))}),
        ]

    def applications(self):
        php = ("PHPIZE_DEPS=autoconf \t\tdpkg-dev \t\tfile", "PHP_INI_DIR=/usr/local/etc/php", "APACHE_CONFDIR=/etc/apache2",
               "APACHE_ENVVARS=/etc/apache2/envvars", "PHP_CFLAGS=-fstack-protector-strong -fpic -O2", "PHP_VERSION=8.3.12")
        apache = {"Cmd": ["apache2-foreground"], "StopSignal": "SIGWINCH", "WorkingDir": "/var/www/html", **ports(80), **env(*php)}
        files = {"usr/local/bin/apache2-foreground": PROGRAM, "usr/local/bin/docker-php-entrypoint": entry(OPTIONS, "apache2-foreground"),
                 "var/www/html": (None, 0o1777)}
        return [
            self.image("drupal", {**apache, "Entrypoint": ["docker-php-entrypoint"], "WorkingDir": "/opt/drupal",
                                  **env(*php, "COMPOSER_ALLOW_SUPERUSER=1", "DRUPAL_VERSION=11.2.5", first="/opt/drupal/vendor/bin")},
                       {**files, "opt/drupal/web": None}, lines=[Line(command=("world", "exit", "0"))]),
            self.image("wordpress", {**apache, "Entrypoint": ["docker-entrypoint.sh"], **volumes("/var/www/html")},
                       {**files, "usr/local/bin/docker-entrypoint.sh": entry(APACHE)}, formats=OCI),
            self.image("nextcloud", {**apache, "Entrypoint": ["/entrypoint.sh"], **volumes("/var/www/html"),
                                     **env(*php, "PHP_MEMORY_LIMIT=512M", "NEXTCLOUD_VERSION=34.0.4")},
                       {**files, "entrypoint.sh": entry(APACHE)}, docker_builder=True),
            self.old("owncloud", {**apache, "Entrypoint": ["/entrypoint.sh"], **volumes("/var/www/html"), **env(*php, "OWNCLOUD_VERSION=10.0.10")},
                     {**files, "entrypoint.sh": entry(APACHE)}),
            self.image("ghost", {
                "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["node", "current/index.js"], "WorkingDir": "/var/lib/ghost",
                **volumes("/var/lib/ghost/content"), **ports(2368),
                **env("NODE_VERSION=22.20.0", "NODE_ENV=production", "GHOST_INSTALL=/var/lib/ghost", "GHOST_CONTENT=/var/lib/ghost/content")},
                       {"usr/local/bin/docker-entrypoint.sh": entry(STEP_DOWN, "node", "node", "/var/lib/ghost/content"),
                        "usr/local/bin/node": PROGRAM, "var/lib/ghost/current/index.js": b"", **accounts(node=1002)}, formats=OCI),
            self.image("rocket.chat", {
                "Cmd": ["node", "main.js"], "User": "rocketchat", "WorkingDir": "/app/bundle", **volumes("/app/uploads"), **ports(3000),
                **env("DEPLOY_METHOD=docker-official", "HOME=/tmp", "PORT=3000", "ROOT_URL=http://localhost:3000",
                      "MONGO_URL=mongodb://db:27017/meteor", "Accounts_AvatarStorePath=/app/uploads")},
                       {"usr/local/bin/node": PROGRAM, "app/bundle/main.js": b"", "app/uploads": (None, 0o755, 65533, 65533),
                        **accounts(rocketchat=65533)}),
            self.image("sentry", {
                "Entrypoint": ["/entrypoint.sh"], "Cmd": ["run", "web"], **volumes("/var/lib/sentry/files"), **ports(9000),
                **env("PYTHON_VERSION=2.7.16", "SENTRY_CONF=/etc/sentry", "SENTRY_FILESTORE_DIR=/var/lib/sentry/files")},
                       {"entrypoint.sh": entry("#!/bin/bash\nset -e\nif [ \"$1\" = run ]; then set -- sentry \"$@\"; fi\nif [ \"$1\" = sentry ] && "
                                               "[ \"$(id -u)\" = 0 ]; then\n    mkdir -p \"$SENTRY_FILESTORE_DIR\"\n    chown -R sentry "
                                               "\"$SENTRY_FILESTORE_DIR\"\n    set -- gosu sentry tini -- \"$@\"\nfi\nexec \"$@\"\n"),
                        "usr/local/bin/sentry": PROGRAM, **accounts(sentry=999)}),
            self.old("jenkins", {
                "Entrypoint": ["/bin/tini", "--", "/usr/local/bin/jenkins.sh"], "User": "jenkins", **volumes("/var/jenkins_home"),
                **ports(8080, 50000), **env("JENKINS_HOME=/var/jenkins_home", "JENKINS_SLAVE_AGENT_PORT=50000", "JENKINS_VERSION=2.60.3",
                                            "COPY_REFERENCE_FILE_LOG=/var/jenkins_home/copy_reference_file.log")},
                     {"usr/local/bin/jenkins.sh": entry("#!/bin/bash -e\ntouch \"$COPY_REFERENCE_FILE_LOG\"\nif [[ $# -lt 1 ]] || [[ \"$1\" == --* ]]; then "
                                                        "exec java -jar /usr/share/jenkins/jenkins.war \"$@\"; fi\nexec \"$@\"\n"),
                      "usr/bin/java": PROGRAM, "var/jenkins_home": (None, 0o755, 1002, 1002), **accounts(jenkins=1002)}),
            self.ubuntu("kong", {
                "Entrypoint": ["/docker-entrypoint.sh"], "Cmd": ["kong", "docker-start"], "User": "kong", "StopSignal": "SIGQUIT",
                "Healthcheck": {"Test": ["CMD-SHELL", "kong-health"], "Interval": 1_000_000_000, "Timeout": 10_000_000_000, "Retries": 10},
                **ports(8000, 8443, 8001, 8444, 8002, 8445), **env("KONG_VERSION=3.9.1", "KONG_PREFIX=/usr/local/kong")},
                        {"docker-entrypoint.sh": entry(PLAIN), "usr/local/bin/kong": PROGRAM, "usr/local/kong": (None, 0o755, 1002, 1002),
                         "usr/local/bin/kong-health": script("#!/bin/sh\ntest -d \"$KONG_PREFIX\" && id -un\n"), **accounts(kong=1002)}),
        ]

    def languages(self):
        java = "/opt/java/openjdk"
        cacert = {"__cacert_entrypoint.sh": entry("#!/usr/bin/env bash\nset -e\nif [ -n \"$USE_SYSTEM_CA_CERTS\" ]; then echo certificates; fi\nexec \"$@\"\n")}
        node = entry("#!/bin/sh\nset -e\nif [ \"${1#-}\" != \"${1}\" ] || [ -z \"$(command -v \"${1}\")\" ] || { [ -f \"${1}\" ] && ! [ -x \"${1}\" ]; }; "
                     "then\n  set -- node \"$@\"\nfi\nexec \"$@\"\n")
        return [
            self.ubuntu("gradle", {
                "Entrypoint": ["/__cacert_entrypoint.sh"], "Cmd": ["gradle"], "User": "root", "WorkingDir": "/home/gradle",
                **volumes("/home/gradle/.gradle"), **env(f"JAVA_HOME={java}", "LANG=en_US.UTF-8", "LC_ALL=en_US.UTF-8", "GRADLE_HOME=/opt/gradle",
                                                         "GRADLE_VERSION=9.1.0", first=f"{java}/bin")},
                        {**cacert, "usr/bin/gradle": PROGRAM, "home/gradle": (None, 0o755, 1002, 1002), **accounts(gradle=1002)}),
            self.ubuntu("groovy", {
                "Entrypoint": ["/__cacert_entrypoint.sh"], "Cmd": ["groovysh"], "User": "1000:1000", "WorkingDir": "/home/groovy",
                **volumes("/home/groovy/.groovy/grapes"), **env(f"JAVA_HOME={java}", "GROOVY_HOME=/opt/groovy", first=f"{java}/bin")},
                        {**cacert, "usr/bin/groovysh": PROGRAM, "home/groovy/.groovy/grapes": (None, 0o755, 1000, 1000)}),
            self.ubuntu("jruby", {
                "Entrypoint": ["/__cacert_entrypoint.sh"], "Cmd": ["irb"],
                **env("JRUBY_VERSION=10.1.1.0", "GEM_HOME=/usr/local/bundle", "BUNDLE_SILENCE_ROOT_WARNING=1", "BUNDLE_APP_CONFIG=/usr/local/bundle",
                      first=f"/usr/local/bundle/bin:/opt/jruby/bin:{java}/bin")}, {**cacert, "opt/jruby/bin/irb": PROGRAM}),
            self.ubuntu("maven", {
                "Entrypoint": ["/usr/local/bin/mvn-entrypoint.sh"], "Cmd": ["mvn"],
                **env(f"JAVA_HOME={java}", "MAVEN_HOME=/usr/share/maven", "MAVEN_CONFIG=/root/.m2", first=f"{java}/bin")},
                        {"usr/local/bin/mvn-entrypoint.sh": entry("#!/bin/sh -eu\nmkdir -p \"$MAVEN_CONFIG\" 2>/dev/null || :\nunset MAVEN_CONFIG\nexec \"$@\"\n"),
                         "usr/bin/mvn": PROGRAM}, lines=[Line(command=("world", "exit", "4"))]),
            self.old("java", {"Cmd": ["/bin/bash"], **env("LANG=C.UTF-8", "JAVA_HOME=/docker-java-home", "JAVA_VERSION=8u111",
                                                          "JAVA_DEBIAN_VERSION=8u111-b14-2~bpo8+1", "CA_CERTIFICATES_JAVA_VERSION=20140324")},
                     {"usr/bin/java": PROGRAM, "docker-java-home": "->/usr/lib/jvm"}, lines=[Line()], node_command=("java", "-jar", "x.jar")),
            self.rpm("openjdk", {"Cmd": ["jshell"], **env("JAVA_HOME=/usr/java/openjdk-18", "LANG=C.UTF-8", "JAVA_VERSION=18.0.2.1",
                                                          first="/usr/java/openjdk-18/bin")}, {"usr/java/openjdk-18/bin/jshell": PROGRAM},
                     "ol", "8", "fedora", "Red Hat Enterprise Linux release 8.10 (Ootpa)"),
            self.image("node", {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["node"], **env("NODE_VERSION=22.20.0", "YARN_VERSION=1.22.22")},
                       {"usr/local/bin/docker-entrypoint.sh": node, "usr/local/bin/node": PROGRAM, **accounts(node=1002)},
                       lines=[Line(command=("sh", "-c", "exit 5"))]),
        ]

    def go(self):
        """Servers in Go, most of them on Alpine."""
        return [
            self.image("chronograf", {"Entrypoint": ["/entrypoint.sh"], "Cmd": ["chronograf"], **volumes("/var/lib/chronograf"), **ports(8888),
                                      **env("CHRONOGRAF_VERSION=1.10.0")},
                       {"entrypoint.sh": entry(OPTIONS, "chronograf"), "usr/bin/chronograf": PROGRAM}),
            self.image("telegraf", {"Entrypoint": ["/entrypoint.sh"], "Cmd": ["telegraf"], **ports("8125/udp", "8092/udp", 8094),
                                    **env("TELEGRAF_VERSION=1.39.2")},
                       {"entrypoint.sh": entry("#!/bin/bash\nset -e\nif [ \"${1:0:1}\" = '-' ]; then set -- telegraf \"$@\"; fi\nif [ $EUID -ne 0 ]; then "
                                               "exec \"$@\"; fi\ngroups=telegraf\nexec setpriv --reuid telegraf --regid telegraf --init-groups "
                                               "\"$@\"\n"), "usr/bin/telegraf": PROGRAM, **accounts(telegraf=999)}, formats=OCI),
            self.alpine("consul", {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["agent", "-dev", "-client", "0.0.0.0"],
                                   **volumes("/consul/data"), **ports(8300, "8301/udp", 8500, "8600/udp"),
                                   **env("HASHICORP_RELEASES=https://releases.hashicorp.com")},
                        {"usr/local/bin/docker-entrypoint.sh": entry(
                            "#!/bin/sh\nset -e\nif [ \"$1\" = agent ]; then\n  shift\n  set -- consul agent -data-dir=/consul/data \"$@\"\n  chown consul "
                            "/consul/data\n  set -- su-exec consul \"$@\"\nfi\nexec \"$@\"\n"), "bin/consul": PROGRAM, **accounts(consul=(100, 1004))}),
            self.alpine("vault", {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["server", "-dev"], **volumes("/vault/logs", "/vault/file"),
                                  **ports(8200), **env("NAME=vault", "VERSION=1.12.2")},
                        {"usr/local/bin/docker-entrypoint.sh": entry("#!/bin/sh\nset -e\nulimit -c 0\ncase \"$1\" in server) set -- vault \"$@\";; esac\n"
                                                                    "if [ \"$1\" = vault ]; then chown -R vault /vault/logs; set -- su-exec vault \"$@\"; fi\nexec \"$@\"\n"),
                         "bin/vault": PROGRAM, **accounts(vault=(100, 1004))}, formats=OCI),
            self.alpine("docker", {"Entrypoint": ["dockerd-entrypoint.sh"], "Cmd": [], **volumes("/var/lib/docker"), **ports(2375, 2376),
                                   **env("DOCKER_VERSION=28.5.1", "DOCKER_TLS_CERTDIR=/certs", "DIND_COMMIT=8d9e3502")},
                        {"usr/local/bin/dockerd-entrypoint.sh": entry("#!/bin/sh\nset -eu\nif [ $# -eq 0 ] || [ \"${1#-}\" != \"$1\" ]; then set -- dockerd "
                                                                     "--host=unix:///var/run/docker.sock \"$@\"; fi\nexec \"$@\"\n"),
                         "usr/local/bin/dockerd": PROGRAM}, formats=OCI),
            self.alpine("registry", {"Entrypoint": ["/entrypoint.sh"], "Cmd": ["/etc/distribution/config.yml"], **volumes("/var/lib/registry"),
                                     **ports(5000), **env("OTEL_TRACES_EXPORTER=none")},
                        {"entrypoint.sh": entry("#!/bin/sh\nset -e\ncase \"$1\" in\n    *.yaml|*.yml) set -- registry serve \"$@\" ;;\n    serve|"
                                                "garbage-collect|help|-*) set -- registry \"$@\" ;;\nesac\nexec \"$@\"\n"),
                         "bin/registry": PROGRAM, "etc/distribution/config.yml": b"version: 0.1\n"}, docker_builder=True),
            self.alpine("traefik", {"Entrypoint": ["/entrypoint.sh"], "Cmd": ["traefik"], **ports(80),
                                    "Labels": {"org.opencontainers.image.vendor": "Traefik Labs", "org.opencontainers.image.version": "v3.5.3"}},
                        {"entrypoint.sh": entry(OPTIONS, "traefik"), "usr/local/bin/traefik": PROGRAM}, formats=OCI),
        ]


def table(outcomes):
    """Lines about the sixty, from the outcomes of the matrix by their names."""
    lines = [f"{'image':<16} {'family':<20} {'level':<6} {'ssh':<4} {'main':<5} {'stop':<5} verdict"]
    good = 0
    mark = lambda done: "yes" if done else "NO"  # noqa: E731
    for name in NAMES:
        o = outcomes.get(name.replace(".", "-"))
        if not o:
            lines.append(f"{name:<16} {'-':<20} not tried")
            continue
        works = o.works and o.row.get("level") == "core" and "node-stop" in o.row
        good += works
        lines.append(f"{name:<16} {o.fixture.family:<20} {o.row.get('level', '-'):<6} {mark('node-ssh' in o.row):<4} "
                     f"{mark('main' in o.row):<5} {mark('node-stop' in o.row):<5} "
                     f"{'works' if works else 'missing: ' + ', '.join(sorted(o.failures))}")
    return [*lines, f"of the paper's sixty images, at level core: {good} of {len(NAMES)}"]
