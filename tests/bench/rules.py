#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""rules [--rules N] [--runs R] [--packets P]: what a packet pays for the shapes of other destinations at its interface.

Two network namespaces with a bridge between them. One sends small UDP packets as fast as it can; the way through the host is
taken by the same core before the sender goes on, so that the time from one packet to the next is what a packet costs. At the
receiver's host veth there are N shapes for N sources, the sender's being the last that a list would come to:

    ours        N rules by tbnode-netctl (classes of their own, found by programs)
    few         10 rules by tbnode-netctl
    none        the same tree without rules
    u32_linear  N u32 filters one behind the other, as tc users write them, and as many classes

Sides alternate within a run. Values are ns per packet; `cost_ns` is what is above `none`. Sub-linear: 1000 rules cost
far less than a hundred times what 10 do.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TBNODE_BUILD_DIR", SOURCE / "build"))
NETCTL = str(BUILD / "netctl/tbnode-netctl")
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tests/vm"))
from tbvm import lab  # noqa: E402

FRAME = 98
BASE = "rate 40gbit"
SENDER = "10.9.0.2"


def others(n):
    """Sources that do not send; all below the sender's address, so that a list has it last."""
    return [f"10.8.{i // 250}.{1 + i % 250}" for i in range(n - 1)]


def ours(net, n):
    parts = [f"down {BASE}"] + [f"to {a} down {BASE}" for a in [*others(n), SENDER][:n]]
    lab.command(NETCTL, "--id", "one", "shape", net.one.netns, "eth0", "; ".join(parts))


def u32(net, n, folder):
    lines = ["qdisc add dev h-one root handle 1: htb default 1", "class add dev h-one parent 1: classid 1:1 htb rate 40gbit"]
    for i, a in enumerate([*others(n), SENDER]):
        lines += [f"class add dev h-one parent 1: classid 1:{i + 2:x} htb rate 40gbit",
                  f"filter add dev h-one parent 1: protocol ip pref 1 u32 match ip src {a} flowid 1:{i + 2:x}"]
    path = f"{folder}/u32"
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    lab.command("tc", "-batch", path)


def clear(net):
    lab.command(NETCTL, "--id", "one", "clear", net.one.netns)
    lab.command("tc", "qdisc", "del", "dev", "h-one", "root", check=False)


def ns_per_packet(net, packets):
    done = lab.command(NETCTL, "--json", "probe", net.two.netns, "eth0", net.one.netns, "eth0", "size", str(FRAME),
                       "packets", str(packets), "interval", "100ns", "quiet", "300ms")
    return FRAME * 8 / json.loads(done.stdout)["offered_bps"] * 1e9


def check_hit(net, name):
    """The packets met the shape that is meant."""
    blocks = lab.command("tc", "-s", "class", "show", "dev", "h-one").stdout.split("class htb ")[1:]
    packets = {b.split()[0]: int(b.split(" bytes ")[1].split()[0]) for b in blocks}
    busy = max(packets, key=packets.get)
    if (busy.endswith(":1")) != (name == "none"):
        sys.exit(f"{name}: packets went to class {busy}")


def bench(args):
    net = lab.Network()
    sides = {"none": lambda folder: ours(net, 0), "few": lambda folder: ours(net, 10),
             "u32_linear": lambda folder: u32(net, args.rules, folder), "ours": lambda folder: ours(net, args.rules)}
    times = {name: [] for name in sides}
    names = list(sides)
    with tempfile.TemporaryDirectory(prefix="tbnode-bench-") as folder:
        for r in range(args.runs):
            for name in names[r % len(names):] + names[:r % len(names)]:
                sides[name](folder)
                times[name].append(ns_per_packet(net, args.packets))
                check_hit(net, name)
                clear(net)
    net.close()

    def spread(values):
        return {"median": round(statistics.median(values), 1), "min": round(min(values), 1), "max": round(max(values), 1)}
    base = statistics.median(times["none"])
    rest = {name: v for name, v in times.items() if name != "ours"}
    return {
        "bench": "rules", "args": vars(args),
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "engine": None},
        "runs": args.runs, "unit": "ns per packet", "ours": spread(times["ours"]),
        "others": {name: spread(v) for name, v in rest.items()},
        "ratios": {name: round(statistics.median(o / m for o, m in zip(v, times["ours"])), 3) for name, v in rest.items()},
        "cost_ns": {name: round(statistics.median(v) - base, 1) for name, v in times.items() if name != "none"}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--packets", type=int, default=300000)
    args = parser.parse_args()
    if not 10 <= args.rules <= 4000 or args.runs < 1 or not 1000 <= args.packets <= 4000000:
        parser.error("10 to 4000 rules, 1000 to 4000000 packets")
    if os.geteuid() != 0:
        print("SKIP: needs root", file=sys.stderr)
        return 77
    if not os.access(NETCTL, os.X_OK):
        sys.exit(f"{NETCTL} is missing: build first")
    if os.environ.pop("TBNODE_BENCH_INSIDE", None) != "1":
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c",
                   'mount -t tmpfs none /run && ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv]
        return subprocess.run(command, env={**os.environ, "TBNODE_BENCH_INSIDE": "1"}, check=False).returncode
    print(json.dumps(bench(args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
