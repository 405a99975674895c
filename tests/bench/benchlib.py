# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks share: the form of their answer (design.md 4.12) and the laboratory to run in.

A benchmark that needs an engine or registries looks like a test file with one case:

    import benchlib                       # puts tests/engine on sys.path
    import lab

    class Bench(unittest.TestCase):
        def test_bench(self):
            args = benchlib.arguments()
            ...
            benchlib.answer("name", vars(args), "ms", ours, {"other": [...]}, extra_key=1)

    if __name__ == "__main__":
        parser = argparse.ArgumentParser(...)
        benchlib.run_in_lab(parser, lab.main)
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "engine"))

OUT, ARGS = "TBNODE_BENCH_OUT", "TBNODE_BENCH_ARGS"


def run_in_lab(parser, lab_main, **lab_options):
    """Outside: runs this file again as a laboratory's test file and prints the answer it left. Inside: runs it."""
    if OUT in os.environ:
        lab_main(**lab_options)
        return
    args = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="tbnode-bench-") as folder:
        out = f"{folder}/answer.json"
        env = dict(os.environ, **{OUT: out, ARGS: json.dumps(args)})
        rc = subprocess.run([sys.executable, sys.argv[0]], stdout=sys.stderr, env=env).returncode
        if not os.path.exists(out):
            print(f"bench: no result (status {rc}); what went wrong is above", file=sys.stderr)
            sys.exit(rc or 1)  # 77: skipped, and it was said why
        with open(out, encoding="utf-8") as f:
            print(f.read().strip(), flush=True)
        if rc != 0:
            print("bench: the laboratory found something after the measurement; it is above", file=sys.stderr)
        sys.exit(rc)


def arguments():
    """The command line's arguments, inside."""
    return argparse.Namespace(**json.loads(os.environ[ARGS]))


def summary(values):
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4),
            "max": round(max(values), 4)}


def ratio(other, ours):
    """Median of the paired ratios; above 1 = we are faster."""
    return round(statistics.median(b / a for a, b in zip(ours, other, strict=True)), 3)


def memory(pid):
    """What a process has of this machine's memory, in kB. rss: all that is mapped and resident; pss: what it shares, by how many share it;
    uss: nobody else has it, and it would be free if the process ended; anonymous: not a file's."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        kb = {x.split(":")[0]: int(x.split()[1]) for x in f if x.endswith("kB\n")}
    return {"rss_kb": kb["Rss"], "pss_kb": kb["Pss"], "uss_kb": kb["Private_Clean"] + kb["Private_Dirty"], "anonymous_kb": kb["Anonymous"]}


def machine(engine=""):
    return {"cores": os.cpu_count(), "kernel": platform.release(), "engine": engine}


def answer(bench, args, unit, ours, others, engine="", **extra):
    """Leaves the object for run_in_lab(). ours: values by run; others: {name: values by run}."""
    value = {"bench": bench, "args": args, "machine": machine(engine), "runs": len(ours), "unit": unit,
             "ours": summary(ours), "others": {k: summary(v) for k, v in others.items()},
             "ratios": {k: ratio(v, ours) for k, v in others.items()}, **extra}
    with open(os.environ[OUT], "w", encoding="utf-8") as f:
        json.dump(value, f)
