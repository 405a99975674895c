#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Want of space, processes and descriptors, clocks that jump, registries and engines that fail in the middle of it: what becomes of
requests, that everything converges when the cause is gone, and that nothing is left behind."""

import concurrent.futures
import contextlib
import os
import re
import socketserver
import threading
import unittest

import lab

IMAGE = "busybox:1.36"
PARALLEL = 20
STATE, RUN = "/var/lib/tbnode", "/run/tbnode"


def setUpModule():
    global L
    L = lab.Lab.get()
    for path in (STATE, RUN):  # small enough to be filled
        os.makedirs(path, exist_ok=True)
        L.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs", path])
    L.tbnoded.start(config={"start-timeout": "30s"})
    for name in ("busybox:1.36", "other:1", "other:2", "other:3", "other:4"):
        lab.images.busybox(L, config={"Env": [f"NAME={name}"]}).push(L.hub, f"library/{name}")
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{L.dir}/key"])
    L.tbnode("augment", IMAGE, check=True)


def run(*args, **options):
    return L.tbnode("run", "--json", "--level", "none", *args, **options)


def nodes():
    return {n["container"]: n["state"] for n in L.tbnode("ps", "--json").json()["nodes"]}


def leftovers():
    networks = L.docker("network", "ls", "--format", "{{.Name}}").out.split()
    made = f"{STATE}/nodes"
    return (L.docker("ps", "-aq").out.split() + [n for n in networks if n.startswith("lan")] + L.traces()
            + (os.listdir(made) if os.path.isdir(made) else []))


@contextlib.contextmanager
def full(*folders):
    """Nothing more fits there."""
    for folder in folders:
        with open(f"{folder}/ballast", "wb", buffering=0) as f, contextlib.suppress(OSError):
            while f.write(bytes(4096)):
                pass
    try:
        yield
    finally:
        for folder in folders:
            os.unlink(f"{folder}/ballast")


class Base(unittest.TestCase):
    def tearDown(self):
        if not L.tbnoded.running:
            L.tbnoded.start(config={"start-timeout": "30s"})
        lab.wait_for(lambda: L.tbnode("ps", "--json").rc == 0, 30, "the agent to know its nodes")
        names = list(nodes())
        if names:
            L.tbnode("rm", *names, check=True)
        lab.wait_for(lambda: not leftovers(), 20, f"nothing to be left: {leftovers()}")

    def one_line(self, r, *words):
        self.assertEqual((1, "", 1), (r.rc, r.out, len(r.err.splitlines())), r)
        for w in words:
            self.assertIn(w, r.err)

    def usable(self):
        """After it: as if it had never been."""
        r = run("--name", "after", "--network", "lan0", "--shape", "rate 1mbit", IMAGE, "sleep", "1000")
        self.assertEqual(0, r.rc, r)
        lab.wait_for(lambda: nodes()["after"] == "configured", 20, "the node")
        L.tbnode("rm", "after", check=True)


class Space(Base):
    def test_full_disk(self):
        self.assertEqual(0, run("--name", "aa", "--network", "lan0", "--shape", "rate 1mbit", IMAGE, "sleep", "1000").rc)
        with full(STATE, RUN):
            self.one_line(L.tbnode("shape", "set", "aa", "lan0", "rate", "2mbit"), "No space left")
            self.assertEqual(1, Clock.rate("aa"), "a change that could not be kept was not made")
            self.one_line(run("--name", "bb", "--network", "lan1", "--ssh-key", f"{L.dir}/key.pub", "--level", "basic", IMAGE), "No space left")
            self.assertEqual(["aa"], list(nodes()))
            L.tbnoded.restart()  # what is there is read, and nothing more is needed
            lab.wait_for(lambda: nodes() == {"aa": "configured"}, 20, f"the node: {nodes()}")
            L.docker("run", "-d", "--name", "plain", "--network", "lan0", "--label", "tbnode.shape=rate 1mbit", L.docker(
                "inspect", "-f", "{{.Image}}", "aa").out.strip(), "sleep", "1000")
            lab.wait_for(lambda: nodes().get("plain") == "configured", 20, f"who needs no file: {nodes()}")
        self.assertEqual(0, L.tbnode("shape", "set", "aa", "lan0", "rate", "2mbit").rc)
        self.usable()

    def test_no_more_processes(self):
        """A limit of tasks, as systemd's TasksMax= is one."""
        group = f"/sys/fs/cgroup/pids/{L.id}-tasks"
        if not os.path.isdir("/sys/fs/cgroup/pids"):
            self.skipTest("no control group for numbers of processes (cgroup v1's pids)")
        os.makedirs(group)
        try:
            self.write(f"{group}/cgroup.procs", L.tbnoded.pid)
            self.write(f"{group}/pids.max", 1)
            with concurrent.futures.ThreadPoolExecutor(4) as pool:  # one of them may have the worker in reserve
                results = list(pool.map(lambda k: L.tbnode("augment", f"other:{k}"), range(1, 5)))
            failed = [r for r in results if r.rc != 0]
            self.assertGreaterEqual(len(failed), 3)
            for r in failed:
                self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())), r)
                self.assertIn("Resource temporarily unavailable", r.err)
            self.write(f"{group}/pids.max", "max")
            for k in range(1, 5):
                self.assertEqual(0, L.tbnode("augment", f"other:{k}").rc)
        finally:
            L.tbnoded.stop()
            lab.wait_for(lambda: self.rmdir(group), 20, "the control group to be empty")

    @staticmethod
    def write(path, value):
        with open(path, "w", encoding="ascii") as f:
            f.write(str(value))

    @staticmethod
    def rmdir(path):
        with contextlib.suppress(OSError):
            os.rmdir(path)
        return not os.path.exists(path)


class Clock(Base):
    def test_jumps(self):
        """Of the calendar's clock, which only the agent sees: nothing is over before or after its time, no event is missed."""
        jump = f"{L.dir}/clock"
        L.tbnoded.stop()
        self.set(jump, 0)
        L.tbnoded.start(config={"start-timeout": "30s"},
                        env={"LD_PRELOAD": f"{L.build}/tests/engine/clock-jump.so", "CLOCK_JUMP": jump})
        for k, by in enumerate((400 * 86400, -400 * 86400, 0)):
            name = f"n{k}"
            self.assertEqual(0, run("--name", name, "--network", "lan0", "--shape", "rate 1mbit", IMAGE, "sleep", "1000").rc)
            self.assertEqual(0, L.tbnode("shape", "set", name, "lan0", "rate", "2mbit", "for", "3s").rc)
            self.assertEqual(0, L.tbnode("shape", "set", "n0", "lan0", "rate", "3mbit", "for", "1000s").rc)
            self.set(jump, by)
            L.docker("restart", "-t", "0", name)  # its events are heard, whatever the clocks say
            lab.wait_for(lambda name=name: nodes()[name] == "configured", 20, f"the node: {nodes()}")
            lab.wait_for(lambda name=name, k=k: self.rate(name) == (3 if k == 0 else 1), 20, "the end of a short change")
            self.assertEqual(3, self.rate("n0"), "a long change goes on")
            L.dockerd.restart()
            lab.wait_for(lambda: L.tbnode("status", "--json").json()["engine"]["connected"], 30, "the engine")
            L.docker("start", *nodes())
            lab.wait_for(lambda: set(nodes().values()) == {"configured"}, 20, f"the nodes: {nodes()}")
        L.tbnoded.stop()

    @staticmethod
    def set(path, seconds):
        with open(f"{path}.new", "w", encoding="ascii") as f:
            f.write(str(seconds))
        os.rename(f"{path}.new", path)

    @staticmethod
    def rate(name):
        i = next(x for x in L.tbnode("inspect", "--json", name).json()["interfaces"] if x["network"] == "lan0")
        found = re.search(r"htb 7462:1 .* rate (\d+)Mbit", L.run(["tc", "class", "show", "dev", i["host_ifname"]], check=False).out)
        return int(found[1]) if found else None


class Answers(socketserver.StreamRequestHandler):
    """A registry that has lost its mind."""
    text = b""

    def handle(self):
        with contextlib.suppress(OSError):
            self.rfile.readline()
            self.wfile.write(self.text)


class Others(Base):
    def test_registry_in_the_middle_of_runs(self):
        server = None
        for text, words in ((b"\x00\xff garbage \r\n" * 100, ("127.0.0.1:5000",)), (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n"
                            b"Content-Length: 0\r\nConnection: close\r\n\r\n", ("429",)), (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
                            b"Content-Length: 5\r\nConnection: close\r\n\r\n<p>ok", ("127.0.0.1:5000",))):
            with self.subTest(text[:16]):
                L.local.stop()
                try:
                    Answers.text = text
                    socketserver.ThreadingTCPServer.allow_reuse_address = True
                    server = socketserver.ThreadingTCPServer(("127.0.0.1", 5000), Answers)
                    threading.Thread(target=server.serve_forever, daemon=True).start()
                    with concurrent.futures.ThreadPoolExecutor(4) as pool:
                        results = list(pool.map(lambda k: L.tbnode("run", "--json", "--network", "lan3", f"other:{k}"), range(1, 5)))
                    for r in results:
                        self.one_line(r, *words)
                finally:
                    server.shutdown()
                    server.server_close()
                    L.local.start()
                self.assertEqual([], leftovers())
                self.usable()

    def many(self, meanwhile):
        """Runs at once, and something happens when the first of them have a container; {name: Result}."""
        names = [f"m{k}" for k in range(PARALLEL)]
        with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
            results = {name: pool.submit(run, "--name", name, "--network", "lan0", "--shape", "rate 1mbit", IMAGE, "sleep", "1000")
                       for name in names}
            lab.wait_for(lambda: len(L.docker("ps", "-aq").out.split()) >= 3, 60, "the first containers")
            meanwhile()
            return {name: r.result() for name, r in results.items()}

    def only(self, good):
        """What was told to be there is; nothing else."""
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["engine"]["connected"], 30, "the engine")
        L.docker("start", *good) if good else None  # an engine that is killed takes its containers with it
        try:
            lab.wait_for(lambda: nodes() == dict.fromkeys(good, "configured"), 10, "the nodes")
        except lab.LabError as e:
            self.fail(f"{e}: {sorted(good)} are {nodes()}; {L.docker('ps', '-a').out}")
        names = L.docker("ps", "-a", "--format", "{{.Names}}").out.split()
        self.assertEqual(sorted(good), sorted(names))
        self.assertEqual(len(good), len(L.ifbs()))

    def test_engine_is_killed_in_the_middle_of_runs(self):
        def kill():
            L.dockerd.kill()
            L.dockerd.start()
        results = self.many(kill)
        for r in results.values():
            if r.rc != 0:
                self.one_line(r)
        self.only([name for name, r in results.items() if r.rc == 0])
        self.usable()

    def test_agent_is_killed_in_the_middle_of_runs(self):
        def kill():
            L.tbnoded.kill()
            L.tbnoded.start(config={"start-timeout": "30s"})
        results = self.many(kill)
        for r in results.values():
            if r.rc != 0:
                self.assertEqual(1, len(r.err.splitlines()), r)
        lab.wait_for(lambda: L.tbnode("ps", "--json").rc == 0, 30, "the agent to know its nodes")
        self.only([name for name, r in results.items() if r.rc == 0])
        self.usable()


if __name__ == "__main__":
    lab.main()
