# SPDX-License-Identifier: LGPL-2.1-or-later
"""Registries: Debian's docker-registry, plain (local) or as Docker Hub (hub: TLS and tokens)."""

import hashlib
import http.client
import http.server
import json
import os
import re
import socket
import ssl
import threading
import urllib.parse

from . import pki
from .process import LabError, Service

MANIFEST_TYPES = ", ".join([
    "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json"])


class Registry(Service):
    """Plain http on 127.0.0.1:5000. `host` is what stands before the repository in an image name."""

    address, port = "127.0.0.1", 5000
    host = "127.0.0.1:5000"

    def __init__(self, lab, name):
        super().__init__(name, f"{lab.dir}/logs/registry-{name}.log")
        self.lab = lab
        self.storage = f"{lab.dir}/registry-{name}"

    def _config(self):
        return {"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": False}},
                "storage": {"filesystem": {"rootdirectory": self.storage}, "delete": {"enabled": True},
                            "maintenance": {"uploadpurging": {"enabled": False}}},
                "http": {"addr": f"{self.address}:{self.port}", "secret": "laboratory"}}

    def start(self):
        path = f"{self.lab.dir}/registry-{self.name}.json"
        with open(path, "w", encoding="utf-8") as f:
            json.dump(self._config(), f)  # JSON is YAML
        self.spawn(["/usr/bin/docker-registry", "serve", path], probe=self._accepts)
        return self

    def ensure(self):
        if not self.running:
            self.start()
        return self

    def _accepts(self):
        try:
            socket.create_connection((self.address, self.port), 1).close()
            return True
        except OSError:
            return False

    def prepare_shutdown(self):
        pass

    # ---- what it holds ----

    def _connect(self):
        return http.client.HTTPConnection(self.address, self.port, timeout=30)

    def _authorize(self, _path):
        return {}

    def request(self, method, path, body=None, headers=None):
        """(status, headers, bytes) of one request; the hub's operator is signed in."""
        c = self._connect()
        try:
            c.request(method, path, body, {**self._authorize(path), **(headers or {})})
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def tags(self, repository):
        """Its tags; [] when there is no such repository."""
        status, _, body = self.request("GET", f"/v2/{repository}/tags/list")
        if status == 404:
            return []
        return sorted(json.loads(body).get("tags") or [])

    def repositories(self):
        return sorted(json.loads(self.request("GET", "/v2/_catalog?n=1000")[2]).get("repositories") or [])

    def all_tags(self):
        """{"repository:tag"} of all; what a failed job must not have changed."""
        return {f"{r}:{t}" for r in self.repositories() for t in self.tags(r)}

    def manifest(self, repository, reference):
        """(parsed manifest, its digest)."""
        status, headers, body = self.request("GET", f"/v2/{repository}/manifests/{reference}",
                                             headers={"Accept": MANIFEST_TYPES})
        if status != 200:
            raise LabError(f"{self.host}/{repository}:{reference}: HTTP {status} {body[:300]!r}")
        return json.loads(body), headers["Docker-Content-Digest"]

    def blob(self, repository, digest):
        status, _, body = self.request("GET", f"/v2/{repository}/blobs/{digest}")
        if status != 200:
            raise LabError(f"{self.host}/{repository}@{digest}: HTTP {status}")
        return body

    def uploads(self):
        """What lies in its open upload sessions. (Not the hash state that docker-registry 2.8 itself writes again right after
        it has served a DELETE.)"""
        found = []
        for folder, _, files in os.walk(self.storage):
            if "/_uploads/" in folder + "/" and "/hashstates/" not in folder:
                found += [os.path.join(folder, f) for f in files]
        return found

    def image_config(self, repository, reference):
        """The image config of a one-platform image."""
        return json.loads(self.blob(repository, self.manifest(repository, reference)[0]["config"]["digest"]))

    def put_blob(self, repository, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        status, headers, body = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        if status != 202:
            raise LabError(f"upload to {repository}: HTTP {status} {body[:300]!r}")
        where = urllib.parse.urlsplit(headers["Location"])
        path = f"{where.path}?{where.query}{'&' if where.query else ''}digest={urllib.parse.quote(digest)}"
        status, _, body = self.request("PUT", path, data, {"Content-Type": "application/octet-stream"})
        if status != 201:
            raise LabError(f"upload to {repository}: HTTP {status} {body[:300]!r}")
        return digest

    def put_manifest(self, repository, reference, manifest, media_type=None):
        """Stores bytes or a dict as given; returns the digest."""
        data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        media_type = media_type or json.loads(data)["mediaType"]
        status, headers, body = self.request("PUT", f"/v2/{repository}/manifests/{reference}", data,
                                             {"Content-Type": media_type})
        if status != 201:
            raise LabError(f"manifest {repository}:{reference}: HTTP {status} {body[:300]!r}")
        return headers["Docker-Content-Digest"]

    def corrupt(self, digest):
        """Changes one byte of a stored blob or manifest: the registry then answers with wrong content."""
        hexa = digest.split(":")[1]
        path = f"{self.storage}/docker/registry/v2/blobs/sha256/{hexa[:2]}/{hexa}/data"
        with open(path, "r+b") as f:
            data = f.read()
            f.seek(len(data) // 2)
            f.write(bytes([data[len(data) // 2] ^ 1]))

    def accesses(self):
        """[(method, path, status)] of every answered request so far."""
        return [(m[0], m[1], int(m[2]))
                for m in re.findall(r'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d{3}) ', self.log())]


class Hub(Registry):
    """Docker Hub's role: the real names resolve here and the certificate is trusted inside the sandbox.
    Everybody may pull except from private/* (needs a user of `users`); pushing needs the operator."""

    address, port = "127.0.0.2", 443
    host = "docker.io"
    operator = ("operator", "operator")
    names = ("registry-1.docker.io", "index.docker.io", "docker.io")
    auth_name, auth_address = "auth.docker.io", "127.0.0.3"
    service, issuer = "registry.docker.io", "tbnode laboratory"

    def __init__(self, lab, name):
        super().__init__(lab, name)
        self.users = {}
        self.token_requests = []
        self._token_server = None

    def add_user(self, user, password):
        """A user who may pull from private/*."""
        self.users[user] = password

    def _config(self):
        cert, key = self._certificate()
        config = super()._config()
        config["http"]["tls"] = {"certificate": cert, "key": key}
        config["http"]["host"] = f"https://{self.names[0]}"
        # What the Hub tells with every manifest; the numbers stand still.
        config["http"]["headers"] = {"RateLimit-Limit": ["100;w=21600"], "RateLimit-Remaining": ["76;w=21600"]}
        config["auth"] = {"token": {"realm": f"https://{self.auth_name}/token", "service": self.service,
                                    "issuer": self.issuer, "rootcertbundle": self.lab.authority.ca}}
        return config

    def _certificate(self):
        return self.lab.authority.certificate("hub", [*self.names, self.auth_name, self.address, self.auth_address])

    def start(self):
        self._publish_names()
        self._start_token_server()
        return super().start()

    def _publish_names(self):
        with open("/etc/hosts", encoding="utf-8") as f:
            text = f.read()
        if self.auth_name not in text:
            with open("/etc/hosts", "a", encoding="utf-8") as f:
                f.write(f"\n{self.address} {' '.join(self.names)}\n{self.auth_address} {self.auth_name}\n")

    def _connect(self):
        context = ssl.create_default_context(cafile=self.lab.authority.ca)
        return http.client.HTTPSConnection(self.names[0], self.port, timeout=30, context=context)

    def _authorize(self, path):
        repository = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", path)
        access = ([{"type": "repository", "name": repository.group(1), "actions": ["pull", "push", "delete"]}]
                  if repository else [{"type": "registry", "name": "catalog", "actions": ["*"]}])
        return {"Authorization": f"Bearer {self._token('operator', access)}"}

    def _token(self, subject, access):
        return pki.token(*self._certificate(), self.issuer, self.service, subject, access)

    # ---- token server ----

    def allowed(self, user, repository, actions):
        """The part of the wanted actions that this user (None: anonymous) gets."""
        if user == self.operator[0]:
            return actions
        private = repository.startswith("private/")
        return [a for a in actions if a == "pull" and (not private or user is not None)]

    def _start_token_server(self):
        if self._token_server:
            return
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                user, known = self._user()
                hub.token_requests.append((user, query.get("scope", [])))
                if not known:
                    return self._answer(401, {"details": "incorrect username or password"})
                access = []
                for scope in " ".join(query.get("scope", [])).split():
                    kind, repository, actions = (scope.split(":") + ["", ""])[:3]
                    granted = hub.allowed(user, repository, actions.split(","))
                    if granted:
                        access.append({"type": kind, "name": repository, "actions": granted})
                token = hub._token(user or "", access)
                return self._answer(200, {"token": token, "access_token": token, "expires_in": 300})

            def _user(self):
                import base64
                header = self.headers.get("Authorization", "")
                if not header.startswith("Basic "):
                    return None, True
                user, _, password = base64.b64decode(header[6:]).decode(errors="replace").partition(":")
                return user, {**hub.users, hub.operator[0]: hub.operator[1]}.get(user) == password

            def _answer(self, status, value):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        cert, key = self._certificate()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request, client_address):
                # The handshake belongs to the connection's thread: a client that stalls must not stop the others.
                request.settimeout(30)
                with context.wrap_socket(request, server_side=True) as tls:
                    super().finish_request(tls, client_address)

            def handle_error(self, _request, _client_address):
                pass  # clients that hang up are part of the tests

        self._token_server = Server((self.auth_address, 443), Handler)
        threading.Thread(target=self._token_server.serve_forever, daemon=True).start()
