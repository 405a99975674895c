#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes wrong gives one clear line and an exit status, and leaves nothing half-made."""

import json
import os
import unittest

import lab

L = None
SHAPE = "rate 10mbit"


def setUpModule():
    global L
    L = lab.Lab.get()
    L.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{L.ssh_dir()}/id_ed25519")
    lab.images.busybox(L, {"Cmd": ["sleep", "1000"]}).push(L.hub, "library/busybox:1.36")
    L.tbnoded.start()
    L.docker("pull", "-q", "busybox:1.36")


def tearDownModule():
    L.tbnoded.stop()


class Case(unittest.TestCase):
    def setUp(self):
        self.tags = L.local.all_tags()
        self.containers = self.all_containers()
        self.networks = L.docker("network", "ls", "-q").out.split()

    @staticmethod
    def all_containers():
        return sorted(L.docker("ps", "-aq").out.split())

    def assert_one_line(self, result, rc, *words):
        """That exit status, nothing on stdout, and one line on stderr that holds the words."""
        self.assertEqual(result.rc, rc, result)
        lines = result.err.strip().split("\n")
        self.assertEqual(len(lines), 1, result)
        self.assertEqual(result.out, "", result)
        for word in words:
            self.assertIn(word.lower(), lines[0].lower(), result)

    def assert_nothing_made(self):
        self.assertEqual(L.local.all_tags(), self.tags)
        self.assertEqual(self.all_containers(), self.containers)
        self.assertEqual(L.traces(), [])

    def assert_agent_well(self):
        self.assertTrue(L.tbnoded.running, L.tbnoded.log_tail())
        self.assertEqual(L.tbnode("status").rc, 0)


class Images(Case):
    def test_unknown_image(self):
        self.assert_one_line(L.tbnode("augment", "nosuchimage:1"), 1, "nosuchimage")
        self.assert_one_line(L.tbnode("augment", "busybox:nosuchtag"), 1, "nosuchtag")
        self.assert_one_line(L.tbnode("run", "--name", "n-unknown", "nosuchimage:1"), 1, "nosuchimage")
        self.assert_one_line(L.tbnode("dockerfile", "nosuchimage:1"), 1, "nosuchimage")
        self.assert_nothing_made()

    def test_not_an_image_name(self):
        for name in ("UPPER/Case", "a//b", "-x:1", "busybox@sha256:123", "", "a" * 5000):
            with self.subTest(name[:20]):
                r = L.tbnode("augment", "--", name)
                self.assertIn(r.rc, (1, 2), r)
                self.assertEqual(len(r.err.strip().split("\n")), 1, r)
        self.assert_nothing_made()

    def test_registry_of_the_testbed_is_down(self):
        L.local.stop()
        try:
            r = L.tbnode("augment", "busybox:1.36")
            self.assert_one_line(r, 1, "127.0.0.1:5000")
            self.assert_agent_well()
        finally:
            L.local.start()
        self.assert_nothing_made()

    def test_registry_of_the_image_is_down(self):
        lab.images.scratch(L).push(L.hub, "library/afterwards:1")
        L.hub.stop()
        try:
            self.assert_one_line(L.tbnode("augment", "afterwards:1"), 1, "docker.io")
        finally:
            L.hub.start()
        self.assert_nothing_made()
        self.assertEqual(L.tbnode("augment", "afterwards:1").rc, 0)

    def test_layer_with_wrong_content(self):
        lab.images.build(L, [{"unique": os.urandom(100000)}], {"Cmd": ["/x"]}).push(L.hub, "library/wronglayer:1")
        L.hub.corrupt(L.hub.manifest("library/wronglayer", "1")[0]["layers"][0]["digest"])
        self.assert_one_line(L.tbnode("augment", "wronglayer:1"), 1, "digest")
        self.assert_nothing_made()

    def test_config_with_wrong_content(self):
        lab.images.build(L, [{"unique": os.urandom(1000)}], {"Cmd": ["/y"]}).push(L.hub, "library/wrongconfig:1")
        L.hub.corrupt(L.hub.manifest("library/wrongconfig", "1")[0]["config"]["digest"])
        self.assert_one_line(L.tbnode("augment", "wrongconfig:1"), 1, "digest")
        self.assert_nothing_made()

    def test_manifest_that_is_nonsense(self):
        digest = L.hub.put_blob("library/nonsense", b"{}")
        config = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": digest}
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        L.hub.put_manifest("library/nonsense", "1", {"schemaVersion": 2, "mediaType": kind, "config": config,
                                                     "layers": []})
        r = L.tbnode("augment", "nonsense:1")
        self.assert_one_line(r, 1)
        self.assert_nothing_made()

    def test_worker_that_is_killed(self):
        """The worker process may die at any instant: no tag, and the next request works."""
        lab.images.build(L, [{"big": os.urandom(1 << 20)}], {"Cmd": ["/z"]}).push(L.hub, "library/killed:1")
        fake = f"{L.tmp('worker')}/worker"
        with open(fake, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\nkill -9 $$\n")
        os.chmod(fake, 0o755)
        L.tbnoded.stop()
        try:
            L.tbnoded.start(env={"TBNODE_WORKER": fake})
            self.assert_one_line(L.tbnode("augment", "killed:1"), 1)
        finally:
            L.tbnoded.stop()
            L.tbnoded.start()
        self.assert_nothing_made()
        self.assertEqual(L.tbnode("augment", "killed:1").rc, 0)


class Nodes(Case):
    def tearDown(self):
        new = set(self.all_containers()) - set(self.containers)
        if new:
            L.docker("rm", "-fv", *new)
        lab.wait_for(lambda: L.traces() == [], 20, "the kernel to be clean")

    def node(self, name):
        nodes = {n.get("name") or n.get("node"): n for n in self.ps()}
        return nodes.get(name)

    @staticmethod
    def ps():
        value = L.tbnode("ps", "--json").json()
        return value["nodes"] if isinstance(value, dict) else value

    def wait_state(self, name, state):
        return lab.wait_for(lambda: (n := self.node(name)) and n["state"].upper() == state and n, 20,
                            f"{name} to be {state}")

    def test_run_with_nonsense_creates_nothing(self):
        for args, word in ((["--shape", "rate fast"], "fast"), (["--shape", "speed 10mbit"], "speed"),
                           (["--shape", "rate -1mbit"], "-1mbit"), (["--shape", "loss 101%"], "101%"),
                           (["--firewall", "fortress"], "fortress"), (["--on-exit", "explode"], "on-exit")):
            with self.subTest(" ".join(args)):
                r = L.tbnode("run", "--name", "n-bad", *args, "busybox:1.36")
                self.assertIn(r.rc, (1, 2), r)
                self.assertEqual(len(r.err.strip().split("\n")), 1, r)
                self.assertIn(word, r.err)
                self.assertEqual(self.all_containers(), self.containers)

    def test_label_with_nonsense_fails_that_node_only(self):
        L.docker("network", "create", "badlabel")
        try:
            for name, shape in (("n-wrong", "rate fast"), ("n-right", SHAPE)):
                L.docker("run", "-d", "--name", name, "--network", "badlabel", "--label", f"tbnode.shape={shape}",
                         "busybox:1.36")
            self.wait_state("n-right", "CONFIGURED")
            self.wait_state("n-wrong", "FAILED")
            r = L.tbnode("inspect", "n-wrong")
            self.assertIn("fast", r.out, r)
            self.assertIn("tbnode.shape", r.out, r)
            self.assertIn("fast", L.tbnoded.log())
            L.docker("rm", "-f", "n-wrong", "n-right")
        finally:
            L.docker("rm", "-f", "n-wrong", "n-right", check=False)
            L.docker("network", "rm", "badlabel")

    def test_containers_that_die_during_set_up(self):
        L.docker("network", "create", "shortlived")
        try:
            for i in range(10):
                L.docker("run", "-d", "--rm", "--network", "shortlived", "--label", f"tbnode.shape={SHAPE}",
                         "--label", "tbnode.firewall=basic", "busybox:1.36", "true")
            lab.wait_for(lambda: self.all_containers() == self.containers, 30, "the containers to be gone")
            lab.wait_for(lambda: L.traces() == [], 20, "the kernel to be clean")
            self.assert_agent_well()
        finally:
            L.docker("network", "rm", "shortlived")

    def test_name_that_is_taken(self):
        L.docker("run", "-d", "--name", "n-taken", "busybox:1.36")
        self.assert_one_line(L.tbnode("run", "--name", "n-taken", "busybox:1.36"), 1, "n-taken")
        self.assertEqual(len(self.all_containers()), len(self.containers) + 1)

    def test_networks_made_for_a_run_that_fails_go_again(self):
        networks = L.docker("network", "ls", "-q").out.split()
        self.assert_one_line(L.tbnode("run", "--name", "n-net", "--network", "madeforit", "--entrypoint", "/nosuchprogram",
                                      "--level", "none", "busybox:1.36"), 1, "nosuchprogram")
        self.assertEqual(self.all_containers(), self.containers)
        self.assertNotIn("madeforit", L.docker("network", "ls", "--format", "{{.Name}}").out.split())
        self.assertLessEqual(len(L.docker("network", "ls", "-q").out.split()), len(networks) + 1)  # the control network

    def test_unknown_node(self):
        for verb in (["inspect"], ["stop"], ["rm"], ["logs"], ["shape", "show"]):
            with self.subTest(verb):
                self.assert_one_line(L.tbnode(*verb, "nosuchnode"), 1, "nosuchnode")

    def test_unlabelled_containers_are_never_touched(self):
        L.docker("network", "create", "foreign")
        try:
            L.docker("run", "-d", "--name", "n-foreign", "--network", "foreign", "busybox:1.36")
            L.tbnode("status")
            self.assertIsNone(self.node("n-foreign"))
            self.assertEqual(L.traces(), [])
            L.docker("rm", "-f", "n-foreign")
        finally:
            L.docker("network", "rm", "foreign")


class Programs(Case):
    def test_agent_started_twice(self):
        r = L.tbnoded.run("--config", "/etc/tbnode/tbnoded.conf")
        self.assertEqual(r.rc, 1, r)
        self.assertEqual(len((r.out + r.err).strip().split("\n")), 1, r)
        self.assertIn("run", (r.out + r.err).lower())
        self.assert_agent_well()

    def test_agent_without_root(self):
        r = L.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", f"{L.dir}/bin/tbnoded",
                  "--config", "/etc/tbnode/tbnoded.conf", check=False, timeout=20)
        self.assertEqual(r.rc, 1, r)
        self.assertEqual(len((r.out + r.err).strip().split("\n")), 1, r)
        self.assertIn("root", r.out + r.err)

    def test_client_without_rights(self):
        r = L.run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", f"{L.dir}/bin/tbnode",
                  "status", check=False, timeout=20)
        self.assert_one_line(r, 3)

    def test_agent_that_does_not_run(self):
        L.tbnoded.stop()
        try:
            for args in (["status"], ["ps"], ["augment", "busybox:1.36"], ["run", "busybox:1.36"]):
                with self.subTest(args):
                    self.assert_one_line(L.tbnode(*args), 3, "tbnoded")
        finally:
            L.tbnoded.start()

    def test_wrong_usage(self):
        for args in ([], ["frobnicate"], ["augment"], ["augment", "--level"], ["augment", "--nosuch", "x"],
                     ["shape", "set", "x"], ["ps", "extra"]):
            with self.subTest(args):
                r = L.tbnode(*args)
                self.assertEqual(r.rc, 2, r)
                self.assertEqual(r.out, "", r)
                self.assertTrue(r.err.strip(), r)

    def test_configuration_with_an_error(self):
        for text, words in (("nosuchkey=1\n", ["nosuchkey", ":1"]), ("registry=http://127.0.0.1:5000\nfirewall=stone\n",
                                                                   ["stone", ":2"]), ("[section\n", [":1"])):
            with self.subTest(text):
                path = L.tbnoded.write_config(raw=text, path=f"{L.tmp('conf')}/tbnoded.conf")
                r = L.tbnoded.run("--config", path, "--check-config")
                self.assertEqual(r.rc, 1, r)
                self.assertEqual(len((r.out + r.err).strip().split("\n")), 1, r)
                for word in words + [path]:
                    self.assertIn(word, r.out + r.err)
        r = L.tbnoded.run("--config", "/nosuch/file.conf")
        self.assertEqual(r.rc, 1, r)
        self.assertIn("/nosuch/file.conf", r.out + r.err)

    def test_no_docker(self):
        """Without an engine what needs one fails with a line that names it, and it works again when it is back."""
        L.dockerd.stop()
        try:
            self.assert_one_line(L.tbnode("run", "--name", "n-nodocker", "busybox:1.36"), 1, "docker")
            self.assertTrue(L.tbnoded.running)
        finally:
            L.dockerd.start()
        lab.wait_for(lambda: L.tbnode("run", "--name", "n-back", "busybox:1.36").rc == 0, 30, "the agent to be back")
        self.assertEqual(L.tbnode("rm", "n-back").rc, 0)

    def test_json_errors_are_on_stderr_as_well(self):
        r = L.tbnode("augment", "--json", "nosuchimage:1")
        self.assertEqual(r.rc, 1, r)
        if r.out:
            json.loads(r.out)
        self.assertIn("nosuchimage", r.err)


if __name__ == "__main__":
    lab.main()
