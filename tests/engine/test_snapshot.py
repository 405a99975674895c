#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnode snapshot: a node made of it has the first one's files and its own identity; and what is left when it fails (nothing)."""

import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import unittest

import lab

IMAGE = "withuser:1"
REGISTRY = "127.0.0.1:5000"
SNAPSHOTS = "projects/user-0/snapshots"
CONFIG = {"start-timeout": "20s", "socket-group": "testers"}
ANN, BEN = 4711, 4712


def setUpModule():
    global L, KEY
    L = lab.Lab.get()
    L.run(["groupadd", "-g", "4700", "testers"])
    L.tbnoded.start(config=CONFIG)
    lab.images.busybox(L, config={"User": "1000", "Env": ["COLOUR=blue"], "Entrypoint": ["/bin/sh", "-c"], "StopSignal": "SIGUSR1",
                                  "ExposedPorts": {"80/tcp": {}}, "Labels": {"made": "here"}, "WorkingDir": "/tmp",
                                  "Healthcheck": {"Test": ["CMD", "true"], "Interval": 3600000000000},
                                  "Cmd": ["id -u > /tmp/uid; echo $COLOUR > /tmp/colour; exec sleep 1000"]}
                       ).push(L.hub, "library/withuser:1")
    KEY = f"{L.dir}/key"
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])
    L.tbnode("augment", IMAGE, check=True)


def run(*args, **options):
    return L.tbnode("run", "--json", "--ssh-key", f"{KEY}.pub", *args, **options)


def ssh(node, command):
    return L.tbnode("ssh", "-i", KEY, node, command)


def as_user(uid, *args):
    return L.run(["setpriv", "--reuid", uid, "--regid", uid, "--groups", 4700, f"{L.install()}/tbnode", *args], check=False, timeout=120)


def images():
    """All of the engine, also those without a name."""
    return sorted(L.docker("images", "-aq", "--no-trunc").out.split())


def config(reference):
    """What the engine says of an image, without what it fills in for containers."""
    return json.loads(L.docker("image", "inspect", reference).out)[0]["Config"]


class Base(unittest.TestCase):
    def setUp(self):
        self.before = L.local.all_tags()

    def tearDown(self):
        names = [n["container"] for n in L.tbnode("ps", "--json").json()["nodes"]]
        if names:
            L.tbnode("rm", *names, check=True)

    def new_tags(self):
        return sorted(t for t in L.local.all_tags() - self.before if "/snapshots/" in t and "/augmented/" not in t)


class Snapshot(Base):
    def test_a_node_made_of_it(self):
        first = run("--name", "web", "--experiment", "exp", "--shape", "rate 5mbit", "--network", "lan0", "-e", "COLOUR=red",
                    "-e", "SECRET=of-this-node", "-p", "9999:81", IMAGE, "echo $COLOUR > /tmp/colour; exec sleep 1001").json()
        self.assertEqual(0, ssh("web", "logger a line; ls /run/tbnode/log; mkdir /data; echo kept > /data/file; chown 1000 /data/file").rc)
        engine = images()
        made = L.tbnode("snapshot", "--json", "web", check=True).json()
        self.assertEqual(engine, images(), "the engine has nothing of it")
        self.assertEqual([f"{SNAPSHOTS}/exp/web:latest"], self.new_tags())
        self.assertEqual((f"{REGISTRY}/{SNAPSHOTS}/exp/web:latest", "web", "user-0"), (made["image"], made["node"], made["project"]))
        manifest, digest = L.local.manifest(f"{SNAPSHOTS}/exp/web", "latest")
        self.assertEqual(digest, made["digest"])
        self.assertEqual(sum(x["size"] for x in [manifest["config"], *manifest["layers"]]), made["size"])
        self.assertEqual("running", json.loads(L.docker("inspect", "exp.web").out)[0]["State"]["Status"])

        second = run("--name", "again", "--project", "user-0", made["image"]).json()
        self.assertTrue(second["augment"]["as_is"], "it is recognised as augmented")
        self.assertEqual(made["digest"], second["augment"]["digest"])
        self.assertEqual("hit", L.tbnode("augment", "--json", "--project", "user-0", "--platform", second["augment"]["platform"],
                                         made["image"], check=True).json()["cache"])
        self.assertEqual("kept", ssh("again", "cat /data/file").out.strip())
        self.assertEqual("1000", ssh("again", "stat -c %u /data/file").out.strip())
        # main is the image's, as its user, with its environment; the node's own command and environment stay behind
        root = f"/proc/{L.container_pid('again')}/root"
        lab.wait_for(lambda: os.path.exists(f"{root}/tmp/uid"), 10, "main to have run")
        lab.wait_for(lambda: open(f"{root}/tmp/colour", encoding="utf-8").read().strip() == "blue", 10, "the image's environment")
        self.assertEqual("1000", open(f"{root}/tmp/uid", encoding="utf-8").read().strip())
        old, new = (json.loads(L.docker("inspect", x["id"]).out)[0] for x in (first, second))
        self.assertEqual(config(old["Image"]), config(new["Image"]))
        text = json.dumps(L.local.image_config(f"{SNAPSHOTS}/exp/web", "latest"))
        for word in ("of-this-node", "tbnode.experiment", "sleep 1001", "org.tbnode.snapshot", "81/tcp", old["Config"]["Hostname"] + '"'):
            self.assertNotIn(word, text.replace("exp/web", ""))
        self.assertEqual("again", ssh("again", "hostname").out.strip())
        self.assertNotIn("tbnode.experiment", new["Config"]["Labels"])
        # who it is
        keys = [ssh(n, "cat /tbnode/keys/ssh/host_key_ed25519.pub 2>/dev/null || md5sum /tbnode/keys/ssh/host_key_ed25519").out for n in ("web", "again")]
        self.assertTrue(all(keys))
        self.assertNotEqual(*keys)
        self.assertEqual("", L.docker("run", "--rm", "-u", "0", "--entrypoint", "/tbnode/bin/find", made["image"], "/", "-xdev", "-name", "host_key*").out)

        with tarfile.open(fileobj=io.BytesIO(L.local.blob(f"{SNAPSHOTS}/exp/web", manifest["layers"][-1]["digest"]))) as layer:
            names = layer.getnames()
        self.assertIn("data/file", names)
        self.assertEqual([], [n for n in names if n.startswith(("tbnode/run/", "tbnode/keys/", "run/tbnode/"))])

        # another one under the same name; and under one of the user's
        self.assertEqual(0, ssh("again", "echo more > /data/more").rc)
        other = L.tbnode("snapshot", "--no-pause", "again", "lab1/web:monday", check=True)
        self.assertIn(f"tbnode run --project user-0 {REGISTRY}/{SNAPSHOTS}/lab1/web:monday", other.out)
        third = run("--name", "third", "--project", "user-0", f"{REGISTRY}/{SNAPSHOTS}/lab1/web:monday").json()
        self.assertEqual("kept\nmore", ssh("third", "cat /data/file /data/more").out.strip())
        self.assertTrue(third["augment"]["as_is"])
        events = [json.loads(x) for x in L.tbnode("events", "--json").out.splitlines()]
        self.assertEqual(["web", "again"], [e["node"] for e in events if e["event"] == "node-snapshot"])
        self.assertEqual(["web"], [e["node"] for e in events if e["event"] == "node-paused"], "not with --no-pause")

    def test_of_level_none_and_stopped(self):
        run("--level", "none", "--name", "bare", IMAGE)
        L.docker("exec", "-u", "0", "bare", "sh", "-c", "echo bare > /kept")
        L.tbnode("stop", "bare", check=True)
        made = L.tbnode("snapshot", "--json", "bare", "bare:1", check=True).json()
        self.assertEqual(0, run("--name", "full", "--project", "user-0", made["image"]).rc)
        self.assertEqual("bare", ssh("full", "cat /kept").out.strip())
        # What somebody made by hand isn't cleared away, also when nothing uses it.
        L.tbnode("rm", "bare", "full", check=True)
        L.tbnode("prune", "--keep-days", "0", check=True)
        self.assertEqual(["1"], L.local.tags(f"{SNAPSHOTS}/bare"))
        self.assertEqual(0, run("--name", "full", "--project", "user-0", made["image"]).rc)

    def test_whose_it_is(self):
        """Only who may use the node makes one, and only the project gets it."""
        r = as_user(ANN, "run", "--json", "--name", "hers", IMAGE)
        self.assertEqual(0, r.rc, r)
        lab.one_line(self, as_user(BEN, "snapshot", "hers"), 1, f"belongs to user {ANN}")
        lab.one_line(self, as_user(ANN, "snapshot", "--project", "wheel", "hers"), 1, "not in project 'wheel'")
        lab.one_line(self, as_user(ANN, "snapshot", "--project", "a/b", "hers"), 1, "a/b")
        for name in ("UPPER", "../x", "x@sha256:" + 64 * "0", "", "a//b", "/x", ":tag", "a b"):
            lab.one_line(self, as_user(ANN, "snapshot", "hers", name), 1, "can't be called")
        self.assertEqual([], self.new_tags())
        made = json.loads(as_user(ANN, "snapshot", "--json", "hers").out)
        self.assertEqual(f"{REGISTRY}/projects/user-{ANN}/snapshots/hers:latest", made["image"])
        self.assertEqual(0, as_user(ANN, "run", "--name", "second", "--project", f"user-{ANN}", made["image"]).rc)
        lab.one_line(self, as_user(BEN, "run", "--json", "--name", "theft", made["image"]), 1, f"belongs to project user-{ANN}")
        lab.one_line(self, as_user(BEN, "run", "--json", "--name", "theft", "--project", f"user-{ANN}", made["image"]), 1, "not in project")
        # root's goes to its owner; the image's project stays the snapshot's
        self.assertEqual(f"user-{ANN}", L.tbnode("snapshot", "--json", "hers", "roots", check=True).json()["project"])
        self.assertEqual(f"user-{ANN}", json.loads(as_user(ANN, "snapshot", "--json", "second").out)["project"])


class Failures(Base):
    def test_no_such_node_and_usage(self):
        lab.one_line(self, L.tbnode("snapshot", "nosuch"), 1, "nosuch")
        self.assertEqual(2, L.tbnode("snapshot").rc)
        self.assertEqual(2, L.tbnode("snapshot", "a", "b", "c").rc)

    def test_registry_down(self):
        run("--name", "web", IMAGE)
        engine = images()
        L.local.stop()
        try:
            lab.one_line(self, L.tbnode("snapshot", "--json", "web"), 1, "web", REGISTRY)
        finally:
            L.local.start()
        self.assertEqual(engine, images())
        self.assertEqual([], self.new_tags())
        self.assertEqual(0, L.tbnode("snapshot", "web").rc, "nothing is in the way of another try")

    def pushing(self):
        """A snapshot that has got as far as the registry, which doesn't answer."""
        os.kill(L.local.pid, signal.SIGSTOP)
        p = subprocess.Popen([f"{L.install()}/tbnode", "snapshot", "web"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.wait_for(lambda: L.docker("images", "-q", "--filter", "label=org.tbnode.snapshot").out, 20, "the commit")
        return p

    def test_client_goes_away(self):
        run("--name", "web", IMAGE)
        engine = images()
        try:
            p = self.pushing()
            lab.one_line(self, L.tbnode("snapshot", "web"), 1, "already")
            p.kill()
            p.wait()
            lab.wait_for(lambda: images() == engine, 20, "the engine to be as before")
        finally:
            os.kill(L.local.pid, signal.SIGCONT)
        self.assertEqual(0, lab.wait_for(lambda: (lambda r: r.rc == 0 and r)(L.tbnode("snapshot", "web", "other")), 30, "the end of it") .rc)
        self.assertEqual([f"{SNAPSHOTS}/other:latest"], self.new_tags())

    def test_client_goes_away_during_the_commit(self):
        """Which the engine finishes all the same."""
        run("--name", "web", IMAGE)
        engine = images()
        self.assertEqual(0, ssh("web", "dd if=/dev/urandom of=/big bs=1M count=60 2>/dev/null").rc)
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect("/run/tbnode/tbnoded.sock")
            s.sendall(b"POST /v1/nodes/web/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            text = b""
            while b'"commit"' not in text:
                more = s.recv(4096)
                self.assertTrue(more, text)
                text += more
        # The next one waits for the end of this one.
        lab.wait_for(lambda: L.tbnode("snapshot", "web", "next").rc == 0, 60, "the end of it")
        self.assertEqual(engine, images())
        self.assertEqual([f"{SNAPSHOTS}/next:latest"], self.new_tags())
        self.assertFalse(json.loads(L.docker("inspect", "web").out)[0]["State"]["Paused"])

    def test_time_is_over(self):
        run("--name", "web", IMAGE)
        engine = images()
        L.tbnoded.stop()
        L.tbnoded.start(config={**CONFIG, "augment-timeout": "2s"})
        try:
            os.kill(L.local.pid, signal.SIGSTOP)
            p = subprocess.Popen([f"{L.install()}/tbnode", "snapshot", "web"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            lab.wait_for(lambda: L.docker("images", "-q", "--filter", "label=org.tbnode.snapshot").out, 20, "the commit")
            lab.wait_for(lambda: images() == engine, 20, "the engine to be as before")
            os.kill(L.local.pid, signal.SIGCONT)
            self.assertIn("augment-timeout", p.communicate(timeout=60)[1])
            self.assertEqual(1, p.returncode)
        finally:
            os.kill(L.local.pid, signal.SIGCONT)
            L.tbnoded.stop()
            L.tbnoded.start(config=CONFIG)
        self.assertEqual([], self.new_tags())

    def test_agent_is_killed(self):
        run("--name", "web", IMAGE)
        engine = images()
        try:
            p = self.pushing()
            L.tbnoded.kill()
            p.wait()
        finally:
            os.kill(L.local.pid, signal.SIGCONT)
        L.tbnoded.start(config=CONFIG)
        lab.wait_for(lambda: images() == engine, 20, "what was left to be swept")

    def test_registry_that_deletes_nothing(self):
        """The name that the engine pushed can't go, so it means the same as the other."""
        usual = L.local._config
        L.local.stop()
        L.local._config = lambda: {**usual(), "storage": {k: v for k, v in usual()["storage"].items() if k != "delete"}}
        try:
            L.local.start()
            run("--name", "web", IMAGE)
            made = L.tbnode("snapshot", "--json", "web", "kept", check=True).json()
            tags = L.local.tags(f"{SNAPSHOTS}/kept")
            self.assertEqual(2, len(tags))
            self.assertEqual({made["digest"]}, {L.local.manifest(f"{SNAPSHOTS}/kept", t)[1] for t in tags})
        finally:
            L.local.stop()
            L.local._config = usual
            L.local.start()


if __name__ == "__main__":
    lab.main()
