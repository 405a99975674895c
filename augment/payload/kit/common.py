# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every part needs: running programs, digests, files."""

import hashlib
import os
import subprocess


class Failed(Exception):
    pass


def say(text):
    print(f"payload: {text}", flush=True)


def run(command, log=None, **kwargs):
    """Runs a command; its output is shown only if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)
    text = done.stdout.decode(errors="replace")
    if log:
        with open(log, "a", encoding="utf-8") as f:
            f.write(f"$ {' '.join(command)}\n{text}")
    if done.returncode != 0:
        tail = "\n".join(text.splitlines()[-30:])
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    return text


def environment(**more):
    """For configure and make: nothing of the machine gets in."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC", "SOURCE_DATE_EPOCH": "0",
            "KBUILD_BUILD_USER": "tbnode", "KBUILD_BUILD_HOST": "tbnode", **more}


def jobs():
    return f"-j{min(os.cpu_count() or 1, 8)}"


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write_atomic(path, data, mode=None):
    with open(path + ".new", "wb") as f:
        f.write(data)
        if mode is not None:
            os.fchmod(f.fileno(), mode)
        f.flush()
        os.fsync(f.fileno())
    os.rename(path + ".new", path)
