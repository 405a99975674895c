#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""scripts/bench augment: native augmentation against docker build + push of the same Dockerfile.

Base and payload lie in the registry already. Each run takes a base of its own (the same layers, another label), so
nothing is a cache hit, and does the same augmentation four ways in turn, in an order that rotates:

    ours         request to digest through the agent's socket: lookup, worker process, native build, push
    docker_warm  docker build + docker push of the same Dockerfile, the base is in the engine
    docker_cold  the same, the base is only in the registry
    http_floor   the bare requests of an augmentation on one connection: GET manifest and configuration, mount the
                 layers, PUT configuration, PUT manifest

cache_hit_ms: a request for an image that was asked for before, from the first byte on the agent's socket to the digest in the
answer: both sides of the socket, the registry's answers and this client are in it, the start of the command line is not. head_ms: two
bare HEADs, one after the other on one connection, which are what it asks the registry (at the same time). The results of ours
and docker are compared.

first: the first request of a new base (mirror, facts, build; in another registry on this machine) beside skopeo copy of the
same image alone. The images are the base with another time in its gzip header, so each one is new to the registry. cpu_ms: what each
took of all cores together, with both registries and whatever else ran; divided by the cores it is what no order of the work can
get below. uplink: the same with the source behind a path of 10 ms round trip and 1 Gbit/s (tests/bench/relay.c, which takes processor time of
both). rss_kb: the worker's peak memory, of a request that isn't timed: who watches it takes time of the processor himself.

sixty: 60 clients ask for 60 different images at once. The slowest resource is this machine's CPU: cpu_ms is the time that it was
busy meanwhile, divided by the cores (from /proc/stat: with what the kernel does for no process, such as the packets of loopback, and
with what other programs took, which nobody here could have used); ratio is the total time divided by that. own_ms: what of it is told
of registry, agent, workers and clients; when much is missing, something else ran, and the times are not this machine's best. disk_ms: idle
with something waiting for the disk. floor_ms: the bare requests of the 60 images, eight at a time.
"""

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import threading
import time
import unittest

import benchlib
import lab
from augment_driver import Driver, essence
from labkit.registry import Registry

REGISTRY = "127.0.0.1:5000"
CLIENTS = 60
UPLINK, UPLINK_DELAY_MS, UPLINK_RATE = "127.0.0.1:5006", 5, 1_000_000_000
PARTS = ("docker", "hit", "first", "sixty")
DOCKER_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


def parts_of(text):
    """argparse: some of PARTS, or none of them."""
    wrong = set(filter(None, text.split(","))) - set(PARTS)
    if wrong:
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    return text


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


class Source(Registry):
    port = 5001
    host = "127.0.0.1:5001"


def ask(image):
    """(milliseconds, result) of a request to the agent, as the command line sends it."""
    body = json.dumps({"image": image, "level": "basic"}).encode()
    start = time.perf_counter()
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("/run/tbnode/tbnoded.sock")
        s.sendall(b"POST /v1/augment HTTP/1.1\r\nHost: tbnoded\r\nContent-Type: application/json\r\nConnection: close\r\n"
                  b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        data, ms = b"", 0
        while piece := s.recv(65536):
            data += piece
            if not ms and b'"event":"result"' in data:
                ms = (time.perf_counter() - start) * 1000
    for line in data.splitlines():
        if b'"event":"result"' in line:
            return ms, json.loads(line)["result"]
    raise AssertionError(data.decode())


def machine_ms():
    """(busy, waiting for the disk), all cores together; proc(5)."""
    with open("/proc/stat", encoding="utf-8") as f:
        user, nice, system, _, iowait, irq, softirq, steal = map(int, f.readline().split()[1:9])
    tick = 1000 / os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq + steal) * tick, iowait * tick


def cpu_seconds(pid):
    """Of a process and the children that it has waited for."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:15])) / os.sysconf("SC_CLK_TCK")


class Peak:
    """The largest peak of the workers that run meanwhile."""

    def __enter__(self):
        self.kb, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _watch(self):
        while not self.over.wait(0.02):
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
                        text = f.read()
                    if text.startswith("Name:\ttbnode-augment-"):
                        self.kb = max(self.kb, int(text.split("VmHWM:")[1].split()[0]))
                except (OSError, IndexError):
                    pass


class Bench(unittest.TestCase):
    def setUp(self):
        self.args = benchlib.arguments()
        self.lab = lab.Lab.get()
        self.lab.local.ensure()
        self.lab.dockerd.ensure()
        self.lab.tbnoded.start()
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
        ms, r = ask(f"{REGISTRY}/bench/base:{i}")
        self.assertEqual(r["cache"], "miss")
        self.digest[i] = r["digest"]
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

    def http_floor(self, i, repo="bench/floor", base="bench/base"):
        c = Connection()
        start = time.perf_counter()
        status, _, body = c.request("GET", f"/v2/{base}/manifests/{i}", headers=f"Accept: {DOCKER_TYPE}\r\n")
        self.assertEqual(status, 200)
        manifest = json.loads(body)
        status, _, body = c.request("GET", f"/v2/{base}/blobs/{manifest['config']['digest']}")
        self.assertEqual(status, 200)
        for digest, source in [*((d, base) for d in self.layers), (self.payload["digest"], "tbnode/payload")]:
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

    def heads(self, c, image):
        """Two bare HEADs: the base, the moving tag."""
        repo, tag = image["image"].removeprefix(f"{REGISTRY}/").rsplit(":", 1)
        start = time.perf_counter()
        for target in ("bench/base/manifests/0", f"{repo}/manifests/{tag}"):
            c.sock.sendall(f"HEAD /v2/{target} HTTP/1.1\r\nHost: {REGISTRY}\r\nAccept: {DOCKER_TYPE}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += c.sock.recv(65536)
            self.assertIn(b" 200 ", head[:20])
        return (time.perf_counter() - start) * 1000

    def cache_hit(self):
        for _ in range(2):  # the first one is found out, the second one remembered
            ask(f"{REGISTRY}/bench/base:0")
        c, hits, bare = Connection(), [], []
        for _ in range(max(self.args.runs, 20)):
            ms, r = ask(f"{REGISTRY}/bench/base:0")
            self.assertEqual(r["cache"], "hit")
            hits.append(ms)
            bare.append(self.heads(c, r))
        c.sock.close()
        return hits, bare

    def first(self):
        """The first request of a base beside a plain copy of it."""
        source = self.lab._add(Source(self.lab, "source"))
        source.start()
        self.addCleanup(source.stop)
        manifest, _ = self.lab.local.manifest("bench/base", "origin")
        config = self.lab.local.blob("bench/base", manifest["config"]["digest"])
        layers = [self.lab.local.blob("bench/base", layer["digest"]) for layer in manifest["layers"]]
        manifest["config"]["digest"] = source.put_blob("first", config)

        def push(i):
            for layer, data in zip(manifest["layers"], layers, strict=True):
                # RFC 1952: the time is bytes 4 to 7 of the header.
                changed = data[:4] + (i + 1).to_bytes(4, "little") + data[8:]
                layer["digest"] = source.put_blob("first", changed)
            source.put_manifest("first", str(i), manifest)

        def ours(host, i):
            ms, r = ask(f"{host}/first:{i}")
            self.assertEqual(r["cache"], "miss")
            self.assertTrue(r["facts"]["files"])
            return ms

        def skopeo(host, i):
            shutil.rmtree("/var/lib/containers/cache", ignore_errors=True)
            start = time.perf_counter()
            self.lab.skopeo("copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false",
                            f"docker://{host}/first:{i}", f"docker://{REGISTRY}/skopeo:{i}")
            return (time.perf_counter() - start) * 1000

        numbers = itertools.count()

        def rounds(host, runs):
            times, cpu = {ours: [], skopeo: []}, {ours: [], skopeo: []}
            for run in range(runs + 1):
                for side in (ours, skopeo) if run % 2 else (skopeo, ours):
                    i = next(numbers)
                    push(i)
                    busy = machine_ms()[0]
                    ms = side(host, i)
                    if run > 0:  # the first one warms up
                        times[side].append(ms)
                        cpu[side].append(machine_ms()[0] - busy)
            return {"ours": benchlib.summary(times[ours]), "skopeo": benchlib.summary(times[skopeo]),
                    "ratio": benchlib.ratio(times[skopeo], times[ours]), "runs": runs,
                    "cpu_ms": {side.__name__: round(statistics.median(cpu[side])) for side in cpu}}

        result = rounds(source.host, self.args.first_runs)
        relay = subprocess.Popen([f"{self.lab.build}/tests/bench/relay", UPLINK.split(":")[1], str(source.port),
                                  str(UPLINK_DELAY_MS), str(UPLINK_RATE)])
        try:
            uplink = rounds(UPLINK, self.args.first_runs)
        finally:
            relay.terminate()
            relay.wait()
        with Peak() as peak:
            i = next(numbers)
            push(i)
            ours(source.host, i)
        return {**result, "rss_kb": peak.kb, "bytes": sum(map(len, layers)),
                "uplink": {"rtt_ms": 2 * UPLINK_DELAY_MS, "bit_per_s": UPLINK_RATE, **uplink}}

    def sixty(self):
        numbers = range(self.args.runs + 1, self.args.runs + 1 + CLIENTS)
        for i in numbers:  # each a repository of its own
            manifest, _ = self.lab.local.manifest("bench/base", str(i))
            for blob in [manifest["config"], *manifest["layers"]]:
                self.lab.local.request("POST", f"/v2/bench/many-{i}/blobs/uploads/?mount={blob['digest']}&from=bench/base")
            self.lab.local.put_manifest(f"bench/many-{i}", str(i), manifest)
        pids = (self.lab.local.pid, self.lab.tbnoded.pid)

        def used():
            mine = resource.getrusage(resource.RUSAGE_SELF)
            return sum(map(cpu_seconds, pids)) + mine.ru_utime + mine.ru_stime

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            before, (busy, disk), start = used(), machine_ms(), time.perf_counter()
            results = list(pool.map(lambda i: ask(f"{REGISTRY}/bench/many-{i}:{i}")[1], numbers))
            total = (time.perf_counter() - start) * 1000
            cores = os.cpu_count()
            cpu, disk = ((now - then) / cores for now, then in zip(machine_ms(), (busy, disk), strict=True))
            own = (used() - before) * 1000 / cores
        self.assertEqual({r["cache"] for r in results}, {"miss"})
        self.assertEqual(len({r["digest"] for r in results}), CLIENTS)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            start = time.perf_counter()
            list(pool.map(lambda i: self.http_floor(i, f"bench/floor-{i}", f"bench/many-{i}"), numbers))
            floor = (time.perf_counter() - start) * 1000
        return {"clients": CLIENTS, "ms": round(total, 1), "resource": f"CPU, {cores} cores",
                "cpu_ms": round(cpu, 1), "own_ms": round(own, 1), "disk_ms": round(disk, 1), "ratio": round(total / cpu, 3), "floor_ms": round(floor, 1)}

    def test_bench(self):
        runs = self.args.runs
        self.digest = {}
        self.push_bases(runs + 1 + CLIENTS)
        parts = self.args.parts.split(",")
        sides = [self.ours, self.http_floor]
        if "docker" in parts:
            sides += [self.docker_warm, self.docker_cold]
        # The last base warms everything up: the payload gets into the registry, caches fill.
        self.ours(runs)
        self.prepare_floor(runs + 1 + CLIENTS)
        for side in sides[1:]:
            side(runs)
        times = {side.__name__: [0.0] * runs for side in sides}
        for i in range(runs):
            for k in range(len(sides)):
                side = sides[(i + k) % len(sides)]
                times[side.__name__][i] = side(i)
            if "docker" in parts:
                self.check(i)
        extra = {}
        if "hit" in parts:
            hits, bare = self.cache_hit()
            extra.update(cache_hit_ms=round(statistics.median(hits), 3), head_ms=round(statistics.median(bare), 3))
        if "first" in parts:
            extra.update(first=self.first())
        if "sixty" in parts:
            extra.update(sixty=self.sixty())
        version = self.lab.docker("version", "-f", "{{.Server.Version}}").out.strip()
        benchlib.answer("augment", {"runs": runs, "base": self.args.base, "parts": self.args.parts}, "ms", times.pop("ours"), times,
                        engine=f"docker {version}", base_layers=len(self.layers), base_bytes=self.layer_bytes, **extra)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench augment", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="runs of each side (default 20)")
    parser.add_argument("--first-runs", type=int, default=10, help="first requests of a base (default 10)")
    parser.add_argument("--parts", default=",".join(PARTS), type=parts_of, metavar="PART,...",
                        help=f"what is measured beside ours and the floor: {', '.join(PARTS)} (default all)")
    parser.add_argument("--base", choices=["debian", "busybox"], default="debian",
                        help="the base image: a minimal Debian (made by debootstrap once) or busybox (default debian)")
    # The Debian root is made before the laboratory's doors close, and only when it is wanted.
    wanted = json.loads(os.environ.get(benchlib.ARGS, "{}")).get("base")
    benchlib.run_in_lab(parser, lab.main, debian=wanted == "debian")
