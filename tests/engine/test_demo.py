#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""scripts/demo: it runs to its end, what it prints is true, and whatever happens to it, nothing of it stays."""

import glob
import os
import re
import signal
import subprocess
import time
import unittest

import lab

L = None
ENV = {"TBNODE_DEMO_NO_INSTALL": "1"}


def setUpModule():
    global L
    L = lab.Lab.get()
    ENV["TBNODE_BUILD_DIR"] = L.build


def state():
    """What the demo could leave in its surroundings."""
    return {
        "links": sorted(x["ifname"] for x in L.links()),
        "qdiscs": L.qdiscs(),
        "rules": L.iptables() + L.iptables_nft(),
        "tables": L.run("nft", "list", "tables").out,
        "forward": L.run("sysctl", "-n", "net.ipv4.ip_forward").out,
        "processes": sorted(p for p in L.run("ps", "-eo", "comm=").out.split()
                            if re.match("dockerd|containerd|docker-reg|tbnode|iperf3|dropbear|runsv", p)),
        "files": sorted(glob.glob("/run/*") + glob.glob("/etc/docker/*") + glob.glob("/var/lib/tbnode/*") +
                        glob.glob(f"{os.environ['TMPDIR']}/tbnode-demo*")),
        "cgroups": L.run("find", "/sys/fs/cgroup", "-name", "tbnode-demo*").out,
    }


class Demo(unittest.TestCase):
    def setUp(self):
        for tool in ("iptables-nft", "iptables-legacy"):
            L.run(tool, "-S")  # makes its tables, so that they are there before as well
        self.before = state()
        self.log = f"{L.tmp('demo')}/log"

    def start(self, *args):
        with open(self.log, "wb") as out:
            # As from a terminal: a shell's background job would have SIGINT ignored.
            return subprocess.Popen([f"{L.source}/scripts/demo", *args], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                    env={**os.environ, **ENV})

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def assert_as_before(self):
        self.assertEqual(state(), self.before, self.text())

    def test_runs_to_its_end(self):
        rc = self.start().wait(400)
        text = self.text()
        self.assertEqual(rc, 0, text)
        self.assertIn("can't be reached", text)  # there is no Hub here: it says so and makes a base
        rates = dict(re.findall(r"shaped \(rate (\w+)\): +([\d.]+) Mbit/s", text))
        self.assertLess(float(rates["10mbit"]), 10.5)
        self.assertLess(float(rates["2mbit"]), 2.1)
        self.assertGreater(float(re.search(r"before shaping.*: +([\d.]+) Mbit/s", text).group(1)), 50)
        self.assertIn("I am root on", text)
        self.assertIn("no qdisc, ifb, chain, tag or container more than before them", text)
        self.assertIn("no process, device, qdisc, rule, container or network is there that was not", text)
        self.assert_as_before()
        print("".join(f"# {line}\n" for line in text.splitlines()))

    def test_an_image_that_is_named(self):
        """One from a registry that can be reached: that very image, no other, becomes the nodes' image."""
        L.local.ensure()
        lab.images.busybox(L).push(L.local, "my/busybox:1")
        _, digest = L.local.manifest("my/busybox", "1")
        image = f"{L.local.host}/my/busybox:1"
        self.before = state()  # with that registry
        rc = self.start(image).wait(400)
        text = self.text()
        self.assertEqual(rc, 0, text)
        self.assertIn(f"   {image}\n", text)
        self.assertIn(f"tbnode augment {image}", text)
        self.assertNotIn("takes its place", text)
        self.assertNotIn("debootstrap", text)
        self.assertIn("I am root on", text)
        # What was pulled, by the log of the registry it lies in, and what was made of it.
        self.assertIn(("GET", f"/v2/my/busybox/manifests/{digest}", 200), L.local.accesses())
        self.assertRegex(text, r"augmented/127\.0\.0\.1:?_?-?5000/my/busybox")
        self.assert_as_before()
        L.local.stop()

    def interrupted(self, number, pattern, delay=0.0):
        demo = self.start()
        lab.wait_for(lambda: re.search(pattern, self.text()) or demo.poll() is not None, 300, pattern)
        self.assertIsNone(demo.poll(), self.text())
        time.sleep(delay)  # into the middle of what that line announces
        demo.send_signal(number)
        return demo.wait(120)

    def test_interrupted_while_the_engine_starts(self):
        self.assertEqual(self.interrupted(signal.SIGINT, "registry and agent", 0.3), 130)
        self.assert_as_before()

    def test_terminated_with_nodes_running(self):
        self.assertEqual(self.interrupted(signal.SIGTERM, "in their network namespaces", 1), 143)
        self.assert_as_before()

    def test_killed_then_run_again(self):
        self.assertEqual(self.interrupted(signal.SIGKILL, "in their network namespaces", 1), -signal.SIGKILL)
        self.assertEqual(self.interrupted(signal.SIGTERM, "no engine ran"), 143)
        self.assertIn("removing what an interrupted run left", self.text())
        self.assert_as_before()

    def test_unknown_image(self):
        rc = self.start("127.0.0.1:9/nothing:here").wait(200)
        self.assertEqual(rc, 1)
        self.assertIn("failed at step", self.text())
        self.assert_as_before()

    def test_wrong_usage(self):
        self.assertEqual(self.start("--frobnicate").wait(20), 2)
        self.assertEqual(self.start("one", "two").wait(20), 2)


if __name__ == "__main__":
    lab.main(debian=True)
