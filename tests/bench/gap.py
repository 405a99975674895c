#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""gap N: somebody takes all rules of a host with N configured nodes away. For how long does what they forbid pass?

A node that may not be talked to is sent one packet a millisecond by a container; `ours` is the time from the first of them that
arrives to the last one, in ms. All rules of the back end go at once: `nft flush table inet tbnode`, or `iptables -F` and `ip6tables -F` of
the legacy tables. flush_ms: what the flushing programs took themselves, a part of which is in `ours`. Nothing else repairs, so
there are no others."""

import argparse
import subprocess
import sys
import time
import unittest

import benchlib
import lab
import nodes

FLUSH = {"nftables": [["nft", "flush", "table", "inet", "tbnode"]],
         "iptables": [["iptables-legacy", "-F"], ["ip6tables-legacy", "-F"]]}
SEND = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
due = time.monotonic()
while True:
    s.sendto(b"x", (sys.argv[1], 9))
    due += 0.001
    time.sleep(max(0, due - time.monotonic()))
"""
# The times of arrival, as the kernel has them, of what comes before the first pause of half a second.
TAKE = """
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
s.bind(("", 9))
print("ready", flush=True)
times = []
s.settimeout(30)
try:
    while True:
        _, extra, _, _ = s.recvmsg(16, 64)
        seconds, nanoseconds = struct.unpack("ll", extra[0][2])
        times.append(seconds * 10**9 + nanoseconds)
        s.settimeout(0.5)
except TimeoutError:
    pass
print(len(times), (times[-1] - times[0]) / 1e6 if times else 0)
"""


class Bench(unittest.TestCase):
    def inside(self, container, program, *args, **options):
        pid = str(self.lab.container_pid(container))
        return subprocess.Popen(["nsenter", "-t", pid, "-n", "--", sys.executable, "-c", program, *args], text=True, **options)

    def events(self):
        return sum(1 for e in self.host.events() if e["event"] == "firewall-repaired")

    def gap(self, address, node, flush):
        receiver = self.inside(node, TAKE, stdout=subprocess.PIPE)
        self.assertEqual("ready\n", receiver.stdout.readline())
        repaired = self.events()
        begin = time.perf_counter()
        for command in flush:
            self.lab.run(command)
        took = (time.perf_counter() - begin) * 1000
        lab.wait_for(lambda: self.events() > repaired, 60, "the repair")
        count, ms = receiver.communicate()[0].split()
        return int(count), float(ms), took

    def test_bench(self):
        args = benchlib.arguments()
        self.host = nodes.Host()
        self.lab = self.host.lab
        self.lab.tbnoded.start(config={"firewall": args.backend})
        nodes.LABELS["tbnode.firewall"] = "closed"
        ids = self.host.create(args.nodes, True, "runc") + self.host.create(1, False, "runc")
        self.host.start(ids)
        self.host.wait_configured(args.nodes)
        address = self.lab.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", ids[0]).out.strip()
        sender = self.inside(ids[-1], SEND, address)
        rows = [self.gap(address, ids[0], FLUSH[args.backend]) for _ in range(args.runs)]
        sender.kill()
        sender.wait()
        self.host.remove(ids)
        # One that passed, or none, is less than the millisecond between two.
        benchlib.answer("gap", {"nodes": args.nodes, "backend": args.backend}, "ms", [max(ms, 1.0) for _, ms, _ in rows], {},
                        engine=f"docker {self.host.engine}", passed=[count for count, _, _ in rows],
                        flush_ms=benchlib.summary([took for _, _, took in rows]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench gap", description=__doc__.split("\n")[0])
    parser.add_argument("nodes", nargs="?", type=int, default=50)
    parser.add_argument("--backend", choices=("iptables", "nftables"), default="nftables")
    parser.add_argument("--runs", type=int, default=10)
    benchlib.run_in_lab(parser, lab.main)
