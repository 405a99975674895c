#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ssh to a node: what people and scripts do with it, by the stock OpenSSH client.

The node is an augmented image made by the rules of augment/client/README.md (see init_images.py), in node mode."""

import contextlib
import hashlib
import os
import pty
import shutil
import socket
import subprocess
import threading
import unittest

import init_images
import lab

L = None
KEY = None
IMAGES = None
COMMON = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
          "-o", "IdentitiesOnly=yes"]
SCRATCH = ("scratch-hold", "scratch", {"Entrypoint": ["/world"], "Cmd": ["hold"]})
BUSYBOX = ("busybox-hold", "busybox", {"Entrypoint": ["world"], "Cmd": ["hold"], "User": "app"})
VOLUME = ("--mount", "type=volume,target=/tbnode/keys")


def setUpModule():
    global L, KEY, IMAGES
    L = lab.Lab.get()
    L.dockerd.start()
    IMAGES = init_images.Images(L)
    KEY = f"{L.dir}/key"
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def make_key(kind, *options):
    path = f"{L.tmp('key')}/{kind}"
    L.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path, *options])
    return path


class Ssh(unittest.TestCase):
    def start(self, image, options=VOLUME, keys=(), name="n1"):
        directory = L.tmp("node")
        with open(f"{directory}/node.conf", "w", encoding="ascii") as f:
            f.write(f"on-exit=stay\nnode={name}\nexperiment=e1\n")
        with open(f"{directory}/authorized_keys", "w", encoding="ascii") as f:
            for key in (KEY, *keys):
                with open(f"{key}.pub", encoding="ascii") as g:
                    f.write(g.read())
        container = L.docker("run", "-d", "--hostname", "h", "--user", "0", "-v", f"{directory}:/tbnode/run:ro",
                             *options, image).out.strip()
        self.addCleanup(L.docker, "rm", "-fv", container, check=False)
        address = L.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container).out.strip()
        lab.wait_for(lambda: self.ssh(address, "true").rc == 0, 20, "sshd")
        return container, address

    def ssh(self, address, *command, user="root", key=None, options=(), **kwargs):
        return L.run(["ssh", "-i", key or KEY, *COMMON, *options, f"{user}@{address}", *command], check=False, **kwargs)

    def copies(self, address, user, place, size):
        """Up and down again by every protocol; returns what was not the same."""
        directory = L.tmp("copy")
        with open(f"{directory}/up", "wb") as f:
            for _ in range(size // 1_000_000):
                f.write(os.urandom(1_000_000))
        want, bad = sha256(f"{directory}/up"), []
        for name, argv in (("sftp", ["scp", "-q"]), ("scp", ["scp", "-O", "-q"])):
            L.run([*argv, "-i", KEY, *COMMON, f"{directory}/up", f"{user}@{address}:{place}/{name}"], timeout=300)
            there = self.ssh(address, f"/tbnode/bin/sha256sum {place}/{name}", user=user).out.split()[:1]
            L.run([*argv, "-i", KEY, *COMMON, f"{user}@{address}:{place}/{name}", f"{directory}/{name}"], timeout=300)
            if there != [want] or sha256(f"{directory}/{name}") != want:
                bad.append(name)
            self.ssh(address, f"/tbnode/bin/rm {place}/{name}", user=user)
        shutil.rmtree(directory)
        return bad

    def test_copies(self):
        _, address = self.start(IMAGES.pair(*SCRATCH)[1])
        self.assertEqual(self.copies(address, "root", "/", 200_000_000), [])
        _, address = self.start(IMAGES.pair(*BUSYBOX)[1])
        self.ssh(address, "chmod 1777 /tmp")
        for user in ("root", "app", "lost"):
            self.assertEqual(self.copies(address, user, "/tmp", 3_000_000), [], user)

    def test_files_over_sftp(self):
        """What a file system over ssh needs."""
        for image in (SCRATCH, BUSYBOX):
            _, address = self.start(IMAGES.pair(*image)[1])
            here = L.tmp("sftp")
            with open(f"{here}/a", "w", encoding="ascii") as f:
                f.write("text\n")
            batch = f"mkdir /dir\nput {here}/a /dir/a\nrename /dir/a /dir/b\nsymlink b /dir/link\nchmod 600 /dir/b\n" \
                    f"ln /dir/b /dir/hard\nls -ln /dir\nget /dir/link {here}/back\ndf /dir\nrm /dir/hard\nrm /dir/link\nrm /dir/b\n" \
                    "rmdir /dir\n"
            r = L.run(["sftp", "-q", "-b", "-", "-i", KEY, *COMMON, f"root@{address}"], input=batch, check=False)
            self.assertEqual(r.rc, 0, r)
            self.assertRegex(r.out, r"-rw-------\s+\S+\s+(0|root)\s+(0|root)\s+5 .*/dir/b\n")
            with open(f"{here}/back", encoding="ascii") as f:
                self.assertEqual(f.read(), "text\n")

    def test_rsync(self):
        if not shutil.which("rsync"):
            self.skipTest("no rsync here")
        libraries = [w for w in L.run("ldd", shutil.which("rsync")).out.split() if w.startswith("/")]
        tree = {"usr/bin/rsync": (open(os.path.realpath(shutil.which("rsync")), "rb").read(), 0o755)}
        for path in libraries:
            with open(path, "rb") as f:
                tree.setdefault(f"opt/lib/{os.path.basename(path)}", (f.read(), 0o755))
        tree["usr/local/bin/rsync"] = (b"#!/bin/sh\nLD_LIBRARY_PATH=/opt/lib exec /usr/bin/rsync \"$@\"\n", 0o755)
        IMAGES.layers["rsync"] = [*IMAGES.layers["debian"], tree]
        _, address = self.start(IMAGES.pair("rsync", "rsync", {"Cmd": ["sleep", "infinity"]})[1])
        here = L.tmp("rsync")
        for i in range(50):
            with open(f"{here}/{i}", "wb") as f:
                f.write(os.urandom(20000))
        back = L.tmp("back")
        shell = " ".join(["ssh", "-i", KEY, *COMMON])
        L.run(["rsync", "-a", "-e", shell, f"{here}/", f"root@{address}:/srv/"])
        L.run(["rsync", "-a", "-e", shell, f"root@{address}:/srv/", f"{back}/"])
        self.assertEqual([sha256(f"{here}/{i}") for i in range(50)], [sha256(f"{back}/{i}") for i in range(50)])

    def test_many(self):
        _, address = self.start(IMAGES.pair(*SCRATCH)[1])
        # Thirty that say nothing hold their places; nobody else is refused for it.
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                idle = stack.enter_context(socket.create_connection((address, 22), timeout=20))
                self.assertTrue(idle.recv(64).startswith(b"SSH-2.0-"))
            argv = ["ssh", "-i", KEY, *COMMON, f"root@{address}", "echo yes"]
            sessions = [subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(50)]
            self.assertEqual([s.communicate(timeout=120)[0] for s in sessions], [b"yes\n"] * 50)
        self.assertEqual([self.ssh(address, "exit 5").rc for _ in range(200)], [5] * 200)

    def test_sessions_on_one_connection(self):
        _, address = self.start(IMAGES.pair(*SCRATCH)[1])
        control = ("-o", f"ControlPath={L.tmp('mux')}/s", "-o", "ControlMaster=auto", "-o", "ControlPersist=yes")
        self.assertEqual(self.ssh(address, "exit 0", options=control).rc, 0)
        for i in range(20):
            r = self.ssh(address, f"echo {i}; exit {i}", options=control)
            self.assertEqual((r.rc, r.out), (i, f"{i}\n"), r)
        self.ssh(address, options=(*control, "-O", "exit"))

    @contextlib.contextmanager
    def tunnel(self, address, *options):
        p = subprocess.Popen(["ssh", "-i", KEY, *COMMON, "-o", "ExitOnForwardFailure=yes", *options, f"root@{address}",
                              "echo up; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.assertEqual(p.stdout.readline(), b"up\n")
            yield
        finally:
            p.stdin.close()
            p.wait(20)
            p.stdout.close()

    def test_forwarding(self):
        image = IMAGES.pair(*BUSYBOX)[1]
        _, first = self.start(image)
        _, second = self.start(image, name="n2")
        data = os.urandom(300_000)

        def serve(sock):
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = sock.accept()
                    with peer:
                        while block := peer.recv(65536):
                            peer.sendall(block)

        def echoed(address, port):
            with socket.create_connection((address, port), timeout=20) as s:
                sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
                sender.start()
                got = b""
                while block := s.recv(65536):
                    got += block
                sender.join()
                return got

        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=serve, args=(server,), daemon=True).start()
            port = server.getsockname()[1]
            # -R into the node, and -L out of it again: through both, back to us.
            with self.tunnel(first, "-R", f"7000:127.0.0.1:{port}"), self.tunnel(first, "-L", "7001:127.0.0.1:7000"):
                self.assertEqual(echoed("127.0.0.1", 7001), data)
            server.shutdown(socket.SHUT_RDWR)
        # -W: one node is the way to the other.
        jump = f"ssh -i {KEY} {' '.join(COMMON)} -W %h:%p root@{first}"
        r = self.ssh(second, "echo $SSH_CONNECTION", options=("-o", f"ProxyCommand={jump}"))
        self.assertEqual((r.rc, r.out.split()[:1]), (0, [first]), r)

    def test_agent_forwarding(self):
        for image in (SCRATCH, BUSYBOX):
            _, address = self.start(IMAGES.pair(*image)[1])
            r = L.run(["ssh-agent", "ssh", "-A", "-i", KEY, *COMMON, f"root@{address}", "test -S $SSH_AUTH_SOCK && echo yes"],
                      check=False)
            self.assertEqual((r.rc, r.out), (0, "yes\n"), r)

    def test_environment(self):
        _, address = self.start(IMAGES.pair(*BUSYBOX)[1])
        r = self.ssh(address, "env", user="app")
        env = dict(line.split("=", 1) for line in r.out.splitlines())
        path = init_images.PATH[5:] + ":/tbnode/bin"
        want = {"USER": "app", "LOGNAME": "app", "HOME": "/home/app", "SHELL": "/bin/sh", "PATH": path, "SVDIR": "/run/tbnode/service"}
        self.assertEqual({k: env.pop(k, None) for k in want}, want)
        self.assertLessEqual(set(env), {"SSH_CONNECTION", "SSH_CLIENT", "SSH_PUBKEYINFO", "PWD", "SHLVL", "_", "OLDPWD"})
        r = self.ssh(address, "echo $TERM $SSH_TTY; pwd", user="app", options=("-tt",), env={"TERM": "vt100"})
        self.assertEqual(r.out.split(), ["vt100", "/dev/pts/0", "/home/app"])

    def test_commands_and_signals(self):
        _, address = self.start(IMAGES.pair(*SCRATCH)[1])
        r = self.ssh(address, "echo \"a  b\" | tr a c; false || exit 3")
        self.assertEqual((r.rc, r.out), (3, "c  b\n"))
        r = self.ssh(address, "cat; echo err >&2", input="through\n")
        self.assertEqual((r.rc, r.out, r.err), (0, "through\n", "err\n"))
        self.assertEqual(self.ssh(address, "kill -KILL $$").rc, 255, "ended by a signal")
        self.assertEqual(self.ssh(address, "no-such-program").rc, 127)
        # An interactive shell on pipes is a login shell that reads commands.
        self.assertEqual(self.ssh(address, options=("-T",), input="echo $0; exit 4\n").rc, 4)

    def test_no_terminals(self):
        _, address = self.start(IMAGES.pair(*SCRATCH)[1], options=("--tmpfs", "/dev/pts"))
        self.assertEqual(self.ssh(address, "echo yes").out, "yes\n")
        # Who insists on a terminal is told that there is none, and leaves.
        r = self.ssh(address, "echo yes", options=("-tt",))
        self.assertEqual(r.rc, 255)
        self.assertIn("PTY allocation request failed", r.err)
        # Who only logs in from one gets a shell without.
        self.assertEqual(self.from_terminal(address), (4, "in-2\nnot a tty\n"))

    @staticmethod
    def from_terminal(address):
        """ssh started at a terminal: its exit status and output."""
        master, slave = pty.openpty()
        argv = ["ssh", "-i", KEY, *COMMON, f"root@{address}"]
        try:
            with subprocess.Popen(argv, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as p:
                os.write(master, b"echo in-$((1+1)); tty; exit 4\n")
                out = p.communicate(timeout=60)[0].decode()
            return p.returncode, out
        finally:
            os.close(master)
            os.close(slave)

    def test_keys_of_one_user(self):
        container, address = self.start(IMAGES.pair(*BUSYBOX)[1])
        key = make_key("ed25519")
        with open(f"{key}.pub", encoding="ascii") as f:
            public = f.read().strip()
        self.assertEqual(self.ssh(address, "true", user="app", key=key).rc, 255)
        self.ssh(address, f"mkdir -p /run/tbnode/keys && echo '{public}' >/run/tbnode/keys/app")
        self.assertEqual(self.ssh(address, "id -un", user="app", key=key).out, "app\n")
        for user in ("root", "lost"):
            self.assertEqual(self.ssh(address, "true", user=user, key=key).rc, 255, user)
        self.ssh(address, "chmod g+w /run/tbnode/keys/app")
        self.assertEqual(self.ssh(address, "true", user="app", key=key).rc, 255)
        self.ssh(address, "cd /run/tbnode/keys; chmod g-w app; mv app real; ln -s real app")
        self.assertEqual(self.ssh(address, "true", user="app", key=key).rc, 255)
        # A key of the image's making opens nothing.
        self.ssh(address, f"mkdir -p /root/.ssh && echo '{public}' >/root/.ssh/authorized_keys; chmod -R go= /root")
        self.assertEqual(self.ssh(address, "true", key=key).rc, 255)

    def test_only_keys(self):
        _, address = self.start(IMAGES.pair(*BUSYBOX)[1])
        r = L.run(["ssh", "-v", *COMMON, "-o", "LogLevel=DEBUG1", "-o", "PreferredAuthentications=none,password,keyboard-interactive",
                   f"root@{address}", "true"], check=False)
        self.assertEqual(r.rc, 255)
        offered = {line.split(": ")[-1].strip() for line in r.err.splitlines() if "Authentications that can continue" in line}
        self.assertEqual(offered, {"publickey"})

    def test_algorithms(self):
        """What OpenSSH 7.4 (2016) offers, one by one, and every kind of key."""
        kinds = {"ed25519": (), "ecdsa": (), "rsa": ("-b", "3072")}
        keys = {kind: make_key(kind, *options) for kind, options in kinds.items()}
        _, address = self.start(IMAGES.pair(*SCRATCH)[1], keys=keys.values())
        tried = [("KexAlgorithms", k) for k in ("curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256",
                                                "diffie-hellman-group14-sha256")]
        tried += [("Ciphers", c) for c in ("chacha20-poly1305@openssh.com", "aes128-ctr", "aes256-ctr")]
        tried += [("HostKeyAlgorithms", h) for h in ("ssh-ed25519", "ecdsa-sha2-nistp256")]
        for name, value in tried:
            r = self.ssh(address, "echo yes", options=("-o", f"{name}={value}"))
            self.assertEqual(r.out, "yes\n", (name, value, r.err))
        r = self.ssh(address, "echo yes", options=("-o", "Ciphers=aes128-ctr", "-o", "MACs=hmac-sha2-256"))
        self.assertEqual(r.out, "yes\n")
        for kind, key in keys.items():
            self.assertEqual(self.ssh(address, "echo yes", key=key).out, "yes\n", kind)

    def test_host_keys_belong_to_the_container(self):
        def host_key(address):
            return (L.run(["ssh-keyscan", "-t", "ed25519", address], check=False).out.split() or [None])[-1]

        for options in (VOLUME, (*VOLUME, "--read-only")):
            container, address = self.start(IMAGES.pair(*SCRATCH)[1], options=options)
            first = host_key(address)
            L.docker("restart", "-t", "5", container)
            address = L.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", container).out.strip()
            lab.wait_for(lambda: self.ssh(address, "true").rc == 0, 20, "sshd")
            self.assertEqual(host_key(address), first)
            L.docker("commit", container, "snapshot:keys")
            self.assertEqual(L.docker("run", "--rm", "--entrypoint", "/tbnode/bin/find", "snapshot:keys", "/", "-xdev",
                                      "-name", "host_key*").out, "")
            _, other = self.start("snapshot:keys", name="n2")
            self.assertNotIn(host_key(other), (None, first))

    def test_storage_driver_vfs(self):
        """There, a container's root and its volumes lie in one file system."""
        global IMAGES
        images = IMAGES
        L.dockerd.stop()
        try:
            L.dockerd.start(config={"storage-driver": "vfs"})
            self.assertEqual("vfs\n", L.docker("info", "-f", "{{.Driver}}").out)
            IMAGES = init_images.Images(L)
            container, address = self.start(IMAGES.pair(*SCRATCH)[1])
            self.assertEqual("host_key_ecdsa\nhost_key_ed25519\nowner\n", self.ssh(address, "ls /tbnode/keys/ssh").out)
            self.assertEqual("", self.ssh(address, "find /run/tbnode -name 'host_key*'").out)
            L.docker("commit", container, "snapshot:vfs")
            self.assertEqual(L.docker("run", "--rm", "--entrypoint", "/tbnode/bin/find", "snapshot:vfs", "/", "-xdev", "-name",
                                      "host_key*").out, "")
            L.docker("rm", "-fv", container)
        finally:
            IMAGES = images
            L.dockerd.stop()
            L.dockerd.start()


if __name__ == "__main__":
    lab.main(debian=True)
