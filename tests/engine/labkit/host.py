# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host looks like from outside the sandbox, and the differences after a test."""

import json
import os
import re
import subprocess

# Places where Docker, the registries or tbnode would leave something if a test escaped from its sandbox.
WATCHED = ["/run/tbnode", "/var/lib/tbnode", "/etc/tbnode", "/run/docker", "/run/docker.sock", "/run/docker.pid",
           "/run/containerd", "/run/netns", "/etc/docker", "/var/lib/containerd", "/var/lib/docker-registry",
           "/etc/hosts", "/etc/passwd", "/etc/group"]
CGROUPS = "/sys/fs/cgroup"


def _output(argv):
    try:
        p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, text=True)
        return p.stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _links():
    """Name, kind, address and master of each link; counters and operational state change on their own."""
    try:
        links = json.loads(_output(["ip", "-j", "-d", "link", "show"]) or "[]")
    except ValueError:
        links = []
    keys = ("ifname", "link_type", "address", "master", "mtu")
    return [" ".join([str(x.get(k, "-")) for k in keys] + [x.get("linkinfo", {}).get("info_kind", "-")]) for x in links]


def _rules(argv):
    lines = []
    for line in _output(argv).splitlines():
        if not line.startswith("#"):
            lines.append(line.split(" [")[0])  # without packet counters
    return lines


def _mounts():
    """Those that could be ours: somebody else on the machine may mount a disk meanwhile."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        found = [" ".join(line.split()[3:5]) for line in f]
    return [line for line in found if re.search("docker|containerd|tbnode|netns|registry|/overlay", line)]


def _files():
    """Every path below the watched places with its size and time, except the content of a running engine."""
    found = []
    tops = list(WATCHED)
    if not os.path.exists("/run/docker.sock"):
        tops.append("/var/lib/docker")
    for top in tops:
        if not os.path.lexists(top):
            continue
        found.append(_file(top))
        for base, dirs, files in os.walk(top):
            found += [_file(os.path.join(base, n)) for n in dirs + files]
    return found


def _file(path):
    try:
        st = os.lstat(path)
    except OSError:
        return f"{path} (gone)"
    return path if os.path.isdir(path) else f"{path} size {st.st_size} mtime {st.st_mtime_ns}"


def snapshot():
    """A dict of lists of lines, one list per kind of object."""
    return {
        "links": _links(),
        "qdiscs": [" ".join(line.split()) for line in _output(["tc", "qdisc", "show"]).splitlines()],
        "iptables-legacy": _rules(["iptables-legacy-save"]),
        "nftables": _rules(["nft", "-s", "list", "ruleset"]),
        "mounts": _mounts(),
        "files": _files(),
    }


def difference(before, after):
    """Readable lines, empty when both are the same."""
    out = []
    for kind in before:
        a, b = list(before[kind]), list(after[kind])
        for line in list(a):
            if line in b:
                b.remove(line)
                a.remove(line)
        out += [f"{kind}: - {line}" for line in a] + [f"{kind}: + {line}" for line in b]
    return out


def processes_of(lab_id, lab_dir, pid_namespace):
    """Processes that outlived the laboratory: by its mark in the environment, its folder, or its pid namespace."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                marked = f"TBNODE_LAB_ID={lab_id}".encode() in f.read().split(b"\0")
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                cmdline = f.read().replace(b"\0", b" ").decode(errors="replace")
            inside = pid_namespace and os.readlink(f"/proc/{pid}/ns/pid") == pid_namespace
        except OSError:
            continue
        if marked or inside or lab_dir in cmdline:
            found.append(f"processes: + {pid} {cmdline[:200]}")
    return found


def remove_cgroups(name):
    """Removes the laboratory's own cgroup (Docker makes the parent, never removes it); lines for what stays."""
    stuck = []
    for base, dirs, _ in os.walk(CGROUPS):
        if name in dirs:
            dirs.remove(name)
            for sub, _, _ in os.walk(os.path.join(base, name), topdown=False):
                try:
                    os.rmdir(sub)
                except OSError as e:
                    stuck.append(f"cgroups: + {sub} ({e.strerror})")
        if base.count("/") > CGROUPS.count("/") + 3:
            dirs.clear()
    return stuck
