#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes what is installed of the registry client out of what it is built from.

    header IN OUT              a public header as <tbregistry/NAME.h>: includes of the tree become includes beside it
    symbols OUT HEADER...      the linker's version script: what the headers declare is exported, nothing else
    static OUT SCRIPT CC... -- LIBRARY...   one archive with one object, in which only the exported names are global
"""

import os
import re
import subprocess
import sys
import tempfile

# What the headers of the tree are called where they are installed. macro.h has more than they need.
INSTALLED = {"common/macro.h": "attribute.h", "common/attribute.h": "attribute.h", "common/error.h": "error.h",
             "common/digest.h": "digest.h", "registry-client/registry.h": "registry.h"}


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def header(source, out):
    def include(m):
        if m.group(1) not in INSTALLED:
            sys.exit(f"{source}: includes {m.group(1)}, which is not installed")
        return f"#include <tbregistry/{INSTALLED[m.group(1)]}>"
    text = re.sub(r'#include "([^"]+)"', include, read(source))
    with open(out, "w", encoding="utf-8") as f:
        f.write(text.replace("(common/error.h:", "(error.h:"))


def functions(path):
    """Names of the functions that a header declares; inline ones are in every program already."""
    text = re.sub(r"/\*.*?\*/", "", read(path), flags=re.S)
    text = re.sub(r"^#(?:.*\\\n)*.*", "", text, flags=re.M)
    text = re.sub(r"static inline.*?\n\}", "", text, flags=re.S)
    return set(re.findall(r"\b((?:registry|tb)_[a-z0-9_]+)\s*\((?!\*)", text))


def symbols(out, *headers):
    names = sorted(set().union(*map(functions, headers)))
    with open(out, "w", encoding="utf-8") as f:
        f.write("LIBTBREGISTRY_0 {\nglobal:\n" + "".join(f"        {n};\n" for n in names) + "local:\n        *;\n};\n")


def static(out, script, *rest):
    """Static linking knows no visibility: without this, names like http_add would clash with the program's own."""
    at = rest.index("--")
    compiler, ours, common = rest[:at], rest[at + 1], rest[at + 2:]
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(out))) as d:
        names, obj = f"{d}/names", f"{d}/tbregistry.o"
        with open(names, "w", encoding="utf-8") as f:
            f.write("".join(f"{n}\n" for n in re.findall(r"(\w+);", read(script).split("local:")[0])))
        subprocess.run([*compiler, "-r", "-nostdlib", "-o", obj, "-Wl,--whole-archive", ours, "-Wl,--no-whole-archive",
                        *common], check=True)
        subprocess.run(["objcopy", f"--keep-global-symbols={names}", obj], check=True)
        if os.path.exists(out):
            os.unlink(out)
        subprocess.run(["ar", "rcsD", out, obj], check=True)


{"header": header, "symbols": symbols, "static": static}[sys.argv[1]](*sys.argv[2:])
