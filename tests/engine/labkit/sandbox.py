# SPDX-License-Identifier: LGPL-2.1-or-later
"""The walls of the laboratory.

main() runs three times over: *outside* (supervises, compares the host before and after, removes everything), as
*pid 1* of the sandbox (arranges mounts, then only reaps orphans), and as its child, which runs the tests. The outside
process never enters the namespaces, so what it sees is the host; when it dies the kernel kills the sandbox with it.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from . import debian as debian_cache
from . import host, packages, rpmworld, sanitizer, tap
from .core import Lab

STAGE = "TBNODE_LAB_STAGE"
TOOLS = {"unshare": "util-linux", "ip": "iproute2", "tc": "iproute2", "nft": "nftables", "openssl": "openssl",
         "iptables-legacy-save": "iptables", "dockerd": "docker.io", "docker-registry": "docker-registry",
         "skopeo": "skopeo", "iperf3": "iperf3", "musl-gcc": "musl-tools", "busybox": "busybox-static"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PR_SET_PDEATHSIG = 1


def _skip(reason):
    print(f"1..0 # SKIP {reason}", flush=True)
    print(f"SKIPPED: {reason}", file=sys.stderr, flush=True)
    sys.exit(77)


def _die_with_parent():
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(debian=False, layers=()):
    """Call at the end of a test file. debian: images.debian() is used (made outside, where apt sources are). layers: names
    of packages.LAYERS and rpmworld.LAYERS, made outside, too; TBNODE_LAB_FIXTURES is then {name: path} in JSON."""
    p = argparse.ArgumentParser(description="Runs this file's tests in a laboratory of its own.")
    p.add_argument("-k", action="append", dest="patterns", metavar="PATTERN", help="only tests with this in the name")
    p.add_argument("--shell", action="store_true", help="a shell in the laboratory instead of the tests")
    p.add_argument("--keep", action="store_true", help="keep the laboratory's folder (logs, data) afterwards")
    args = p.parse_args()
    if os.environ.get(STAGE) == "inside":
        sys.exit(_inside(args))
    sys.exit(_outside(args, debian, layers))


def _chrooted():
    """Whether our root is another directory than the mount namespace's. setns(2) into a mount namespace goes to its
    root, and so does runc when it enters a container that was started from a chroot: to the host's."""
    r = subprocess.run(["nsenter", "--mount=/proc/self/ns/mnt", "stat", "-c", "%d:%i", "/"], stdout=subprocess.PIPE,
                       stderr=subprocess.DEVNULL, text=True)
    root = os.stat("/")
    return r.returncode == 0 and r.stdout.strip() != f"{root.st_dev}:{root.st_ino}"


# ---- outside --------------------------------------------------------------------------------------------------


def _outside(args, debian, layers):
    os.environ["PATH"] = PATH
    if os.geteuid() != 0:
        _skip("needs root: it makes network, mount and pid namespaces and runs dockerd")
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        _skip(f"missing Debian packages: {' '.join(missing)} (scripts/install-deps test)")
    if _chrooted():
        _skip("this is a chroot: runc can't confine containers in it, `docker exec` would run outside of them; "
              "use a container, a virtual machine or pivot_root(8)")
    probe = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], stderr=subprocess.PIPE)
    if probe.returncode != 0:
        _skip(f"this machine does not allow new namespaces: {probe.stderr.decode().strip()}")

    tarball = debian_cache.tarball() if debian else ""
    fixtures = {}
    for kind in (packages, rpmworld):
        names = [n for n in layers if (n in rpmworld.LAYERS) == (kind is rpmworld)]
        fixtures.update(kind.paths(names, tarball) if names else {})
    before = host.snapshot()
    lab_dir = tempfile.mkdtemp(prefix="tbnode-lab-", dir=os.environ.get("TBNODE_LAB_TMP", "/tmp"))
    os.chmod(lab_dir, 0o755)
    lab_id = os.path.basename(lab_dir)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "DOCKER_", "SSL_CERT"))}
    for k in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "CURL_CA_BUNDLE"):
        env.pop(k, None)
    env.update({STAGE: "inside", "TBNODE_LAB_ID": lab_id, "TBNODE_LAB_DIR": lab_dir, "TBNODE_LAB_DEBIAN": tarball,
                "TBNODE_LAB_FIXTURES": json.dumps(fixtures),
                "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"})

    child = subprocess.Popen(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
                              sys.executable, *sys.argv], env=env, preexec_fn=_die_with_parent)
    stopped_by = []

    def stop(number, _frame):
        stopped_by.append(number)
        child.kill()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    rc = child.wait()

    leftovers = _clean_up(lab_id, lab_dir, before)
    count = _read(os.path.join(lab_dir, "tap-count"))
    if not args.keep:
        leftovers += _remove(lab_dir)
    else:
        print(f"# kept: {lab_dir}", file=sys.stderr)
    if stopped_by:
        print(f"Bail out! stopped by signal {stopped_by[0]}")
        for line in leftovers:
            print(f"# {line}")
        return 128 + stopped_by[0]
    if count == "":
        print(f"Bail out! the laboratory ended early with status {rc}")
        count = "0"
        rc = rc or 1
    print(f"{'not ok' if leftovers else 'ok'} {int(count) + 1} - the host is as it was before")
    for line in leftovers:
        print(f"#   {line}")
    print(f"1..{int(count) + 1}", flush=True)
    return 1 if leftovers or rc != 0 else 0


def _clean_up(lab_id, lab_dir, before):
    """After the sandbox's end: compares, then removes what the test left. Lines for each leftover."""
    namespace = _read(os.path.join(lab_dir, "pid-namespace"))
    leftovers = _settle(lambda: host.processes_of(lab_id, lab_dir, namespace))
    leftovers += _settle(lambda: host.remove_cgroups(lab_id))
    return leftovers + host.difference(before, host.snapshot())


def _settle(leftovers, timeout=15):
    """The kernel ends a killed pid namespace, and releases its cgroups, some time after our wait() returned."""
    end = time.monotonic() + timeout
    while True:
        found = leftovers()
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def _remove(lab_dir):
    try:
        shutil.rmtree(lab_dir)
        return []
    except OSError as e:
        return [f"files: + {lab_dir} ({e})"]


def _read(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


# ---- inside ---------------------------------------------------------------------------------------------------


def _mount(*args):
    subprocess.run(["mount", *args], check=True)


def _overlay(path, scratch):
    """Lets the tests write below path without reaching the host."""
    name = path.strip("/").replace("/", "-")
    for part in ("up", "work"):
        os.makedirs(f"{scratch}/{name}-{part}")
    _mount("-t", "overlay", "overlay", "-o",
           f"lowerdir={path},upperdir={scratch}/{name}-up,workdir={scratch}/{name}-work", path)


def _arrange(lab_dir):
    """Mounts of the sandbox; all private to it (unshare made the propagation private)."""
    with open(f"{lab_dir}/pid-namespace", "w", encoding="utf-8") as f:
        f.write(os.readlink("/proc/self/ns/pid"))
    for sub in ("tmp", "home", "bin", "images", "logs", "cgroup", "scratch"):
        os.makedirs(f"{lab_dir}/{sub}", mode=0o755)
    os.chmod(f"{lab_dir}/tmp", 0o1777)
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    os.makedirs("/run/lock", mode=0o1777)
    # A tmpfs holds the overlays' changes: an overlay can't keep them on another overlay (tests in a container).
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", f"{lab_dir}/scratch")
    for path in ("/etc", "/var/lib"):
        _overlay(path, f"{lab_dir}/scratch")
    # /sys shows the network namespace of whoever mounted it; the cgroup tree below it is carried over.
    if os.path.isdir("/sys/fs/cgroup"):
        _mount("--rbind", "/sys/fs/cgroup", f"{lab_dir}/cgroup")
        _mount("-t", "sysfs", "sysfs", "/sys")
        _mount("--rbind", f"{lab_dir}/cgroup", "/sys/fs/cgroup")
        subprocess.run(["umount", "-R", "-l", f"{lab_dir}/cgroup"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def _inside(args):
    lab_dir = os.environ["TBNODE_LAB_DIR"]
    _arrange(lab_dir)
    os.environ.pop(STAGE)
    os.environ.update({"HOME": f"{lab_dir}/home", "TMPDIR": f"{lab_dir}/tmp", "PATH": f"{lab_dir}/bin:{PATH}"})
    sanitizer.arrange(lab_dir)
    tests = os.fork()
    if tests == 0:
        rc = 1
        try:
            rc = _run_tests(args, lab_dir)
        except BaseException as e:  # the forked child must never return into the caller's frames
            print(f"# {type(e).__name__}: {e}", flush=True)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(rc)
    while True:  # pid 1: orphans of containers and services end here
        pid, status = os.wait()
        if pid == tests:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _run_tests(args, lab_dir):
    try:
        shell = None
        if args.shell:
            def shell():
                print(f"The laboratory is in {lab_dir}; leave the shell to end it.", file=sys.stderr)
                subprocess.run([os.environ.get("SHELL", "/bin/bash")], check=False)
        result = tap.run_module(sys.modules["__main__"], args.patterns, shell)
        if result.bad:
            Lab.get().print_logs()
            result.repeat_failures()
    finally:
        Lab.get().shutdown()
    if sanitizer.build():
        result.case("no report of a sanitizer", sanitizer.reports(lab_dir))
    with open(f"{lab_dir}/tap-count", "w", encoding="utf-8") as f:
        f.write(str(result.count))
    return 1 if result.bad else 0
