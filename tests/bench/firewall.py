#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""firewall N [--backend iptables|nftables] [--runs R]: what a node's firewall costs on a host with N of them.

    ours     ms to give one more node its firewall, N - 1 being there: inside our process, from reading the tables to the end of the
             commit (commit_ms)
    restore  `iptables-legacy-restore --noflush` and `ip6tables-legacy-restore --noflush`, or `nft -j -f`, adding the very same
             rules: processes from start to end
    linear   (as a path) ns for each packet with the original's layout: two rules in FORWARD for each node, one after the other

ns_per_packet: small UDP packets from one node to another over their bridge, sent as fast as one core can; sending, forwarding and
receiving happen on that core, so the time for each is what the path costs. bare: no rules at all. path_ratio_1000_10 is ours with N
nodes over ours with 10: both are measured PAIRS times in each run, one after the other, and of each the least is taken, because all that
a busy machine does to such a number is to add to it. all_ms: the firewalls of all N nodes in one commit. memory: bytes for each
node, of the kernel (slabs, vmalloc, per-CPU) and of our process while it writes all of them. Everything happens in a network
namespace of its own."""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

import netctl
from netctl import TOOL, run, spread

PACKETS = 100000
PAIRS = 5


class Host(netctl.Host):
    """N nodes on a bridge; those in the middle have addresses and talk."""

    def __init__(self, count, directory, backend):
        super().__init__(count, directory)
        self.tool = [TOOL, "--json", "--firewall", backend]
        self.backend = backend
        self.pair = (count // 2 - 1, count // 2)
        for i in self.pair:
            enter = ["nsenter", "--net", "-t", str(self.pids[i]), "--"]
            run(*enter, "ip", "link", "set", "lo", "up")
            run(*enter, "ip", "addr", "add", f"{self.ip(i)}/16", "dev", "eth0")
            run(*enter, "ip", "link", "set", "eth0", "up")

    def declare(self, numbers):
        nodes = [{"id": self.node_id(i), "pid": self.pids[i], "style": "basic; allow in udp; allow out udp",
                  "interfaces": [{"mac": self.mac(i), "filtered": True, "pinned": True, "ipv4": self.ip(i)}]} for i in numbers]
        path = os.path.join(self.directory, "nodes.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"nodes": nodes}, f)
        return path

    def apply(self, numbers):
        report = json.loads(run(*self.tool, "apply", self.declare(numbers)))
        failed = [n["error"]["message"] for n in report["nodes"] if n["error"]]
        if failed:
            sys.exit(failed[0])
        return report

    def remove(self, i):
        run(*self.tool, "remove", self.node_id(i))

    def sweep(self):
        run(*self.tool, "sweep")

    def packet_ns(self):
        a, b = self.pair
        f = json.loads(run(TOOL, "--json", "probe", str(self.pids[a]), "eth0", str(self.pids[b]), "eth0", "size", "98", "rate", "40gbit",
                           "packets", str(PACKETS), "quiet", "100ms"))
        if f["received"] + f["overrun"] < PACKETS * 0.99:
            sys.exit(f"only {f['received']} + {f['overrun']} of {PACKETS} packets arrived")
        return 98 * 8 * 1e9 / f["offered_bps"]


def kernel_memory():
    """Bytes of what rules are made of."""
    with open("/proc/meminfo", encoding="ascii") as f:
        lines = dict(line.split(":") for line in f)
    return sum(int(lines[k].split()[0]) * 1024 for k in ("Slab", "VmallocUsed", "Percpu") if k in lines)


class Xtables:
    """The tables of both families as text, and what was added to them."""

    FAMILIES = ("iptables-legacy", "ip6tables-legacy")

    @classmethod
    def read(cls):
        return {f: run(f"{f}-save").splitlines() for f in cls.FAMILIES}

    @classmethod
    def script(cls, before, after, folder):
        paths = []
        for family in cls.FAMILIES:
            lines, table, old = [], None, {}
            for line in before[family]:
                table = line if line.startswith("*") else table
                old.setdefault(table, set()).add(re.sub(r"\[\d+:\d+\]", "", line))
            for line in after[family]:
                table = line if line.startswith("*") else table
                if line[0] in "*C" or (line[0] in ":-" and re.sub(r"\[\d+:\d+\]", "", line) not in old[table]):
                    lines.append(line)
            paths.append(f"{folder}/{family}.rules")
            with open(paths[-1], "w", encoding="utf-8") as f:
                f.write("\n".join(lines) + "\n")
        return [[f"{f}-restore", "--noflush", p] for f, p in zip(cls.FAMILIES, paths)]


class Nft:
    @staticmethod
    def read():
        return json.loads(run("nft", "-j", "-s", "list", "ruleset"))["nftables"]

    @staticmethod
    def script(before, after, folder):
        def key(o):
            kind, v = next(iter(o.items()))
            v = {k: x for k, x in v.items() if k not in ("handle", "elem", "packets", "bytes")} if isinstance(v, dict) else v
            return json.dumps([kind, v], sort_keys=True)
        old = {key(o): o for o in before}
        commands = []
        for o in after:
            kind, v = next(iter(o.items()))
            if kind in ("map", "set") and key(o) in old:
                known = {json.dumps(e, sort_keys=True) for e in next(iter(old[key(o)].values())).get("elem", [])}
                new = [e for e in v.get("elem", []) if json.dumps(e, sort_keys=True) not in known]
                if new:
                    commands.append({"add": {"element": {"family": v["family"], "table": v["table"], "name": v["name"],
                                                         "elem": new}}})
            elif kind in ("chain", "map", "set", "rule") and key(o) not in old:
                commands.append({"add": {kind: {k: x for k, x in v.items() if k != "handle"}}})
        # Chains before what jumps to them.
        commands.sort(key=lambda c: ["chain", "map", "set", "rule", "element"].index(next(iter(c["add"]))))
        path = f"{folder}/one.json"
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"nftables": commands}, f)
        return [["nft", "-j", "-f", path]]


def timed(commands):
    begin = time.perf_counter()
    for c in commands:
        done = subprocess.run(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(c)}: {done.stderr.strip()[:500]}")
    return (time.perf_counter() - begin) * 1000


def linear(host):
    """The original's layout (emulab.md c.5), in one restore."""
    lines = ["*filter"]
    for i in range(host.count):
        lines += [f":IN_{i} - [0:0]", f":OUT_{i} - [0:0]"]
    for i in range(host.count):
        lines += [f"-A FORWARD -m physdev --physdev-is-bridged --physdev-out h{i} -j IN_{i}",
                  f"-A FORWARD -m physdev --physdev-is-bridged --physdev-in h{i} -j OUT_{i}"]
        for c in ("IN", "OUT"):
            lines += [f"-A {c}_{i} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", f"-A {c}_{i} -p udp -j RETURN",
                      f"-A {c}_{i} -j DROP"]
    run("iptables-legacy-restore", "--noflush", stdin="\n".join([*lines, "COMMIT"]) + "\n")


def bench(count, runs, backend):
    with tempfile.TemporaryDirectory() as folder:
        host = Host(count, folder, backend)
        reader = Xtables if backend == "iptables" else Nft
        last = 0 if host.pair[0] > 0 else count - 1
        rest = [i for i in range(count) if i != last]
        ten = [i for i in range(max(0, host.pair[0] - 4), min(count, host.pair[0] + 6))]
        path = {"bare": [], "ten": [], "ours": [], "linear": []}
        commits, restores, together, kernel, process = [], [], [], [], []
        host.apply(ten)  # turns on what the first one turns on
        host.sweep()
        for r in range(runs):
            path["bare"].append(host.packet_ns())
            few, many = [], []
            for _ in range(PAIRS):
                host.apply(ten)
                few.append(host.packet_ns())
                host.sweep()
                empty = kernel_memory()
                report = host.apply(range(count))
                kernel.append((kernel_memory() - empty) / count)
                process.append(report["memory"]["peak"] / count)
                together.append(report["phases_ms"]["firewall"])
                many.append(host.packet_ns())
                if len(many) < PAIRS:
                    host.sweep()
            path["ten"].append(min(few))
            path["ours"].append(min(many))
            host.remove(last)
            before = reader.read()
            commits.append(host.apply([last])["phases_ms"]["firewall"])
            script = reader.script(before, reader.read(), folder)
            host.remove(last)
            restores.append(timed(script))
            host.sweep()
            if backend == "iptables":
                for f in Xtables.FAMILIES:
                    run(f, "-F")
                    run(f, "-X")
            linear(host)
            path["linear"].append(host.packet_ns())
            run("iptables-legacy", "-F")
            run("iptables-legacy", "-X")
        for pid in host.pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    def of(a, b):
        return round(statistics.median(x / y for x, y in zip(path[a], path[b])), 3)
    return {
        "bench": "firewall", "args": {"nodes": count, "backend": backend},
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "engine": None},
        "runs": runs, "unit": "ms", "ours": spread(commits), "others": {"restore": spread(restores), "linear": spread(
            [x / 1e6 for x in path["linear"]])},
        "ratios": {"restore": round(statistics.median(o / m for o, m in zip(restores, commits)), 3), "linear": of("linear", "ours")},
        "backend": backend, "commit_ms": spread(commits), "all_ms": spread(together),
        "ns_per_packet": {k: spread(v) for k, v in path.items()}, "path_ratio_1000_10": of("ours", "ten"),
        "linear_ratio": of("linear", "ten"),
        "memory": {"kernel": round(statistics.median(kernel)), "process": round(statistics.median(process))},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="?", type=int, default=200)
    parser.add_argument("--backend", choices=("iptables", "nftables"), default="iptables")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    if not 10 <= args.nodes <= 1000 or args.runs < 1:
        parser.error("10 to 1000 nodes")
    if os.geteuid() != 0:
        print("SKIP: needs root", file=sys.stderr)
        return 77
    if os.environ.pop("TBNODE_BENCH_INSIDE", None) != "1":
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c",
                   'mount -t tmpfs none /run && ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv]
        return subprocess.run(command, env={**os.environ, "TBNODE_BENCH_INSIDE": "1"}, check=False).returncode
    print(json.dumps(bench(args.nodes, args.runs, args.backend)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
