# SPDX-License-Identifier: LGPL-2.1-or-later
"""Layers: a tree in memory, written as a tar whose bytes depend on nothing but its content."""

import io
import subprocess
import tarfile
import tempfile

ZOPFLI_ITERATIONS = 15


class Layer:
    def __init__(self):
        self.entries = {}

    def directory(self, path, mode=0o755):
        self.entries[path] = (tarfile.DIRTYPE, mode, b"", "")

    def file(self, path, data, mode):
        self.entries[path] = (tarfile.REGTYPE, mode, data, "")

    def link(self, path, target):
        self.entries[path] = (tarfile.SYMTYPE, 0o777, b"", target)

    def tar(self):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted(self.entries, key=lambda p: p.split("/")):
                kind, mode, data, target = self.entries[path]
                info = tarfile.TarInfo(path + ("/" if kind == tarfile.DIRTYPE else ""))
                info.type, info.mode, info.linkname, info.size = kind, mode, target, len(data)
                info.mtime = info.uid = info.gid = 0
                info.uname = info.gname = ""
                tar.addfile(info, io.BytesIO(data))
        return out.getvalue()


def compress(data):
    """zopfli(1): gzip's format, some percent smaller than gzip -9. A layer is compressed once and stored on many hosts."""
    with tempfile.NamedTemporaryFile(prefix="tbnode-layer-") as f:
        f.write(data)
        f.flush()
        return subprocess.run(["zopfli", f"--i{ZOPFLI_ITERATIONS}", "--gzip", "-c", f.name], stdout=subprocess.PIPE,
                              check=True).stdout
