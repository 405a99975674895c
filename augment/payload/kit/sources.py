# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's source packages: fetched with apt from a private sources list, checked by apt against the archive's
signatures, kept with their digests in CACHE/sources and used from there without network."""

import json
import os
import re
import shutil
import subprocess
import tempfile

from kit.common import Failed, run, say, sha256_file, write_atomic

PACKAGES = ("busybox", "dropbear", "jansson", "musl", "openssh")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def os_release():
    values = {}
    with open("/etc/os-release") as f:
        for line in f:
            key, _, value = line.strip().partition("=")
            values[key] = value.strip('"')
    return values


def source_lists():
    """Sources lists to try in turn: the mirror that the machine uses already, then Debian's own."""
    codename = os_release().get("VERSION_CODENAME")
    if not codename:
        raise Failed("/etc/os-release has no VERSION_CODENAME; the payload is built on Debian")
    signed = f"[signed-by={KEYRING}] " if os.path.exists(KEYRING) else ""

    wanted = {codename, f"{codename}-updates", f"{codename}-security"}
    form = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    known = subprocess.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    own = set()
    for line in known.splitlines():
        origin, uri, release, component = (line.split("|") + [""] * 4)[:4]
        if origin == "Debian" and release in wanted and component == "main":
            own.add(f"deb-src {signed}{uri} {release} main")
    lists = [sorted(own)] if own else []
    mirror = os.environ.get("TBNODE_DEBIAN_MIRROR", "http://deb.debian.org").rstrip("/")
    lists.append([f"deb-src {signed}{mirror}/debian {codename} main",
                  f"deb-src {signed}{mirror}/debian {codename}-updates main",
                  f"deb-src {signed}{mirror}/debian-security {codename}-security main"])
    return lists


def fetch_sources(directory):
    """Fetches the source packages; leaves their files and sources.json (name, version, files with digests)."""
    work = tempfile.mkdtemp(prefix="apt-", dir=directory)
    # apt drops its rights to the user _apt while it downloads: let that one in.
    os.chmod(work, 0o755)
    for name in ("lists/partial", "cache/archives/partial", "files"):
        os.makedirs(os.path.join(work, name))
    if os.geteuid() == 0:
        shutil.chown(os.path.join(work, "files"), user="_apt")
        shutil.chown(os.path.join(work, "lists/partial"), user="_apt")
    apt = ["apt-get", "-q", "-o", f"Dir::Etc::SourceList={work}/sources.list", "-o", "Dir::Etc::SourceParts=-",
           "-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::Cache={work}/cache",
           "-o", "Acquire::Retries=3", "-o", "APT::Get::List-Cleanup=0", "-o", "Acquire::Languages=none"]
    try:
        lists = source_lists()
        for i, lines in enumerate(lists):
            with open(f"{work}/sources.list", "w") as f:
                f.write("\n".join(lines) + "\n")
            try:
                run(apt + ["-o", "APT::Update::Error-Mode=any", "update"])
                run(apt + ["source", "--download-only", "--only-source", *PACKAGES], cwd=f"{work}/files")
                break
            except Failed as e:
                if i + 1 == len(lists):
                    raise Failed(f"cannot fetch the sources of {', '.join(PACKAGES)}; is the network or the mirror "
                                 f"up? TBNODE_DEBIAN_MIRROR names another one\n{e}")
        index = [read_dsc(f"{work}/files", name) for name in sorted(os.listdir(f"{work}/files")) if name.endswith(".dsc")]
        for entry in index:
            for name in entry["files"]:
                os.chmod(f"{work}/files/{name}", 0o644)
                os.rename(f"{work}/files/{name}", f"{directory}/{name}")
        write_atomic(f"{directory}/sources.json", json.dumps(index, indent=2).encode())
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_dsc(directory, name):
    """Name, version and files of a source package. apt has checked the .dsc against the signed index."""
    with open(f"{directory}/{name}") as f:
        text = f.read()
    field = lambda key: re.search(rf"^{key}: (.*)$", text, re.M).group(1).strip()
    sums = re.search(r"^Checksums-Sha256:\n((?: .*\n)+)", text, re.M).group(1)
    files = {line.split()[2]: line.split()[0] for line in sums.splitlines()}
    files = {k: v for k, v in files.items() if os.path.exists(f"{directory}/{k}")}
    files[name] = sha256_file(f"{directory}/{name}")
    return {"name": field("Source"), "version": field("Version"), "dsc": name, "files": files}


def load_sources(directory):
    """What the cache has, if it is whole; else it is fetched."""
    os.makedirs(directory, exist_ok=True)
    for attempt in range(2):
        try:
            with open(f"{directory}/sources.json") as f:
                index = {entry["name"]: entry for entry in json.load(f)}
            if set(index) >= set(PACKAGES) and all(
                    sha256_file(f"{directory}/{name}") == digest
                    for entry in index.values() for name, digest in entry["files"].items()):
                return index
        except (OSError, ValueError, KeyError):
            pass
        if attempt == 0:
            say(f"fetching the sources of {', '.join(PACKAGES)} with apt")
            fetch_sources(directory)
    raise Failed(f"{directory} doesn't hold what apt should have put there; remove it and build again")


def unpack(sources, package, work):
    tree = f"{work}/{package}"
    run(["dpkg-source", "--no-check", "-x", f"{sources['dir']}/{sources[package]['dsc']}", tree])
    return tree
