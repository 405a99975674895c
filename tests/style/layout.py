#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Layout and habits that a machine can check: clang-format, licence lines, calls the product does without."""

import re
import shutil
import subprocess
import sys
import unittest

from tracked import ROOT, tracked

PRODUCT = ("common/", "registry-client/", "augment/", "netctl/", "agent/")

# Why each is not used: shells and unbounded copies are how input becomes code, atoi() has no errors, and whoever
# sleeps or polls has not found the event to wait for.
FORBIDDEN = re.compile(
    r"(?<![\w.>])(system|popen|strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof|usleep|sleep|nanosleep|"
    r"rand|mktemp|tmpnam|alloca)\s*\(")


def strip_comments(text):
    """Blanks comments and string literals, keeps line numbers."""
    def blank(m):
        return re.sub(r"[^\n]", " ", m.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


class Layout(unittest.TestCase):
    def test_clang_format(self):
        tool = shutil.which("clang-format-14") or shutil.which("clang-format")
        if not tool:
            self.skipTest("clang-format is not installed")
        files = tracked("*.c", "*.h")
        r = subprocess.run([tool, "--dry-run", "-Werror", *files], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        self.assertEqual(r.returncode, 0, r.stderr[-4000:] + "\nrun: clang-format -i FILE")

    def test_licence_lines(self):
        for path in tracked("*.c", "*.h", "*.py", "*.sh", "scripts/*", ".ci/run"):
            with self.subTest(path):
                text = (ROOT / path).read_text(encoding="utf-8")
                self.assertIn("SPDX-License-Identifier: LGPL-2.1-or-later", "\n".join(text.splitlines()[:3]) or "")

    def test_forbidden_calls(self):
        wrong = []
        for path in tracked("*.c", "*.h"):
            if not path.startswith(PRODUCT):
                continue
            text = strip_comments((ROOT / path).read_text(encoding="utf-8"))
            for number, line in enumerate(text.splitlines(), 1):
                m = FORBIDDEN.search(line)
                if m:
                    wrong.append(f"{path}:{number}: {m.group(1)}()")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_nothing_left_for_later(self):
        marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
        wrong = []
        for path in tracked("*.c", "*.h", "*.py", "meson.build", "*/meson.build", "scripts/*"):
            if path == "tests/summary.py":  # reads TAP, which has a directive of that name
                continue
            for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
                if marks.search(line.replace("XXXXXX", "")):
                    wrong.append(f"{path}:{number}: {line.strip()}")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_spelling(self):
        if not shutil.which("codespell"):
            self.skipTest("codespell is not installed")
        files = [f for f in tracked() if not f.startswith("tests/fuzz/corpus/")]
        r = subprocess.run(
            ["codespell", "-L", "crate,afile,wont,ot,te,nd,hel,fo,ba,ue,ro,mis,inout,stap,ans,clen,datas,thru,ths,nin",
             *files], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.assertEqual(r.stdout.strip(), "")

    def test_shell_scripts(self):
        if not shutil.which("shellcheck"):
            self.skipTest("shellcheck is not installed")
        scripts = [p for p in tracked() if (ROOT / p).read_bytes()[:64].split(b"\n")[0] in
                   (b"#!/bin/bash", b"#!/bin/sh", b"#!/usr/bin/env bash")]
        r = subprocess.run(["shellcheck", "-x", *scripts], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.assertEqual(r.returncode, 0, r.stdout[-4000:])

    def test_python_compiles(self):
        for path in tracked("*.py"):
            with self.subTest(path):
                compile((ROOT / path).read_text(encoding="utf-8"), path, "exec")

    def test_file_sizes(self):
        """A file has one subject; one that has grown past 700 lines has two."""
        for path in tracked("*.c", "*.h"):
            if path.startswith(PRODUCT):
                with self.subTest(path):
                    lines = (ROOT / path).read_text(encoding="utf-8").count("\n")
                    self.assertLessEqual(lines, 700, path)


if __name__ == "__main__":
    unittest.main(verbosity=2)
