#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The firewall of plain containers with labels: what passes, what the agent says of it, and what it does when somebody else
takes rules away."""

import concurrent.futures
import difflib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import unittest

import lab

IMAGE = "127.0.0.1:5000/t/busybox:1"
LISTEN = ("import socket, sys\ns = socket.create_server(('', int(sys.argv[1])))\nprint('ready', flush=True)\n"
          "while True:\n    c, _ = s.accept()\n    c.sendall(b'hello')\n    c.close()\n")
CONNECT = "import socket, sys\nprint(socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).recv(5).decode())"


OURS = ("bridge", "tbnode-guard"), ("inet", "tbnode")
FLAPS = 1000 if os.environ.get("TBNODE_TEST_LONG") == "yes" else 10
# What most of these tests take away and look for is in the legacy tables.
BACKEND = {"firewall": "iptables"}


def setUpModule():
    global L
    L = lab.Lab.get()
    L.tbnoded.start(config=BACKEND)
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    L.docker("network", "create", "lan0")


def inspect(name):
    r = L.tbnode("inspect", "--json", name)
    return r.json() if r.rc == 0 else {}


def start(name, *labels, network="lan0", ready=True):
    args = [x for label in labels for x in ("--label", label)]
    L.docker("run", "-d", "--name", name, "--network", network, *args, IMAGE, "sleep", "100000")
    if ready and labels:
        lab.wait_for(lambda: inspect(name).get("state") == "configured", 15, f"{name} to be configured: {inspect(name)}")
    return L.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name).out.strip()


def show(name=None):
    return L.tbnode("firewall", "show", *([name] if name else []), "--json").json()["nodes"]


def events(kind):
    return [e for e in map(json.loads, L.tbnode("events", "--json").out.splitlines()) if e["event"] == kind]


def open_files():
    return len(os.listdir(f"/proc/{L.tbnoded.process.pid}/fd"))


def kernel():
    return [sorted(x) for x in (L.iptables(), L.ip6tables(), listed("nft"))]


def flap():
    """One that comes and goes, three at a time, killed or ending by itself: nothing of it is left in the kernel or in the agent."""
    def one(k):
        L.docker("run", "-d", "--name", f"ff{k}", "--network", "lan0", "--label", "tbnode.firewall=closed; allow tcp to port 80",
                 "--label", f"tbnode.experiment=e{k % 2}", IMAGE, *(("true",) if k % 2 else ("sleep", "1000")))
        L.docker("rm", "-f", f"ff{k}")

    start("aa", "tbnode.firewall=closed")
    one(0)
    lab.wait_for(lambda: len(L.tbnode("ps", "--json").json()["nodes"]) == 1, 20, "one node is left")
    files, before = open_files(), kernel()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(one, range(1, FLAPS)))
    # Connections to the engine and the registry are kept for a while: a few more or fewer files are no leak.
    try:
        lab.wait_for(lambda: kernel() == before and open_files() < files + min(FLAPS, 10), 20, f"all to be as before {FLAPS} flaps")
    except lab.LabError as e:
        raise lab.LabError(f"{e}: files {files}, now {open_files()}; " + "\n".join(
            difflib.unified_diff(str(before).split(","), str(kernel()).split(","), lineterm="", n=0))) from None


def listed(program):
    """All of nf_tables that is not Docker's, a list of words: elements of sets have no order."""
    return re.split(r"[\n,]\s*", "\n".join(L.run([program, "-s", "list", "table", *t], check=False).out for t in OURS))


def at_any_instant(damage):
    """Somebody takes away what is ours, again and again, while it is changed: when he ends, all is as declared, and said."""
    a = start("aa", "tbnode.firewall=open")
    start("bb", "tbnode.firewall=open")
    before, stop, done = len(events("firewall-repaired")), threading.Event(), [0]

    def loop():
        while not stop.is_set():
            L.run(damage, check=False)
            done[0] += 1
            stop.wait(random.random() / 5)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        i, end = 0, time.monotonic() + 30
        while i < 12 or (time.monotonic() < end and (done[0] < 3 or len(events("firewall-repaired")) == before)):
            r = L.tbnode("firewall", "set", "aa", *(("open",) if i % 2 else ("closed", "allow", "tcp", "to", "port", "80")))
            if i == 10 and r.rc != 0:
                raise AssertionError(r.err)
            i += 1
    finally:
        stop.set()
        thread.join()
    if L.tbnode("firewall", "set", "aa", "closed", "allow", "tcp", "to", "port", "80").rc != 0:
        raise AssertionError("it cannot be set when all is quiet")
    lab.wait_for(lambda: all(n["present"] and n["intact"] for n in show()), 5, "all is as declared again")
    if done[0] < 3 or len(events("firewall-repaired")) == before:
        raise AssertionError(f"{done[0]} times, and nothing was said of it")
    for port, passes in ((80, True), (81, False)):
        with subprocess.Popen(["nsenter", "-t", str(L.container_pid("aa")), "-n", "--", sys.executable, "-c", LISTEN, str(port)],
                              stdout=subprocess.PIPE, text=True) as p:
            p.stdout.readline()
            r = L.nsrun(L.container_pid("bb"), sys.executable, "-c", CONNECT, a, str(port), check=False)
            p.kill()
        if (r.rc == 0) != passes:
            raise AssertionError(f"port {port}: {r.out}{r.err}")


class Base(unittest.TestCase):
    def setUp(self):
        self.servers = []

    def tearDown(self):
        for s in self.servers:
            s.kill()
            s.wait()
            s.stdout.close()
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-f", *ids)
        if not L.tbnoded.running:
            L.tbnoded.start(config=BACKEND)
        lab.wait_for(lambda: not L.traces(), 10, f"no traces: {L.traces()}")

    def listen(self, name, port):
        p = subprocess.Popen(["nsenter", "-t", str(L.container_pid(name)), "-n", "--", sys.executable, "-c", LISTEN, str(port)],
                             stdout=subprocess.PIPE, text=True)
        self.servers.append(p)
        self.assertEqual("ready\n", p.stdout.readline())

    def connects(self, name, address, port):
        command = [sys.executable, "-c", CONNECT, address, str(port)]
        r = L.nsrun(L.container_pid(name), *command, check=False) if name else L.run(command, check=False)
        return r.rc == 0 and r.out == "hello\n"

    def explains(self, name, *question):
        return L.tbnode("firewall", "explain", name, *question, "--json").json()


class Rules(Base):
    def test_label_with_rules_and_what_is_said_of_it(self):
        a = start("aa", "tbnode.firewall=closed; allow tcp to port 80")
        b = start("bb", "tbnode.firewall=open")
        for port in (80, 81):
            self.listen("aa", port)
            self.listen("bb", port)
        for name, address, port in (("bb", a, 80), ("bb", a, 81), ("aa", b, 80)):
            said = self.explains(name, "tcp", f"{address}:{port}")
            self.assertEqual(said["verdict"] == "allow", self.connects(name, address, port), (name, port, said))
        said = self.explains("bb", "tcp", f"{a}:80")
        self.assertEqual(("aa", "in", "user"), tuple(said["steps"][-1][k] for k in ("node", "direction", "from")))
        said = self.explains("aa", "tcp", f"{b}:80", "in")
        self.assertEqual("allow in tcp to port 80", said["steps"][-1]["rule"])
        n = show("aa")[0]
        self.assertTrue(n["present"] and n["intact"])
        rule = next(r for r in n["rules"] if r["rule"] == "allow in tcp to port 80")
        self.assertGreaterEqual(rule["packets"], 1)
        self.assertGreaterEqual(n["counters"]["dropped"]["rules"], 1)
        text = L.tbnode("firewall", "show", "aa").out
        self.assertIn("allow in tcp to port 80", text)
        self.assertEqual({"aa", "bb"}, {x["node"] for x in show()})
        self.assertIn("denied", L.tbnode("firewall", "explain", "bb", "tcp", f"{a}:81").out)
        for question, says in ((("1.1.1:80",), "not an IPv4 or IPv6 address"), (("[fd00::1:80",), "ADDRESS:PORT"), (("1.1.1.1",), "a port between"),
                               ((f"{a}:80",), "itself")):
            self.assertIn(says, L.tbnode("firewall", "explain", "aa", "tcp", *question, check=False).err)
        L.docker("stop", "-t0", "bb")
        lab.wait_for(lambda: inspect("bb").get("state") == "stopped", 20, "bb to be stopped")
        self.assertNotIn("MISSING", L.tbnode("firewall", "show", "bb").out)
        self.assertIn("bb is stopped", L.tbnode("firewall", "explain", "bb", "tcp", f"{a}:80", check=False).err)

    def test_set_live(self):
        a = start("aa", "tbnode.firewall=closed")
        start("bb", "tbnode.firewall=open")
        self.listen("aa", 90)
        self.assertFalse(self.connects("bb", a, 90))
        self.assertEqual(0, L.tbnode("firewall", "set", "aa", "closed", "allow", "tcp", "to", "port", "90").rc)
        self.assertTrue(self.connects("bb", a, 90))
        self.assertEqual("closed; allow in tcp to port 90", show("aa")[0]["declared"])
        L.tbnoded.restart()
        lab.wait_for(lambda: inspect("aa").get("state") == "configured", 15)
        self.assertEqual("closed; allow in tcp to port 90", show("aa")[0]["declared"])
        self.assertTrue(self.connects("bb", a, 90))
        for bad, word in ((["ajar"], "ajar"), (["closed", "permit"], "permit"), (["none", "allow icmp"], "none"),
                          (["closed", "allow tcp to port 0"], "port")):
            r = L.tbnode("firewall", "set", "aa", *bad)
            self.assertEqual(1, r.rc)
            self.assertIn(word, r.err)
        self.assertEqual("closed; allow in tcp to port 90", show("aa")[0]["declared"])

    def test_bad_label_fails_the_node(self):
        start("aa", "tbnode.firewall=closed; allow tcp to port 99999", ready=False)
        lab.wait_for(lambda: inspect("aa").get("state") == "failed", 15)
        self.assertIn("port", inspect("aa")["reason"])

    def test_experiments_are_kept_apart(self):
        a = start("aa", "tbnode.firewall=open", "tbnode.experiment=one")
        b = start("bb", "tbnode.firewall=open", "tbnode.experiment=two")
        c = start("cc", "tbnode.firewall=open", "tbnode.experiment=one")
        d = start("dd", "tbnode.firewall=open")
        for name in ("aa", "bb", "cc", "dd"):
            self.listen(name, 80)
        self.assertTrue(self.connects("aa", c, 80))
        for name, address in (("aa", b), ("bb", a), ("aa", d), ("dd", c)):
            self.assertFalse(self.connects(name, address, 80), (name, address))
            self.assertEqual("isolation", self.explains(name, "tcp", f"{address}:80")["steps"][-1]["reason"])

    def test_tmcd_where_it_is_declared(self):
        gateway = json.loads(L.docker("network", "inspect", "lan0").out)[0]["IPAM"]["Config"][0]["Gateway"]
        L.tbnoded.stop()
        L.tbnoded.start(config={**BACKEND, "control-network": "lan0"})
        start("aa", "tbnode.firewall=closed", "tbnode.experiment=one")
        start("bb", "tbnode.firewall=open")
        start("cc", "tbnode.firewall=closed", "tbnode.experiment=one", "tbnode.tmcd=no")
        start("dd", "tbnode.firewall=closed", "tbnode.tmcd=yes")
        for name, reaches in (("aa", True), ("bb", False), ("cc", False), ("dd", True)):
            code = "import socket, sys\nsocket.create_connection((sys.argv[1], 7777), 1)"
            r = L.nsrun(L.container_pid(name), sys.executable, "-c", code, gateway, check=False)
            self.assertEqual(reaches, r.rc == 0, (name, r.err))
            self.assertEqual(reaches, self.explains(name, "tcp", f"{gateway}:7777")["verdict"] == "allow", name)
        L.tbnoded.stop()
        L.tbnoded.start(config=BACKEND)

    def test_ssh_ports(self):
        L.tbnoded.stop()
        L.tbnoded.start(config={**BACKEND, "ssh-ports": "22000-22002"})
        gateway = json.loads(L.docker("network", "inspect", "lan0").out)[0]["IPAM"]["Config"][0]["Gateway"]
        start("aa", "tbnode.firewall=basic")
        start("bb", "tbnode.firewall=basic")
        self.listen("aa", 22)
        port = inspect("aa")["ssh_port"]
        self.assertIn(port, range(22000, 22003))
        self.assertNotEqual(port, inspect("bb")["ssh_port"])
        self.assertTrue(self.connects(None, gateway, port))
        L.tbnoded.restart()
        lab.wait_for(lambda: inspect("aa").get("state") == "configured", 15)
        self.assertEqual(port, inspect("aa")["ssh_port"])
        self.assertTrue(self.connects(None, gateway, port))
        start("cc", "tbnode.firewall=basic")
        start("dd", "tbnode.firewall=basic", ready=False)
        lab.wait_for(lambda: inspect("dd").get("state") == "failed", 15)
        self.assertIn("ssh-ports", inspect("dd")["reason"])
        L.docker("rm", "-f", "bb")
        L.tbnoded.stop()
        L.tbnoded.start(config=BACKEND)


class Others(Base):
    def damaged_and_repaired(self, what, *commands, stdin=None, within=5):
        before = len(events("firewall-repaired"))
        good = sorted(L.iptables("filter")), sorted(L.ip6tables())
        for c in commands:
            L.run(c, input=stdin)
        lab.wait_for(lambda: len(events("firewall-repaired")) > before, within, f"{what}: the repair")
        mine = [[r for r in rules if "TBNODE" in r] for rules in (sorted(L.iptables("filter")), sorted(L.ip6tables()))]
        self.assertEqual([[r for r in rules if "TBNODE" in r] for rules in good], mine, what)
        self.assertTrue(show("aa")[0]["intact"], what)

    def test_whoever_takes_rules_away(self):
        a = start("aa", "tbnode.firewall=closed; allow tcp to port 80")
        start("bb")
        self.listen("aa", 80)
        self.listen("aa", 81)
        self.damaged_and_repaired("flush", ["iptables-legacy", "-F"])
        self.damaged_and_repaired("IPv6 flush", ["ip6tables-legacy", "-F"])
        for tool in ("iptables-legacy", "ip6tables-legacy"):
            for chain in ("INPUT", "FORWARD"):
                self.damaged_and_repaired(f"{tool} no way to {chain}", [tool, "-D", chain, "-j", f"TBNODE-{chain}"])
            self.damaged_and_repaired(f"{tool} no way on", [tool, "-F", "TBNODE-FORWARD"])
        self.damaged_and_repaired("before ours", ["iptables-legacy", "-I", "FORWARD", "-j", "ACCEPT"])
        L.run(["iptables-legacy", "-D", "FORWARD", "-j", "ACCEPT"])
        empty = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
        self.damaged_and_repaired("restore", ["iptables-legacy-restore"], stdin=empty)
        # At one go: with -F and then -X the agent may have put its chains back between the two.
        self.damaged_and_repaired("reload", ["iptables-legacy-restore"],
                                  stdin=empty.replace("COMMIT", ":MINE - [0:0]\n-A FORWARD -j MINE\nCOMMIT"))
        self.assertIn("-A FORWARD -j MINE", L.iptables("filter"))
        L.run(["iptables-legacy", "-D", "FORWARD", "-j", "MINE"])
        L.run(["iptables-legacy", "-X", "MINE"])
        self.assertTrue(self.connects("bb", a, 80))
        self.assertFalse(self.connects("bb", a, 81))
        # What leaves ours alone is no reason to say or write anything.
        before, writes = len(events("firewall-repaired")), L.tbnode("status", "--json").json()["counters"]["kernel_writes"]
        for _ in range(3):
            L.run(["iptables-legacy", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP"])
            L.run(["iptables-legacy", "-D", "INPUT", "-s", "192.0.2.1", "-j", "DROP"])
        time.sleep(1.5)
        self.assertEqual(before, len(events("firewall-repaired")))
        self.assertEqual(writes, L.tbnode("status", "--json").json()["counters"]["kernel_writes"])

    def test_what_nobody_tells_is_found_in_time(self):
        L.tbnoded.stop()
        L.tbnoded.start(config={**BACKEND, "firewall-check": "1s"})
        a = start("aa", "tbnode.firewall=closed")
        start("bb")
        self.listen("aa", 80)
        self.damaged_and_repaired("br_netfilter off", ["sysctl", "-q", "net.bridge.bridge-nf-call-iptables=0"])
        self.assertEqual("1", L.run(["sysctl", "-n", "net.bridge.bridge-nf-call-iptables"]).out.strip())
        self.assertFalse(self.connects("bb", a, 80))
        # Without the lock, as a program in a container with a /run of its own would do it.
        self.damaged_and_repaired("no lock", ["unshare", "-m", "sh", "-c",
                                              "mount -t tmpfs none /run && iptables-legacy -F FORWARD"])
        L.tbnoded.stop()
        L.tbnoded.start(config=BACKEND)

    def test_policies_drop_and_no_icc(self):
        """ufw-like policies and a network without communication: ours adds to them and takes nothing away."""
        L.docker("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "quiet")
        self.addCleanup(L.docker, "network", "rm", "quiet")
        a = start("aa", "tbnode.firewall=open", network="quiet")
        start("bb", "tbnode.firewall=open", network="quiet")
        self.listen("aa", 80)
        self.assertFalse(self.connects("bb", a, 80), "Docker says no")
        c = start("cc", "tbnode.firewall=closed; allow tcp to port 80")
        start("dd", "tbnode.firewall=open")
        for port in (80, 81):
            self.listen("cc", port)
        for chain in ("INPUT", "FORWARD"):
            L.run(["iptables-legacy", "-P", chain, "DROP"])
        try:
            self.assertFalse(self.connects("dd", c, 81))
            self.assertFalse(self.connects("bb", a, 80))
        finally:
            for chain in ("INPUT", "FORWARD"):
                L.run(["iptables-legacy", "-P", chain, "ACCEPT"])
        self.assertTrue(self.connects("dd", c, 80))

    def test_death_of_the_agent_opens_and_closes_nothing(self):
        a = start("aa", "tbnode.firewall=closed; allow tcp to port 80")
        start("bb", "tbnode.firewall=open")
        for port in (80, 81):
            self.listen("aa", port)
        rules = L.iptables(), L.ip6tables()
        L.tbnoded.kill()
        self.assertEqual(rules, (L.iptables(), L.ip6tables()))
        self.assertTrue(self.connects("bb", a, 80))
        self.assertFalse(self.connects("bb", a, 81))
        L.tbnoded.start(config=BACKEND)
        lab.wait_for(lambda: inspect("aa").get("state") == "configured", 15)
        self.assertEqual(rules, (L.iptables(), L.ip6tables()))
        self.assertEqual(0, L.tbnode("status", "--json").json()["counters"]["kernel_writes"])

    def test_a_container_that_flaps_leaves_nothing(self):
        flap()

    def test_anybody_at_any_instant(self):
        at_any_instant(["bash", "-c", "iptables-legacy -w -F; iptables-legacy -w -X; ip6tables-legacy -w -F; nft delete table bridge "
                        "tbnode-guard"])


class Nftables(Base):
    """The other back end, and from one to the other, as an operator does it."""

    def setUp(self):
        super().setUp()
        L.tbnoded.stop()
        L.tbnoded.start(config={"firewall": "nftables"})

    def tearDown(self):
        L.tbnoded.stop()
        L.tbnoded.start(config=BACKEND)
        super().tearDown()

    def ours(self):
        """Our tables without counters; elements of sets have no order."""
        return sorted(listed("nft"))

    def writes(self):
        return L.tbnode("status", "--json").json()["counters"]["kernel_writes"]

    def test_whoever_takes_tables_away(self):
        self.addCleanup(L.dockerd.restart)  # its own rules are taken away, too, and it does not look after them
        a = start("aa", "tbnode.firewall=closed; allow tcp to port 80")
        start("bb", "tbnode.firewall=open")
        for port in (80, 81):
            self.listen("aa", port)
        good = self.ours()
        for damage in ("delete table inet tbnode", "delete table bridge tbnode-guard", "flush chain inet tbnode forward",
                       "insert rule inet tbnode forward accept", "flush ruleset"):
            before = len(events("firewall-repaired"))
            L.run(["nft", damage])
            lab.wait_for(lambda n=before: len(events("firewall-repaired")) > n, 5, f"{damage}: the repair")
            self.assertEqual(good, self.ours(), damage)
        self.assertTrue(show("aa")[0]["intact"])
        self.assertTrue(self.connects("bb", a, 80))
        self.assertFalse(self.connects("bb", a, 81))
        # What leaves ours alone is no reason to write, nor are our own commits.
        before, writes = len(events("firewall-repaired")), self.writes()
        L.run(["nft", "add table inet theirs"])
        L.run(["nft", "delete table inet theirs"])
        time.sleep(1.5)
        self.assertEqual((before, writes), (len(events("firewall-repaired")), self.writes()))

    def test_a_container_that_flaps_leaves_nothing(self):
        flap()

    def test_anybody_at_any_instant(self):
        at_any_instant(["nft", "delete table inet tbnode; delete table bridge tbnode-guard"])

    def test_docker_in_both_ways(self):
        """Docker with iptables-legacy and with iptables-nft: `auto` goes where Docker is, Docker's restart takes nothing away, and what
        Docker publishes is reached."""
        try:
            for way, backend in (("legacy", "iptables"), ("nft", "nftables")):
                L.tbnoded.stop()
                L.dockerd.stop()
                for program in ("iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"):
                    for table in ("filter", "nat"):
                        for op in ("-F", "-X"):
                            L.run([program, "-t", table, op], check=False)
                    for chain in ("INPUT", "FORWARD"):
                        L.run([program, "-P", chain, "ACCEPT"], check=False)
                L.dockerd.start(iptables=way)
                L.tbnoded.start(config={"firewall": "auto"})
                self.assertRegex(L.tbnode("doctor", check=False).out, rf"firewall\s+{backend}:")
                a = start("aa", "tbnode.firewall=closed; allow tcp to port 80")
                start("bb", "tbnode.firewall=open")
                for port in (80, 81):
                    self.listen("aa", port)
                # Looking at them makes the legacy tables; a start of the agent changes nothing.
                L.run(["iptables-legacy-save"])
                rules = self.ours(), L.iptables()
                L.tbnoded.restart()
                lab.wait_for(lambda: inspect("aa").get("state") == "configured", 15)
                self.assertEqual(rules[0], self.ours())
                self.assertEqual(0, self.writes())
                self.assertEqual(backend == "iptables", any("TBNODE" in r for r in L.iptables()))
                self.assertTrue(self.connects("bb", a, 80), way)
                self.assertFalse(self.connects("bb", a, 81), way)
                L.docker("rm", "-f", "aa", "bb")
                lab.wait_for(lambda: not L.traces(), 10, f"no traces: {L.traces()}")
        finally:
            L.tbnoded.stop()
            L.dockerd.stop()
            for program in ("iptables-legacy", "ip6tables-legacy"):
                for table in ("filter", "nat"):
                    for op in ("-F", "-X"):
                        L.run([program, "-t", table, op], check=False)
            L.dockerd.start()

    def test_death_and_the_other_back_end(self):
        a = start("aa", "tbnode.firewall=closed; allow tcp to port 80")
        start("bb", "tbnode.firewall=open")
        for port in (80, 81):
            self.listen("aa", port)
        good = self.ours()
        for config in ({"firewall": "nftables"}, BACKEND, {"firewall": "nftables"}):
            L.tbnoded.kill()
            self.assertTrue(self.connects("bb", a, 80))
            self.assertFalse(self.connects("bb", a, 81))
            was_there = any("TBNODE" in r for r in L.iptables("filter"))
            L.tbnoded.start(config=config)
            lab.wait_for(lambda: inspect("aa").get("state") == "configured", 15)
            legacy = config is BACKEND
            lab.wait_for(lambda w=legacy: any("TBNODE" in r for r in L.iptables("filter")) == w, 5, f"{config}: the move")
            if not legacy:
                self.assertEqual(good, self.ours())
                self.assertTrue(was_there or self.writes() == 0, "an agent that comes back writes nothing")
            self.assertTrue(self.connects("bb", a, 80))
            self.assertFalse(self.connects("bb", a, 81))


if __name__ == "__main__":
    lab.main()
