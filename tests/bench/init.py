#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What /tbnode/init costs at the start of a container: docker run of the original and of the augmented image.

Both sides start the same static program that ends at once, and wait for its end; ours is the augmented image in a plain
container. overhead_ms is the median of the differences of each pair; node_start_ms the same for a testbed node: from
docker run to the end of a main that ends at once, with all services started beside it (and ended again: at most what a
node needs until main runs)."""

import argparse
import json
import os
import statistics
import time
import unittest

import benchlib
import lab
import init_images

IMAGE = ("bench", "scratch", {"Entrypoint": ["/world"], "Cmd": ["exit", "0"]})


class Bench(unittest.TestCase):
    def run_once(self, image, *options):
        start = time.perf_counter()
        r = self.lab.docker("run", "--rm", "--network", "none", *options, image)
        ms = (time.perf_counter() - start) * 1000
        # Every side did the work: the program told its world.
        self.assertIn('"uid":0', r.out)
        self.assertEqual("", r.err)
        return ms

    def test_bench(self):
        args = benchlib.arguments()
        self.lab = lab.Lab.get()
        self.lab.dockerd.start()
        original, augmented = init_images.Images(self.lab).pair(*IMAGE)
        directory = self.lab.tmp("node")
        with open(f"{directory}/node.conf", "w", encoding="ascii") as f:
            f.write("on-exit=stop\nnode=n\n")
        sides = {"original": lambda: self.run_once(original), "ours": lambda: self.run_once(augmented),
                 "node": lambda: self.run_once(augmented, "-v", f"{directory}:/tbnode/run:ro")}
        for side in sides.values():
            side()
        times = {name: [] for name in sides}
        for i in range(args.runs):
            names = list(sides)
            for k in range(len(names)):
                name = names[(i + k) % len(names)]
                times[name].append(sides[name]())

        def over(name):
            return round(statistics.median(a - b for a, b in zip(times[name], times["original"])), 2)

        version = self.lab.docker("version", "-f", "{{.Server.Version}}").out.strip()
        benchlib.answer("init", {"runs": args.runs}, "ms", times["ours"], {"original": times["original"]},
                        engine=f"docker {version}", overhead_ms=over("ours"), node_start_ms=over("node"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench init", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=30, help="runs of each side (default 30)")
    benchlib.run_in_lab(parser, lab.main)
