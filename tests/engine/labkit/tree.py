# SPDX-License-Identifier: LGPL-2.1-or-later
"""What files an image in a registry has: its layers' archives put over each other by image-spec layer.md. Nothing is
unpacked, and a layer is read once however many images have it."""

import gzip
import hashlib
import io
import os
import tarfile

_LAYERS = {}


def _entries(registry, repository, digest):
    """[(path, type letter, facts, link target)] of a layer; facts of a regular file end with its time and content."""
    if digest not in _LAYERS:
        found = []
        data = registry.blob(repository, digest)
        raw = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for m in tar:
                path = os.path.normpath(m.name).lstrip("/")
                facts = (m.mode & 0o7777, m.uid, m.gid)
                if m.isfile():
                    facts += (int(m.mtime), hashlib.sha256(tar.extractfile(m).read()).hexdigest())
                kind = "f" if m.isfile() else "d" if m.isdir() else "l" if m.issym() else "h" if m.islnk() else "o"
                found.append((path, kind, facts, m.linkname))
        _LAYERS[digest] = found
    return _LAYERS[digest]


def _remove(tree, path, itself=True):
    for name in [p for p in tree if p.startswith(f"{path}/" if path else "") or (itself and p == path)]:
        del tree[name]


def _apply(tree, entries):
    for path, *_ in entries:  # what they hide is of the layers below, wherever in the archive they stand
        folder, name = os.path.split(path)
        if name == ".wh..wh..opq":
            _remove(tree, folder, itself=False)
        elif name.startswith(".wh.") and not name.startswith(".wh..wh."):
            _remove(tree, os.path.join(folder, name[4:]))
    for path, kind, facts, link in entries:
        if os.path.basename(path).startswith(".wh.") or path == ".":
            continue
        if path in tree and not (kind == "d" and tree[path][0][0] == "d"):
            _remove(tree, path)
        # Names of one file have one list: its identity.
        tree[path] = tree[os.path.normpath(link).lstrip("/")] if kind == "h" else [(kind, facts, link if kind == "l" else "")]


def of_image(registry, repository, reference):
    """{path: (kind, facts, link target, number of names)}"""
    tree = {}
    for layer in registry.manifest(repository, reference)[0]["layers"]:
        _apply(tree, _entries(registry, repository, layer["digest"]))
    names = {}
    for inode in tree.values():
        names[id(inode)] = names.get(id(inode), 0) + 1
    return {path: (*inode[0], names[id(inode)] if inode[0][0] == "f" else 0) for path, inode in tree.items()}
