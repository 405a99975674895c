# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPM families in the laboratory: a root with a real dnf, and the mirrors and archives of Fedora, CentOS, AlmaLinux and
Amazon Linux on the engine's bridge.

Debian has dnf and rpm, but none of those distributions' packages. So the root is Debian's with dnf in it (a cached layer of its
own, made as packages.py makes the others), dressed by a test as a release with the repository files that its images have. The
packages are made here: one spec, a noarch package for each name with a file that says it was installed, signed as theirs are.
The mirrors are an HTTP proxy that also ends TLS (CONNECT) with the laboratory's CA, for most of them are https only.
"""

import fcntl
import hashlib
import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.parse

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from labkit import packages  # noqa: E402

# Not in packages.LAYERS: each change there makes all layers anew.
LAYERS = {"dnf": (["dnf", "rpm"], "",
                  # As Fedora has them: the database where rpm's own sources have it, yum as another name of dnf.
                  "mkdir -p /etc/rpm && echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros && rm -rf /etc/yum.repos.d /root/.rpmdb && "
                  "mkdir -p /etc/yum.repos.d /etc/pki/rpm-gpg && ln -sf dnf-3 /usr/bin/yum && rpm --initdb")}

NEEDED = ("ca-certificates gcc gcc-c++ make glibc-devel patch sudo flex git openssl-devel openssh-server rsyslog iproute iputils "
          "less").split()
WANTED = "wget libtool libpcap-devel python3 python3-devel perl file tar net-tools logrotate rsync psmisc zsh".split()


def paths(names, root):
    """As packages.paths() for LAYERS."""
    packages.LAYERS.update(LAYERS)
    found = {name: packages.key(name, root) for name in names}
    os.makedirs(packages.CACHE, exist_ok=True)
    with open(f"{packages.CACHE}/.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [name for name in names if not packages.Layer.sound(found[name])]
        if missing:
            print(f"# making the fixture layers {' '.join(missing)}", file=sys.stderr, flush=True)
            subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable,
                            os.path.abspath(__file__), root, *missing], check=True, stdout=sys.stderr)
            for name in names:
                for file in os.listdir(packages.CACHE):
                    if file.startswith(f"{name}-") and not file.startswith(os.path.basename(found[name])):
                        os.unlink(f"{packages.CACHE}/{file}")
    return found


def _spec(names):
    text = ("Name: lab\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\nBuildArch: noarch\nAutoReqProv: no\n"
            "%description\nx\n%install\nmkdir -p %{buildroot}/usr/share/lab %{buildroot}/usr/bin\n")
    for n in names:
        text += f"echo {n} >'%{{buildroot}}/usr/share/lab/{n}'\n"
    text += "printf '#!/bin/sh\\necho compiled\\n' >%{buildroot}/usr/bin/gcc\nchmod 755 %{buildroot}/usr/bin/gcc\n"
    for n in names:
        # One that needs another, which is not asked for.
        requires = "Requires: cpp\n" if n == "gcc" else ""
        text += (f"%package -n {n}\nSummary: x\nAutoReqProv: no\n{requires}%description -n {n}\nx\n%files -n {n}\n/usr/share/lab/{n}\n"
                 f"{'/usr/bin/gcc' if n == 'gcc' else ''}\n")
    return text


class RpmMirror:
    """publish() says what is served where; everything else is 404, or for hosts that are gone no connection at all."""

    def __init__(self, lab, address, hosts):
        self.dir = lab.tmp("rpms")
        self.served, self.files, self.asked, self.gone = {}, {}, [], set()
        self._build()
        cert, key = lab.authority.certificate("rpm-mirrors", hosts)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(cert, key)
        with open(lab.authority.ca, "rb") as f:
            self.ca = f.read()
        handler = type("Handler", (_Handler,), {"mirror": self})
        self.server = http.server.ThreadingHTTPServer((address, 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://{address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _run(self, *argv, **options):
        env = {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": self.dir, "LC_ALL": "C.UTF-8", "GNUPGHOME": f"{self.dir}/gpg"}
        return subprocess.run(argv, check=True, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, **options).stdout

    def _build(self):
        os.makedirs(f"{self.dir}/gpg", mode=0o700)
        self._run("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "lab <lab@example.org>", "rsa2048",
                  "sign", "never")
        self.key = self._run("gpg", "--batch", "--armor", "--export")
        with open(f"{self.dir}/lab.spec", "w", encoding="ascii") as f:
            f.write(_spec([*NEEDED, *WANTED, "cpp"]))
        self._run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {self.dir}/build", "--define", f"_dbpath {self.dir}/db",
                  f"{self.dir}/lab.spec")
        built = f"{self.dir}/build/RPMS/noarch"
        for name in ("unsigned", "signed"):
            shutil.copytree(built, f"{self.dir}/{name}")
            if name == "signed":
                self._run("rpmsign", "--define", "_gpg_name lab@example.org", "--define", f"_gpg_path {self.dir}/gpg",
                          "--define", "__gpg /usr/bin/gpg",
                          "--addsign", *(f"{self.dir}/signed/{x}" for x in sorted(os.listdir(built))))
            self._run("createrepo_c", "--quiet", f"{self.dir}/{name}")
        os.makedirs(f"{self.dir}/empty")
        self._run("createrepo_c", "--quiet", f"{self.dir}/empty")

    def publish(self, where, what="signed"):
        """where: host and path of a repository. what: "signed", "unsigned" or "empty"."""
        self.served[where.rstrip("/")] = f"{self.dir}/{what}"

    def mirror_list(self, where, *urls):
        self.files[where] = "".join(f"{u}\n" for u in urls).encode()

    def metalink(self, where, url, what="signed"):
        with open(f"{self.dir}/{what}/repodata/repomd.xml", "rb") as f:
            data = f.read()
        self.files[where] = (
            '<?xml version="1.0" encoding="utf-8"?>\n<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic">'
            f'<files><file name="repomd.xml"><size>{len(data)}</size><verification><hash type="sha256">'
            f'{hashlib.sha256(data).hexdigest()}</hash></verification><resources><url protocol="http" type="http" '
            f'preference="100">{url}/repodata/repomd.xml</url></resources></file></files></metalink>').encode()

    def clear(self, *gone):
        """gone: hosts that have no address any more, as mirrorlist.centos.org."""
        self.served, self.files, self.asked, self.gone = {}, {}, [], set(gone)

    def hosts(self):
        """The hosts that had something to give, in order."""
        return list(dict.fromkeys(where.partition("/")[0] for where, status in self.asked if status == 200))

    def get(self, where):
        if where in self.files:
            return self.files[where]
        path = where.partition("?")[0]
        for base, folder in self.served.items():
            file = os.path.normpath(f"{folder}/{path[len(base):]}")
            if path.startswith(f"{base}/") and file.startswith(folder) and os.path.isfile(file):
                with open(file, "rb") as f:
                    return f.read()
        return None

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror = None
    tunnel = None

    def do_CONNECT(self):
        host = self.path.partition(":")[0]
        if host in self.mirror.gone:
            self.answer(502, b"")
            return
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.mirror.tls.wrap_socket(self.connection, server_side=True)
        except OSError:
            self.close_connection = True
            return
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.tunnel = host
        self.close_connection = False

    def do_GET(self):
        where = urllib.parse.unquote(f"{self.tunnel}{self.path}" if self.tunnel else self.path.partition("://")[2])
        if where.partition("/")[0] in self.mirror.gone:
            self.answer(502, b"")
            return
        data = self.mirror.get(where)
        self.mirror.asked.append((where, 404 if data is None else 200))
        self.answer(404 if data is None else 200, data or b"")

    def answer(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        pass


if __name__ == "__main__":
    packages.LAYERS.update(LAYERS)
    packages._main(sys.argv[1], sys.argv[2:])
