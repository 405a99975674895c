#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""ssh to nodes that have no sshd in them, at a port of the host, by the stock OpenSSH client."""

import fcntl
import hashlib
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import unittest

import init_images
import lab
from labkit.agent import ARCH, SOCKET

L = None
KEY = None
COMMON = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
          "-o", "IdentitiesOnly=yes"]
CONFIG = {"ssh-ports": "22000-22009"}
SIZE = 100_000_000 if os.environ.get("TBNODE_TEST_LONG") == "yes" else 30_000_000


def setUpModule():
    global L, KEY
    L = lab.Lab.get()
    L.dockerd.start(config={"runtimes": {"tbnode": {"path": f"{L.install()}/tbnode-runtime"}}})
    L.tbnoded.start(config=CONFIG)
    KEY = f"{L.dir}/key"
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])
    lab.images.busybox(L, {"StopSignal": "SIGKILL"}).push(L.local, "box:1")  # sleep as process 1 hears no other
    with open(init_images.Images(L).lab.dir + "/world", "rb") as f:
        world = f.read()
    lab.images.build(L, [{"world": (world, 0o755)}], {"Cmd": ["/world", "hold"], "User": "1000"}).push(L.local, "one-program:1")
    L.docker("network", "create", "lan0")


def keys():
    with open(f"{KEY}.pub", encoding="ascii") as f:
        return f.read().strip()


def inspect(name):
    r = L.tbnode("inspect", "--json", name)
    return r.json() if r.rc == 0 else {}


def run(name, image, *cmd, options=()):
    """tbnode run; its port."""
    L.tbnode("run", "--level", "none", "--name", name, "--ssh-key", KEY, *options, f"127.0.0.1:5000/{image}", *cmd, check=True)
    return inspect(name)["ssh_port"]


def docker_run(name, *options, image="box:1", cmd=("sleep", "1000000"), runtime="tbnode", wait=True):
    """Nothing but labels; its port."""
    L.docker("run", "-d", "--name", name, "--runtime", runtime, "--label", f"tbnode.ssh-keys={keys()}", *options,
             f"127.0.0.1:5000/{image}", *cmd)
    if wait:
        opened(name)
    return inspect(name)["ssh_port"]


def opened(name):
    """Until the agent has made up its mind about its port."""
    def settled():
        node = inspect(name)
        return node.get("state") == "configured" and "being asked" not in (node["ssh_missing"] or "")
    lab.wait_for(settled, 20, name)


def argv(port, *command, user="root", key=None, options=()):
    return ["ssh", "-p", str(port), "-i", key or KEY, *COMMON, *options, f"{user}@127.0.0.1", *command]


def ssh(port, *command, user="root", key=None, options=(), **more):
    return L.run(argv(port, *command, user=user, key=key, options=options), check=False, **more)


def refused(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def processes(name, word):
    out = L.docker("top", name, "-o", "pid,args").out.splitlines()[1:]
    return [int(line.split()[0]) for line in out if word in f"{line} "]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


class Base(unittest.TestCase):
    def tearDown(self):
        if not L.tbnoded.running:
            L.tbnoded.start(config=CONFIG)
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-fv", *ids)
        lab.wait_for(lambda: not L.traces(), 20, f"no traces: {L.traces()}")
        self.assertEqual([], [p for p in range(22000, 22010) if not refused(p)])


class Sessions(Base):
    def test_commands(self):
        port = run("n1", "box:1", "sleep", "1000000")
        r = ssh(port, "echo \"a  b\" | tr a c; echo err >&2; exit 7")
        self.assertEqual((7, "c  b\n", "err\n"), (r.rc, r.out, r.err))
        self.assertEqual(("through\n", 0), (lambda r: (r.out, r.rc))(ssh(port, "cat", input="through\n")))
        self.assertEqual(255, ssh(port, "kill -KILL $$").rc, "ended by a signal")
        self.assertEqual(127, ssh(port, "no-such-program").rc)
        # Accounts are the image's.
        r = ssh(port, "id -un; pwd; echo $SHELL; echo $PATH; echo $SSH_CONNECTION", user="app")
        user, home, shell, path, connection = r.out.splitlines()
        self.assertEqual(("app", "/home/app", "/bin/sh"), (user, home, shell))
        self.assertTrue(path.endswith(":/tbnode/bin"), path)
        self.assertEqual(["127.0.0.1", "127.0.0.1", str(port)], [connection.split()[i] for i in (0, 2, 3)])
        self.assertNotIn("TBNODE", ssh(port, "env").out)
        for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256"):
            self.assertEqual("yes\n", ssh(port, "echo yes", options=("-o", f"HostKeyAlgorithms={kind}")).out, kind)
        # The agent says where it is, and tbnode ssh goes there.
        node = inspect("n1")
        self.assertEqual(("outside", port, None), (node["ssh"], node["ssh_port"], node["ssh_missing"]))
        r = L.tbnode("ssh", "-i", KEY, "n1", "echo in; exit 3")
        self.assertEqual((3, "in\n"), (r.rc, r.out), r)
        self.assertIn(str(port), L.tbnode("ps").out)
        # Where no port is given, it says so.
        L.tbnoded.stop()
        L.tbnoded.start(config={"ssh-ports": "off"})
        opened("n1")
        r = L.tbnode("ssh", "-i", KEY, "n1", "true")
        self.assertEqual(1, r.rc)
        self.assertIn("ssh-ports", r.err)
        L.tbnoded.stop()

    def test_only_keys_of_the_label(self):
        port = run("n1", "box:1", "sleep", "1000000")
        other = f"{L.tmp('key')}/other"
        L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other])
        self.assertEqual(255, ssh(port, "true", key=other).rc)
        self.assertEqual(255, ssh(port, "true", user="nobody-of-that-name").rc)
        r = L.run(["ssh", "-v", "-p", str(port), *COMMON, "-o", "LogLevel=DEBUG1", "-o",
                   "PreferredAuthentications=none,password,keyboard-interactive", "root@127.0.0.1", "true"], check=False)
        offered = {x.split(": ")[-1].strip() for x in r.err.splitlines() if "Authentications that can continue" in x}
        self.assertEqual((255, {"publickey"}), (r.rc, offered), r.err)
        # What the image brings lets nobody in.
        with open(f"{other}.pub", encoding="ascii") as f:
            ssh(port, "mkdir -p /root/.ssh; cat >/root/.ssh/authorized_keys; chmod -R go= /root", input=f.read())
        self.assertEqual(255, ssh(port, "true", key=other).rc)

    def test_large_both_ways(self):
        port = run("n1", "box:1", "sleep", "1000000")
        here = L.tmp("large")
        with open(f"{here}/up", "wb") as f:
            for _ in range(SIZE // 1_000_000):
                f.write(os.urandom(1_000_000))
        with open(f"{here}/up", "rb") as source, open(f"{here}/down", "wb") as target:
            subprocess.run(argv(port, "tee /tmp/kept"), stdin=source, stdout=target, check=True, timeout=200)
        self.assertEqual(sha256(f"{here}/up"), sha256(f"{here}/down"))
        self.assertEqual(sha256(f"{here}/up"), ssh(port, "sha256sum /tmp/kept").out.split()[0])
        shutil.rmtree(here)

    def test_terminal(self):
        port = run("n1", "box:1", "sleep", "1000000")
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        p = subprocess.Popen(argv(port, options=("-tt",)), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                             env={**os.environ, "TERM": "vt220"})
        until = lab.reader(master)
        until(b"# ")
        os.write(master, b"tty >/dev/null && echo is-a-$((1))-tty; echo term=$TERM.; stty size\r")
        until(b"is-a-1-tty")
        until(b"term=vt220.")
        until(b"33 101")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 90, 0, 0))
        p.send_signal(signal.SIGWINCH)
        lab.wait_for(lambda: "44 90" in ssh(port, "for t in /dev/pts/[0-9]*; do stty size <$t; done").out, 20, "the new size")
        os.write(master, b"sleep 20011\r")
        lab.wait_for(lambda: processes("n1", "sleep 20011"), 20, "sleep")
        os.write(master, b"\x03")
        lab.wait_for(lambda: not processes("n1", "sleep 20011"), 20, "the end of sleep")
        os.write(master, b"exit 9\r")
        self.assertEqual(9, p.wait(20))
        os.close(master)
        os.close(slave)

    def test_connections_that_say_nothing(self):
        """They hold their places, so many and no more; who comes then waits, and other nodes do not notice."""
        port, other = run("n1", "box:1", "sleep", "1000000"), run("n2", "box:1", "sleep", "1000000")
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        try:
            def served():
                return [s for s in idle if select.select([s], [], [], 0)[0]]
            lab.wait_for(lambda: len(served()) >= 48, 60, "48 of them")
            self.assertEqual("yes\n", ssh(other, "echo yes").out)
            # The server ends who does not log in within a minute: by then others may have had a turn, but never more at once.
            self.assertLessEqual(len(processes("n1", "dropbear")), 48)
            for s in served():
                s.close()
                idle.remove(s)
            lab.wait_for(lambda: len(served()) == len(idle), 60, "the others")
        finally:
            for s in idle:
                s.close()
        self.assertEqual("yes\n", ssh(port, "echo yes").out)
        lab.wait_for(lambda: not processes("n1", "dropbear"), 20, "the end of all servers")

    def test_many(self):
        port = run("n1", "box:1", "sleep", "1000000")
        sessions = [subprocess.Popen(argv(port, f"cat; exit {i}"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                    for i in range(30)]
        data = [os.urandom(50_000) for _ in sessions]
        # All of them at once: none ends before its input does.
        lab.wait_for(lambda: len(processes("n1", " cat ")) >= len(sessions), 60, "all sessions")
        out = [s.communicate(d, timeout=60)[0] for s, d in zip(sessions, data)]
        self.assertEqual(data, out)
        self.assertEqual(list(range(30)), [s.returncode for s in sessions])
        lab.wait_for(lambda: not processes("n1", "dropbear"), 20, "the end of all servers")


class Copies(Base):
    def copy(self, port, place):
        here = L.tmp("copy")
        with open(f"{here}/up", "wb") as f:
            f.write(os.urandom(2_000_000))
        for name, words in (("sftp", ["scp", "-q"]), ("scp", ["scp", "-O", "-q"])):
            words = [*words, "-P", str(port), "-i", KEY, *COMMON]
            L.run([*words, f"{here}/up", f"root@127.0.0.1:{place}/{name}"])
            L.run([*words, f"root@127.0.0.1:{place}/{name}", f"{here}/{name}"])
            self.assertEqual(sha256(f"{here}/up"), sha256(f"{here}/{name}"), name)
        batch = f"mkdir {place}/dir\nput {here}/up {place}/dir/a\nrename {place}/dir/a {place}/dir/b\nsymlink b {place}/dir/link\n" \
                f"chmod 600 {place}/dir/b\nls -ln {place}/dir\nget {place}/dir/link {here}/back\nrm {place}/dir/link\n" \
                f"rm {place}/dir/b\nrmdir {place}/dir\n"
        r = L.run(["sftp", "-q", "-b", "-", "-P", str(port), "-i", KEY, *COMMON, "root@127.0.0.1"], input=batch)
        self.assertRegex(r.out, r"-rw-------\s+\S+\s+(0|root)\s+(0|root)\s+2000000 .*dir/b\n")
        self.assertEqual(sha256(f"{here}/up"), sha256(f"{here}/back"))

    def test_busybox(self):
        port = run("n1", "box:1", "sleep", "1000000")
        self.copy(port, "/tmp")

    def test_one_program_is_all_there_is(self):
        """No shell, no accounts, and another user than root is the image's own."""
        port = run("n1", "one-program:1")
        self.copy(port, "")
        r = ssh(port, "id -u; echo $0; ls /world")
        self.assertEqual("0\nsh\n/world\n", r.out, r)
        self.assertEqual(0, ssh(port, "true", options=("-tt",)).rc)

    def test_read_only(self):
        port = docker_run("n1", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", image="one-program:1", cmd=())
        self.assertEqual("yes\n", ssh(port, "echo yes").out)
        self.copy(port, "/tmp")

    def test_rsync(self):
        if not shutil.which("rsync"):
            self.skipTest("no rsync here")
        libraries = [w for w in L.run("ldd", shutil.which("rsync")).out.split() if w.startswith("/")]
        tree = {"usr/bin/rsync": (open(os.path.realpath(shutil.which("rsync")), "rb").read(), 0o755)}
        for path in libraries:
            with open(path, "rb") as f:
                tree[path.lstrip("/")] = (f.read(), 0o755)
        lab.images.busybox(L, extra=tree).push(L.local, "rsync:1")
        port = run("n1", "rsync:1", "sleep", "1000000")
        here, back = L.tmp("rsync"), L.tmp("back")
        for i in range(20):
            with open(f"{here}/{i}", "wb") as f:
                f.write(os.urandom(20000))
        shell = " ".join(["ssh", "-p", str(port), "-i", KEY, *COMMON])
        L.run(["rsync", "-a", "-e", shell, f"{here}/", "root@127.0.0.1:/srv/"])
        L.run(["rsync", "-a", "-e", shell, "root@127.0.0.1:/srv/", f"{back}/"])
        self.assertEqual([sha256(f"{here}/{i}") for i in range(20)], [sha256(f"{back}/{i}") for i in range(20)])


class Ends(Base):
    @staticmethod
    def hold(port, word):
        return subprocess.Popen(argv(port, f"sleep {word}", options=("-tt",)), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    def test_node_removed_in_a_session(self):
        port = run("n1", "box:1", "sleep", "1000000")
        p = self.hold(port, "20001")
        lab.wait_for(lambda: processes("n1", "20001"), 20, "the session")
        L.tbnode("rm", "n1", check=True)
        self.assertNotEqual(0, p.wait(30))
        p.stdin.close()
        lab.wait_for(lambda: refused(port), 20, "the port to be closed")

    def test_client_gone(self):
        port = run("n1", "box:1", "sleep", "1000000")
        p = self.hold(port, "20002")
        lab.wait_for(lambda: processes("n1", "20002"), 20, "the session")
        p.kill()
        p.wait()
        p.stdin.close()
        lab.wait_for(lambda: not processes("n1", "dropbear") and not processes("n1", "20002"), 20, "the end of all of it")

    def test_agent_killed_in_a_session(self):
        port = run("n1", "box:1", "sleep", "1000000")

        def host_key():
            return sorted(L.run(["ssh-keyscan", "-p", str(port), "-t", "ed25519,ecdsa", "127.0.0.1"], check=False).out.splitlines())

        before = host_key()
        self.assertEqual(2, len(before))
        p = self.hold(port, "20003")
        lab.wait_for(lambda: processes("n1", "20003"), 20, "the session")
        L.tbnoded.kill()
        self.assertNotEqual(0, p.wait(30))
        p.stdin.close()
        lab.wait_for(lambda: not processes("n1", "dropbear") and not processes("n1", "20003"), 20, "the end of all of it")
        self.assertTrue(refused(port))
        L.tbnoded.start(config=CONFIG)
        opened("n1")
        self.assertEqual((port, "yes\n"), (inspect("n1")["ssh_port"], ssh(port, "echo yes").out))
        # The node is who it was; also after a restart of its own. Another one is not.
        self.assertEqual(before, host_key())
        L.docker("restart", "-t", "1", "n1")
        opened("n1")
        self.assertEqual(before, host_key())
        L.docker("rm", "-f", "n1")
        lab.wait_for(lambda: refused(port), 20, "the port to be closed")
        self.assertEqual(port, run("n1", "box:1", "sleep", "1000000"))
        self.assertEqual(2, len(set(host_key()) - set(before)))

    def test_stop_and_start(self):
        port = run("n1", "box:1", "sleep", "1000000")
        L.tbnode("stop", "n1", check=True)
        lab.wait_for(lambda: refused(port), 20, "the port to be closed")
        L.tbnode("start", "n1", check=True)
        opened("n1")
        self.assertEqual("yes\n", ssh(port, "echo yes").out)
        # A snapshot of it has no key of anybody's.
        L.docker("commit", "n1", "snapshot:1")
        self.assertEqual("", L.docker("run", "--rm", "snapshot:1", "find", "/", "-xdev", "-name", "*host_key*").out)


class Labels(Base):
    def test_label_alone(self):
        """By docker run through the gate's runtime; without it, the mount is the user's to give."""
        port = docker_run("n1")
        self.assertEqual("yes\n", ssh(port, "echo yes").out)
        L.docker("restart", "-t", "1", "n1")
        lab.wait_for(lambda: not refused(port), 20, "the port")
        self.assertEqual("yes\n", ssh(port, "echo yes").out)
        docker_run("n2", runtime="runc")
        node = inspect("n2")
        self.assertIn("/tbnode:ro", node["ssh_missing"])
        self.assertNotEqual(0, L.tbnode("ssh", "n2", "true").rc)
        port = docker_run("n3", "-v", f"{L.dir}/payload/{ARCH}/node:/tbnode:ro", runtime="runc")
        self.assertEqual("yes\n", ssh(port, "echo yes").out)
        # A container without the label gets nothing.
        L.docker("run", "-d", "--name", "n4", "--runtime", "tbnode", "--label", "tbnode.firewall=open", "127.0.0.1:5000/box:1",
                 "sleep", "100")
        self.assertNotEqual(0, L.docker("exec", "n4", "ls", "/tbnode", check=False).rc)
        lab.wait_for(lambda: inspect("n4").get("state") == "configured", 20, "n4")
        self.assertEqual("node", inspect("n4")["ssh"])

    def test_keys_of_an_image(self):
        """Whoever made an image does not get into its containers."""
        lab.images.busybox(L, {"Labels": {"tbnode.ssh-keys": keys()}}).push(L.local, "with-key:1")
        L.docker("run", "-d", "--name", "n1", "--runtime", "tbnode", "127.0.0.1:5000/with-key:1", "sleep", "1000000")
        lab.wait_for(lambda: "come with its image" in (inspect("n1").get("ssh_missing") or ""), 20, "the refusal")
        docker_run("n2", image="with-key:1", wait=False)
        lab.wait_for(lambda: "come with its image" in (inspect("n2").get("ssh_missing") or ""), 20, "the refusal")
        for name, options in (("n3", ("--level", "none", "--ssh-key", "none")), ("n4", ("--level", "basic", "--ssh-key", KEY))):
            L.tbnode("run", "--name", name, *options, "127.0.0.1:5000/with-key:1", "sleep", "1000000", check=True)
            self.assertEqual("node", inspect(name)["ssh"], name)
        for name in ("n1", "n2", "n3"):
            self.assertTrue(refused(inspect(name)["ssh_port"] or 1), name)
        # A key of the caller's is his own all the same; also for an agent that did not make the node.
        port = run("n5", "with-key:1", "sleep", "1000000")
        L.tbnoded.restart()
        lab.wait_for(lambda: not refused(port), 20, "the port")
        self.assertEqual("yes\n", ssh(port, "echo yes").out)

    def counts(self):
        text = L.run(["curl", "-sS", "--unix-socket", SOCKET, "http://tbnoded/metrics"]).out
        return [int(re.search(rf"^tbnode_outside_ssh_{name} (\d+)$", text, re.M)[1]) for name in ("connections", "connections_total", "refused_total")]

    def test_keys_are_changed(self):
        """Of a living node: from the next connection on. What is open is counted, too."""
        port = run("n1", "box:1", "sleep", "1000000")
        other = f"{L.tmp('keys')}/other"
        L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other])
        with open(f"{other}.pub", encoding="ascii") as f:
            public = f.read().strip()
        before = self.counts()
        self.assertEqual((0, 255), (before[0], ssh(port, "true", key=other).rc))
        with subprocess.Popen(argv(port, "echo in; cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
            self.assertEqual("in\n", session.stdout.readline())
            lab.wait_for(lambda: self.counts() == [1, before[1] + 2, before[2]], 20, "the session to be counted")
            L.tbnode("keys", "set", "n1", other, check=True)
            self.assertEqual("yes\n", ssh(port, "echo yes", key=other).out)
            self.assertEqual(255, ssh(port, "true").rc)
            session.stdin.write("still\n")
            session.stdin.flush()
            self.assertEqual("still\n", session.stdout.readline())
            session.stdin.close()
        self.assertEqual(0, session.returncode)
        self.assertEqual({"node": "n1", "ssh_keys": public, "changed": True}, L.tbnode("keys", "--json", "show", "n1").json())
        L.tbnoded.restart()
        lab.wait_for(lambda: not refused(port), 20, "the port")
        self.assertEqual(("yes\n", 255), (ssh(port, "echo yes", key=other).out, ssh(port, "true").rc))
        empty = f"{other}.empty"
        with open(empty, "w", encoding="ascii") as f:
            f.write("# none\n")
        L.docker("run", "-d", "--name", "n2", "--label", "tbnode.shape=rate 1mbit", "127.0.0.1:5000/box:1", "sleep", "100000")
        lab.wait_for(lambda: inspect("n2").get("state") == "configured", 20, "n2")
        for args, word in ((("set", "n1", empty), "no key"), (("set", "n2", other), "tbnode.ssh-keys"), (("clear", "nosuch"), "nosuch"),
                           (("set", "n1", f"{other}.nosuch"), "nosuch")):
            r = L.tbnode("keys", *args)
            self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())), r)
            self.assertIn(word, r.err)
        self.assertEqual(2, L.tbnode("keys", "set", "n1").rc)
        L.tbnode("keys", "clear", "n1", check=True)
        self.assertEqual(("yes\n", 255), (ssh(port, "echo yes").out, ssh(port, "true", key=other).rc))
        self.assertEqual(keys(), L.tbnode("keys", "show", "n1").out.strip().splitlines()[-1])

    def test_firewalls(self):
        """As where packets go to the node's own port 22."""
        def reaches(name, address, port):
            code = "import socket, sys\ns = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)\ns.settimeout(20)\n" \
                   "sys.exit(s.recv(4) != b'SSH-')"
            return L.nsrun(L.container_pid(name), sys.executable, "-c", code, address, str(port), check=False).rc == 0

        def gateway(network):
            return L.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network).out.strip()

        network = ("--network", "lan0")
        basic = docker_run("n1", *network, "--label", "tbnode.firewall=basic", "--label", "tbnode.experiment=one")
        closed = docker_run("n2", *network, "--label", "tbnode.firewall=closed", "--label", "tbnode.experiment=one")
        for name, labels in (("same", ["tbnode.firewall=open", "tbnode.experiment=one"]),
                             ("other", ["tbnode.firewall=open; allow out tcp", "tbnode.experiment=two"]),
                             ("opened", ["tbnode.firewall=open; allow out tcp", "tbnode.experiment=one"]),
                             ("bare", ["tbnode.shape=rate 100mbit"])):
            L.docker("run", "-d", "--name", name, *network, *[x for v in labels for x in ("--label", v)], "127.0.0.1:5000/box:1",
                     "sleep", "100000")
            lab.wait_for(lambda n=name: inspect(n).get("state") == "configured", 20, name)
        address = gateway("lan0")
        # The host itself is not filtered.
        self.assertEqual("yes\n", ssh(basic, "echo yes").out)
        self.assertEqual("yes\n", ssh(closed, "echo yes").out)
        # A node that filters does not reach the host; one that may is still of another experiment, or at a closed node's door.
        self.assertEqual({"same": False, "other": False, "opened": True, "bare": True},
                         {n: reaches(n, address, basic) for n in ("same", "other", "opened", "bare")})
        self.assertEqual({"opened": False, "bare": False}, {n: reaches(n, address, closed) for n in ("opened", "bare")})
        # Nothing is translated: nobody listens at the node's port 22.
        self.assertNotIn(f"dport {basic}", L.run(["iptables-save", "-t", "nat"]).out)


if __name__ == "__main__":
    lab.main()
