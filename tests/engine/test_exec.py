#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnode exec: a program in a node, connected to whoever called."""

import fcntl
import hashlib
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
import unittest

import lab

PROGRAM = None


def setUpModule():
    global L, PROGRAM
    L = lab.Lab.get()
    L.tbnoded.start()
    PROGRAM = f"{L.build}/agent/tbnode"
    lab.images.busybox(L).push(L.local, "box:1")
    L.docker("pull", "-q", "127.0.0.1:5000/box:1")
    # No agent made these: a label is enough to be a node.
    for name in ("one", "two"):
        L.docker("run", "-d", "--name", name, "--label", "tbnode.firewall=open", "127.0.0.1:5000/box:1", "sleep", "1000000")
        lab.wait_for(lambda n=name: L.tbnode("inspect", "--json", n).json().get("state") == "configured", 20, name)


def execute(*args, **options):
    return L.tbnode("exec", *args, **options)


def start(*args, **options):
    return subprocess.Popen([PROGRAM, "exec", *args], **options)


def processes(node, word):
    """Pids in the node whose command line has the word."""
    out = L.docker("top", node, "-o", "pid,args").out.splitlines()[1:]
    return [int(line.split()[0]) for line in out if word in line.split()]


class Exec(unittest.TestCase):
    def test_output_and_exit_status(self):
        r = execute("one", "sh", "-c", "echo out; echo err >&2; exit 7")
        self.assertEqual((7, "out\n", "err\n"), (r.rc, r.out, r.err))
        self.assertEqual(137, execute("one", "sh", "-c", "kill -9 $$").rc)
        missing = execute("one", "no-such-program")
        self.assertIn(missing.rc, (126, 127), missing)  # by the engine's version
        self.assertIn("no-such-program", missing.out + missing.err)
        # without -i there is nothing to read
        self.assertEqual("", execute("one", "cat", input="not for it").out)

    def test_who_where_and_with_what(self):
        r = execute("-u", "1000:1001", "-w", "/tmp", "-e", "A=b c", "one", "-e", "D=e", "sh", "-c",
                    "id -u; id -g; pwd; echo \"$A$D\"")
        self.assertEqual((0, "1000\n1001\n/tmp\nb ce\n"), (r.rc, r.out), r)
        self.assertEqual(0, execute("one", "--", "true").rc)

    def test_bytes_both_ways(self):
        data = os.urandom(20_000_000)
        p = start("-i", "one", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        out, _ = p.communicate(data, timeout=120)
        self.assertEqual((0, len(data)), (p.returncode, len(out)))
        self.assertEqual(hashlib.sha256(data).digest(), hashlib.sha256(out).digest())
        # The program may end first, with input on its way.
        p = start("-i", "one", "sh", "-c", "head -c 5; exit 3", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        out, _ = p.communicate(data, timeout=60)
        self.assertEqual((3, data[:5]), (p.returncode, out))
        # standard input may be a file
        with open(__file__, "rb") as f:
            p = subprocess.run([PROGRAM, "exec", "-i", "one", "md5sum"], stdin=f, stdout=subprocess.PIPE, check=True, timeout=60)
        with open(__file__, "rb") as f:
            self.assertEqual(hashlib.md5(f.read()).hexdigest(), p.stdout.decode().split()[0])

    def test_a_reader_that_does_not_read_costs_a_bounded_amount(self):
        def memory():
            with open(f"/proc/{L.tbnoded.pid}/status", encoding="ascii") as f:
                return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
        before = memory()
        p = start("one", "sh", "-c", "head -c 200000000 /dev/zero; touch /tmp/all-taken", stdout=subprocess.PIPE)
        self.assertEqual(b"\0", p.stdout.read(1))
        # Others are served meanwhile, and what is not read was not taken.
        for _ in range(5):
            self.assertEqual("yes\n", execute("one", "echo", "yes").out)
        self.assertNotEqual(0, execute("one", "test", "-e", "/tmp/all-taken").rc)
        self.assertLess(memory() - before, 20_000)
        rest = 1
        while chunk := p.stdout.read(1 << 20):
            rest += len(chunk)
        p.stdout.close()
        self.assertEqual((200_000_000, 0), (rest, p.wait(30)))

    def test_terminal(self):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        before = termios.tcgetattr(slave)
        p = start("one", "-it", "sh", stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "vt220"})
        until = lab.reader(master)
        until(b"# ")
        os.write(master, b"tty >/dev/null && echo is-a-$((1))-tty; echo term=$TERM.\r")
        until(b"is-a-1-tty")
        until(b"term=vt220.")
        lab.wait_for(lambda: "33 101" in self.size(), 20, "the terminal's first size")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 90, 0, 0))
        p.send_signal(signal.SIGWINCH)
        lab.wait_for(lambda: "44 90" in self.size(), 20, "the terminal's new size")
        os.write(master, b"sleep 10000\r")
        lab.wait_for(lambda: processes("one", "10000"), 20, "sleep")
        os.write(master, b"\x03")  # to the program, not to us
        lab.wait_for(lambda: not processes("one", "10000"), 20, "the end of sleep")
        os.write(master, b"exit 9\r")
        self.assertEqual(9, p.wait(20))
        self.assertEqual(before, termios.tcgetattr(slave))
        os.close(master)
        os.close(slave)

    @staticmethod
    def size():
        """Of the only terminal that a shell has in node one."""
        return execute("one", "sh", "-c", "for t in /dev/pts/[0-9]*; do stty size <$t; done").out

    def test_terminal_of_a_pipe(self):
        r = execute("-it", "one", "sh", "-c", "tty >/dev/null && cat", input="yes\n")
        self.assertEqual((0, "yes\nyes\n"), (r.rc, r.out))

    def test_a_client_that_goes_away(self):
        other = start("-i", "one", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for args, sig in ((("one", "sleep", "20001"), signal.SIGKILL), (("-i", "one", "sleep", "20001"), signal.SIGTERM),
                          (("-it", "one", "sleep", "20001"), signal.SIGKILL)):
            p = start(*args, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            lab.wait_for(lambda: processes("one", "20001"), 20, "the program")
            p.send_signal(sig)
            self.assertEqual(-sig, p.wait(20))
            p.stdin.close()
            lab.wait_for(lambda: not processes("one", "20001"), 20, f"the program to be hung up {args}")
        # It may have said that it does not mind.
        p = start("one", "sh", "-c", "trap '' HUP; exec sleep 20002", stdout=subprocess.DEVNULL)
        lab.wait_for(lambda: processes("one", "20002"), 20, "the program")
        p.kill()
        p.wait()
        self.assertEqual(b"still here\n", other.communicate(b"still here\n", timeout=20)[0])
        self.assertEqual(1, len(processes("one", "20002")))
        L.docker("exec", "one", "pkill", "-f", "20002", check=False)

    def test_many_at_once(self):
        running = [start("one" if i % 2 else "two", "sh", "-c", f"echo {i}; exit {i}", stdout=subprocess.PIPE) for i in range(40)]
        self.assertEqual([(f"{i}\n".encode(), i) for i in range(40)],
                         [(p.communicate(timeout=120)[0], p.returncode) for p in running])

    def test_bounds(self):
        held = [start("-i", "two", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(64)]
        for p in held:  # each is connected
            p.stdin.write(b"x")
            p.stdin.flush()
            self.assertEqual(b"x", p.stdout.read(1))
        r = execute("two", "true")
        self.assertEqual(1, r.rc)
        self.assertIn("64 programs are connected in node two", r.err)
        self.assertEqual(0, execute("one", "true").rc)
        for p in held:
            p.kill()
            p.communicate()
        lab.wait_for(lambda: execute("two", "true").rc == 0, 20, "places to be free again")

    def test_errors(self):
        self.assertIn("no node", execute("three", "true").err)
        self.assertEqual(2, execute("one").rc)
        L.docker("run", "-d", "--name", "three", "--label", "tbnode.firewall=open", "127.0.0.1:5000/box:1", "sleep", "1000000")
        self.addCleanup(L.docker, "rm", "-f", "three")
        lab.wait_for(lambda: execute("three", "true").rc == 0, 20, "the node")
        L.docker("pause", "three")
        r = execute("three", "true")
        self.assertEqual(1, r.rc)
        self.assertIn("paused", r.err)
        L.docker("unpause", "three")
        # The node's end is the program's end, and is told.
        p = start("three", "sleep", "1000", stderr=subprocess.PIPE)
        lab.wait_for(lambda: processes("three", "1000"), 20, "the program")
        L.docker("kill", "three")
        self.assertEqual(137, p.wait(20))
        p.stderr.close()
        lab.wait_for(lambda: L.tbnode("inspect", "--json", "three").json()["state"] == "stopped", 20, "the node to be stopped")
        r = execute("three", "true")
        self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())))
        self.assertIn("tbnode start three", r.err)

    @staticmethod
    def raw(body, more=b"", upgrade=b"Connection: Upgrade\r\nUpgrade: tbnode-exec\r\n"):
        s = socket.socket(socket.AF_UNIX)
        s.connect("/run/tbnode/tbnoded.sock")
        s.settimeout(20)
        body = json.dumps(body).encode()
        s.sendall(b"POST /v1/nodes/one/exec HTTP/1.1\r\nHost: x\r\n" + upgrade + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        head = b""
        while b"\r\n\r\n" not in head:
            byte = s.recv(1)
            assert byte, head
            head += byte
        s.sendall(more)
        return s, int(head.split()[1])

    def test_strange_clients(self):
        s, status = self.raw({"cmd": ["true"]}, upgrade=b"")
        self.assertEqual(426, status)
        s.close()
        for body in ({}, {"cmd": []}, {"cmd": "ls"}, {"cmd": ["ls"], "env": ["A"]}, {"cmd": ["ls"], "rows": 70000},
                     {"cmd": ["ls"], "workdir": "tmp"}, {"cmd": ["ls"], "privileged": True}):
            s, status = self.raw(body)
            self.assertEqual(400, status, body)
            s.close()
        # what is no frame ends the session, and nothing else
        for more in (b"\xff" * 100, b"\0\1\0\0\0\0\0\1x", b"\4\0\0\0\0\0\0\5hello", b"\0\0\0\0\0\0\0\0" * 2):
            s, status = self.raw({"cmd": ["sleep", "30001"], "stdin": True}, more)
            self.assertEqual(101, status)
            try:
                self.assertEqual(b"", s.recv(100))
            except ConnectionResetError:
                pass
            s.close()
        lab.wait_for(lambda: not processes("one", "30001"), 20, "the programs to be hung up")
        # a client that says nothing but half of a header, and then goes
        s, status = self.raw({"cmd": ["sleep", "30002"], "tty": True, "stdin": True}, b"\0\0\0")
        self.assertEqual(101, status)
        s.close()
        lab.wait_for(lambda: not processes("one", "30002"), 20, "the program to be hung up")
        self.assertEqual(0, execute("one", "true").rc)

    def test_agent_s_end(self):
        p = start("one", "sleep", "40001", stderr=subprocess.PIPE)
        lab.wait_for(lambda: processes("one", "40001"), 20, "the program")
        L.tbnoded.restart()
        self.assertEqual(1, p.wait(20))
        self.assertIn(b"lost the connection to tbnoded", p.communicate()[1])
        self.assertEqual(1, len(processes("one", "40001")))
        L.docker("exec", "one", "pkill", "-f", "40001", check=False)
        lab.wait_for(lambda: execute("one", "true").rc == 0, 20, "the new agent")


if __name__ == "__main__":
    lab.main()
