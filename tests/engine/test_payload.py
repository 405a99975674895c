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
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "none")
PAYLOAD = f"{BUILD}/augment/payload/{ARCH}"


def payload_cache():
    with open(f"{BUILD}/meson-info/intro-buildoptions.json", encoding="utf-8") as f:
        options = {o["name"]: o["value"] for o in json.load(f)}
    return options["payload-cache"] or f"{BUILD}/payload-cache"


class Payload(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(f"{PAYLOAD}/basic.tar.gz", "rb") as f:
            cls.blob = f.read()
        with open(f"{PAYLOAD}/payload.json", encoding="utf-8") as f:
            cls.manifest = json.load(f)
        cls.tar = gzip.decompress(cls.blob)
        with tarfile.open(fileobj=io.BytesIO(cls.tar)) as tar:
            cls.members = tar.getmembers()
            cls.files = {m.name: tar.extractfile(m).read() for m in cls.members if m.isfile()}

    def test_manifest_tells_the_truth(self):
        layer = self.manifest["layers"][0]
        self.assertEqual(self.manifest["arch"], ARCH)
        self.assertEqual(layer["level"], "basic")
        self.assertEqual(layer["digest"], "sha256:" + hashlib.sha256(self.blob).hexdigest())
        self.assertEqual(layer["diff_id"], "sha256:" + hashlib.sha256(self.tar).hexdigest())
        self.assertEqual(layer["size"], len(self.blob))
        components = {c["name"]: c for c in self.manifest["components"]}
        self.assertEqual(set(components), {"busybox", "dropbear", "musl", "tbnode-init"})
        for c in components.values():
            self.assertTrue(c["version"] and c["source"] and c["license"], c)

    def test_everything_lies_under_one_directory(self):
        self.assertEqual(self.members[0].name, "tbnode")
        self.assertTrue(self.members[0].isdir())
        names = [m.name for m in self.members]
        self.assertEqual(len(names), len(set(names)), "a path twice in one layer is forbidden")
        seen = set()
        for m in self.members:
            self.assertTrue(m.name == "tbnode" or m.name.startswith("tbnode/"), m.name)
            self.assertTrue(m.name == "tbnode" or os.path.dirname(m.name) in seen, f"{m.name} before its directory")
            seen.add(m.name)
            self.assertEqual((m.mtime, m.uid, m.gid, m.uname, m.gname, m.pax_headers), (0, 0, 0, "", "", {}), m.name)
            self.assertTrue(m.isfile() or m.isdir() or m.issym(), m.name)
            if m.issym():
                self.assertNotIn("/", m.linkname, "links stay in their directory")
            else:
                self.assertEqual(m.mode & 0o7022, 0, "no set-id bits, nothing for others to write")
        self.assertIn("tbnode/run", names)

    def test_programs_are_there_and_static(self):
        names = {m.name for m in self.members}
        for program in ("init", "bin/sh", "bin/runsv", "bin/runsvdir", "bin/sv", "bin/svlogd", "bin/chpst", "bin/syslogd",
                        "bin/dropbear", "bin/dropbearkey", "bin/scp", "bin/ls", "bin/vi", "bin/ps", "bin/ip", "bin/wget"):
            self.assertIn(f"tbnode/{program}", names)
        for name, data in self.files.items():
            if data.startswith(b"\x7fELF"):
                with tempfile.NamedTemporaryFile() as f:
                    f.write(data)
                    f.flush()
                    headers = subprocess.run(["readelf", "-lW", f.name], stdout=subprocess.PIPE, check=True).stdout.decode()
                    sections = subprocess.run(["readelf", "-SW", f.name], stdout=subprocess.PIPE, check=True).stdout.decode()
                self.assertNotIn("INTERP", headers, name)
                self.assertNotIn(".note.gnu.build-id", sections, name)
                self.assertNotIn(".symtab", sections, name)
        for component in ("busybox", "dropbear", "musl", "tbnode"):
            self.assertGreater(len(self.files[f"tbnode/share/licenses/{component}"]), 500)

    def test_no_trace_of_where_it_was_built(self):
        for trace in (SOURCE, BUILD, payload_cache(), "/tmp/tbnode-payload", os.uname().nodename):
            if len(trace) < 5:
                continue
            for name, data in self.files.items():
                if name.startswith("tbnode/share/"):
                    continue
                self.assertNotIn(trace.encode(), data, name)

    def test_sizes(self):
        self.assertLess(len(self.tar), 1_200_000)
        self.assertLess(len(self.blob), 600_000)
        print(f"# payload {len(self.blob)} bytes, {len(self.tar)} uncompressed, " +
              ", ".join(f"{os.path.basename(n)} {len(d)}" for n, d in self.files.items() if d.startswith(b"\x7fELF")))

    def test_built_again_elsewhere_it_is_the_same(self):
        with tempfile.TemporaryDirectory(prefix="tbnode-payload-again-") as directory:
            tree = f"{directory}/another/place/with a space"
            for part in ("augment/client", "augment/payload"):
                shutil.copytree(f"{SOURCE}/{part}", f"{tree}/{part}")
            shutil.copytree(f"{payload_cache()}/sources", f"{directory}/cache/sources")
            client = sorted(os.path.join(f"{tree}/augment/client", n) for n in os.listdir(f"{tree}/augment/client")
                            if n.endswith((".c", ".h")))
            version = {c["name"]: c["version"] for c in self.manifest["components"]}["tbnode-init"]
            subprocess.run(["python3", f"{tree}/augment/payload/build", "--cache", f"{directory}/cache", "--output",
                            f"{directory}/out", "--version", version, "--license", f"{SOURCE}/LICENSE", *client],
                           check=True, stdout=subprocess.DEVNULL, umask=0o077,
                           env={"PATH": os.environ["PATH"], "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "HOME": directory})
            with open(f"{directory}/out/payload.json", encoding="utf-8") as f:
                self.assertEqual(json.load(f), self.manifest)
            with open(f"{directory}/out/basic.tar.gz", "rb") as f:
                self.assertEqual(hashlib.sha256(f.read()).hexdigest(), hashlib.sha256(self.blob).hexdigest())


if __name__ == "__main__":
    if not os.path.exists(f"{PAYLOAD}/basic.tar.gz"):
        print(f"1..0 # SKIP no payload in {PAYLOAD} (configure with -Dpayload=true)")
        sys.exit(77)
    result = tap.run_module(sys.modules["__main__"], sys.argv[1:])
    print(f"1..{result.count}")
    sys.exit(1 if result.bad else 0)
