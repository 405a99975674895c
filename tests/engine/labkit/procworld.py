# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world of a process as /proc shows it from outside: for programs that can't tell it themselves."""

import os
import re

STATUS = ("Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "ShdPnd", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
          "NoNewPrivs", "Seccomp", "Seccomp_filters", "Umask", "Cpus_allowed")


def _read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def children(pid):
    """Direct children, oldest first."""
    try:
        return [int(p) for p in _read(f"/proc/{pid}/task/{pid}/children").split()]
    except OSError:
        return []


def tree(pid):
    """pid and all below it."""
    return [pid, *[p for c in children(pid) for p in tree(c)]]


def ours(pid):
    """Whether a process is one of the payload's programs, which belong to init and not to the image."""
    try:
        return os.readlink(f"/proc/{pid}/exe").startswith("/tbnode/")
    except OSError:
        return False


def main_of(pid):
    """The image's program below a container's first process: itself, where init has handed over to it; else the one
    that has a parent of ours and isn't ours. Services of ours (sshd, the client) have no such children here."""
    if not ours(pid):
        return pid
    for p in tree(pid):
        if not ours(p):
            return p
    return None


def _fd(target):
    """What an open descriptor leads to, without what is new in each run."""
    target = re.sub(r"^(pipe|socket|anon_inode):.*", r"\1", target)
    return re.sub(r"[0-9]+", "N", target)


def world(pid):
    """What a process has been given: command, environment, user, rights, signals, directory, limits, standard fds."""
    base = f"/proc/{pid}"
    status = dict(line.split(":\t", 1) for line in _read(f"{base}/status").splitlines() if ":\t" in line)
    fds = {fd: _fd(os.readlink(f"{base}/fd/{fd}")) for fd in ("0", "1", "2") if os.path.lexists(f"{base}/fd/{fd}")}
    return {"argv": _read(f"{base}/cmdline").split("\0")[:-1],
            "environ": sorted(_read(f"{base}/environ").split("\0")),
            "cwd": os.readlink(f"{base}/cwd"), "exe": os.readlink(f"{base}/exe"),
            "fds": fds, "limits": _read(f"{base}/limits"), "oom_score_adj": _read(f"{base}/oom_score_adj").strip(),
            **{k: status[k].strip() for k in STATUS if k in status}}


def census(pid):
    """[(name, uids)] of a program's whole tree, sorted."""
    found = []
    for p in tree(pid):
        try:
            status = dict(line.split(":\t", 1) for line in _read(f"/proc/{p}/status").splitlines() if ":\t" in line)
        except OSError:
            continue  # it has just ended
        found.append((status["Name"], status["Uid"].split("\t")[1]))
    return sorted(found)
