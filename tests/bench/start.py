#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the start gate costs: N containers are started through Docker, eight at a time.

    ours      labelled containers (shaped, style basic), runtime tbnode: each starts when it is configured
    without   the same containers without labels, runtime runc

Sides alternate; containers are created before, and removed after the time that is taken. event_to_configured_ms: labelled
containers with runc, from the engine's `start` event to CONFIGURED. unlabelled_ms: containers without label through the gate."""

import argparse
import unittest

import benchlib
import lab
import nodes


def percentile(values, p):
    values = sorted(values)
    return round(values[min(len(values) - 1, int(len(values) * p))], 3)


class Bench(unittest.TestCase):
    def side(self, n, labelled, runtime):
        ids = self.host.create(n, labelled, runtime)
        ms = self.host.start(ids)
        if labelled:  # through the gate they were configured before they ran; here it is seen
            self.host.wait_configured(n)
        self.host.remove(ids)
        lab.wait_for(lambda: not self.host.nodes() and not self.host.lab.traces(), 60, "no traces")
        return ms

    def test_bench(self):
        args = benchlib.arguments()
        self.host = nodes.Host()
        self.host.lab.tbnoded.start()
        sides = {"ours": (True, "tbnode"), "without": (False, "runc"), "unlabelled": (False, "tbnode")}
        times = {name: [] for name in sides}
        for side in sides.values():  # warm: nothing is loaded for the first time
            self.side(min(args.nodes, 5), *side)
        names = list(sides)
        for r in range(args.runs):
            for name in names[r % 3:] + names[:r % 3]:
                times[name].append(self.side(args.nodes, *sides[name]))
        # Without the gate: the events say how long each took.
        seq = self.host.events()[-1]["seq"]
        self.side(args.nodes, True, "runc")
        took = [e["us"] / 1000 for e in self.host.events()
                if e["seq"] > seq and e["event"] == "node-state" and e["to"] == "configured" and e.get("us")]
        benchlib.answer("start", {"nodes": args.nodes}, "ms", times["ours"], {"without": times["without"]},
                        engine=f"docker {self.host.engine}", unlabelled_ms=benchlib.summary(times["unlabelled"]),
                        event_to_configured_ms={"p50": percentile(took, 0.5), "p99": percentile(took, 0.99),
                                                "n": len(took)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench start", description=__doc__.split("\n")[0])
    parser.add_argument("nodes", nargs="?", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    benchlib.run_in_lab(parser, lab.main)
