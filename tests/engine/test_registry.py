#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The registry client against real docker-registries (plain, Basic, TLS with tokens); skopeo and umoci judge what it
pushed. What servers do that no real one would do is in tests/unit/test-registry-*.c."""

import gzip
import hashlib
import http.server
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import unittest

import lab
from labkit.registry import Registry

L = None
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Second(Registry):
    """Another plain registry."""
    port = 5001
    host = "127.0.0.1:5001"


class WithPassword(Registry):
    """htpasswd; its name is not a loopback name, so plain http must be asked for."""
    port = 5002
    host = "basic.example:5002"

    def _config(self):
        path = f"{self.lab.dir}/htpasswd"
        self.lab.run("htpasswd", "-Bbc", path, "alice", "open sesame")
        return {**super()._config(), "auth": {"htpasswd": {"realm": "basic realm", "path": path}}}

    def _authorize(self, _path):
        return {"Authorization": "Basic YWxpY2U6b3BlbiBzZXNhbWU="}


class NoDelete(Registry):
    port = 5003
    host = "127.0.0.1:5003"

    def _config(self):
        config = super()._config()
        config["storage"]["delete"]["enabled"] = False
        return config


def setUpModule():
    global L, SECOND, BASIC, NODELETE, IMAGE
    L = lab.Lab.get()
    with open("/etc/hosts", "a", encoding="utf-8") as f:
        f.write("\n127.0.0.1 basic.example plain.example\n")
    SECOND, BASIC, NODELETE = (L._add(c(L, n)) for c, n in ((Second, "second"), (WithPassword, "basic"),
                                                            (NoDelete, "nodelete")))
    for r in (L.local, SECOND, BASIC, NODELETE, L.hub):
        r.ensure()
    IMAGE = lab.images.build(L, [{"etc/a": b"a" * 1000}, {"big": os.urandom(20_000_000)}, {"etc/b": b"b"}],
                             {"Entrypoint": ["/x"], "Cmd": ["y"], "User": "1000"})
    IMAGE.push(L.local, "src/image:oci", format="oci")
    IMAGE.push(L.local, "src/image:docker", format="v2s2")


def tearDownModule():
    for r in (SECOND, BASIC, NODELETE):
        r.stop()


def tool(*args, **options):
    return L.program("tbnode-registry", *args, **options)


def raw(ref, *options):
    """The manifest as skopeo gets it."""
    return L.skopeo("inspect", "--raw", "--tls-verify=false", *options, f"docker://{ref}", binary=True).out


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_requests(registry, method, since=0):
    return [p for m, p, _ in registry.accesses()[since:] if m == method and "/blobs/" in p]


def push_index(registry, repository, tag):
    """An index as on Docker Hub: two platforms and an attestation. Returns (index digest, {platform: digest})."""
    entries, children = [], {}
    for arch in ("amd64", "arm64", "unknown"):
        layer = gzip.compress(f"layer of {arch}".encode() * 1000, mtime=0)
        config = json.dumps({"architecture": arch, "os": "linux" if arch != "unknown" else arch, "config": {},
                             "rootfs": {"type": "layers", "diff_ids": [sha(gzip.decompress(layer))]}}).encode()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
                       "digest": registry.put_blob(repository, config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": len(layer),
                        "digest": registry.put_blob(repository, layer)}]}).encode()
        children[arch] = registry.put_manifest(repository, sha(manifest), manifest)
        entries.append({"mediaType": OCI_MANIFEST, "size": len(manifest), "digest": children[arch],
                        "platform": {"os": "linux" if arch != "unknown" else arch, "architecture": arch}})
    return registry.put_manifest(repository, tag, {"schemaVersion": 2, "mediaType": OCI_INDEX,
                                                   "manifests": entries}), children


class Copy(unittest.TestCase):
    def test_bytes_arrive_unchanged(self):
        for tag in ("oci", "docker"):
            with self.subTest(tag):
                source, target = f"{L.local.host}/src/image:{tag}", f"{SECOND.host}/copy/{tag}:1"
                r = tool("copy", "--json", source, target)
                self.assertEqual(r.rc, 0, r)
                j = r.json()
                data = raw(target)
                self.assertEqual(data, raw(source))
                self.assertEqual(j["digest"], sha(data))
                self.assertEqual(j["blobs"]["streamed"], 4)
                self.assertEqual(j["bytes"]["uploaded"], j["bytes"]["downloaded"])
                self.assertEqual(SECOND.uploads(), [])
                # skopeo reads every blob and checks every digest; umoci unpacks what it wrote
                out = f"{L.tmp('back')}/oci"
                L.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{target}", f"oci:{out}:x")
                L.umoci("unpack", "--image", f"{out}:x", f"{out}-bundle")
                self.assertEqual(os.path.getsize(f"{out}-bundle/rootfs/big"), 20_000_000)

    def test_the_example_of_the_documentation(self):
        r = L.run(f"{L.build}/tests/unit/registry-example", f"{L.local.host}/src/image:oci", f"{SECOND.host}/doc/x:1")
        digest, config = r.out.split("\n", 1)
        self.assertEqual(digest, sha(raw(f"{SECOND.host}/doc/x:1")))
        self.assertEqual(json.loads(config)["config"], IMAGE.config["config"])

    def test_second_copy_moves_nothing(self):
        target = f"{SECOND.host}/copy/again:1"
        self.assertEqual(tool("copy", f"{L.local.host}/src/image:oci", target).rc, 0)
        before = len(SECOND.accesses())
        j = tool("copy", "--json", f"{L.local.host}/src/image:oci", target).json()
        self.assertEqual(j["blobs"], {"streamed": 0, "mounted": 0, "existed": 4})
        self.assertEqual([m for m, _, _ in SECOND.accesses()[before:] if m != "HEAD"], ["PUT"])  # the manifest
        # another tag in the same repository: one HEAD per blob, no upload
        before = len(SECOND.accesses())
        j = tool("copy", "--json", f"{L.local.host}/src/image:oci", f"{SECOND.host}/copy/again:2").json()
        self.assertEqual(j["blobs"]["existed"], 4)
        self.assertEqual(blob_requests(SECOND, "POST", before), [])
        self.assertEqual(len(blob_requests(SECOND, "HEAD", before)), 4)

    def test_inside_one_registry_everything_is_mounted(self):
        before = len(L.local.accesses())

        def requests(method):
            """Of these two repositories: the registry writes down a request when it ends, an aborted one some time later."""
            return [path for path in blob_requests(L.local, method, before)
                    if path.startswith(("/v2/src/image/", "/v2/mirror/x/image/"))]

        j = tool("copy", "--json", f"{L.local.host}/src/image:oci", f"{L.local.host}/mirror/x/image:1").json()
        self.assertEqual(j["blobs"], {"streamed": 0, "mounted": 4, "existed": 0})
        self.assertEqual(len(requests("POST")), 4)
        for method in ("GET", "HEAD", "PUT", "PATCH"):
            self.assertEqual(requests(method), [])
        self.assertEqual(L.local.uploads(), [])
        self.assertEqual(raw(f"{L.local.host}/mirror/x/image:1"), raw(f"{L.local.host}/src/image:oci"))

    def test_whole_index(self):
        digest, children = push_index(L.local, "src/index", "1")
        r = tool("copy", "--json", f"{L.local.host}/src/index:1", f"{SECOND.host}/dst/index:1")
        self.assertEqual(r.json()["digest"], digest, r)
        for d in (digest, *children.values()):
            self.assertEqual(sha(raw(f"{SECOND.host}/dst/index@{d}")), d)
        L.skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"docker://{SECOND.host}/dst/index:1",
                 f"oci:{L.tmp()}/all:1")

    def test_one_platform_of_an_index(self):
        _, children = push_index(L.local, "src/index", "1")
        r = tool("copy", "--json", "--platform", "linux/arm64", f"{L.local.host}/src/index:1",
                 f"{SECOND.host}/dst/arm:1")
        self.assertEqual(r.json()["digest"], children["arm64"], r)
        self.assertEqual(sha(raw(f"{SECOND.host}/dst/arm:1")), children["arm64"])
        r = tool("copy", "--platform", "linux/s390x", f"{L.local.host}/src/index:1", f"{SECOND.host}/dst/no:1")
        self.assertEqual(r.rc, 1)
        self.assertIn("linux/amd64, linux/arm64", r.err)
        self.assertNotIn("unknown", r.err)
        self.assertEqual(SECOND.tags("dst/no"), [])

    def test_corrupt_source_leaves_nothing(self):
        image = lab.images.build(L, [{"x": os.urandom(5_000_000)}])
        image.push(L.local, "src/corrupt:1", format="oci")
        L.local.corrupt(image.layers[0]["digest"])
        r = tool("copy", f"{L.local.host}/src/corrupt:1", f"{SECOND.host}/dst/corrupt:1")
        self.assertEqual(r.rc, 1)
        self.assertIn("does not match its digest", r.err)
        self.assertEqual(len(r.err.strip().splitlines()), 1)
        self.assertEqual(SECOND.tags("dst/corrupt"), [])
        self.assertNotIn(image.layers[0]["digest"], blob_digests(SECOND))
        self.assertEqual(SECOND.uploads(), [])
        self.assertEqual(tool("blob", f"{L.local.host}/src/corrupt@{image.layers[0]['digest']}", binary=True).rc, 1)

    def test_interrupted_copy_leaves_nothing(self):
        image = lab.images.build(L, [{"x": os.urandom(60_000_000)}])
        image.push(L.local, "src/long:1", format="oci")
        slow = SlowGate(L.local.port)
        p = subprocess.Popen([f"{L.install()}/tbnode-registry", "copy", f"127.0.0.1:{slow.port}/src/long:1",
                              f"{SECOND.host}/dst/long:1"], stderr=subprocess.PIPE, text=True)
        lab.wait_for(SECOND.uploads, 20, "the upload to begin")
        p.send_signal(signal.SIGTERM)
        _, err = p.communicate(timeout=30)
        slow.close()
        self.assertEqual(p.returncode, 1)
        self.assertIn("cancelled", err)
        self.assertEqual(SECOND.tags("dst/long"), [])
        lab.wait_for(lambda: not SECOND.uploads(), 10, "the upload session to be closed")

    def test_target_that_dies_and_comes_back(self):
        image = lab.images.build(L, [{"x": os.urandom(30_000_000)}])
        image.push(L.local, "src/dies:1", format="oci")
        slow = SlowGate(L.local.port, hold_at=4_000_000)
        p = subprocess.Popen([f"{L.install()}/tbnode-registry", "copy", "--json",
                              f"127.0.0.1:{slow.port}/src/dies:1", f"{SECOND.host}/dst/dies:1"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lab.wait_for(SECOND.uploads, 20, "the upload to begin")
        SECOND.kill()
        SECOND.start()
        slow.release()
        _, err = p.communicate(timeout=60)
        slow.close()
        self.assertEqual(p.returncode, 0, err)
        self.assertEqual(raw(f"{SECOND.host}/dst/dies:1"), raw(f"{L.local.host}/src/dies:1"))

    def test_memory_does_not_grow_with_the_image(self):
        image = lab.images.build(L, [{"x": os.urandom(150_000_000)}])
        image.push(L.local, "src/fat:1", format="oci")
        # A process keeps its parent's peak across exec: so measured from a small one.
        r = L.run(sys.executable, "-c", "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
                  "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)", f"{L.install()}/tbnode-registry",
                  "copy", f"{L.local.host}/src/fat:1", f"{SECOND.host}/dst/fat:1")
        peak = int(r.out.split()[-1])
        print(f"# peak memory of a 150 MB copy: {peak} kB")
        if "asan" not in L.run("ldd", f"{L.install()}/tbnode-registry").out:
            self.assertLess(peak, 32 * 1024)


def blob_digests(registry):
    """What it really stores."""
    base = f"{registry.storage}/docker/registry/v2/blobs/sha256"
    return {f"sha256:{d}" for x in os.listdir(base) for d in os.listdir(f"{base}/{x}")}


class SlowGate:
    """A TCP relay in front of a registry that stops passing the answers on after some bytes, until released."""

    def __init__(self, port, hold_at=2_000_000):
        import socket
        self.target, self.hold_at, self.passed = port, hold_at, 0
        self.open = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        import socket
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self.sockets += [client, server]
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, a, b, gated):
        try:
            while data := a.recv(65536):
                if gated and self.passed > self.hold_at:
                    self.open.wait()
                b.sendall(data)
                self.passed += len(data) if gated else 0
        except OSError:
            pass
        for s in (a, b):
            try:
                s.close()
            except OSError:
                pass

    def release(self):
        self.open.set()

    def close(self):
        self.release()
        self.listener.close()


class Authentication(unittest.TestCase):
    def tearDown(self):
        L.docker_config({})

    def test_basic(self):
        target, http = f"{BASIC.host}/a/b:1", ("--plain-http", BASIC.host)
        r = tool("copy", *http, f"{L.local.host}/src/image:oci", target)
        self.assertEqual(r.rc, 1)
        self.assertIn("docker login basic.example:5002", r.err)
        L.docker_config({BASIC.host: ("alice", "wrong secret")})
        r = tool("ping", *http, BASIC.host)
        self.assertEqual(r.rc, 1)
        self.assertIn("refuses the credentials", r.err)
        self.assertNotIn("wrong secret", r.err)
        L.docker_config({BASIC.host: ("alice", "open sesame")})
        self.assertEqual(tool("ping", *http, BASIC.host).rc, 0)
        before = len(BASIC.accesses())
        r = tool("copy", *http, f"{L.local.host}/src/image:oci", target)
        self.assertEqual(r.rc, 0, r)
        self.assertLessEqual(sum(s == 401 for _, _, s in BASIC.accesses()[before:]), 1)
        self.assertEqual(raw(target, "--creds", "alice:open sesame"), raw(f"{L.local.host}/src/image:oci"))
        self.assertEqual(tool("tags", *http, f"{BASIC.host}/a/b").out, "1\n")

    def test_plain_http_only_when_asked_for(self):
        r = tool("ping", f"plain.example:{L.local.port}")
        self.assertEqual(r.rc, 1)
        self.assertIn("https://plain.example", r.err)
        self.assertEqual(tool("ping", "--plain-http", f"plain.example:{L.local.port}",
                              f"plain.example:{L.local.port}").rc, 0)

    def test_tokens(self):
        """The stand-in for Docker Hub: TLS, RS256-signed tokens, anonymous pull, private repositories."""
        IMAGE.push(L.hub, "library/thing:1")
        IMAGE.push(L.hub, "private/thing:1")
        L.hub.token_requests.clear()
        r = tool("copy", "--json", "thing:1", f"{SECOND.host}/from/hub:1")
        self.assertEqual(r.rc, 0, r)
        self.assertEqual(r.json()["source"], "docker.io/library/thing:1")
        self.assertEqual(raw(f"{SECOND.host}/from/hub:1"), raw("docker.io/library/thing:1"))
        self.assertEqual(L.hub.token_requests[0], (None, ["repository:library/thing:pull"]))
        r = tool("inspect", "private/thing:1")
        self.assertEqual(r.rc, 1)
        L.hub.add_user("bob", "builder")
        L.docker_config({"https://index.docker.io/v1/": ("bob", "builder")})
        self.assertEqual(tool("inspect", "private/thing:1").rc, 0)
        L.docker_config({"docker.io": ("bob", "builder")})  # not the Hub's key: as Docker, we ignore it
        self.assertEqual(tool("inspect", "private/thing:1").rc, 1)
        L.docker_config({"https://index.docker.io/v1/": ("bob", "wrong")})
        r = tool("inspect", "private/thing:1")
        self.assertEqual(r.rc, 1)
        self.assertIn("token server refuses", r.err)
        r = tool("copy", f"{L.local.host}/src/image:oci", "docker.io/library/mine:1")
        self.assertEqual(r.rc, 1)

    def test_push_and_mount_with_tokens(self):
        IMAGE.push(L.hub, "library/thing:1")
        L.docker_config({"https://index.docker.io/v1/": L.hub.operator})
        L.hub.token_requests.clear()
        r = tool("copy", "--json", "thing:1", "docker.io/team/thing:1")
        self.assertEqual(r.json()["blobs"], {"streamed": 0, "mounted": 4, "existed": 0}, r)
        self.assertTrue(any(s == ["repository:team/thing:pull,push", "repository:library/thing:pull"]
                            for _, s in L.hub.token_requests), L.hub.token_requests)
        self.assertLessEqual(len(L.hub.token_requests), 5)  # one per set of scopes, whatever the parallelism
        r = tool("copy", "--json", f"{L.local.host}/src/image:oci", "docker.io/team/other:1")
        self.assertEqual(r.json()["blobs"]["streamed"], 4, r)

    def test_credentials_never_reach_another_host(self):
        """A registry that sends its visitors elsewhere: the other one must not see who they are."""
        seen = []
        other = serve(lambda h: seen.append(dict(h.headers)) or (200, {}, b"{}"))
        lure = serve(lambda h: (307, {"Location": f"http://127.0.0.1:{other.server_port}/x"}, b"")
                     if h.headers.get("Authorization") else (401, {"WWW-Authenticate": 'Basic realm="x"'}, b""))
        L.docker_config({f"127.0.0.1:{lure.server_port}": ("alice", "open sesame")})
        r = tool("blob", f"127.0.0.1:{lure.server_port}/a/b@{sha(b'{}')}", binary=True)
        self.assertEqual((r.rc, r.out), (0, b"{}"), r)
        self.assertEqual(len(seen), 1)
        self.assertNotIn("Authorization", seen[0])

    def test_public_registry_cannot_lead_inside(self):
        """Names that resolve to private addresses are found out when connecting, before anything is sent."""
        L.run("ip", "address", "add", "203.0.113.10/32", "dev", "lo")
        with open("/etc/hosts", "a", encoding="utf-8") as f:
            f.write("\n203.0.113.10 public.example\n127.0.0.1 inside.example\n")
        cert, key = L.authority.certificate("public", ["public.example", "inside.example"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        reached = []
        inside = serve(lambda h: reached.append(h.path) or (200, {}, b"{}"), "127.0.0.1", context)
        public = serve(lambda h: (307, {"Location": f"https://inside.example:{inside.server_port}/x"}, b""),
                       "203.0.113.10", context)
        r = tool("blob", f"public.example:{public.server_port}/a/b@{sha(b'{}')}", binary=True)
        self.assertEqual(r.rc, 1)
        self.assertIn(b"not allowed", r.err)
        self.assertEqual(reached, [])


def serve(answer, address="127.0.0.1", context=None):
    """An HTTP server; answer(handler) -> (status, headers, body)."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Tool(unittest.TestCase):
    def test_inspect_manifest_config(self):
        ref = f"{L.local.host}/src/image:oci"
        j = tool("inspect", "--json", ref).json()
        self.assertEqual(j["digest"], sha(raw(ref)))
        self.assertEqual([x["digest"] for x in j["image"]["layers"]], [x["digest"] for x in IMAGE.layers])
        self.assertEqual(tool("manifest", ref, binary=True).out, raw(ref))
        self.assertEqual(tool("config", ref).json()["config"], IMAGE.config["config"])
        file = f"{L.tmp()}/m.json"
        self.assertEqual(tool("manifest", "-o", file, ref).rc, 0)
        with open(file, "rb") as f:
            self.assertEqual(f.read(), raw(ref))
        digest, children = push_index(L.local, "src/index", "1")
        j = tool("inspect", "--json", f"{L.local.host}/src/index:1").json()
        self.assertEqual((j["digest"], j["image"]["digest"]), (digest, children["amd64"]))
        self.assertEqual(j["platforms"][1]["platform"], "linux/arm64")
        self.assertTrue(j["platforms"][2]["attestation"])
        self.assertEqual(sha(tool("manifest", "--platform", "linux/arm64", f"{L.local.host}/src/index:1",
                                  binary=True).out), children["arm64"])

    def test_blob(self):
        d = IMAGE.layers[1]["digest"]
        r = tool("blob", f"{L.local.host}/src/image@{d}", binary=True)
        self.assertEqual((r.rc, sha(r.out)), (0, d))
        self.assertEqual(tool("blob", f"{L.local.host}/src/image:oci").rc, 2)

    def test_lists(self):
        for i in range(25):
            L.local.put_manifest("many/tags", f"t{i:02}", json.loads(self._empty_image()))
        self.assertEqual(sorted(tool("tags", f"{L.local.host}/many/tags").out.split()),
                         [f"t{i:02}" for i in range(25)])
        self.assertIn("many/tags", tool("ls", "--json", L.local.host).json()["repositories"])
        r = tool("tags", f"{L.local.host}/not/there")
        self.assertEqual(r.rc, 1)
        self.assertIn("NAME_UNKNOWN", r.err)

    def _empty_image(self):
        config = b'{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'
        return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
            "digest": L.local.put_blob("many/tags", config)}})

    def test_delete(self):
        tool("copy", f"{L.local.host}/src/image:oci", f"{L.local.host}/gone/x:1")
        r = tool("delete", "--json", f"{L.local.host}/gone/x:1")
        self.assertEqual((r.rc, r.json()["deleted"]), (0, f"{L.local.host}/gone/x:1"))
        self.assertEqual(L.local.tags("gone/x"), [])
        r = tool("delete", f"{L.local.host}/gone/x:1")
        self.assertEqual(r.rc, 1)
        self.assertIn("there is no such image", r.err)
        tool("copy", f"{L.local.host}/src/image:oci", f"{NODELETE.host}/stays/x:1")
        r = tool("delete", f"{NODELETE.host}/stays/x:1")
        self.assertEqual(r.rc, 1)
        self.assertIn("storage.delete.enabled", r.err)
        self.assertEqual(NODELETE.tags("stays/x"), ["1"])

    def test_messages_and_exit_codes(self):
        cases = [
            (["ping", "127.0.0.1:9"], 1, "Connection refused"),
            (["inspect", f"{L.local.host}/nothing/here"], 1, "HTTP 404, MANIFEST_UNKNOWN"),
            (["inspect", "Upper/Case"], 2, "must be lower case"),
            (["ping", "http://127.0.0.1:5000"], 2, "without http://"),
            (["copy", "one"], 2, "usage: tbnode-registry copy SOURCE TARGET"),
            (["frobnicate"], 2, "unknown command"),
            ([], 2, "a command is missing"),
            (["--parallel", "99", "copy", "a", "b"], 2, "99"),
            (["--platform", "linux", "inspect", "a"], 2, "linux/amd64"),
            (["--nonsense"], 2, "--help"),
        ]
        for args, rc, text in cases:
            with self.subTest(" ".join(args)):
                r = tool(*args)
                self.assertEqual(r.rc, rc, r)
                self.assertIn(text, r.err)
                self.assertEqual(r.out, "")
        r = tool("--help")
        self.assertEqual((r.rc, r.err), (0, ""))
        commands = re.findall(r"^  ([a-z]+) ", r.out, re.M)
        self.assertEqual(set("ping inspect manifest config ls tags copy blob delete".split()) - set(commands), set())


if __name__ == "__main__":
    lab.main()
