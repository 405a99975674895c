#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""fleet: many hosts make their nodes at once, with one registry. What the registry gets, and what would break first.

25 hosts, each a network namespace with an agent and a fake engine (hosts.py), are asked for 200 nodes each with `run` of one image that
has been augmented before. Real: the agents, their workers, the registry and every request to it, TCP between them, and each node's
process, namespace and veths, shaped and filtered. Not real: what dockerd would do beside its requests (unpacking, runc), disks, wires,
and that all hosts share this machine's processors, for which reason the times are theirs together.

`ours` is how long all of it takes, in ms. registry: requests by kind, bytes (on the wire, both ways), its processor time, the most
requests in a second, the most connections at a time. cpu_ms_per_node: of registry, all agents (with their workers) and all fake engines.
registry_nodes_per_s: at so many nodes per second from all hosts together a registry that has this machine's processors for itself is
full; compare host_nodes_per_s, what one host's agent could do on as many. memory_mb: what all of it took of this machine."""

import argparse
import collections
import concurrent.futures
import http.client
import json
import os
import re
import socket
import threading
import time
import unittest

import benchlib
import hosts
import lab
from labkit.process import run
from labkit.registry import Registry

ADDRESS = "10.99.0.1"
PARALLEL = 4  # runs that one host is asked for at a time


class FleetRegistry(Registry):
    address, host = ADDRESS, f"{ADDRESS}:5000"


class Api(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("tbnoded", timeout=600)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def cpu_s(pids):
    """Processor time of these and of their children that have ended."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            total += sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:15])
    return total / os.sysconf("SC_CLK_TCK")


def available_kb():
    with open("/proc/meminfo", encoding="ascii") as f:
        return int(re.search(r"MemAvailable:\s+(\d+)", f.read())[1])


class Watch:
    """The most connections that the registry has at a time."""

    def __init__(self):
        self.most, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def _look(self):
        wanted = f"{socket.inet_aton(ADDRESS)[::-1].hex().upper()}:{5000:04X}"
        while not self.over.wait(0.1):
            with open("/proc/net/tcp", encoding="ascii") as f:
                lines = [line.split() for line in f]
            self.most = max(self.most, sum(1 for x in lines if x[1] == wanted and x[3] == "01"))

    def stop(self):
        self.over.set()
        self.thread.join()
        return self.most


class Bench(unittest.TestCase):
    def run_node(self, host, name):
        c = Api(f"{host.dir}/tbnoded.sock")
        body = {"image": self.image, "name": name, "networks": ["lan0"], "shape": "rate 10mbit", "firewall": "basic"}
        begin = time.perf_counter()
        c.request("POST", "/v1/nodes", json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        last = r.read().decode().splitlines()[-1]
        c.close()
        if r.status != 200 or "error" in json.loads(last):
            raise lab.LabError(f"host {host.number}, {name}: {r.status} {last[:500]}")
        return (time.perf_counter() - begin) * 1000

    def wire(self):
        """Bytes (to the registry, from it)."""
        stats = [x["stats64"] for x in json.loads(run(["ip", "-j", "-s", "link"]).out) if x["ifname"].startswith("up")]
        return sum(s["rx"]["bytes"] for s in stats), sum(s["tx"]["bytes"] for s in stats)

    def requests(self, log):
        """What the access log (Apache's form) has: requests by kind, and the most in a second."""
        kinds, seconds = collections.Counter(), collections.Counter()
        for when, method, path in re.findall(r"\[([^\]]+)\] \"([A-Z]+) /v2/(\S*) HTTP", log):
            seconds[when] += 1
            part = re.search(r"(manifests|blobs/uploads|blobs|tags|referrers)", path)
            kinds[f"{method} {part[0] if part else path or '/'}"] += 1
        return kinds, max(seconds.values(), default=0)

    def test_bench(self):
        args = benchlib.arguments()
        self.lab = lab.Lab.get()
        run(["ip", "link", "add", "core", "type", "bridge"])
        run(["ip", "addr", "add", f"{ADDRESS}/16", "dev", "core"])
        run(["ip", "link", "set", "core", "up"])
        registry = FleetRegistry(self.lab, "fleet").ensure()
        fleet = []
        try:
            lab.images.busybox(self.lab).push(registry, "bench/busybox:1")
            self.image = f"{registry.host}/bench/busybox:1"
            fleet = [hosts.Host(self.lab, i, "core", registry.host).start() for i in range(args.hosts)]
            print(f"# {len(fleet)} hosts", flush=True)
            augmented = fleet[0].tbnode("augment", self.image)
            self.assertEqual(0, augmented.rc, augmented)
            self.measure(args, registry, fleet)
        finally:
            for h in fleet:
                h.stop()
            registry.stop()

    def measure(self, args, registry, fleet):
        known, wire = len(registry.log()), self.wire()
        who = {"registry": [registry.pid], "agents": [h.agent.pid for h in fleet], "engines": [h.engine.pid for h in fleet]}
        cpu = {name: cpu_s(pids) for name, pids in who.items()}
        memory, watch = available_kb(), Watch()
        begin = time.perf_counter()
        try:
            with concurrent.futures.ThreadPoolExecutor(PARALLEL * len(fleet)) as pool:
                # Host by host in turn: all of them begin at once.
                took = list(pool.map(lambda job: self.run_node(*job), [(h, f"n{i}") for i in range(args.nodes) for h in fleet]))
        finally:
            seconds, connections = time.perf_counter() - begin, watch.stop()
        cpu = {name: round(cpu_s(pids) - cpu[name], 2) for name, pids in who.items()}
        kinds, most = self.requests(registry.log()[known:])
        to, back = (b - a for a, b in zip(wire, self.wire(), strict=True))
        for h in fleet:
            nodes = [n["state"] for n in h.tbnode("ps", "--json").json()["nodes"]]
            self.assertEqual(args.nodes, nodes.count("configured"), f"host {h.number}: {collections.Counter(nodes)}")
        total, nodes = sum(kinds.values()), args.nodes * len(fleet)
        per_node = {name: round(x * 1000 / nodes, 3) for name, x in cpu.items()}
        took.sort()
        benchlib.answer("fleet", {"hosts": args.hosts, "nodes": args.nodes}, "ms", [seconds * 1000], {}, engine="fake", all_nodes=nodes,
                        registry={"requests": total, "per_node": round(total / nodes, 3), "per_host": round(total / len(fleet), 1),
                                  "kinds": dict(kinds.most_common()), "bytes_to": to, "bytes_from": back, "cpu_s": cpu["registry"],
                                  "cpu_ms_per_request": round(cpu["registry"] * 1000 / max(1, total), 3), "most_per_s": most,
                                  "connections": connections},
                        cpu_s=cpu, cpu_ms_per_node=per_node, run_ms={"p50": round(took[len(took) // 2], 1), "max": round(took[-1], 1)},
                        registry_nodes_per_s=round(os.cpu_count() * 1000 / max(per_node["registry"], 0.001)),
                        host_nodes_per_s=round(os.cpu_count() * 1000 / max(per_node["agents"], 0.001)),
                        memory_mb=round((memory - available_kb()) / 1024))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench fleet", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=25, help="hosts (25)")
    parser.add_argument("--nodes", type=int, default=200, help="nodes of each (200)")
    benchlib.run_in_lab(parser, lab.main)
