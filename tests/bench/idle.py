#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""idle N: what the agent does and holds when nothing happens on a host with N configured nodes.

`ours` is the resident set in kB. wakeups_per_s: voluntary context switches of the agent over a minute (each is one return from
waiting), from when the agent has been quiet for ten seconds. Nothing else does this job, so there are no others."""

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
    def quiet(pid):
        """Seconds until nothing has happened for ten: the last starts leave something to do (use of images is told to the registry)."""
        begin = last = time.monotonic()
        seen = status_field(pid, "voluntary_ctxt_switches")
        while time.monotonic() < min(last + 10, begin + 180):
            time.sleep(0.5)
            now = status_field(pid, "voluntary_ctxt_switches")
            if now != seen:
                seen, last = now, time.monotonic()
        return round(last - begin, 1)

    def test_bench(self):
        args = benchlib.arguments()
        host = nodes.Host()
        host.lab.tbnoded.start()
        ids = host.create(args.nodes, True, "runc")
        host.start(ids)
        host.wait_configured(args.nodes)
        pid = host.lab.tbnoded.process.pid
        settle = self.quiet(pid)
        before = status_field(pid, "voluntary_ctxt_switches")
        time.sleep(args.seconds)
        wakeups = status_field(pid, "voluntary_ctxt_switches") - before
        rss = [status_field(pid, "VmRSS")]
        anonymous = status_field(pid, "RssAnon")
        host.remove(ids)
        benchlib.answer("idle", {"nodes": args.nodes, "seconds": args.seconds}, "kB", rss, {},
                        engine=f"docker {host.engine}", wakeups_per_s=round(wakeups / args.seconds, 4), rss_kb=rss[0], quiet_after_s=settle,
                        anonymous_kb=anonymous)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench idle", description=__doc__.split("\n")[0])
    parser.add_argument("nodes", nargs="?", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60)
    benchlib.run_in_lab(parser, lab.main)
