#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/api.yaml and the operations of the code are the same; the reference names each of them; the document holds together."""

import re
import sys
import unittest

sys.path.append("/usr/lib/python3/dist-packages")  # Debian's, whichever python3 this is

import yaml  # noqa: E402

from tracked import ROOT  # noqa: E402

DOCUMENT = yaml.safe_load((ROOT / "docs/api.yaml").read_text(encoding="utf-8"))
OPERATION = re.compile(r'^        \{"([A-Z]+)", "(/[^"]*)", op_', re.M)


def code():
    found = OPERATION.findall((ROOT / "agent/api-ops.c").read_text(encoding="utf-8"))
    return {(method, path) for method, path in found}


def documented():
    return {(method.upper(), re.sub(r"\{[^}]*\}", "{}", path)): operation for path, item in DOCUMENT["paths"].items()
            for method, operation in item.items() if method != "parameters"}


class Api(unittest.TestCase):
    def test_each_operation_of_the_code_is_in_the_document_and_the_other_way_round(self):
        self.assertGreater(len(code()), 20)
        self.assertEqual(set(), code() - set(documented()), "not in docs/api.yaml")
        self.assertEqual(set(), set(documented()) - code(), "not in agent/api-ops.c")

    def test_each_path_names_its_variable_parts(self):
        for path, item in DOCUMENT["paths"].items():
            names = {self.resolve(p)["name"] for p in item.get("parameters", [])}
            self.assertEqual(set(re.findall(r"\{([^}]*)\}", path)), names, path)

    def test_each_operation_is_told_with_its_refusal(self):
        seen = set()
        for (method, path), operation in documented().items():
            self.assertTrue(operation["summary"], path)
            self.assertNotIn(operation["operationId"], seen)
            seen.add(operation["operationId"])
            self.assertTrue({"200", "101"} & set(operation["responses"]), (method, path))
            self.assertIn("default", operation["responses"], (method, path))

    def resolve(self, part):
        while "$ref" in part:
            found = DOCUMENT
            for step in part["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            part = found
        return part

    def test_references_lead_somewhere(self):
        def walk(part):
            if isinstance(part, dict):
                self.resolve(part)
                part = part.values()
            elif not isinstance(part, list):
                return
            for x in part:
                walk(x)
        walk(DOCUMENT["paths"])
        walk(DOCUMENT["components"])


if __name__ == "__main__":
    unittest.main()
