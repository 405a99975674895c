#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnode shape check: what links really do, beside what is declared."""

import json
import signal
import subprocess
import unittest

import lab

IMAGE = "127.0.0.1:5000/t/busybox:1"


def setUpModule():
    global L
    L = lab.Lab.get()
    L.tbnoded.start()
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    for network in ("lan0", "lan1"):
        L.docker("network", "create", network)


def start(name, *labels, network="lan0"):
    args = [x for label in (f"tbnode.node={name}", *labels) for x in ("--label", label)]
    L.docker("run", "-d", "--name", name, "--network", network, "--cap-add", "NET_ADMIN", *args, IMAGE, "sleep", "1000")


def wait_configured(*names):
    def configured(name):
        r = L.tbnode("inspect", "--json", name)
        return r.rc == 0 and r.json()["state"] == "configured"
    for name in names:
        lab.wait_for(lambda name=name: configured(name), 15, f"{name} to be configured")


def check(*words, rc=0):
    r = L.tbnode("shape", "check", "--json", *words, check=False)
    if r.rc != rc:
        raise AssertionError(f"status {r.rc}: {r.err}{r.out}")
    return {(x["from"], x["to"]): x for x in r.json()["links"]}


def measured(rc=0):
    """Both directions with rates; a host that is busy with other tests may need several tries."""
    def attempt():
        r = L.tbnode("shape", "check", "--json")
        links = r.json()["links"]
        if any(x["as_declared"] is None for x in links) or (r.rc != rc):
            return None
        return {(x["from"], x["to"]): x for x in links}
    return lab.wait_for(attempt, 120, f"links that are measured, with status {rc}")


def children():
    """Measuring children of the agent."""
    return L.run(["pgrep", "-x", "tbnoded-links"], check=False).out.split()


class LinkCheck(unittest.TestCase):
    def tearDown(self):
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-f", *ids)
        lab.wait_for(lambda: not children(), 10, "no measuring child")

    def test_rates_of_both_directions(self):
        start("aa", "tbnode.shape=up rate 5mbit down rate 20mbit")
        start("bb")
        wait_configured("aa", "bb")
        links = measured()
        self.assertEqual({("aa", "bb"), ("bb", "aa")}, set(links))
        for ends, mbit in ((("aa", "bb"), 5), (("bb", "aa"), 20)):
            link = links[ends]
            self.assertEqual(f"rate {mbit}mbit", link["declared"])
            self.assertEqual("lan0", link["network"])
            self.assertTrue(link["as_declared"], link)
            self.assertAlmostEqual(mbit * 1e6, link["rate"]["measured_bps"], delta=mbit * 2e4)
            self.assertEqual(50, link["latency"]["received"])
            self.assertLess(0, link["latency"]["median_ms"])
        text = L.tbnode("shape", "check", "--no-rate", "aa", "lan0").out
        self.assertIn("as declared", text)

    def test_what_differs_is_said(self):
        """Somebody shapes inside the container: less than declared arrives."""
        start("aa", "tbnode.shape=rate 10mbit")
        start("bb")
        wait_configured("aa", "bb")
        pid = L.container_pid("aa")
        L.run(["nsenter", "-n", "-t", pid, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "2mbit", "burst",
               "20k", "latency", "20ms"])
        links = measured(rc=1)
        self.assertEqual("slower than declared", links["aa", "bb"]["verdict"])
        self.assertEqual("as declared", links["bb", "aa"]["verdict"])
        self.assertAlmostEqual(2e6, links["aa", "bb"]["rate"]["measured_bps"], delta=1e5)
        L.run(["nsenter", "-n", "-t", pid, "ip", "link", "set", "eth0", "down"])
        links = check("--no-rate", rc=1)
        self.assertEqual({"nothing arrived"}, {x.get("verdict", x.get("error", "")) for x in links.values()} -
                         {x["error"] for x in links.values() if "error" in x})

    def test_a_ring_and_one_node(self):
        names = ["aa", "bb", "cc", "dd"]
        for name in names:
            start(name)
        wait_configured(*names)
        links = check("--no-rate")
        self.assertEqual(8, len(links))  # four links, two directions each
        self.assertTrue(all(x["as_declared"] and x["declared"] == "" for x in links.values()))
        links = check("--no-rate", "cc", "eth0")
        self.assertEqual({(a, "cc") for a in names if a != "cc"} | {("cc", b) for b in names if b != "cc"}, set(links))

    def test_nothing_to_measure(self):
        start("aa")
        start("bb", network="lan1")
        wait_configured("aa", "bb")
        for words in ((), ("aa",), ("aa", "lan7")):
            r = L.tbnode("shape", "check", *words, check=False)
            self.assertEqual(1, r.rc)
            self.assertIn("two configured nodes", r.err)
            self.assertEqual(1, len(r.err.splitlines()))
        r = L.tbnode("shape", "check", "nobody", check=False)
        self.assertEqual(1, r.rc)
        self.assertIn("nobody", r.err)
        self.assertEqual(2, L.tbnode("shape", "check", "a", "b", "c", check=False).rc)

    def test_whoever_hangs_up_ends_it(self):
        start("aa", "tbnode.shape=rate 1mbit")
        start("bb")
        wait_configured("aa", "bb")
        p = subprocess.Popen([f"{L.install()}/tbnode", "shape", "check"], stdout=subprocess.DEVNULL)
        lab.wait_for(children, 10, "a measuring child")
        p.send_signal(signal.SIGINT)
        p.wait()
        lab.wait_for(lambda: not children(), 5, "its end")
        # ... and it dies with a killed agent, whose lock it does not hold.
        p = subprocess.Popen([f"{L.install()}/tbnode", "shape", "check"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.wait_for(children, 10, "a measuring child")
        L.tbnoded.kill()
        L.tbnoded.start()
        p.wait()
        lab.wait_for(lambda: not children(), 10, "its end with the agent")
        wait_configured("aa", "bb")

    def test_after_configuration(self):
        L.tbnoded.stop()
        L.tbnoded.start(config={"check-links": "latency"})
        start("aa")
        start("bb")
        wait_configured("aa", "bb")

        def seen():
            events = [json.loads(x) for x in L.tbnode("events", "--json").out.splitlines()]
            return [e for e in events if e["event"] == "link-check"]
        lab.wait_for(lambda: len(seen()) >= 2, 20, "two events")
        self.assertEqual({("aa", "bb"), ("bb", "aa")}, {(e["from"], e["to"]) for e in seen()})
        self.assertTrue(all(e["as_declared"] and "rate" not in e for e in seen()))
        L.tbnoded.stop()
        L.tbnoded.start()


if __name__ == "__main__":
    lab.main()
