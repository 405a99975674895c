#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnode-registry against registries as they are run: TLS with a CA of one's own and with client certificates, a
pull-through cache, nginx with limits in front, HTTP/2, a unix socket, IPv6; and what it keeps of a login. skopeo and umoci
judge what it pushed."""

import base64
import hashlib
import json
import os
import pty
import socket
import stat
import subprocess
import threading
import unittest

import lab
from labkit.nginx import Nginx
from labkit.registry import Registry

L = None
PASSWORD = "open sesame: ü"


class Variant(Registry):
    """A registry with another configuration."""

    def __init__(self, lab_, name, port, host=None, address="127.0.0.1", change=lambda config: None):
        self.port, self.address = port, address
        self.host = host or f"{address}:{port}"
        self.change = change
        super().__init__(lab_, name)

    def _config(self):
        config = super()._config()
        self.change(config)
        return config


def started(service):
    L._add(service)
    service.start()
    return service


def setUpModule():
    global L, IMAGE
    L = lab.Lab.get()
    with open("/etc/hosts", "a", encoding="utf-8") as f:
        f.write("\n::1 v6.example\n127.0.0.1 login.example tls.example mutual.example h2.example\n")
    L.local.ensure()
    IMAGE = lab.images.build(L, [{"etc/a": b"a" * 1000}, {"big": os.urandom(6_000_000)}, {"etc/b": b"b"}],
                             {"Entrypoint": ["/x"], "Cmd": ["y z"], "User": "1000", "Labels": {"who": "me"}})
    IMAGE.push(L.local, "src/image:1", format="oci")


def tool(*args, **options):
    return L.program("tbnode-registry", *args, **options)


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def raw(ref, *options):
    return L.skopeo("inspect", "--raw", "--tls-verify=false", *options, f"docker://{ref}", binary=True).out


class Servers(unittest.TestCase):
    def check_there_and_back(self, host, *options, oracle=""):
        """Copies to the registry and back out of it, and lets skopeo and umoci read all of it."""
        source = f"{L.local.host}/src/image:1"
        r = tool("copy", "--json", *options, source, f"{host}/dst/image:1")
        self.assertEqual(r.rc, 0, r)
        self.assertEqual(r.json()["digest"], sha(raw(source)))
        if oracle is not None:  # None: skopeo cannot get there
            name = f"{oracle or host}/dst/image:1"
            self.assertEqual(raw(name), raw(source))
            out = f"{L.tmp('back')}/oci"
            L.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{out}:x")
            L.umoci("unpack", "--image", f"{out}:x", f"{out}-bundle")
            self.assertEqual(os.path.getsize(f"{out}-bundle/rootfs/big"), 6_000_000)
        back = f"{L.local.host}/back/{hashlib.sha256(host.encode()).hexdigest()[:8]}:1"
        r = tool("copy", "--json", *options, f"{host}/dst/image:1", back)
        self.assertEqual(r.rc, 0, r)
        self.assertEqual(raw(back), raw(source))
        self.assertEqual(tool("tags", *options, f"{host}/dst/image").out, "1\n")
        self.assertEqual(tool("ls", *options, f"{host}/dst").out, "dst/image\n")
        r = tool("inspect", "--json", *options, f"{host}/dst/image:1")
        self.assertEqual(r.json()["digest"], sha(raw(source)), r)

    def test_tls_with_a_ca_of_its_own(self):
        folder = L.tmp("ca")  # one that nobody trusts
        L.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tls.example",
              "-addext", "subjectAltName=DNS:tls.example", "-keyout", f"{folder}/key", "-out", f"{folder}/cert")
        host = "tls.example:5100"
        started(Variant(L, "tls", 5100, host, change=lambda c: c["http"].update(
            tls={"certificate": f"{folder}/cert", "key": f"{folder}/key"})))
        r = tool("ping", host)
        self.assertEqual(r.rc, 1)
        self.assertIn("certificate", r.err)
        self.check_there_and_back(host, "--tls-ca", f"{host}={folder}/cert")
        self.assertEqual(tool("ping", "--insecure", host, host).rc, 0)
        r = tool("ping", "--plain-http", host, host)  # http to a TLS port: said, not hung
        self.assertEqual(r.rc, 1)
        r = tool("ping", "--tls-ca", f"{host}={folder}/nothing", host)
        self.assertEqual(r.rc, 1)
        self.assertIn("CA certificate", r.err)

    def test_client_certificates(self):
        cert, key = L.authority.certificate("mutual", ["mutual.example"])
        host = "mutual.example:5101"
        started(Variant(L, "mutual", 5101, host, change=lambda c: c["http"].update(
            tls={"certificate": cert, "key": key, "clientcas": [L.authority.ca]})))
        self.assertEqual(tool("ping", host).rc, 1)
        self.assertEqual(tool("ping", "--tls-cert", f"{host}={cert}", host).rc, 2)  # without its key
        self.check_there_and_back(host, "--tls-cert", f"{host}={cert}", "--tls-key", f"{host}={key}", oracle=None)

    def test_ipv6_loopback(self):
        started(Variant(L, "v6", 5102, "[::1]:5102", "::1", change=lambda c: c["http"].update(addr="[::1]:5102")))
        self.check_there_and_back("[::1]:5102", oracle="v6.example:5102")  # skopeo takes no address literals

    def test_unix_socket(self):
        path = f"{L.tmp('unix')}/registry.sock"
        registry = Variant(L, "unix", 0, "unix.example", change=lambda c: c["http"].update(net="unix", addr=path))
        registry._accepts = lambda: os.path.exists(path)
        started(registry)
        self.check_there_and_back("unix.example", "--unix-socket", f"unix.example={path}", oracle=None)
        r = tool("ping", "--unix-socket", f"unix.example={path}.not", "unix.example")
        self.assertEqual(r.rc, 1)
        self.assertIn(f"{path}.not", r.err)

    def test_pull_through_cache(self):
        cache = started(Variant(L, "cache", 5103, change=lambda c: c.update(
            proxy={"remoteurl": f"http://{L.local.host}"})))
        r = tool("copy", "--json", f"{cache.host}/src/image:1", f"{L.local.host}/through/cache:1")
        self.assertEqual(r.rc, 0, r)
        self.assertEqual(raw(f"{L.local.host}/through/cache:1"), raw(f"{L.local.host}/src/image:1"))
        lab.wait_for(lambda: os.path.isdir(f"{cache.storage}/docker/registry/v2/blobs"), 10, "the cache to keep it")
        r = tool("copy", f"{L.local.host}/src/image:1", f"{cache.host}/dst/image:1")  # it takes no pushes
        self.assertEqual(r.rc, 1)
        self.assertIn("UNSUPPORTED", r.err)
        self.assertEqual(len(r.err.strip().splitlines()), 1)

    # ---- behind nginx ----

    def nginx(self, name, listen, **options):
        return started(Nginx(L, name, listen, f"http://{L.local.host}", **options))

    def test_nginx_and_http2(self):
        cert, key = L.authority.certificate("h2", ["h2.example"])
        n = self.nginx("h2", "127.0.0.1:5110 ssl http2",
                       server=f"ssl_certificate {cert}; ssl_certificate_key {key};")
        self.check_there_and_back("h2.example:5110")
        self.assertEqual({p for *_, p in n.seen()} & {"HTTP/2.0"}, {"HTTP/2.0"}, n.seen()[:5])
        ours = [p for m, path, _, p in n.seen() if path.startswith("/v2/dst/image/blobs/uploads")]
        self.assertIn("HTTP/2.0", ours)

    def test_nginx_on_a_unix_socket(self):
        path = f"{L.tmp('unix')}/nginx.sock"
        self.nginx("unix", f"unix:{path}")
        self.check_there_and_back("nginx.example", "--unix-socket", f"nginx.example={path}", oracle=None)

    def test_nginx_that_buffers_everything(self):
        self.nginx("buffers", "127.0.0.1:5111",
                   request_buffering="on", location="proxy_buffering on; proxy_buffers 4 4k; proxy_buffer_size 4k;")
        self.check_there_and_back("127.0.0.1:5111")

    def test_nginx_with_a_limit_for_bodies(self):
        self.nginx("limit", "127.0.0.1:5112", server="client_max_body_size 1m;")
        r = tool("copy", f"{L.local.host}/src/image:1", "127.0.0.1:5112/limited/image:1")
        self.assertEqual(r.rc, 1, r)
        self.assertEqual(len(r.err.strip().splitlines()), 1)
        self.assertRegex(r.err, "413|too large")
        self.assertEqual(L.local.tags("limited/image"), [])

    def test_nginx_that_limits_requests(self):
        """10 requests per second: what is refused with 429 is tried again, and the copy ends well."""
        n = self.nginx("rate", "127.0.0.1:5113", http="limit_req_zone $binary_remote_addr zone=z:1m rate=10r/s;",
                       location="limit_req zone=z burst=2 nodelay; limit_req_status 429;")
        r = tool("copy", "--parallel", "8", "--debug", f"{L.local.host}/src/image:1", "127.0.0.1:5113/rate/image:1",
                 timeout=120)
        self.assertEqual(r.rc, 0, r)
        self.assertEqual(raw(f"{L.local.host}/rate/image:1"), raw(f"{L.local.host}/src/image:1"))
        self.assertIn(429, {s for _, _, s, _ in n.seen()})
        self.assertIn("next try in", r.err)

    def test_nginx_that_refuses_everything(self):
        n = self.nginx("refuse", "127.0.0.1:5114", location="return 503;")
        r = tool("inspect", "127.0.0.1:5114/src/image:1")
        self.assertEqual(r.rc, 1)
        self.assertIn("service unavailable (HTTP 503)", r.err)
        self.assertIn("try again later", r.err)
        lab.wait_for(lambda: len(n.seen()) >= 3, 10, "nginx to write its log")
        self.assertEqual(len(n.seen()), 3)  # tries

    def test_nginx_whose_registry_does_not_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            n = started(Nginx(L, "silent", "127.0.0.1:5115", f"http://127.0.0.1:{silent.getsockname()[1]}",
                              location="proxy_read_timeout 1s; proxy_connect_timeout 1s;"))
            r = tool("ping", "127.0.0.1:5115", timeout=60)
        self.assertEqual(r.rc, 1)
        self.assertIn("HTTP 504", r.err)
        lab.wait_for(lambda: len(n.seen()) >= 3, 10, "nginx to write its log")
        self.assertEqual(len(n.seen()), 3)

    def test_nginx_that_asks_for_a_password(self):
        folder = L.tmp("htpasswd")
        L.run("htpasswd", "-Bbc", f"{folder}/htpasswd", "alice", PASSWORD)
        self.nginx("basic", "127.0.0.1:5116",
                   server=f'auth_basic "registry"; auth_basic_user_file {folder}/htpasswd;')
        r = tool("tags", "127.0.0.1:5116/src/image")
        self.assertEqual(r.rc, 1)
        config = f"{folder}/config.json"
        r = tool("--docker-config", config, "login", "-u", "alice", "--password-stdin", "127.0.0.1:5116",
                 input=PASSWORD)
        self.assertEqual(r.rc, 0, r)
        self.assertEqual(tool("tags", "--docker-config", config, "127.0.0.1:5116/src/image").out, "1\n")


class Login(unittest.TestCase):
    HOST = "login.example:5120"
    HTTP = ("--plain-http", HOST)
    registry = None

    @classmethod
    def setUpClass(cls):
        path = f"{L.tmp('login')}/htpasswd"
        L.run("htpasswd", "-Bbc", path, "alice", PASSWORD)
        cls.registry = started(Variant(L, "login", 5120, cls.HOST, change=lambda c: c.update(
            auth={"htpasswd": {"realm": "r", "path": path}})))

    def setUp(self):
        self.folder = L.tmp("docker")
        self.config = f"{self.folder}/config.json"

    def login(self, *args, password=PASSWORD, **options):
        return tool("--docker-config", self.config, *self.HTTP, "login", "-u", "alice", "--password-stdin", self.HOST,
                    *args, input=password, **options)

    def read(self):
        with open(self.config, encoding="utf-8") as f:
            return json.load(f)

    def test_keeps_what_the_registry_takes(self):
        r = self.login("--json", password=PASSWORD + "\n")
        self.assertEqual(r.rc, 0, r)
        self.assertEqual(r.json(), {"host": self.HOST, "user": "alice", "auth": "basic", "stored": self.config})
        self.assertEqual(stat.S_IMODE(os.stat(self.config).st_mode), 0o600)
        auth = self.read()["auths"][self.HOST]["auth"]
        self.assertEqual(base64.b64decode(auth).decode(), f"alice:{PASSWORD}")
        self.assertEqual(os.listdir(self.folder), ["config.json"])  # nothing temporary
        source = f"{L.local.host}/src/image:1"
        r = tool("--docker-config", self.config, *self.HTTP, "copy", source, f"{self.HOST}/a/b:1")
        self.assertEqual(r.rc, 0, r)
        # skopeo and docker read the same file
        self.assertEqual(raw(f"{self.HOST}/a/b:1", "--authfile", self.config), raw(source))
        r = tool("--docker-config", self.config, "logout", "--json", self.HOST)
        self.assertEqual(r.json(), {"host": self.HOST, "removed": True, "store": self.config})
        self.assertEqual(self.read(), {"auths": {}})
        r = tool("--docker-config", self.config, "logout", self.HOST)
        self.assertEqual(r.rc, 0, r)
        self.assertIn("no credentials", r.out)

    def test_wrong_ones_are_not_kept(self):
        r = self.login(password="wrong secret")
        self.assertEqual(r.rc, 1)
        self.assertIn("nothing was kept", r.err)
        self.assertIn("refuses the credentials", r.err)
        self.assertNotIn("wrong secret", r.err)
        self.assertFalse(os.path.exists(self.config))
        r = tool("--docker-config", self.config, "login", "-u", "a", "--password-stdin", "127.0.0.1:1", input="x")
        self.assertEqual(r.rc, 1)
        self.assertFalse(os.path.exists(self.config))

    def test_the_rest_of_the_file_stays(self):
        before = {"HttpHeaders": {"X": "y"}, "auths": {"https://other.example/v2/": {"auth": "eDp5"}, "x": {}},
                  "psFormat": "table {{.ID}}", "plugins": {"a": {"b": ["c", 1, None]}}}
        real = f"{self.folder}/real.json"
        with open(real, "w", encoding="utf-8") as f:
            json.dump(before, f)
        os.chmod(real, 0o644)
        os.symlink("real.json", self.config)
        self.assertEqual(self.login().rc, 0)
        after = self.read()
        del after["auths"][self.HOST]
        self.assertEqual(after, before)
        self.assertEqual(list(after), list(before))
        self.assertTrue(os.path.islink(self.config))
        self.assertEqual(stat.S_IMODE(os.stat(real).st_mode), 0o600)

    def test_a_broken_file_is_left_alone(self):
        for text in ('{"auths": ', "[]", '{"auths": []}', '{"credsStore": 7}', '{"credsStore": "../../bin/sh"}'):
            with self.subTest(text):
                with open(self.config, "w", encoding="utf-8") as f:
                    f.write(text)
                r = self.login()
                self.assertEqual(r.rc, 1, r)
                self.assertIn(self.config, r.err)
                with open(self.config, encoding="utf-8") as f:
                    self.assertEqual(f.read(), text)

    def helper(self, name, fails=False):
        """A credential helper that keeps what it got in a file."""
        folder = f"{self.folder}/bin"
        os.makedirs(folder, mode=0o755, exist_ok=True)
        path = f"{folder}/docker-credential-{name}"
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"""#!/bin/sh
case $1 in
    store) {'echo no room; exit 1' if fails else f'cat >{self.folder}/kept'} ;;
    get) cat >/dev/null; cat {self.folder}/kept 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }} ;;
    erase) cat >{self.folder}/erased; rm -f {self.folder}/kept ;;
esac
""")
        os.chmod(path, 0o755)
        return {"PATH": f"{folder}:{os.environ['PATH']}"}

    def test_with_a_credential_helper(self):
        env = self.helper("lab")
        for key in ({"credsStore": "lab"}, {"credsStore": "other", "credHelpers": {self.HOST: "lab"}}):
            with self.subTest(str(key)):
                with open(self.config, "w", encoding="utf-8") as f:
                    json.dump(key, f)
                r = self.login("--json", env=env)
                self.assertEqual(r.rc, 0, r)
                self.assertEqual(r.json()["stored"], "docker-credential-lab")
                with open(f"{self.folder}/kept", encoding="utf-8") as f:
                    self.assertEqual(json.load(f), {"ServerURL": self.HOST, "Username": "alice", "Secret": PASSWORD})
                self.assertEqual(self.read()["auths"], {self.HOST: {}})
                self.assertNotIn("auth\"", json.dumps(self.read()))
                self.assertEqual(tool("--docker-config", self.config, *self.HTTP, "ping", self.HOST, env=env).rc, 0)
                r = tool("--docker-config", self.config, "logout", self.HOST, env=env)
                self.assertEqual(r.rc, 0, r)
                with open(f"{self.folder}/erased", encoding="utf-8") as f:
                    self.assertEqual(f.read().strip(), self.HOST)
                self.assertEqual(self.read()["auths"], {})
        env = self.helper("lab", fails=True)
        r = self.login(env=env)
        self.assertEqual(r.rc, 1)
        self.assertNotIn(PASSWORD, r.err)
        self.assertEqual(self.read()["auths"], {})

    def test_from_a_terminal(self):
        """Asks on the terminal; the password is not echoed, and ^C gives the echo back."""
        argv = [f"{L.install()}/tbnode-registry", "--docker-config", self.config, *self.HTTP, "login", self.HOST]
        for end, rc in ((f"{PASSWORD}\n".encode(), 0), (b"\x03", 1)):
            with self.subTest(rc):
                pid, fd = pty.fork()
                if pid == 0:
                    os.execv(argv[0], argv)
                seen = self.until(fd, b"Username")
                os.write(fd, b"alice\n")
                seen += self.until(fd, b"Password")
                os.write(fd, end)
                seen += self.until(fd, None)
                self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), rc, seen)
                os.close(fd)
                self.assertNotIn(b"sesame", seen)
                self.assertIn(b"logged in as alice" if rc == 0 else b"cancelled", seen)

    @staticmethod
    def until(fd, text):
        seen = b""
        while text is None or text not in seen:
            try:
                data = os.read(fd, 4096)
            except OSError:  # EIO: the other side is closed
                break
            if not data:
                break
            seen += data
        return seen

    def test_without_a_terminal(self):
        r = tool("login", self.HOST, env={}, timeout=30)
        self.assertEqual(r.rc, 2, r)
        self.assertIn("--password-stdin", r.err)
        self.assertEqual(tool("login", "--password-stdin", self.HOST, input="x").rc, 2)  # without --username
        self.assertEqual(tool("login", "-u", "a", "--password-stdin", "a/b", input="x").rc, 2)
        self.assertEqual(tool("login", "-u", "a", "--password-stdin", self.HOST, input="").rc, 1)

    def test_two_at_a_time_lose_nothing(self):
        threads = [threading.Thread(target=self.login) for _ in range(6)]
        with open(self.config, "w", encoding="utf-8") as f:
            f.write('{"auths": {"a.example": {}}}')
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(set(self.read()["auths"]), {"a.example", self.HOST})

    def test_docker_hub(self):
        L.hub.ensure()
        L.hub.add_user("bob", "builder")
        r = tool("--docker-config", self.config, "login", "-u", "bob", "--password-stdin", input="wrong")
        self.assertEqual(r.rc, 1, r)
        r = tool("--docker-config", self.config, "login", "-u", "bob", "--password-stdin", "--json", input="builder")
        self.assertEqual((r.rc, r.json()["auth"]), (0, "bearer"), r)
        self.assertEqual(list(self.read()["auths"]), ["https://index.docker.io/v1/"])
        IMAGE.push(L.hub, "private/thing:1")
        self.assertEqual(tool("inspect", "private/thing:1").rc, 1)
        self.assertEqual(tool("--docker-config", self.config, "inspect", "private/thing:1").rc, 0)
        self.assertEqual(tool("--docker-config", self.config, "logout").rc, 0)
        self.assertEqual(self.read()["auths"], {})


class Output(unittest.TestCase):
    def test_progress_is_for_terminals(self):
        for terminal in (True, False):
            target = f"{L.local.host}/progress/{str(terminal).lower()}:1"
            argv = [f"{L.install()}/tbnode-registry", "copy", f"oci:{self.layout()}:x", target]
            if not terminal:
                r = L.run(*argv)
                self.assertEqual(r.err, "")
                continue
            main, side = pty.openpty()
            p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=side, text=True)
            os.close(side)
            seen = Login.until(main, None).decode()
            out, _ = p.communicate(timeout=60)
            os.close(main)
            self.assertEqual(p.returncode, 0, seen)
            self.assertRegex(seen, r"\d+/4 blobs, [\d.]+ [kM]?B of [\d.]+ [kM]?B, [\d.]+ [kMG]?B/s")
            self.assertTrue(seen.endswith("\r\x1b[K"), repr(seen[-60:]))  # taken away at the end
            self.assertIn("4 blobs copied", out)

    def layout(self):
        path = f"{L.tmp('layout')}/oci"
        L.skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{L.local.host}/src/image:1", f"oci:{path}:x")
        return path

    def test_json_is_one_object_everywhere(self):
        ref, file = f"{L.local.host}/src/image:1", f"{L.tmp()}/blob"
        digest = IMAGE.layers[0]["digest"]
        calls = [("ping", L.local.host), ("inspect", ref), ("manifest", ref), ("config", ref), ("ls", L.local.host),
                 ("ls", f"{L.local.host}/src"), ("tags", f"{L.local.host}/src/image"), ("referrers", ref),
                 ("copy", ref, f"{L.local.host}/json/x:1"), ("blob", "-o", file, f"{L.local.host}/src/image@{digest}"),
                 ("delete", "--dry-run", f"{L.local.host}/json/x:1"), ("delete", f"{L.local.host}/json/x:1"),
                 ("logout", "--docker-config", f"{L.tmp()}/none", "nowhere.example")]
        for call in calls:
            with self.subTest(call[0]):
                r = tool("--json", *call)
                self.assertEqual((r.rc, r.err), (0, ""), r)
                self.assertIsInstance(r.json(), dict)
        with open(file, "rb") as f:
            self.assertEqual(sha(f.read()), digest)
        for call in (("manifest", f"{ref}-no"), ("blob", f"{L.local.host}/src/image@{digest}")):
            r = tool("--json", *call)
            self.assertNotEqual(r.rc, 0)
            self.assertEqual(r.out, "")

    def test_inspect_for_people_and_programs(self):
        ref = f"{L.local.host}/src/image:1"
        r = tool("inspect", ref)
        for text in (IMAGE.layers[0]["digest"], "Entrypoint", "/x", '"y z"', "1000", "who=me", "3 layers", "Referrers   0"):
            self.assertIn(text, r.out)
        c = tool("inspect", "--json", ref).json()
        self.assertEqual((c["image"]["configuration"]["User"], c["image"]["configuration"]["os"], c["referrers"]),
                         ("1000", "linux", 0))

    def test_referrers(self):
        """A signature-like manifest about the image; docker-registry 2.8 has no API, so it goes over the tag."""
        ref = f"{L.local.host}/src/image"
        digest = sha(raw(f"{ref}:1"))
        config = L.local.put_blob("src/image", b"{}")
        about = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                            "artifactType": "application/x.signature", "layers": [],
                            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
                            "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
                                        "size": len(raw(f"{ref}:1"))}}).encode()
        L.local.put_manifest("src/image", "signature", about)
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha(about), "size": len(about),
             "artifactType": "application/x.signature", "annotations": {"a": "b"}}]}
        L.local.put_manifest("src/image", digest.replace(":", "-"), index)
        try:
            j = tool("referrers", "--json", f"{ref}:1").json()
            self.assertEqual((j["digest"], j["source"]), (digest, "tag"))
            self.assertEqual([(x["digest"], x["artifactType"], x["annotations"]) for x in j["referrers"]],
                             [(sha(about), "application/x.signature", {"a": "b"})])
            self.assertIn("application/x.signature", tool("referrers", f"{ref}@{digest}").out)
            self.assertEqual(tool("referrers", "--artifact-type", "application/x.other", f"{ref}:1").out, "")
            self.assertEqual(tool("inspect", "--json", f"{ref}:1").json()["referrers"], 1)
            self.assertIn(digest, tool("inspect", f"{ref}:signature").out)
        finally:
            L.local.request("DELETE", f"/v2/src/image/manifests/{sha(about)}")
            status, headers, _ = L.local.request("GET", f"/v2/src/image/manifests/{digest.replace(':', '-')}", headers={
                "Accept": "application/vnd.oci.image.index.v1+json"})
            L.local.request("DELETE", f"/v2/src/image/manifests/{headers['Docker-Content-Digest']}")

    def test_delete_says_what_goes(self):
        ref = f"{L.local.host}/doomed/x"
        for tag in ("1", "2"):
            tool("copy", f"{L.local.host}/src/image:1", f"{ref}:{tag}")
        r = tool("delete", "--dry-run", "--json", f"{ref}:1")
        self.assertEqual((sorted(r.json()["tags"]), r.json()["digest"]), (["1", "2"], sha(raw(f"{ref}:1"))))
        r = tool("delete", "--tag-only", f"{ref}:1")  # docker-registry 2.8 cannot
        self.assertEqual(r.rc, 1, r)
        self.assertEqual(L.local.tags("doomed/x"), ["1", "2"])
        r = tool("delete", f"{ref}:1")
        self.assertEqual(r.rc, 0, r)
        self.assertIn(sha(raw(f"{L.local.host}/src/image:1")), r.out)
        self.assertEqual(L.local.tags("doomed/x"), [])

    def test_wrong_usage(self):
        cases = [(["tags", "--platform", "linux/amd64", "x"], "tags has no option --platform"),
                 (["copy", "--platform", "linux/amd64", "--all-platforms", "a", "b"], "exclude each other"),
                 (["inspect", "--platform", "linux/amd64", "--platform", "linux/arm64", "a"], "takes one --platform"),
                 (["delete", "--tag-only", f"a@sha256:{'0' * 64}"], "--tag-only needs a tag"),
                 (["blob", "--json", f"a@sha256:{'0' * 64}"], "--output"),
                 (["ping", "--tls-ca", "host", "x"], "HOST=FILE"),
                 (["ping"], "usage: tbnode-registry ping HOST")]
        for args, text in cases:
            with self.subTest(" ".join(args)):
                r = tool(*args)
                self.assertEqual((r.rc, r.out), (2, ""), r)
                self.assertIn(text, r.err)

    def test_docker_transport_prefix(self):
        self.assertEqual(tool("tags", f"docker://{L.local.host}/src/image").rc, 0)


if __name__ == "__main__":
    lab.main()
