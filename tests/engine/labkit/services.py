# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real services from Debian's packages, in images with the configuration and the entrypoint behaviour of the official
ones (initialise a data directory, chown it, step down from root, exec), and clients that ask them something real.

An ask function gets a Container and returns what was answered, which must be the same for the original, the augmented
image and the node; it waits until the service answers at all.
"""

import http.client
import re
import socket
import struct

from .fixture import OCI, PATH, Fixture, Line
from .process import LabError, wait_for

LAYERS = ["debian", "tools", "nginx", "redis", "postgres", "httpd", "memcached", "haproxy", "mariadb", "rabbitmq", "tomcat",
          "python", "perl", "ruby", "php", "go"]
GLIBC = "glibc, usrmerge"
READY = 90  # seconds that a service may take to answer, on a busy machine

# ---- clients ----------------------------------------------------------------------------------------------------


def patiently(function):
    """function()'s answer, once it does not fail any more."""
    failed = []

    def attempt():
        try:
            return function()
        except (OSError, LabError, http.client.HTTPException, ValueError) as e:
            failed[:] = [e]
            return None

    try:
        return wait_for(attempt, READY, "an answer")
    except LabError as e:
        raise LabError(f"{e}: {failed}") from e


def talk(container, port, request, until):
    """Sends bytes over TCP and reads until the pattern has come."""
    with socket.create_connection((container.ip, port), 5) as s:
        s.settimeout(10)
        s.sendall(request)
        got = b""
        while not re.search(until, got, re.S):
            data = s.recv(65536)
            if not data:
                raise LabError(f"the connection ended after {got!r}")
            got += data
    return got.decode(errors="replace")


def get(port, path="/"):
    """An ask function: status and body of an HTTP GET, and of one that fails."""
    def once(container, where):
        c = http.client.HTTPConnection(container.ip, port, timeout=20)
        try:
            c.request("GET", where)
            r = c.getresponse()
            return r.status, r.read().decode(errors="replace")
        finally:
            c.close()

    def ask(container):
        def good():
            status, body = once(container, path)
            if status >= 500:
                raise LabError(f"HTTP {status}")
            return status, body

        return repr((patiently(good), once(container, "/no-such-page")[0]))
    return ask


def execute(*argv, options=()):
    """An ask function: a client inside the container."""
    def ask(container):
        def once():
            r = container.exec(*argv, options=options)
            if r.rc != 0:
                raise LabError(str(r))
            return r.out
        return patiently(once)
    return ask


def ask_redis(container):
    def command(*words):
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
    return patiently(lambda: talk(container, 6379, command(b"PING") + command(b"SET", b"k", b"v 1") + command(b"GET", b"k")
                                  + command(b"CONFIG", b"GET", b"dir"), rb"/data\r\n$"))


def ask_memcached(container):
    return patiently(lambda: talk(container, 11211, b"set k 0 60 5\r\nhello\r\nget k\r\n", rb"END\r\n$"))


def ask_amqp(container):
    """AMQP 0-9-1: the protocol header, then the server's Connection.Start (class 10, method 10)."""
    def once():
        with socket.create_connection((container.ip, 5672), 5) as s:
            s.settimeout(10)
            s.sendall(b"AMQP\x00\x00\x09\x01")
            head = s.recv(7, socket.MSG_WAITALL)
            kind, channel, size = struct.unpack(">BHI", head)
            body = s.recv(size, socket.MSG_WAITALL)
        return f"{kind} {channel} {struct.unpack('>HHBB', body[:6])} {b'RabbitMQ' in body}"
    return patiently(once)


def ask_fpm(container):
    """A FastCGI request (responder role), as a web server makes it."""
    def record(kind, body):
        return struct.pack(">BBHHBB", 1, kind, 1, len(body), 0, 0) + body

    params = {b"SCRIPT_FILENAME": b"/var/www/html/index.php", b"REQUEST_METHOD": b"GET", b"SCRIPT_NAME": b"/index.php"}
    packed = b"".join(struct.pack(">BB", len(k), len(v)) + k + v for k, v in params.items())
    request = record(1, struct.pack(">HB5x", 1, 0)) + record(4, packed) + record(4, b"") + record(5, b"")
    return patiently(lambda: re.search("hello from [^<]*", talk(container, 9000, request, rb"\x01\x03\x00\x01")).group())


# ---- entrypoints, as the official images have them ---------------------------------------------------------------

NGINX = b"""#!/bin/sh
set -e
entrypoint_log() { [ -n "${NGINX_ENTRYPOINT_QUIET_LOGS:-}" ] || echo "$@"; }
if [ "$1" = "nginx" ] || [ "$1" = "nginx-debug" ]; then
    entrypoint_log "$0: Looking for shell scripts in /docker-entrypoint.d/"
    find "/docker-entrypoint.d/" -follow -type f -print | sort -V | while read -r f; do
        case "$f" in
            *.envsh) . "$f" ;;
            *.sh) entrypoint_log "$0: Launching $f"; "$f" ;;
            *) entrypoint_log "$0: Ignoring $f" ;;
        esac
    done
    entrypoint_log "$0: Configuration complete; ready for start up"
fi
exec "$@"
"""

REDIS = b"""#!/bin/sh
set -e
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then
    set -- redis-server "$@"
fi
if [ "$1" = 'redis-server' -a "$(id -u)" = '0' ]; then
    find . \\! -user redis -exec chown redis '{}' +
    exec gosu redis "$0" "$@"
fi
um="$(umask)"
if [ "$um" = '0022' ]; then
    umask 0077
fi
exec "$@"
"""

PLAIN = """#!/bin/sh
set -e
if [ "${1#-}" != "$1" ]; then
    set -- %s "$@"
fi
exec "$@"
"""

HAPROXY = b"""#!/bin/sh
set -e
if [ "${1#-}" != "$1" ]; then
    set -- haproxy "$@"
fi
if [ "$1" = 'haproxy' ]; then
    shift
    set -- haproxy -W -db "$@"
fi
exec "$@"
"""

POSTGRES = b"""#!/usr/bin/env bash
set -Eeo pipefail
if [ "${1:0:1}" = '-' ]; then set -- postgres "$@"; fi
if [ "$1" != postgres ]; then exec "$@"; fi
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 0700 "$PGDATA"; chmod 03775 /var/run/postgresql
    find "$PGDATA" \\! -user postgres -exec chown postgres '{}' +
    find /var/run/postgresql \\! -user postgres -exec chown postgres '{}' +
    exec gosu postgres "$BASH_SOURCE" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "$POSTGRES_PASSWORD" ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    initdb --no-sync --username="${POSTGRES_USER:-postgres}" --pwfile=<(printf '%s\\n' "$POSTGRES_PASSWORD")
    printf '\\nhost all all all scram-sha-256\\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p 5432" -w start
    for f in /docker-entrypoint-initdb.d/*; do
        case "$f" in
            *.sh) . "$f" ;;
            *.sql) psql -v ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --no-password -f "$f" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    printf '\\nPostgreSQL init process complete; ready for start up.\\n\\n'
fi
exec "$@" -c "listen_addresses=*"
"""

MARIADB = b"""#!/bin/bash
set -eo pipefail
shopt -s nullglob
if [ "${1:0:1}" = '-' ]; then set -- mariadbd "$@"; fi
if [ "$1" != mariadbd ]; then exec "$@"; fi
DATADIR=/var/lib/mysql SOCKET=/run/mysqld/mysqld.sock
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$DATADIR" /run/mysqld
    find "$DATADIR" \\! -user mysql -exec chown mysql: '{}' +
    chown mysql: /run/mysqld
    exec gosu mysql "${BASH_SOURCE[0]}" "$@"
fi
if [ ! -d "$DATADIR/mysql" ]; then
    [ -n "$MARIADB_ROOT_PASSWORD" ] || { echo "[ERROR] [Entrypoint]: Database is uninitialized" >&2; exit 1; }
    mariadb-install-db --datadir="$DATADIR" --auth-root-authentication-method=normal --skip-test-db \\
        --skip-log-bin >/dev/null
    mariadbd --skip-networking --socket="$SOCKET" --skip-log-bin --expire-logs-days=0 --loose-innodb_buffer_pool_load_at_startup=0 &
    pid=$!
    for i in {60..0}; do
        if mariadb --protocol=socket -uroot -hlocalhost --socket="$SOCKET" <<<'SELECT 1' &>/dev/null; then break; fi
        sleep 0.5
    done
    mariadb --protocol=socket -uroot -hlocalhost --socket="$SOCKET" <<-EOSQL
	CREATE USER 'root'@'%' IDENTIFIED BY '${MARIADB_ROOT_PASSWORD}';
	GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
	SET PASSWORD FOR 'root'@'localhost' = PASSWORD('${MARIADB_ROOT_PASSWORD}');
	CREATE DATABASE app;
	EOSQL
    kill "$pid"
    wait "$pid"
fi
exec "$@"
"""

RABBITMQ = b"""#!/usr/bin/env bash
set -euo pipefail
if [[ "$1" == rabbitmq* ]] && [ "$(id -u)" = '0' ]; then
    if [ "$1" = 'rabbitmq-server' ]; then
        mkdir -p "$RABBITMQ_DATA_DIR" /var/log/rabbitmq
        find /var/lib/rabbitmq /var/log/rabbitmq \\! -user rabbitmq -exec chown rabbitmq '{}' +
    fi
    exec gosu rabbitmq "$BASH_SOURCE" "$@"
fi
exec "$@"
"""

HTTPD = b"""#!/bin/sh
set -e
# Apache gets grumpy about PID files pre-existing
rm -f /usr/local/apache2/logs/httpd.pid
exec apache2 -d /usr/local/apache2 -f conf/httpd.conf -DFOREGROUND "$@"
"""

HTTPD_CONF = b"""ServerName localhost
Listen 80
PidFile logs/httpd.pid
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
User www-data
Group www-data
DocumentRoot /usr/local/apache2/htdocs
DirectoryIndex index.html
StartServers 2
ErrorLog /proc/self/fd/2
LogLevel warn
"""

NGINX_CONF = b"""user www-data;
worker_processes 2;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events { worker_connections 64; }
http {
    access_log /var/log/nginx/access.log;
    server { listen 80; root /usr/share/nginx/html; index index.html; }
}
"""

HAPROXY_CFG = b"""global
    log stdout format raw local0
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend in
    bind :8080
    http-request return status 404 if { path /no-such-page }
    default_backend app
backend app
    server self 127.0.0.1:8081
frontend origin
    bind 127.0.0.1:8081
    http-request return status 200 content-type text/plain string "answered behind the proxy"
"""

FPM_CONF = b"""[global]
error_log = /proc/self/fd/2
daemonize = no
[www]
access.log = /dev/null
user = www-data
group = www-data
listen = 9000
pm = static
pm.max_children = 2
clear_env = no
catch_workers_output = yes
"""

PYTHON_APP = b"""import http.server, os, signal, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello from python, uid {os.getuid()}, {os.environ['GREETING']}\\n".encode()
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
def stop(number, frame):
    print("stopped by", number, flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, stop)
http.server.HTTPServer(("", 8000), H).serve_forever()
"""

PERL_APP = b"""use strict; use IO::Socket::INET; $| = 1;
$SIG{INT} = sub { print "stopped by INT\\n"; exit 0 };
my $s = IO::Socket::INET->new(LocalPort => 8000, Listen => 5, ReuseAddr => 1) or die;
while (my $c = $s->accept) {
    my $line = <$c>; while (<$c>) { last if /^\\r?\\n$/ }
    my $code = $line =~ m{^GET / } ? 200 : 404; my $body = "hello from perl $<\\n";
    print $c "HTTP/1.0 $code X\\r\\nContent-Length: " . length($body) . "\\r\\n\\r\\n$body"; close $c;
}
"""

RUBY_APP = b"""require 'socket'
$stdout.sync = true
Signal.trap('TERM') { puts 'stopped by TERM'; exit 3 }
server = TCPServer.new(8000)
loop do
  c = server.accept
  line = c.gets
  while (h = c.gets) && h != "\\r\\n"; end
  body = "hello from ruby #{Process.uid}\\n"
  c.write "HTTP/1.0 #{line.start_with?('GET / ') ? 200 : 404} X\\r\\nContent-Length: #{body.size}\\r\\n\\r\\n#{body}"
  c.close
end
"""


def script(text):
    return (text if isinstance(text, bytes) else text.encode(), 0o755)


def _log(wanted):
    """A log function: the lines that match, from there on, with numbers taken out; sorted, because several processes write it. Who sent a
    signal is PID 1's secret from a program of the original, and said by some as a node's."""
    def log(container):
        r = container.logs()
        found = [m.group() for line in (r.out + r.err).splitlines() for m in [re.search(f"({wanted}).*", line)] if m]
        return sorted(re.sub(r" from N\b", "", re.sub(r"[0-9a-f]{8,}|[0-9]+|\.+$", "N", text)) for text in found)
    return log


def fixtures(parts):
    """All services; the slow ones first, so that they don't run alone at the end."""
    return [*databases(), *java(), *web(), *caches(), *languages(), *go(parts)]


def databases():
    return [
        Fixture("rabbitmq", GLIBC, "rabbitmq", ["debian", "tools", "rabbitmq", {
            "usr/local/bin/docker-entrypoint.sh": script(RABBITMQ), "var/log/rabbitmq": (None, 0o1777),
            "etc/rabbitmq/conf.d/10-defaults.conf": b"loopback_users.guest = false\nlog.console = true\nlog.file = false\n"}],
                {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["rabbitmq-server"], "Volumes": {"/var/lib/rabbitmq": {}},
                 "Env": ["PATH=/usr/lib/rabbitmq/bin:" + PATH[5:], "RABBITMQ_DATA_DIR=/var/lib/rabbitmq",
                         "RABBITMQ_VERSION=3.10.8", "RABBITMQ_LOGS=-", "HOME=/var/lib/rabbitmq", "LANG=C.UTF-8",
                         "LANGUAGE=C.UTF-8", "LC_ALL=C.UTF-8", "RUNNING_UNDER_SYSTEMD=true",
                         # what a small machine wants of Erlang
                         "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none"],
                 "ExposedPorts": {f"{p}/tcp": {} for p in (4369, 5671, 5672, 15691, 15692, 25672)}},
                [Line(command=("id",))], ask=ask_amqp),
        Fixture("postgres", GLIBC, "postgres", ["debian", "tools", "postgres", {
            "usr/local/bin/docker-entrypoint.sh": script(POSTGRES), "docker-entrypoint-initdb.d/a.sql":
            b"CREATE TABLE t (n int); INSERT INTO t VALUES (41), (1);\n"}],
                {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["postgres"], "StopSignal": "SIGINT",
                 "Volumes": {"/var/lib/postgresql/data": {}}, "ExposedPorts": {"5432/tcp": {}},
                 "Env": [PATH + ":/usr/lib/postgresql/15/bin", "GOSU_VERSION=1.14", "LANG=C.UTF-8", "PG_MAJOR=15",
                         "PG_VERSION=15", "PGDATA=/var/lib/postgresql/data"]},
                [Line(("-e", "POSTGRES_PASSWORD="))], options=("-e", "POSTGRES_PASSWORD=se cret"),
                ask=execute("psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", "SELECT sum(n), current_user FROM t",
                            options=("-e", "PGPASSWORD=se cret")),
                log=_log("LOG:  received|database system is shut down$|init process"), formats=OCI),
        Fixture("mariadb", GLIBC, "mariadb", ["debian", "tools", "mariadb", {
            "usr/local/bin/docker-entrypoint.sh": script(MARIADB), "etc/mysql/mariadb.conf.d/99-docker.cnf":
            b"[mysqld]\nbind-address=0.0.0.0\nskip-name-resolve\ninnodb_buffer_pool_size=16M\ninnodb_flush_method=fsync\n"}],
                {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["mariadbd"], "Volumes": {"/var/lib/mysql": {}},
                 "ExposedPorts": {"3306/tcp": {}}, "Env": [PATH, "GOSU_VERSION=1.14", "LANG=C.UTF-8", "MARIADB_VERSION=10.11"],
                 "Labels": {"org.opencontainers.image.title": "MariaDB Database"}},
                [Line(("-e", "MARIADB_ROOT_PASSWORD="))], options=("-e", "MARIADB_ROOT_PASSWORD=pw"),
                ask=execute("sh", "-c", "exec mariadb -h\"$(hostname -i)\" -uroot -ppw -Ne \"SELECT 6*7, CURRENT_USER(); "
                            "SHOW DATABASES LIKE 'app'\""),
                log=_log("Normal shutdown|Shutdown complete")),
    ]


def java():
    conf = {"usr/local/tomcat/bin": None, "usr/local/tomcat/webapps/ROOT/index.jsp":
            b'<%@ page contentType="text/plain" %>sum <%= 40 + 2 %> as <%= System.getProperty("user.name") %>\n'}
    links = {f"usr/local/tomcat/bin/{f}": f"->/usr/share/tomcat10/bin/{f}" for f in (
        "catalina.sh", "setclasspath.sh", "bootstrap.jar", "tomcat-juli.jar")}
    return [Fixture("tomcat", GLIBC, "tomcat", ["debian", "tomcat", {
        **conf, **links, "usr/local/tomcat/lib": "->/usr/share/tomcat10/lib", "usr/local/tomcat/logs": None,
        "usr/local/tomcat/temp": None, "usr/local/tomcat/work": None, "usr/local/tomcat/conf": "->/etc/tomcat10"}],
                    {"Cmd": ["catalina.sh", "run"], "WorkingDir": "/usr/local/tomcat", "ExposedPorts": {"8080/tcp": {}},
                     "Env": ["PATH=/usr/local/tomcat/bin:" + PATH[5:], "CATALINA_HOME=/usr/local/tomcat",
                             "TOMCAT_NATIVE_LIBDIR=/usr/local/tomcat/native-jni-lib", "LANG=C.UTF-8",
                             "LD_LIBRARY_PATH=/usr/local/tomcat/native-jni-lib",
                             "JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64", "JAVA_OPTS=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
                             "GPG_KEYS=A9C5DF4D22E99998D9875A5110C01C5A2F6059E7 B", "TOMCAT_MAJOR=10"]},
                    [Line(command=("java", "--version")), Line(command=("catalina.sh", "version"))], ask=get(8080))]


def web():
    stdout = {"var/log/nginx/access.log": "->/dev/stdout", "var/log/nginx/error.log": "->/dev/stderr"}
    return [
        Fixture("httpd", GLIBC, "apache", ["debian", "httpd", {
            "usr/local/bin/httpd-foreground": script(HTTPD), "usr/local/apache2/conf/httpd.conf": HTTPD_CONF,
            "usr/local/apache2/logs": None, "usr/local/apache2/htdocs/index.html": b"<h1>It works!</h1>\n"}],
                {"Cmd": ["httpd-foreground"], "StopSignal": "SIGWINCH", "WorkingDir": "/usr/local/apache2",
                 "ExposedPorts": {"80/tcp": {}}, "Env": ["PATH=/usr/local/apache2/bin:" + PATH[5:], "HTTPD_PREFIX=/usr/local/apache2"]},
                [Line(command=("apache2", "-v"))], ask=get(80), log=_log("caught SIG")),
        Fixture("nginx", GLIBC, "nginx", ["debian", "nginx", {
            "docker-entrypoint.sh": script(NGINX), "etc/nginx/nginx.conf": NGINX_CONF, **stdout,
            "docker-entrypoint.d/10-listen.sh": script("#!/bin/sh\necho \"$0: info: Getting the checksum\"\n"),
            "docker-entrypoint.d/15-local.envsh": script("export ENTRYPOINT_WAS_HERE=1\n"),
            "usr/share/nginx/html/index.html": b"<h1>Welcome to nginx!</h1>\n"}],
                {"Entrypoint": ["/docker-entrypoint.sh"], "Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT",
                 "ExposedPorts": {"80/tcp": {}}, "Labels": {"maintainer": "NGINX Docker Maintainers <docker-maint@nginx.com>"},
                 "Env": [PATH, "NGINX_VERSION=1.22.1", "PKG_RELEASE=1~bookworm", "DYNPKG_RELEASE=1~bookworm"]},
                [Line(command=("nginx", "-t")), Line(command=("nginx", "-v")), Line(command=("echo", "hello"))], ask=get(80),
                log=_log("SIGQUIT|gracefully|entrypoint|GET"), docker_builder=True, formats=OCI),
        Fixture("haproxy", GLIBC, "haproxy", ["debian", "haproxy", {
            "usr/local/bin/docker-entrypoint.sh": script(HAPROXY), "usr/local/etc/haproxy/haproxy.cfg": HAPROXY_CFG}],
                {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"],
                 "User": "haproxy", "WorkingDir": "/var/lib/haproxy", "StopSignal": "SIGUSR1", "Env": [PATH, "HAPROXY_VERSION=2.6.12"]},
                [Line(command=("-v",)), Line(command=("id",))], ask=get(8080), log=_log("stopped|[Ee]xit")),
        Fixture("php-fpm", GLIBC, "php-fpm", ["debian", "php", {
            "usr/local/bin/docker-php-entrypoint": script(PLAIN % "php"), "usr/local/etc/php-fpm.conf": FPM_CONF,
            "usr/local/bin/php-fpm": script("#!/bin/sh\nexec php-fpm8.2 -F -y /usr/local/etc/php-fpm.conf \"$@\"\n"),
            "var/www/html/index.php": b"<?php echo 'hello from ', posix_getuid(), ' ', getenv('PHP_INI_DIR'), \"\\n\";"}],
                {"Entrypoint": ["docker-php-entrypoint"], "Cmd": ["php-fpm"], "StopSignal": "SIGQUIT", "WorkingDir": "/var/www/html",
                 "ExposedPorts": {"9000/tcp": {}}, "Env": [PATH, "PHP_INI_DIR=/usr/local/etc/php", "PHPIZE_DEPS=autoconf \t\tdpkg-dev"]},
                [Line(command=("-r", "echo PHP_OS, getcwd();"))], ask=ask_fpm, log=_log("SIGQUIT|exiting|Finishing|bye")),
    ]


def caches():
    return [
        Fixture("redis", GLIBC, "redis", ["debian", "tools", "redis", {
            "usr/local/bin/docker-entrypoint.sh": script(REDIS), "data": None}],
                {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["redis-server", "--protected-mode", "no"], "WorkingDir": "/data",
                 "Volumes": {"/data": {}}, "ExposedPorts": {"6379/tcp": {}}, "Env": [PATH, "GOSU_VERSION=1.14", "REDIS_VERSION=7.0.15"]},
                [Line(command=("redis-cli", "--version")), Line(command=("sh", "-c", "id; umask")), Line(("--user", "redis"), ("id",)),
                 Line(command=("redis-cli", "-h", "127.0.0.1", "ping"))],
                ask=ask_redis, log=_log("Received|SIGTERM|DB saved|bye|Ready to accept"), docker_builder=True),
        Fixture("memcached", GLIBC, "memcached", ["debian", "memcached", {
            "usr/local/bin/docker-entrypoint.sh": script(PLAIN % "memcached")}],
                {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["memcached"], "User": "memcache", "ExposedPorts": {"11211/tcp": {}},
                 "Env": [PATH, "MEMCACHED_VERSION=1.6.18"]},
                [Line(command=("-V",)), Line(command=("id",)), Line(("--user", "0"), ("id",))], ask=ask_memcached),
    ]


def languages():
    def server(name, config, **more):
        return Fixture(name, GLIBC, more.pop("program", name), ["debian", name.split("-")[0], more.pop("app")],
                       {"Env": [PATH, "LANG=C.UTF-8"], **config}, ask=get(8000), **more)

    return [
        server("python", {"Cmd": ["python3"], "Env": [PATH, "LANG=C.UTF-8", "GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D",
                                                      "PYTHON_VERSION=3.11", "GREETING=it's \"me\""]},
               app={"app.py": PYTHON_APP}, command=("python3", "/app.py"), log=_log("stopped"), docker_builder=True,
               lines=[Line(), Line(stdin="print(6 * 7)\n"), Line(command=("python3", "-c", "import sys, os; print(sys.argv, os.getcwd()); sys.exit(3)"))]),
        server("perl", {"Cmd": ["perl", "-de0"], "StopSignal": "SIGINT", "WorkingDir": "/usr/src/app"}, app={"app.pl": PERL_APP},
               command=("perl", "/app.pl"), log=_log("stopped"),
               lines=[Line(stdin="print 6 * 7\n", command=("perl",)), Line(command=("perl", "-e", "exit 9"))]),
        server("ruby", {"Cmd": ["irb"], "Env": [PATH, "LANG=C.UTF-8", "RUBY_VERSION=3.1", "GEM_HOME=/usr/local/bundle",
                                                "BUNDLE_SILENCE_ROOT_WARNING=1", "BUNDLE_APP_CONFIG=/usr/local/bundle"]},
               app={"app.rb": RUBY_APP}, command=("ruby", "/app.rb"), log=_log("stopped"),
               lines=[Line(command=("ruby", "-e", "puts 6 * 7; exit 4"))]),
        server("php", {"Entrypoint": ["docker-php-entrypoint"], "Cmd": ["php", "-a"], "WorkingDir": "/var/www/html", "User": "www-data"},
               app={"usr/local/bin/docker-php-entrypoint": script(PLAIN % "php"), "var/www/html/index.php":
                    b"<?php if ($_SERVER['REQUEST_URI'] != '/') http_response_code(404); echo 'uid ', posix_getuid(), \"\\n\";"},
               command=("-S", "0.0.0.0:8000", "index.php"), program="php -S", stop_timeout=2,
               lines=[Line(command=("-r", "echo 6 * 7, getcwd(); exit(5);"))]),
    ]


def go(parts):
    """A static server on nothing, and the same below Debian, as a stage of a multi-stage build leaves them."""
    config = {"Entrypoint": ["/server"], "Cmd": ["serve", "--quick"], "ExposedPorts": {"8080/tcp": {}}, "Env": [PATH]}
    return [
        Fixture("go-scratch", "scratch", "go server", ["go"], config, ask=get(8080, "/no-such-page"), log=_log("."),
                docker_builder=True),
        Fixture("go-distroless", "scratch", "go server", [{
            "etc/passwd": b"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
            "etc/group": b"root:x:0:\nnonroot:x:65532:\n", "home/nonroot": (None, 0o700, 65532, 65532), "tmp": None}, "go"],
                {**config, "User": "nonroot", "WorkingDir": "/home/nonroot", "Env": [PATH, "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]},
                ask=get(8080, "/no-such-page"), log=_log("."), formats=OCI),
        Fixture("golang", GLIBC, "bash", ["debian", "go", {"world": parts.world}],
                {"Cmd": ["bash"], "WorkingDir": "/go", "Env": ["PATH=/go/bin:/usr/local/go/bin:" + PATH[5:], "GOPATH=/go",
                                                               "GOTOOLCHAIN=local", "GOLANG_VERSION=1.19"]},
                [Line(stdin="pwd; echo $GOPATH; exit 2\n"), Line(command=("/world",))], node_command=("/world", "exit", "4")),
    ]
