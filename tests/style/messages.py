#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages with a number, the catalogue, the unit and what it is allowed, and what the configuration's keys are told to be."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from tracked import ROOT

BUILD = os.environ.get("TBNODE_BUILD_DIR", str(ROOT / "build"))
CATALOG = ROOT / "data/tbnoded.catalog"
# systemd-analyze's figure for tbnoded.service; 10 is a service that may do anything. It may go down, not up.
EXPOSURE_MAX = 3.9


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def entries():
    """{number: text of the entry}"""
    parts = re.split(r"^-- ([0-9a-f]{32})$", CATALOG.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


class Messages(unittest.TestCase):
    def numbers(self):
        return dict(re.findall(r'^#define (MESSAGE_[A-Z_]+) "([0-9a-f]{32})"$', read("agent/message.h"), re.M))

    def test_each_number_of_the_code_is_in_the_catalogue_and_the_other_way_round(self):
        numbers = self.numbers()
        self.assertGreaterEqual(len(numbers), 15)
        self.assertEqual(len(numbers), len(set(numbers.values())), "one number for two messages")
        self.assertEqual(set(numbers.values()), set(entries()))

    def test_each_number_is_used(self):
        code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "agent").glob("*.c"))
        for name in self.numbers():
            self.assertRegex(code, rf"\b{name}\b")

    def test_entries_say_what_it_is_and_what_to_do(self):
        for number, text in entries().items():
            head, *paragraphs = text.strip().split("\n\n")
            self.assertRegex(head, r"^Subject: \S.*\nDefined-By: tbnode\nDocumentation: \S+$", number)
            self.assertGreaterEqual(len(paragraphs), 2, f"{number}: what happened, and what to do")

    def test_the_operators_guide_has_each_of_them(self):
        guide = read("docs/operator.md")
        for number, text in entries().items():
            subject = re.search(r"Subject: (.*)", text)[1].replace("@TBNODE_NODE@", "NODE")
            self.assertIn(subject, guide, number)

    @unittest.skipUnless(shutil.which("journalctl"), "there is no journalctl")
    def test_journald_takes_it(self):
        with tempfile.TemporaryDirectory() as root:
            shutil.copytree(ROOT / "data", f"{root}/usr/lib/systemd/catalog", ignore=lambda d, names: [n for n in names if n != "tbnoded.catalog"])
            os.makedirs(f"{root}/var/lib/systemd/catalog")
            r = subprocess.run(["journalctl", f"--root={root}", "--update-catalog"], capture_output=True, text=True, timeout=60)
            self.assertEqual((0, ""), (r.returncode, r.stderr))
            r = subprocess.run(["journalctl", f"--root={root}", "--list-catalog"], capture_output=True, text=True, timeout=60)
            for number in entries():
                self.assertIn(number, r.stdout)


class Unit(unittest.TestCase):
    def unit(self):
        with open(f"{BUILD}/data/tbnoded.service", encoding="utf-8") as f:
            text = f.read()
        return re.sub(r"^(ExecStart|ExecStartPre|ExecReload)=.*/tbnoded( .*)?$", r"\1=/bin/true", text, flags=re.M)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd-analyze")
    def test_units_are_good_and_the_service_may_do_little(self):
        with tempfile.TemporaryDirectory() as d:
            with open(f"{d}/tbnoded.service", "w", encoding="utf-8") as f:
                f.write(self.unit())
            for name in ("tbnode-registry-gc.service", "tbnode-registry-gc.timer"):
                text = re.sub(r"^(ExecStart)=.*$", r"\1=/bin/true", read(f"data/{name}"), flags=re.M)
                with open(f"{d}/{name}", "w", encoding="utf-8") as f:
                    f.write(text.replace("User=docker-registry\n", ""))
            env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{d}:"}
            for name in ("tbnoded.service", "tbnode-registry-gc.timer"):
                r = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", f"{d}/{name}"], capture_output=True, text=True, env=env, timeout=60)
                ours = [x for x in r.stderr.splitlines() if "tbnode" in x]
                self.assertEqual([], ours)
            r = subprocess.run(["systemd-analyze", "security", "--offline=yes", f"{d}/tbnoded.service"], capture_output=True, text=True, timeout=60)
            figure = float(re.search(r"Overall exposure level for tbnoded.service: ([0-9.]+)", r.stdout)[1])
            self.assertLessEqual(figure, EXPOSURE_MAX)
            self.assertIn(f"{figure} of 10", read("docs/operator.md"))


class Keys(unittest.TestCase):
    def test_the_guide_says_which_keys_need_a_restart(self):
        code = read("agent/config.c")
        table = code[code.index("config_keys[] = {"):code.index("const char *config_key_at")]
        keys = {m[1]: "LIVE(" in m[0] for m in re.finditer(r'\{"([a-z-]+)", (?:[^{}]|\{[^}]*\})*?\}', table)}
        self.assertGreater(len(keys), 30)
        guide = read("docs/operator.md")
        live = re.search(r"hold at once: ([^.]*)\.", guide)[1]
        self.assertEqual({k for k, v in keys.items() if v}, set(re.findall(r"`([a-z-]+)`", live)))


if __name__ == "__main__":
    unittest.main()
