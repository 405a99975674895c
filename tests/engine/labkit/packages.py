# SPDX-License-Identifier: LGPL-2.1-or-later
"""Layers of Debian packages for fixture images: made once, outside of the laboratory, and kept.

A layer is what `apt-get install` changes on top of images.debian()'s root: the upper directory of an overlay, turned
into a layer's tar (whiteouts and opaque directories included) and compressed. Each has a .json beside it with its
digests and a list of what is in it. The key in the file's name covers the list of packages, the release that the root
has and this file; a layer that does not match its digest any more is made anew. Everything happens in a mount and pid
namespace of its own, so that nothing stays mounted or running whatever happens.
"""

import concurrent.futures
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time

CACHE = os.environ.get("TBNODE_FIXTURES", "/var/cache/tbnode/fixtures")

# What docker's own "slim" Debian images leave out, too.
SLIM = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*",
        "/usr/share/groff/*", "/usr/share/linda/*"]
LEFT_OUT = ("var/cache/apt", "var/lib/apt/lists", "var/log", "var/cache/debconf", "var/cache/ldconfig", "tmp", "run",
            "dev", "proc", "sys", "etc/apt/apt.conf.d/99lab", "usr/sbin/policy-rc.d", "etc/resolv.conf", "var/lib/dpkg/lock",
            "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock", "etc/hosts", "var/cache/debs")

# name: (packages, shell commands before the installation, shell commands after it)
LAYERS = {
    "tools": (["gosu", "tini", "dumb-init"], "", ""),
    "nginx": (["nginx-light"], "", "rm -rf /etc/nginx/sites-enabled"),
    "redis": (["redis-server"], "", ""),
    "postgres": (["postgresql-15"],
                 "mkdir -p /etc/postgresql-common && echo create_main_cluster=false >/etc/postgresql-common/createcluster.conf",
                 ""),
    "httpd": (["apache2"], "", ""),
    "memcached": (["memcached"], "", ""),
    "haproxy": (["haproxy"], "", ""),
    "mariadb": (["mariadb-server"], "", "rm -rf /var/lib/mysql; install -d -o mysql -g mysql /var/lib/mysql"),
    "rabbitmq": (["rabbitmq-server"], "", "rm -rf /var/lib/rabbitmq/*"),
    "tomcat": (["tomcat10", "openjdk-17-jre-headless"], "", ""),
    "python": (["python3"], "", ""),
    "perl": (["perl"], "", ""),
    "ruby": (["ruby"], "", ""),
    "php": (["php8.2-cli", "php8.2-fpm"], "", ""),
}

# What levels buildenv and full need (augment/packages.c), and a few of what they take where a release has it.
MIRRORED = ("ca-certificates gcc g++ make libc6-dev patch wget sudo flex byacc git libssl-dev libpcap-dev openssh-server rsyslog "
            "iproute2 iputils-ping net-tools less perl file nano psmisc").split()

GO_PACKAGES = ["golang-1.19-go", "golang-1.19-src"]


class Layer:
    """A layer on disk: path of the compressed tar, digest and size of it, diff_id of what it holds."""

    def __init__(self, path):
        self.path = path
        with open(f"{path}.json", encoding="utf-8") as f:
            about = json.load(f)
        self.digest, self.size, self.diff_id = about["digest"], about["size"], about["diff_id"]
        self.packages, self.seconds = about["packages"], about["seconds"]

    def read(self):
        with open(self.path, "rb") as f:
            return f.read()

    @staticmethod
    def sound(path):
        """Whether both files are there and the bytes are those that were written."""
        try:
            layer = Layer(path)
            with open(path, "rb") as f:
                return "sha256:" + hashlib.file_digest(f, "sha256").hexdigest() == layer.digest
        except (OSError, ValueError, KeyError):
            return False


def key(name, root):
    """What a layer depends on, as a name for its file."""
    h = hashlib.sha256()
    with open(__file__, "rb") as f:
        h.update(f.read())
    h.update(json.dumps([name, LAYERS.get(name), GO_PACKAGES, MIRRORED]).encode())
    st = os.stat(root)  # a root that was made anew has newer packages
    h.update(f"{st.st_size} {st.st_mtime_ns}".encode())
    return f"{CACHE}/{name}-{h.hexdigest()[:16]}.tar.gz"


def paths(names, root):
    """{name: path} of all named layers ("debian" is the root itself, "go" the static server, "mirror" no layer but
    packages as they come from a mirror, and their index); makes what is missing.
    root: the Debian root's tarball (debian.tarball())."""
    os.makedirs(CACHE, exist_ok=True)
    found = {name: key(name, root) for name in names}
    with open(f"{CACHE}/.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [name for name in names if not Layer.sound(found[name])]
        if missing:
            started = time.monotonic()
            print(f"# making the fixture layers {' '.join(missing)}", file=sys.stderr, flush=True)
            # The namespaces end with us, and with them every mount and process of the installations.
            subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable,
                            os.path.abspath(__file__), root, *missing], check=True, stdout=sys.stderr)
            print(f"# made in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            for name in names:  # older versions of the same
                for file in os.listdir(CACHE):
                    if file.startswith(f"{name}-") and not file.startswith(os.path.basename(found[name])):
                        os.unlink(f"{CACHE}/{file}")
    return found


# ---- in the namespaces ----------------------------------------------------------------------------------------


def _run(*argv, **options):
    subprocess.run([str(a) for a in argv], check=True, **options)


class _Hashing:
    """A file that also hashes what is written."""

    def __init__(self, f):
        self.f, self.sha, self.size = f, hashlib.sha256(), 0

    def write(self, data):
        self.sha.update(data)
        self.size += len(data)
        return self.f.write(data)

    def flush(self):
        self.f.flush()


def _keep(path, started, packages, fill):
    """Writes a layer through fill(file for the tar), durable before it has its name."""
    with open(f"{path}.new", "wb") as f:
        outer = _Hashing(f)
        with gzip.GzipFile(fileobj=outer, mode="wb", compresslevel=1, mtime=0, filename="") as packed:
            inner = _Hashing(packed)
            fill(inner)
        f.flush()
        os.fsync(f.fileno())
    about = {"digest": f"sha256:{outer.sha.hexdigest()}", "size": outer.size, "diff_id": f"sha256:{inner.sha.hexdigest()}",
             "unpacked": inner.size, "packages": packages, "seconds": round(time.monotonic() - started, 1)}
    with open(f"{path}.json.new", "w", encoding="utf-8") as f:
        json.dump(about, f, indent=1)
    os.rename(f"{path}.json.new", f"{path}.json")
    os.rename(f"{path}.new", path)
    print(f"# {os.path.basename(path)}: {inner.size >> 20} MB, {about['seconds']} s", flush=True)


def _upper_to_tar(upper, f):
    """An overlay's upper directory as a layer: image-spec layer.md, "Whiteouts"; the kernel's overlayfs.rst."""
    with tarfile.open(fileobj=f, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        def add(path, name):
            st = os.lstat(path)
            if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
                tar.addfile(tarfile.TarInfo(f"{os.path.dirname(name)}/.wh.{os.path.basename(name)}".lstrip("/")))
                return
            info = tar.gettarinfo(path, name)
            info.uname = info.gname = ""
            if info.isreg():
                with open(path, "rb") as data:
                    tar.addfile(info, data)
                return
            tar.addfile(info)
            if not info.isdir():
                return
            try:
                if os.getxattr(path, "trusted.overlay.opaque") == b"y":
                    tar.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))
            except OSError:
                pass
            for child in sorted(os.listdir(path)):
                if f"{name}/{child}" not in LEFT_OUT:
                    add(f"{path}/{child}", f"{name}/{child}")

        for child in sorted(os.listdir(upper)):
            if child not in LEFT_OUT:
                add(f"{upper}/{child}", child)


def _devices(root):
    _run("mount", "-t", "proc", "proc", f"{root}/proc")
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", f"{root}/dev")
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(f"{root}/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        os.chmod(f"{root}/dev/{name}", 0o666)
    os.symlink("/proc/self/fd", f"{root}/dev/fd")
    os.makedirs(f"{root}/dev/shm", mode=0o1777)


def _chroot(root, *argv, log=None):
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    env.update({k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")})
    p = subprocess.run(["chroot", root, *argv], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, errors="replace")
    if p.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit {p.returncode}\n{p.stdout[-3000:]}")
    return p.stdout


def _proxies():
    """The proxies that this machine's apt uses."""
    p = subprocess.run(["apt-config", "dump"], stdout=subprocess.PIPE, text=True, check=True)
    return "".join(f"{line}\n" for line in p.stdout.splitlines() if re.match(r'Acquire::https?::Proxy\S* "[^"]', line))


def _prepare(root):
    """Makes the root able to install: names are resolved, nothing is started, no time is lost with fsync."""
    shutil.copy("/etc/resolv.conf", f"{root}/etc/resolv.conf")
    shutil.copy("/etc/hosts", f"{root}/etc/hosts")
    with open(f"{root}/usr/sbin/policy-rc.d", "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nexit 101\n")
    os.chmod(f"{root}/usr/sbin/policy-rc.d", 0o755)
    excludes = "".join(f' "--path-exclude={p}";' for p in SLIM)
    with open(f"{root}/etc/apt/apt.conf.d/99lab", "w", encoding="ascii") as f:
        f.write(f'DPkg::Options {{ "--force-unsafe-io"; "--force-confold";{excludes} }};\nAcquire::Languages "none";\n'
                f'{_proxies()}Acquire::Retries "3";\nAPT::Install-Recommends "false";\nAPT::Sandbox::User "root";\n')
    _devices(root)
    _chroot(root, "apt-get", "-q", "update")


def _overlay(work, lower):
    """Mounts an overlay over lower; its upper directory is on a tmpfs, which an overlay can always use."""
    for sub in ("upper", "work", "root"):
        os.makedirs(f"{work}/{sub}")
    _run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={work}/upper,workdir={work}/work",
         f"{work}/root")
    return f"{work}/root"


def _install(name, path, base, work):
    started = time.monotonic()
    packages, before, after = LAYERS[name]
    root = _overlay(work, base)
    _devices(root)
    if before:
        _chroot(root, "sh", "-ec", before)
    installed = set(_chroot(root, "dpkg-query", "-W", "-f", "${Package} ${Version}\n").splitlines())
    _chroot(root, "apt-get", "-q", "-y", "install", *packages)
    new = sorted(set(_chroot(root, "dpkg-query", "-W", "-f", "${Package} ${Version}\n").splitlines()) - installed)
    if after:
        _chroot(root, "sh", "-ec", after)
    _run("umount", "-R", "-l", root)
    _keep(path, started, new, lambda f: _upper_to_tar(f"{work}/upper", f))
    shutil.rmtree(work)


GO_SERVER = r"""
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// A server as `FROM scratch` images have it: answers every request, ends orderly on SIGTERM and SIGINT.
func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	listener, err := net.Listen("tcp", ":8080")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening", strings.Join(os.Args[1:], " "))
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				request := make([]byte, 4096)
				if n, err := c.Read(request); n == 0 || err != nil {
					return
				}
				body := fmt.Sprintf("hello from go, uid %d\n", os.Getuid())
				fmt.Fprintf(c, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}()
		}
	}()
	fmt.Println("stopping on", <-stop)
	listener.Close()
}
"""


def _compile_go(path, base, work):
    """The compiler is unpacked, not installed: nothing of it goes into an image."""
    started = time.monotonic()
    root = _overlay(work, base)
    _devices(root)
    os.makedirs(f"{root}/go/debs")
    _chroot(root, "sh", "-ec", f"cd /go/debs && apt-get -q download {' '.join(GO_PACKAGES)} && "
            "for d in *.deb; do dpkg-deb -x $d / && rm $d; done")
    with open(f"{root}/go/server.go", "w", encoding="ascii") as f:
        f.write(GO_SERVER)
    _chroot(root, "env", "CGO_ENABLED=0", "GOROOT=/usr/lib/go-1.19", "GOPATH=/go", "GOCACHE=/go/cache", "GO111MODULE=off",
            "GOFLAGS=-p=2", "/usr/lib/go-1.19/bin/go", "build", "-ldflags=-s -w", "-o", "/go/server", "/go/server.go")

    def fill(f):
        with tarfile.open(fileobj=f, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            info = tar.gettarinfo(f"{root}/go/server", "server")
            info.mode, info.uname, info.gname, info.mtime = 0o755, "", "", 1700000000
            with open(f"{root}/go/server", "rb") as data:
                tar.addfile(info, data)

    _keep(path, started, GO_PACKAGES, fill)
    _run("umount", "-R", "-l", root)
    shutil.rmtree(work)


def _download(path, base, work):
    """mirror/pool/*.deb and mirror/Packages: all that MIRRORED needs beyond the root."""
    started = time.monotonic()
    root = _overlay(work, base)
    _devices(root)
    _chroot(root, "apt-get", "-q", "-y", "--download-only", "install", *MIRRORED)
    os.makedirs(f"{work}/mirror")
    os.makedirs(f"{work}/mirror/pool")
    for file in sorted(os.listdir(f"{root}/var/cache/apt/archives")):
        if file.endswith(".deb"):
            shutil.move(f"{root}/var/cache/apt/archives/{file}", f"{work}/mirror/pool/{file.replace('%3a', '.')}")
    with open(f"{work}/mirror/Packages", "wb") as f:
        _run("dpkg-scanpackages", "-m", "pool", cwd=f"{work}/mirror", stdout=f, stderr=subprocess.DEVNULL)

    def fill(f):
        with tarfile.open(fileobj=f, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            tar.add(f"{work}/mirror", "mirror")

    _keep(path, started, MIRRORED, fill)
    _run("umount", "-R", "-l", root)
    shutil.rmtree(work)


def _pack_root(path, tarball):
    started = time.monotonic()

    def fill(f):
        with open(tarball, "rb") as raw:
            shutil.copyfileobj(raw, f, 1 << 20)

    _keep(path, started, [], fill)


def _main(tarball, names):
    files = {name: key(name, tarball) for name in names}
    # Everything on a tmpfs of ours: quick, and an overlay can keep its changes there also in a container.
    work = f"{CACHE}/work"
    os.makedirs(work, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", "size=90%,mode=0755", "tmpfs", work)
    base = f"{work}/base"
    installs = [n for n in names if n != "debian"]
    os.makedirs(base)
    if installs:
        _run("tar", "-C", base, "-xf", tarball)
        _prepare(base)
        _run("umount", f"{base}/dev")
        _run("umount", f"{base}/proc")

    def make(name):
        if name == "debian":
            _pack_root(files[name], tarball)
        elif name == "go":
            _compile_go(files[name], base, f"{work}/{name}")
        elif name == "mirror":
            _download(files[name], base, f"{work}/{name}")
        else:
            _install(name, files[name], base, f"{work}/{name}")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in pool.map(make, names):
            pass


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
