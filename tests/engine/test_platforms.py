#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Indexes: a request without a platform augments what there is a payload for and gives an index; one with a platform gives
that image. Attestations and Windows are left out; what the registry then has is what docker and skopeo choose from."""

import gzip
import hashlib
import json
import os
import shutil
import unittest

import lab
from augment_driver import Driver

L = None
D = None
PAYLOAD = None
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def setUpModule():
    global L, D, PAYLOAD
    L = lab.Lab.get()
    L.hub.ensure()
    L.local.ensure()
    L.install()
    PAYLOAD = foreign_payload()
    D = Driver(L)


def tearDownModule():
    if D:
        assert D.close() == 0


def foreign_payload():
    """The payload of the build and, beside it, one for arm64, whose programs nobody runs here."""
    root = f"{L.tmp('payload')}"
    os.chmod(root, 0o755)
    shutil.copytree(f"{L.dir}/payload/amd64", f"{root}/amd64")  # a worker sees nothing outside of it
    os.makedirs(f"{root}/arm64")
    layers = []
    for level, file in (("basic", "init"), ("core", "client")):
        raw = lab.images.layer({f"tbnode/{file}": (b"for arm64\n", 0o755)})
        packed = gzip.compress(raw, 9, mtime=0)
        with open(f"{root}/arm64/{level}.tar.gz", "wb") as f:
            f.write(packed)
        layers.append({"level": level, "file": f"{level}.tar.gz", "digest": sha256(packed), "diff_id": sha256(raw),
                       "size": len(packed)})
    with open(f"{root}/arm64/payload.json", "w", encoding="utf-8") as f:
        json.dump({"version": "1", "arch": "arm64", "layers": layers, "components": []}, f)
    return root


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push_index(name, platforms, form="oci", registry=None, annotations=True, top=None):
    """library/NAME:1, an index of an image per platform ("linux/arm64/v8"), each with an attestation if it is OCI. Returns the
    index and the digests of the images by platform."""
    registry = registry or L.hub
    entries, digests = [], {}
    for platform in platforms:
        os_name, arch, *variant = platform.split("/")
        image = lab.images.build(L, [{f"usr/share/{arch}": platform.encode(), "etc/os-release": b"ID=" + arch.encode()}],
                                 {"Cmd": ["/x", arch], "User": "7"}, architecture=arch, os_name=os_name, name=name)
        image.push(registry, f"library/{name}:{platform.replace('/', '-')}", format="oci" if form == "oci" else "v2s2")
        manifest, digest = registry.manifest(f"library/{name}", platform.replace("/", "-"))
        digests[platform] = digest
        entry = {"mediaType": manifest["mediaType"], "digest": digest, "size": size_of(registry, name, digest),
                 "platform": {"architecture": arch, "os": os_name, **({"variant": variant[0]} if variant else {})}}
        if form == "oci" and annotations:
            entry["annotations"] = {"com.docker.official-images.bashbrew.arch": arch}
        entries.append(entry)
        if form == "oci":
            proof = registry.put_blob(f"library/{name}", b"{}")
            statement = {"schemaVersion": 2, "mediaType": manifest["mediaType"],
                         "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": proof, "size": 2},
                         "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": proof, "size": 2}],
                         "annotations": {"of": platform}}
            about = registry.put_manifest(f"library/{name}", "proof", statement)
            entries.append({"mediaType": manifest["mediaType"], "digest": about, "size": len(json.dumps(statement)),
                            "platform": {"architecture": "unknown", "os": "unknown"},
                            "annotations": {"vnd.docker.reference.type": "attestation-manifest",
                                            "vnd.docker.reference.digest": digest}})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX if form == "oci" else DOCKER_LIST, "manifests": entries, **(top or {})}
    registry.put_manifest(f"library/{name}", "1", index)
    return index, digests


def size_of(registry, name, digest):
    _, headers, body = registry.request("GET", f"/v2/library/{name}/manifests/{digest}",
                                        headers={"Accept": "application/vnd.oci.image.manifest.v1+json, "
                                                 "application/vnd.docker.distribution.manifest.v2+json"})
    return len(body)


def augment(image, cmd="augment", **options):
    r = D(cmd, image, payload_dir=PAYLOAD, **options)
    return r


def repository(name, project=""):
    return f"{project}augmented/docker.io/library/{name}"


class Indexes(unittest.TestCase):
    def check(self, name, form, platforms, made):
        index, bases = push_index(name, platforms, form, top={"annotations": {"of": "all"}} if form == "oci" else None)
        first = augment(f"{name}:1", level="core")
        self.assertNotIn("error", first)
        result = first["result"]
        self.assertTrue(result["index"])
        self.assertIsNone(result["platform"])
        self.assertEqual([p["platform"] for p in result["platforms"]], made)
        self.assertEqual([p["base"] for p in result["platforms"]], [bases[p] for p in platforms if p.removesuffix("/v8") in made])
        got, digest = L.local.manifest(repository(name), "1-core")
        self.assertEqual(digest, result["digest"])
        self.assertEqual(L.local.manifest(repository(name), result["key"])[1], digest)
        self.assertEqual(got["mediaType"], index["mediaType"])
        self.assertEqual([m["digest"] for m in got["manifests"]], [p["digest"] for p in result["platforms"]])
        wanted = [e for e in index["manifests"] if e["digest"] in [p["base"] for p in result["platforms"]]]
        for entry, old in zip(got["manifests"], wanted):
            self.assertEqual({**entry, "digest": 0, "size": 0}, {**old, "digest": 0, "size": 0})
            manifest, _ = L.local.manifest(repository(name), entry["digest"])
            config = json.loads(L.local.blob(repository(name), manifest["config"]["digest"]))
            self.assertEqual(config["architecture"], entry["platform"]["architecture"])
            self.assertEqual(config["config"]["Cmd"], ["/x", config["architecture"]])
            self.assertEqual(config["config"]["Labels"]["org.opencontainers.image.base.digest"], old["digest"])
            self.assertEqual(len(manifest["layers"]), 3)
        if form == "oci":
            self.assertEqual(got["annotations"]["of"], "all")
            self.assertEqual(got["annotations"]["org.tbnode.level"], "core")
            self.assertEqual(got["annotations"]["org.opencontainers.image.base.digest"], result["source"]["digest"])
        else:
            self.assertNotIn("annotations", got)
        for p in result["platforms"]:
            self.assertEqual(p["facts"]["files"]["distro"], p["platform"].split("/")[1])
        return result

    def test_oci_index(self):
        self.check("oci-index", "oci", ["linux/amd64", "linux/arm/v7", "linux/arm64/v8", "windows/amd64", "linux/s390x"],
                   ["linux/amd64", "linux/arm64"])

    def test_docker_list(self):
        self.check("docker-list", "docker", ["linux/arm64", "windows/amd64", "linux/amd64"], ["linux/arm64", "linux/amd64"])

    def test_second_request_is_a_hit_by_head(self):
        push_index("index-hit", ["linux/amd64", "linux/arm64"])
        first = augment("index-hit:1")
        seen, asked = len(L.local.accesses()), len(L.hub.accesses())
        second = augment("index-hit:1")
        self.assertTrue(second["hit"])
        self.assertEqual(second["result"]["digest"], first["result"]["digest"])
        self.assertTrue(second["result"]["index"])
        self.assertEqual({m for m, _, _ in L.local.accesses()[seen:]}, {"HEAD"})
        self.assertEqual(len([a for a in L.hub.accesses()[asked:] if a[2] == 200]), 1)

    def test_made_again_from_the_mirror(self):
        push_index("index-again", ["linux/amd64", "linux/s390x", "linux/arm64/v8"])
        first = augment("index-again:1")["result"]
        seen = len(L.hub.accesses())
        again = augment("index-again:1", fresh=True)["result"]
        self.assertEqual(again["digest"], first["digest"])
        self.assertEqual(again["bytes"]["downloaded"], 0)
        self.assertEqual({a[0] for a in L.hub.accesses()[seen:] if a[2] == 200}, {"HEAD"})
        other = augment("index-again:1", level="core")["result"]
        self.assertEqual(other["bytes"]["downloaded"], 0)

    def test_one_platform_of_it(self):
        """Its own moving name; the whole's stays. What the whole has made is a hit."""
        push_index("index-one", ["linux/amd64", "linux/arm64/v8"])
        arm = augment("index-one:1", platform="linux/arm64")["result"]
        self.assertFalse(arm["index"])
        self.assertTrue(arm["image"].endswith("/index-one:1-basic-linux-arm64"), arm["image"])
        self.assertEqual(L.local.tags("mirror/docker.io/library/index-one").count("1"), 0)
        whole = augment("index-one:1")["result"]
        self.assertEqual([p["digest"] for p in whole["platforms"]][1], arm["digest"])
        amd = augment("index-one:1", platform="linux/amd64")
        self.assertTrue(amd["hit"])
        self.assertEqual(amd["result"]["digest"], whole["platforms"][0]["digest"])
        self.assertEqual(L.local.manifest(repository("index-one"), "1-basic")[1], whole["digest"])
        self.assertEqual(L.local.manifest(repository("index-one"), "1-basic-linux-amd64")[1], amd["result"]["digest"])

    def test_by_digest(self):
        push_index("index-digest", ["linux/amd64", "linux/arm64"])
        digest = L.hub.manifest("library/index-digest", "1")[1]
        first = augment(f"index-digest@{digest}")["result"]
        self.assertTrue(first["index"])
        again = augment(f"index-digest@{digest}")
        self.assertEqual((again["hit"], again["result"]["digest"], again["result"]["index"]), (True, first["digest"], True))
        # An image's own digest may be asked for the same way: for this machine.
        amd = L.hub.manifest("library/index-digest", "linux-amd64")[1]
        one = augment(f"index-digest@{amd}")["result"]
        self.assertEqual((one["index"], one["platform"]), (False, "linux/amd64"))
        again = augment(f"index-digest@{amd}")
        self.assertEqual((again["hit"], again["result"]["digest"]), (True, one["digest"]))
        self.assertEqual((again["result"]["platform"], again["result"]["image"]), ("linux/amd64", one["image"]))

    def test_level_none_is_the_index_of_what_is_mirrored(self):
        index, bases = push_index("index-none", ["linux/amd64", "linux/ppc64le", "linux/arm64"])
        r = augment("index-none:1", level="none")["result"]
        self.assertEqual((r["as_is"], r["image"]), (True, f"{L.local.host}/mirror/docker.io/library/index-none:1"))
        got, _ = L.local.manifest("mirror/docker.io/library/index-none", "1")
        self.assertEqual([m["digest"] for m in got["manifests"]], [bases["linux/amd64"], bases["linux/arm64"]])
        self.assertTrue(augment("index-none:1", level="none")["hit"])
        # Nothing to leave out: it stays byte for byte.
        _, digest = push_index("index-same", ["linux/amd64"], form="docker")[0], L.hub.manifest("library/index-same", "1")[1]
        self.assertEqual(augment("index-same:1", level="none")["result"]["digest"], digest)

    def test_index_in_the_testbeds_registry(self):
        push_index("own-index", ["linux/amd64", "linux/arm64", "windows/amd64"], registry=L.local)
        r = augment("127.0.0.1:5000/library/own-index:1")["result"]
        self.assertEqual([p["platform"] for p in r["platforms"]], ["linux/amd64", "linux/arm64"])
        self.assertEqual(augment(r["image"], level="none")["result"]["digest"], r["digest"])
        # An index of ours is used as it is, too.
        again = augment(r["image"])["result"]
        self.assertEqual((again["as_is"], again["digest"]), (True, r["digest"]))

    def test_update(self):
        push_index("index-update", ["linux/amd64", "linux/arm64"], registry=L.local)
        first = augment("127.0.0.1:5000/library/index-update:1")["result"]
        updated = augment(first["image"], update=True)["result"]
        self.assertFalse(updated["as_is"])
        self.assertEqual([p["platform"] for p in updated["platforms"]], ["linux/amd64", "linux/arm64"])

    def test_one_platform_that_cannot(self):
        push_index("index-bad", ["linux/amd64"])
        image = lab.images.build(L, [{"x": b"1"}], {"Cmd": ["x"], "Volumes": {"/tbnode": {}}}, architecture="arm64")
        image.push(L.hub, "library/index-bad:arm", format="oci")
        manifest, digest = L.hub.manifest("library/index-bad", "arm")
        index, _ = L.hub.manifest("library/index-bad", "1")
        index["manifests"].append({"mediaType": manifest["mediaType"], "digest": digest, "size": size_of(L.hub, "index-bad", digest),
                                   "platform": {"architecture": "arm64", "os": "linux"}})
        L.hub.put_manifest("library/index-bad", "1", index)
        r = augment("index-bad:1")
        self.assertIn("linux/arm64: the image declares the VOLUME /tbnode", r["error"]["message"])
        self.assertNotIn("1-basic", L.local.tags(repository("index-bad")))
        self.assertIn("result", augment("index-bad:1", platform="linux/amd64"))

    def test_no_usable_platform(self):
        push_index("index-none-fits", ["linux/s390x", "windows/amd64"])
        before = L.local.all_tags()
        r = augment("index-none-fits:1")
        self.assertIn("it has linux/s390x, windows/amd64, payloads are installed for linux/amd64,linux/arm64", r["error"]["message"])
        r = augment("index-none-fits:1", platform="linux/amd64")
        self.assertIn("linux/s390x", r["error"]["message"])
        self.assertEqual(L.local.all_tags(), before)

    def test_another_payload_makes_another_index(self):
        push_index("index-payload", ["linux/amd64", "linux/arm64"])
        both = augment("index-payload:1")["result"]
        only = D("augment", "index-payload:1", payload_dir=only_amd64())
        self.assertFalse(only["hit"])
        self.assertEqual([p["platform"] for p in only["result"]["platforms"]], ["linux/amd64"])
        self.assertNotEqual(only["result"]["key"], both["key"])


def only_amd64():
    root = L.tmp("payload-amd64")
    os.chmod(root, 0o755)
    shutil.copytree(f"{L.dir}/payload/amd64", f"{root}/amd64")  # a worker sees nothing outside of it
    return root


class Pulled(unittest.TestCase):
    def test_docker_and_skopeo_choose(self):
        push_index("index-pull", ["linux/amd64", "linux/arm64/v8", "windows/amd64"])
        image = augment("index-pull:1")["result"]["image"]
        for arch in ("amd64", "arm64"):
            L.docker("pull", "-q", "--platform", f"linux/{arch}", image)
            _, seen = L.dockerd.request("GET", f"/images/{image}/json")
            self.assertEqual((seen["Architecture"], seen["Config"]["Cmd"]), (arch, ["/x", arch]))
            self.assertEqual(len(seen["RootFS"]["Layers"]), 2)
            L.docker("rmi", image)
            config = json.loads(L.skopeo("inspect", "--config", "--tls-verify=false", "--override-arch", arch,
                                         f"docker://{image}").out)
            self.assertEqual(config["architecture"], arch)

    def test_all_of_it_can_be_copied(self):
        push_index("index-copy", ["linux/amd64", "linux/arm64"], form="docker")
        image = augment("index-copy:1")["result"]["image"]
        L.skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"docker://{image}", f"dir:{L.tmp('copy')}")

    def test_docker_builder_gives_this_machines(self):
        push_index("index-docker", ["linux/amd64", "linux/arm64"], form="docker")
        r = augment("index-docker:1", cmd="docker")
        self.assertNotIn("error", r)
        self.assertEqual((r["result"]["index"], r["result"]["platform"]), (False, "linux/amd64"))
        self.assertTrue(r["result"]["image"].endswith(":1-basic-linux-amd64"))
        self.assertEqual(L.local.manifest(repository("index-docker"), "1-basic-linux-amd64")[1], r["result"]["digest"])

    def test_of_the_agent(self):
        """tbnode augment makes the index, tbnode dockerfile and tbnode run are about this host."""
        L.tbnoded.start(env={"TBNODE_PAYLOAD_DIR": PAYLOAD})
        push_index("index-agent", ["linux/amd64", "linux/arm64"])
        r = L.tbnode("augment", "--json", "--level", "basic", "index-agent:1")
        self.assertEqual(r.rc, 0, r)
        self.assertTrue(r.json()["index"])
        self.assertIn("linux/arm64", L.tbnode("augment", "--level", "core", "index-agent:1").out)
        r = L.tbnode("augment", "--json", "--level", "basic", "--platform", "linux/arm64", "index-agent:1")
        self.assertEqual((r.json()["cache"], r.json()["platform"]), ("hit", "linux/arm64"))
        self.assertIn("linux/amd64", L.tbnode("dockerfile", "index-agent:1").out)


if __name__ == "__main__":
    lab.main()
