#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies between registries, OCI layouts and docker-archives, and copies that are killed and go on; skopeo, umoci and the
Docker engine judge. What hostile archives and servers do is in tests/unit/test-registry-{store,resume}.c."""

import gzip
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
import time
import unittest

import lab
from labkit.registry import Registry

L = None
MIB = 1 << 20
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Second(Registry):
    port = 5001
    host = "127.0.0.1:5001"

    def _config(self):
        return {**super()._config(), "validation": {"manifests": {"urls": {"allow": ["^https://example.com/"]}}}}


class Third(Second):
    port = 5002
    host = "127.0.0.1:5002"


def setUpModule():
    global L, SECOND, THIRD, IMAGE
    L = lab.Lab.get()
    SECOND = L._add(Second(L, "second"))
    THIRD = L._add(Third(L, "third"))
    for r in (L.local, SECOND, THIRD):
        r.ensure()
    IMAGE = lab.images.build(L, [{"etc/a": b"a" * 1000}, {"big": os.urandom(5_000_000)}, {"etc/b": b"b"}],
                             {"Entrypoint": ["/x"], "Cmd": ["y"], "User": "1000"})
    IMAGE.push(L.local, "src/image:oci", format="oci")
    IMAGE.push(L.local, "src/image:docker", format="v2s2")


def tearDownModule():
    SECOND.stop()
    THIRD.stop()


def tool(*args, **options):
    return L.program("tbnode-registry", *args, **options)


def copy(source, target, *options, rc=0):
    r = tool("copy", "--json", *options, source, target)
    if r.rc != rc:
        raise AssertionError(r)
    return r.json() if rc == 0 else r.err


def raw(ref):
    """The manifest as skopeo gets it."""
    if ref.startswith("oci:"):  # skopeo does not look for images of Docker's types in a layout
        _, folder, tag = ref.split(":")
        with open(f"{folder}/index.json", encoding="utf-8") as f:
            found = [m["digest"] for m in json.load(f)["manifests"]
                     if m["annotations"]["org.opencontainers.image.ref.name"] == tag]
        with open(f"{folder}/blobs/sha256/{found[0][7:]}", "rb") as f:
            return f.read()
    if not ref.startswith("docker-archive:"):
        ref = "docker://" + ref
    return L.skopeo("inspect", "--raw", "--tls-verify=false", ref, binary=True).out


def config(ref):
    """The configuration, as skopeo gets it."""
    if not ref.startswith(("oci:", "docker-archive:")):
        ref = "docker://" + ref
    return L.skopeo("inspect", "--config", "--raw", "--tls-verify=false", ref, binary=True).out


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put_image(registry, repository, reference, layers, architecture="amd64", annotations=None, kind="+gzip"):
    """An OCI image of these layers: (bytes of the blob, its diff_id). Returns (descriptor, digest)."""
    c = json.dumps({"architecture": architecture, "os": "linux", "config": {},
                    "rootfs": {"type": "layers", "diff_ids": [d for _, d in layers]}}).encode()
    m = {"schemaVersion": 2, "mediaType": OCI_MANIFEST,
         "config": {"mediaType": OCI_CONFIG, "size": len(c), "digest": registry.put_blob(repository, c)},
         "layers": [{"mediaType": OCI_LAYER + kind, "size": len(b), "digest": registry.put_blob(repository, b)}
                    for b, _ in layers]}
    if annotations:
        m["annotations"] = annotations
    data = json.dumps(m, indent=1).encode()
    digest = registry.put_manifest(repository, reference or sha(data), data)
    return {"mediaType": OCI_MANIFEST, "size": len(data), "digest": digest,
            "platform": {"os": "linux", "architecture": architecture}}, digest


def gz(data):
    return gzip.compress(data, 1, mtime=0), sha(data)


def push_index(registry, repository, tag):
    """amd64, arm64 and arm64's attestation, annotated. Returns (digest, {architecture: digest})."""
    entries, children = [], {}
    shared = gz(b"shared " * 1000)
    for arch in ("amd64", "arm64", "s390x"):
        d, children[arch] = put_image(registry, repository, None, [shared, gz(arch.encode() * 500)], arch,
                                      {"org.example.arch": arch})
        entries.append({**d, "annotations": {"org.example.entry": arch}})
    d, children["attestation"] = put_image(registry, repository, None, [gz(b"in-toto")], "unknown")
    entries.append({**d, "platform": {"os": "unknown", "architecture": "unknown"},
                    "annotations": {"vnd.docker.reference.type": "attestation-manifest",
                                    "vnd.docker.reference.digest": children["arm64"]}})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, "annotations": {"org.example.all": "yes"}}
    return registry.put_manifest(repository, tag, index), children


class Layouts(unittest.TestCase):
    def test_out_and_back(self):
        for tag in ("oci", "docker"):
            with self.subTest(tag):
                source = f"{L.local.host}/src/image:{tag}"
                layout = f"oci:{L.tmp()}/layout:one"
                j = copy(source, layout)
                self.assertEqual(j["digest"], sha(raw(source)))
                self.assertEqual(raw(layout), raw(source))
                back = f"{SECOND.host}/layout/{tag}:back"
                self.assertEqual(copy(layout, back)["digest"], j["digest"])
                self.assertEqual(raw(back), raw(source))

    def test_umoci_and_skopeo_read_ours(self):
        layout = f"{L.tmp()}/layout"
        copy(f"{L.local.host}/src/image:oci", f"oci:{layout}:one")
        L.umoci("unpack", "--image", f"{layout}:one", f"{layout}-bundle")
        self.assertEqual(os.path.getsize(f"{layout}-bundle/rootfs/big"), 5_000_000)
        L.skopeo("copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:one", f"docker://{SECOND.host}/by/skopeo:1")
        self.assertEqual(raw(f"{SECOND.host}/by/skopeo:1"), raw(f"{L.local.host}/src/image:oci"))

    def test_we_read_what_umoci_writes(self):
        layout = f"{L.tmp()}/layout"
        L.umoci("init", "--layout", layout)
        L.umoci("new", "--image", f"{layout}:made")
        L.umoci("config", "--image", f"{layout}:made", "--config.user", "nobody")
        with tarfile.open(f"{layout}.tar", "w") as t:
            info = tarfile.TarInfo("file")
            info.size = 100_000
            t.addfile(info, io.BytesIO(os.urandom(100_000)))
        L.umoci("raw", "add-layer", "--image", f"{layout}:made", f"{layout}.tar")
        j = copy(f"oci:{layout}:made", f"{SECOND.host}/by/umoci:1")
        self.assertEqual(raw(f"{SECOND.host}/by/umoci:1"), raw(f"oci:{layout}:made"))
        self.assertEqual(json.loads(config(f"{SECOND.host}/by/umoci:1"))["config"]["User"], "nobody")
        self.assertEqual(j["blobs"]["streamed"], 2)

    def test_several_images_in_one_layout(self):
        layout = f"{L.tmp()}/layout"
        for tag in ("oci", "docker"):
            copy(f"{L.local.host}/src/image:{tag}", f"oci:{layout}:{tag}")
        for tag in ("oci", "docker"):
            self.assertEqual(raw(f"oci:{layout}:{tag}"), raw(f"{L.local.host}/src/image:{tag}"))
        err = copy(f"oci:{layout}", f"{SECOND.host}/no/such:1", rc=1)
        self.assertIn("several images", err)
        self.assertIn("docker", err)
        self.assertIn("no image named", copy(f"oci:{layout}:other", f"{SECOND.host}/no/such:1", rc=1))
        # a name moves; what others wrote stays
        copy(f"{L.local.host}/src/image:oci", f"oci:{layout}:docker")
        self.assertEqual(raw(f"oci:{layout}:docker"), raw(f"{L.local.host}/src/image:oci"))
        with open(f"{layout}/index.json", encoding="utf-8") as f:
            self.assertEqual(len(json.load(f)["manifests"]), 2)

    def test_blobs_that_are_there_are_read_and_replaced_when_wrong(self):
        layout = f"{L.tmp()}/layout"
        source = f"{L.local.host}/src/image:oci"
        copy(source, f"oci:{layout}:one")
        self.assertEqual(copy(source, f"oci:{layout}:two")["blobs"], {"streamed": 0, "mounted": 0, "existed": 4})
        big = max((f"{layout}/blobs/sha256/{b}" for b in os.listdir(f"{layout}/blobs/sha256")), key=os.path.getsize)
        with open(big, "r+b") as f:
            f.seek(1_000_000)
            f.write(b"wrong")
        self.assertIn("has content with", copy(f"oci:{layout}:one", f"{SECOND.host}/no/such:1", rc=1)
                      .replace("got content with", "has content with"))
        self.assertEqual(copy(source, f"oci:{layout}:one")["blobs"]["streamed"], 1)
        copy(f"oci:{layout}:one", f"{SECOND.host}/repaired/x:1")
        self.assertEqual(sorted(os.listdir(layout)), ["blobs", "index.json", "oci-layout"])  # nothing left lying about

    def test_a_folder_of_something_else_is_not_touched(self):
        folder = L.tmp()
        with open(f"{folder}/letter", "w", encoding="utf-8") as f:
            f.write("dear")
        self.assertIn("not empty", copy(f"{L.local.host}/src/image:oci", f"oci:{folder}:x", rc=1))
        self.assertEqual(os.listdir(folder), ["letter"])

    def test_index(self):
        digest, children = push_index(L.local, "src/index", "1")
        layout = f"{L.tmp()}/layout"
        self.assertEqual(copy(f"{L.local.host}/src/index:1", f"oci:{layout}:all")["digest"], digest)
        self.assertEqual(copy(f"oci:{layout}:all", f"{SECOND.host}/back/index:1")["digest"], digest)
        for d in (digest, *children.values()):
            self.assertEqual(sha(raw(f"{SECOND.host}/back/index@{d}")), d)
        j = copy(f"oci:{layout}:all", f"{SECOND.host}/back/one:1", "--platform", "linux/arm64")
        self.assertEqual(j["digest"], children["arm64"])
        # a blob that several platforms have moves once
        self.assertEqual(copy(f"{L.local.host}/src/index:1", f"{SECOND.host}/fresh/index:1")["blobs"]["streamed"], 9)

    def test_several_platforms(self):
        digest, children = push_index(L.local, "src/index", "1")
        j = copy(f"{L.local.host}/src/index:1", f"{SECOND.host}/some/index:1", "--platform", "linux/amd64",
                 "--platform", "linux/arm64")
        self.assertNotEqual(j["digest"], digest)
        index = json.loads(raw(f"{SECOND.host}/some/index:1"))
        self.assertEqual([m["digest"] for m in index["manifests"]],
                         [children["amd64"], children["arm64"], children["attestation"]])
        self.assertEqual(index["annotations"], {"org.example.all": "yes"})
        self.assertEqual(index["manifests"][0]["annotations"], {"org.example.entry": "amd64"})
        L.skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"docker://{SECOND.host}/some/index:1",
                 f"oci:{L.tmp()}/some:1")

    def test_nested_index(self):
        digest, _ = push_index(L.local, "src/nested", "inner")
        inner = raw(f"{L.local.host}/src/nested:inner")
        outer = L.local.put_manifest("src/nested", "1", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            {"mediaType": OCI_INDEX, "size": len(inner), "digest": digest}]})
        self.assertEqual(copy(f"{L.local.host}/src/nested:1", f"{SECOND.host}/dst/nested:1")["digest"], outer)
        self.assertEqual(sha(raw(f"{SECOND.host}/dst/nested@{digest}")), digest)

    def test_zstd_and_foreign_layers(self):
        plain = b"contents " * 5000
        z = L.run("zstd", "-q", "-c", input=plain, binary=True).out
        put_image(L.local, "src/zstd", "1", [(z, sha(plain))], kind="+zstd")
        self.assertEqual(copy(f"{L.local.host}/src/zstd:1", f"{SECOND.host}/dst/zstd:1")["blobs"]["streamed"], 2)
        self.assertEqual(raw(f"{SECOND.host}/dst/zstd:1"), raw(f"{L.local.host}/src/zstd:1"))
        c = json.dumps({"architecture": "amd64", "os": "windows", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
        foreign = {"schemaVersion": 2, "mediaType": OCI_MANIFEST,
                   "config": {"mediaType": OCI_CONFIG, "size": len(c), "digest": THIRD.put_blob("src/foreign", c)},
                   "layers": [{"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "size": 10,
                               "digest": sha(b"elsewhere"), "urls": ["https://example.com/layer"]}]}
        THIRD.put_manifest("src/foreign", "1", foreign)
        for target in (f"{SECOND.host}/dst/foreign:1", f"oci:{L.tmp()}/foreign:1"):
            self.assertEqual(copy(f"{THIRD.host}/src/foreign:1", target)["blobs"]["streamed"], 1)
            self.assertEqual(raw(target), raw(f"{THIRD.host}/src/foreign:1"))


class Archives(unittest.TestCase):
    def test_docker_loads_ours(self):
        for tag in ("oci", "docker"):
            with self.subTest(tag):
                archive = f"{L.tmp()}/image.tar"
                copy(f"{L.local.host}/src/image:{tag}", f"docker-archive:{archive}:example/{tag}:1")
                out = L.docker("load", "-i", archive).out
                self.assertIn(f"example/{tag}:1", out)
                image_id = L.docker("inspect", "-f", "{{.Id}}", f"example/{tag}:1").out.strip()
                self.assertEqual(image_id, json.loads(raw(f"{L.local.host}/src/image:{tag}"))["config"]["digest"])

    def test_skopeo_reads_ours(self):
        archive = f"{L.tmp()}/image.tar"
        source = f"{L.local.host}/src/image:docker"
        copy(source, f"docker-archive:{archive}:library/x:1")
        self.assertEqual(config(f"docker-archive:{archive}"), config(source))
        with tarfile.open(archive) as t:
            self.assertEqual(json.load(t.extractfile("manifest.json"))[0]["RepoTags"], ["x:1"])
            for name in json.load(t.extractfile("manifest.json"))[0]["Layers"]:
                self.assertEqual(sha(t.extractfile(name).read())[7:], name.removesuffix(".tar"))
        layout = f"{L.tmp()}/layout"
        L.skopeo("copy", "-q", f"docker-archive:{archive}", f"oci:{layout}:x")
        L.umoci("unpack", "--image", f"{layout}:x", f"{layout}-bundle")
        self.assertEqual(os.path.getsize(f"{layout}-bundle/rootfs/big"), 5_000_000)

    def test_we_read_what_docker_and_skopeo_write(self):
        source = f"{L.local.host}/src/image:docker"
        folder = L.tmp()
        L.docker("pull", "-q", source)
        L.docker("save", "-o", f"{folder}/docker.tar", source)
        L.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{source}", f"docker-archive:{folder}/skopeo.tar:a/b:c")
        with open(f"{folder}/docker.tar", "rb") as f, gzip.open(f"{folder}/docker.tar.gz", "wb", 1) as z:
            shutil.copyfileobj(f, z)
        for name in ("docker.tar", "skopeo.tar", "docker.tar.gz"):
            with self.subTest(name):
                target = f"{SECOND.host}/archive/{name.replace('.', '-')}:1"
                j = copy(f"docker-archive:{folder}/{name}", target)
                self.assertEqual(config(target), config(source))
                self.assertEqual(j["blobs"]["streamed"], 4)
                # the registry's image is the one that the engine had
                L.docker("pull", "-q", target)
                self.assertEqual(L.docker("inspect", "-f", "{{.Id}}", target).out,
                                 L.docker("inspect", "-f", "{{.Id}}", source).out)
                layout = f"{L.tmp()}/layout"
                copy(f"docker-archive:{folder}/{name}", f"oci:{layout}:x")
                L.umoci("unpack", "--image", f"{layout}:x", f"{layout}-bundle")
                self.assertEqual(os.path.getsize(f"{layout}-bundle/rootfs/big"), 5_000_000)

    def test_archive_that_is_a_layout_as_well(self):
        """What docker 25 and later save: blobs/sha256/... named by manifest.json, with gzip'd layers here."""
        folder = L.tmp()
        copy(f"{L.local.host}/src/image:docker", f"oci:{folder}/layout:x")
        m = json.loads(raw(f"oci:{folder}/layout:x"))
        listing = [{"Config": "blobs/sha256/" + m["config"]["digest"][7:], "RepoTags": ["new:1"],
                    "Layers": ["blobs/sha256/" + x["digest"][7:] for x in m["layers"]]}]
        with open(f"{folder}/layout/manifest.json", "w", encoding="utf-8") as f:
            json.dump(listing, f)
        L.run("tar", "-C", f"{folder}/layout", "-cf", f"{folder}/new.tar", ".")
        copy(f"docker-archive:{folder}/new.tar:new:1", f"{SECOND.host}/archive/new:1")
        back = json.loads(raw(f"{SECOND.host}/archive/new:1"))
        self.assertEqual(back["config"]["digest"], m["config"]["digest"])
        self.assertEqual([x["digest"] for x in back["layers"]], [x["digest"] for x in m["layers"]])

    def test_several_images_in_one_archive(self):
        folder = L.tmp()
        other = lab.images.build(L, [{"other": b"o"}])
        other.push(L.local, "src/other:1")
        names = (f"{L.local.host}/src/image:docker", f"{L.local.host}/src/other:1")
        for name in names:
            L.docker("pull", "-q", name)
        L.docker("save", "-o", f"{folder}/both.tar", *names)
        for i, name in enumerate(names):
            copy(f"docker-archive:{folder}/both.tar:{name}", f"{SECOND.host}/archive/both:{i}")
            self.assertEqual(config(f"{SECOND.host}/archive/both:{i}"), config(name))
        self.assertIn("several images", copy(f"docker-archive:{folder}/both.tar", f"{SECOND.host}/no/such:1", rc=1))

    def test_nothing_is_overwritten_and_nothing_half_made(self):
        folder = L.tmp()
        with open(f"{folder}/image.tar", "w", encoding="utf-8") as f:
            f.write("mine")
        self.assertIn("there is such a file", copy(f"{L.local.host}/src/image:oci",
                                                   f"docker-archive:{folder}/image.tar", rc=1))
        bad = lab.images.build(L, [{"x": os.urandom(3_000_000)}])
        bad.push(L.local, "src/bad:1", format="oci")
        L.local.corrupt(bad.layers[0]["digest"])
        copy(f"{L.local.host}/src/bad:1", f"docker-archive:{folder}/bad.tar", rc=1)
        self.assertEqual(os.listdir(folder), ["image.tar"])


class Relay:
    """TCP to a registry and back: counts, slows down (bytes/s of answers), and can end all at once."""

    def __init__(self, port, target, rate=0):
        self.target, self.rate, self.down, self.up = target, rate, 0, 0
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._move, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._move, args=(server, client, True), daemon=True).start()

    def _move(self, a, b, down):
        try:
            while data := a.recv(65536):
                if down:
                    self.down += len(data)
                    if self.rate:
                        time.sleep(len(data) / self.rate)
                else:
                    self.up += len(data)
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()
        self.listener.close()


class Keeper(http.server.BaseHTTPRequestHandler):
    """A registry that keeps what it got of a broken-off PATCH and says so, as distribution-spec has it. In memory."""

    protocol_version = "HTTP/1.1"
    blobs, manifests, sessions = {}, {}, {}
    received = 0
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self, into):
        """Every byte counts as soon as it is here."""
        def take(n):
            while n > 0:
                data = self.rfile.read1(min(n, 65536))
                if not data:
                    raise ConnectionError
                into.extend(data)
                Keeper.received += len(data)
                n -= len(data)
        if self.headers.get("Transfer-Encoding") == "chunked":
            while n := int(self.rfile.readline().strip() or b"0", 16):
                take(n)
                self.rfile.readline()
            self.rfile.readline()
        else:
            take(int(self.headers.get("Content-Length", 0)))
        return into

    def do_HEAD(self):
        if "/blobs/" in self.path and (data := self.blobs.get(self.path.rsplit("/", 1)[1])):
            self.answer(200, data)
        else:
            self.answer(404)

    def do_GET(self):
        if "/uploads/" in self.path:
            data = self.sessions.get(self.path)
            if data is None:
                return self.answer(404)
            return self.answer(204, Location=self.path, Range=f"0-{max(len(data) - 1, 0)}")
        data = self.manifests.get(self.path)
        if data is None:
            return self.answer(404)
        return self.answer(200, data, Content_Type=json.loads(data)["mediaType"])

    def do_POST(self):
        self.body(bytearray())
        with self.lock:
            path = f"/v2/x/blobs/uploads/{len(self.sessions)}"
            self.sessions[path] = bytearray()
        self.answer(202, Location=path)

    def do_PATCH(self):
        data = self.sessions.get(self.path)
        if data is None:
            return self.answer(404)
        if r := self.headers.get("Content-Range"):
            if not re.fullmatch(rf"{len(data)}-\d+", r):
                return self.answer(416)
        self.body(data)
        self.answer(202, Location=self.path, Range=f"0-{max(len(data) - 1, 0)}")

    def do_PUT(self):
        if "/manifests/" in self.path:
            self.manifests[self.path] = bytes(self.body(bytearray()))
            return self.answer(201, Docker_Content_Digest=sha(self.manifests[self.path]))
        path, digest = self.path.split("?digest=")
        data = self.body(self.sessions[path])
        if sha(data) != digest.replace("%3A", ":"):
            return self.answer(400)
        self.blobs[sha(data)] = bytes(data)
        del self.sessions[path]
        return self.answer(201)

    def do_DELETE(self):
        self.sessions.pop(self.path, None)
        self.answer(204)


SIZE = 24 * MIB


class Resume(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.layer = os.urandom(SIZE)
        put_image(L.local, "src/resume", "1", [(cls.layer, sha(cls.layer))])
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 5010), Keeper)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()

    def killed(self, relay, target, state, after, options=()):
        """Starts a copy and kills it when so many bytes have come down."""
        p = subprocess.Popen([f"{L.install()}/tbnode-registry", "copy", "--resume-dir", state, *options,
                              "127.0.0.1:5005/src/resume:1", target], stdout=subprocess.DEVNULL)
        lab.wait_for(lambda: relay.down > after or p.poll() is not None, 60, "bytes")
        self.assertIsNone(p.poll())
        p.send_signal(signal.SIGKILL)
        p.wait()

    def test_killed_copy_goes_on(self):
        """Both halves: what was downloaded is not downloaded again, what was uploaded is not uploaded again."""
        state = f"{L.tmp()}/state"
        relay = Relay(5005, L.local.port, rate=20 * MIB)
        self.addCleanup(relay.close)
        self.killed(relay, "127.0.0.1:5010/x:1", state, SIZE // 2)
        had, sent = relay.down, Keeper.received
        self.assertEqual(sorted(f.rsplit(".")[-1] for f in os.listdir(state)), ["part", "session"])
        part = os.path.getsize(next(f.path for f in os.scandir(state) if f.name.endswith(".part")))
        self.assertGreater(part, SIZE // 3)
        self.assertGreater(sent, SIZE // 3)
        relay.rate = 0
        j = copy("127.0.0.1:5005/src/resume:1", "127.0.0.1:5010/x:1", "--resume-dir", state)
        self.assertEqual(j["bytes"]["resumed"], part)
        self.assertLess(relay.down - had, SIZE - part + MIB)
        self.assertLess(Keeper.received - sent, SIZE - sent + MIB)
        self.assertEqual(Keeper.blobs[sha(self.layer)], self.layer)
        self.assertEqual(os.listdir(state), [])
        self.assertEqual([len(s) for s in Keeper.sessions.values()], [])

    def test_killed_again_and_again(self):
        state = f"{L.tmp()}/state"
        relay = Relay(5005, L.local.port, rate=30 * MIB)
        self.addCleanup(relay.close)
        for i in range(1, 5):
            self.killed(relay, f"{SECOND.host}/dst/killed:1", state, i * 4 * MIB)
        relay.rate = 0
        copy("127.0.0.1:5005/src/resume:1", f"{SECOND.host}/dst/killed:1", "--resume-dir", state)
        # docker-registry drops broken-off sessions, but the download was not repeated
        self.assertLess(relay.down, SIZE + 5 * MIB)
        self.assertEqual(raw(f"{SECOND.host}/dst/killed:1"), raw(f"{L.local.host}/src/resume:1"))
        self.assertEqual(os.listdir(state), [])

    def test_into_a_layout(self):
        state, layout = f"{L.tmp()}/state", f"{L.tmp()}/layout"
        relay = Relay(5005, L.local.port, rate=20 * MIB)
        self.addCleanup(relay.close)
        self.killed(relay, f"oci:{layout}:x", state, SIZE // 2)
        had = relay.down
        relay.rate = 0
        self.assertGreater(copy("127.0.0.1:5005/src/resume:1", f"oci:{layout}:x", "--resume-dir", state)["bytes"]["resumed"],
                           SIZE // 3)
        self.assertLess(relay.down - had, SIZE * 2 // 3)
        self.assertEqual(sorted(os.listdir(layout)), ["blobs", "index.json", "oci-layout"])
        self.assertEqual(len(os.listdir(f"{layout}/blobs/sha256")), 3)

    def test_partial_blob_that_rotted(self):
        state = f"{L.tmp()}/state"
        relay = Relay(5005, L.local.port, rate=20 * MIB)
        self.addCleanup(relay.close)
        self.killed(relay, f"{SECOND.host}/dst/rotted:1", state, SIZE // 3)
        with open(next(f.path for f in os.scandir(state) if f.name.endswith(".part")), "r+b") as f:
            f.seek(MIB)
            f.write(b"rotten")
        relay.rate = 0
        copy("127.0.0.1:5005/src/resume:1", f"{SECOND.host}/dst/rotted:1", "--resume-dir", state)
        self.assertEqual(SECOND.blob("dst/rotted", sha(self.layer)), self.layer)
        self.assertEqual(os.listdir(state), [])

    def test_two_at_once_with_one_state_directory(self):
        state = f"{L.tmp()}/state"
        relay = Relay(5005, L.local.port, rate=40 * MIB)
        self.addCleanup(relay.close)
        runs = [subprocess.Popen([f"{L.install()}/tbnode-registry", "copy", "--resume-dir", state,
                                  "127.0.0.1:5005/src/resume:1", f"{SECOND.host}/dst/two{i}:1"],
                                 stdout=subprocess.DEVNULL) for i in range(2)]
        self.assertEqual([p.wait(60) for p in runs], [0, 0])
        for i in range(2):
            self.assertEqual(SECOND.blob(f"dst/two{i}", sha(self.layer)), self.layer)
        self.assertEqual(os.listdir(state), [])

    def test_state_directory_of_everybody(self):
        state = L.tmp()
        os.chmod(state, 0o777)
        self.assertIn("writable for nobody else", copy(f"{L.local.host}/src/resume:1", f"{SECOND.host}/no/such:1",
                                                       "--resume-dir", state, rc=1))


if __name__ == "__main__":
    lab.main()
