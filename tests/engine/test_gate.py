#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The start gate: nothing of a labelled container's reaches a wire before its links are shaped and its rules are there."""

import concurrent.futures
import fcntl
import json
import os
import signal
import subprocess
import time
import unittest

import lab

IMAGE = "127.0.0.1:5000/t/busybox:1"
CLOSED = "tbnode.firewall=closed"
SHAPE = "tbnode.shape=rate 10mbit"
STARTS = 1000 if os.environ.get("TBNODE_TEST_LONG") == "yes" else 15


def setUpModule():
    global L
    L = lab.Lab.get()
    start_engine()
    L.tbnoded.start()
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    L.docker("network", "create", "lan0")


def start_engine():
    runtimes = {"tbnode": {"path": f"{L.install()}/tbnode-runtime"}}
    runtimes["plain-crun"] = {"path": "/usr/bin/crun"}
    runtimes["tbnode-crun"] = {"path": f"{L.install()}/tbnode-runtime",
                               "runtimeArgs": ["--tbnode-config=/etc/tbnode/crun.conf"]}
    L.dockerd.start(config={"runtimes": runtimes})


def run(name, *labels, cmd=("sleep", "1000"), runtime="tbnode", network="lan0", options=(), check=True):
    args = [x for label in labels for x in ("--label", label)]
    return L.docker("run", "-d", "--runtime", runtime, "--name", name, "--network", network, *options, *args, IMAGE, *cmd,
                    check=check)


def node(name):
    r = L.tbnode("inspect", "--json", name)
    return r.json() if r.rc == 0 else None


def wait_state(name, wanted):
    return lab.wait_for(lambda: (n := node(name)) and n["state"] == wanted and n, 20, f"{name} to be {wanted}: {node(name)}")


def address(name, network="lan0"):
    return json.loads(L.docker("inspect", name).out)[0]["NetworkSettings"]["Networks"][network]["IPAddress"]


class Capture:
    """Counts what arrives at a container from addresses other than the host's, but ARP and what it asked for itself."""

    def __init__(self, name, expression):
        self.p = subprocess.Popen(["nsenter", "-n", "-t", str(L.container_pid(name)), "tcpdump", "-l", "-n", "-i", "eth0",
                                   "--immediate-mode", expression], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while "listening" not in self.p.stderr.readline():
            pass

    def stop(self):
        self.p.send_signal(signal.SIGINT)
        return [x for x in self.p.communicate()[0].splitlines() if x]


class Gate(unittest.TestCase):
    def tearDown(self):
        if not L.dockerd.running:
            start_engine()
        if not L.tbnoded.running:
            L.tbnoded.start()
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-f", *ids)
        lab.wait_for(lambda: not L.traces(), 20, f"no traces: {L.traces()}")

    def test_configured_before_it_runs(self):
        """When docker run returns, nothing has to be waited for: the node was configured before its program began."""
        run("aa", SHAPE, CLOSED)
        n = node("aa")
        self.assertIn(n["state"], ("configured", "starting", "configuring"))
        i = n["interfaces"][0]
        self.assertEqual({"htb"}, {q["kind"] for q in L.qdiscs(i["host_ifname"]) if q.get("root")})
        before = L.tbnode("status", "--json").json()["counters"]["kernel_writes"]
        wait_state("aa", "configured")
        L.docker("exec", "aa", "true")
        wait_state("aa", "configured")
        # The engine's own description, after the start, changes nothing.
        self.assertEqual(before, L.tbnode("status", "--json").json()["counters"]["kernel_writes"])
        self.assertEqual("10mbit", node("aa")["interfaces"][0]["up"]["shape"].split()[1])

    def test_first_packets_are_filtered(self):
        """A program whose first act is to send: none of its packets gets out, in any of many starts."""
        run("victim", runtime="runc")
        to = address("victim")
        capture = Capture("victim", "udp port 9999 or icmp")
        send = f"echo hello | nc -u -w 1 {to} 9999 & ping -c 2 -i 0.1 -W 1 {to}; sleep 1000"
        for i in range(STARTS):
            run(f"talker{i}", CLOSED, cmd=("sh", "-c", send))
            if i % 20 == 19:
                L.docker("rm", "-f", *[f"talker{k}" for k in range(i - 19, i + 1)])
        # The capture works: what comes from a container without label is seen.
        run("free", runtime="runc", cmd=("sh", "-c", send))
        lab.wait_for(lambda: L.docker("exec", "free", "ping", "-c", "1", "-W", "1", to, check=False).rc == 0, 10, "a ping")
        lines = capture.stop()
        free = address("free")
        self.assertTrue([x for x in lines if f"{free} > {to}" in x or f"{free}." in x])
        passed = [x for x in lines if free not in x]
        print(f"{STARTS} starts, {len(passed)} packets before the rules", flush=True)
        self.assertEqual([], passed)

    def answer(self, name):
        """The seconds that the agent takes to tell of a configured node."""
        began = time.monotonic()
        self.assertEqual("configured", node(name)["state"])
        return time.monotonic() - began

    def test_somebody_holds_the_iptables_lock(self):
        """The container waits for it and the agent does not; when it is free, rules are there before the first packet."""
        L.tbnoded.stop()
        L.tbnoded.start(config={"firewall": "iptables"})
        self.addCleanup(L.tbnoded.start)
        self.addCleanup(L.tbnoded.stop)
        run("victim", runtime="runc")
        to = address("victim")
        capture = Capture("victim", "icmp")
        run("old", "tbnode.firewall=open")
        wait_state("old", "configured")
        with concurrent.futures.ThreadPoolExecutor(2) as pool, open("/run/xtables.lock", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            talker = pool.submit(run, "talker", CLOSED, SHAPE, cmd=("sh", "-c", f"ping -c 2 -i 0.1 -W 1 {to}; sleep 1000"))
            lab.wait_for(lambda: "iptables lock" in ((node("talker") or {}).get("reason") or ""), 20, "the node to say what it waits for")
            self.assertEqual("configuring", node("talker")["state"])
            self.assertIn("another program holds the iptables lock", L.tbnode("ps").out)
            # Who waits for it in the loop answers after 5 s; a slow machine gets three chances.
            self.assertLess(min(max(self.answer("old") for _ in range(5)) for _ in range(3)), 4)
            # What needs no rule of iptables needs no lock; a change of rules waits as well.
            L.tbnode("shape", "set", "old", "eth0", "rate 5mbit")
            change = pool.submit(L.tbnode, "firewall", "set", "old", "closed")
            self.assertFalse(talker.done())
            fcntl.flock(lock, fcntl.LOCK_UN)
            self.assertEqual(0, talker.result().rc)
            self.assertEqual(0, change.result().rc)
            wait_state("talker", "configured")
            self.assertEqual("closed", node("old")["firewall"])
            L.docker("exec", "talker", "ping", "-c", "1", "-W", "1", to, check=False)
            self.assertEqual([], capture.stop())
            # What is removed waits, too.
            fcntl.flock(lock, fcntl.LOCK_EX)
            L.docker("rm", "-f", "talker")
            self.assertEqual("removing", lab.wait_for(lambda: node("talker")["state"] == "removing" and "removing", 10))
            self.assertEqual("configured", node("old")["state"])
            fcntl.flock(lock, fcntl.LOCK_UN)
            lab.wait_for(lambda: not node("talker"), 20, "its removal")

    def test_many_at_once(self):
        names = [f"n{i}" for i in range(12)]
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            for r in pool.map(lambda name: run(name, SHAPE, "tbnode.firewall=basic"), names):
                self.assertEqual(0, r.rc)
        for name in names:
            wait_state(name, "configured")

    def test_two_networks_are_told_apart(self):
        L.docker("network", "create", "-o", "com.docker.network.bridge.name=odd0", "odd")
        self.addCleanup(L.docker, "network", "rm", "odd", check=False)
        args = ("--label", "tbnode.shape.lan0=rate 3mbit", "--label", "tbnode.shape.odd=rate 7mbit")
        L.docker("create", "--runtime", "tbnode", "--name", "aa", "--network", "lan0", *args, IMAGE, "sleep", "1000")
        L.docker("network", "connect", "odd", "aa")
        L.docker("start", "aa")
        n = wait_state("aa", "configured")
        self.assertEqual({"lan0": "rate 3mbit", "odd": "rate 7mbit"},
                         {i["network"]: i["up"]["shape"].split(" limit")[0] for i in n["interfaces"]})
        L.docker("rm", "-f", "aa")

    def test_refusals_are_docker_s_own_error(self):
        r = run("aa", "tbnode.shape=rate 10elephants", check=False)
        self.assertNotEqual(0, r.rc)
        self.assertIn("10elephants", r.err)
        self.assertIn("tbnode", r.err)
        self.assertEqual("created", json.loads(L.docker("inspect", "aa").out)[0]["State"]["Status"])

    def test_agent_away(self):
        L.tbnoded.stop()
        r = run("plain", check=False)  # nobody asks for it
        self.assertEqual(0, r.rc, r.err)
        r = run("aa", SHAPE, check=False)
        self.assertNotEqual(0, r.rc)
        self.assertIn("tbnoded", r.err)
        self.assertIn("start it, or set gate=optional", r.err)
        L.tbnoded.write_config({"gate": "optional"})
        r = run("bb", SHAPE, check=False)
        self.assertEqual(0, r.rc, r.err)
        L.tbnoded.start()
        wait_state("bb", "configured")

    def test_agent_restarts_while_they_wait(self):
        L.tbnoded.signal(signal.SIGSTOP)
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(run, f"n{i}", SHAPE, check=False) for i in range(3)]
            lab.wait_for(lambda: len(L.run(["pgrep", "-fc", "tbnode-runtime .* start"], check=False).out.split()) and int(
                L.run(["pgrep", "-fc", "tbnode-runtime .* start"], check=False).out) >= 3, 20, "three that wait")
            L.tbnoded.kill()
            L.tbnoded.start()
            for w in waiting:
                r = w.result()
                self.assertEqual(0, r.rc, r.err)
        for i in range(3):
            wait_state(f"n{i}", "configured")

    def test_engine_is_killed_and_starts_them_anew(self):
        """Nobody tells that the last run ended, and what the engine leaves of it keeps nothing of ours."""
        names = [f"n{i}" for i in range(4)]
        for name in names:
            run(name, SHAPE, CLOSED, options=("--restart", "always"))
        first = {name: wait_state(name, "configured")["pid"] for name in names}
        L.dockerd.kill()
        start_engine()
        for name in names:
            lab.wait_for(lambda name=name: node(name)["pid"] not in (None, first[name]), 30, f"the new run of {name}: {node(name)}")
            wait_state(name, "configured")
        lab.wait_for(lambda: len(L.ifbs()) == 4, 20, f"one ifb each: {L.ifbs()}")
        used = {i for name in names for i in (node(name)["interfaces"][0]["host_ifname"], node(name)["interfaces"][0]["up"]["device"])}
        self.assertEqual(used, {q["dev"] for q in L.qdiscs() if q["kind"] == "htb"})

    def test_agent_without_a_free_descriptor(self):
        """Containers wait until there is one; the agent meanwhile does not turn in circles."""
        run("aa", SHAPE)
        wait_state("aa", "configured")
        pid = str(L.tbnoded.pid)
        limits = L.run(["prlimit", "--pid", pid, "--nofile", "--noheadings", "-o", "SOFT,HARD"]).out.split()
        L.run(["prlimit", "--pid", pid, f"--nofile=8:{limits[1]}"])

        def ticks():
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                return sum(int(x) for x in f.read().rsplit(") ", 1)[1].split()[11:13])

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(run, "bb", SHAPE, check=False)
            lab.wait_for(lambda: "no descriptor is free" in L.tbnoded.log(), 20, "the agent to say so")
            before = ticks()
            with self.assertRaises(concurrent.futures.TimeoutError):
                waiting.result(2)
            self.assertLess(ticks() - before, 100, "half of the time, had it been turning in circles")
            L.run(["prlimit", "--pid", pid, f"--nofile={limits[0]}:{limits[1]}"])
            self.assertEqual(0, waiting.result().rc, waiting.result())
        wait_state("bb", "configured")

    def test_restarts_go_through_the_gate(self):
        run("victim", runtime="runc")
        to = address("victim")
        capture = Capture("victim", "udp port 9999 or icmp")
        run("aa", CLOSED, cmd=("sh", "-c", f"ping -c 1 -W 1 {to}; exit 3"), options=("--restart", "on-failure:4"))
        lab.wait_for(lambda: json.loads(L.docker("inspect", "aa").out)[0]["RestartCount"] >= 4, 60, "four restarts")
        for _ in range(3):
            L.docker("restart", "-t", "0", "aa", check=False)
        self.assertEqual([], capture.stop())

    def test_engine_brings_them_up_before_it_answers(self):
        """After a reboot dockerd starts containers with a restart policy before its API is there."""
        run("aa", SHAPE, CLOSED, options=("--restart", "always", "--stop-timeout", "1"))
        run("bb", SHAPE, options=("--restart", "always", "--stop-timeout", "1"))
        wait_state("aa", "configured")
        L.dockerd.stop()
        start_engine()
        for name in ("aa", "bb"):
            n = wait_state(name, "configured")
            self.assertEqual({"htb"}, {q["kind"] for q in L.qdiscs(n["interfaces"][0]["host_ifname"]) if q.get("root")})

    def test_node_of_run(self):
        """tbnode run uses the gate when the engine has it."""
        r = L.tbnode("run", "--name", "ran", "--network", "lan0", "--shape", "rate 5mbit", "--level", "none", IMAGE, "sleep",
                     "1000", check=False)
        self.assertEqual(0, r.rc, r.err)
        self.assertEqual("tbnode", json.loads(L.docker("inspect", "ran").out)[0]["HostConfig"]["Runtime"])
        wait_state("ran", "configured")
        self.assertEqual(0, L.tbnode("rm", "ran", check=False).rc)

    def test_crun(self):
        plain = run("plain", runtime="plain-crun", check=False)
        if plain.rc != 0:
            self.skipTest(f"crun itself does not run here: {plain.err.strip()[-160:]}")
        os.makedirs("/etc/tbnode", exist_ok=True)
        with open("/etc/tbnode/crun.conf", "w", encoding="utf-8") as f:
            f.write("oci-runtime=crun\n")
        r = run("aa", SHAPE, runtime="tbnode-crun", check=False)
        self.assertEqual(0, r.rc, r.err)
        wait_state("aa", "configured")
        r = run("bb", "tbnode.shape=nonsense", runtime="tbnode-crun", check=False)
        self.assertIn("nonsense", r.err)


if __name__ == "__main__":
    lab.main()
