#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent and plain containers with labels: what is in the kernel, when, and what is not there any more."""

import collections
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import unittest

import lab

IMAGE = "127.0.0.1:5000/t/busybox:1"
SHAPE = "tbnode.shape=rate 10mbit"


def setUpModule():
    global L
    L = lab.Lab.get()
    L.tbnoded.start()
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    L.docker("network", "create", "lan0")
    L.docker("network", "create", "lan1")


def node(name):
    r = L.tbnode("inspect", "--json", name)
    return r.json() if r.rc == 0 else None


def state(name):
    n = node(name)
    return n["state"] if n else None


def wait_state(name, *wanted):
    return lab.wait_for(lambda: state(name) in wanted and node(name), 15, f"{name} to be {wanted}, it is {node(name)}")


def start(name, *labels, network="lan0", cmd=("sleep", "1000"), options=()):
    args = [x for label in labels for x in ("--label", label)]
    L.docker("run", "-d", "--name", name, "--network", network, *options, *args, IMAGE, *cmd)


def rates(host_ifname):
    """The ceil of our HTB on a device, in bit/s, as tc tells it."""
    return [c["options"]["rate"] * 8 if "options" in c else c["rate"] * 8
            for c in json.loads(L.run(["tc", "-j", "class", "show", "dev", host_ifname]).out) if c.get("class") == "htb"]


def interface(name, network="lan0"):
    return next(i for i in node(name)["interfaces"] if i["network"] == network)


def writes():
    return L.tbnode("status", "--json").json()["counters"]["kernel_writes"]


class Base(unittest.TestCase):
    def tearDown(self):
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-f", *ids)
        if not L.tbnoded.running:
            L.tbnoded.start()
        lab.wait_for(lambda: not L.traces(), 10, f"no traces: {L.traces()}")


class Compose(Base):
    """The file of docs/compose.md, as its reader would use it."""

    def test_scaled_service(self):
        with open(f"{L.source}/docs/compose.md", encoding="utf-8") as f:
            text = re.search(r"```yaml\n(.*?)```", f.read(), re.S).group(1)
        place = L.tmp("bt")
        with open(f"{place}/docker-compose.yml", "w", encoding="utf-8") as f:
            f.write(text.replace("busybox:1.36", IMAGE))
        compose = lambda *args, timeout=60: L.run(["docker-compose", "--project-directory", place, "-f", f"{place}/docker-compose.yml", "-p", "bt", *args],
                                                  env={"DOCKER_HOST": "unix:///var/run/docker.sock"}, timeout=timeout)
        nodes = lambda: L.tbnode("ps", "--json").json()["nodes"]
        try:
            compose("up", "-d", "--scale", "peer=50", timeout=300)
            lab.wait_for(lambda: [n["state"] for n in nodes()] == 51 * ["configured"], 60, "all of them")
            self.assertEqual({"tracker-1"} | {f"peer-{k}" for k in range(1, 51)}, {n["node"] for n in nodes()})
            self.assertEqual({"bt"}, {n["experiment"] for n in nodes()})
            # what the kernel has, by tc and iptables alone: of each peer two links, both ways
            found = collections.Counter()
            for dev in {q["dev"] for q in L.qdiscs() if q["kind"] == "htb"}:
                found.update(re.findall(r"class htb .* ceil (\S+) ", L.run(["tc", "class", "show", "dev", dev]).out)[:1] or [f"nothing on {dev}"])
            self.assertEqual({"2Mbit": 100, "1Mbit": 50, "8Mbit": 50, "100Mbit": 2}, found)
            rules = set(re.findall(r"[0-9.]{7,}", "\n".join(L.iptables()) + L.nft()))  # whichever Docker uses
            ips = {n["ip"] for n in nodes() if n["node"].startswith("peer")}
            self.assertEqual(50, len(ips))
            self.assertEqual(set(), ips - rules)
            self.assertEqual(0, L.tbnode("shape", "set", "bt.peer-7", "bt_swarm", "rate", "3mbit").rc)
        finally:
            compose("down", "-t", "0", timeout=300)
        lab.wait_for(lambda: not L.traces() and not nodes(), 30, f"nothing: {L.traces()}")
        self.assertEqual([], [n for n in L.docker("network", "ls", "--format", "{{.Name}}").out.split() if n.startswith("bt")])


class Labels(Base):
    def test_shape_is_in_the_kernel_and_traffic_keeps_to_it(self):
        start("aa", SHAPE)
        start("bb")
        wait_state("aa", "configured")
        i = interface("aa")
        for device in (i["host_ifname"], i["up"]["device"]):
            self.assertEqual({"htb"}, {q["kind"] for q in L.qdiscs(device) if q.get("root")})
        self.assertEqual("rate 10mbit", i["up"]["shape"].split(" limit")[0])
        to = json.loads(L.docker("inspect", "bb").out)[0]["NetworkSettings"]["Networks"]["lan0"]["IPAddress"]
        measured = L.bandwidth(L.container_pid("aa"), L.container_pid("bb"), to)
        self.assertLess(measured, 10.6e6)
        self.assertGreater(measured, 7e6)

    def test_containers_without_labels_are_never_touched(self):
        before = writes()
        start("plain")
        L.docker("run", "-d", "--name", "other", "--label", "org.tbnode.level=basic", IMAGE, "sleep", "1000")
        start("aa", SHAPE)
        wait_state("aa", "configured")
        self.assertEqual(["aa"], [n["node"] for n in L.tbnode("ps", "--json").json()["nodes"]])
        self.assertGreater(writes(), before)
        self.assertEqual(1, len({q["dev"] for q in L.qdiscs() if q["kind"] == "htb" and q["dev"].startswith("veth")}))

    def test_bad_labels_fail_their_own_node_only(self):
        bad = {"tbnode.shape=rate 10furlong": "10furlong", "tbnode.firewall=wide": "wide",
               "tbnode.on-exit=explode": "explode", "tbnode.shap=rate 1mbit": "tbnode.shap",
               "tbnode.node=a b": "a b", "tbnode.shape.lan0=": "tbnode.shape.lan0", "tbnode.shape.=rate 1mbit": "network"}
        for k, label in enumerate(bad):
            start(f"bad{k}", label)
        start("good", SHAPE)
        wait_state("good", "configured")
        for k, (label, word) in enumerate(bad.items()):
            n = wait_state(f"bad{k}", "failed")
            self.assertIn(word, n["reason"])
            self.assertNotIn("\n", n["reason"])
        self.assertEqual(1, len(L.ifbs()))
        events = [json.loads(x) for x in L.tbnode("events", "--json").out.splitlines()]
        self.assertTrue([e for e in events if e.get("to") == "failed" and "10furlong" in e["reason"]])

    def test_network_of_the_host_cannot_be_shaped(self):
        start("hosty", SHAPE, network="host")
        self.assertIn("host's network", wait_state("hosty", "failed")["reason"])

    def test_network_specific_shape_and_connect_disconnect(self):
        start("aa", SHAPE, "tbnode.shape.lan1=up rate 3mbit")
        wait_state("aa", "configured")
        L.docker("network", "connect", "lan1", "aa")
        lab.wait_for(lambda: len(node("aa")["interfaces"]) == 2 and state("aa") == "configured", 10, "lan1")
        i = interface("aa", "lan1")
        self.assertEqual("rate 3mbit", i["up"]["shape"].split(" limit")[0])
        self.assertIsNone(i["down"])
        self.assertEqual(2, len(L.ifbs()))
        L.docker("network", "disconnect", "lan1", "aa")
        lab.wait_for(lambda: len(L.ifbs()) == 1, 10, f"one ifb: {L.ifbs()}")
        wait_state("aa", "configured")

    def test_die_and_restart(self):
        start("aa", SHAPE, "tbnode.firewall=basic")
        wait_state("aa", "configured")
        self.assertTrue([x for x in L.traces() if "tbnode" in x.lower()])
        L.docker("kill", "aa")
        wait_state("aa", "stopped")
        self.assertEqual([], L.traces())
        L.docker("start", "aa")
        wait_state("aa", "configured")
        before = node("aa")["pid"]
        L.docker("restart", "-t", "0", "aa")
        lab.wait_for(lambda: state("aa") == "configured" and node("aa")["pid"] != before, 10, "the new run")
        self.assertEqual(1, len(L.ifbs()))

    def test_what_happens_to_a_running_container(self):
        """Pausing, health checks, running out of memory and a new name change nothing in the kernel, and are told."""
        start("aa", SHAPE, options=("--memory", "16m", "--memory-swap", "16m", "--health-cmd", "true", "--health-interval", "200ms"))
        wait_state("aa", "configured")
        before = L.qdiscs(), writes()

        def told(event):
            return [e for e in map(json.loads, L.tbnode("events", "--json").out.splitlines()) if e["event"] == event]

        L.docker("pause", "aa")
        lab.wait_for(lambda: told("node-paused"), 10, "the pause")
        wait_state("aa", "configured")
        L.tbnoded.restart()
        wait_state("aa", "configured")
        L.docker("unpause", "aa")
        lab.wait_for(lambda: told("node-unpaused"), 10, "the end of the pause")
        lab.wait_for(lambda: any(e["status"] == "healthy" for e in told("node-health")), 20, "its health")
        L.docker("exec", "aa", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", check=False)
        lab.wait_for(lambda: told("node-oom"), 10, "the lack of memory")
        L.docker("rename", "aa", "zz")
        lab.wait_for(lambda: told("node-renamed"), 10, "the new name")
        wait_state("zz", "configured")
        self.assertIsNone(node("aa"))
        self.assertEqual((before[0], 0), (L.qdiscs(), writes()))

    def test_short_lives(self):
        for k in range(8):
            start(f"short{k}", SHAPE, "tbnode.firewall=open", cmd=("true",))
        lab.wait_for(lambda: all(state(f"short{k}") == "stopped" for k in range(8)), 15,
                     L.tbnode("ps").out)
        self.assertEqual([], L.traces())


class Shape(Base):
    def test_set_changes_only_what_it_names_and_lasts(self):
        start("aa", SHAPE)
        wait_state("aa", "configured")
        r = L.tbnode("shape", "set", "aa", "lan0", "up", "rate", "2mbit")
        self.assertEqual(0, r.rc, r)
        i = interface("aa")
        self.assertEqual("rate 2mbit", i["up"]["shape"].split(" limit")[0])
        self.assertEqual("rate 10mbit", i["down"]["shape"].split(" limit")[0])
        L.tbnoded.restart()
        wait_state("aa", "configured")
        self.assertEqual("rate 2mbit", interface("aa")["up"]["shape"].split(" limit")[0])
        self.assertEqual(0, writes())
        self.assertEqual(0, L.tbnode("shape", "clear", "aa", i["ifname"]).rc)
        self.assertEqual("", interface("aa")["shape"])
        L.docker("rm", "-f", "aa")
        lab.wait_for(lambda: state("aa") is None, 10, "aa to be forgotten")
        L.tbnoded.restart()
        with open("/var/lib/tbnode/state.json", encoding="utf-8") as f:
            self.assertEqual(2, json.load(f)["version"])

    def test_rules_for_some_of_the_traffic(self):
        start("aa", "tbnode.shape=rate 10mbit; to 10.7.0.9 rate 1mbit")
        wait_state("aa", "configured")
        self.assertEqual(["to 10.7.0.9"], [r["match"] for r in interface("aa")["up"]["rules"]])
        r = L.tbnode("shape", "set", "aa", "lan0", "; to 10.7.0.0/16 rate 5mbit; to 10.7.0.9 up default; to 10.7.0.1 up rate 1mbit")
        self.assertEqual(0, r.rc, r)
        i = interface("aa")
        self.assertEqual(["to 10.7.0.1", "to 10.7.0.0/16"], [r["match"] for r in i["up"]["rules"]])
        self.assertEqual(["to 10.7.0.9", "to 10.7.0.0/16"], [r["match"] for r in i["down"]["rules"]])
        with open("/tmp/rules", "w", encoding="utf-8") as f:
            f.write("# a LAN\n" + "".join(f"to 10.8.{k // 250}.{k % 250} rate {k + 1000}kbit\n" for k in range(1000)))
        r = L.tbnode("shape", "set", "aa", "lan0", "--rules", "/tmp/rules")
        self.assertEqual(0, r.rc, r)
        i = interface("aa")
        self.assertEqual((1000, 1000), (len(i["up"]["rules"]), len(i["down"]["rules"])))
        self.assertEqual("rate 10mbit", i["up"]["shape"].split(" limit")[0])
        L.tbnoded.restart()
        wait_state("aa", "configured")
        self.assertEqual((0, 1000), (writes(), len(interface("aa")["up"]["rules"])))
        self.assertEqual(2, L.tbnode("shape", "set", "aa", "lan0", "--rules", "/tmp/rules", "rate", "1mbit").rc)
        self.assertEqual(0, L.tbnode("shape", "clear", "aa", "lan0").rc)
        self.assertEqual(("", False), (interface("aa")["shape"], "rules" in interface("aa")["up"]))

    def test_bad_changes_change_nothing(self):
        start("aa", SHAPE)
        wait_state("aa", "configured")
        before = L.qdiscs(), writes()
        for args, word in ((("aa", "lan0", "rate", "x"), "x"), (("aa", "lan0", "jitter", "2ms"), "jitter"),
                           (("aa", "nolan", "rate", "1mbit"), "nolan"), (("nobody", "lan0", "rate", "1mbit"), "nobody")):
            r = L.tbnode("shape", "set", *args)
            self.assertEqual(1, r.rc, r)
            self.assertIn(word, r.err)
            self.assertEqual(1, len(r.err.splitlines()))
        self.assertEqual(before, (L.qdiscs(), writes()))
        self.assertEqual(2, L.tbnode("shape", "set", "aa").rc)

    def test_delay_without_netem_names_the_module(self):
        if L.run(["modprobe", "-n", "sch_netem"], check=False).rc == 0:
            self.skipTest("this kernel has netem")
        start("aa", SHAPE)
        wait_state("aa", "configured")
        r = L.tbnode("shape", "set", "aa", "lan0", "delay", "20ms")
        self.assertEqual(1, r.rc)
        self.assertIn("sch_netem", r.err)
        wait_state("aa", "configured")
        self.assertEqual("rate 10mbit", interface("aa")["shape"])

    def test_firewall_style_live(self):
        start("aa", "tbnode.firewall=open")
        wait_state("aa", "configured")
        self.assertEqual(0, L.tbnode("firewall", "set", "aa", "closed").rc)
        self.assertEqual("closed", L.tbnode("firewall", "show", "aa", "--json").json()["nodes"][0]["style"])
        self.assertTrue(L.tbnode("firewall", "show", "aa", "--json").json()["nodes"][0]["intact"])
        self.assertTrue([x for x in L.traces() if "tbnode" in x.lower()])
        self.assertEqual(1, L.tbnode("firewall", "set", "aa", "ajar").rc)


class Drift(Base):
    """Somebody changes queues and interfaces of a node by hand."""

    def setUp(self):
        start("aa", SHAPE, "tbnode.shape.lan1=rate 5mbit; to 10.9.9.9 rate 1mbit", "tbnode.firewall=basic")
        wait_state("aa", "configured")
        self.host, self.ifb = interface("aa")["host_ifname"], interface("aa")["up"]["device"]

    @staticmethod
    def counters():
        return L.tbnode("status", "--json").json()["counters"]

    @staticmethod
    def kernel():
        """What must be as it was: queues, filters, and the host side of each link."""
        devices = [x for x in L.links() if x["ifname"].startswith(("veth", "tbi"))]
        out = {}
        for x in devices:
            name = x["ifname"]
            out[x["ifindex"]] = (x.get("master"), "UP" in x["flags"], x.get("ifalias"), L.run(["tc", "qdisc", "show", "dev", name]).out,
                                 L.run(["tc", "class", "show", "dev", name]).out.replace(name, ""),
                                 re.sub("index .*", "", L.filters(name, "ffff:")).replace(" ingress", ""), L.filters(name, "7462:"))
        return out

    def damage(self, what, *commands):
        before, count = self.kernel(), self.counters()["shape_repairs"]
        for c in commands:
            L.run(c.split())
        lab.wait_for(lambda: self.counters()["shape_repairs"] > count, 20, f"{what}: the repair")
        lab.wait_for(lambda: self.kernel() == before, 20, f"{what}: {before} is {self.kernel()}")
        wait_state("aa", "configured")

    def test_what_is_done_by_hand_is_undone(self):
        h, i = self.host, self.ifb
        for what, commands in {
                "no root": [f"tc qdisc del dev {h} root"],
                "another root": [f"tc qdisc replace dev {h} root handle 1: pfifo limit 10"],
                "another rate": [f"tc class change dev {h} classid 7462:1 htb rate 1gbit"],
                "one more class": [f"tc class add dev {h} parent 7462: classid 7462:77 htb rate 1gbit"],
                "no ingress": [f"tc qdisc del dev {h} ingress"],
                "a filter before ours": [f"tc filter add dev {h} ingress prio 1 protocol ip u32 match u32 0 0 action mirred egress redirect dev docker0"],
                "no filter": [f"tc filter del dev {h} ingress"],
                "a filter past our class": [f"tc filter add dev {h} parent 7462: prio 1 protocol all u32 match u32 0 0 flowid 7462:0"],
                "no root of the ifb": [f"tc qdisc del dev {i} root"],
                "no ifb": [f"ip link del {i}"],
                "ifb down": [f"ip link set {i} down"],
                "host side down": [f"ip link set {h} down"],
                "off its bridge": [f"ip link set {h} nomaster"],
                "everything": [f"ip link del {i}", f"tc qdisc del dev {h} root", f"tc qdisc del dev {h} ingress", f"ip link set {h} down"],
        }.items():
            with self.subTest(what):
                self.damage(what, *commands)
        events = [json.loads(x) for x in L.tbnode("events", "--json").out.splitlines()]
        self.assertEqual(["aa"], [e for e in events if e["event"] == "shape-repaired"][-1]["nodes"])

    def test_what_was_done_while_no_agent_ran(self):
        before = self.kernel()
        L.tbnoded.kill()
        for device in (self.host, self.ifb):
            L.run(f"tc class add dev {device} parent 7462: classid 7462:77 htb rate 1gbit".split())
            L.run(f"tc filter add dev {device} parent 7462: prio 1 protocol all u32 match u32 0 0 flowid 7462:77".split())
        L.tbnoded.start()
        lab.wait_for(lambda: self.kernel() == before, 20, f"{before} is {self.kernel()}")
        wait_state("aa", "configured")

    def while_it_stands_still(self, *commands):
        """Whatever they say, the agent hears all of it at once."""
        L.tbnoded.signal(signal.SIGSTOP)
        try:
            for c in commands:
                L.run(c.split())
        finally:
            L.tbnoded.signal(signal.SIGCONT)

    def test_what_another_link_says_hides_nothing(self):
        L.docker("network", "connect", "lan1", "aa")
        other = lab.wait_for(lambda: next((i["host_ifname"] for i in node("aa")["interfaces"] if i["network"] == "lan1"), None), 10, "lan1")
        wait_state("aa", "configured")
        before, count = self.kernel(), self.counters()["shape_repairs"]
        self.while_it_stands_still(f"ip link set {self.host} nomaster", f"ip link set {other} group 7")
        lab.wait_for(lambda: self.counters()["shape_repairs"] > count, 10, "the repair")
        lab.wait_for(lambda: self.kernel() == before, 10, f"{before} is {self.kernel()}")

    def test_bridge_is_remembered_when_something_else_is_written_first(self):
        before = self.kernel()
        with socket.socket(socket.AF_UNIX) as asks:
            asks.connect("/run/tbnode/tbnoded.sock")
            L.tbnoded.signal(signal.SIGSTOP)
            try:
                L.run(["ip", "link", "set", self.host, "nomaster"])
                body = b'{"spec": "rate 10mbit"}'
                asks.sendall(b"PUT /v1/nodes/aa/shape/lan0 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                             b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            finally:
                L.tbnoded.signal(signal.SIGCONT)
            asks.settimeout(30)
            self.assertIn(b" 200 ", asks.recv(65536))
        lab.wait_for(lambda: self.kernel() == before, 10, f"{before} is {self.kernel()}")

    def test_without_a_free_descriptor(self):
        before, pid = self.kernel(), str(L.tbnoded.pid)
        limits = L.run(["prlimit", "--pid", pid, "--nofile", "--noheadings", "-o", "SOFT,HARD"]).out.split()
        L.run(["prlimit", "--pid", pid, f"--nofile=8:{limits[1]}"])
        try:
            L.run(["tc", "qdisc", "del", "dev", self.host, "root"])
            lab.wait_for(lambda: re.search("node aa: .*failed: .*Too many open files", L.tbnoded.log()), 20, "it to fail")
        finally:
            L.run(["prlimit", "--pid", pid, f"--nofile={limits[0]}:{limits[1]}"])
        lab.wait_for(lambda: self.kernel() == before, 20, f"{before} is {self.kernel()}")
        wait_state("aa", "configured")

    def test_more_changes_than_the_kernel_keeps_for_us(self):
        """What happened to the node is among the messages that are lost: everything is looked at."""
        before, counters = self.kernel(), self.counters()
        L.run(["ip", "link", "add", "elsewhere", "type", "bridge"])
        L.run(["tc", "qdisc", "add", "dev", "elsewhere", "root", "handle", "1:", "htb"])
        with tempfile.NamedTemporaryFile("w") as batch:
            batch.write("class replace dev elsewhere parent 1: classid 1:1 htb rate 1mbit\n" * 40000)
            batch.write(f"class change dev {self.host} classid 7462:1 htb rate 1gbit\nclass add dev {self.host} parent 7462: classid "
                        "7462:77 htb rate 1gbit\n")
            batch.flush()
            L.tbnoded.signal(signal.SIGSTOP)
            try:
                L.run(["tc", "-batch", batch.name])
                self.assertNotEqual(before, self.kernel())
            finally:
                L.tbnoded.signal(signal.SIGCONT)
        L.run(["ip", "link", "del", "elsewhere"])
        lab.wait_for(lambda: self.kernel() == before, 10, "the queues to be as declared")
        lab.wait_for(lambda: self.counters()["resyncs"] == counters["resyncs"] + 1, 10, "it to be told")
        wait_state("aa", "configured")

    def test_our_own_writes_and_those_elsewhere_are_no_news(self):
        before = self.counters()
        for rate in ("2mbit", "3mbit"):
            self.assertEqual(0, L.tbnode("shape", "set", "aa", "lan0", "rate", rate).rc)
        start("bb", SHAPE)
        start("plain")
        wait_state("bb", "configured")
        L.run(["ip", "link", "add", "elsewhere", "type", "bridge"])
        L.run(["tc", "qdisc", "add", "dev", "elsewhere", "root", "pfifo"])
        L.run(["ip", "link", "del", "elsewhere"])
        self.damage("afterwards", f"tc qdisc del dev {self.host} root")
        after = self.counters()
        self.assertEqual(before["shape_repairs"] + 1, after["shape_repairs"])
        for counter in ("resyncs", "firewall_repairs"):
            self.assertEqual(before[counter], after[counter])

    def test_renamed_host_side_is_followed_by_its_rules(self):
        L.run(["ip", "link", "set", self.host, "down"])
        L.run(["ip", "link", "set", self.host, "name", "renamed0"])
        lab.wait_for(lambda: "renamed0" in str(L.iptables("filter")) or "renamed0" in L.nft(), 5, "rules with the new name")
        lab.wait_for(lambda: "UP" in next(x for x in L.links() if x["ifname"] == "renamed0")["flags"], 5, "it to be up")
        self.assertFalse([r for r in L.iptables("filter") if self.host in r and "TBNODE" in r])
        self.assertEqual(("configured", "renamed0"), (state("aa"), interface("aa")["host_ifname"]))

    def test_host_side_that_is_gone_fails_the_node_until_it_is_back(self):
        L.run(["ip", "link", "del", self.host])
        n = wait_state("aa", "failed")
        self.assertIn("lan0", n["reason"])
        lab.wait_for(lambda: not L.ifbs(), 5, "its ifb to be swept")
        L.docker("network", "disconnect", "-f", "lan0", "aa")
        L.docker("network", "connect", "lan0", "aa")
        wait_state("aa", "configured")
        self.assertEqual(1, len(L.ifbs()))

    def test_what_stood_in_the_way_is_gone(self):
        """A qdisc of somebody else from before; the node becomes what it shall be as soon as that goes."""
        L.tbnoded.stop()
        L.docker("run", "-d", "--name", "late", "--network", "lan0", "--label", SHAPE, IMAGE, "sleep", "1000")
        peer = json.loads(L.nsrun(L.container_pid("late"), "ip", "-j", "link", "show", "eth0").out)[0]["link_index"]
        h = next(x["ifname"] for x in L.links() if x["ifindex"] == peer)
        L.run(["tc", "qdisc", "add", "dev", h, "root", "handle", "9:", "pfifo"])
        L.tbnoded.start()
        self.assertIn("pfifo", wait_state("late", "failed")["reason"])
        L.run(["tc", "qdisc", "del", "dev", h, "root"])
        wait_state("late", "configured")


class Restarts(Base):
    def test_agent_restart_writes_nothing(self):
        for k in range(5):
            start(f"n{k}", SHAPE, "tbnode.firewall=basic", f"tbnode.node=node{k}")
        for k in range(5):
            wait_state(f"node{k}", "configured")
        before = L.qdiscs(), L.iptables()
        L.tbnoded.restart()
        for k in range(5):
            wait_state(f"node{k}", "configured")
        self.assertEqual(0, writes())
        self.assertEqual(before, (L.qdiscs(), L.iptables()))

    def test_memory_of_its_start_is_given_back(self):
        """docs/operator.md: less than 10 MB while nothing happens."""
        if "libasan" in L.run(["ldd", f"{L.install()}/tbnoded"]).out:
            self.skipTest("the memory of a build with sanitizers says nothing")
        self.assertNotIn("libarchive", L.run(["ldd", f"{L.install()}/tbnoded"]).out)
        start("aa", SHAPE, "tbnode.firewall=basic")
        wait_state("aa", "configured")

        def resident():
            with open(f"/proc/{L.tbnoded.pid}/smaps_rollup", encoding="ascii") as f:
                return next(int(x.split()[1]) for x in f if x.startswith("Rss:"))
        lab.wait_for(lambda: resident() < 10 * 1000, 60, "less than 10 MB")

    def test_killed_agent_finds_what_died_meanwhile(self):
        start("stays", SHAPE)
        start("goes", SHAPE, "tbnode.firewall=basic")
        start("rmed", SHAPE, "tbnode.firewall=basic")
        for name in ("stays", "goes", "rmed"):
            wait_state(name, "configured")
        L.tbnoded.kill()
        L.docker("kill", "goes")
        L.docker("rm", "-f", "rmed")
        self.assertTrue([x for x in L.traces() if "tbnode" in x.lower()])
        L.tbnoded.start()
        wait_state("stays", "configured")
        lab.wait_for(lambda: not [x for x in L.traces() if "tbnode" in x.lower()], 10, f"no chains: {L.traces()}")
        self.assertEqual(1, len(L.ifbs()))
        wait_state("goes", "stopped")
        self.assertIsNone(node("rmed"))

    def test_engine_restart_resyncs(self):
        start("aa", SHAPE, options=("--restart", "always", "--stop-timeout", "1"))
        start("bb", SHAPE, "tbnode.firewall=open", options=("--stop-timeout", "1"))
        wait_state("aa", "configured")
        wait_state("bb", "configured")
        first = node("aa")["pid"]
        L.dockerd.stop(timeout=60)
        lab.wait_for(lambda: not L.tbnode("status", "--json").json()["engine"]["connected"], 10, "the loss to be seen")
        r = L.tbnode("run", "busybox:1.36")
        self.assertEqual(1, r.rc)
        self.assertIn("Docker", r.err)
        L.dockerd.start()
        lab.wait_for(lambda: state("aa") == "configured" and node("aa")["pid"] != first, 20, "aa to be there again")
        wait_state("bb", "stopped")
        self.assertEqual(1, len(L.ifbs()))

    def test_second_agent_says_so(self):
        r = L.tbnoded.run("--config", "/etc/tbnode/tbnoded.conf")
        self.assertEqual(1, r.rc)
        self.assertIn("already running", r.err)
        self.assertIn(str(L.tbnoded.pid), r.err)
        self.assertEqual(1, len(r.err.splitlines()))
        self.assertEqual(0, L.tbnode("status").rc)

    def test_no_root(self):
        r = L.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                   f"{L.install()}/tbnoded", "--config", "/etc/tbnode/tbnoded.conf"], check=False)
        self.assertEqual(1, r.rc)
        self.assertIn("root", r.err)
        r = L.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", f"{L.install()}/tbnode", "ps"],
                  check=False)
        self.assertEqual(3, r.rc)
        self.assertIn("permission", r.err)

    def test_agent_not_there(self):
        L.tbnoded.stop()
        for verb in (("ps",), ("run", "busybox"), ("augment", "busybox"), ("status",), ("rm", "x")):
            r = L.tbnode(*verb)
            self.assertEqual(3, r.rc, r)
            self.assertIn("not running", r.err)
        r = L.tbnode("doctor")
        self.assertIn("not running", r.out)
        self.assertEqual(0, r.rc, r)

    def test_no_docker_at_start(self):
        L.tbnoded.stop()
        L.tbnoded.start(config={"docker": "unix:///run/no-such.sock"}, services=False)
        r = L.tbnode("run", "busybox:1.36")
        self.assertEqual(1, r.rc)
        self.assertIn("no such socket", r.err)
        r = L.tbnode("doctor")
        self.assertEqual(1, r.rc)
        self.assertIn("FAIL  engine", r.out)
        L.tbnoded.stop()


class Config(Base):
    def check(self, text):
        path = L.tbnoded.write_config(raw=text, path=f"{L.tmp('conf')}/tbnoded.conf")
        r = L.tbnoded.run("--check-config", "--config", path)
        return r

    def test_check_config(self):
        self.assertEqual(0, self.check("# all defaults\nregistry=http://127.0.0.1:5000\nfirewall=auto\n").rc)
        for text, words in (("\nnosuchkey=x\n", (":2:", "nosuchkey")), ("registry=ftp://x\n", (":1:", "ftp")),
                            ("docker=tcp://1.2.3.4:2375\n", ("unix://",)), ("gate=maybe\n", ("gate",)),
                            ("augment-jobs=0\n", ("augment-jobs",)), ("level=fuller\n", ("level",))):
            r = self.check(text)
            self.assertEqual(1, r.rc, text)
            self.assertEqual(1, len(r.err.splitlines()), r)
            for w in words:
                self.assertIn(w, r.err)
        self.assertEqual(1, L.tbnoded.run("--check-config", "--config", "/no/such/file").rc)
        self.assertEqual(2, L.tbnoded.run("--no-such-option").rc)

    def test_state_files_that_are_not_ours(self):
        L.tbnoded.stop()
        os.makedirs("/var/lib/tbnode", exist_ok=True)
        state = "/var/lib/tbnode/state.json"
        with open(state, "w", encoding="utf-8") as f:
            f.write('{"version": 99}')
        r = L.tbnoded.run("--config", "/etc/tbnode/tbnoded.conf")
        self.assertEqual(1, r.rc)
        for word in (state, "version 99", "newer", "move the file away"):
            self.assertIn(word, r.err)
        with open(state, encoding="utf-8") as f:
            self.assertEqual('{"version": 99}', f.read())
        # What is no such file is put aside, and the agent starts.
        with open(state, "w", encoding="utf-8") as f:
            f.write('{"version": 2, "nodes": {"')
        L.tbnoded.start()
        self.assertIn("put aside as /var/lib/tbnode/state.json.broken-", L.tbnoded.log())
        for aside in [x for x in os.listdir("/var/lib/tbnode") if x.startswith("state.json.broken-")]:
            with open(f"/var/lib/tbnode/{aside}", encoding="utf-8") as f:
                self.assertEqual('{"version": 2, "nodes": {"', f.read())
            os.unlink(f"/var/lib/tbnode/{aside}")
        self.assertEqual(0, L.tbnode("ps").rc)


class Api(Base):
    def raw(self, *args):
        r = L.run(["curl", "-s", "-o", "-", "-w", "\n%{http_code}", "--unix-socket", "/run/tbnode/tbnoded.sock", *args])
        body, status = r.out.rsplit("\n", 1)
        return int(status), body

    def test_bad_requests(self):
        for want, args in ((404, ("http://x/",)), (404, ("http://x/v2/nodes",)), (405, ("-X", "PUT", "http://x/v1/nodes")),
                           (400, ("-d", "{", "http://x/v1/nodes")), (400, ("-d", "[]", "http://x/v1/nodes")),
                           (400, ("-d", '{"imag": "x"}', "http://x/v1/nodes")), (400, ("-d", "{}", "http://x/v1/augment")),
                           (400, ("-d", '{"image": 5}', "http://x/v1/augment")),
                           (400, ("-d", '{"image": "x", "shape": "rate 1mbit"}', "http://x/v1/nodes")),
                           (404, ("http://x/v1/nodes/%2e%2e",)), (400, ("http://x/v1/nodes/%zz",)),
                           (404, ("http://x/v1/nodes/no%2Fbody",))):
            status, body = self.raw(*args)
            self.assertEqual(want, status, (args, body))
            self.assertTrue(json.loads(body)["error"]["message"])
        big = L.tmp("big") + "/body"
        with open(big, "w", encoding="utf-8") as f:
            f.write('{"image":"' + "x" * 1400000 + '"}')
        self.assertEqual(413, self.raw("-d", f"@{big}", "http://x/v1/nodes")[0])
        self.assertEqual(200, self.raw("http://x/v1/status")[0])

    def test_follow_and_hang_up(self):
        p = subprocess.Popen([f"{L.install()}/tbnode", "events", "--follow", "--json"], stdout=subprocess.PIPE, text=True)
        start("aa", SHAPE)
        for line in p.stdout:
            e = json.loads(line)
            if e.get("node") == "aa" and e.get("to") == "configured":
                break
        p.send_signal(signal.SIGINT)
        p.wait(10)
        p.stdout.close()
        wait_state("aa", "configured")

    def test_logs(self):
        start("talker", SHAPE, cmd=("sh", "-c", "echo one; echo two >&2; sleep 1000"))
        wait_state("talker", "configured")
        lab.wait_for(lambda: sorted(L.tbnode("logs", "talker").out.split()) == ["one", "two"], 10,
                     L.tbnode("logs", "talker"))
        L.docker("run", "-dt", "--name", "tty", "--label", SHAPE, "--network", "lan0", IMAGE, "echo", "hello")
        lab.wait_for(lambda: "hello" in L.tbnode("logs", "tty").out, 10, "the terminal's output")


class Valgrind(Base):
    def test_main_path_has_no_errors_and_no_leaks(self):
        if L.run(["which", "valgrind"], check=False).rc != 0:
            self.skipTest("valgrind is not installed")
        if "libasan" in L.run(["ldd", f"{L.install()}/tbnoded"]).out:
            self.skipTest("this build has the sanitizers, which look for the same")
        L.tbnoded.stop()
        log = f"{L.dir}/valgrind.log"
        p = subprocess.Popen(["valgrind", "-q", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect",
                              "--show-leak-kinds=definite,indirect", "--child-silent-after-fork=yes",
                              "--error-exitcode=99", f"--log-file={log}", f"{L.install()}/tbnoded", "--config",
                              "/etc/tbnode/tbnoded.conf"], stderr=subprocess.DEVNULL, env=dict(os.environ, **L.program_env()))
        try:
            lab.wait_for(L.tbnoded.answers, 60, "tbnoded under valgrind")
            start("aa", SHAPE, "tbnode.firewall=basic")
            start("bad", "tbnode.shape=nonsense")
            lab.wait_for(lambda: state("aa") == "configured", 60, "aa")
            for verb in (("ps",), ("status",), ("shape", "set", "aa", "lan0", "rate", "5mbit"),
                         ("shape", "set", "aa", "lan0", "rate", "x"), ("firewall", "set", "aa", "open"), ("inspect", "aa"),
                         ("events",), ("logs", "aa"), ("augment", "127.0.0.1:5000/nosuch:1"), ("stop", "aa"), ("rm", "aa")):
                L.tbnode(*verb)
            lab.wait_for(lambda: not L.traces(), 60, f"no traces: {L.traces()}")
        finally:
            p.terminate()
            rc = p.wait(60)
        with open(log, encoding="utf-8", errors="replace") as f:
            said = [x for x in f.read().splitlines() if "WARNING: unhandled" not in x and not x.startswith("--")]
        self.assertEqual((0, []), (rc, said))


if __name__ == "__main__":
    lab.main()
