# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixture images, built here as OCI layouts: nothing is downloaded inside the laboratory."""

import gzip
import hashlib
import io
import json
import os
import tarfile

from .process import run

PROBE = r"""
/* Prints what it finds as one JSON line, then does what its arguments say: hold (until SIGTERM; prints the signal and
 * exits 0), exit N, kill N. Static, so that it runs in a scratch image. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static void text(const char *s)
{
        putchar('"');
        for (; *s; s++)
                if (*s == '"' || *s == '\\')
                        printf("\\%c", *s);
                else if ((unsigned char) *s < 32)
                        printf("\\u%04x", *s);
                else
                        putchar(*s);
        putchar('"');
}

int main(int argc, char **argv)
{
        char cwd[4096] = "";
        sigset_t set;
        int sig = 0;

        sigfillset(&set);
        sigprocmask(SIG_BLOCK, &set, NULL);
        getcwd(cwd, sizeof(cwd));
        printf("{\"pid\":%d,\"uid\":%d,\"gid\":%d,\"cwd\":", getpid(), getuid(), getgid());
        text(cwd);
        printf(",\"args\":[");
        for (int i = 0; i < argc; i++) {
                if (i)
                        putchar(',');
                text(argv[i]);
        }
        printf("],\"env\":[");
        for (int i = 0; environ[i]; i++) {
                if (i)
                        putchar(',');
                text(environ[i]);
        }
        puts("]}");
        fflush(stdout);
        for (int i = 1; i < argc; i++) {
                if (!strcmp(argv[i], "exit") && i + 1 < argc)
                        return atoi(argv[i + 1]);
                if (!strcmp(argv[i], "kill") && i + 1 < argc) {
                        signal(atoi(argv[i + 1]), SIG_DFL);
                        sigprocmask(SIG_UNBLOCK, &set, NULL);
                        kill(getpid(), atoi(argv[i + 1]));
                        return 99;
                }
                if (!strcmp(argv[i], "hold")) {
                        sigdelset(&set, SIGCHLD);
                        sigwait(&set, &sig);
                        printf("{\"signal\":%d}\n", sig);
                        return 0;
                }
        }
        return 0;
}
"""

ETC = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\napp:x:1000:1000::/home/app:/bin/sh\n",
    "etc/group": b"root:x:0:\nwww-data:x:33:\napp:x:1000:\nextra:x:2000:app\n",
}


class Image:
    """An OCI layout on disk."""

    def __init__(self, lab, path, config, layers):
        self.lab, self.path, self.config, self.layers = lab, path, config, layers

    def push(self, registry, name, format="v2s2"):
        """Pushes as name ("library/busybox:1.36"); format v2s2 (what Docker Hub mostly has) or oci.
        Returns the reference with the registry's host; starts the registry."""
        registry.ensure()
        operator = getattr(registry, "operator", None)
        options = ["--dest-creds", ":".join(operator)] if operator else ["--dest-tls-verify=false"]
        self.lab.skopeo("copy", "-q", "--format", format, *options, f"oci:{self.path}:latest",
                        f"docker://{registry.host}/{name}")
        return f"{registry.host}/{name}"

    def load(self, name):
        """Puts it into the private engine as name."""
        archive = f"{self.lab.tmp('load')}/image.tar"
        self.lab.skopeo("copy", "-q", f"oci:{self.path}:latest", f"docker-archive:{archive}:{name}")
        self.lab.docker("load", "-q", "-i", archive)
        os.unlink(archive)
        return name


def layer(content):
    """A tar from {path: bytes | (bytes, mode) | (bytes, mode, uid, gid) | "->target" (symlink) | "=>target" (hard link) |
    None (folder) | (None, mode, uid, gid)}. A whiteout is a file with its name (".wh.NAME", ".wh..wh..opq")."""
    raw = io.BytesIO()
    folders = set()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def folder(path):
            if path and path not in folders:
                folder(os.path.dirname(path))
                folders.add(path)
                info = tarfile.TarInfo(path + "/")
                info.type, info.mode = tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755
                if isinstance(content.get(path), tuple):
                    _, info.mode, info.uid, info.gid = (*content[path], *(0o755, 0, 0)[len(content[path]) - 1:])
                tar.addfile(info)

        for path in sorted(content):
            value = content[path]
            folder(os.path.dirname(path))
            if value is None or (isinstance(value, tuple) and value[0] is None):
                folder(path)
                continue
            info = tarfile.TarInfo(path)
            if isinstance(value, str):
                info.type = tarfile.SYMTYPE if value.startswith("->") else tarfile.LNKTYPE
                info.linkname = value[2:]
                tar.addfile(info)
                continue
            data, mode, uid, gid = (*value, *(0o644, 0, 0)[len(value) - 1:]) if isinstance(value, tuple) else (
                value, 0o644, 0, 0)
            info.size, info.mode, info.uid, info.gid = len(data), mode, uid, gid
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def _put(path, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{path}/blobs/sha256/{digest}", "wb") as f:
        f.write(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def build(lab, layers, config=None, architecture="amd64", os_name="linux", name="image", diff_ids=None):
    """layers: dicts (see layer) or bytes (a tar), bottom first. config: the image config's "config" object:
    {"Entrypoint": [...], "Cmd": [...], "Env": [...], "User": "app", "WorkingDir": ..., "StopSignal": ...}. diff_ids: others
    than the layers have."""
    lab._counter += 1
    path = f"{lab.dir}/images/{lab._counter:03}-{name}"
    os.makedirs(f"{path}/blobs/sha256")
    descriptors, seen = [], []
    for content in layers:
        raw = content if isinstance(content, bytes) else layer(content)
        seen.append("sha256:" + hashlib.sha256(raw).hexdigest())
        d = _put(path, gzip.compress(raw, 1, mtime=0))
        descriptors.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **d})
    image = {"architecture": architecture, "os": os_name, "created": "2024-01-01T00:00:00Z", "config": config or {},
             "rootfs": {"type": "layers", "diff_ids": diff_ids or seen},
             "history": [{"created_by": f"layer {i}"} for i in range(len(layers))]}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                           **_put(path, json.dumps(image).encode())}, "layers": descriptors}
    index = {"schemaVersion": 2, "manifests": [{"mediaType": manifest["mediaType"],
                                                **_put(path, json.dumps(manifest).encode()),
                                                "annotations": {"org.opencontainers.image.ref.name": "latest"}}]}
    for file, value in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(f"{path}/{file}", "w", encoding="utf-8") as f:
            json.dump(value, f)
    return Image(lab, path, image, descriptors)


def probe_binary(lab):
    """Bytes of the static probe program (see PROBE)."""
    path = f"{lab.dir}/images/probe"
    if not os.path.exists(path):
        with open(f"{path}.c", "w", encoding="utf-8") as f:
            f.write(PROBE)
        run(["musl-gcc", "-static", "-O1", "-w", "-o", path, f"{path}.c"])
    with open(path, "rb") as f:
        return f.read()


def scratch(lab, config=None):
    """Only /probe: no shell, no /etc, no libc. Its default command holds until it is told to stop."""
    return build(lab, [{"probe": (probe_binary(lab), 0o755)}],
                 {"Entrypoint": ["/probe"], "Cmd": ["hold"], **(config or {})}, name="scratch")


def busybox(lab, config=None, extra=None):
    """Debian's static busybox with its applets, users root, www-data and app, and /bin/probe."""
    with open("/bin/busybox", "rb") as f:
        content = {"bin/busybox": (f.read(), 0o755), "bin/probe": (probe_binary(lab), 0o755), "tmp": None, "root": None,
                   "home/app": None, "var/www": None, **ETC}
    for applet in run(["/bin/busybox", "--list"]).out.split():
        content.setdefault(f"bin/{applet}", "->busybox")
    layers = [content] + ([extra] if extra else [])
    return build(lab, layers, {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                               **(config or {})}, name="busybox")


def debian(lab, config=None, extra=None):
    """A minimal Debian 12 (glibc, bash); the file's lab.main(debian=True) has made it."""
    with open(os.environ["TBNODE_LAB_DEBIAN"], "rb") as f:
        layers = [f.read()] + ([extra] if extra else [])
    return build(lab, layers, {"Cmd": ["bash"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                               **(config or {})}, name="debian")
