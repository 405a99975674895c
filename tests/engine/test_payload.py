#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The payload: built again elsewhere it is the same, byte for byte; and nothing in it comes from where it was built.

Needs no engine and no network: the second build takes the sources that the first one fetched.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from labkit import tap  # noqa: E402

SOURCE = os.environ.get("TBNODE_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.environ.get("TBNODE_BUILD_DIR", f"{SOURCE}/build")
PAYLOADS = f"{BUILD}/augment/payload"
# What issue 3 allows: bytes of the layers' tars up to a level.
LIMITS = {"basic": 1_200_000, "core": 1_500_000}
MACHINES = {"amd64": "Advanced Micro Devices X86-64", "arm64": "AArch64"}
PROGRAMS = {
    "basic": ("init", "bin/sh", "bin/runsv", "bin/sv", "bin/svlogd", "bin/chpst", "bin/syslogd", "bin/dropbear",
              "bin/dropbearkey", "bin/scp", "bin/sftp-server", "bin/ls", "bin/vi", "bin/ps", "bin/ip", "bin/wget"),
    "core": ("bin/tbnode-client", "bin/tmcc"),
}


def built_arches():
    return sorted(a for a in MACHINES if os.path.exists(f"{PAYLOADS}/{a}/payload.json"))


def native():
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)


def payload_cache():
    with open(f"{BUILD}/meson-info/intro-buildoptions.json", encoding="utf-8") as f:
        options = {o["name"]: o["value"] for o in json.load(f)}
    return options["payload-cache"] or f"{BUILD}/payload-cache"


class Layer:
    def __init__(self, directory, entry):
        self.level, self.entry = entry["level"], entry
        with open(f"{directory}/{entry['file']}", "rb") as f:
            self.blob = f.read()
        self.tar = gzip.decompress(self.blob)
        with tarfile.open(fileobj=io.BytesIO(self.tar)) as tar:
            self.members = tar.getmembers()
            self.files = {m.name: tar.extractfile(m).read() for m in self.members if m.isfile()}

    def programs(self):
        return {n: d for n, d in self.files.items() if d.startswith(b"\x7fELF")}


class OfOneArchitecture:
    """Its subclasses say which."""

    arch = ""

    @classmethod
    def setUpClass(cls):
        with open(f"{PAYLOADS}/{cls.arch}/payload.json", encoding="utf-8") as f:
            cls.manifest = json.load(f)
        cls.layers = [Layer(f"{PAYLOADS}/{cls.arch}", entry) for entry in cls.manifest["layers"]]

    def test_manifest_tells_the_truth(self):
        self.assertEqual(self.manifest["arch"], self.arch)
        self.assertEqual([layer.level for layer in self.layers], ["basic", "core"][:len(self.layers)])
        for layer in self.layers:
            self.assertEqual(layer.entry["digest"], "sha256:" + hashlib.sha256(layer.blob).hexdigest())
            self.assertEqual(layer.entry["diff_id"], "sha256:" + hashlib.sha256(layer.tar).hexdigest())
            self.assertEqual(layer.entry["size"], len(layer.blob))
        components = {c["name"]: c for c in self.manifest["components"]}
        own = {"tbnode-init"} | ({"tbnode-client", "jansson"} if len(self.layers) > 1 else set())
        self.assertEqual(set(components), {"busybox", "dropbear", "musl", "openssh"} | own)
        for c in components.values():
            self.assertTrue(c["version"] and c["source"] and c["license"], c)

    def test_everything_lies_under_one_directory(self):
        before = set()
        for layer in self.layers:
            self.assertEqual(layer.members[0].name, "tbnode")
            self.assertTrue(layer.members[0].isdir())
            names = [m.name for m in layer.members]
            self.assertEqual(len(names), len(set(names)), "a path twice in one layer is forbidden")
            seen = set()
            for m in layer.members:
                self.assertTrue(m.name == "tbnode" or m.name.startswith("tbnode/"), m.name)
                self.assertTrue(m.name == "tbnode" or os.path.dirname(m.name) in seen, f"{m.name} before its directory")
                seen.add(m.name)
                self.assertEqual((m.mtime, m.uid, m.gid, m.uname, m.gname, m.pax_headers), (0, 0, 0, "", "", {}), m.name)
                self.assertTrue(m.isfile() or m.isdir() or m.issym(), m.name)
                if m.issym():
                    self.assertNotIn("/", m.linkname, "links stay in their directory")
                else:
                    self.assertEqual(m.mode & 0o7022, 0, "no set-id bits, nothing for others to write")
            added = {m.name for m in layer.members if not m.isdir()}
            self.assertFalse(added & before, "a layer adds, it does not replace")
            before |= added
        self.assertIn("tbnode/run", {m.name for m in self.layers[0].members})

    def test_programs_are_there_and_static(self):
        for layer in self.layers:
            names = {m.name for m in layer.members}
            for program in PROGRAMS[layer.level]:
                self.assertIn(f"tbnode/{program}", names)
            for name, data in layer.programs().items():
                with tempfile.NamedTemporaryFile() as f:
                    f.write(data)
                    f.flush()
                    out = subprocess.run(["readelf", "-hlSW", f.name], stdout=subprocess.PIPE, check=True,
                                         env={**os.environ, "LC_ALL": "C"}).stdout.decode()
                self.assertIn(MACHINES[self.arch], out, name)
                for unwanted in ("INTERP", ".note.gnu.build-id", ".symtab"):
                    self.assertNotIn(unwanted, out, name)
        for component in ("busybox", "dropbear", "musl", "openssh", "tbnode"):
            self.assertGreater(len(self.layers[0].files[f"tbnode/share/licenses/{component}"]), 500)

    def test_no_trace_of_where_it_was_built(self):
        for trace in (SOURCE, BUILD, payload_cache(), "/tmp/tbnode-payload", os.uname().nodename):
            if len(trace) < 5:
                continue
            for layer in self.layers:
                for name, data in layer.files.items():
                    if name.startswith("tbnode/share/"):
                        continue
                    self.assertNotIn(trace.encode(), data, name)

    def test_sizes(self):
        tar = blob = 0
        for layer in self.layers:
            tar += len(layer.tar)
            blob += len(layer.blob)
            print(f"# {self.arch} {layer.level}: {blob} bytes, {tar} unpacked, " +
                  ", ".join(f"{os.path.basename(n)} {len(d)}" for n, d in layer.programs().items()))
            self.assertLess(tar, LIMITS[layer.level])
            self.assertLess(blob, tar // 2)

    def test_built_again_elsewhere_it_is_the_same(self):
        if self.arch != native() and os.environ.get("TBNODE_TEST_LONG") != "yes":
            self.skipTest("the other architecture's second build: scripts/test --long")
        with tempfile.TemporaryDirectory(prefix="tbnode-payload-again-") as directory:
            tree = f"{directory}/another/place/with a space"
            for part in ("augment/client", "augment/payload"):
                shutil.copytree(f"{SOURCE}/{part}", f"{tree}/{part}")
            shutil.copytree(f"{payload_cache()}/sources", f"{directory}/cache/sources")
            # Which files make which program, meson knows: its command with the other tree's files.
            with open(f"{BUILD}/meson-info/intro-targets.json", encoding="utf-8") as f:
                target = next(t for t in json.load(f) if t["name"] == f"payload-{self.arch}")
            command = target["target_sources"][0]["compiler"]
            again, replace = [], {"--cache": f"{directory}/cache", "--output": f"{directory}/out", "--license": f"{SOURCE}/LICENSE"}
            for word in command:
                previous = again[-1] if again else ""
                path = os.path.normpath(os.path.join(BUILD, word))
                part = os.path.relpath(path, SOURCE)
                again.append(replace.get(previous) or (f"{tree}/{part}" if part.startswith(("augment/client/", "augment/payload/"))
                                                       and os.path.isfile(path) else word))
            subprocess.run(again, check=True, stdout=subprocess.DEVNULL, umask=0o077,
                           env={"PATH": os.environ["PATH"], "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "HOME": directory})
            with open(f"{directory}/out/payload.json", encoding="utf-8") as f:
                self.assertEqual(json.load(f), self.manifest)
            for layer in self.layers:
                with open(f"{directory}/out/{layer.entry['file']}", "rb") as f:
                    self.assertEqual(hashlib.sha256(f.read()).hexdigest(), hashlib.sha256(layer.blob).hexdigest())


class Amd64(OfOneArchitecture, unittest.TestCase):
    arch = "amd64"


class Arm64(OfOneArchitecture, unittest.TestCase):
    arch = "arm64"


@unittest.skipUnless(shutil.which("qemu-aarch64-static"), "no qemu-aarch64-static")
class Arm64Programs(unittest.TestCase):
    """The programs for arm64 under qemu's user mode; what they start is the host's."""

    arch = "arm64"

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="tbnode-arm64-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        for level in ("basic", "core"):
            if os.path.exists(f"{PAYLOADS}/arm64/{level}.tar.gz"):
                with tarfile.open(f"{PAYLOADS}/arm64/{level}.tar.gz") as tar:
                    tar.extractall(cls.dir)

    def run_arm(self, program, *args, **options):
        return subprocess.run(["qemu-aarch64-static", f"{self.dir}/tbnode/{program}", *args], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60, **options)

    def test_init_runs_a_program(self):
        r = self.run_arm("init", "--level", "basic", "--", "/bin/sh", "-c", "echo out; exit 7")
        self.assertEqual((r.returncode, r.stdout), (7, b"out\n"), r)
        self.assertEqual(self.run_arm("init", "--", "/bin/sh", "-c", "kill -TERM $$").returncode, -15)
        self.assertEqual(self.run_arm("init", "--", "/no/such/program").returncode, 127)

    def test_shell_and_client(self):
        r = self.run_arm("bin/busybox", "sh", "-c", "echo $((6 * 7)) | sed s/4/5/")
        self.assertEqual((r.returncode, r.stdout), (0, b"52\n"), r)
        r = self.run_arm("bin/tbnode-client", "--version")
        self.assertEqual(r.returncode, 0, r)

    def test_sftp_server(self):
        # SSH_FXP_INIT, version 3; the answer is SSH_FXP_VERSION (2) with version 3.
        with subprocess.Popen(["qemu-aarch64-static", f"{self.dir}/tbnode/bin/sftp-server"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as p:
            p.stdin.write(b"\0\0\0\5\1\0\0\0\3")
            p.stdin.flush()
            self.assertEqual(p.stdout.read(9)[4:], b"\2\0\0\0\3")
            p.stdin.close()

    def test_ssh_login(self):
        key, host_key = f"{self.dir}/key", f"{self.dir}/host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        shutil.copy(f"{key}.pub", f"{self.dir}/authorized_keys")
        r = self.run_arm("bin/dropbearmulti", "dropbearkey", "-t", "ed25519", "-f", host_key)
        self.assertEqual(r.returncode, 0, r)
        script = f"""ip link set lo up
            qemu-aarch64-static {self.dir}/tbnode/bin/dropbearmulti dropbear -F -E -D {self.dir} -P {self.dir}/pid -p 127.0.0.1:22 -r {host_key} &
            exec ssh -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes \
                -o IdentitiesOnly=yes -o ConnectionAttempts=20 root@127.0.0.1 'id -u; exit 9'"""
        r = subprocess.run(["unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=90)
        self.assertEqual((r.returncode, r.stdout), (9, b"0\n"), r)


for name in ("Amd64", "Arm64", "Arm64Programs"):
    if globals()[name].arch not in built_arches():
        print(f"# this build has no payload for {globals()[name].arch} (-Dpayload-arches)")
        del globals()[name]


if __name__ == "__main__":
    if not built_arches():
        print(f"1..0 # SKIP no payload in {PAYLOADS} (configure with -Dpayload=true)")
        sys.exit(77)
    result = tap.run_module(sys.modules["__main__"], sys.argv[1:])
    print(f"1..{result.count}")
    sys.exit(1 if result.bad else 0)
