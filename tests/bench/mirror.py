#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""scripts/bench mirror: copies from registry to registry, ours against skopeo.

An image of one 80 MB layer and one of twelve layers, 400 MB together, are copied

    loopback    from one docker-registry on this machine to another
    slow        the same, the source behind a path of 50 ms round trip and 100 Mbit/s: a relay in userspace
                (tests/bench/relay.c), as this kernel has no netem

Sides alternate within a run; the target is an empty registry each time, and afterwards it must have the source's
manifest. In ms: the medians over all rows' runs are for the two images on loopback together. rows: one per image and path,
with MB/s, CPU seconds per GB (of the program, and of the two registries meanwhile) and peak memory of both. On two cores
the registries are the bottleneck: a copy cannot be faster than all of this CPU time divided by the cores. floor_ms: the same bytes by curl, one pipe (GET into PUT) per
layer, four at a time, without looking at anything: what the two registries themselves take. efficiency (slow): payload at
the path's rate, divided by the time it took. head_loop: latency of manifest HEADs on one connection beside that of a bare
loop of send() and recv().
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import threading
import time
import unittest
import urllib.parse

import benchlib
import lab
from labkit.registry import Registry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
RATE, DELAY_MS = 100_000_000, 25
SLOW_PORT = 5005
CACHES = ("/var/lib/containers/cache", os.path.expanduser("~/.local/share/containers/cache"))


class Target(Registry):
    port = 5001
    host = "127.0.0.1:5001"


def measure(argv):
    """(seconds, CPU seconds, peak kB) of a process. Its own peak (VmHWM): ru_maxrss starts with its parent's."""
    start = time.perf_counter()
    p = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    peak = [0]

    def watch():
        try:
            while True:
                with open(f"/proc/{p.pid}/status", encoding="utf-8") as f:
                    text = f.read()
                if f"\nName:\t{os.path.basename(argv[0])[:15]}" not in "\n" + text:
                    time.sleep(0.001)  # not yet exec'ed
                    continue
                at = text.find("VmHWM:")
                if at < 0:
                    return
                peak[0] = max(peak[0], int(text[at:].split()[1]))
                time.sleep(0.02)
        except OSError:
            pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(p.pid, 0)
    seconds = time.perf_counter() - start
    p.returncode = os.waitstatus_to_exitcode(status)
    watcher.join()
    if p.returncode != 0:
        raise AssertionError(f"{argv}: exit status {p.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, peak[0]


class Bench(unittest.TestCase):
    def setUp(self):
        self.args = benchlib.arguments()
        self.lab = lab.Lab.get()
        self.source = self.lab.local.ensure()
        self.target = self.lab._add(Target(self.lab, "target"))
        self.addCleanup(self.target.stop)
        self.relay = subprocess.Popen([f"{self.lab.build}/tests/bench/relay", str(SLOW_PORT), str(self.source.port),
                                       str(DELAY_MS), str(RATE)])
        self.addCleanup(self.relay.wait)
        self.addCleanup(self.relay.terminate)

    def push(self, repository, layers, size):
        # Really gzip: skopeo looks at the bytes, and would compress what is not.
        blobs = [gzip.compress(os.urandom(size // layers), 0, mtime=0) for _ in range(layers)]
        descriptors = [{"mediaType": LAYER, "size": len(b), "digest": self.source.put_blob(repository, b)} for b in blobs]
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {
            "type": "layers", "diff_ids": [d["digest"] for d in descriptors]}}).encode()
        self.source.put_manifest(repository, "1", {
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": len(config),
                       "digest": self.source.put_blob(repository, config)}})
        return [d["digest"] for d in descriptors], sum(len(b) for b in blobs)

    def fresh_target(self):
        if self.target.running:
            self.target.stop()
        shutil.rmtree(self.target.storage, ignore_errors=True)
        for cache in CACHES:  # where skopeo remembers which registry has which blob
            shutil.rmtree(cache, ignore_errors=True)
        self.target.start()

    def check(self, repository):
        self.assertEqual(self.target.manifest(repository, "1"), self.source.manifest(repository, "1"))

    def ours(self, port, repository, _layers):
        return measure([f"{self.lab.install()}/tbnode-registry", "copy", f"127.0.0.1:{port}/{repository}:1",
                        f"{self.target.host}/{repository}:1"])

    def skopeo(self, port, repository, _layers):
        return measure(["/usr/bin/skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false",
                        "--dest-tls-verify=false", f"docker://127.0.0.1:{port}/{repository}:1",
                        f"docker://{self.target.host}/{repository}:1"])

    def floor(self, port, repository, layers):
        """The layers only; the target gets no manifest."""
        pipes = []
        for digest in layers:
            _, headers, _ = self.target.request("POST", f"/v2/{repository}/blobs/uploads/")
            where = urllib.parse.urlsplit(headers["Location"])
            pipes.append(f"curl -sS http://127.0.0.1:{port}/v2/{repository}/blobs/{digest} | "
                         f"curl -sS -f -X PUT -H 'Expect:' -H 'Content-Type: application/octet-stream' -T - "
                         f"'http://{self.target.host}{where.path}?{where.query}&digest={digest}'")
        start = time.perf_counter()
        subprocess.run(["xargs", "-P4", "-d", "\n", "-n1", "sh", "-c"], input="\n".join(pipes), text=True, check=True)
        return time.perf_counter() - start, 0, 0

    def registries_cpu(self):
        """CPU seconds that the two registries have used."""
        total = 0
        for registry in (self.source, self.target):
            with open(f"/proc/{registry.pid}/stat", encoding="utf-8") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def row(self, image, path, layers, size, runs):
        port = SLOW_PORT if path == "slow" else self.source.port
        sides = [self.ours, self.skopeo] + ([self.floor] if path == "loopback" else [])
        got = {side.__name__: [] for side in sides}
        for i in range(runs):
            for k in range(len(sides)):
                side = sides[(i + k) % len(sides)]
                self.fresh_target()
                before = self.registries_cpu()
                got[side.__name__].append((*side(port, image, layers), self.registries_cpu() - before))
                if side != self.floor:
                    self.check(image)
        row = {"image": image, "path": path, "bytes": size, "runs": runs}
        for name in ("ours", "skopeo"):
            seconds = statistics.median(x[0] for x in got[name])
            row[name] = {"ms": benchlib.summary([x[0] * 1000 for x in got[name]]),
                         "mb_per_s": round(size / seconds / 1e6, 1),
                         "cpu_s_per_gb": round(statistics.median(x[1] for x in got[name]) / size * 1e9, 2),
                         "registries_cpu_s_per_gb": round(statistics.median(x[3] for x in got[name]) / size * 1e9, 2),
                         "rss_kb": max(x[2] for x in got[name])}
            if path == "slow":
                row[name]["efficiency"] = round(size * 8 / RATE / seconds, 3)
        row["ratio"] = benchlib.ratio([x[0] for x in got["skopeo"]], [x[0] for x in got["ours"]])
        if path == "loopback":
            row["floor_ms"] = benchlib.summary([x[0] * 1000 for x in got["floor"]])
        return row, got

    def head_loop(self, repository):
        program = f"{self.lab.build}/tests/bench/head-loop"
        loops = [self.lab.run(program, str(self.source.port), repository, "1", str(self.args.heads)).json()
                 for _ in range(5)]
        ours, bare = [x["ours_us"] for x in loops], [x["bare_us"] for x in loops]
        return {"requests": self.args.heads, "ours_us": benchlib.summary(ours), "bare_us": benchlib.summary(bare),
                "ratio": round(statistics.median(a / b for a, b in zip(ours, bare, strict=True)), 3)}

    def test_bench(self):
        images = {"one": (1, self.args.mb), "twelve": (12, self.args.mb * 5)}
        rows, ours, skopeo = [], [], []
        for image, (layers, mb) in images.items():
            digests, size = self.push(image, layers, mb * 1_000_000)
            row, got = self.row(image, "loopback", digests, size, self.args.runs)
            rows.append(row)
            ours.append([x[0] * 1000 for x in got["ours"]])
            skopeo.append([x[0] * 1000 for x in got["skopeo"]])
            if self.args.slow_runs > 0:
                rows.append(self.row(image, "slow", digests, size, self.args.slow_runs)[0])
        benchlib.answer("mirror", vars(self.args), "ms", [sum(x) for x in zip(*ours, strict=True)],
                        {"skopeo": [sum(x) for x in zip(*skopeo, strict=True)]}, engine="docker-registry 2.8.2",
                        rows=rows, rss_kb=max(r["ours"]["rss_kb"] for r in rows), head_loop=self.head_loop("one"),
                        slow_path={"made_by": "tests/bench/relay.c", "rtt_ms": 2 * DELAY_MS, "bit_per_s": RATE})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench mirror", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each side on loopback (default 5)")
    parser.add_argument("--slow-runs", type=int, default=1, help="runs over the slow path; 0 = none (default 1)")
    parser.add_argument("--mb", type=int, default=80, help="size of the first image; the second has five times that "
                        "(default 80)")
    parser.add_argument("--heads", type=int, default=1000, help="requests of head_loop (default 1000)")
    benchlib.run_in_lab(parser, lab.main)
