# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's mirrors and its archive, on the engine's bridge: an HTTP proxy that answers for all of them out of the packages
that labkit/packages.py fetched from a real one. What it serves where is for the test to say."""

import gzip
import hashlib
import http.server
import os
import subprocess
import tarfile
import threading
import urllib.parse

ARCHITECTURE = "amd64"


class AptMirror:
    def __init__(self, lab, path, address):
        """path: the layer "mirror"; address: where containers reach it."""
        self.dir = lab.tmp("mirror")
        with tarfile.open(path) as tar:
            tar.extractall(self.dir)  # a layer of our own; Debian 12's Python knows no filter
        with open(f"{self.dir}/mirror/Packages", "rb") as f:
            self.packages = f.read()
        self.files = {}         # host and path: content
        self.pools = set()      # archives whose pool is served: "deb.debian.org/debian"
        self.asked = []         # (host and path, status)
        self.gpg_home = f"{self.dir}/gpg"
        os.makedirs(self.gpg_home, mode=0o700)
        self._gpg("--quick-generate-key", "--passphrase", "", "lab <lab@example.org>", "ed25519", "sign", "never")
        self.key = self._gpg("--export")
        handler = type("Handler", (_Handler,), {"mirror": self})
        self.server = http.server.ThreadingHTTPServer((address, 0), handler)
        self.url = f"http://{address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _gpg(self, *argv, data=None):
        return subprocess.run(["gpg", "--batch", "--quiet", "--homedir", self.gpg_home, *argv], input=data, check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout

    def publish(self, archive, suite, packages=True, signed=True):
        """archive: "deb.debian.org/debian". packages: has them; else it is empty, as security often is at first."""
        text = self.packages if packages else b""
        packed = gzip.compress(text, 1, mtime=0)
        base = f"{archive}/dists/{suite}"
        index = f"main/binary-{ARCHITECTURE}/Packages"
        self.files[f"{base}/{index}"], self.files[f"{base}/{index}.gz"] = text, packed
        sums = "".join(f" {hashlib.sha256(d).hexdigest()} {len(d)} {n}\n" for n, d in ((index, text), (f"{index}.gz", packed)))
        # Long out of date: as in an archive, where nobody signs it again.
        release = (f"Origin: Debian\nSuite: {suite}\nCodename: {suite.partition('-')[0]}\nArchitectures: {ARCHITECTURE}\n"
                   "Components: main\nDate: Sat, 01 Jan 2022 00:00:00 UTC\n"
                   f"{'Valid-Until: Sat, 08 Jan 2022 00:00:00 UTC' if archive.startswith('archive.') else 'Label: Debian'}\n"
                   f"SHA256:\n{sums}").encode()
        self.files[f"{base}/Release"] = release
        if signed:
            self.files[f"{base}/InRelease"] = self._gpg("--clearsign", data=release)
        if packages:
            self.pools.add(archive)

    def clear(self):
        self.files, self.pools, self.asked = {}, set(), []

    def hosts(self):
        """The hosts that had something to give, in order."""
        return list(dict.fromkeys(where.partition("/")[0] for where, status in self.asked if status == 200))

    def get(self, where):
        if where in self.files:
            return self.files[where]
        archive, _, file = where.partition("/pool/")
        path = f"{self.dir}/mirror/pool/{os.path.basename(file)}"
        if archive in self.pools and file and os.path.exists(path):
            with open(path, "rb") as f:
                return f.read()
        return None

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror = None

    def do_GET(self):
        url = urllib.parse.urlsplit(urllib.parse.unquote(self.path))
        where = f"{url.netloc}{url.path}"
        data = self.mirror.get(where)
        status = 404 if data is None else 200
        self.mirror.asked.append((where, status))
        self.send_response(status)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_args):
        pass
