# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent and its command line from a build with sanitizers, in a laboratory that else comes from the plain build.

TBNODE_SANITIZED_DIR names that build. Each report becomes a file, whoever ran the program and whatever became of its standard
error; a report is one failed test case. Not the worker: its sandbox has no room for AddressSanitizer's shadow."""

import glob
import os

PROGRAMS = ("agent/tbnoded", "agent/tbnode", "agent/tbnode-runtime")


def build():
    return os.environ.get("TBNODE_SANITIZED_DIR")


def folder(lab_dir):
    return f"{lab_dir}/logs/sanitizer"


def arrange(lab_dir):
    """Before anything starts: what dockerd runs has its environment."""
    if not build():
        return
    os.makedirs(folder(lab_dir), exist_ok=True)
    os.chmod(folder(lab_dir), 0o1777)  # whoever runs a program writes there
    path = f"log_path={folder(lab_dir)}/report"
    os.environ.update({"ASAN_OPTIONS": f"detect_leaks=1:{path}", "LSAN_OPTIONS": path,
                       "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:{path}"})


def reports(lab_dir):
    """Lines of all that was reported."""
    lines = []
    for path in sorted(glob.glob(f"{folder(lab_dir)}/report*")):
        with open(path, encoding="utf-8", errors="replace") as f:
            lines += [line.rstrip() for line in f][:60]
    return lines
