#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Augmentation against a real registry and a real engine: both builders give the same image, it behaves as its base,
the second request is a hit, and what fails leaves nothing."""

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import unittest

import lab
from augment_driver import Driver, essence
from labkit import tree
from labkit.registry import MANIFEST_TYPES

L = None
D = None
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ODD = ["/bin/probe", "", "  two  ", "# x", "it's \"quoted\" $HOME ${X:-y} \\ `id`", "line\nbreak\ttab", "gr\u00fcn \u2603 \U0001d11e",
       "\u202e\u2028\ufeff", "<<EOF", "back\\", "x" * 9000]

FIXTURES = {
    "plain": {"Cmd": ["/bin/probe", "hello"]},
    "nginx-like": {"Entrypoint": ["/bin/probe"], "Cmd": ["-g", "daemon off;"], "StopSignal": "SIGQUIT",
                   "ExposedPorts": {"80/tcp": {}}, "Labels": {"maintainer": "N <n@example.org>"}},
    "user": {"Entrypoint": ["probe"], "Cmd": ["memcached"], "User": "app", "WorkingDir": "/home/app"},
    "user-group": {"Cmd": ["/bin/probe"], "User": "1000:33"},
    "unknown-uid": {"Cmd": ["/bin/probe"], "User": "4711"},
    "root": {"Cmd": ["/bin/probe"], "User": "root"},
    "home": {"Cmd": ["/bin/probe"], "User": "app", "Env": [PATH, "HOME=/data/db", "X=a b"]},
    "shell-form": {"Entrypoint": ["/bin/sh", "-c", "exec /bin/probe \"$HOME\" 'it'\"'\"'s' \\\n # no comment\n"],
                   "Cmd": ["/bin/sh", "-c", "echo unused"]},
    "odd": {"Cmd": ODD},
    "empty-cmd": {"Entrypoint": ["/bin/probe"], "Cmd": []},
    "no-cmd": {"Entrypoint": ["/bin/probe", "only"], "Cmd": None},
    "health": {"Cmd": ["/bin/probe"], "User": "app",
               "Healthcheck": {"Test": ["CMD-SHELL", "test \"$(id -u)\" = 1000 && test $HOME = /home/app"],
                               "Interval": 1000000000, "Timeout": 1500000000, "Retries": 2}},
    "health-root": {"Cmd": ["/bin/probe"], "Healthcheck": {"Test": ["CMD", "/bin/true"], "Interval": 1000000000}},
    # A WorkingDir that exists: a missing one makes the engine add a layer at any instruction (moby SetupWorkingDirectory).
    "volume": {"Cmd": ["/bin/probe"], "Volumes": {"/data": {}, "/tbnode-data": {}}, "WorkingDir": "/var/www"},
}


def setUpModule():
    global L, D
    L = lab.Lab.get()
    L.hub.ensure()
    L.local.ensure()
    base = lab.images.busybox(L)
    for i, (name, config) in enumerate(FIXTURES.items()):
        push(name, config, base, "oci" if i % 2 else "v2s2")
    D = Driver(L)


def tearDownModule():
    if D:
        assert D.close() == 0


def push(name, config, base=None, form="v2s2", registry=None, **options):
    """Pushes library/NAME:1 with the layers of a busybox image (or its own) and this config."""
    if base:
        image = lab.images.build(L, [], {"Env": [PATH], **config}, name=name, **options)
        take_layers(image, base)
    else:
        image = lab.images.busybox(L, config)
    return image.push(registry or L.hub, f"library/{name}:1", format=form)


def take_layers(image, base):
    """Gives an image without layers those of another one."""
    blobs = f"{image.path}/blobs/sha256"
    for layer in base.layers:
        digest = layer["digest"].removeprefix("sha256:")
        shutil.copy(f"{base.path}/blobs/sha256/{digest}", f"{blobs}/{digest}")

    def put(value):
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{digest}", "wb") as f:
            f.write(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    image.config["rootfs"] = base.config["rootfs"]
    image.config["history"] = base.config["history"]
    with open(f"{image.path}/index.json", encoding="utf-8") as f:
        index = json.load(f)
    with open(f"{blobs}/{index['manifests'][0]['digest'].removeprefix('sha256:')}", encoding="utf-8") as f:
        manifest = json.load(f)
    manifest["config"].update(put(image.config))
    manifest["layers"] = image.layers = base.layers
    index["manifests"][0].update(put(manifest))
    with open(f"{image.path}/index.json", "w", encoding="utf-8") as f:
        json.dump(index, f)


def repository(name):
    return f"augmented/docker.io/library/{name}"


def config_of(repo, digest):
    manifest, _ = L.local.manifest(repo, digest)
    return json.loads(L.local.blob(repo, manifest["config"]["digest"]))


def engine_state():
    """Names, images and containers of the engine."""
    images = sorted(L.docker("images", "-aq", "--no-trunc").out.split())
    names = sorted(L.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out.split())
    return images, [n for n in names if "<none>" not in n], L.docker("ps", "-aq").out.split()


class Builders(unittest.TestCase):
    def test_native_and_docker_give_the_same_image(self):
        L.dockerd.ensure()
        for name, level in [*((name, "basic") for name in FIXTURES), ("user", "core"), ("odd", "core"), ("health", "core")]:
            with self.subTest(f"{name} {level}"):
                native = D("augment", f"{name}:1", level=level)
                self.assertNotIn("error", native)
                before = engine_state()
                docker = D("docker", f"{name}:1", level=level, fresh=True)
                self.assertNotIn("error", docker)
                after = engine_state()
                self.assertEqual(after[1:], before[1:])
                self.assertLessEqual(len(set(after[0]) - set(before[0])), 1)  # the base
                repo = repository(name)
                a, b = (x["result"]["digest"] for x in (native, docker))
                self.assertEqual(L.local.manifest(repo, f"1-{level}")[1], b)
                self.assertEqual(L.local.manifest(repo, docker["result"]["key"])[1], b)
                self.assertEqual(essence(config_of(repo, a)), essence(config_of(repo, b)))
                self.assertEqual(*(tree.of_image(L.local, repo, x) for x in (a, b)))
                self.assertIn("tbnode/init", tree.of_image(L.local, repo, b))

    def test_same_input_same_digest(self):
        first = D("augment", "user:1", fresh=True)["result"]
        second = D("augment", "user:1", fresh=True)["result"]
        self.assertEqual(first["digest"], second["digest"])

    def test_media_types_follow_the_base(self):
        kinds = set()
        for name in ("plain", "nginx-like"):
            digest = D("augment", f"{name}:1", fresh=True)["result"]["digest"]
            base, _ = L.local.manifest(f"mirror/docker.io/library/{name}", "1")
            m, _ = L.local.manifest(repository(name), digest)
            self.assertEqual(m["mediaType"], base["mediaType"])
            self.assertEqual(m["config"]["mediaType"], base["config"]["mediaType"])
            self.assertEqual(m["layers"][:-1], base["layers"])
            self.assertEqual(m["layers"][-1]["mediaType"], base["layers"][0]["mediaType"])
            labels = config_of(repository(name), digest)["config"]["Labels"]
            self.assertEqual(labels["org.opencontainers.image.base.name"], f"docker.io/library/{name}:1")
            if "oci" in m["mediaType"]:
                for key, value in m["annotations"].items():
                    self.assertEqual(labels[key], value)
                self.assertIn("org.tbnode.level", m["annotations"])
            else:
                self.assertNotIn("annotations", m)
            kinds.add(m["mediaType"])
        self.assertEqual(len(kinds), 2)

    def test_exported_context_builds_with_both_docker_builders(self):
        directory = L.tmp("context")
        r = D("context", "odd:1", directory=directory)
        self.assertNotIn("error", r)
        self.assertEqual(sorted(os.listdir(directory)), ["Dockerfile", "basic.tar.gz"])
        native = config_of(repository("odd"), D("augment", "odd:1", fresh=True)["result"]["digest"])["config"]
        for buildkit in ("0", "1"):
            with self.subTest(buildkit=buildkit):
                L.docker("build", "-q", "-t", "exported:1", directory, env={"DOCKER_BUILDKIT": buildkit})
                _, image = L.dockerd.request("GET", "/images/exported:1/json")
                for key in ("Entrypoint", "Cmd", "Labels"):
                    self.assertEqual(image["Config"][key], native[key])
                L.docker("rmi", "exported:1")

    def test_a_failed_docker_build_leaves_nothing(self):
        push("broken", {"Cmd": ["x"]}, lab.images.build(L, [{"f": b"of this image only"}]))
        mirrored = D("augment", "broken:1")["result"]
        layer = L.local.manifest("mirror/docker.io/library/broken", "1")[0]["layers"][0]["digest"]
        L.local.corrupt(layer)
        before = engine_state(), L.local.manifest(repository("broken"), "1-basic")[1]
        r = D("docker", "broken:1", fresh=True)
        self.assertIn("cannot build image docker.io/library/broken:1 with docker", r["error"]["message"])
        self.assertNotIn("\n", r["error"]["message"])
        self.assertEqual((engine_state(), mirrored["digest"]), before)


class Behaviour(unittest.TestCase):
    """The augmented image, started by plain docker run, does what its base does."""

    def probe(self, image, *args):
        options = [a for a in args if isinstance(a, tuple)]
        words = [a for a in args if isinstance(a, str)]
        r = L.docker("run", "--rm", "--hostname", "h", *[x for o in options for x in o], image, *words, check=False)
        text = r.out.strip()
        value = json.loads(text) if text.startswith("{") else text
        if isinstance(value, dict):
            del value["pid"]
            value["env"] = sorted(value["env"])
        return r.rc, value

    def test_same_as_the_base(self):
        L.dockerd.ensure()
        runs = [(), (("--user", "app"),), (("-e", "HOME=/x"), ("-e", "A=b c")), (("-w", "/tmp"),)]
        for name in FIXTURES:
            image = D("augment", f"{name}:1")["result"]["image"]
            for args in runs:
                with self.subTest(name=name, args=args):
                    self.assertEqual(self.probe(image, *args), self.probe(f"docker.io/library/{name}:1", *args))

    def test_other_commands(self):
        image = D("augment", "user:1")["result"]["image"]
        for args in (("exit", "3"), ("kill", "9"), (("--entrypoint", "/bin/probe"), ("--user", "app"), "x")):
            with self.subTest(args=args):
                self.assertEqual(self.probe(image, *args), self.probe("docker.io/library/user:1", *args))

    def test_healthcheck_runs_as_the_user(self):
        image = D("augment", "health:1")["result"]["image"]
        name = L.docker("run", "-d", image, "/bin/probe", "hold").out.strip()
        lab.wait_for(lambda: L.docker("inspect", "-f", "{{.State.Health.Status}}", name).out.strip() == "healthy", 30,
                     "the health check")
        L.docker("rm", "-f", name)


class Cache(unittest.TestCase):
    def test_second_request_is_a_hit(self):
        push("cached", {"Cmd": ["/bin/probe"]})
        first = D("augment", "cached:1")
        self.assertFalse(first["hit"])
        self.assertEqual(first["result"]["cache"], "miss")
        seen = len(L.local.accesses())
        second = D("augment", "cached:1")
        self.assertTrue(second["hit"])
        self.assertEqual(second["result"]["cache"], "hit")
        self.assertEqual(second["result"]["digest"], first["result"]["digest"])
        self.assertEqual(second["result"]["image"], first["result"]["image"])
        self.assertEqual({m for m, _, _ in L.local.accesses()[seen:]}, {"HEAD"})

    def test_changed_base_is_a_miss(self):
        push("moving", {"Cmd": ["/bin/probe", "1"]})
        first = D("augment", "moving:1")["result"]
        push("moving", {"Cmd": ["/bin/probe", "2"]})
        second = D("augment", "moving:1")
        self.assertFalse(second["hit"])
        self.assertNotEqual(second["result"]["key"], first["key"])
        self.assertEqual(L.local.manifest(repository("moving"), "1-basic")[1], second["result"]["digest"])
        self.assertEqual(L.local.manifest(repository("moving"), first["key"])[1], first["digest"])
        # Back again: the key is still there, the name follows.
        push("moving", {"Cmd": ["/bin/probe", "1"]})
        third = D("augment", "moving:1")
        self.assertTrue(third["hit"])
        self.assertEqual(L.local.manifest(repository("moving"), "1-basic")[1], first["digest"])

    def test_mirrored_base_asks_the_source_nothing_more(self):
        push("mirrored", {"Cmd": ["/bin/probe"]})
        D("augment", "mirrored:1")
        seen = len(L.hub.accesses())
        r = D("augment", "mirrored:1", fresh=True)["result"]
        self.assertEqual(r["bytes"]["downloaded"], 0)
        self.assertLess(r["bytes"]["uploaded"], 20000)
        asked = [a for a in L.hub.accesses()[seen:] if a[2] == 200]
        self.assertEqual({a[0] for a in asked}, {"HEAD"})

    def test_cleaned_mirror_is_made_again(self):
        push("cleaned", {"Cmd": ["/bin/probe"]})
        D("augment", "cleaned:1")
        mirror = "mirror/docker.io/library/cleaned"
        config = L.local.manifest(mirror, "1")[0]["config"]["digest"]
        status, _, _ = L.local.request("DELETE", f"/v2/{mirror}/blobs/{config}")
        self.assertEqual(status, 202)
        self.assertNotIn("error", D("augment", "cleaned:1", fresh=True))
        self.assertEqual(L.local.request("GET", f"/v2/{mirror}/blobs/{config}")[0], 200)


class Decisions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        L.dockerd.ensure()

    def layers(self, result):
        repo, _, tag = result["image"].removeprefix(f"{L.local.host}/").rpartition(":")
        manifest, _ = L.local.manifest(repo, result["digest"])
        config = json.loads(L.local.blob(repo, manifest["config"]["digest"]))
        self.assertEqual(len(config["rootfs"]["diff_ids"]), len(manifest["layers"]))
        self.assertEqual(len([h for h in config["history"] if not h.get("empty_layer")]), len(manifest["layers"]))
        return [x["digest"] for x in manifest["layers"]], config, repo

    def other_payload(self):
        """One of an earlier time: another basic layer, with a file that today's has not. It lies elsewhere and is linked to."""
        folder, elsewhere = L.tmp("old-payload"), L.tmp("old-payload-lies-here")
        os.chmod(folder, 0o755)
        os.chmod(elsewhere, 0o755)
        shutil.copytree(f"{L.dir}/payload/amd64", f"{elsewhere}/amd64")
        os.symlink(f"{elsewhere}/amd64", f"{folder}/amd64")
        raw = lab.images.layer({"tbnode/init": (b"old\n", 0o755), "tbnode/gone": b"of then\n"})
        packed = gzip.compress(raw, 9, mtime=0)
        with open(f"{folder}/amd64/basic.tar.gz", "wb") as f:
            f.write(packed)
        with open(f"{folder}/amd64/payload.json", encoding="utf-8") as f:
            payload = json.load(f)
        payload["layers"][0].update(digest="sha256:" + hashlib.sha256(packed).hexdigest(), size=len(packed),
                                    diff_id="sha256:" + hashlib.sha256(raw).hexdigest())
        with open(f"{folder}/amd64/payload.json", "w", encoding="utf-8") as f:
            json.dump(payload, f)
        return folder

    def test_basic_is_raised_to_core_by_one_layer(self):
        push("raised", {"Cmd": ["/bin/probe"], "User": "app"})
        basic = D("augment", "raised:1")["result"]
        raised = D("augment", basic["image"], level="core")["result"]
        direct = D("augment", "raised:1", level="core")["result"]
        layers, config, _ = self.layers(raised)
        self.assertEqual(layers[:-1], self.layers(basic)[0])
        self.assertEqual(layers, self.layers(direct)[0])
        self.assertEqual(config["config"]["Entrypoint"], self.layers(direct)[1]["config"]["Entrypoint"])
        self.assertEqual(len(config["history"]), len(self.layers(direct)[1]["history"]))
        # Back to basic: as it is. With update: taken apart, but not lowered.
        self.assertEqual(D("augment", raised["image"])["result"]["digest"], raised["digest"])
        updated = D("augment", raised["image"], update=True)["result"]
        self.assertEqual((self.layers(updated)[0], self.layers(updated)[1]["config"]["Labels"]["org.tbnode.level"]), (layers, "core"))
        # And by the docker builder, on top of what is there.
        docker = D("docker", basic["image"], level="core", fresh=True)["result"]
        self.assertEqual(len(self.layers(docker)[0]), len(layers))
        self.assertEqual(*(tree.of_image(L.local, self.layers(r)[2], r["digest"]) for r in (raised, docker)))

    def test_another_payload_is_replaced(self):
        push("older", {"Cmd": ["/bin/probe"]})
        old = D("augment", "older:1", level="core", payload_dir=self.other_payload())["result"]
        self.assertIn("tbnode/gone", tree.of_image(L.local, self.layers(old)[2], old["digest"]))
        updated = D("augment", old["image"], level="core", update=True)["result"]
        direct = D("augment", "older:1", level="core")["result"]
        self.assertEqual(sorted(self.layers(updated)[0]), sorted(self.layers(direct)[0]))
        trees = [tree.of_image(L.local, self.layers(r)[2], r["digest"]) for r in (updated, direct)]
        self.assertEqual(*trees)
        self.assertNotIn("tbnode/gone", trees[0])
        self.assertEqual(self.layers(updated)[1]["config"]["Labels"]["org.tbnode.payload"], updated["payload"]["digest"])

    def test_layers_of_the_docker_builder_are_replaced_too(self):
        push("packed", {"Cmd": ["/bin/probe"]})
        docker = D("docker", "packed:1", level="core", fresh=True)["result"]
        updated = D("augment", docker["image"], level="core", update=True)["result"]
        direct = D("augment", "packed:1", level="core", fresh=True)["result"]
        self.assertEqual(self.layers(updated)[0], self.layers(direct)[0])

    def test_layers_over_an_augmented_image_stay(self):
        """As after docker commit, or a FROM: what is not ours alone stays, also below /tbnode."""
        push("under", {"Cmd": ["/bin/probe"]})
        first = D("augment", "under:1")["result"]
        L.docker("pull", "-q", first["image"])
        name = L.docker("run", "-d", first["image"], "sh", "-c", "echo kept >/kept; echo x >/tbnode/mine").out.strip()
        L.docker("wait", name)
        L.docker("commit", "-c", "CMD [\"/bin/probe\"]", name, f"{L.local.host}/over:1")
        L.docker("rm", name)
        L.docker("push", "-q", f"{L.local.host}/over:1")
        core = D("augment", f"{L.local.host}/over:1", level="core")["result"]
        seen = tree.of_image(L.local, self.layers(core)[2], core["digest"])
        self.assertIn("kept", seen)
        self.assertIn("tbnode/mine", seen)
        self.assertIn("tbnode/bin/tmcc", seen)
        self.assertEqual(len(self.layers(core)[0]), 4)

    def test_packages_for_an_unknown_distribution(self):
        """Level core, under core's names, and a word about it."""
        push("unknown", {"Cmd": ["/bin/probe"], "User": "app"})
        r = D("docker", "unknown:1", level="full")["result"]
        self.assertEqual(r["level"], "core")
        self.assertIn("level full needs packages", r["notice"])
        self.assertTrue(r["image"].endswith("/unknown:1-core"), r["image"])
        self.assertEqual(L.local.tags(repository("unknown")).count("1-full"), 0)
        self.assertEqual(self.layers(r)[1]["config"]["Labels"]["org.tbnode.level"], "core")
        again = D("augment", "unknown:1", level="core")
        self.assertEqual((again["hit"], again["result"]["digest"]), (True, r["digest"]))
        once_more = D("docker", "unknown:1", level="buildenv")["result"]
        self.assertEqual((once_more["cache"], once_more["digest"], once_more["image"]), ("hit", r["digest"], r["image"]))
        self.assertIn("level buildenv needs packages", once_more["notice"])
        self.assertEqual((once_more["builder"], once_more["level"]), ("docker", "core"))
        # What is there was made by somebody else than is asked now: the answer says who made it.
        push("unknown-too", {"Cmd": ["/bin/probe"], "User": "app"})
        native = D("augment", "unknown-too:1", level="core")["result"]
        found = D("docker", "unknown-too:1", level="buildenv")["result"]
        self.assertEqual([found[k] for k in ("cache", "digest", "level", "builder")], ["hit", native["digest"], "core", "native"])
        augmented = D("docker", r["image"], level="buildenv")["result"]
        self.assertEqual((augmented["as_is"], augmented["digest"], augmented["level"]), (True, r["digest"], "core"))

    def test_level_none_is_the_mirrored_image(self):
        r = D("augment", "plain:1", level="none")["result"]
        self.assertEqual(r["image"], f"{L.local.host}/mirror/docker.io/library/plain:1")
        self.assertEqual(r["digest"], L.hub.manifest("library/plain", "1")[1])
        self.assertTrue(r["as_is"])
        self.assertTrue(D("augment", "plain:1", level="none")["hit"])

    def test_augmented_image_is_used_as_it_is(self):
        first = D("augment", "health:1")["result"]
        name = first["image"].removeprefix(f"{L.local.host}/")
        again = D("augment", first["image"])
        self.assertTrue(again["result"]["as_is"])
        self.assertEqual(again["result"]["digest"], first["digest"])
        self.assertTrue(D("augment", first["image"])["hit"])
        docker = D("docker", first["image"], fresh=True)["result"]
        self.assertEqual((docker["as_is"], docker["digest"]), (True, first["digest"]))
        # With update it is taken apart and wrapped once, as before.
        updated = D("augment", first["image"], update=True)["result"]
        self.assertFalse(updated["as_is"])
        one = config_of(name.rsplit(":", 1)[0], first["digest"])["config"]
        two = config_of(updated["image"].removeprefix(f"{L.local.host}/").rsplit(":", 1)[0], updated["digest"])["config"]
        for key in ("Entrypoint", "Cmd", "User", "Healthcheck"):
            self.assertEqual(one.get(key), two.get(key))

    def test_base_in_the_local_registry_is_not_mirrored(self):
        push("own", {"Cmd": ["/bin/probe"]}, registry=L.local)
        r = D("augment", "127.0.0.1:5000/library/own:1")["result"]
        self.assertEqual(r["image"], "127.0.0.1:5000/augmented/127.0.0.1_5000/library/own:1-basic")
        self.assertEqual(r["base"]["image"].split("@")[0], "127.0.0.1:5000/library/own")
        self.assertFalse([n for n in L.local.repositories() if n.startswith("mirror/127")])

    def test_manifest_of_a_base_in_the_local_registry_is_read_once(self):
        """The lookup reads it, and hands it to the worker; what was a hit before is only looked at."""
        push("own-once", {"Cmd": ["/bin/probe"]}, registry=L.local)

        def asked(**request):
            seen = len(L.local.accesses())
            result = D("augment", "127.0.0.1:5000/library/own-once:1", **request)
            return result, [(m, s) for m, p, s in L.local.accesses()[seen:] if p.startswith("/v2/library/own-once/manifests/")]

        first, requests = asked()
        self.assertEqual((first["hit"], requests), (False, [("GET", 200)]))
        self.assertEqual(config_of("augmented/127.0.0.1_5000/library/own-once", first["result"]["digest"])["config"]["Cmd"],
                         config_of("library/own-once", "1")["config"]["Cmd"])
        self.assertEqual(asked(update=True)[1], [("GET", 200)])
        self.assertTrue(asked()[0]["hit"])

    def test_large_manifest_is_read_again(self):
        """A request has room for usual ones only."""
        push("own-large", {"Cmd": ["/bin/probe"]}, registry=L.local)
        manifest, _ = L.local.manifest("library/own-large", "1")
        manifest["annotations"] = {"filler": "x" * 100_000}
        L.local.put_manifest("library/own-large", "2", manifest)
        r = D("augment", "127.0.0.1:5000/library/own-large:2")["result"]
        self.assertEqual(config_of("augmented/127.0.0.1_5000/library/own-large", r["digest"])["config"]["Cmd"],
                         config_of("library/own-large", "2")["config"]["Cmd"])

    def test_project_and_digest(self):
        digest = L.hub.manifest("library/plain", "1")[1]
        r = D("augment", f"plain@{digest}", project="team-7")["result"]
        self.assertTrue(r["image"].startswith(f"{L.local.host}/projects/team-7/augmented/docker.io/library/plain:k-"))
        self.assertTrue(r["base"]["image"].startswith(f"{L.local.host}/projects/team-7/mirror/docker.io/library/plain@"))
        self.assertTrue(D("augment", f"plain@{digest}", project="team-7")["hit"])

    def test_scratch_image(self):
        lab.images.scratch(L, {"Cmd": ["x"]}).push(L.hub, "library/scratch-like:1")
        image = D("augment", "scratch-like:1")["result"]["image"]
        self.assertEqual(L.docker("run", "--rm", image).json()["args"], ["/probe", "x"])


class Facts(unittest.TestCase):
    LAYERS = [
        {"etc/os-release": "->../usr/lib/os-release", "usr/lib/os-release": b'NAME="X"\nID=ubuntu\nVERSION_ID="20.04"\n',
         "bin": "->usr/bin", "usr/bin/sh": "->/etc/alternatives/sh", "usr/bin/dash": (b"", 0o755),
         "etc/alternatives/sh": "->/bin/dash", "usr/sbin/sshd": (b"", 0o755), "opt/old/x": b"", **lab.images.ETC},
        {"usr/lib/os-release": b'ID=debian\nID_LIKE=x\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', "opt/.wh.old": b"",
         "usr/bin/apt-get": (b"", 0o755), "usr/sbin/.wh.sshd": b"",
         "usr/lib64/ld-linux-x86-64.so.2": (b"", 0o755), "lib64": "->usr/lib64"},
        {"usr/bin/probe": b"", "usr/bin/bash": (b"", 0o755), "etc/alternatives/sh": "->/bin/bash"},
    ]

    def push_layers(self, name, layers, **options):
        lab.images.build(L, layers, {"Cmd": ["/probe"]}, **options).push(L.hub, f"library/{name}:1")

    def test_of_three_layers(self):
        self.push_layers("facts", self.LAYERS)
        f = D("augment", "facts:1")["result"]["facts"]["files"]
        want = {"distro": "debian", "version": "12", "distro_like": "x", "codename": "bookworm", "libc": "glibc",
                "packages": "apt", "shell": "/usr/bin/bash", "bash": True, "sshd": None, "usrmerge": True,
                "passwd": True, "shadow": False, "init": None, "tbnode_directory": False}
        self.assertEqual({k: f[k] for k in want}, want)
        self.assertIn("/lib64", f["links"])
        self.assertIn("f-" + L.hub.manifest("library/facts", "1")[1].removeprefix("sha256:")[:40],
                      L.local.tags("mirror/docker.io/library/facts"))

    def test_are_looked_up_once(self):
        """With the base mirrored no layer is read again, not even from the mirror."""
        self.push_layers("facts-once", self.LAYERS)
        first = D("augment", "facts-once:1", level="none")["result"]
        seen, served = len(L.hub.accesses()), len(L.local.accesses())
        second = D("augment", "facts-once:1", fresh=True)["result"]
        self.assertFalse([a for a in L.hub.accesses()[seen:] if "/blobs/" in str(a)])
        layers = [x["digest"] for x in L.hub.manifest("library/facts-once", "1")[0]["layers"]]
        self.assertFalse([a for a in L.local.accesses()[served:] if "GET" in str(a) and any(x in str(a) for x in layers)])
        self.assertEqual(first["facts"]["files"], second["facts"]["files"])

    def test_of_layers_that_were_there(self):
        """The layers were mirrored for another image: they are read from the testbed's registry."""
        self.push_layers("facts-shared", self.LAYERS)
        D("augment", "facts-shared:1")
        lab.images.build(L, self.LAYERS, {"Cmd": ["/other"]}).push(L.hub, "library/facts-shared:2")
        f = D("augment", "facts-shared:2")["result"]["facts"]["files"]
        self.assertEqual((f["distro"], f["shell"]), ("debian", "/usr/bin/bash"))

    def test_however_the_layers_are_packed(self):
        """zstd, not at all, gzip of several members: they are read, and stay as they are."""
        raw = [lab.images.layer(x) for x in self.LAYERS]
        packed = [self.zstd(raw[0]), raw[1],
                  gzip.compress(raw[2][:700]) + gzip.compress(raw[2][700:])]
        kinds = ["tar+zstd", "tar", "tar+gzip"]
        layers = [{"mediaType": f"application/vnd.oci.image.layer.v1.{k}", "size": len(x), "digest": L.hub.put_blob("library/packed-layers", x)}
                  for k, x in zip(kinds, packed)]
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/probe"]}, "rootfs": {
            "type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(x).hexdigest() for x in raw]}}).encode()
        L.hub.put_manifest("library/packed-layers", "1", {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
                       "digest": L.hub.put_blob("library/packed-layers", config)}})
        r = D("augment", "packed-layers:1")
        self.assertNotIn("error", r)
        f = r["result"]["facts"]["files"]
        self.assertEqual((f["distro"], f["version"], f["shell"], f["libc"]), ("debian", "12", "/usr/bin/bash", "glibc"))
        m, _ = L.local.manifest(repository("packed-layers"), r["result"]["digest"])
        self.assertEqual(m["layers"][:3], layers)
        self.assertEqual([x["mediaType"].rsplit(".", 1)[1] for x in m["layers"][3:]], ["tar+gzip"])

    @staticmethod
    def zstd(data):
        return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout

    def test_of_a_layer_that_is_there_twice(self):
        self.push_layers("facts-twice", [self.LAYERS[0], self.LAYERS[1], self.LAYERS[0]])
        f = D("augment", "facts-twice:1")["result"]["facts"]["files"]
        self.assertEqual((f["distro"], f["version"]), ("ubuntu", "20.04"))
        self.assertEqual(f["sshd"], "/usr/sbin/sshd")


def tar_of(*members):
    """A tar of (name, type, link name or bytes), as hostile as its names are."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, value in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
            else:
                info.linkname = value
                tar.addfile(info)
    return raw.getvalue()


class Failures(unittest.TestCase):
    def fails(self, *args, contains, **options):
        """One clear line, and every tag as it was."""
        before = L.local.all_tags()
        for cmd in options.pop("commands", ("augment",)):
            r = D(cmd, *args, **options)
            self.assertIn("error", r)
            self.assertIn(contains, r["error"]["message"])
            self.assertNotIn("\n", r["error"]["message"])
        self.assertEqual(L.local.all_tags(), before)
        return r["error"]

    def test_unknown_image(self):
        self.fails("no-such-image:1", contains="docker.io has no such image", commands=("augment", "lookup", "docker"))
        self.fails("plain:no-such-tag", contains="plain:no-such-tag", fresh=True)

    def test_bad_requests(self):
        self.fails("UPPER//x", contains="UPPER")
        self.fails("plain:1", level="full", contains="use --builder docker")
        self.fails("plain:1", platform="linux/arm/v7", contains="no payload for arm")
        self.fails("plain:1", platform="windows/amd64", contains="linux")
        self.fails("plain:1", project="../x", contains="project")

    def test_source_down(self):
        L.hub.stop()
        try:
            self.fails("plain:9", contains="docker.io")
        finally:
            L.hub.start()

    def test_local_registry_down(self):
        L.local.stop()
        try:
            r = D("augment", "plain:1")
            self.assertIn("127.0.0.1", r["error"]["message"])
            self.assertNotIn("\n", r["error"]["message"])
        finally:
            L.local.start()

    def test_wrong_bytes_from_the_source(self):
        for part in ("config", "layer"):
            with self.subTest(part):
                push(f"liar-{part}", {"Cmd": ["/bin/probe", part]}, lab.images.build(L, [{"f": part.encode()}]))
                m = L.hub.manifest(f"library/liar-{part}", "1")[0]
                digest = m["config"]["digest"] if part == "config" else m["layers"][0]["digest"]
                L.hub.corrupt(digest)
                self.fails(f"liar-{part}:1", contains=digest[:19])

    def test_other_architecture(self):
        push("other-arch", {"Cmd": ["x"]}, lab.images.busybox(L), architecture="arm64")
        self.fails("other-arch:1", contains="use --platform linux/arm64")

    def test_more_layers_than_an_engine_takes(self):
        """125, with ours: one more of the base's, and nothing can be added."""
        for n in (124, 125):
            lab.images.build(L, [{f"f{i}": b"%d" % i} for i in range(n)], {"Cmd": ["x"]}).push(L.hub, f"library/layers:{n}")
        self.assertNotIn("error", D("augment", "layers:124"))
        self.assertNotIn("error", D("augment", "layers:125", level="none"))
        for n, level in ((124, "core"), (125, "basic")):
            with self.subTest(n=n, level=level):
                e = self.fails(f"layers:{n}", level=level, contains=f"{n} layers", commands=("augment", "docker"))
                self.assertIn("125", e["message"])

    def test_volume_in_our_place(self):
        push("collision", {"Cmd": ["x"], "Volumes": {"/tbnode/run/": {}}})
        self.fails("collision:1", contains="VOLUME /tbnode/run", commands=("augment", "docker"))

    def test_refused_after_the_upload_was_opened(self):
        """The session for the configuration is opened while the base's is being read, when the base is in the registry."""
        push("own-collision", {"Cmd": ["x"], "Volumes": {"/tbnode/run/": {}}}, registry=L.local)
        before = L.local.uploads()
        self.fails("127.0.0.1:5000/library/own-collision:1", contains="VOLUME /tbnode/run")
        self.assertEqual(L.local.uploads(), before)
        self.assertTrue([p for m, p, _ in L.local.accesses() if m == "DELETE" and "own-collision/blobs/uploads/" in p])

    def test_hostile_layers(self):
        file = tarfile.REGTYPE
        good = tar_of(("etc/x", file, b"1"))
        sparse = bytearray(tar_of(("x", file, b"")))
        sparse[156:157] = b"S"
        sparse[148:156] = b"%06o\0 " % (sum(sparse[:148]) + sum(sparse[156:512]) + 8 * 32)
        for name, layer, why in (
                ("absolute", tar_of(("/etc/x", file, b"")), "absolute path"),
                ("dotdot", tar_of(("a/../../x", file, b"")), "leads out of the image"),
                ("twice", tar_of(("x", file, b"1"), ("./x", file, b"2")), "is there twice"),
                ("below-file", tar_of(("x", file, b"1"), ("x/y", file, b"2")), "no directory"),
                ("loop", tar_of(("x", tarfile.SYMTYPE, "x"), ("x/y", file, b"2")), "leads nowhere"),
                ("cut", good[:600], "ends too early"), ("garbage", b"no tar at all" * 100, "broken"),
                ("sparse", bytes(sparse), "sparse"),
                ("ours", tar_of(("tbnode/init", file, b"x")), "has something at /tbnode already")):
            with self.subTest(name):
                lab.images.build(L, [good, layer], {"Cmd": ["x"]}).push(L.hub, f"library/hostile-{name}:1")
                r = D("augment", f"hostile-{name}:1")
                self.assertIn(why, r["error"]["message"])
                self.assertNotIn(f"augmented/docker.io/library/hostile-{name}", str(L.local.all_tags()))

    def test_wrong_diff_id(self):
        image = lab.images.build(L, [{"x": b"1"}], {"Cmd": ["x"]}, diff_ids=["sha256:" + 64 * "0"])
        image.push(L.hub, "library/wrong-diff:1")
        self.fails("wrong-diff:1", contains="the image's configuration says")

    def test_broken_configuration(self):
        push("bad-config", {"Cmd": "not a list"})
        self.fails("bad-config:1", contains="Cmd")


class Worker(unittest.TestCase):
    REQUEST = {"version": 1, "op": "dockerfile", "image": "plain:1", "level": "basic", "builder": "native",
               "registry": "http://127.0.0.1:5000"}

    NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all")

    def run_worker(self, text, *args, wrap=()):
        L.install()
        return L.run(*wrap, f"{L.dir}/bin/tbnode-augment-worker", *args, input=text, check=False)

    def test_refuses_root(self):
        r = self.run_worker(json.dumps(self.REQUEST))
        self.assertEqual(r.rc, 1)
        self.assertIn("does not run as root", json.loads(r.out)["message"])

    def test_runs_as_nobody_and_writes_nothing_for_a_dockerfile(self):
        before = L.local.all_tags()
        seen = len(L.local.accesses())
        r = self.run_worker(json.dumps(self.REQUEST), wrap=self.NOBODY)
        self.assertEqual(r.rc, 0, r)
        last = json.loads(r.out.splitlines()[-1])
        self.assertEqual(last["event"], "result")
        self.assertIn("FROM ${BASE}", last["dockerfile"])
        self.assertLessEqual({m for m, _, _ in L.local.accesses()[seen:]}, {"GET", "HEAD"})
        self.assertEqual(L.local.all_tags(), before)

    def test_manifest_in_the_request(self):
        """It is believed when the digest that was resolved is its own, else the registry is asked."""
        push("handed", {"Cmd": ["/bin/probe"]}, registry=L.local)
        push("other", {"Cmd": ["/bin/other"]}, registry=L.local)
        texts = {n: L.local.request("GET", f"/v2/library/{n}/manifests/1", headers={"Accept": MANIFEST_TYPES})[2].decode()
                 for n in ("handed", "other")}
        manifest, digest = L.local.manifest("library/handed", "1")
        right = {**self.REQUEST, "image": "127.0.0.1:5000/library/handed:1", "registry": "http://127.0.0.1:5000", "resolved": digest,
                 "kind": "image", "manifest": texts["handed"], "manifest_type": manifest["mediaType"]}
        answers = []
        for request, asks in ((right, 0), ({**right, "manifest": texts["other"]}, 1), ({**right, "manifest": "{"}, 1),
                              ({**right, "manifest_type": "application/vnd.oci.image.manifest.v1+json"}, 1)):
            seen = len(L.local.accesses())
            r = self.run_worker(json.dumps(request), wrap=self.NOBODY)
            self.assertEqual(r.rc, 0, r)
            answers.append(json.loads(r.out.splitlines()[-1])["dockerfile"])
            self.assertEqual(len([p for _, p, _ in L.local.accesses()[seen:] if "/handed/manifests/" in p]), asks, request["manifest_type"])
        self.assertEqual(len(set(answers)), 1)

    def test_credentials_come_as_an_open_file(self):
        """As the agent passes them: only the descriptor can be read, and only before the worker closes itself off."""
        L.hub.add_user("carol", "secret")
        lab.images.scratch(L).push(L.hub, "private/tool:7")
        config = f"{L.tmp('credentials')}/config.json"
        with open(config, "w", encoding="utf-8") as f:
            auth = base64.b64encode(b"carol:secret").decode()
            json.dump({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}, f)
        os.chmod(config, 0o444)
        request = {**self.REQUEST, "image": "private/tool:7"}
        self.assertEqual(self.run_worker(json.dumps(request), wrap=self.NOBODY).rc, 1)
        request["docker_config"] = "/proc/self/fd/3"
        r = self.run_worker(json.dumps(request), wrap=("bash", "-c", f'exec 3< {config}; exec "$@"', "-", *self.NOBODY))
        self.assertEqual(r.rc, 0, r)

    def test_bad_input(self):
        for text in ("", "{", "[]", "{}", json.dumps({**self.REQUEST, "evil": 1}), "x" * 100000,
                     json.dumps({**self.REQUEST, "version": 2}), json.dumps({**self.REQUEST, "image": 5})):
            r = self.run_worker(text, "--allow-root")
            self.assertEqual(r.rc, 1, r)
            self.assertEqual(json.loads(r.out)["event"], "error")
        self.assertEqual(self.run_worker("", "--what").rc, 2)


if __name__ == "__main__":
    lab.main()
