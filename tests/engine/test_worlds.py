#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What takes nodes but no Docker: a fake engine describes processes with a network namespace (tests/bench/worlds.py). The agent is
replaced while many run; what reads a node's files is killed; who may log in is changed."""

import json
import os
import signal
import socket
import subprocess
import sys
import unittest

import lab

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))

import worlds  # noqa: E402
from labkit.agent import SOCKET  # noqa: E402
from labkit.fakeengine import Fake  # noqa: E402

ENGINE = "/run/fake.sock"
LABELS = {"tbnode.shape": "rate 10mbit", "tbnode.experiment": "exp"}


def setUpModule():
    global L, FAKE, WORLDS
    L = lab.Lab.get()
    WORLDS = worlds.Worlds()
    FAKE = Fake(f"{L.dir}/logs", ENGINE).start()
    start()


def tearDownModule():
    FAKE.kill()


def start():
    L.tbnoded.start({"docker": f"unix://{ENGINE}"}, services=False)


class Base(unittest.TestCase):
    labels, number = LABELS, 2

    def setUp(self):
        self.made = WORLDS.make(self.number, labels=self.labels)
        WORLDS.plug(self.made)
        FAKE.add(self.made)
        FAKE.happen("start", *self.made)
        self.name = self.made[0]["name"]
        lab.wait_for(lambda: [n["state"] for n in L.tbnode("ps", "--json").json()["nodes"]] == ["configured"] * self.number, 120, "the nodes")

    def tearDown(self):
        WORLDS.end(self.made)
        FAKE.happen("die", *self.made)
        FAKE.happen("destroy", *self.made)
        lab.wait_for(lambda: not L.traces() and not L.tbnode("ps", "--json").json()["nodes"], 30, "nothing to be left")


PINGS = """
import os, select, socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
waiting, sent, going, end, me = set(), 0, True, 0, os.getpid() & 0xffff
while going or (waiting and time.monotonic() < end):
    ready = select.select([s] + [0] * going, [], [], 0.002)[0]
    if s in ready:
        data, (address, _) = s.recvfrom(2048)
        kind, _, _, process, number = struct.unpack_from("!BBHHH", data, (data[0] & 15) * 4)
        if kind == 0 and process == me:
            waiting.discard((address, number))
    elif 0 in ready:
        going, end = False, time.monotonic() + 20
    else:
        to, number = sys.argv[1 + sent % (len(sys.argv) - 1)], sent & 0xffff
        total = 0x800 + me + number
        total = (total & 0xffff) + (total >> 16)
        total = (total & 0xffff) + (total >> 16)
        waiting.add((to, number))
        s.sendto(struct.pack("!HHHH", 0x800, ~total & 0xffff, me, number), (to, 0))
        sent += 1
print(sent, len(waiting))
"""


class Upgrade(Base):
    """Another agent takes over from the one that runs; that the package does so is test_operation.py's."""
    number = 200 if os.environ.get("TBNODE_TEST_LONG") == "yes" else 10
    labels = {**LABELS, "tbnode.firewall": "open; allow in icmp"}

    def test_nothing_is_written_or_lost(self):
        L.tbnode("shape", "set", self.name, "lan0", "rate", "2mbit", check=True)
        rules = lambda: (L.run("iptables-legacy-save").out.count("TBNODE"), L.run(["nft", "list", "ruleset"], check=False).out.count("tbnode"))
        before = rules()
        addresses = [n["IPAddress"] for c in self.made for n in c["networks"].values()]
        pings = subprocess.Popen([sys.executable, "-c", PINGS, *addresses], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for end in (L.tbnoded.stop, L.tbnoded.kill):
            end()
            start()
            status = lab.wait_for(lambda: (s := L.tbnode("status", "--json").json())["ready_us"] and s, 60, "READY")
            self.assertEqual((0, self.number), (status["counters"]["kernel_writes"], status["nodes"]["configured"]))
            print(f"# {self.number} nodes: ready after {status['ready_us'] / 1000:.0f} ms", flush=True)
        self.assertIn("rate 2mbit", L.tbnode("inspect", "--json", self.name).json()["interfaces"][0]["shape"])
        sent, lost = [int(x) for x in pings.communicate("", timeout=90)[0].split()]
        self.assertGreater(sent, 0)
        self.assertEqual(0, lost, f"of {sent}")
        print(f"# {sent} packets, none lost", flush=True)
        self.assertEqual(before, rules())


class Files(Base):
    """What reads them dies: the client is told, whoever it is, and the agent goes on."""

    def working(self):
        with open(f"/proc/{L.tbnoded.pid}/task/{L.tbnoded.pid}/children", encoding="ascii") as f:
            children = f.read().split()
        names = {p: L.run(["cat", f"/proc/{p}/comm"], check=False).out.strip() for p in children}
        return [int(p) for p, name in names.items() if name == "tbnoded-files"]

    def big(self):
        """Larger than what waits anywhere between who reads it and who gets it."""
        path = f"{L.tmp('big')}/file"
        with open(path, "wb") as f:
            f.truncate(50 << 20)
        return path

    def ask(self, paths):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(60)
        s.connect(SOCKET)
        body = json.dumps({"paths": paths})
        s.sendall(f"POST /v1/nodes/{self.name}/files HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        return s

    def kill(self):
        for pid in lab.wait_for(self.working, 20, "it to begin"):
            os.kill(pid, signal.SIGKILL)

    @staticmethod
    def rest(s):
        got = b""
        while data := s.recv(1 << 20):
            got += data
        s.close()
        return got

    def test_after_the_first_byte(self):
        s = self.ask([self.big()])
        first = s.recv(1)
        self.kill()
        got = first + self.rest(s)
        self.assertTrue(got.startswith(b"HTTP/1.1 200 "), got[:200])
        self.assertLess(len(got), 50 << 20)
        self.assertFalse(got.endswith(b"\r\n0\r\n\r\n"), "a transfer that ended as if it were complete")
        self.assertIn("killed by signal 9", L.tbnoded.log())

    def test_before_it(self):
        """It looks for what is not there for long enough."""
        s = self.ask(["/proc/*/task/*/fdinfo/*none", "/sys/*/*/*/*/*none"] * 32)
        self.kill()
        got = self.rest(s)
        self.assertTrue(got.startswith(b"HTTP/1.1 507 "), got[:200])
        answer = json.loads(got.split(b"\r\n\r\n", 1)[1])["error"]
        self.assertIn(f"node {self.name}: collecting its files broke off", answer["message"])
        self.assertIn("killed by signal 9", answer["message"])

    def test_for_the_command_line(self):
        target = f"{L.tmp('killed')}/all"
        p = subprocess.Popen([f"{L.install()}/tbnode", "logs", "--experiment", "exp", "--collect", target, "--files", self.big()],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        lab.wait_for(self.working, 20, "it to begin")
        p.send_signal(signal.SIGSTOP)
        try:
            self.kill()
        finally:
            p.send_signal(signal.SIGCONT)
        err = p.communicate(timeout=60)[1]
        self.assertEqual(1, p.returncode, err)
        self.assertRegex(err, rf"{self.name}: files: .*broke")


class Keys(Base):
    """Of a node that is served from outside; how one logs in with them is test_ssh_outside.py's."""
    labels = {**LABELS, "tbnode.ssh-keys": "ssh-ed25519 AAAA label"}

    def keys(self):
        r = L.tbnode("keys", "--json", "show", self.name).json()
        return r["ssh_keys"], r["changed"]

    def test_set_and_clear(self):
        path = f"{L.tmp('keys')}/other.pub"
        with open(path, "w", encoding="ascii") as f:
            f.write("# mine\nssh-ed25519 BBBB one\n\nssh-ed25519 CCCC two\n")
        self.assertEqual(("ssh-ed25519 AAAA label", False), self.keys())
        L.tbnode("keys", "set", self.name, path, check=True)
        both = "ssh-ed25519 BBBB one\nssh-ed25519 CCCC two"
        self.assertEqual((both, True), self.keys())
        self.assertEqual(f"{both}\n", L.tbnode("keys", "show", self.name).out)
        with open("/var/lib/tbnode/state.json", encoding="utf-8") as f:
            state = json.load(f)
        self.assertEqual((2, both), (state["version"], state["nodes"][self.made[0]["id"]]["ssh_keys"]))
        L.tbnoded.stop()
        start()
        lab.wait_for(lambda: L.tbnode("inspect", self.name).rc == 0, 20, "the agent")
        self.assertEqual((both, True), self.keys())
        L.tbnode("keys", "clear", self.name, check=True)
        self.assertEqual(("ssh-ed25519 AAAA label", False), self.keys())

    def test_mistakes(self):
        with open(f"{L.tmp('keys')}/empty", "w", encoding="ascii") as f:
            f.write("# none\n")
        for args, word in ((("set", self.name, f.name), "no key"), (("set", self.name, f"{f.name}.none"), "empty.none"), (("clear", "nosuch"), "nosuch")):
            r = L.tbnode("keys", *args)
            self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())), r)
            self.assertIn(word, r.err)
        for args in ((), ("set", self.name), ("show",), ("other", self.name)):
            self.assertEqual(2, L.tbnode("keys", *args).rc)
        self.assertEqual(("ssh-ed25519 AAAA label", False), self.keys())


if __name__ == "__main__":
    lab.main()
