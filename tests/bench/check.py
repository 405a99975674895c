#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""check.py NAME [ARGS]: runs scripts/bench and looks at the form of its answer (design.md 4.12), never at the figures."""

import json
import os
import subprocess
import sys

# What each benchmark answers beyond the keys that all have.
OTHERS = {"augment": {"docker_warm", "docker_cold", "http_floor"}, "netctl": {"exec", "tc_batch"},
          "init": {"original"}, "mirror": {"skopeo"}, "fidelity": {"tc_by_hand"}, "start": {"without"},
          "firewall": {"restore", "linear"}, "restart": set(), "idle": set(),
          "rules": {"none", "few", "u32_linear"}, "chaos": set(), "gap": set(), "fleet": set(), "gate": set(), "scale": set()}
EXTRA = {"augment": {"cache_hit_ms", "head_ms", "first", "sixty"}, "netctl": {"noop_ms", "noop_writes", "bytes_per_node"},
         "init": {"overhead_ms", "node_start_ms"}, "mirror": {"rows", "rss_kb", "head_loop"},
         "fidelity": {"rows", "verdicts"}, "start": {"event_to_configured_ms", "unlabelled_ms"},
         "firewall": {"backend", "commit_ms", "path_ratio_1000_10"}, "restart": {"ready_ms", "kernel_writes"},
         "gap": {"passed", "flush_ms"}, "idle": {"wakeups_per_s", "rss_kb"}, "rules": {"cost_ns"},
         "fleet": {"registry", "cpu_ms_per_node", "registry_nodes_per_s"},
         "gate": {"passed", "unshaped", "refused", "open_ms"}, "scale": {"rows", "growth"}, "chaos": {"events", "violations", "seed"}}


def main():
    name = sys.argv[1].removesuffix("-long")
    source = os.environ.get("TBNODE_SOURCE_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    if name != sys.argv[1] and os.environ.get("TBNODE_TEST_LONG") != "yes":
        print("SKIP: one of the long ones (scripts/test --long)")
        sys.exit(77)
    p = subprocess.run([f"{source}/scripts/bench", name, *sys.argv[2:]], stdout=subprocess.PIPE, text=True)
    if p.returncode == 77:
        sys.exit(77)
    if p.returncode != 0:
        sys.exit(f"bench {name}: exit status {p.returncode}")
    value = json.loads(p.stdout)  # fails on anything before or behind the one object
    assert value["bench"] == name, value
    assert {"args", "machine", "runs", "unit", "ours", "others", "ratios"} <= value.keys(), value.keys()
    assert {"cores", "kernel", "engine"} <= value["machine"].keys(), value["machine"]
    assert isinstance(value["runs"], int) and value["runs"] >= 1
    assert OTHERS[name] == value["others"].keys() == value["ratios"].keys(), value
    assert EXTRA[name] <= value.keys(), value.keys()
    for side in (value["ours"], *value["others"].values()):
        assert 0 < side["min"] <= side["median"] <= side["max"], side
    assert all(r > 0 for r in value["ratios"].values()), value["ratios"]
    print(json.dumps(value, indent=2))


if __name__ == "__main__":
    main()
