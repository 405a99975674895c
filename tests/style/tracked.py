# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files git tracks or would track, so that checks see new ones too and never a build directory."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(os.environ.get("TBNODE_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))


def tracked(*patterns):
    out = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--",
         *patterns], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    return sorted(p for p in out.decode().split("\0") if p and (ROOT / p).is_file())
