#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Man pages: man has nothing to complain of, and each verb, option and key that --help names is in them."""

import os
import re
import shutil
import subprocess
import unittest

from tracked import ROOT

BUILD = os.environ.get("TBNODE_BUILD_DIR", str(ROOT / "build"))
PAGES = {"tbnode.1": "agent/tbnode", "tbnode-registry.1": "registry-client/tbnode-registry", "tbnode-netctl.8": "netctl/tbnode-netctl",
         "tbnoded.8": "agent/tbnoded", "tbnoded.conf.5": "agent/tbnoded", "tbnode-runtime.8": None}


def text_of(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          env={**os.environ, "MANWIDTH": "200", "MANROFFOPT": "-c", "TBNODE_SOCKET": "/nonexistent", "LC_ALL": "C.UTF-8"})


@unittest.skipUnless(shutil.which("man") and shutil.which("groff"), "there is no man, or no groff")
class Pages(unittest.TestCase):
    def shown(self, page):
        r = text_of("man", "-l", "--warnings", "-E", "ascii", f"{BUILD}/docs/{page}")
        self.assertEqual((0, ""), (r.returncode, r.stderr), page)
        return re.sub(r".\x08", "", r.stdout).replace("‐", "-").replace("−", "-")

    def test_pages_are_clean_and_have_what_help_names(self):
        for page, program in PAGES.items():
            with self.subTest(page):
                shown = self.shown(page)
                for section in ("NAME", "SYNOPSIS", "DESCRIPTION"):
                    self.assertIn(f"\n{section}\n", "\n" + shown)
                if not program:
                    continue
                told = text_of(f"{BUILD}/{program}", "--help").stdout
                self.assertTrue(told)
                keys = re.findall(r"^  ([a-z-]+)=\S", told, re.M)
                options = re.findall(r"(?<![\w-])--[a-z][a-z-]+", told)
                if page != "tbnoded.conf.5":
                    for o in set(options) - {"--help", "--version"}:
                        self.assertIn(o, shown)
                if page == "tbnoded.conf.5":
                    self.assertGreater(len(keys), 30)
                    for k in keys:
                        self.assertIn(f"{k}=", shown.replace(" ", ""))

    def test_verbs_and_their_options(self):
        shown = self.shown("tbnode.1")
        told = text_of(f"{BUILD}/agent/tbnode", "--help").stdout
        for verb in re.findall(r"^  ([a-z]+)  +\S", told, re.M):
            self.assertRegex(shown, rf"\n +{verb}\n", verb)
            for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text_of(f"{BUILD}/agent/tbnode", verb, "--help").stdout)):
                self.assertIn(option, shown)


if __name__ == "__main__":
    unittest.main()
