#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The laboratory itself: its engine and registries are real ones and behave as the other tests assume."""

import os
import unittest

import lab

L = None


def setUpModule():
    global L
    L = lab.Lab.get()
    lab.images.busybox(L).push(L.hub, "library/busybox:1.36")


class Walls(unittest.TestCase):
    def test_only_loopback_to_begin_with(self):
        names = [x["ifname"] for x in L.links()]
        self.assertIn("lo", names)
        self.assertNotIn("eth0", names)

    def test_writes_below_etc_and_var_lib_stay_inside(self):
        for path in ("/etc/tbnode-lab-test", "/var/lib/tbnode/lab-test"):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as f:
                f.write("x")


class Registries(unittest.TestCase):
    def test_local_round_trip(self):
        lab.images.scratch(L).push(L.local, "test/scratch:1", format="oci")
        manifest, digest = L.local.manifest("test/scratch", "1")
        self.assertEqual(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json")
        self.assertTrue(digest.startswith("sha256:"))
        self.assertEqual(L.local.image_config("test/scratch", "1")["config"]["Entrypoint"], ["/probe"])
        self.assertIn("test/scratch:1", L.local.all_tags())
        self.assertTrue(any(m == "PUT" and "/manifests/" in p and s == 201 for m, p, s in L.local.accesses()))

    def test_hub_asks_for_a_token_and_trusts_its_users(self):
        r = L.skopeo("inspect", "--raw", "docker://docker.io/library/busybox:1.36")
        self.assertEqual(r.json()["schemaVersion"], 2)
        self.assertTrue(L.hub.token_requests)
        L.hub.add_user("alice", "secret")
        lab.images.scratch(L).push(L.hub, "private/tool:1")
        self.assertNotEqual(L.skopeo("inspect", "docker://docker.io/private/tool:1", check=False).rc, 0)
        self.assertNotEqual(L.skopeo("inspect", "--creds", "alice:wrong", "docker://docker.io/private/tool:1",
                                     check=False).rc, 0)
        L.skopeo("inspect", "--creds", "alice:secret", "docker://docker.io/private/tool:1")

    def test_corrupt_content_is_served(self):
        image = lab.images.scratch(L)
        image.push(L.local, "test/corrupt:1")
        layer = L.local.manifest("test/corrupt", "1")[0]["layers"][0]["digest"]
        L.local.corrupt(layer)
        self.assertNotEqual(L.skopeo("copy", "--src-tls-verify=false", "docker://127.0.0.1:5000/test/corrupt:1",
                                     f"dir:{L.tmp()}", check=False).rc, 0)


class Docker(unittest.TestCase):
    def test_pull_and_run_from_the_hub(self):
        L.docker("pull", "-q", "busybox:1.36")
        r = L.docker("run", "--rm", "--user", "app", "busybox:1.36", "/bin/probe", "one", "exit", "0")
        self.assertEqual(r.json()["uid"], 1000)
        self.assertEqual(r.json()["args"], ["/bin/probe", "one", "exit", "0"])

    def test_bandwidth_between_two_containers(self):
        lab.images.scratch(L).load("probe:1")
        L.docker("network", "create", "n1")
        for name in ("node-a", "node-b"):
            L.docker("run", "-d", "--name", name, "--network", "n1", "probe:1")
        ip = L.docker("inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", "node-b").out.strip()
        pids = [L.container_pid(n) for n in ("node-a", "node-b")]
        self.assertGreater(L.bandwidth(*pids, ip, seconds=1), 100e6)
        L.docker("stop", "node-a")
        self.assertIn('"signal":15', L.docker("logs", "node-a").out)
        self.assertEqual(L.traces(), [])


if __name__ == "__main__":
    lab.main()
