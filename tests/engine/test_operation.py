#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an operator does: the package on a bare Debian, its upgrade with nodes running and its removal; reload, watchdog, completion."""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import lab

IMAGE = "127.0.0.1:5000/t/busybox:1"
DEBS = os.environ.get("TBNODE_DEBS", "/var/cache/tbnode/debs")
NOTIFY = "/run/notify-test"


def fetch_dependencies():
    """The Debian packages that the bare root lacks for ours, as apt chooses them; kept between runs."""
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from labkit import debian
    os.makedirs(DEBS + "/partial", exist_ok=True)
    with open(os.path.dirname(os.path.abspath(__file__)) + "/../../data/debian/control.in", encoding="utf-8") as f:
        depends = next(x for x in f if x.startswith("Depends:"))
    wanted = [w.split()[0] for w in depends.removeprefix("Depends:").split(",") if "@" not in w]
    wanted += ["libarchive13", "libcurl4", "libip4tc2", "libip6tc2", "libisal2", "libjansson4", "libmicrohttpd12", "libnl-3-200", "libnl-route-3-200",
               "libssl3", "libsystemd0", "libzstd1", "zlib1g", "libxtables12"]
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/status", "wb") as f:
            f.write(subprocess.run(["tar", "-xOf", debian.tarball(), "./var/lib/dpkg/status"], check=True, stdout=subprocess.PIPE).stdout)
        subprocess.run(["apt-get", "-qq", "-y", "-o", f"Dir::State::status={d}/status", "-o", f"Dir::Cache::archives={DEBS}", "-o", "Debug::NoLocking=1",
                        "-o", "Acquire::Retries=3", "--no-install-recommends", "--download-only", "install", *wanted], check=True, stdout=sys.stderr)


def setUpModule():
    global L
    L = lab.Lab.get()
    L.dockerd.ensure()
    L.local.ensure()
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    L.docker("network", "create", "lan0")


def start(name, *labels):
    args = [x for label in labels for x in ("--label", label)]
    L.docker("run", "-d", "--name", name, "--network", "lan0", *args, IMAGE, "sleep", "1000")


class Notify:
    """What systemd would be told."""

    def __init__(self, path=NOTIFY):
        if os.path.exists(path):
            os.unlink(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.lines = []

    def wait(self, word, timeout=20):
        deadline = time.monotonic() + timeout
        while True:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            self.lines += self.socket.recv(4096).decode().splitlines()
            if any(x.startswith(word) for x in self.lines):
                found = [x for x in self.lines if x.startswith(word)]
                self.lines = [x for x in self.lines if not x.startswith(word)]
                return found


class Base(unittest.TestCase):
    def tearDown(self):
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-f", *ids)


class Service(Base):
    def setUp(self):
        self.notify = Notify()

    def tearDown(self):
        super().tearDown()
        lab.wait_for(lambda: not L.traces(), 10, f"no traces: {L.traces()}")
        L.tbnoded.stop()
        self.notify.socket.close()

    def test_ready_watchdog_and_end(self):
        L.tbnoded.start(env={"NOTIFY_SOCKET": NOTIFY, "WATCHDOG_USEC": "1000000"})
        self.notify.wait("READY=1")
        self.notify.wait("STATUS=0 nodes")
        for _ in range(3):
            self.notify.wait("WATCHDOG=1", 5)
        os.kill(L.tbnoded.pid, signal.SIGSTOP)  # a loop that hangs says nothing: systemd would end it
        self.notify.lines.clear()
        with self.assertRaises(TimeoutError):
            while True:
                self.notify.wait("WATCHDOG=1", 2)
        os.kill(L.tbnoded.pid, signal.SIGCONT)
        self.notify.wait("WATCHDOG=1", 5)
        L.tbnoded.stop()
        self.notify.wait("STOPPING=1")

    def reload(self, **config):
        L.tbnoded.write_config(config)
        os.kill(L.tbnoded.pid, signal.SIGHUP)
        self.notify.wait("RELOADING=1")
        self.notify.wait("READY=1")
        events = [json.loads(x) for x in L.tbnode("events", "--json").out.splitlines()]
        return [e for e in events if e["event"].startswith("config-")][-1]

    def test_reload(self):
        L.tbnoded.start(env={"NOTIFY_SOCKET": NOTIFY}, config={"nodes-max": "1"})
        self.notify.wait("READY=1")
        start("aa", "tbnode.shape=rate 1mbit")
        lab.wait_for(lambda: L.tbnode("inspect", "aa").rc == 0, 10, "aa")
        pid = L.tbnoded.pid

        def made():
            r = L.tbnode("ps", "--json").json()["nodes"]
            return sorted(n["node"] for n in r)
        e = self.reload(**{"nodes-max": "0"})
        self.assertEqual("config-refused", e["event"])
        self.assertIn("tbnoded.conf:3:", e["reason"])
        e = self.reload(**{"nodes-max": "1", "operators-group": "no-such-group"})
        self.assertEqual("config-refused", e["event"])
        self.assertIn("no-such-group", e["reason"])
        start("bb", "tbnode.shape=rate 1mbit")
        self.assertEqual(["aa"], made(), "the old limit holds")
        L.docker("rm", "-f", "bb")
        e = self.reload(**{"nodes-max": "5", "tmcd": "off", "level": "core"})
        self.assertEqual(("config-reloaded", 2, "tmcd"), (e["event"], e["changed"], e["needs_restart"]))
        start("bb", "tbnode.shape=rate 1mbit")
        lab.wait_for(lambda: made() == ["aa", "bb"], 10, "the new limit")
        self.assertEqual(pid, L.tbnoded.pid)
        e = self.reload(**{"nodes-max": "5", "level": "core"})
        self.assertEqual((0, None), (e["changed"], e["needs_restart"]), "the other one is as it was at the start again")


class Completion(Base):
    def complete(self, line):
        script = f"""
        source {L.source}/data/completions/tbnode.bash
        COMP_LINE='{line}' COMP_POINT={len(line)}
        COMP_WORDS=({line}); [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        complete -p tbnode | grep -q -- '-F _tbnode' || exit 1
        _tbnode; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        env = {**os.environ, "PATH": f"{L.install()}:{os.environ['PATH']}"}
        return L.run(["bash", "-c", script], env=env).out.split()

    def test_bash(self):
        L.tbnoded.start()
        start("alpha", "tbnode.shape=rate 1mbit")
        start("alpine", "tbnode.shape=rate 1mbit")
        self.assertEqual(0, L.tbnode("augment", IMAGE).rc)
        lab.wait_for(lambda: len(L.tbnode("ps", "--json").json()["nodes"]) == 2, 10, "two nodes")
        verbs = self.complete("tbnode ")
        self.assertLessEqual({"augment", "run", "ps", "shape", "firewall", "status", "doctor", "--json"}, set(verbs))
        self.assertEqual(["shape"], self.complete("tbnode sh"))
        self.assertEqual({"alpha", "alpine"}, set(self.complete("tbnode inspect al")))
        self.assertEqual(["alpha"], self.complete("tbnode --json stop alpha"))
        self.assertEqual({"set", "show"}, set(self.complete("tbnode shape s")))
        self.assertEqual(["alpine"], self.complete("tbnode shape set alpi"))
        self.assertEqual(["lan0"], self.complete("tbnode shape set alpha l"))
        self.assertEqual({"basic", "buildenv"}, set(self.complete("tbnode augment --level b")))
        self.assertIn(IMAGE, self.complete("tbnode run "))
        self.assertIn("--policy", self.complete("tbnode run --po"))
        L.docker("rm", "-f", "alpha", "alpine")
        lab.wait_for(lambda: not L.traces(), 10, "no traces")
        L.tbnoded.stop()
        self.assertEqual([], self.complete("tbnode inspect "), "without an agent there is nothing, and no error")

    def test_zsh_accepts_its_file(self):
        if not shutil.which("zsh"):
            self.skipTest("there is no zsh")
        self.assertEqual("", L.run(["zsh", "-n", f"{L.source}/data/completions/_tbnode"]).err)


class Package(Base):
    """In a bare root: debootstrap's minimal Debian 12."""

    @classmethod
    def setUpClass(cls):
        cls.out = L.tmp("package")
        build = L.build
        options = json.loads(L.run(["meson", "introspect", "--buildoptions", build]).out)
        if next(o["value"] for o in options if o["name"] == "prefix") != "/usr":
            raise unittest.SkipTest("the build is not configured with -Dprefix=/usr")
        cls.deb = L.run([f"{L.source}/scripts/package", "--build", build, cls.out], timeout=300).out.strip().splitlines()[-1]
        cls.root = L.tmp("root")
        L.run(["tar", "-C", cls.root, "-xf", os.environ["TBNODE_LAB_DEBIAN"]], timeout=120)
        for what in ("run", "proc", "dev", "sys"):
            L.run(["mount", "--rbind", f"/{what}", f"{cls.root}/{what}"])
        os.makedirs(f"{cls.root}/debs")
        for path in glob.glob(f"{DEBS}/*.deb"):
            shutil.copy(path, f"{cls.root}/debs/")
        cls.chroot("sh", "-c", "dpkg -i /debs/*.deb", timeout=300)
        cls.before = cls.files()

    @classmethod
    def tearDownClass(cls):
        for what in ("run", "proc", "dev", "sys"):
            L.run(["umount", "-l", f"{cls.root}/{what}"], check=False)

    @classmethod
    def chroot(cls, *argv, check=True, **options):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "HOME": "/root", "TMPDIR": "/tmp"}
        return L.run(["chroot", cls.root, *argv], env=env, check=check, **options)

    @classmethod
    def files(cls):
        """All of the root but what dpkg keeps about itself, and what it makes of users."""
        found = set()
        for base, dirs, files in os.walk(cls.root):
            here = base[len(cls.root):]
            if here in ("/run", "/proc", "/dev", "/sys", "/var/lib/dpkg", "/var/log", "/var/cache", "/debs", "/tmp"):
                dirs.clear()
                continue
            found |= {f"{here}/{n}" for n in dirs + files}
        return {f for f in found if f not in ("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-")}

    def agent(self, notify, *args):
        p = subprocess.Popen(["chroot", self.root, "/usr/sbin/tbnoded", *args],
                             env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": NOTIFY})
        self.addCleanup(lambda: p.poll() is None and (p.kill(), p.wait()))
        notify.wait("READY=1")
        return p

    def stop(self, p):
        p.terminate()
        self.assertEqual(0, p.wait(20))

    def version(self, number):
        """The same package under another version."""
        d = f"{L.tmp('repack')}/{number}"
        L.run(["dpkg-deb", "-R", self.deb, d])
        control = open(f"{d}/DEBIAN/control", encoding="utf-8").read()
        old = next(x for x in control.splitlines() if x.startswith("Version:"))
        with open(f"{d}/DEBIAN/control", "w", encoding="utf-8") as f:
            f.write(control.replace(old, f"Version: {number}"))
        L.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", d, f"{self.root}/tmp/{number}.deb"])
        return f"/tmp/{number}.deb"

    def test_install_upgrade_and_purge(self):
        notify = Notify()
        self.addCleanup(notify.socket.close)
        os.makedirs(f"{self.root}/tmp", exist_ok=True)
        shutil.copy(self.deb, f"{self.root}/tmp/tbnode.deb")
        self.chroot("dpkg", "-i", "/tmp/tbnode.deb")
        for group in ("tbnode", "tbnode-operators"):
            self.chroot("getent", "group", group)
        self.chroot("getent", "passwd", "tbnode-worker")
        self.assertEqual("", self.chroot("dpkg", "--verify", "tbnode").out)
        missing = self.chroot("sh", "-c", "ldd /usr/bin/tbnode* /usr/sbin/tbnoded /usr/libexec/tbnode/* | grep 'not found'", check=False)
        self.assertEqual("", missing.out)

        # One line, and it runs.
        conf = f"{self.root}/etc/tbnode/tbnoded.conf"
        with open(conf, "a", encoding="utf-8") as f:
            f.write("registry=http://127.0.0.1:5000\n")
        self.assertIn("good", self.chroot("tbnoded", "--check-config").out)
        p = self.agent(notify)
        start("aa", "tbnode.shape=rate 3mbit", "tbnode.firewall=basic")

        def node():
            r = self.chroot("tbnode", "inspect", "--json", "aa", check=False)
            return r.rc == 0 and r.json()["state"] == "configured" and r.json()
        lab.wait_for(node, 20, "aa to be configured")
        self.assertEqual(0, self.chroot("tbnode", "augment", IMAGE).rc)
        self.assertEqual("hit", self.chroot("tbnode", "augment", "--json", IMAGE).json()["cache"])
        self.chroot("tbnode", "shape", "set", "aa", "lan0", "rate 2mbit")

        # An upgrade with a node running: nothing is written to the kernel, and what was changed is still so.
        self.chroot("dpkg", "-i", self.version("9.0"))
        self.assertTrue(open(conf, encoding="utf-8").read().endswith("registry=http://127.0.0.1:5000\n"), "the configuration is the operator's")
        self.stop(p)
        p = self.agent(notify)
        lab.wait_for(node, 20, "aa to be found again")
        self.assertIn("rate 2mbit", node()["interfaces"][0]["shape"])
        self.assertEqual(0, self.chroot("tbnode", "status", "--json").json()["counters"]["kernel_writes"])

        # The state of a version to come is refused, and says what to do; that of the first version is read.
        self.stop(p)
        state = f"{self.root}/var/lib/tbnode/state.json"
        now = json.load(open(state, encoding="utf-8"))
        with open(state, "w", encoding="utf-8") as f:
            json.dump({**now, "version": 4711}, f)
        r = self.chroot("tbnoded", check=False)
        self.assertEqual(1, r.rc)
        self.assertIn("version 4711", r.err)
        self.assertIn("move the file away", r.err)
        cid = L.docker("inspect", "-f", "{{.Id}}", "aa").out.strip()
        with open(state, "w", encoding="utf-8") as f:
            json.dump({"version": 1, "nodes": {cid: {"shapes": {"lan0": {"spec": "rate 4mbit", "keep": []}}}}}, f)
        p = self.agent(notify)
        lab.wait_for(lambda: node() and "rate 4mbit" in node()["interfaces"][0]["shape"], 20, "the older state")
        L.docker("rm", "-f", "aa")
        lab.wait_for(lambda: not L.traces(), 10, "no traces")
        self.stop(p)

        self.chroot("dpkg", "-r", "tbnode")
        self.assertTrue(os.path.exists(conf), "removing keeps the configuration")
        self.assertTrue(os.path.exists(state), "... and the state")
        self.chroot("dpkg", "-P", "tbnode")
        left = {f for f in self.files() - self.before if not f.startswith("/home")}
        self.assertEqual(set(), left)
        self.assertFalse(os.path.exists("/run/tbnode"))

    def test_lintian(self):
        if not shutil.which("lintian"):
            self.skipTest("there is no lintian")
        r = L.run(["lintian", "--allow-root", "--fail-on", "error,warning", self.deb], check=False, timeout=200)
        self.assertEqual(0, r.rc, r)
        self.assertEqual("", r.out.strip())


if __name__ == "__main__":
    if os.geteuid() == 0 and "TBNODE_LAB_STAGE" not in os.environ and not os.environ.get("TBNODE_LAB_DEBIAN"):
        fetch_dependencies()
    lab.main(debian=True)
