# SPDX-License-Identifier: LGPL-2.1-or-later
"""A minimal Debian root as a tarball, made once by debootstrap where the apt mirror is reachable."""

import fcntl
import os
import re
import subprocess
import sys
import tempfile

CACHE = os.environ.get("TBNODE_TEST_CACHE", "/var/cache/tbnode-tests")
SUITE = "bookworm"


def mirror():
    """The archive this machine's apt uses, so that a local mirror is honoured."""
    found = []
    for base, _, files in os.walk("/etc/apt"):
        for name in sorted(files):
            if name == "sources.list" or (base.endswith("sources.list.d") and name.endswith((".list", ".sources"))):
                with open(os.path.join(base, name), encoding="utf-8") as f:
                    for line in f:
                        m = re.match(r"\s*(?:deb(?:\s+\[[^]]*\])?|URIs:)\s+((?:https?|file)://\S+)", line)
                        if m and re.search(r"/debian/?$", m.group(1)):
                            found.append(m.group(1))
    return found[0] if found else "http://deb.debian.org/debian"


def tarball():
    """Path of the root's tarball; made when missing (about a minute)."""
    os.makedirs(CACHE, exist_ok=True)
    path = f"{CACHE}/debian-{SUITE}.tar"
    with open(f"{CACHE}/.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(path):
            return path
        print(f"# making {path} with debootstrap", file=sys.stderr, flush=True)
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
        with tempfile.TemporaryDirectory(prefix="root-", dir=CACHE) as work:
            # In its own mount namespace, so that nothing stays mounted whatever happens.
            subprocess.run(["unshare", "--mount", "debootstrap", "--variant=minbase", SUITE, f"{work}/root", mirror()],
                           check=True, stdout=sys.stderr, env=env)
            subprocess.run(["tar", "-C", f"{work}/root", "--sort=name", "--numeric-owner", "--exclude=./dev/*",
                            "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./var/cache/apt/*",
                            "--exclude=./var/lib/apt/lists/*", "--exclude=./var/log/*", "-cf", f"{path}.new", "."],
                           check=True)
        os.rename(f"{path}.new", path)
    return path
