#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nodes that attack: real containers with NET_ADMIN and NET_RAW on a shared control network, with both firewall back ends.

Every frame is sent from inside the attacker's container and looked for at the interfaces of a neighbour (same experiment), of a
victim (another experiment), and of the host's bridge. What is printed: attempts, and how many passed."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import unittest

import lab

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "netns"))
import frames  # noqa: E402

IMAGE = "127.0.0.1:5000/t/busybox:1"
PROGRAM = frames.__file__
CONTROL = "tbnode-control"
REPEAT = 5
STARTS = 50 if os.environ.get("TBNODE_TEST_LONG") == "yes" else 4
LAST = b"tbnode-at-end"  # as long as frames.MARK
METADATA = "169.254.169.254"


def setUpModule():
    global L
    L = lab.Lab.get()
    L.dockerd.start(config={"runtimes": {"tbnode": {"path": f"{L.install()}/tbnode-runtime"}}})
    L.tbnoded.start()
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    L.docker("network", "create", CONTROL)
    # Where the outside would be: packets for the cloud's metadata address leave the host here.
    L.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    for words in (("addr", "add", "192.0.2.1/24", "dev", "up0"), ("link", "set", "up0", "up"), ("link", "set", "up1", "up"),
                  ("route", "add", METADATA, "via", "192.0.2.254"),
                  ("neigh", "add", "192.0.2.254", "lladdr", "02:00:00:00:02:fe", "dev", "up0")):
        L.run("ip", *words)


class Node:
    def __init__(self, name, experiment, style):
        self.name = name
        L.docker("run", "-d", "--runtime", "tbnode", "--name", name, "--network", CONTROL, "--cap-add", "NET_ADMIN", "--cap-add",
                 "NET_RAW", "--label", f"tbnode.experiment={experiment}", "--label", f"tbnode.firewall={style}", IMAGE, "sleep",
                 "100000")
        endpoint = json.loads(L.docker("inspect", name).out)[0]["NetworkSettings"]["Networks"][CONTROL]
        self.pid = str(L.container_pid(name))
        self.gateway = endpoint["Gateway"]
        self.party = frames.Party(endpoint["MacAddress"], endpoint["IPAddress"])

    def enter(self, *command):
        return ["nsenter", "--net", "-t", self.pid, *command]

    def send(self, attack):
        text = "".join(f.hex() + "\n" for f in attack)
        subprocess.run(self.enter(sys.executable, PROGRAM, "send", "eth0"), input=text, text=True, check=True)

    def connects(self, address, port):
        """Can it open a TCP connection?"""
        code = f"import socket; socket.create_connection(('{address}', {port}), 0.7)"
        return subprocess.run(self.enter(sys.executable, "-c", code), stderr=subprocess.DEVNULL, check=False).returncode == 0


class Catcher:
    """Frames with our marker that come in at an interface: of a node, or of the host."""

    def __init__(self, interface, node=None):
        command = [sys.executable, PROGRAM, "catch", interface]
        self.p = subprocess.Popen(node.enter(*command) if node else command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.p.stdout.readline() != "ready\n":
            raise lab.LabError(f"cannot catch at {interface}")

    def stop(self):
        return [bytes.fromhex(x) for x in self.p.communicate("")[0].split()]


class Listener:
    """A TCP service in a network namespace that answers nothing."""

    def __init__(self, address, port, node=None):
        code = (f"import socket, signal; s = socket.create_server(('{address}', {port})); print('ready', flush=True); signal.pause()")
        command = [sys.executable, "-c", code]
        self.p = subprocess.Popen(node.enter(*command) if node else command, stdout=subprocess.PIPE, text=True)
        self.p.stdout.readline()

    def stop(self):
        self.p.kill()
        self.p.communicate()


class Campaign:
    backend = None

    def setUp(self):
        L.tbnoded.stop()
        L.tbnoded.start(config={"firewall": self.backend})
        self.attacker = Node("attacker", "e1", "open")
        self.neighbour = Node("neighbour", "e1", "open")
        self.victim = Node("victim", "e2", "open")
        network = json.loads(L.docker("network", "inspect", CONTROL).out)[0]
        self.bridge = f"br-{network['Id'][:12]}"
        self.bridge_mac = json.loads(L.run("ip", "-j", "link", "show", self.bridge).out)[0]["address"]
        for n in (self.attacker, self.neighbour, self.victim):
            lab.wait_for(lambda n=n: L.tbnode("inspect", "--json", n.name).json()["state"] == "configured", 15, n.name)

    def tearDown(self):
        L.docker("rm", "-f", "attacker", "neighbour", "victim", check=False)
        lab.wait_for(lambda: not L.traces(), 20, f"no traces: {L.traces()}")

    def catchers(self):
        return {"neighbour": Catcher("eth0", self.neighbour), "victim": Catcher("eth0", self.victim),
                "host": Catcher(self.bridge), "outside": Catcher("up1")}

    def arrivals(self, attack):
        """Sends {name: frame}, REPEAT times each; {where: {name: how often}}."""
        catchers = self.catchers()
        marks = {name: b"tbnode-%06d" % i for i, name in enumerate(attack)}
        self.attacker.send([f.replace(frames.MARK, marks[name]) for name, f in attack.items()] * REPEAT)
        # What the neighbour may get follows, and when it is there everything before it is.
        me, other = self.attacker.party, self.neighbour.party
        self.attacker.send([frames.ether(me.mac, other.mac, 0x800, frames.ipv4(me.ip, other.ip)).replace(frames.MARK, LAST)])
        time.sleep(0.3)
        seen = {where: c.stop() for where, c in catchers.items()}
        self.assertTrue(any(LAST in f for f in seen["neighbour"]), "the frame that may pass did not")
        return {where: {name: n for name, mark in marks.items() if (n := sum(mark in f for f in caught))}
                for where, caught in seen.items()}

    def report(self, what, attempts, passed):
        print(f"{self.backend}: {what}: {attempts} attempts, {passed} passed", flush=True)
        self.assertEqual(0, passed)

    def test_forged_frames(self):
        me = self.attacker.party
        attempts, passed = 0, {}
        for other, mac in ((self.neighbour.party, None), (self.victim.party, None),
                           (frames.Party(self.bridge_mac, self.attacker.gateway), None)):
            attack = frames.forged(me, other, self.attacker.gateway, "10.201.99.99", target_mac=mac)
            seen = self.arrivals(attack)
            attempts += len(attack) * REPEAT
            passed.update({(where, other.ip): x for where, x in seen.items() if x})
        self.assertEqual({}, passed)
        self.report("forged frames", attempts, sum(len(x) for x in passed.values()))

    def test_other_experiments_are_not_there(self):
        """With one's own address, by all ways: directly, by flooding, through the host."""
        me, other, host = self.attacker.party, self.victim.party, self.bridge_mac
        attack = {
            "unicast": frames.ether(me.mac, other.mac, 0x800, frames.ipv4(me.ip, other.ip)),
            "broadcast": frames.ether(me.mac, frames.BROADCAST, 0x800, frames.ipv4(me.ip, "255.255.255.255")),
            "multicast": frames.ether(me.mac, "01:00:5e:00:00:fb", 0x800, frames.ipv4(me.ip, "224.0.0.251")),
            "multicast of nodes": frames.ether(me.mac, "33:33:00:00:00:01", 0x86dd, frames.ipv6(me.ip6, "ff02::1", 17, frames.udp(1, 2))),
            "ARP request": frames.ether(me.mac, frames.BROADCAST, 0x806, frames.arp(me.mac, me.ip, other.ip)),
            "ARP answer": frames.ether(me.mac, other.mac, 0x806, frames.arp(me.mac, me.ip, other.ip, 2, other.mac)),
            "ND solicitation": frames.ether(me.mac, other.mac, 0x86dd, frames.neighbour(me.ip6, other.ip6, 135, other.ip6, me.mac, 1)),
            "IPv6": frames.ether(me.mac, other.mac, 0x86dd, frames.ipv6(me.ip6, other.ip6, 17, frames.udp(1, 2))),
            "through the host": frames.ether(me.mac, host, 0x800, frames.ipv4(me.ip, other.ip)),
            "fragments, first": frames.ether(me.mac, other.mac, 0x800, frames.ipv4(me.ip, other.ip, more=True)),
            "fragments, later": frames.ether(me.mac, other.mac, 0x800, frames.ipv4(me.ip, other.ip, payload=b"x" * 8 + frames.MARK,
                                                                                  offset=16)),
            "loopback of the host": frames.ether(me.mac, host, 0x800, frames.ipv4(me.ip, "127.0.0.1")),
        }
        seen = self.arrivals(attack)
        self.assertEqual({}, seen["victim"])
        # The neighbour, who is of the same experiment, gets what is for everybody: the attacks were sent.
        self.assertLessEqual({"broadcast", "multicast", "ARP request"}, set(seen["neighbour"]))
        self.report("another experiment", len(attack) * REPEAT, len(seen["victim"]))

    def test_services(self):
        listeners = [Listener("0.0.0.0", 22, self.victim), Listener("0.0.0.0", 80, self.victim), Listener("0.0.0.0", 22, self.neighbour),
                     Listener("0.0.0.0", 5001), Listener("0.0.0.0", 2375), Listener("0.0.0.0", 22)]
        try:
            self.assertTrue(self.attacker.connects(self.neighbour.party.ip, 22), "what is allowed does not work")
            gateway, passed, attempts = self.attacker.gateway, [], 0
            for address, port in ((self.victim.party.ip, 22), (self.victim.party.ip, 80), (gateway, 5000), (gateway, 5001),
                                  (gateway, 2375), (gateway, 22), ("192.0.2.1", 5001), ("10.200.0.1", 2375)):
                attempts += 1
                if self.attacker.connects(address, port):
                    passed.append((address, port))
            self.assertEqual([], passed)
            self.report("services of other nodes and the host", attempts, len(passed))
        finally:
            for x in listeners:
                x.stop()

    def test_floods(self):
        """Thousands of frames for everybody: those of the experiment get them, nobody else."""
        me = self.attacker.party
        flood = [frames.ether(me.mac, frames.BROADCAST, 0x800, frames.ipv4(me.ip, "255.255.255.255")),
                 frames.ether(me.mac, "01:00:5e:00:00:fb", 0x800, frames.ipv4(me.ip, "224.0.0.251")),
                 frames.ether(me.mac, "33:33:00:00:00:fb", 0x86dd, frames.ipv6(me.ip6, "ff02::fb", 17, frames.udp(1, 5353))),
                 frames.ether(me.mac, "02:00:00:00:00:fe", 0x800, frames.ipv4(me.ip, "10.201.99.98")),
                 frames.ether(me.mac, frames.BROADCAST, 0x806, frames.arp(me.mac, me.ip, self.victim.party.ip))]
        catchers = self.catchers()
        self.attacker.send(flood * 1000)
        time.sleep(0.3)
        seen = {where: c.stop() for where, c in catchers.items()}
        self.assertGreater(len(seen["neighbour"]), 1000, "the flood was sent")
        self.report("floods", len(flood) * 1000, len(seen["victim"]) + len(seen["outside"]))

    def test_sockets_of_the_host(self):
        """Every TCP port that somebody of the host listens at, at every address of the host; every unix socket of the host by its path and,
        if it has no path, by its name."""
        listener = Listener("0.0.0.0", 2375)
        self.addCleanup(listener.stop)
        ports = {int(line.split()[3].rpartition(":")[2]) for line in L.run(["ss", "-Hltn"]).out.splitlines()}
        self.assertLessEqual({5000, 2375}, ports, "the registry and what stands for Docker's TCP port")
        addresses = {a["local"] for i in json.loads(L.run(["ip", "-j", "addr"]).out) for a in i["addr_info"]
                     if a["family"] == "inet" and a["local"] != "127.0.0.1"}
        self.assertLessEqual({self.attacker.gateway, "10.200.0.1", "192.0.2.1"}, addresses)
        code = ("import json, socket, sys, threading\npassed = []\n"
                "def one(a, p):\n    try:\n        socket.create_connection((a, p), 0.7)\n        passed.append((a, p))\n"
                "    except OSError:\n        pass\n"
                "all = [threading.Thread(target=one, args=x) for x in json.loads(sys.argv[1])]\n"
                "[t.start() for t in all]\n[t.join() for t in all]\nprint(json.dumps(passed))")
        # What a node of an experiment may: its agent's TMCD port, at the address of its own network.
        declared = (self.attacker.gateway, 7777)
        tries = [(a, p) for a in sorted(addresses) for p in sorted(ports) if (a, p) != declared]
        passed = json.loads(subprocess.run(self.attacker.enter(sys.executable, "-c", code, json.dumps(tries)), stdout=subprocess.PIPE,
                                           text=True, check=True).stdout)
        paths = [os.path.join(d, f) for d, _, files in os.walk("/run") for f in files]
        paths = [p for p in paths if stat.S_ISSOCK(os.lstat(p).st_mode)]
        self.assertEqual({"docker.sock", "gate.sock", "tbnoded.sock"},
                         {"docker.sock", "gate.sock", "tbnoded.sock"} & {os.path.basename(p) for p in paths})
        with open("/proc/net/unix", encoding="utf-8") as f:
            sockets = {line.split()[7] for line in f.read().splitlines()[1:] if len(line.split()) > 7}
        found = L.docker("exec", "attacker", "sh", "-c", 'for x in "$@"; do [ ! -e "$x" ] || echo "$x"; done', "sh", *paths).out
        passed += found.split()
        inside = subprocess.run(self.attacker.enter("cat", "/proc/net/unix"), stdout=subprocess.PIPE, text=True, check=True).stdout
        named = [s for s in sockets if s.startswith("@") and f" {s}\n" in inside]
        passed += named
        self.assertEqual([], passed)
        self.report("sockets of the host", len(tries) + len(paths) + sum(s.startswith("@") for s in sockets), len(passed))

    def test_traffic_from_the_first_instant(self):
        """Containers that attack as soon as they run, and again each time that they are started."""
        other = self.victim.party.ip
        catcher = Catcher("eth0", self.victim)
        allowed = Catcher("eth0", self.neighbour)
        # The name of the file is in the packet: our marker.
        script = (f"while :; do for x in {other} {self.neighbour.party.ip}; do tftp -g -l /dev/null -r tbnode-attack $x & "
                  f"done; usleep 20000; kill %1 %2 2>/dev/null; done")
        L.docker("create", "--runtime", "tbnode", "--name", "early", "--network", CONTROL, "--label", "tbnode.experiment=e1",
                 "--label", "tbnode.firewall=open", IMAGE, "sh", "-c", script)
        try:
            for _ in range(STARTS):
                L.docker("start", "early")
                time.sleep(0.4)
                L.docker("kill", "early")
        finally:
            L.docker("rm", "-f", "early", check=False)
        sent = len(allowed.stop())
        self.assertGreater(sent, STARTS, "it did send")
        self.report(f"from the first instant, {STARTS} starts", sent, len(catcher.stop()))

    def test_metadata_address(self):
        """What a cloud answers to hosts is not for their nodes: nothing link-local is routed, whatever the style."""
        me = self.attacker.party
        attack = {a: frames.ether(me.mac, self.bridge_mac, 0x800, frames.ipv4(me.ip, a)) for a in (METADATA, "169.254.1.1")}
        seen = self.arrivals(attack)
        self.report("link-local addresses", len(attack) * REPEAT, len(seen["outside"]))

    def flood(self, stop, sent):
        """Forged and forbidden frames, without a pause."""
        me, other = self.attacker.party, self.victim.party
        bad = [frames.ether(me.mac, other.mac, 0x800, frames.ipv4("10.201.99.99", other.ip)),
               frames.ether(frames.OTHER_MAC, frames.BROADCAST, 0x806, frames.arp(frames.OTHER_MAC, self.attacker.gateway, other.ip)),
               frames.ether(me.mac, other.mac, 0x800, frames.ipv4(me.ip, other.ip)),
               frames.ether(me.mac, self.bridge_mac, 0x800, frames.ipv4(me.ip, other.ip))]
        while not stop.is_set():
            self.attacker.send(bad * 250)
            sent[0] += len(bad) * 250

    def test_no_open_moment(self):
        """Killed, restarted, and with another back end: nothing forbidden passes meanwhile, nothing allowed is lost."""
        stop, sent = threading.Event(), [0]
        catchers = self.catchers()
        thread = threading.Thread(target=self.flood, args=(stop, sent))
        probe = subprocess.Popen([f"{L.install()}/tbnode-netctl", "--json", "probe", self.attacker.pid, "eth0", self.neighbour.pid, "eth0",
                                  "packets", "6000", "interval", "2ms", "quiet", "1s"], stdout=subprocess.PIPE, text=True)
        thread.start()
        try:
            for config in ({"firewall": self.backend}, {"firewall": self.other}, {"firewall": self.backend}):
                L.tbnoded.signal(signal.SIGKILL)
                L.tbnoded.wait()
                L.tbnoded.process = None
                L.tbnoded.start(config=config)
                for n in (self.attacker, self.victim):
                    lab.wait_for(lambda n=n: (r := L.tbnode("inspect", "--json", n.name)).rc == 0 and
                                 r.json()["state"] == "configured", 15, n.name)
        finally:
            stop.set()
            thread.join()
            flow = json.loads(probe.communicate()[0])
        seen = {where: c.stop() for where, c in catchers.items()}
        forged = socket.inet_aton("10.201.99.99")
        passed = [f for f in seen["victim"]] + [f for f in seen["neighbour"] + seen["host"] if forged in f or
                                               frames.mac(frames.OTHER_MAC) in f[:12]]
        self.assertEqual(flow["sent"], flow["received"], "packets that are allowed were lost")
        self.assertGreater(sent[0], 1000)
        self.report(f"killed and switched to {self.other} and back", sent[0], len(passed))


class AttacksIptables(Campaign, unittest.TestCase):
    backend, other = "iptables", "nftables"


class AttacksNftables(Campaign, unittest.TestCase):
    backend, other = "nftables", "iptables"


if __name__ == "__main__":
    lab.main()
