#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""idle N: what the agent does and holds when nothing happens on a host with N configured nodes.

`ours` is the resident set in kB; pss_kb, uss_kb, anonymous_kb: see benchlib.memory(). wakeups_per_s: voluntary context switches of the
agent over a minute (each is one return from waiting), from when the agent has been quiet for --quiet seconds: the last starts leave
something to do that is put off by a minute (images in use are told to the registry, rules are looked at once more). settle_wakeups: those until
then. Nothing else does this job, so there are no others."""

import argparse
import re
import time
import unittest

import benchlib
import lab
import nodes


def status_field(pid, name):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(rf"^{name}:\s+(\d+)", f.read(), re.M).group(1))


class Bench(unittest.TestCase):
    @staticmethod
    def settle(pid, quiet):
        """Seconds until nothing has happened for `quiet` of them, and how often it woke up until then."""
        begin = last = time.monotonic()
        first = seen = status_field(pid, "voluntary_ctxt_switches")
        while time.monotonic() < min(last + quiet, begin + 4 * quiet):
            time.sleep(0.5)
            now = status_field(pid, "voluntary_ctxt_switches")
            if now != seen:
                seen, last = now, time.monotonic()
        return round(last - begin, 1), seen - first

    def test_bench(self):
        args = benchlib.arguments()
        host = nodes.Host()
        host.lab.tbnoded.start()
        ids = host.create(args.nodes, True, "runc")
        host.start(ids)
        host.wait_configured(args.nodes)
        pid = host.lab.tbnoded.process.pid
        settle, settle_wakeups = self.settle(pid, args.quiet)
        before = status_field(pid, "voluntary_ctxt_switches")
        time.sleep(args.seconds)
        wakeups = status_field(pid, "voluntary_ctxt_switches") - before
        memory = benchlib.memory(pid)
        host.remove(ids)
        benchlib.answer("idle", {"nodes": args.nodes, "seconds": args.seconds}, "kB", [memory["rss_kb"]], {},
                        engine=f"docker {host.engine}", wakeups_per_s=round(wakeups / args.seconds, 4), quiet_after_s=settle,
                        settle_wakeups=settle_wakeups, **memory)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench idle", description=__doc__.split("\n")[0])
    parser.add_argument("nodes", nargs="?", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--quiet", type=int, default=65)
    benchlib.run_in_lab(parser, lab.main)
