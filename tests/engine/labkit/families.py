# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images of every family and every odd configuration, with our own program in them that dumps its world
(tests/engine/init-world.c): Parts(lab, root, layers).fixtures()."""

import io
import os
import tarfile

from .fixture import OCI, PATH, Fixture, Line
from .process import run, wait_for

PASSWD = (b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/usr/sbin/nologin\nwww-data:x:33:33::/var/www:/bin/false\n"
          b"app:x:1000:1000::/home/app:/bin/sh\nlost:x:1001:1001::/home/lost:/bin/zsh\n")
GROUP = b"root:x:0:\nadm:x:4:root,app\nwww-data:x:33:\napp:x:1000:\nextra:x:2000:app\nother:x:3000:\n"

ONCE = [Line()]
# What people change on the command line. A program that was asked for another user or fewer rights gets just that.
OPTIONS = [Line(o) for o in (
    (), ("-t",), ("--init",), ("--read-only",), ("--security-opt", "no-new-privileges"), ("--user", "0"), ("--user", "1000"),
    ("--user", "4711:5"), ("--group-add", "3000", "--group-add", "77"), ("-e", "HOME=/x", "-e", "NEW=a b"), ("-w", "/tmp"),
    ("--cap-drop", "ALL"), ("--cap-add", "SYS_ADMIN"), ("--pid", "host"), ("--ulimit", "nofile=100:200"),
    ("--tmpfs", "/run:noexec"), ("--network", "none"), ("--privileged",), ("-e", "PATH=/bin:/", "--hostname", "other"),
    ("--security-opt", "seccomp=unconfined"), ("--oom-score-adj", "300"), ("--restart", "no", "--shm-size", "1m"))]
LONG = os.environ.get("TBNODE_TEST_LONG") == "yes"


def few(share):
    """The first ten of them. But in long runs each image has a third of them only: together they have all, and "busybox" (root) and
    "user-name" (a user) have all of OPTIONS."""
    return OPTIONS[:10] if LONG else OPTIONS[:10][share % 3::3]


SHELL = [Line(command=("echo", "exactly  this")), Line(command=("sh", "-c", "echo out; echo err >&2; exit 4")),
         Line(stdin="echo from stdin; exit 6\n", command=("sh",)), Line(command=("no-such-program",)),
         Line(command=("/etc",)), Line(("--entrypoint", "/bin/sh"), ("-c", "echo $0 $#; exit 3")),
         Line(("--entrypoint", ""), ("sh", "-c", "id; pwd; umask; env | sort"))]


def first_line(container):
    """The world that a holding program printed when it started."""
    return wait_for(lambda: container.logs().out.partition("\n")[0], 15, "output")


def rest_of_log(container):
    """What came besides worlds: the signal that ended it."""
    logs = container.logs()
    return [line for line in logs.out.splitlines() if not line.startswith('{"uid"')], logs.err


class Parts:
    """What the images are put together from."""

    def __init__(self, lab, root, layers):
        """root: the Debian root's tarball; layers: {name: packages.Layer}."""
        self.lab = lab
        source = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}/init-world.c"
        flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", source]
        run(["musl-gcc", "-static", "-o", f"{lab.dir}/world", *flags])
        run(["musl-gcc", "-o", f"{lab.dir}/world-musl", *flags])
        self.world = (self._file(f"{lab.dir}/world"), 0o755)
        self.world_musl = (self._file(f"{lab.dir}/world-musl"), 0o755)
        self.musl = (self._file(os.path.realpath("/usr/lib/x86_64-linux-musl/libc.so")), 0o755)
        self.box = (self._file("/bin/busybox"), 0o755)
        self.applets = run(["/bin/busybox", "--list"]).out.split()
        with tarfile.open(fileobj=io.BytesIO(layers["tools"].read()), mode="r:gz") as tar:
            self.gosu = (tar.extractfile("usr/sbin/gosu").read(), 0o755)
            self.tini = (tar.extractfile("usr/bin/tini-static").read(), 0o755)
        self.root = root

    @staticmethod
    def _file(path):
        with open(path, "rb") as f:
            return f.read()

    # ---- bases ----

    def busybox(self, accounts=True, **extra):
        content = {"bin/busybox": self.box, "bin/world": self.world, "tmp": None, "root": (None, 0o700), "run": None}
        if accounts:
            content.update({"etc/passwd": PASSWD, "etc/group": GROUP, "home/app": (None, 0o755, 1000, 1000)})
        for applet in self.applets:
            content.setdefault(f"bin/{applet}", "->busybox")
        return {**content, **extra}

    def alpine(self):
        """The shape of Alpine: musl's loader, busybox for all else, dynamic programs; no usrmerge."""
        content = self.busybox()
        content.update({"lib/ld-musl-x86_64.so.1": self.musl, "bin/world": self.world_musl, "etc/alpine-release": b"3.23.5\n",
                        "etc/os-release": b'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.23.5\n', "etc/apk/world": b"",
                        "sbin": None, "usr/bin": None, "usr/sbin": None, "usr/lib": None, "var/run": "->../run",
                        "usr/local/bin/gosu": self.gosu})
        return content

    def without_usrmerge(self):
        """glibc with /bin, /sbin, /lib and /lib64 as real directories, as before Debian 10: files of the root, moved."""
        wanted = {"usr/bin/bash": "bin/bash", "usr/bin/dash": "bin/dash", "usr/bin/ls": "bin/ls", "usr/bin/cat": "bin/cat",
                  "usr/bin/echo": "bin/echo", "usr/bin/sleep": "bin/sleep", "usr/bin/env": "usr/bin/env",
                  "usr/bin/id": "usr/bin/id", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2":
                  "lib/x86_64-linux-gnu/ld-2.36.so"}
        libs = ("libc.so.6", "libtinfo.so.6", "libselinux.so.1", "libpcre2-8.so.0")
        content = {"bin/sh": "->dash", "lib64/ld-linux-x86-64.so.2": "->/lib/x86_64-linux-gnu/ld-2.36.so", "tmp": None,
                   "etc/passwd": PASSWD, "etc/group": GROUP, "sbin": None, "usr/sbin": None, "world": self.world,
                   "etc/debian_version": b"9.13\n", "usr/bin/sort": self.box, "run": None, "var/run": "->/run", "root": (None, 0o700)}
        with tarfile.open(self.root) as tar:
            members = {m.name.removeprefix("./"): m for m in tar}
            for lib in libs:
                wanted[f"usr/lib/x86_64-linux-gnu/{lib}"] = f"lib/x86_64-linux-gnu/{lib}"
            for path, place in wanted.items():
                m = members[path]
                while m.issym():
                    m = members[os.path.normpath(f"{os.path.dirname(m.name)}/{m.linkname}").lstrip("./")]
                content[place] = (tar.extractfile(m).read(), 0o755)
        return content

    # ---- the images ----

    def fixtures(self):
        return [*self.scratch(), *self.commands(), *self.users(), *self.settings(), *self.stops(), *self.checks(),
                *self.inits(), *self.files(), *self.distributions()]

    @staticmethod
    def _env(*entries):
        return [PATH, *entries]

    def scratch(self):
        layers = [{"world": self.world}]
        holds = {"ask": first_line, "log": rest_of_log}
        return [
            Fixture("hello-world", "scratch", "world", [{"hello": self.world}], {"Cmd": ["/hello"], "Env": [PATH]}, ONCE,
                    docker_builder=True, log=rest_of_log),
            Fixture("scratch", "scratch", "world", layers,
                    {"Entrypoint": ["/world"], "Cmd": ["a", "b c", "", "hold"], "Env": [PATH]},
                    [Line(line.options, ("exit", "5")) for line in few(0)], **holds),
            Fixture("scratch-uid", "scratch, no passwd", "world", layers,
                    {"Entrypoint": ["/world"], "Cmd": ["hold"], "User": "1000:1000", "Env": [PATH]},
                    [Line(line.options, ("exit", "0")) for line in few(1)], docker_builder=True, **holds),
            Fixture("scratch-name", "scratch, no passwd", "world", layers, {"Entrypoint": ["/world"], "User": "app"}, ONCE,
                    node=False),
            Fixture("nats", "scratch", "world", [{"nats-server": self.world, "nats-server.conf": b"port: 4222\n"}],
                    {"Entrypoint": ["/nats-server"], "Cmd": ["cat", "nats-server.conf", "hold"], "Env": [PATH],
                     "ExposedPorts": {"4222/tcp": {}, "6222/tcp": {}, "8222/tcp": {}}}, **holds),
            Fixture("swarm", "scratch", "world", [{"swarm": self.world, ".swarm": None}],
                    {"Entrypoint": ["/swarm"], "Cmd": ["--help"], "Volumes": {"/.swarm": {}}, "Env": ["SWARM_HOST=:2375", PATH]}, ONCE,
                    formats=OCI, log=rest_of_log),
            Fixture("no-env", "scratch", "world", layers, {"Entrypoint": ["/world", "hold"]}, **holds),
        ]

    def commands(self):
        def image(name, config, lines=(), **more):
            return Fixture(name, "busybox", "world", [self.busybox(**{
                "bin/script": (b"#!/bin/sh\nexec /bin/world \"$@\"\n", 0o755),
                "bin/noshebang": (b"exec /bin/world \"$@\"\n", 0o755),
                "bin/chain": (b"#!/bin/busybox sh\nset -e\nexport CHAINED=1\nexec env LAST=2 script \"$@\"\n", 0o755),
                "data/file": b"not a program\n", "bin/nointerp": (b"#!/no/such/interpreter\n", 0o755),
                "bin/noformat": (b"\x7fELFjunk", 0o755)})], {"Env": [PATH], **config}, list(lines) or ONCE, **more)

        failing = [Line(command=c) for c in (("/data/file",), ("/data",), ("file",), ("/bin/nointerp",), ("/bin/noformat",),
                                             ("noshebang",), ("",))]
        return [
            image("busybox", {"Cmd": ["sh"]}, [*SHELL, *failing, Line(), Line(stdin="exit 3\n"), Line(("-t",), ("world",)),
                                               *[Line(x.options, ("world", "exit", "0")) for x in OPTIONS]],
                  docker_builder=True, node_command=("sh", "-c", "exit 3")),
            image("cmd-only", {"Cmd": ["world", "from", "path"]}),
            image("entrypoint-only", {"Entrypoint": ["world", "only"]}, [Line(), Line(command=("exit", "9"))]),
            image("empty-cmd", {"Entrypoint": ["world"], "Cmd": []}, [Line(), Line(command=("exit", "0", "x"))]),
            image("cmd-shell-form", {"Cmd": ["/bin/sh", "-c", "world \"$HOME\" exit 7; echo after $?"]}),
            image("entrypoint-shell-form", {"Entrypoint": ["/bin/sh", "-c", "exec world $0 \"$@\""], "Cmd": ["p", "q  r"]},
                  [Line(), Line(command=("x", "exit", "2"))], docker_builder=True),
            image("custom-shell", {"Entrypoint": ["/bin/ash", "-euo", "pipefail", "-c", "world shell; false | true"],
                                   "Shell": ["/bin/ash", "-euo", "pipefail", "-c"]}),
            image("relative", {"Entrypoint": ["./world"], "WorkingDir": "/bin"}),
            image("relative-path", {"Entrypoint": ["world"], "WorkingDir": "/", "Env": ["PATH=bin:/nowhere"]}),
            image("script", {"Entrypoint": ["script"], "Cmd": ["x"]}),
            image("exec-chain", {"Entrypoint": ["chain"], "Cmd": ["one", "two"]}),
            image("options-like-ours", {"Entrypoint": ["world", "--", "--user", "x", "--level"], "Cmd": ["--", "hold"]},
                  [Line(command=("--", "exit", "1"))], ask=first_line, log=rest_of_log),
            image("missing-program", {"Cmd": ["/usr/bin/not-there"]}, node=False),
            image("no-command", {}, node=False),
            image("dies-of-signal", {"Entrypoint": ["world"], "Cmd": ["exit", "0"]},
                  [Line(("--init",), ("kill", str(s))) for s in (1, 2, 6, 9, 11, 15)]),
        ]

    def users(self):
        def image(name, user, lines=ONCE, env=(), **config):
            return Fixture(f"user-{name}", "busybox", "world", [self.busybox()],
                           {"Entrypoint": ["world"], "Cmd": ["hold"], "User": user, "Env": self._env(*env), **config},
                           [Line(x.options, ("exit", "0")) for x in lines], ask=first_line, log=rest_of_log)

        return [image("name", "app", OPTIONS), image("uid", "1000"), image("uid-gid", "1000:3000", few(2)),
                image("name-group", "app:extra"), image("uid-group", "1000:extra"), image("name-gid", "app:3000"),
                image("unknown-uid", "4711", few(0)), image("unknown-both", "4711:4712"),
                image("root", "root"), image("zero", "0:0"), image("home", "app", few(1), ["HOME=/data/db"]),
                image("root-home", "app", env=["HOME=/root"]), image("empty-home", "app", env=["HOME="]),
                Fixture("user-no-passwd", "busybox, no passwd", "world", [self.busybox(accounts=False)],
                        {"Entrypoint": ["world"], "Cmd": ["hold"], "User": "1001", "Env": [PATH]},
                        [Line(command=("exit", "0")), Line(("--user", "0"), ("exit", "0"))], ask=first_line,
                        log=rest_of_log),
                Fixture("user-unknown-name", "busybox", "world", [self.busybox()],
                        {"Entrypoint": ["world"], "User": "nosuch", "Env": [PATH]}, [Line(), Line(("--user", "0"))], node=False)]

    def settings(self):
        def image(name, config, extra=None, **more):
            return Fixture(name, "busybox", "world", [self.busybox(), *([extra] if extra else [])],
                           {"Entrypoint": ["world"], "Cmd": ["hold"], "Env": [PATH], **config},
                           [Line(command=("exit", "0"))], ask=first_line, log=rest_of_log, **more)

        odd = ["EMPTY=", "SPACES=a b  c ", "QUOTES='\"$x\\`id`${HOME}", "LINES=1\n2\n\n3", "TAB=\t|", "EQUALS=a=b==", "lower=x",
               "DOT.TED=1", "UTF=gr\u00fcn \u2603 \U0001d11e", "LONG=" + "x" * 9000, "HASH=# no comment", "_=odd",
               "LD_LIBRARY_PATH=/usr/local/tomcat/native-jni-lib", "GLIBC_TUNABLES=glibc.pthread.rseq=0",
               "RUNNING_UNDER_SYSTEMD=true", "TBNODE_FDS=1", "SVDIR=/mine", "SHELL=/bin/none", "USER=me", "TERM=vt52"]
        return [
            image("env-odd", {"Env": self._env(*odd)}, docker_builder=True),
            image("env-path-unset", {"Env": ["A=1"], "Entrypoint": ["/bin/world"]}),
            image("env-path-empty", {"Env": ["PATH="], "Entrypoint": ["/bin/world"]}),
            image("workdir-missing", {"WorkingDir": "/made/by the/engine"}),
            image("workdir-of-user", {"WorkingDir": "/home/app/new", "User": "app"}),
            image("volumes", {"Volumes": {"/data": {}, "/var/lib/app": {}, "/run": {}, "/tmp": {}}, "User": "app"},
                  {"var/lib/app": (None, 0o750, 1000, 1000), "var/lib/app/seed": (b"seed\n", 0o640, 1000, 1000)}),
            image("labels-ports", {"Labels": {"a": "b c", "quote": "\"'$"}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                                   "OnBuild": ["RUN false"], "Domainname": "", "ArgsEscaped": True}),
        ]

    def stops(self):
        signals = {"term": None, "usr1": "SIGUSR1", "hup": "SIGHUP",
                   "rtmin3": "SIGRTMIN+3", "rtmax": "SIGRTMAX", "number": "12", "bare": "USR2", "unknown": "SIGNONSENSE"}
        found = []
        for name, signal in signals.items():
            config = {"Entrypoint": ["/world"], "Cmd": ["hold"], "Env": [PATH], **({"StopSignal": signal} if signal else {})}
            found.append(Fixture(f"stop-{name}", "scratch", "world", [{"world": self.world}], config, [], ask=first_line,
                                 log=rest_of_log))
        trap = "trap 'echo bye; exit 42' TERM; trap 'echo no' QUIT; world x; while :; do sleep 1; done"
        found.append(Fixture("stop-trap", "busybox", "sh", [self.busybox()], {"Cmd": ["sh", "-c", trap], "Env": [PATH]}, [],
                             ask=first_line, log=rest_of_log))
        return found

    def checks(self):
        def image(name, test, **config):
            health = {"Test": test, "Interval": 300_000_000, "Timeout": 5_000_000_000, "Retries": 2, **config.pop("health", {})}
            return Fixture(f"health-{name}", "busybox", "world", [self.busybox()],
                           {"Entrypoint": ["world"], "Cmd": ["hold"], "Env": [PATH], "Healthcheck": health, **config}, [],
                           ask=first_line, log=rest_of_log, docker_builder=name == "user")

        return [image("cmd", ["CMD", "test", "-d", "/tmp"]),
                image("shell", ["CMD-SHELL", "id; echo $HOME; pwd; umask; env | sort | grep -v HOSTNAME"]),
                image("user", ["CMD-SHELL", "id; echo \"$HOME\"; pwd; test $(id -u) = 1000"], User="app", WorkingDir="/tmp"),
                image("unhealthy", ["CMD-SHELL", "echo broken >&2; exit 1"], User="1000:3000"),
                image("missing", ["CMD", "/no/such/check"]),
                image("own-shell", ["CMD-SHELL", "echo $-; false; echo not reached"], Shell=["/bin/ash", "-ec"], User="app"),
                image("none", ["NONE"])]

    def inits(self):
        """Images that bring an init of their own, and entrypoints that step down from root."""
        step = (b"#!/bin/sh\nset -e\nif [ \"$1\" = world ] && [ \"$(id -u)\" = 0 ]; then\n  chown app /srv/data\n"
                b"  exec gosu app \"$0\" \"$@\"\nfi\nexec \"$@\"\n", 0o755)
        su = (b"#!/bin/sh\nset -e\nif [ \"$(id -u)\" = 0 ]; then exec setpriv --reuid=1000 --regid=1000 --clear-groups -- \"$@\"; fi\n"
              b"exec \"$@\"\n", 0o755)
        base = self.busybox(**{"sbin/tini": self.tini, "usr/local/bin/gosu": self.gosu, "srv/data": None,
                               "usr/local/bin/docker-entrypoint.sh": step, "usr/local/bin/su-entrypoint.sh": su})
        holds = {"ask": first_line, "log": rest_of_log}

        def image(name, config, lines=ONCE, family="busybox", layers=None, **more):
            return Fixture(name, family, "world", layers or [base], {"Env": [PATH], **config}, lines, **{**holds, **more})

        debian = ["debian", "tools", {"world": self.world}]
        return [
            image("tini", {"Entrypoint": ["/sbin/tini", "-s", "--"], "Cmd": ["world", "hold"], "User": "1000:0"},
                  [Line(command=("world", "exit", "8")), Line(command=("sh", "-c", "kill -9 $$"))]),
            image("tini-group", {"Entrypoint": ["/sbin/tini", "-g", "-s", "--"], "Cmd": ["sh", "-c", "world; world hold"]}, []),
            image("dumb-init", {"Entrypoint": ["/usr/bin/dumb-init", "--"], "Cmd": ["/world", "hold"]},
                  [Line(command=("sh", "-c", "exit 8"))], "glibc, usrmerge", debian),
            image("gosu-step-down", {"Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["world", "hold"], "Volumes": {"/srv/data": {}}},
                  [Line(command=("world", "exit", "0")), Line(("--user", "1000"), ("world", "exit", "0")), Line(command=("id",))]),
            image("setpriv-step-down", {"Entrypoint": ["su-entrypoint.sh"], "Cmd": ["/world", "hold"]},
                  [Line(command=("/world", "exit", "0"))], "glibc, usrmerge",
                  ["debian", {"world": self.world, "usr/local/bin/su-entrypoint.sh": su}]),
            image("own-init", {"Entrypoint": ["/init"], "Cmd": ["hold"]}, [], layers=[base, {"init": self.world}]),
        ]

    def files(self):
        """Layers: whiteouts, opaque directories, links, many of them; directories that are missing or elsewhere."""
        def image(name, layers, config=None, **more):
            return Fixture(name, "busybox", "sh", layers,
                           {"Entrypoint": ["sh", "-c", "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /tbnode \\) -prune "
                                           "-o -print | sort; cat /etc/hostname /d/* 2>&1"], "Env": [PATH], **(config or {})},
                           ONCE, **more)

        box = self.busybox()
        return [
            image("whiteouts", [box, {"a/one": b"1", "a/two": b"2", "b/sub/x": b"x", "c": b"file", "d/old": b"old"},
                                {"a/.wh.one": b"", "b/.wh..wh..opq": b"", "b/new": b"n", ".wh.c": b"", "d/.wh.old": b""},
                                {"c/now-a-directory": b"", "d/old": b"again", "a/.wh..wh..opq": b"", "a/three": b"3"}],
                  docker_builder=True),
            image("links", [box, {"usr/lib/real": b"r", "usr/lib/z-hard": "=>usr/lib/real", "lib": "->usr/lib", "up": "->../../..//usr",
                                  "loop": "->loop", "d/dangling": "->/nowhere", "abs": "->/usr/lib/real"}], formats=OCI),
            image("sixty-layers", [box, *[{f"d/{i:02}": f"{i}\n".encode()} for i in range(60)]]),
            image("run-is-a-link", [{**{k: v for k, v in box.items() if k != "run"}, "run": "->/var/run", "var/run": None}]),
            image("bare-directories", [{"bin/busybox": self.box, "bin/sh": "->busybox", "bin/find": "->busybox",
                                        "bin/sort": "->busybox", "bin/cat": "->busybox"}]),
            image("odd-names", [box, {"d/a b": b"", "d/new\nline": b"", "d/gr\u00fcn": b"", "d/-rf": b"", "d/" + "l" * 200: b"",
                                      "d/tbnode/init": b"not ours", "opt/tbnode": b""}]),
        ]

    def distributions(self):
        holds = {"ask": first_line, "log": rest_of_log}
        lines = [Line(x.options, ("/world", "exit", "0")) for x in few(2)]
        ubuntu = {"etc/os-release": b'NAME="Ubuntu"\nVERSION_ID="26.04"\nID=ubuntu\nID_LIKE=debian\n', "world": self.world}
        return [
            Fixture("alpine", "musl", "world", [self.alpine()], {"Cmd": ["/bin/sh"], "Env": [PATH]},
                    [*SHELL, *[Line(x.options, ("world", "exit", "0")) for x in few(0)]], formats=OCI, docker_builder=True,
                    node_command=("world", "hold"), **holds),
            Fixture("debian", "glibc, usrmerge", "bash", ["debian", {"world": self.world}], {"Cmd": ["bash"], "Env": [PATH]},
                    [*SHELL, *lines], docker_builder=True, node_command=("/world", "hold"), **holds),
            Fixture("debian-old", "glibc, no usrmerge", "bash", [self.without_usrmerge()], {"Cmd": ["bash"], "Env": [PATH]},
                    [*SHELL, *[Line(x.options, ("/world", "exit", "0")) for x in few(1)[:3]]], docker_builder=True, node_command=("/world", "hold"), **holds),
            Fixture("ubuntu", "glibc, usrmerge", "bash", ["debian", ubuntu],
                    {"Cmd": ["/bin/bash"], "Env": [PATH], "Labels": {"org.opencontainers.image.version": "26.04"}},
                    [Line(), Line(stdin="cat /etc/os-release; exit 2\n")], formats=OCI, node_command=("/world", "hold"), **holds),
        ]
