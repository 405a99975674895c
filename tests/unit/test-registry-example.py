#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the C program of a documentation page to a file: what readers copy must compile."""

import re
import sys

page, out = sys.argv[1:]
with open(page, encoding="utf-8") as f:
    programs = re.findall(r"^```c\n(.*?)^```$", f.read(), re.M | re.S)
if len(programs) != 1:
    sys.exit(f"{page}: expected one C program, found {len(programs)}")
with open(out, "w", encoding="utf-8") as f:
    f.write(f'#line 1 "{page} (example)"\n{programs[0]}')
