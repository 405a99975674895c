#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnode images and prune: what lies in the testbed's registry, who uses it, what goes and what must not."""

import json
import os
import unittest

import lab

L = None
# Each case begins with an empty registry; what the grace is for is a case of its own.
CONFIG = {"socket-group": "testers", "prune-grace": "0s"}
USAGE = "/var/lib/tbnode/images.json"


def setUpModule():
    global L
    L = lab.Lab.get()
    L.hub.ensure()
    L.run(["groupadd", "-g", "4711", "testers"])
    L.run(["useradd", "-u", "4711", "-g", "4711", "-M", "tester"])
    L.tbnoded.start(config=CONFIG)
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{L.dir}/key"])


def augment(*args):
    return L.tbnode("augment", "--json", *args, check=True).json()


def images():
    return L.tbnode("images", "--json", check=True).json()["images"]


def prune(*args, check=True):
    return L.tbnode("prune", "--json", *args, check=check)


def push(name, *words):
    lab.images.busybox(L, {"Cmd": list(words)}).push(L.hub, f"library/{name}:1")


def tags(name):
    return {f"{kind}:{t}" for kind in ("mirror", "augmented") for t in L.local.tags(f"{kind}/docker.io/library/{name}")}


def grow_old(days, *words):
    """Makes the images whose name has one of the words (or all) look as if they were used so many days ago."""
    L.tbnoded.stop()  # saves
    with open(USAGE, encoding="utf-8") as f:
        j = json.load(f)
    for key, entry in j["images"].items():
        if not words or any(w in key for w in words):
            for k in entry:
                entry[k] = max(0, entry[k] - days * 86400)
    with open(USAGE, "w", encoding="utf-8") as f:
        json.dump(j, f)
    L.tbnoded.start(config=CONFIG)


class Base(unittest.TestCase):
    def setUp(self):
        prune("--keep-days", "0")  # each case with an empty registry

    def tearDown(self):
        names = [n["container"] for n in L.tbnode("ps", "--json").json()["nodes"]]
        if names:
            L.tbnode("rm", *names, check=True)

    def refused(self, r, *words):
        self.assertEqual(r.rc, 1, r)
        self.assertEqual(r.out, "")
        self.assertEqual(len(r.err.splitlines()), 1, r)
        for w in words:
            self.assertIn(w, r.err)


class Images(Base):
    def test_what_is_told(self):
        push("told", "sleep", "1000")
        out = augment("told:1")
        L.tbnode("run", "--name", "user1", "--ssh-key", f"{L.dir}/key.pub", "told:1", check=True)
        found = {i["kind"]: i for i in images() if "told" in i["repository"]}
        self.assertEqual(set(found), {"mirror", "augmented"})
        a = found["augmented"]
        self.assertEqual((a["digest"], a["level"], a["platform"], a["in_use"], a["source"]),
                         (out["digest"], "basic", "linux/amd64", ["user1"], "docker.io/library/told:1"))
        self.assertEqual(set(a["tags"]), {"1-basic", out["key"]})
        manifest, _ = L.local.manifest("augmented/docker.io/library/told", out["digest"])
        size = sum(x["size"] for x in manifest["layers"]) + manifest["config"]["size"]
        self.assertGreater(a["size"], size)
        self.assertLess(a["size"], size + 10000)
        self.assertTrue(a["last_used"].startswith("20"))
        self.assertLess(a["age_s"], 600)
        self.assertEqual(found["mirror"]["source"], "docker.io/library/told:1")
        self.assertEqual(found["mirror"]["digest"], a["base"])
        table = L.tbnode("images", check=True).out
        for word in ("docker.io/library/told:1", "basic", "(mirror)", "user1", "in all"):
            self.assertIn(word, table)

    def test_projects_are_seen_by_their_own(self):
        push("hidden", "x")
        augment("--project", "green", "hidden:1")
        mine = [i for i in images() if i.get("project") == "green"]
        self.assertEqual({i["kind"] for i in mine}, {"mirror", "augmented"})
        r = L.run(["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", f"{L.install()}/tbnode", "images",
                   "--json"])
        self.assertFalse([i for i in r.json()["images"] if i.get("project")])

    def test_without_registry_and_engine(self):
        L.local.stop()
        try:
            self.refused(L.tbnode("images"), "127.0.0.1:5000")
            self.refused(L.tbnode("prune"), "127.0.0.1:5000")
        finally:
            L.local.start()
        L.dockerd.stop()
        try:
            self.assertEqual(L.tbnode("images", "--json").rc, 0)
            self.refused(L.tbnode("prune"), "Docker engine")
        finally:
            L.dockerd.start()
            lab.wait_for(lambda: L.tbnode("status", "--json").json()["engine"]["connected"], 30, "the engine")


class Prune(Base):
    def test_by_age(self):
        push("old", "x")
        push("young", "y")
        augment("old:1")
        augment("--level", "core", "old:1")
        augment("young:1")
        before = L.local.all_tags()
        self.assertEqual(prune().json()["removed"], [])
        grow_old(40, "old")
        dry = prune("--dry-run").json()
        self.assertTrue(dry["dry_run"])
        self.assertEqual(L.local.all_tags() - {t for t in L.local.all_tags() if t.startswith("tbnode/")},
                         before - {t for t in before if t.startswith("tbnode/")})
        self.assertEqual({i["repository"].rsplit("/", 1)[1] for i in dry["removed"]}, {"old"})
        self.assertEqual(prune("--keep-days", "41").json()["removed"], [])
        gone = prune().json()
        self.assertEqual({i["digest"] for i in gone["removed"]}, {i["digest"] for i in dry["removed"]})
        self.assertEqual(tags("old"), set())
        young = tags("young")
        self.assertTrue({"mirror:1", "augmented:1-basic"} <= young)
        # What stays works, what went is made again.
        self.assertEqual(augment("young:1")["cache"], "hit")
        again = augment("old:1")
        self.assertEqual(again["cache"], "miss")
        L.docker("run", "--rm", again["image"], "true")

    def test_a_mirror_stays_for_what_is_made_from_it(self):
        push("base", "x")
        augment("base:1")
        grow_old(40, "mirror/docker.io/library/base")
        self.assertEqual(prune().json()["removed"], [])
        grow_old(40, "library/base")
        self.assertEqual({i["kind"] for i in prune().json()["removed"]}, {"mirror", "augmented", "facts", "record"})

    def test_in_use_by_containers(self):
        push("busy", "sleep", "1000")
        push("stopped", "true")
        push("plain", "true")
        plain = augment("plain:1")["image"]
        L.tbnode("run", "--name", "busy1", "--ssh-key", f"{L.dir}/key.pub", "busy:1", check=True)
        L.docker("create", "--name", "by-hand", plain)
        augment("stopped:1")
        try:
            grow_old(400)
            names = {i["repository"].rsplit("/", 1)[1] for i in prune("--keep-days", "0").json()["removed"]}
            self.assertEqual(names, {"stopped"})
            self.assertIn("augmented:1-basic", tags("busy"))
            self.assertIn("mirror:1", tags("busy"))
            self.assertIn("augmented:1-basic", tags("plain"))
        finally:
            L.docker("rm", "by-hand")

    def test_what_other_hosts_use(self):
        push("far", "x")
        push("elsewhere", "x")
        far, elsewhere = augment("far:1"), augment("elsewhere:1")
        grow_old(400)

        def key(out):
            return f"{out['image'].removeprefix(L.local.host + '/').rsplit(':', 1)[0]}@{out['digest']}"

        import time
        empty = L.local.put_blob("tbnode/usage", b"{}")
        said = {key(far): -1, key(elsewhere): int(time.time()) - 86400}
        document = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "artifactType": "application/vnd.tbnode.usage.v1+json",
                    "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2}, "layers": [],
                    "annotations": {"org.tbnode.usage": json.dumps(said)}}
        digest = L.local.put_manifest("tbnode/usage", "f" * 32, document)
        self.assertEqual(prune().json()["removed"], [])
        names = {i["repository"].rsplit("/", 1)[1] for i in prune("--keep-days", "0").json()["removed"]}
        self.assertEqual(names, {"elsewhere"})
        self.assertEqual([i["in_use"] for i in images() if "augmented" in i["repository"]], [["(another host)"]])
        self.assertEqual(L.local.request("DELETE", f"/v2/tbnode/usage/manifests/{digest}")[0], 202)

    def test_an_index_keeps_its_images(self):
        images_of = [lab.images.busybox(L, {"Cmd": ["i"]}),
                     lab.images.build(L, [{"f": b"arm"}], {"Cmd": ["i"]}, architecture="arm64")]
        entries = []
        for i, image in enumerate(images_of):
            image.push(L.hub, f"library/many:part{i}")
            manifest, digest = L.hub.manifest("library/many", f"part{i}")
            entries.append({"mediaType": manifest["mediaType"], "digest": digest, "size": len(L.hub.request(
                "GET", f"/v2/library/many/manifests/{digest}", headers={"Accept": manifest["mediaType"]})[2]),
                "platform": {"os": "linux", "architecture": ("amd64", "arm64")[i]}})
        L.hub.put_manifest("library/many", "1", {
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "manifests": entries})
        out = augment("many:1")
        index = L.local.manifest("augmented/docker.io/library/many", out["digest"])[0]
        grow_old(40)
        augment("many:1")  # a hit: the index alone is used
        self.assertNotIn("augmented", {i["kind"] for i in prune().json()["removed"]})
        for entry in index["manifests"]:
            L.local.manifest("augmented/docker.io/library/many", entry["digest"])
        grow_old(80)
        prune()
        self.assertEqual(tags("many"), set())

    def test_garbage_is_collected(self):
        push("garbage", "x" * 1000)
        out = augment("garbage:1")
        layer = L.local.manifest("mirror/docker.io/library/garbage", "1")[0]["config"]["digest"]
        prune("--keep-days", "0")
        config = f"{L.dir}/registry-local.json"
        L.local.stop()
        L.run(["/usr/bin/docker-registry", "garbage-collect", config])
        L.local.start()
        path = f"{L.local.storage}/docker/registry/v2/blobs/sha256/{layer.split(':')[1][:2]}/{layer.split(':')[1]}"
        self.assertFalse(os.path.exists(path))
        again = augment("garbage:1")
        self.assertEqual((again["cache"], again["digest"]), ("miss", out["digest"]))
        L.docker("run", "--rm", "--entrypoint", "/bin/true", again["image"])

    def test_what_was_pushed_this_moment_stays(self):
        """Whoever pushed it: also what this host has never seen, and what nobody has told yet that he uses it."""
        push("fresh", "x")
        push("aged", "y")
        augment("aged:1")
        grow_old(1)
        L.tbnoded.stop()
        L.tbnoded.start(config={**CONFIG, "prune-grace": None})
        try:
            augment("fresh:1")
            # As another host does it.
            far = lab.images.busybox(L, {"Cmd": ["far"]})
            far.push(L.local, "augmented/docker.io/library/far:1-basic")
            far.push(L.local, "mirror/docker.io/library/far:1")
            before = tags("fresh") | tags("far")
            dry = prune("--keep-days", "0", "--dry-run").json()
            self.assertEqual({i["repository"].rsplit("/", 1)[1] for i in dry["removed"]}, {"aged"})
            r = L.tbnode("prune", "--keep-days", "0", check=True).out
            self.assertRegex(r, r"[0-9]+ removed, [0-9]+ kept; 4 of them are known for less than 900 s \(prune-grace\)")
            self.assertEqual((tags("fresh") | tags("far"), tags("aged")), (before, set()))
            self.assertEqual(prune("--keep-days", "0").json()["young"], 4)
        finally:
            L.tbnoded.stop()
            L.tbnoded.start(config=CONFIG)

    def test_bad_requests(self):
        for args in (("--keep-days", "-1"), ("--keep-days", "x"), ("now",), ("--what",)):
            self.assertEqual(L.tbnode("prune", *args).rc, 2, args)
        r = L.run(["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", f"{L.install()}/tbnode", "prune"],
                  check=False)
        self.refused(r, "only root")

    def test_usage_survives_what_happens_to_it(self):
        push("noted", "x")
        augment("noted:1")
        L.tbnoded.stop()
        with open(USAGE, encoding="utf-8") as f:
            self.assertTrue([k for k in json.load(f)["images"] if "augmented/docker.io/library/noted@" in k])
        for text in ("", "{", "[]", '{"version": 9, "images": {}}'):
            with open(USAGE, "w", encoding="utf-8") as f:
                f.write(text)
            L.tbnoded.start(config=CONFIG)
            self.assertEqual(prune().json()["removed"], [])  # nobody knows, so nothing is old
            L.tbnoded.stop()
        L.tbnoded.start(config=CONFIG)


if __name__ == "__main__":
    lab.main()
