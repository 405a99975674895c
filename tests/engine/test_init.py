#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""/tbnode/init: docker run of the original and of the augmented image, side by side; and a node's life.

The augmented image is made here, by the rules of augment/client/README.md, from the payload of the build: this
tests init and the payload, not the augmenter.
"""

import gzip
import json
import os
import pty
import re
import select
import struct
import subprocess
import time
import unittest

import fcntl
import termios

import lab

L = None
KEY = None
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PAIRS = {}


def world_binary():
    path = f"{L.dir}/world"
    if not os.path.exists(path):
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "init-world.c")
        L.run(["musl-gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", path, source])
    with open(path, "rb") as f:
        return f.read()


def payload_layer():
    with open(f"{payload_dir()}/basic.tar.gz", "rb") as f:
        return gzip.decompress(f.read())


def payload_dir():
    base = os.environ.get("TBNODE_PAYLOAD_DIR", f"{L.build}/augment/payload")
    return f"{base}/amd64"


def augmented_config(config):
    """What augment/client/README.md says about the image configuration."""
    user = config.get("User", "")
    keep = ["--keep-home"] if any(re.match("HOME=.", e) for e in config.get("Env", [])) else []
    stop = ["--stop-signal", config["StopSignal"]] if config.get("StopSignal") else []
    new = dict(config)
    new["Entrypoint"] = ["/tbnode/init", *(["--user", user] if user else []), *keep, *stop, "--level", "basic", "--",
                         *(config.get("Entrypoint") or [])]
    return new


def bases():
    world = world_binary()
    with open("/bin/busybox", "rb") as f:
        box = f.read()
    etc = {
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/usr/sbin/nologin\napp:x:1000:1000::/home/app:/bin/sh\n"
                      b"lost:x:1001:1001::/home/lost:/bin/zsh\n",
        "etc/group": b"root:x:0:\nadm:x:4:root,app\napp:x:1000:\nextra:x:2000:app\nother:x:3000:\n",
    }
    busy = {"bin/busybox": (box, 0o755), "bin/world": (world, 0o755), "tmp": None, "root": None, "home/app": None,
            "run": None, "data/file": b"not a program\n", "bin/script": (b"#!/bin/sh\nexec /bin/world \"$@\"\n", 0o755),
            "bin/nointerp": (b"#!/no/such/interpreter\n", 0o755), "bin/noformat": (b"\x7fELFjunk", 0o755), **etc}
    for applet in L.run(["/bin/busybox", "--list"]).out.split():
        busy.setdefault(f"bin/{applet}", "->busybox")
    with open(os.environ["TBNODE_LAB_DEBIAN"], "rb") as f:
        debian = f.read()
    # Not below /bin: that is a symlink there.
    return {"scratch": [{"world": (world, 0o755)}], "busybox": [busy], "debian": [debian, {"world": (world, 0o755)}]}


def pair(name, base, config):
    """Loads NAME:original and NAME:augmented into the engine."""
    if name not in PAIRS:
        layers = BASES[base]
        config = {"Env": [PATH], **config}
        lab.images.build(L, layers, config, name=f"{name}-original").load(f"{name}:original")
        lab.images.build(L, [*layers, PAYLOAD], augmented_config(config), name=f"{name}-augmented").load(f"{name}:augmented")
        PAIRS[name] = (f"{name}:original", f"{name}:augmented")
    return PAIRS[name]


def setUpModule():
    global L, BASES, PAYLOAD, KEY
    L = lab.Lab.get()
    L.dockerd.start()
    BASES, PAYLOAD = bases(), payload_layer()
    KEY = f"{L.dir}/key"
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])


def run(image, options=(), command=()):
    return L.docker("run", "--rm", "--hostname", "h", *options, image, *command, check=False)


def world_of(result):
    first = result.out.splitlines()[0] if result.out else "{}"
    try:
        world = json.loads(first)
    except ValueError:
        return first
    return world


class Same(unittest.TestCase):
    """Each case runs both images with the same docker command line."""

    maxDiff = None

    def same(self, name, base, config, options=(), command=(), stderr=True):
        original, augmented = (run(i, options, command) for i in pair(name, base, config))
        self.assertEqual(world_of(augmented), world_of(original), (name, options, command, original, augmented))
        self.assertEqual(augmented.out.splitlines()[1:], original.out.splitlines()[1:])
        self.assertEqual(augmented.rc, original.rc, (original, augmented))
        if stderr:
            self.assertEqual(augmented.err, original.err)
        return original, augmented

    def test_worlds(self):
        images = {
            "scratch": ("scratch", {"Entrypoint": ["/world"], "Cmd": ["a", "b c", ""]}),
            "busybox": ("busybox", {"Cmd": ["world", "from", "path"]}),
            "name": ("busybox", {"Entrypoint": ["world"], "User": "app"}),
            "uid": ("busybox", {"Entrypoint": ["world"], "User": "1000"}),
            "uidgid": ("busybox", {"Entrypoint": ["world"], "User": "1000:3000"}),
            "namegroup": ("busybox", {"Entrypoint": ["world"], "User": "app:extra"}),
            "unknownuid": ("busybox", {"Entrypoint": ["world"], "User": "4711"}),
            "unknownboth": ("busybox", {"Entrypoint": ["world"], "User": "4711:4712"}),
            "rootuser": ("busybox", {"Entrypoint": ["world"], "User": "root"}),
            "zerouser": ("busybox", {"Entrypoint": ["world"], "User": "0:0"}),
            "home": ("busybox", {"Entrypoint": ["world"], "User": "app", "Env": [PATH, "HOME=/data"]}),
            "roothome": ("busybox", {"Entrypoint": ["world"], "User": "app", "Env": [PATH, "HOME=/root"]}),
            "scratchuid": ("scratch", {"Entrypoint": ["/world"], "User": "1000:1000"}),
            "script": ("busybox", {"Entrypoint": ["script"], "Cmd": ["x"]}),
            "workdir": ("busybox", {"Entrypoint": ["world"], "WorkingDir": "/made/by/docker"}),
            "relative": ("busybox", {"Entrypoint": ["./world"], "WorkingDir": "/bin"}),
            "relativepath": ("busybox", {"Entrypoint": ["world"], "WorkingDir": "/", "Env": ["PATH=bin:/nowhere"]}),
            "odd": ("busybox", {"Entrypoint": ["world", "--", "--user", "x"], "Env": [PATH, "E=", "S=a b  c", "Q='\"$x\\", "N=1\n2"]}),
            "shellform": ("busybox", {"Entrypoint": ["/bin/sh", "-c", "exec world $0 \"$@\""], "Cmd": ["p", "q r"]}),
        }
        lines = [(), ("--init",), ("-t",), ("--read-only",), ("--security-opt", "no-new-privileges")]
        images["debian"] = ("debian", {"Entrypoint": ["/world"], "User": "www-data:adm", "WorkingDir": "/srv"})
        images["debianname"] = ("debian", {"Cmd": ["bash", "-c", "exec /world \"$@\"", "x", "y"], "User": "backup"})
        thorough = {"scratch", "debian", "busybox", "name", "scratchuid", "script"}
        for name, (base, config) in images.items():
            for options in lines if name in thorough else lines[:1]:
                with self.subTest(image=name, options=options):
                    self.same(name, base, config, options, stderr=name != "relativepath")

    def test_user_options(self):
        app = ("name", "busybox", {"Entrypoint": ["world"], "User": "app"})
        root = ("busybox", "busybox", {"Cmd": ["world", "from", "path"]})
        for image in (app, root):
            for options in (("--user", "1000"), ("--user", "app:other"), ("--user", "4711:5"), ("--group-add", "3000"),
                            ("--group-add", "other", "--group-add", "77"), ("-e", "HOME=/x"), ("-w", "/tmp"),
                            ("--tmpfs", "/run:noexec"), ("--pid", "host"), ("--ulimit", "nofile=100:200"),
                            ("-e", "PATH=/bin", "-e", "NEW=1"), ("--network", "none"), ("-i",)):
                with self.subTest(image=image[0], options=options):
                    self.same(*image, options)
        for image in (app, root):
            for options in (("--cap-drop", "ALL"), ("--user", "root"), ("--entrypoint", "/bin/world"), ("-e", "HOME=")):
                with self.subTest(image=image[0], options=options):
                    self.same(*image, options, ("world", "z"))
        self.same(*root, (), ("echo", "exactly  this"))
        self.same(*root, (), ("sh", "-c", "echo out; echo err >&2; exit 4"))

    def test_exit_statuses(self):
        image = ("busybox", "busybox", {"Cmd": ["world", "from", "path"]})
        for command in (("world", "exit", "0"), ("world", "exit", "3"), ("world", "exit", "255")):
            self.same(*image, (), command)
        # PID 1 survives a signal that it sends itself by default action (the kernel protects it), another process dies of it.
        for signal in (9, 15, 6, 11, 2):
            for options in ((), ("--init",)):
                with self.subTest(signal=signal, options=options):
                    self.same(*image, options, ("world", "kill", str(signal)))

    def test_programs_that_cannot_run(self):
        image = ("busybox", "busybox", {"Cmd": ["world", "from", "path"]})
        for command in (("nosuch",), ("/no/such",), ("/data/file",), ("/data",), ("file",), ("/bin/nointerp",), ("/bin/noformat",)):
            with self.subTest(command=command):
                original, augmented = (run(i, (), command) for i in pair(*image))
                self.assertEqual(augmented.rc, original.rc, (original, augmented))
                self.assertEqual(augmented.out, "")
                self.assertEqual(len(augmented.err.splitlines()), 1, augmented)

    def test_unknown_user(self):
        image = ("nobody", "busybox", {"Cmd": ["world"], "User": "nosuch"})
        original, augmented = (run(i) for i in pair(*image))
        self.assertNotEqual(original.rc, 0)
        self.assertEqual(augmented.rc, original.rc, augmented)
        for r in (original, augmented):
            self.assertIn("unable to find user nosuch: no matching entries in passwd file", r.err)

    def test_no_command(self):
        for image in pair("nothing", "busybox", {}):
            r = run(image)
            self.assertEqual(r.rc, 125, r)
            self.assertIn("o command specified", r.err)

    def test_orphans(self):
        """A program that is PID 1 and doesn't wait has zombies; under --init it has not."""
        image = ("busybox", "busybox", {"Cmd": ["world", "from", "path"]})
        for options, zombies in (((), 1), (("--init",), 0)):
            _, augmented = self.same(*image, options, ("world", "orphan"))
            self.assertEqual(json.loads(augmented.out.splitlines()[-1]), {"zombies": zombies})

    def test_stdin(self):
        for image in pair("busybox", "busybox", {"Cmd": ["world", "from", "path"]}):
            r = L.docker("run", "--rm", "-i", image, "sha256sum", input="some\0bytes\n" * 1000)
            self.assertEqual(len(r.out.split()[0]), 64)
            PAIRS.setdefault("sum", r.out)
            self.assertEqual(r.out, PAIRS["sum"])

    def test_stop_signals(self):
        for name, signal, number in (("term", None, 15), ("quit", "SIGQUIT", 3), ("winch", "SIGWINCH", 28), ("usr1", "USR1", 10),
                                     ("int", "SIGINT", 2), ("hup", "1", 1), ("rtmin", "SIGRTMIN", 34), ("rtmin3", "SIGRTMIN+3", 37),
                                     ("rtmax", "SIGRTMAX", 64)):
            config = {"Entrypoint": ["/world"], "Cmd": ["hold"], **({"StopSignal": signal} if signal else {})}
            for options in ((), ("-t",), ("--init",)) if name in ("term", "rtmin3") else ((),):
                with self.subTest(signal=signal, options=options):
                    for image in pair(f"stop-{name}", "scratch", config):
                        container = L.docker("run", "-d", *options, image).out.strip()
                        lab.wait_for(lambda: L.docker("logs", container).out, 10, "output")
                        started = time.monotonic()
                        L.docker("stop", "-t", "8", container)
                        took = time.monotonic() - started
                        self.assertEqual(json.loads(L.docker("logs", container).out.splitlines()[-1]), {"signal": number})
                        state = L.docker("inspect", "-f", "{{.State.ExitCode}}", container).out.strip()
                        self.assertEqual(state, "0")
                        self.assertLess(took, 6, "it was killed, not stopped")
                        L.docker("rm", "-f", container)

    def test_health_check_runs_as_the_images_user(self):
        check = {"Test": ["CMD-SHELL", "id -u; echo $HOME; pwd"], "Interval": 10**9}
        config = {"Entrypoint": ["world", "hold"], "User": "app", "Healthcheck": check, "WorkingDir": "/tmp"}
        outputs = []
        for image in pair("health", "busybox", config):
            container = L.docker("run", "-d", image).out.strip()
            log = lambda: json.loads(L.docker("inspect", "-f", "{{json .State.Health.Log}}", container).out or "[]")
            lab.wait_for(log, 20, "a health check")
            outputs.append([(e["ExitCode"], e["Output"]) for e in log()[:1]])
            L.docker("rm", "-f", container)
        self.assertEqual(outputs[0], [(0, "1000\n/home/app\n/tmp\n")])
        self.assertEqual(outputs[1], outputs[0])


class Terminal:
    """docker run -it on a real terminal."""

    def __init__(self, image, *command, options=()):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        self.child = subprocess.Popen(["/usr/bin/docker", "run", "--rm", "-it", *options, image, *command], stdin=slave,
                                      stdout=slave, stderr=slave, start_new_session=True,
                                      preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.text = ""

    def expect(self, pattern, timeout=15):
        end = time.monotonic() + timeout
        while True:
            m = re.search(pattern, self.text)
            if m:
                self.text = self.text[m.end():]
                return m
            if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {pattern!r} in {self.text!r}")
            try:
                self.text += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"ended without {pattern!r}: {self.text!r}")

    def send(self, text):
        os.write(self.master, text.encode())

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self):
        rc = self.child.wait(timeout=20)
        os.close(self.master)
        return rc


class Interactive(unittest.TestCase):
    def test_shell_with_job_control(self):
        images = [(i, "sh") for i in pair("busybox", "busybox", {"Cmd": ["world", "from", "path"]})]
        images += [(i, "bash") for i in pair("debianroot", "debian", {"Cmd": ["bash"]})]
        for image, shell in images:
            for options in ((), ("--init",)):
                with self.subTest(image=image, options=options):
                    t = Terminal(image, shell, options=options)
                    t.expect("# ")
                    # The client tells the size after the start.
                    lab.wait_for(lambda: (t.send("stty size\n"), self.found(t, r"33 111\r\n"))[1], 10, "the size")
                    t.send("sleep 1000\n")
                    time.sleep(0.3)
                    t.send("\x03")
                    t.expect("# ")
                    t.send("echo rc-$?\n")
                    t.expect(r"rc-130\r\n")
                    t.send("sleep 1000\n")
                    time.sleep(0.3)
                    t.send("\x1a")
                    t.expect(r"Stopped")
                    t.send("kill %1; fg; echo gone-$?\n")
                    t.expect(r"gone-143\r\n")
                    t.resize(44, 122)
                    lab.wait_for(lambda: (t.send("stty size\n"), self.found(t, r"44 122\r\n"))[1], 10, "the new size")
                    t.send("exit 9\n")
                    self.assertEqual(t.close(), 9)

    @staticmethod
    def found(t, pattern):
        try:
            return t.expect(pattern, timeout=1)
        except AssertionError:
            return None


class Node(unittest.TestCase):
    def start(self, image, conf="on-exit=stay\nnode=n1\nexperiment=e1\n", options=(), command=()):
        """As the agent does it: root starts the node, and init is told who main is."""
        directory = L.tmp("node")
        user = L.docker("image", "inspect", "-f", "{{.Config.User}}", image).out.strip()
        if user:
            options = ("--user", "0", *options)
            conf += f"user={user}\n"
        with open(f"{directory}/node.conf", "w", encoding="ascii") as f:
            f.write(conf)
        with open(f"{KEY}.pub", encoding="ascii") as f, open(f"{directory}/authorized_keys", "w", encoding="ascii") as g:
            g.write(f.read())
        container = L.docker("run", "-d", "--hostname", "h", "-v", f"{directory}:/tbnode/run:ro", *options, image,
                             *command).out.strip()
        self.addCleanup(L.docker, "rm", "-f", container, check=False)
        return container

    def address(self, container):
        return L.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container).out.strip()

    def ssh(self, container, *command, user="root", options=(), **kwargs):
        argv = ["ssh", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                "-o", "BatchMode=yes", *options, f"{user}@{self.address(container)}", *command]
        return L.run(argv, check=False, **kwargs)

    def reachable(self, container):
        lab.wait_for(lambda: self.ssh(container, "true").rc == 0, 15, "sshd")

    def in_container(self, container, path):
        """What the agent does: read through /proc/PID/root."""
        try:
            with open(f"/proc/{L.container_pid(container)}/root{path}", encoding="utf-8") as f:
                return f.read()
        except OSError:
            return None

    def exit_code(self, container):
        return int(L.docker("wait", container, timeout=30).out)

    IMAGES = [("scratch-hold", "scratch", {"Entrypoint": ["/world"], "Cmd": ["hold"]}),
              ("busybox-hold", "busybox", {"Entrypoint": ["world"], "Cmd": ["hold"], "User": "app"})]

    def test_login(self):
        for image in self.IMAGES:
            for options in ((), ("--read-only",), ("--init",), ("--cap-drop", "ALL") if "User" not in image[2] else ()):
                with self.subTest(image=image[0], options=options):
                    c = self.start(pair(*image)[1], options=options)
                    self.reachable(c)
                    r = self.ssh(c, "id -u; echo out; echo err >&2; exit 7")
                    self.assertEqual((r.rc, r.out, r.err), (7, "0\nout\n", "err\n"))
                    r = self.ssh(c, "sv status main sshd")
                    self.assertIn("run: main: ", r.out)
                    self.assertIn("run: sshd: ", r.out)
                    r = self.ssh(c, "tty; exit 3", options=("-tt",))
                    self.assertEqual((r.rc, r.out.strip()), (3, "/dev/pts/0"))
                    # No environment of the container's in a session, and no descriptor of init's.
                    r = self.ssh(c, "env; ls -l /proc/self/fd")
                    self.assertNotIn("TBNODE_FDS", r.out)
                    self.assertNotIn("memfd", r.out)

    def test_main_is_the_same_as_in_the_original(self):
        for image in self.IMAGES:
            for options in ((), ("-t",), ("--read-only",), ("--init",)):
                with self.subTest(image=image[0], options=options):
                    original, augmented = pair(*image)
                    plain = L.docker("run", "-d", "--hostname", "h", *options, original).out.strip()
                    self.addCleanup(L.docker, "rm", "-f", plain, check=False)
                    node = self.start(augmented, options=options)
                    worlds = []
                    for c in (plain, node):
                        lab.wait_for(lambda: L.docker("logs", c).out, 15, "output")
                        logs = L.docker("logs", c)
                        self.assertEqual(logs.err, "")
                        self.assertEqual(len(logs.out.splitlines()), 1)
                        worlds.append(json.loads(logs.out))
                    if "-t" in options or "--init" in options:
                        # The terminal stays init's, for a main that is started again; under --init nobody leads a session twice.
                        for w in worlds:
                            w.pop("leads_session")
                    self.assertEqual(worlds[1], worlds[0])

    def test_debian(self):
        c = self.start(pair("debianroot", "debian", {"Cmd": ["bash"]})[1], command=("sleep", "infinity"))
        self.reachable(c)
        r = self.ssh(c, "echo $SHELL $PATH; ls /bin/ls; command -v vi")
        self.assertEqual(r.out, f"/bin/bash {PATH[5:]}:/tbnode/bin\n/bin/ls\n/tbnode/bin/vi\n")
        self.assertEqual(self.ssh(c, "id -un", user="root").out, "root\n")

    def test_without_root_only_the_program_runs(self):
        c = self.start(pair("box", "busybox", {"Cmd": ["sh", "-c", "exit 3"]})[1], options=("--user", "1000"))
        self.assertEqual(self.exit_code(c), 3)
        self.assertIn("no place to write", L.docker("logs", c).err)

    def test_users(self):
        c = self.start(pair(*self.IMAGES[1])[1])
        self.reachable(c)
        self.assertEqual(self.ssh(c, "id -u; id -G; echo $HOME; echo $SHELL", user="app").out,
                         "1000\n1000 4 2000\n/home/app\n/bin/sh\n")
        self.assertEqual(self.ssh(c, "echo $SHELL", user="lost").out, "/tbnode/bin/sh\n")
        self.assertEqual(self.ssh(c, "true", user="daemon").rc, 255, "nologin lets nobody in")
        self.assertEqual(self.ssh(c, "true", user="nosuch").rc, 255)
        L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{L.tmp('k')}/other"])
        r = L.run(["ssh", "-v", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
                   "BatchMode=yes", "-i", "/nonexistent", f"root@{self.address(c)}", "true"], check=False)
        self.assertEqual(r.rc, 255)
        self.assertRegex(r.err, r"Authentications that can continue: publickey\s")

    def test_copies(self):
        c = self.start(pair(*self.IMAGES[0])[1])
        self.reachable(c)
        directory = L.tmp("copy")
        data = os.urandom(3_000_000)
        with open(f"{directory}/up", "wb") as f:
            f.write(data)
        base = ["scp", "-O", "-q", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        L.run([*base, f"{directory}/up", f"root@{self.address(c)}:/file"])
        L.run([*base, f"root@{self.address(c)}:/file", f"{directory}/down"])
        with open(f"{directory}/down", "rb") as f:
            self.assertEqual(f.read(), data)

    def test_many_sessions_at_once(self):
        c = self.start(pair(*self.IMAGES[0])[1])
        self.reachable(c)
        argv = ["ssh", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                f"root@{self.address(c)}", "echo yes"]
        sessions = [subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(20)]
        self.assertEqual([s.communicate(timeout=60)[0] for s in sessions], [b"yes\n"] * 20)

    def test_stays_when_main_has_ended(self):
        image = pair("box", "busybox", {"Cmd": ["sh", "-c", "exit 3"]})[1]
        c = self.start(image)
        lab.wait_for(lambda: self.in_container(c, "/run/tbnode/main.status"), 10, "main.status")
        self.assertEqual(self.in_container(c, "/run/tbnode/main.status"), "exited 3\n")
        self.reachable(c)
        self.assertIn("down: main:", self.ssh(c, "sv status main").out)
        started = time.monotonic()
        L.docker("stop", "-t", "9", c)
        self.assertLess(time.monotonic() - started, 6)
        self.assertEqual(self.exit_code(c), 3)
        self.assertEqual(L.docker("logs", c).err, "")

    def test_signal_death_is_told(self):
        c = self.start(pair("box", "busybox", {"Cmd": ["sh", "-c", "exit 3"]})[1], command=("sh", "-c", "kill -9 $$"))
        lab.wait_for(lambda: self.in_container(c, "/run/tbnode/main.status"), 10, "main.status")
        self.assertEqual(self.in_container(c, "/run/tbnode/main.status"), "signaled 9\n")
        L.docker("stop", c)
        self.assertEqual(self.exit_code(c), 137)

    def test_on_exit_stop(self):
        for command, code in ((("sh", "-c", "exit 3"), 3), (("sh", "-c", "kill -6 $$"), 134), (("nosuch",), 127), (("/data/file",), 126)):
            c = self.start(pair("box", "busybox", {"Cmd": ["sh", "-c", "exit 3"]})[1], "on-exit=stop\n", command=command)
            self.assertEqual(self.exit_code(c), code, command)

    def test_on_exit_restart(self):
        c = self.start(pair("box", "busybox", {"Cmd": ["sh", "-c", "exit 3"]})[1], "on-exit=restart\n",
                       command=("sh", "-c", "echo run >> /tmp/runs; exec sleep 0.2"))
        lab.wait_for(lambda: (self.in_container(c, "/tmp/runs") or "").count("run") >= 3, 15, "three runs")
        started = time.monotonic()
        L.docker("stop", "-t", "9", c)
        self.assertLess(time.monotonic() - started, 7)

    def test_sv_restarts_main_once(self):
        c = self.start(pair("box", "busybox", {"Cmd": ["sh", "-c", "exit 3"]})[1],
                       command=("sh", "-c", "echo run >> /tmp/runs; trap 'exit 8' TERM; sleep 1000 & wait"))
        self.reachable(c)
        self.assertEqual(self.ssh(c, "sv restart main").rc, 0)
        lab.wait_for(lambda: self.in_container(c, "/tmp/runs") == "run\nrun\n", 10, "the second run")
        self.assertIsNone(self.in_container(c, "/run/tbnode/main.status"))
        self.assertEqual(self.ssh(c, "sv stop main; cat /run/tbnode/main.status").out.splitlines()[-1], "exited 8")
        self.assertEqual(self.ssh(c, "sv start main").rc, 0)
        lab.wait_for(lambda: self.in_container(c, "/tmp/runs") == "run\nrun\nrun\n", 10, "the third run")
        self.ssh(c, "pkill -KILL -f 'trap .exit 8'")
        lab.wait_for(lambda: self.in_container(c, "/run/tbnode/main.status"), 10, "main.status")
        self.assertEqual(self.in_container(c, "/tmp/runs"), "run\nrun\nrun\n")

    def test_stop_signals(self):
        for name, signal, number in (("term", None, 15), ("quit", "SIGQUIT", 3), ("winch", "SIGWINCH", 28), ("rtmin3", "SIGRTMIN+3", 37)):
            config = {"Entrypoint": ["/world"], "Cmd": ["hold"], **({"StopSignal": signal} if signal else {})}
            with self.subTest(signal=signal):
                c = self.start(pair(f"stop-{name}", "scratch", config)[1])
                lab.wait_for(lambda: L.docker("logs", c).out, 10, "output")
                started = time.monotonic()
                L.docker("stop", "-t", "9", c)
                self.assertLess(time.monotonic() - started, 7, "it was killed, not stopped")
                self.assertEqual(json.loads(L.docker("logs", c).out.splitlines()[-1]), {"signal": number})
                self.assertEqual(self.exit_code(c), 0)

    def test_stop_with_somebody_logged_in(self):
        c = self.start(pair(*self.IMAGES[0])[1])
        self.reachable(c)
        session = subprocess.Popen(["ssh", "-tt", "-i", KEY, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                                    f"root@{self.address(c)}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(session.wait)
        self.addCleanup(session.kill)
        session.stdin.write(b"echo in-$((1+1))\n")
        session.stdin.flush()
        while b"in-2" not in session.stdout.readline():
            pass
        started = time.monotonic()
        L.docker("stop", "-t", "9", c)
        self.assertLess(time.monotonic() - started, 7)
        for stream in (session.stdin, session.stdout, session.stderr):
            stream.close()

    def test_restart_keeps_host_keys_and_a_copy_gets_its_own(self):
        def key(container):
            out = L.run(["ssh-keyscan", "-t", "ed25519", self.address(container)], check=False).out
            return out.split()[-1] if out else None

        c = self.start(pair(*self.IMAGES[0])[1])
        self.reachable(c)
        first = key(c)
        L.docker("restart", "-t", "5", c)
        self.reachable(c)
        self.assertEqual(key(c), first)
        L.docker("commit", c, "snapshot:1")
        other = self.start("snapshot:1", "node=n2\nexperiment=e1\n")
        self.reachable(other)
        self.assertNotEqual(key(other), first)

    def test_syslog(self):
        c = self.start(pair(*self.IMAGES[1])[1])
        self.reachable(c)
        self.ssh(c, "logger -t probe 'a line'")
        self.assertIn("probe: a line", self.in_container(c, "/run/tbnode/log/messages"))
        self.assertIn("Pubkey auth succeeded", self.in_container(c, "/run/tbnode/log/messages"))
        self.ssh(c, "yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | head -20000 | logger")
        size = int(self.ssh(c, "du -k /run/tbnode/log | cut -f1").out)
        self.assertLess(size, 700)


if __name__ == "__main__":
    lab.main(debian=True)
