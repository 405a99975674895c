#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""restart N: the agent is killed and started again on a host with N configured nodes.

`ours` is the time from the start of the process until it says READY (its own measure), in ms. kernel_writes: what it wrote to the
kernel meanwhile, of all runs. Nothing else does this job, so there are no others."""

import argparse
import unittest

import benchlib
import lab
import nodes


class Bench(unittest.TestCase):
    def test_bench(self):
        args = benchlib.arguments()
        host = nodes.Host()
        host.lab.tbnoded.start()
        ids = host.create(args.nodes, True, "runc")
        host.start(ids)
        host.wait_configured(args.nodes)
        ready, writes = [], 0
        for _ in range(args.runs):
            host.lab.tbnoded.kill()
            host.lab.tbnoded.start()
            host.wait_configured(args.nodes)
            status = host.status()
            ready.append(status["ready_us"] / 1000)
            writes += status["counters"]["kernel_writes"]
        host.remove(ids)
        benchlib.answer("restart", {"nodes": args.nodes}, "ms", ready, {}, engine=f"docker {host.engine}",
                        ready_ms=benchlib.summary(ready), kernel_writes=writes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench restart", description=__doc__.split("\n")[0])
    parser.add_argument("nodes", nargs="?", type=int, default=50)
    parser.add_argument("--runs", type=int, default=5)
    benchlib.run_in_lab(parser, lab.main)
