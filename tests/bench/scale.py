#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the agent's work grows with the nodes and not faster: N = 10, 200, 1000 through a fake engine.

The nodes are processes with network namespaces and veths, as Docker makes them, without Docker: labkit/fakeengine.py says that they are
containers. For each N, of rows:

    first_ms      agent started on N - EVENTS running containers, none of them shaped yet: READY, in ms
    event_ms      then EVENTS more start, one after the other: from the engine's `start` event to CONFIGURED, and the agent's processor
                  time for one of them (event_cpu_ms), also that of telling about it
    ready_ms      agent killed and started again: READY; `ours` are those of the largest N
    kernel_writes of these restarts, all together: 0
    rss_kb, ...   memory once the agent has given back what its start left (benchlib.memory())
    cpu_ms        the agent's processor time until it was READY again, and what the fake engine used meanwhile (engine_cpu_ms): on two
                  cores they share, the second is not the agent's
    gone_ms       all N end at once: until nothing of ours is in the kernel

growth: how many times ready_ms and the memory above the smallest N's grow per time that N grows; 1 is linear."""

import argparse
import json
import subprocess
import threading
import time
import unittest

import benchlib
import lab
import worlds
from labkit.fakeengine import Fake

SOCKET = "/run/fake.sock"


def cpu_ms(pid):
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as f:
        return int(f.read().split()[0]) / 1e6


def percentile(values, p):
    values = sorted(values)
    return round(values[min(len(values) - 1, int(len(values) * p))], 3)


class Follow:
    """The agent's events as they come: for how long each node took to be CONFIGURED."""

    def __init__(self, program):
        self.took, self.news = {}, threading.Condition()
        self.p = subprocess.Popen([program, "events", "--follow", "--json"], stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.p.stdout:
            e = json.loads(line)
            if e["event"] == "node-state" and e.get("to") == "configured":
                with self.news:
                    self.took[e["id"]] = e.get("us", 0) / 1000
                    self.news.notify_all()

    def wait(self, container):
        with self.news:
            if not self.news.wait_for(lambda: container in self.took, 60):
                raise lab.LabError(f"{container} was not configured")
            return self.took[container]

    def stop(self):
        self.p.terminate()
        self.p.wait()


class Bench(unittest.TestCase):
    def start(self):
        """The agent; its status once it is READY."""
        self.lab.tbnoded.start({"docker": f"unix://{SOCKET}", "nodes-max": "10000"}, services=False, timeout=120)
        return lab.wait_for(lambda: (s := self.lab.tbnode("status", "--json").json())["ready_us"] and s, 120, "READY")

    def configured(self):
        return [n for n in self.lab.tbnode("ps", "--json").json()["nodes"] if n["state"] == "configured"]

    def row(self, n, events, runs, settle):
        print(f"# {n} nodes", flush=True)
        begin = time.monotonic()
        made = self.worlds.make(n)
        self.worlds.plug(made)
        made_s = time.monotonic() - begin
        self.fake.add(made)
        self.fake.happen("start", *made[events:])
        status = self.start()
        self.assertEqual(n - events, len(self.configured()))
        first = status["ready_us"] / 1000
        follow = Follow(f"{self.lab.install()}/tbnode")
        took, before = [], cpu_ms(self.lab.tbnoded.pid)
        for c in made[:events]:
            self.fake.happen("start", c)
            took.append(follow.wait(c["id"]))
        event_cpu = (cpu_ms(self.lab.tbnoded.pid) - before) / max(1, len(took))
        follow.stop()
        ready, cpu, engine_cpu, writes = [], [], [], 0
        for _ in range(runs):
            self.lab.tbnoded.kill()
            before = cpu_ms(self.fake.pid)
            status = self.start()
            cpu.append(cpu_ms(self.lab.tbnoded.pid))
            engine_cpu.append(cpu_ms(self.fake.pid) - before)
            self.assertEqual(n, len(self.configured()))
            ready.append(status["ready_us"] / 1000)
            writes += status["counters"]["kernel_writes"]
        pid = self.lab.tbnoded.pid
        time.sleep(settle)
        memory = benchlib.memory(pid)
        begin = time.monotonic()
        self.worlds.end(made)
        self.fake.happen("die", *made)
        self.fake.happen("destroy", *made)
        lab.wait_for(lambda: not self.lab.traces(), 120, "no traces")
        gone = time.monotonic() - begin
        self.lab.tbnoded.stop()
        self.ready = ready
        return {"nodes": n, "made_s": round(made_s, 1), "first_ms": round(first, 3),
                "event_ms": {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "n": len(took)},
                "event_cpu_ms": round(event_cpu, 3),
                "ready_ms": benchlib.summary(ready), "cpu_ms": benchlib.summary(cpu), "engine_cpu_ms": benchlib.summary(engine_cpu),
                "kernel_writes": writes, **memory,
                "gone_ms": round(gone * 1000)}

    def test_bench(self):
        args = benchlib.arguments()
        self.lab = lab.Lab.get()
        self.worlds = worlds.Worlds()
        self.fake = Fake(f"{self.lab.dir}/logs", SOCKET).start()
        try:
            rows = [self.row(n, min(args.events, n), args.runs, args.settle) for n in sorted(args.nodes)]
        finally:
            self.fake.kill()
        a, b = rows[0], rows[-1]
        times = b["nodes"] / a["nodes"]
        growth = {"ready": round(b["ready_ms"]["median"] / a["ready_ms"]["median"] / times, 3),
                  "first": round(b["first_ms"] / a["first_ms"] / times, 3),
                  "event_p50": round(b["event_ms"]["p50"] / a["event_ms"]["p50"], 3),
                  "kb_per_node": round((b["rss_kb"] - a["rss_kb"]) / max(1, b["nodes"] - a["nodes"]), 2)}
        benchlib.answer("scale", {"nodes": sorted(args.nodes), "events": args.events}, "ms", self.ready, {}, engine="fake", rows=rows,
                        growth=growth)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench scale", description=__doc__.split("\n")[0])
    parser.add_argument("nodes", nargs="*", type=int, default=[10, 200, 1000], help="numbers of nodes (10 200 1000)")
    parser.add_argument("--events", type=int, default=50, help="nodes that start one by one (50)")
    parser.add_argument("--runs", type=int, default=5, help="restarts (5)")
    parser.add_argument("--settle", type=int, default=7, help="seconds before memory is looked at (7: agent/memory.c waits for 5 of quiet)")
    benchlib.run_in_lab(parser, lab.main)
