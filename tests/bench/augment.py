#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""scripts/bench augment: native augmentation against docker build + push of the same Dockerfile.

Base and payload lie in the registry already. Each run takes a base of its own (the same layers, another label), so
nothing is a cache hit, and does the same augmentation four ways in turn, in an order that rotates:

    ours         request to digest as the agent does it: lookup, worker process, native build, push
    docker_warm  docker build + docker push of the same Dockerfile, the base is in the engine
    docker_cold  the same, the base is only in the registry
    http_floor   the bare requests of an augmentation on one connection: GET manifest and configuration, mount the
                 layers, PUT configuration, PUT manifest

cache_hit_ms: the second request for the same image. The results of ours and docker are compared.
"""

import argparse
import hashlib
import json
import os
import socket
import statistics
import time
import unittest

import benchlib
import lab
from augment_driver import Driver, essence

REGISTRY = "127.0.0.1:5000"
DOCKER_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Connection:
    """HTTP/1.1 on one socket with as little between as possible: the floor must not be a slow client's."""

    def __init__(self):
        self.sock = socket.create_connection(("127.0.0.1", 5000))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def request(self, method, target, body=b"", headers=""):
        head = f"{method} {target} HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.sock.sendall(head.encode() + body)
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        fields = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        length = int(fields.get("content-length", "0"))
        while len(self.buffer) < length:
            self._more()
        answer, self.buffer = self.buffer[:length], self.buffer[length:]
        return int(lines[0].split()[1]), fields, answer

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise AssertionError("the registry closed the connection")
        self.buffer += data


class Bench(unittest.TestCase):
    def setUp(self):
        self.args = benchlib.arguments()
        self.lab = lab.Lab.get()
        self.lab.local.ensure()
        self.lab.dockerd.ensure()
        self.driver = Driver(self.lab)
        self.addCleanup(self.driver.close)

    def push_bases(self, count):
        """REGISTRY/bench/base:0 ... with equal layers and different configurations."""
        image = lab.images.debian(self.lab) if self.args.base == "debian" else lab.images.busybox(self.lab)
        image.push(self.lab.local, "bench/base:origin")
        manifest, _ = self.lab.local.manifest("bench/base", "origin")
        config = json.loads(self.lab.local.blob("bench/base", manifest["config"]["digest"]))
        config["config"].update({"User": "www-data", "StopSignal": "SIGQUIT", "Cmd": ["/bin/true"]})
        for i in range(count):
            config["config"]["Labels"] = {"bench.run": str(i)}
            data = json.dumps(config).encode()
            manifest["config"].update(digest=self.lab.local.put_blob("bench/base", data), size=len(data))
            self.lab.local.put_manifest("bench/base", str(i), manifest)
        self.layers = [layer["digest"] for layer in manifest["layers"]]
        self.layer_bytes = sum(layer["size"] for layer in manifest["layers"])

    def forget_images(self):
        """The engine holds no image any more."""
        # An image goes only after those made from it, in whatever order they are named.
        for _ in range(8):
            ids = self.lab.docker("images", "-aq").out.split()
            if not ids:
                return
            self.lab.docker("rmi", "-f", *sorted(set(ids)), check=False)
        self.assertEqual(self.lab.docker("images", "-aq").out.split(), [])

    # Each side prepares what the measurement must not count, then returns the milliseconds.

    def ours(self, i):
        start = time.perf_counter()
        r = self.driver("augment", f"{REGISTRY}/bench/base:{i}")
        ms = (time.perf_counter() - start) * 1000
        self.assertNotIn("error", r)
        self.assertEqual(r["result"]["cache"], "miss")
        self.digest[i] = r["result"]["digest"]
        return ms

    def docker(self, i, side):
        base = f"{REGISTRY}/bench/base@{self.lab.local.manifest('bench/base', str(i))[1]}"
        directory = self.lab.tmp("context")
        self.assertNotIn("error", self.driver("context", f"{REGISTRY}/bench/base:{i}", directory=directory))
        self.forget_images()
        if side == "warm":
            self.lab.docker("pull", "-q", base)
        name = f"{REGISTRY}/bench/docker-{side}:{i}"
        start = time.perf_counter()
        self.lab.docker("build", "-q", "--build-arg", f"BASE={base}", "-t", name, directory,
                        env={"DOCKER_BUILDKIT": "0"})
        self.lab.docker("push", "-q", name)
        return (time.perf_counter() - start) * 1000

    def docker_warm(self, i):
        return self.docker(i, "warm")

    def docker_cold(self, i):
        return self.docker(i, "cold")

    def http_floor(self, i):
        c = Connection()
        repo = "bench/floor"
        start = time.perf_counter()
        status, _, body = c.request("GET", f"/v2/bench/base/manifests/{i}", headers=f"Accept: {DOCKER_TYPE}\r\n")
        self.assertEqual(status, 200)
        manifest = json.loads(body)
        status, _, body = c.request("GET", f"/v2/bench/base/blobs/{manifest['config']['digest']}")
        self.assertEqual(status, 200)
        for digest, source in [*((d, "bench/base") for d in self.layers), (self.payload["digest"], "tbnode/payload")]:
            status, _, _ = c.request("POST", f"/v2/{repo}/blobs/uploads/?mount={digest}&from={source}")
            self.assertEqual(status, 201)
        # The bytes to send were prepared before; here only the exchanges count.
        config, digest, manifest = self.floor[i]
        status, fields, _ = c.request("POST", f"/v2/{repo}/blobs/uploads/")
        self.assertEqual(status, 202)
        target = fields["location"].split("5000", 1)[1]
        status, _, _ = c.request("PUT", f"{target}&digest={digest}", config, "Content-Type: application/octet-stream\r\n")
        self.assertEqual(status, 201)
        status, _, _ = c.request("PUT", f"/v2/{repo}/manifests/{i}", manifest, f"Content-Type: {DOCKER_TYPE}\r\n")
        self.assertEqual(status, 201)
        ms = (time.perf_counter() - start) * 1000
        c.sock.close()
        return ms

    def prepare_floor(self, count):
        """What run i uploads: a configuration and a manifest with the payload appended, of ours' size."""
        self.payload = self.lab.local.manifest("tbnode/payload", self.lab.local.tags("tbnode/payload")[0])[0]["layers"][0]
        self.floor = []
        for i in range(count):
            manifest, _ = self.lab.local.manifest("bench/base", str(i))
            config = json.loads(self.lab.local.blob("bench/base", manifest["config"]["digest"]))
            config["config"]["Labels"].update({f"floor.{k}": "x" * 90 for k in range(8)})
            data = json.dumps(config).encode()
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            manifest["config"].update(digest=digest, size=len(data))
            manifest["layers"].append({"mediaType": manifest["layers"][0]["mediaType"], "size": self.payload["size"],
                                       "digest": self.payload["digest"]})
            self.floor.append((data, digest, json.dumps(manifest).encode()))

    def check(self, i):
        """All sides made the same image."""
        def config_of(repo, reference):
            m, _ = self.lab.local.manifest(repo, reference)
            return essence(json.loads(self.lab.local.blob(repo, m["config"]["digest"])))
        wanted = config_of("augmented/127.0.0.1_5000/bench/base", self.digest[i])
        for side in ("warm", "cold"):
            self.assertEqual(config_of(f"bench/docker-{side}", str(i)), wanted)

    def test_bench(self):
        runs = self.args.runs
        self.digest = {}
        self.push_bases(runs + 1)
        sides = [self.ours, self.docker_warm, self.docker_cold, self.http_floor]
        # The last base warms everything up: the payload gets into the registry, caches fill.
        self.ours(runs)
        self.prepare_floor(runs + 1)
        for side in sides[1:]:
            side(runs)
        times = {side.__name__: [0.0] * runs for side in sides}
        for i in range(runs):
            for k in range(len(sides)):
                side = sides[(i + k) % len(sides)]
                times[side.__name__][i] = side(i)
            self.check(i)
        hits = []
        for _ in range(max(runs, 20)):
            start = time.perf_counter()
            r = self.driver("augment", f"{REGISTRY}/bench/base:0")
            hits.append((time.perf_counter() - start) * 1000)
            self.assertTrue(r["hit"])
        version = self.lab.docker("version", "-f", "{{.Server.Version}}").out.strip()
        benchlib.answer("augment", {"runs": runs, "base": self.args.base}, "ms", times.pop("ours"), times,
                        engine=f"docker {version}", cache_hit_ms=round(statistics.median(hits), 3),
                        base_layers=len(self.layers), base_bytes=self.layer_bytes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench augment", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="runs of each side (default 20)")
    parser.add_argument("--base", choices=["debian", "busybox"], default="debian",
                        help="the base image: a minimal Debian (made by debootstrap once) or busybox (default debian)")
    # The Debian root is made before the laboratory's doors close, and only when it is wanted.
    wanted = json.loads(os.environ.get(benchlib.ARGS, "{}")).get("base")
    benchlib.run_in_lab(parser, lab.main, debian=wanted == "debian")
