# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of /tbnode/init share: images in pairs, original and augmented, and a terminal.

The augmented image is made here, by the rules of augment/client/README.md, from the payload of the build: this tests
init and the payload, not the augmenter.
"""

import concurrent.futures
import contextlib
import fcntl
import gzip
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import unittest

import lab

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def augmented_config(config):
    """What augment/client/README.md says about the image configuration."""
    user = config.get("User", "")
    keep = ["--keep-home"] if any(re.match("HOME=.", e) for e in config.get("Env", [])) else []
    stop = ["--stop-signal", config["StopSignal"]] if config.get("StopSignal") else []
    return {**config, "Entrypoint": ["/tbnode/init", *(["--user", user] if user else []), *keep, *stop, "--level", "basic",
                                     "--", *(config.get("Entrypoint") or [])]}


class Images:
    """Images are loaded into the engine when they are first asked for."""

    def __init__(self, laboratory):
        self.lab = laboratory
        self.pairs = {}
        self.layers = self._bases()
        base = os.environ.get("TBNODE_PAYLOAD_DIR", f"{laboratory.build}/augment/payload")
        with open(f"{base}/amd64/basic.tar.gz", "rb") as f:
            self.payload = gzip.decompress(f.read())

    def _world(self):
        path = f"{self.lab.dir}/world"
        if not os.path.exists(path):
            source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "init-world.c")
            self.lab.run(["musl-gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", path, source])
        with open(path, "rb") as f:
            return f.read()

    def _bases(self):
        world = self._world()
        with open("/bin/busybox", "rb") as f:
            box = f.read()
        etc = {
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/usr/sbin/nologin\n"
                          b"app:x:1000:1000::/home/app:/bin/sh\nlost:x:1001:1001::/home/lost:/bin/zsh\n"
                          b"app:x:1002:1002::/second:/bin/sh\ntwin:x:1000:7::/twin:/bin/sh\nbad:x:y:z::/bad:/bin/sh\n"
                          b"4711:x:12:13::/number:/bin/sh\n",
            "etc/group": b"root:x:0:\nadm:x:4:root,app\napp:x:1000:\nextra:x:2000:app\nother:x:3000:\ntwice:x:2000:app\n"
                         b"bad:x:y:app\n77:x:78:\n2000:x:79:\n",
        }
        busy = {"bin/busybox": (box, 0o755), "bin/world": (world, 0o755), "tmp": None, "root": None, "home/app": None,
                "run": None, "data/file": b"not a program\n", "bin/script": (b"#!/bin/sh\nexec /bin/world \"$@\"\n", 0o755),
                "bin/nointerp": (b"#!/no/such/interpreter\n", 0o755), "bin/noformat": (b"\x7fELFjunk", 0o755),
                "bin/rootonly": (world, 0o700), **etc}
        for applet in self.lab.run(["/bin/busybox", "--list"]).out.split():
            busy.setdefault(f"bin/{applet}", "->busybox")
        layers = {"scratch": [{"world": (world, 0o755)}], "busybox": [busy]}
        if os.environ.get("TBNODE_LAB_DEBIAN"):
            with open(os.environ["TBNODE_LAB_DEBIAN"], "rb") as f:
                # Not below /bin: that is a symlink there.
                layers["debian"] = [f.read(), {"world": (world, 0o755)}]
        return layers

    def pair(self, name, base, config):
        """(NAME:original, NAME:augmented), in the engine."""
        if name not in self.pairs:
            config = {"Env": [PATH], **config}
            layers = self.layers[base]
            lab.images.build(self.lab, layers, config, name=f"{name}-original").load(f"{name}:original")
            lab.images.build(self.lab, [*layers, self.payload], augmented_config(config),
                             name=f"{name}-augmented").load(f"{name}:augmented")
            self.pairs[name] = (f"{name}:original", f"{name}:augmented")
        return self.pairs[name]


UMASK_RUNTIME = '''#!/usr/bin/python3
import json, os, sys
a = sys.argv
if "create" in a:
    path = os.path.join(a[a.index("--bundle") + 1], "config.json")
    with open(path) as f:
        spec = json.load(f)
    spec["process"]["user"]["umask"] = int(os.path.basename(a[0]).split("-")[1], 8)
    with open(path, "w") as f:
        json.dump(spec, f)
os.execv("/usr/sbin/runc", ["runc", *a[1:]])
'''


def umask_runtimes(laboratory, *masks):
    """Configuration of an engine that has runtimes umask-NNN, which give containers that umask."""
    runtimes = {}
    for mask in masks:
        path = f"{laboratory.dir}/umask-{mask}"
        with open(path, "w", encoding="ascii") as f:
            f.write(UMASK_RUNTIME)
        os.chmod(path, 0o755)
        runtimes[f"umask-{mask}"] = {"path": path}
    return {"runtimes": runtimes}


def noexec_directory(laboratory):
    """A directory for -v, on a file system from which nothing is executed, with a program and a script."""
    directory = laboratory.tmp("noexec")
    laboratory.run(["mount", "-t", "tmpfs", "-o", "noexec", "noexec", directory])
    for name, text in (("program", None), ("script", b"#!/bin/sh\n")):
        if text is None:
            with open("/bin/busybox", "rb") as f:
                text = f.read()
        with open(f"{directory}/{name}", "wb") as f:
            f.write(text)
        os.chmod(f"{directory}/{name}", 0o755)
    return directory


def world_of(text):
    """The first line as init-world.c wrote it, else as it is."""
    first = text.splitlines()[0] if text else "{}"
    try:
        return json.loads(first)
    except ValueError:
        return first


def errors_of(stderr):
    """Without what docker's client says, now and then, of its own waiting when a container could not be started."""
    return [x for x in stderr.splitlines() if not re.match(r'time="[^"]*" level=error msg="error waiting for container', x)]


class PairCase(unittest.TestCase):
    """Both images of a pair run with the same docker command line, several command lines at a time."""

    maxDiff = None
    L = None
    images = None

    def docker_run(self, image, options=(), command=()):
        return self.L.docker("run", "--rm", "--hostname", "h", *options, image, *command, check=False)

    def compare(self, cases):
        """cases: (image, options, command), image as for Images.pair(). Returns {case number: (original, augmented)}."""
        cases = list(cases)
        jobs = [(image, options, command) for i, options, command in cases for image in self.images.pair(*i)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda j: self.docker_run(*j), jobs))
        for n, (image, options, command) in enumerate(cases):
            with self.subTest(image=image[0], options=options, command=command):
                self.same(results[2 * n], results[2 * n + 1])
        return [(results[2 * n], results[2 * n + 1]) for n in range(len(cases))]

    def same(self, original, augmented):
        self.assertEqual(world_of(augmented.out), world_of(original.out), (original, augmented))
        self.assertEqual(augmented.out.splitlines()[1:], original.out.splitlines()[1:])
        self.assertEqual(augmented.rc, original.rc, (original, augmented))
        self.assertEqual(errors_of(augmented.err), errors_of(original.err))


class Terminal:
    """A docker command on a real terminal."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        self.child = subprocess.Popen(["/usr/bin/docker", *arguments], stdin=slave, stdout=slave, stderr=slave,
                                      start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(slave)
        self.text = ""

    def expect(self, pattern, timeout=30):
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

    def found(self, pattern):
        try:
            return self.expect(pattern, timeout=1)
        except AssertionError:
            return None

    def send(self, text):
        os.write(self.master, text.encode())

    def ask(self, command, pattern):
        """Sends it until the answer comes: for what the docker client does some time after the start."""
        lab.wait_for(lambda: (self.send(command), self.found(pattern))[1], 30, f"{command!r} to say {pattern!r}")

    def stop_and_go_on(self):
        """Job control. A key that is sent twice does no harm: at the prompt it only gives another one."""
        self.send("sh -c 'echo be\"\"gun; exec sleep 1000'\n")
        self.expect(r"begun\r\n")
        self.ask("\x1a", "Stopped")
        self.ask("\n", "# ")
        self.send("fg\n")
        self.expect(r"sleep 1000[\"']?\r\n")
        self.ask("\x03", "# ")
        self.ask("jobs; echo no''ne\n", r"none\r\n")

    def know_prompt(self):
        """One that nobody else prints: from here on it is known when the shell waits for input."""
        self.ask("PS1='wait''ing> '\n", "waiting> ")

    def signal_child(self, key):
        """The status of a foreground child that gets a key's signal. To be called at the known prompt."""
        self.send("sh -c 'echo be\"\"gun; exec sleep 1000'\n")
        self.expect(r"begun\r\n")
        self.ask(key, "waiting> ")  # at the prompt Ctrl-C means 130 once more, Ctrl-\\ nothing
        self.send("echo rc-$?\n")
        status = self.expect(r"rc-(\d+)\r\n").group(1)
        self.expect("waiting> ")
        return int(status)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def leave(self, command):
        """The status of docker's client when the shell has been told to go: again and again, as a line editor that has just printed
        its prompt may throw away what was typed."""
        def gone():
            with contextlib.suppress(OSError):
                self.send(command)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.child.wait(timeout=1) is not None
            return False
        lab.wait_for(gone, 30, f"the end after {command!r}")
        return self.close()

    def close(self):
        rc = self.child.wait(timeout=30)
        os.close(self.master)
        return rc
