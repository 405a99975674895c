#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enforces the dependency table of docs/ARCHITECTURE.md: which folder may include headers of which.

The table is read from the document, so that text and check cannot drift apart.
"""

import re
import subprocess
import sys
import unittest

from tracked import ROOT, tracked


def rules():
    """{folder: set of folders it may include}, from the table rows "| `folder/` | ... | may include |"."""
    table = {}
    for line in (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        m = re.match(r"\| `([a-z/-]+)/` \|.*\|([^|]*)\|$", line)
        if m:
            table[m.group(1)] = {f.rstrip("/") for f in re.findall(r"`([a-z/-]+)/`", m.group(2))}
    return table


class Includes(unittest.TestCase):
    def test_table_covers_every_folder_with_c(self):
        table = rules()
        for path in tracked("*.c", "*.h"):
            self.assertIsNotNone(folder_of(path, table), f"{path}: its folder is not in docs/ARCHITECTURE.md's table")

    def test_directions(self):
        table = rules()
        wrong = []
        for path in tracked("*.c", "*.h"):
            own = folder_of(path, table)
            for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
                m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
                if not m:
                    continue
                target = m.group(1)
                if not (ROOT / target).is_file():
                    # Generated headers and those beside a test have no folder in their name.
                    if "/" in target:
                        wrong.append(f"{path}:{number}: \"{target}\" is not a file of the tree")
                    continue
                other = folder_of(target, table)
                if other != own and other not in table[own]:
                    wrong.append(f"{path}:{number}: {own}/ may not include {other}/ (\"{target}\")")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_table_has_no_cycle(self):
        table = {k: set(v) for k, v in rules().items()}
        while table:
            leaves = [k for k, v in table.items() if not v & set(table)]
            self.assertTrue(leaves, f"the table has a cycle among {sorted(table)}")
            for k in leaves:
                del table[k]


class Documents(unittest.TestCase):
    def test_files_that_documents_name_exist(self):
        wrong = []
        for path in tracked("*.md"):
            for name in re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:c|h|py|md|build))`",
                                   (ROOT / path).read_text(encoding="utf-8")):
                if not (ROOT / name).is_file() and not (ROOT / path).parent.joinpath(name).is_file():
                    wrong.append(f"{path}: {name}")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))


def folder_of(path, table):
    """The longest folder of the table that holds the path."""
    parts = path.split("/")[:-1]
    while parts:
        if "/".join(parts) in table:
            return "/".join(parts)
        parts.pop()
    return None


if __name__ == "__main__":
    unittest.main(verbosity=2)
