#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""fill.py TEMPLATE PROGRAM [VERSION]: a man page on stdout.

What the programs' own --help says is put where the template has a line

    @KEYS@      keys of the configuration (of tbnoded)
    @OPTIONS@   options of the program
    @VERBS@     the help of each verb
    @HELP@      all of --help

so pages and programs cannot differ. The rest is mdoc(7).
"""

import re
import subprocess
import sys


def text_of(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
                          env={"PATH": "/usr/bin:/bin", "TBNODE_SOCKET": "/nonexistent", "ASAN_OPTIONS": "detect_leaks=0"}).stdout


def escape(s):
    s = s.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + s if s[:1] in (".", "'") else s


def literal(text):
    return ".Bd -literal\n" + "".join(escape(x) + "\n" for x in text.strip("\n").splitlines()) + ".Ed\n"


def keys(text):
    found = re.findall(r"^  ([a-z-]+)=(\S.*)\n        (.*)$", text, re.M)
    return ".Bl -tag -width Ds\n" + "".join(f".It Cm {escape(k)}= Ns Ar {escape(v)}\n{escape(h)}.\n" for k, v, h in found) + ".El\n"


def options(text):
    found = re.findall(r"^  ((?:-\w, )?--[a-z-]+(?:[ =][A-Z/|a-z]+)?)  +(\S.*(?:\n {12,}\S.*)*)", text, re.M)
    return ".Bl -tag -width Ds\n" + "".join(f".It Cm {escape(o)}\n{escape(' '.join(d.split()))}\n" for o, d in found) + ".El\n"


def verbs(program, text):
    names = dict.fromkeys(re.findall(r"^  ([a-z][a-z-]+)(?: [^ ]+)*  +\S", text, re.M))
    return "".join(f".Ss {escape(v)}\n" + literal(text_of(program, v, "--help")) for v in names)


def main():
    template, program = sys.argv[1:3]
    text = text_of(program, "--help")
    parts = {"@KEYS@": lambda: keys(text), "@OPTIONS@": lambda: options(text), "@HELP@": lambda: literal(text),
             "@VERBS@": lambda: verbs(program, text)}
    with open(template, encoding="utf-8") as f:
        for line in f:
            sys.stdout.write(parts[line.strip()]() if line.strip() in parts else line)


if __name__ == "__main__":
    main()
