#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""idle N: what the agent does and holds when nothing happens on a host with N configured nodes.

`ours` is the resident set in kB. wakeups_per_s: voluntary context switches of the agent over a minute (each is one return from
waiting), less the one of the question. Nothing else does this job, so there are no others."""

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
    def test_bench(self):
        args = benchlib.arguments()
        host = nodes.Host()
        host.lab.tbnoded.start()
        ids = host.create(args.nodes, True, "runc")
        host.start(ids)
        host.wait_configured(args.nodes)
        pid = host.lab.tbnoded.process.pid
        time.sleep(5)  # what the last starts left to do, and the connection of the last question
        before = status_field(pid, "voluntary_ctxt_switches")
        time.sleep(args.seconds)
        wakeups = status_field(pid, "voluntary_ctxt_switches") - before
        rss = [status_field(pid, "VmRSS")]
        anonymous = status_field(pid, "RssAnon")
        host.remove(ids)
        benchlib.answer("idle", {"nodes": args.nodes, "seconds": args.seconds}, "kB", rss, {},
                        engine=f"docker {host.engine}", wakeups_per_s=round(wakeups / args.seconds, 4), rss_kb=rss[0],
                        anonymous_kb=anonymous)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench idle", description=__doc__.split("\n")[0])
    parser.add_argument("nodes", nargs="?", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60)
    benchlib.run_in_lab(parser, lab.main)
