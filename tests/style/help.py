#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""--help, --version and wrong usage of every program, and that docs/ names each verb and option that --help names."""

import os
import re
import subprocess
import unittest

from tracked import ROOT

BUILD = os.environ.get("TBNODE_BUILD_DIR", str(ROOT / "build"))
PROGRAMS = ["agent/tbnode", "agent/tbnoded", "registry-client/tbnode-registry", "netctl/tbnode-netctl"]
WIDTH = 110


def run(program, *args):
    # Not as root's agent: a client that asked a running one would give its answer instead of ours.
    env = {**os.environ, "TBNODE_SOCKET": "/nonexistent/tbnoded.sock"}
    return subprocess.run([f"{BUILD}/{program}", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=30, env=env)


def verbs(text):
    """First words of the lines "  verb [ARGUMENTS]  what it does"."""
    return sorted(set(re.findall(r"^  ([a-z][a-z-]+)(?: [^ ]+)*  +\S", text, re.M)))


class Programs(unittest.TestCase):
    def each(self, check):
        for program in PROGRAMS:
            with self.subTest(program):
                self.assertTrue(os.access(f"{BUILD}/{program}", os.X_OK), f"{program} is not built")
                check(program)

    def test_help(self):
        def check(program):
            r = run(program, "--help")
            self.assertEqual(r.returncode, 0, r)
            self.assertEqual(r.stderr, "", "help that was asked for goes to stdout")
            self.assertTrue(r.stdout.strip())
            for line in r.stdout.splitlines():
                self.assertLessEqual(len(line), WIDTH, line)
                self.assertEqual(line, line.rstrip(), "white space at the end of a line")
        self.each(check)

    def test_version(self):
        version = re.search(r"version: '([\d.]+)'", (ROOT / "meson.build").read_text(encoding="utf-8")).group(1)

        def check(program):
            r = run(program, "--version")
            self.assertEqual((r.returncode, r.stderr), (0, ""), r)
            self.assertEqual(r.stdout.strip(), f"{os.path.basename(program)} {version}")
        self.each(check)

    def test_wrong_usage(self):
        def check(program):
            r = run(program, "--no-such-option")
            self.assertEqual(r.returncode, 2, r)
            self.assertEqual(r.stdout, "", r)
            self.assertIn("no-such-option", r.stderr)
        self.each(check)

    def test_docs_name_every_verb_and_option(self):
        docs = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))

        def check(program):
            name = os.path.basename(program)
            text = run(program, "--help").stdout
            missing = [v for v in verbs(text) if not re.search(rf"`(?:{name} )?{v}\b", docs)]
            if name == "tbnode":
                for verb in verbs(text):
                    r = run(program, verb, "--help")
                    self.assertEqual((r.returncode, r.stderr), (0, ""), r)
                    text += r.stdout
            missing += [o for o in sorted(set(re.findall(r"--[a-z][a-z-]+", text))) if o not in docs]
            self.assertEqual(missing, [], f"docs/*.md do not name these of {name}")
        self.each(check)


if __name__ == "__main__":
    unittest.main(verbosity=2)
