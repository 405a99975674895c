#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where images come from: registries with their moods, layouts, archives, the engine, Dockerfiles. Who may have them, and
with whose rights they are read."""

import base64
import http.server
import io
import json
import os
import socketserver
import tarfile
import threading
import unittest

import lab
from labkit.registry import Registry

L = None
OTHER = None
USER = 4711  # somebody who may use the agent, and nothing else on this host


class Extra(Registry):
    """A registry of somebody else."""
    port, host = 5001, "127.0.0.1:5001"


def setUpModule():
    global L, OTHER
    L = lab.Lab.get()
    L.hub.ensure()
    OTHER = Extra(L, "other")
    OTHER.start()
    L.run(["groupadd", "-g", "4711", "testers"])
    L.run(["useradd", "-u", str(USER), "-g", "4711", "-M", "-d", f"{L.dir}/home-user", "tester"])
    os.makedirs(f"{L.dir}/home-user/.docker", mode=0o755)
    os.chown(f"{L.dir}/home-user", USER, USER)
    L.tbnoded.start(config={"socket-group": "testers"})
    L.hub.add_user("alice", "secret")


def tearDownModule():
    if OTHER:
        OTHER.stop()


def augment(*args, **options):
    return L.tbnode("augment", "--json", *args, **options)


def user(*args, home=None, **env):
    """tbnode as an ordinary user."""
    return L.run(["setpriv", "--reuid", str(USER), "--regid", "4711", "--clear-groups", f"{L.install()}/tbnode", *args],
                 check=False, env={"HOME": home or f"{L.dir}/home-user", **env})


def auths(name="alice", password="secret"):
    return {"auths": {"https://index.docker.io/v1/": {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}}}


def user_logs_in(value):
    path = f"{L.dir}/home-user/.docker/config.json"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)
    os.chown(path, USER, USER)
    os.chmod(path, 0o600)


def image(*words):
    return lab.images.scratch(L, {"Cmd": list(words)})


def path_of(reference):
    """host/repository:tag -> (repository, tag)"""
    return reference.removeprefix(f"{L.local.host}/").rsplit(":", 1)


def config(reference):
    return L.local.image_config(*path_of(reference))["config"]


class Base(unittest.TestCase):
    def refused(self, r, *words):
        """One clear line."""
        self.assertEqual(r.rc, 1, r)
        self.assertEqual(r.out, "")
        self.assertEqual(len(r.err.splitlines()), 1, r)
        for w in words:
            self.assertIn(w, r.err)


class Policies(Base):
    def push(self, registry, name, *words):
        return image(*words).push(registry, name)

    def test_the_tag_is_asked_for_every_time(self):
        self.push(L.hub, "library/moves:1", "one")
        first = augment("moves:1", check=True).json()
        self.assertEqual((first["source"]["from"], first["source"]["private"]), ("registry", False))
        self.push(L.hub, "library/moves:1", "two")
        second = augment("moves:1", check=True).json()
        self.assertNotEqual(first["key"], second["key"])
        self.assertEqual(config(second["image"])["Cmd"], ["two"])
        # Back again: a hit, and what is cached of the tag follows as well.
        self.push(L.hub, "library/moves:1", "one")
        self.assertEqual(augment("moves:1", check=True).json()["digest"], first["digest"])
        cached = augment("--policy", "cached", "moves:1", check=True).json()
        self.assertEqual((cached["source"]["from"], cached["digest"]), ("cache", first["digest"]))

    def test_cached_until_update(self):
        self.push(L.hub, "library/stays:1", "one")
        first = augment("--policy", "cached", "stays:1", check=True).json()
        self.assertEqual(first["source"]["from"], "registry")  # there was nothing yet
        self.push(L.hub, "library/stays:1", "two")
        seen = len(L.hub.accesses())
        r = augment("--policy", "cached", "stays:1", check=True)
        self.assertEqual((r.json()["digest"], r.json()["source"]["from"], r.err), (first["digest"], "cache", ""))
        # Another level of the same base, still without a question.
        core = augment("--policy", "cached", "--level", "core", "stays:1", check=True).json()
        self.assertEqual((core["cache"], core["source"]["digest"]), ("miss", first["source"]["digest"]))
        self.assertEqual(L.hub.accesses()[seen:], [])
        new = augment("--policy", "cached", "--update", "stays:1", check=True).json()
        self.assertEqual((new["source"]["from"], config(new["image"])["Cmd"]), ("registry", ["two"]))
        self.assertEqual(augment("--policy", "cached", "stays:1", check=True).json()["source"]["digest"],
                         new["source"]["digest"])

    def test_configuration_says_the_policy(self):
        self.push(L.hub, "library/configured:1", "one")
        L.tbnoded.stop()
        L.tbnoded.start(config={"socket-group": "testers", "policy": "cached"})
        try:
            augment("configured:1", check=True)
            self.assertEqual(augment("configured:1", check=True).json()["source"]["from"], "cache")
            self.assertEqual(augment("--policy", "latest", "configured:1", check=True).json()["source"]["from"],
                             "registry")
        finally:
            L.tbnoded.stop()
            L.tbnoded.start(config={"socket-group": "testers"})
        r = L.tbnoded.run("--check-config", "--config",
                          L.tbnoded.write_config({"policy": "newest"}, path=f"{L.dir}/bad.conf"))
        self.assertIn("use latest or cached", r.err)

    def unreachable(self, reference, digest, *words):
        r = augment(reference)
        self.assertEqual(r.rc, 0, r)
        out = r.json()
        self.assertEqual((out["digest"], out["source"]["from"]), (digest, "cache"))
        for w in ("using the cached base", *words):
            self.assertIn(w, out["notice"])
        self.assertEqual(r.err, f"tbnode: {out['notice']}\n")
        self.refused(augment("--update", reference))

    def test_offline(self):
        reference = self.push(OTHER, "team/app:1", "one")
        first = augment(reference, check=True).json()
        OTHER.stop()
        try:
            self.unreachable(reference, first["digest"], "cannot connect")
            other_level = augment("--level", "core", reference, check=True).json()
            self.assertEqual((other_level["cache"], other_level["source"]["from"]), ("miss", "cache"))
            self.refused(augment(f"{OTHER.host}/team/other:1"), "cannot connect")
        finally:
            OTHER.start()
        self.assertEqual(augment(reference, check=True).json()["source"]["from"], "registry")

    def test_busy_and_silent_registries(self):
        reference = self.push(OTHER, "team/busy:1", "one")
        first = augment(reference, check=True).json()
        OTHER.stop()
        for answer, words in ((b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n", ()),
                              (None, ("does not answer in time",)),
                              (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", ())):
            with self.subTest(answer=answer), Mood(answer):
                self.unreachable_once(reference, first["digest"], *words)
                if words == () and b"429" in answer:  # of what was never here nothing can be used
                    self.refused(augment(f"{OTHER.host}/team/never:1"), f"{OTHER.host}/team/never:1", "HTTP 429", "to wait 30 s",
                                 "log in to")
        OTHER.start()

    def unreachable_once(self, reference, digest, *words):
        out = augment(reference, check=True).json()
        self.assertEqual((out["digest"], out["source"]["from"]), (digest, "cache"))
        for w in ("using the cached base", *words):
            self.assertIn(w, out["notice"])


class Mood:
    """A server in the place of OTHER that answers everything like this, or nothing at all."""

    def __init__(self, answer):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                while self.request.recv(65536):
                    if answer:
                        self.request.sendall(answer)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True
            block_on_close = False

            def handle_error(self, request, client_address):
                pass

        self.server = Server((OTHER.address, OTHER.port), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Private(Base):
    NAME = "private/tool:7"

    def tearDown(self):
        user_logs_in({})
        L.docker_config({})

    def test_only_with_credentials_and_only_in_its_project(self):
        image("p").push(L.hub, self.NAME)
        digest = L.hub.manifest("private/tool", "7")[1]
        user_logs_in(auths())
        first = user("augment", "--json", self.NAME)
        self.assertEqual(first.rc, 0, first)
        out = first.json()
        self.assertEqual((out["source"]["private"], out["project"]), (True, f"user-{USER}"))
        self.assertTrue(out["image"].startswith(f"{L.local.host}/projects/user-{USER}/augmented/docker.io/private/tool:"))
        self.assertFalse([r for r in L.local.repositories() if "private" in r and not r.startswith("projects/")])
        self.assertEqual(user("augment", "--json", self.NAME).json()["cache"], "hit")
        # In a project that a second user names: the same, with credentials.
        shared = L.tbnode("augment", "--json", "--project", "secret", self.NAME)
        self.refused(shared, "private/tool")
        # Attacks, with everything in the local registry: other users, other names, digests, offline, policies.
        user_logs_in({})
        before = L.local.all_tags()
        for args in ((self.NAME,), (f"private/tool@{digest}",), (f"{self.NAME}@{digest}",), ("--policy", "cached", self.NAME),
                     ("--level", "none", self.NAME), ("--level", "none", f"private/tool@{digest}"),
                     ("--project", f"user-{USER}", self.NAME), ("--project", f"user-{USER}", f"private/tool@{digest}"),
                     ("--project", f"user-{USER}", "--policy", "cached", self.NAME)):
            for who in (user, L.tbnode):
                with self.subTest(args=args, who=who.__name__):
                    self.refused(who("augment", *args), "private/tool")
                    self.refused(who("dockerfile", *args), "private/tool")
        # By its place in the testbed's registry.
        for where in (out["image"], out["image"].replace("127.0.0.1:", "localhost:"),
                      f"{L.local.host}/projects/user-{USER}/mirror/docker.io/private/tool:7"):
            self.refused(L.tbnode("augment", where), f"belongs to project user-{USER}")
            self.refused(user("augment", "--project", "other", where), "you are not in project 'other'")
        # With a wrong password.
        user_logs_in(auths(password="wrong"))
        self.refused(user("augment", self.NAME))
        self.assertEqual(L.local.all_tags(), before)
        # Without its registry nobody can say who may have it.
        user_logs_in(auths())
        L.hub.stop()
        try:
            self.refused(user("augment", self.NAME))
        finally:
            L.hub.start()
        self.assertEqual(user("augment", "--json", self.NAME).json()["cache"], "hit")

    def test_its_digests_open_nothing(self):
        """Who knows an image's manifest has not got it: it names the same blobs under a name of his own, where they are not.
        The testbed's registry has them all, and what is known about them, in the project."""
        image("known").push(L.hub, "private/known:1")
        user_logs_in(auths())
        out = user("augment", "--json", "private/known:1")
        self.assertEqual((out.rc, out.json()["source"]["private"]), (0, True), out)
        user_logs_in({})
        manifest, digest = L.hub.manifest("private/known", "1")
        blobs = [manifest["config"]["digest"], *(x["digest"] for x in manifest["layers"])]
        for i, missing in enumerate((blobs, blobs[1:], blobs[:1])):
            # A registry takes no manifest without its blobs: they go afterwards.
            where = f"team/thief{i}"
            for blob in blobs:
                OTHER.put_blob(where, L.hub.blob("private/known", blob))
            data = L.hub.request("GET", f"/v2/private/known/manifests/{digest}", headers={"Accept": manifest["mediaType"]})[2]
            self.assertEqual(OTHER.put_manifest(where, "1", data, manifest["mediaType"]), digest)
            for blob in missing:
                self.assertEqual(OTHER.request("DELETE", f"/v2/{where}/blobs/{blob}")[0], 202)
            before = L.local.all_tags()
            name = f"{OTHER.host}/{where}"
            for args in ((f"{name}:1",), (f"{name}@{digest}",), ("--level", "none", f"{name}:1"), ("--level", "core", f"{name}@{digest}"),
                         ("--project", f"user-{USER}", f"{name}:1"), ("--builder", "docker", f"{name}:1")):
                with self.subTest(args=args, missing=len(missing)):
                    self.refused(user("augment", *args), where)
            self.assertEqual(L.local.all_tags(), before)
            for repository in L.local.repositories():
                if where in repository:
                    for blob in missing:
                        self.assertEqual(L.local.request("HEAD", f"/v2/{repository}/blobs/{blob}")[0], 404)

    def test_credentials_are_nowhere(self):
        image("q").push(L.hub, "private/quiet:1")
        L.hub.add_user("bob", "Sesame-open-7")
        user_logs_in(auths("bob", "Sesame-open-7"))
        self.assertEqual(user("augment", "private/quiet:1").rc, 0)
        needles = [b"Sesame-open-7", auths("bob", "Sesame-open-7")["auths"]["https://index.docker.io/v1/"]["auth"].encode()]
        places = []
        self.assertFalse([n for n in needles if n in L.tbnoded.log().encode()])
        for folder, _, files in os.walk("/var/lib/tbnode"):
            places += [os.path.join(folder, f) for f in files]
        for folder, _, files in os.walk("/run/tbnode"):
            places += [os.path.join(folder, f) for f in files]
        for p in places:
            if os.path.isfile(p):
                with open(p, "rb") as f:
                    self.assertFalse([n for n in needles if n in f.read()], p)

    def test_root_acts_for_projects_and_members_too(self):
        L.docker_config({"https://index.docker.io/v1/": ("alice", "secret")})
        image("r").push(L.hub, "private/team:1")
        out = augment("--project", "red", "private/team:1", check=True).json()
        self.assertIn("/projects/red/augmented/docker.io/private/team:", out["image"])
        self.refused(user("augment", "--project", "red", "private/team:1"), "not in project 'red'")
        L.run(["groupadd", "red"])
        L.run(["usermod", "-aG", "red", "tester"])
        self.refused(user("augment", "--project", "red", "private/team:1"), "private/team")  # no credentials
        user_logs_in(auths())
        self.assertEqual(user("augment", "--json", "--project", "red", "private/team:1").json()["cache"], "hit")
        again = user("augment", "--json", "--project", "red", out["image"])
        self.assertEqual(again.rc, 0, again)

    def test_public_images_stay_shared_with_credentials(self):
        image("s").push(L.hub, "library/shared:1")
        user_logs_in(auths())
        out = user("augment", "--json", "shared:1").json()
        self.assertEqual((out["source"]["private"], out.get("project")), (False, None))
        self.assertIn("/augmented/docker.io/library/shared:", out["image"])


class Files(Base):
    def source(self, out, kind, who=0):
        """Where it lies, and that skopeo finds the same there."""
        name = out["source"]["name"]
        self.assertRegex(name, rf"^{L.local.host}/mirror/{kind}/u{who}-[0-9a-f]{{8}}/[a-z0-9-]+:")
        self.assertRegex(out["image"], rf"^{L.local.host}/augmented/{kind}/u{who}-")
        tagged, digest = name.rsplit("@", 1)
        return json.loads(L.skopeo("inspect", "--tls-verify=false", "--config",
                                   f"docker://{tagged.rsplit(':', 1)[0]}@{digest}").out)

    def test_layout(self):
        i = image("layout")
        out = augment(f"oci:{i.path}:latest", check=True).json()
        with open(f"{i.path}/index.json", encoding="utf-8") as f:
            digest = json.load(f)["manifests"][0]["digest"]
        self.assertEqual(out["source"]["digest"], digest)
        self.assertEqual(self.source(out, "oci")["config"]["Cmd"], ["layout"])
        self.assertEqual(config(out["image"])["Cmd"], ["layout"])
        self.assertEqual(augment(f"oci:{i.path}:latest", check=True).json()["cache"], "hit")

    def test_archive(self):
        i = image("archive")
        path = f"{L.tmp('archive')}/my app.tar"
        L.skopeo("copy", "-q", f"oci:{i.path}:latest", f"docker-archive:{path}:example/thing:2.0")
        self.assertRegex(L.tbnode("augment", f"docker-archive:{path}:example/thing:2.0", check=True).out,
                         r"\n  source  [^@\n]+/thing:2\.0@sha256:[0-9a-f]{64}\n")
        out = augment("--update", f"docker-archive:{path}:example/thing:2.0", check=True).json()
        self.assertEqual(self.source(out, "docker-archive")["config"], i.config["config"])
        self.assertTrue(out["image"].endswith("/thing:2.0-basic"), out["image"])
        self.assertEqual(config(out["image"])["Cmd"], ["archive"])

    def test_a_node_of_an_archive(self):
        i = lab.images.busybox(L, {"Cmd": ["sleep", "1000"]})
        path = f"{L.tmp('archive')}/box.tar"
        L.skopeo("copy", "-q", f"oci:{i.path}:latest", f"docker-archive:{path}:box:1")
        L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{L.dir}/key"])
        r = L.tbnode("run", "--json", "--ssh-key", f"{L.dir}/key.pub", "--name", "box", f"docker-archive:{path}")
        self.assertEqual(r.rc, 0, r)
        self.assertEqual(r.json()["node"]["state"], "configured")
        L.tbnode("rm", "box", check=True)

    def test_with_the_rights_of_the_caller(self):
        i = image("secret")
        path = f"{L.tmp('archive')}/secret.tar"
        L.skopeo("copy", "-q", f"oci:{i.path}:latest", f"docker-archive:{path}:s:1")
        os.chmod(path, 0o600)
        before = L.local.all_tags()
        self.refused(user("augment", f"docker-archive:{path}"), path, "ermission denied")
        os.chmod(i.path, 0o700)
        self.refused(user("augment", f"oci:{i.path}:latest"), "ermission denied")
        self.refused(user("augment", "docker-daemon:x:1"), "permission")
        self.refused(user("augment", f"dockerfile:{i.path}"), "ermission denied")
        self.assertEqual(L.local.all_tags(), before)
        os.chown(path, USER, USER)
        os.chmod(os.path.dirname(path), 0o755)
        out = user("augment", "--json", f"docker-archive:{path}")
        self.assertEqual(out.rc, 0, out)
        self.source(out.json(), "docker-archive", USER)

    def test_two_users_and_one_name(self):
        made = []
        for who, words in ((L.tbnode, "mine"), (user, "yours")):
            path = f"{L.tmp('archive')}/same.tar"
            os.chmod(os.path.dirname(path), 0o755)
            L.skopeo("copy", "-q", f"oci:{image(words).path}:latest", f"docker-archive:{path}:same:1")
            os.chmod(path, 0o644)
            made.append(who("augment", "--json", f"docker-archive:{path}").json()["image"])
        self.assertEqual([config(m)["Cmd"] for m in made], [["mine"], ["yours"]])

    def test_in_a_project(self):
        i = image("project")
        out = augment("--project", "blue", f"oci:{i.path}", check=True).json()
        self.assertRegex(out["source"]["name"], rf"^{L.local.host}/projects/blue/mirror/oci/u0-")
        self.assertRegex(out["image"], rf"^{L.local.host}/projects/blue/augmented/oci/u0-")
        self.refused(user("augment", out["source"]["name"]), "belongs to project blue")

    def test_bad_files(self):
        work = L.tmp("bad")
        before = L.local.all_tags()
        with open(f"{work}/text.tar", "w", encoding="utf-8") as f:
            f.write("no tar at all")
        os.makedirs(f"{work}/empty")
        for name, *words in ((f"oci:{work}/nowhere", "nowhere"), (f"oci:{work}/empty", "empty"), ("oci:", "path is missing"),
                             (f"docker-archive:{work}/text.tar", "text.tar"), (f"docker-archive:{work}", "bad"),
                             ("docker-archive:/dev/zero", "/dev/zero"), (f"dir:{work}", "oci:DIR"),
                             (f"oci:{image('x').path}:no-such-tag", "no-such-tag"), ("docker-daemon:", "no image is named"),
                             ("docker-daemon:no-such:1", "No such image"), ("docker-daemon:UPPER//", "docker-daemon"),
                             ("dockerfile:", "no Dockerfile"), (f"dockerfile:{work}/empty", "Dockerfile")):
            with self.subTest(name):
                self.refused(L.tbnode("augment", name), *words)
        # What to write instead.
        with open(f"{work}/cut.tar", "wb") as f:
            f.write(b"x" * 700)
        with tarfile.open(f"{work}/other.tar", "w") as tar:
            tar.add("/etc/hostname", "hostname")
        for name, *words in ((f"docker-archive:{work}/text.tar", "docker save"), (f"docker-archive:{work}/cut.tar", "docker save"),
                             (f"docker-archive:{work}/other.tar", 'no file "manifest.json"', "docker save"),
                             (f"docker-archive:{work}/empty", "is a directory", f"oci:{work}/empty"),
                             (f"docker-archive:{work}/nowhere.tar", "No such file"), (f"oci:{work}/empty", "skopeo copy"),
                             (f"oci:{work}/text.tar", f"docker-archive:{work}/text.tar"), (f"dockerfile:{work}/empty", "--file"),
                             (f"{work}/text.tar", "is a file", f"docker-archive:{work}/text.tar"),
                             (work, "is a directory", f"oci:{work}", f"dockerfile:{work}"),
                             ("./nowhere.tar", "./nowhere.tar", "No such file"), ("https://docker.io/library/box:1", "without https://")):
            with self.subTest(name):
                r = L.tbnode("augment", name)
                self.refused(r, *words)
                self.assertLessEqual(r.err.count(name), 3)  # once, and where it is part of the advice
        self.assertEqual(L.tbnode("augment", "--file", "x", "busybox:1").rc, 1)
        for args in (("--level", "huge"), ("--builder", "podman")):
            r = L.tbnode("augment", *args, "busybox:1")
            self.assertEqual((r.rc, args[1] in r.err), (2, True), r)
        self.assertEqual(L.local.all_tags(), before)


class Daemon(Base):
    def engine(self):
        return (sorted(L.docker("images", "-aq", "--no-trunc").out.split()),
                sorted(L.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()))

    def test_by_name_and_by_id(self):
        i = lab.images.busybox(L, {"Cmd": ["from", "engine"]})
        i.load("example.org/in-engine:3")
        ident = L.docker("images", "-q", "--no-trunc", "example.org/in-engine:3").out.strip()
        before = self.engine()
        out = augment("docker-daemon:example.org/in-engine:3", check=True).json()
        self.assertTrue(out["image"].endswith("/in-engine:3-basic"), out["image"])
        self.assertEqual(config(out["image"])["Cmd"], ["from", "engine"])
        # The configuration keeps its bytes, so the image has the same id.
        repository, digest = out["source"]["name"].removeprefix(f"{L.local.host}/").rsplit("@", 1)
        manifest, _ = L.local.manifest(repository.rsplit(":", 1)[0], digest)
        self.assertEqual(manifest["config"]["digest"], ident)
        for name in (ident, ident.removeprefix("sha256:")[:12]):
            self.assertEqual(augment(f"docker-daemon:{name}", check=True).json()["digest"], out["digest"])
        self.assertEqual(self.engine(), before)

    def dockerfile(self, text, files=None):
        work = L.tmp("context")
        for name, data in {"Dockerfile": text, **(files or {})}.items():
            os.makedirs(os.path.dirname(f"{work}/{name}"), exist_ok=True)
            with open(f"{work}/{name}", "w", encoding="utf-8") as f:
                f.write(data)
        return work

    BASE = "FROM example.org/build-base:1\n"

    def setUp(self):
        if not L.docker("images", "-q", "example.org/build-base:1").out.strip():
            lab.images.busybox(L).load("example.org/build-base:1")

    def files(self, out):
        """What the image's layers hold."""
        repository, digest = out["base"]["image"].removeprefix(f"{L.local.host}/").split("@")
        names = []
        for layer in L.local.manifest(repository, digest)[0]["layers"]:
            with tarfile.open(fileobj=io.BytesIO(L.local.blob(repository, layer["digest"]))) as tar:
                names += [m.name.lstrip("./") for m in tar]
        return names

    def test_dockerfile(self):
        work = self.dockerfile(self.BASE + "COPY . /copied\nRUN touch /made\nCMD [\"built\"]\n",
                               {"keep/a": "1", "drop/b": "2", "c.log": "3", "d/e.log": "4", "d/f": "5",
                                ".dockerignore": "# no\ndrop\n**/*.log\n!d/e.log\n"})
        before = self.engine()
        out = augment(f"dockerfile:{work}", check=True).json()
        self.assertEqual(config(out["image"])["Cmd"], ["built"])
        found = self.files(out)
        for name, there in (("copied/keep/a", True), ("copied/drop/b", False), ("copied/c.log", False),
                            ("copied/d/e.log", True), ("copied/d/f", True), ("made", True)):
            self.assertEqual(name in found, there, name)
        self.assertEqual(self.engine(), before)

    def test_dockerfile_elsewhere(self):
        context = self.dockerfile("FROM scratch\n", {"data": "x"})
        other = self.dockerfile(self.BASE + "COPY . /all\nCMD [\"other\"]\n")
        for args in (("--build-context", context, f"dockerfile:{other}/Dockerfile"),
                     ("--file", f"{other}/Dockerfile", f"dockerfile:{context}")):
            out = augment(*args, check=True).json()
            self.assertEqual(config(out["image"])["Cmd"], ["other"])
            found = self.files(out)
            self.assertIn("all/data", found)
            self.assertFalse([n for n in found if "tbnode" in n], found)

    def test_urls(self):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as tar:
            for name, data in (("sub/Dockerfile", self.BASE.encode() + b"COPY sub/x /\nCMD [\"tar\"]\n"), ("sub/x", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        with Web({"/Dockerfile": self.BASE.encode() + b"CMD [\"url\"]\n", "/c.tar.gz": raw.getvalue(), "/bin": b"\0\1\2",
                  "/loop": 302, "/large": b"#" * (2 << 20)}) as web:
            before = self.engine()
            self.assertEqual(config(augment(f"dockerfile:{web}/Dockerfile", check=True).json()["image"])["Cmd"], ["url"])
            out = augment("--file", "sub/Dockerfile", f"dockerfile:{web}/c.tar.gz", check=True).json()
            self.assertEqual(config(out["image"])["Cmd"], ["tar"])
            for url, *words in ((f"{web}/missing", "404"), (f"{web}/bin", "neither"), (f"{web}/loop", "redirections"),
                                (f"{web}/large", "too large"), ("ftp://127.0.0.1/x", "http"),
                                (f"{web.replace('//', '//u:p@')}/Dockerfile", "password"), ("http://127.0.0.1:1/x", "connect")):
                with self.subTest(url):
                    r = L.tbnode("augment", f"dockerfile:{url}")
                    self.refused(r, *words)
                    self.assertEqual(self.engine(), before)

    def test_failed_builds_leave_nothing(self):
        tags = L.local.all_tags()
        for text, word in (("RUN touch /x\nRUN exit 3\n", "exit 3"), ("COPY nothing /\n", "nothing"), ("NONSENSE\n", "NONSENSE")):
            with self.subTest(text):
                work = self.dockerfile(self.BASE + text)
                before = self.engine(), L.docker("ps", "-aq").out
                self.refused(L.tbnode("augment", f"dockerfile:{work}"), "cannot build", word)
                self.assertEqual((self.engine(), L.docker("ps", "-aq").out), before)
        self.assertEqual(L.local.all_tags(), tags)


class Web:
    """A web server: {path: bytes to be answered, or 302 to lead to itself}."""

    def __init__(self, pages):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                page = pages.get(self.path)
                self.send_response(404 if page is None else 200 if isinstance(page, bytes) else page)
                if isinstance(page, int):
                    self.send_header("Location", self.path)
                    page = b""
                self.send_header("Content-Length", str(len(page or b"")))
                self.end_headers()
                self.wfile.write(page or b"")

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":
    lab.main()
