#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""control-interface: a physical interface (one end of a veth) becomes a port of the control network's bridge and loses no packet."""

import re
import signal
import subprocess
import unittest

import lab

IMAGE = "127.0.0.1:5000/t/busybox:1"
OUTSIDE, HOST = "192.0.2.1", "192.0.2.10"
CONFIG = {"control-interface": "phys0", "control-subnet": "10.77.0.0/16"}


def setUpModule():
    global L
    L = lab.Lab.get()
    L.dockerd.start()
    L.local.ensure()
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    for command in (
            "ip netns add outside", "ip link add phys0 type veth peer name out0 netns outside",
            "ip -n outside addr add 192.0.2.1/24 dev out0", "ip -n outside addr add 192.0.2.2/24 dev out0",
            "ip -n outside addr add 2001:db8::1/64 dev out0 nodad", "ip -n outside link set lo up", "ip -n outside link set out0 up",
            "ip addr add 192.0.2.10/24 brd 192.0.2.255 dev phys0 label phys0:1", "ip addr add 192.0.2.11/24 dev phys0",
            "ip addr add 172.20.5.1/30 dev phys0 noprefixroute", "ip addr add 2001:db8::10/64 dev phys0 nodad", "ip link set phys0 up",
            "ip route add default via 192.0.2.1 src 192.0.2.10", "ip route add 198.51.100.0/24 via 192.0.2.2 metric 50 mtu 1300",
            "ip route add 203.0.113.7/32 dev phys0", "ip route add 198.18.0.0/15 via 192.0.2.1 table 77",
            "ip -6 route add default via 2001:db8::1"):
        L.run(command.split())
    lab.wait_for(lambda: L.run(["ping", "-c1", "-W1", OUTSIDE], check=False).rc == 0, 20, "the link")


def addresses(device):
    """As ip tells them, without what runs: the lifetimes of what is for ever do not."""
    text = L.run(["ip", "-o", "addr", "show", "dev", device, "scope", "global"]).out
    return sorted(re.sub(r"^\d+: ", "", line).split("\\")[0].strip().replace(" nodad", "") for line in text.splitlines())


def routes():
    """Those of the host that Docker has not made."""
    out = []
    for version in ("-4", "-6"):
        out += [line.strip() for line in L.run(["ip", version, "route", "show", "table", "all"]).out.splitlines()
                if re.search(r"dev (phys0|br-\w+)", line) and "table local" not in line and "10.77." not in line and "fe80" not in line
                and "10.201." not in line and "multicast" not in line]
    return sorted(re.sub(r" linkdown| pref medium", "", x) for x in out)


class Pings:
    """From both sides, a hundred per second each; lost() ends them."""

    def __init__(self):
        ping = ["ping", "-i", "0.01", "-W", "1", "-q"]
        self.all = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for argv in (
            ["ip", "netns", "exec", "outside", *ping, HOST], ["ip", "netns", "exec", "outside", *ping, "2001:db8::10"],
            [*ping, "-I", HOST, OUTSIDE])]

    def lost(self):
        out = []
        for p in self.all:
            p.send_signal(signal.SIGINT)
            sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", p.communicate(timeout=30)[0]).groups())
            out.append(max(0, sent - received - 1))  # the last one may be on its way
        return out


class ControlInterface(unittest.TestCase):
    def tearDown(self):
        if L.tbnoded.running:
            L.tbnoded.stop()
        L.tbnoded.run("--release-control-interface")
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-f", *ids)
        L.docker("network", "rm", "tbnode-control", check=False)

    @staticmethod
    def bridge():
        return f"br-{L.docker('network', 'inspect', '-f', '{{.Id}}', 'tbnode-control').out.strip()[:12]}"

    @staticmethod
    def is_port():
        return next(x for x in L.links() if x["ifname"] == "phys0").get("master")

    def test_there_and_back(self):
        before = (addresses("phys0"), routes())
        self.assertEqual(4, len(before[0]))
        said = L.tbnoded.log().count("is a port of the control network's bridge")
        pings = Pings()
        L.tbnoded.start(config=CONFIG)
        lab.wait_for(self.is_port, 20, "the move")
        bridge = self.bridge()
        self.assertEqual((bridge, []), (self.is_port(), addresses("phys0")))
        there = [re.sub(r"\bphys0(:1)?(?=\s|$)", "DEV", x) for x in before[0]]
        here = [re.sub(rf"\b{bridge}(?=\s|$)", "DEV", x) for x in addresses(bridge) if " 10.77." not in x]
        self.assertEqual(sorted(x.removesuffix(" DEV") for x in there), sorted(x.removesuffix(" DEV") for x in here))
        self.assertEqual([x.replace("phys0", "DEV") for x in before[1]], sorted(x.replace(bridge, "DEV") for x in routes()))
        self.assertEqual([0, 0, 0], pings.lost(), "packets that were lost on the way there")
        # A second time costs nothing, also for an agent that was killed.
        moved = L.run(["ip", "-o", "link", "show", "phys0"]).out
        L.tbnoded.kill()
        L.tbnoded.start(config=CONFIG)
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["engine"]["connected"], 30, "the engine")
        self.assertEqual(said + 1, L.tbnoded.log().count("is a port of the control network's bridge"))
        L.dockerd.restart()
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["engine"]["connected"], 30, "the engine")
        self.assertEqual(moved, L.run(["ip", "-o", "link", "show", "phys0"]).out)
        # Docker takes IPv6 addresses off its bridges when it starts.
        lab.wait_for(lambda: L.run(["ip", "netns", "exec", "outside", "ping", "-c1", "-W1", "2001:db8::10"], check=False).rc == 0, 20, "IPv6")
        # A node on it is a neighbour of those outside.
        L.docker("run", "-d", "--name", "aa", "--network", "tbnode-control", "--label", "tbnode.firewall=open", IMAGE, "sleep", "1000")
        L.run(["ip", "-n", "outside", "addr", "add", "10.77.200.1/16", "dev", "out0"])
        ip = L.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "aa").out.strip()
        lab.wait_for(lambda: L.run(["ip", "netns", "exec", "outside", "ping", "-c1", "-W1", ip], check=False).rc == 0, 20, "the node to answer")
        L.run(["ip", "-n", "outside", "addr", "del", "10.77.200.1/16", "dev", "out0"])
        pings = Pings()
        L.tbnoded.stop()
        self.assertEqual(bridge, self.is_port(), "the agent's end changes nothing")
        self.assertEqual(0, L.tbnoded.run("--release-control-interface").rc)
        self.assertEqual([0, 0, 0], pings.lost(), "packets that were lost on the way back")
        self.assertIsNone(self.is_port())
        self.assertEqual(before, (addresses("phys0"), routes()))
        self.assertIn("nothing to be given back", L.tbnoded.run("--release-control-interface").out)

    def test_removed_network(self):
        """With its bridge go the addresses: the host gets them back, and the network is made again."""
        before = (addresses("phys0"), routes())
        L.tbnoded.start(config=CONFIG)
        old = lab.wait_for(self.is_port, 20, "the move")
        L.docker("network", "rm", "tbnode-control")
        lab.wait_for(lambda: self.is_port() not in (None, old), 20, "the new bridge")
        lab.wait_for(lambda: L.run(["ping", "-c1", "-W1", OUTSIDE], check=False).rc == 0, 20, "the way out")
        L.tbnoded.stop()
        self.assertEqual(0, L.tbnoded.run("--release-control-interface").rc)
        self.assertEqual(before, (addresses("phys0"), routes()))

    def test_what_cannot_be_moved(self):
        before = (addresses("phys0"), routes())
        L.run("ip route add 198.51.99.0/24 nexthop via 192.0.2.1 dev phys0 nexthop via 192.0.2.2 dev phys0".split())
        L.tbnoded.start(config=CONFIG)
        lab.wait_for(lambda: "several next hops" in L.tbnoded.log(), 20, "it to be said")
        L.run("ip route del 198.51.99.0/24".split())
        self.assertEqual((None, before), (self.is_port(), (addresses("phys0"), routes())))
        L.tbnoded.stop()
        L.tbnoded.start(config={**CONFIG, "control-interface": "nosuch0"})
        lab.wait_for(lambda: "there is no interface nosuch0" in L.tbnoded.log(), 20, "it to be said")


if __name__ == "__main__":
    lab.main()
