#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""`tbnode shape` on running nodes: changes for a time, links that are down or flap, and what `show` says of the kernel."""

import json
import os
import signal
import time
import unittest

import lab

IMAGE = "127.0.0.1:5000/t/busybox:1"


def setUpModule():
    global L
    L = lab.Lab.get()
    L.tbnoded.start()
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    L.docker("network", "create", "lan0")


def shown(name="aa"):
    """The one interface of a node, as `tbnode shape show` has it."""
    r = L.tbnode("shape", "show", "--json", name)
    return r.json()["nodes"][0]["interfaces"][0] if r.rc == 0 and r.json()["nodes"][0]["interfaces"] else None


def start(*labels, name="aa"):
    args = [x for label in labels for x in ("--label", label)]
    L.docker("run", "-d", "--name", name, "--network", "lan0", *args, IMAGE, "sleep", "1000")
    lab.wait_for(lambda: L.tbnode("inspect", "--json", name).json()["state"] == "configured", 15, f"{name} configured")


def shape(verb, *words, name="aa"):
    return L.tbnode("shape", verb, name, "lan0", *words)


def rate(device):
    """Of our class, in bit/s, as tc tells it; not through the agent."""
    words = L.run(["tc", "class", "show", "dev", device]).out.split()
    text = words[words.index("rate") + 1]
    for unit, factor in (("Gbit", 10**9), ("Mbit", 10**6), ("Kbit", 10**3), ("bit", 1)):
        if text.endswith(unit):
            return int(text[:-len(unit)]) * factor
    raise AssertionError(text)


def kinds(device):
    return [q["kind"] for q in json.loads(L.run(["tc", "-j", "qdisc", "show", "dev", device]).out)
            if q["kind"] not in ("htb", "ingress")]


def ping(name="aa", other="bb"):
    address = L.docker("inspect", "-f", "{{.NetworkSettings.Networks.lan0.IPAddress}}", other).out.strip()
    return L.docker("exec", name, "ping", "-c", "1", "-W", "1", address, check=False).rc == 0


class Base(unittest.TestCase):
    def tearDown(self):
        if not L.tbnoded.running:
            L.tbnoded.start()
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-f", *ids)
        lab.wait_for(lambda: not L.traces(), 10, f"no traces: {L.traces()}")

    def ok(self, result):
        self.assertEqual(0, result.rc, result)
        return result


class ForATime(Base):
    def test_reverts(self):
        start("tbnode.shape=rate 10mbit")
        self.ok(shape("set", "rate", "1mbit", "for", "3s"))
        i = shown()
        device = i["down"]["device"]
        self.assertEqual(1000000, rate(device))
        self.assertEqual("rate 1mbit", i["down"]["requested"])
        self.assertEqual("rate 10mbit", i["temporary"]["before"])
        self.assertLessEqual(i["temporary"]["remaining_ms"], 3000)
        lab.wait_for(lambda: rate(device) == 10000000, 15, "the rate to come back")
        self.assertIsNone(shown()["temporary"])
        self.assertEqual("rate 10mbit", shown()["down"]["requested"])
        self.assertIn("shape-expired", L.tbnode("events").out)

    def test_reverts_after_the_agent_was_killed(self):
        """Nothing changes while there is no agent; the next one makes up for it at once."""
        start("tbnode.shape=rate 10mbit")
        self.ok(shape("set", "rate", "1mbit", "for", "2s"))
        device = shown()["down"]["device"]
        L.tbnoded.kill()
        began = time.monotonic()
        lab.wait_for(lambda: time.monotonic() - began > 2.5, 10, "the time to be over")
        self.assertEqual(1000000, rate(device))
        L.tbnoded.start()
        lab.wait_for(lambda: rate(device) == 10000000, 10, "the rate to come back")
        self.assertIsNone(shown()["temporary"])
        with open("/var/lib/tbnode/state.json", encoding="utf-8") as f:
            self.assertNotIn("until", f.read())

    def test_goes_on_after_the_agent_was_killed(self):
        start("tbnode.shape=rate 10mbit")
        self.ok(shape("set", "rate", "1mbit", "for", "1000s"))
        device = shown()["down"]["device"]
        L.tbnoded.kill()
        L.tbnoded.start()
        lab.wait_for(lambda: shown() and shown()["down"], 10, "the node to be known again")
        self.assertEqual(1000000, rate(device))
        left = shown()["temporary"]["remaining_ms"]
        self.assertTrue(900000 < left < 1000000, left)

    def test_chain_goes_back_to_the_first(self):
        start("tbnode.shape=rate 10mbit")
        self.ok(shape("set", "rate", "1mbit", "for", "1000s"))
        self.ok(shape("set", "rate", "2mbit for 1s"))
        device = shown()["down"]["device"]
        lab.wait_for(lambda: rate(device) == 10000000, 15, "the rate of the label")
        self.ok(shape("set", "rate", "3mbit", "for", "1000s"))
        self.ok(shape("set", "limit", "77"))
        i = shown()
        self.assertEqual(("rate 3mbit limit 77", None), (i["down"]["requested"], i["temporary"]))

    def test_bad_times(self):
        start("tbnode.shape=rate 10mbit")
        for words in (("set", "rate", "1mbit", "for", "x"), ("set", "rate", "1mbit", "for", "1ms"),
                      ("down", "for", "100000000s"), ("flap", "1s", "1ms"), ("flap", "1s", "2s", "0")):
            r = shape(*words)
            self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())), r)
        for words in (("set", "for", "3s"), ("down", "now"), ("flap",), ("sideways", "x")):
            self.assertEqual(2, shape(*words).rc)
        self.assertEqual("rate 10mbit", shown()["down"]["requested"])


class DownAndUp(Base):
    def test_down_loses_all_packets_both_ways_and_keeps_the_link(self):
        start("tbnode.shape=rate 10mbit")
        start("tbnode.node=bb", name="bb")
        self.assertTrue(ping())
        self.ok(shape("down"))
        i = shown()
        self.assertEqual((["blackhole"], ["blackhole"]), (kinds(i["up"]["device"]), kinds(i["down"]["device"])))
        self.assertEqual("link down rate 10mbit", i["up"]["shape"])
        self.assertFalse(ping())
        self.assertFalse(ping("bb", "aa"))
        # The node still sees its interface and its carrier.
        self.assertEqual("1", L.docker("exec", "aa", "cat", "/sys/class/net/eth0/carrier").out.strip())
        self.ok(shape("up"))
        lab.wait_for(ping, 15, "the ping to pass again")
        self.assertEqual("rate 10mbit", shown()["up"]["requested"])

    def test_down_for_a_time_without_any_shape(self):
        start("tbnode.node=aa")
        start("tbnode.node=bb", name="bb")
        self.ok(shape("down", "for", "3s"))
        self.assertFalse(ping())
        lab.wait_for(ping, 20, "the ping to pass again")

    def test_flap(self):
        start("tbnode.shape=rate 10mbit")
        self.ok(shape("flap", "300ms", "300ms"))
        device = shown()["down"]["device"]
        for _ in range(3):
            lab.wait_for(lambda: kinds(device) == ["blackhole"], 10, "the link to go down")
            lab.wait_for(lambda: kinds(device) != ["blackhole"], 10, "the link to come up")
        self.assertEqual(300, shown()["flap"]["down_ms"])
        # The state at any instant follows from the start, also for another agent.
        L.tbnoded.kill()
        L.tbnoded.start()
        lab.wait_for(lambda: kinds(device) == ["blackhole"], 15, "the link to go down")
        lab.wait_for(lambda: kinds(device) != ["blackhole"], 15, "the link to come up")
        self.ok(shape("up"))
        i = shown()
        self.assertEqual((None, "rate 10mbit"), (i["flap"], i["down"]["requested"]))
        self.ok(shape("flap", "200ms", "200ms", "2"))
        lab.wait_for(lambda: kinds(device) == ["blackhole"], 10, "the link to go down")
        lab.wait_for(lambda: shown()["flap"]["link"] == "up" and kinds(device) != ["blackhole"], 10, "it to be over")


class Show(Base):
    def test_what_the_kernel_has(self):
        start("tbnode.shape=up rate 2mbit limit 64kb down rate 10mbit overhead 24 burst 32kb")
        i = shown()
        up, down = i["up"], i["down"]
        self.assertEqual("rate 2mbit limit 64kb", up["shape"])
        self.assertEqual(["bfifo"], kinds(up["device"]))
        self.assertEqual("rate 10mbit overhead 24 burst 32kb", down["requested"])
        self.assertTrue(down["shape"].startswith("rate 10mbit overhead 24 limit "), down)
        self.assertTrue(32768 <= down["burst_bytes"] < 33000, down)
        # Somebody's hand on the kernel is seen, not what was asked for.
        L.run(["tc", "class", "change", "dev", down["device"], "classid", "7462:1", "htb", "rate", "5mbit"])
        self.assertTrue(shown()["down"]["shape"].startswith("rate 5mbit"))
        table = L.tbnode("shape", "show").out
        self.assertIn("IN THE KERNEL", table)
        self.assertIn("rate 5mbit", table)
        self.assertIn("rate 10mbit overhead 24 burst 32kb", table)

    def test_neighbours_send_what_a_shape_can_count(self):
        """P6: frames of many segments to a node are made by the others of its network."""
        start("tbnode.shape=rate 1gbit")
        self.assertEqual("on", shown()["segmentation"])
        start("tbnode.shape=rate 1gbit limit 500", name="bb")
        self.assertEqual("off", shown("bb")["segmentation"])
        lab.wait_for(lambda: shown()["segmentation"] == "off", 10, "aa to follow")
        self.ok(shape("set", "limit", "0", name="bb"))
        lab.wait_for(lambda: shown()["segmentation"] == "on", 10, "aa to follow back")
        self.assertEqual("on", shown("bb")["segmentation"])
        self.ok(shape("set", "offload", "off", name="bb"))
        lab.wait_for(lambda: shown()["segmentation"] == "off", 10, "aa to follow again")
        L.docker("rm", "-f", "bb")
        lab.wait_for(lambda: shown()["segmentation"] == "on", 10, "aa to be alone")

    def test_a_queue_of_somebody_else_is_replaced_when_the_user_says_so(self):
        start("tbnode.firewall=none")
        host = shown()["host_ifname"]
        L.run(["tc", "qdisc", "add", "dev", host, "root", "handle", "9:", "pfifo", "limit", "7"])
        refused = shape("set", "rate", "1mbit")
        self.assertNotEqual(0, refused.rc)
        self.assertIn("of somebody else", refused.err)
        self.assertEqual(["pfifo"], kinds(host))
        self.ok(shape("set", "--replace-foreign", "rate", "1mbit"))
        self.assertEqual(1000000, rate(host))
        self.ok(shape("clear"))

    def test_a_schedule_of_many_links_is_followed_together(self):
        names = ["aa", "bb", "cc"]
        for name in names:
            start("tbnode.shape=rate 10mbit", name=name)
        hosts = [shown(name)["down"]["device"] for name in names]
        pid = L.tbnode("status", "--json").json()["pid"]
        for seconds in (4, 15, 60):  # on a machine that needs longer to make them, more time
            for name in names:
                self.ok(shape("set", "rate", "1mbit", "for", f"{seconds}s", name=name))
            began = time.monotonic()
            batches = L.tbnode("status", "--json").json()["counters"]["batches"]
            os.kill(pid, signal.SIGSTOP)
            try:
                if [rate(h) for h in hosts] == [1000000] * 3:
                    lab.wait_for(lambda: time.monotonic() - began > seconds, seconds + 10, "all times to be over")
                    break
            finally:
                os.kill(pid, signal.SIGCONT)
        lab.wait_for(lambda: [rate(h) for h in hosts] == [10000000] * 3, 20, "all rates to come back")
        self.assertEqual([None] * 3, [shown(name)["temporary"] for name in names])
        # One batch for the three; the engine may have said something meanwhile.
        self.assertLess(L.tbnode("status", "--json").json()["counters"]["batches"] - batches, len(names))

    def test_what_the_kernel_cannot_do_fails_the_node(self):
        """With the module and the package that has it; the others go on."""
        if L.run(["modprobe", "-n", "sch_red"], check=False).rc == 0:
            self.skipTest("this kernel has RED")
        L.docker("run", "-d", "--name", "aa", "--network", "lan0", "--label", "tbnode.shape=rate 10mbit queue red", IMAGE,
                 "sleep", "1000")
        failed = lab.wait_for(lambda: (n := L.tbnode("inspect", "--json", "aa").json())["state"] == "failed" and n, 15,
                              "aa to fail")
        for word in ("sch_red", "linux-image-amd64", "queue red"):
            self.assertIn(word, failed["reason"])
        start("tbnode.shape=rate 10mbit", name="bb")


if __name__ == "__main__":
    lab.main()
