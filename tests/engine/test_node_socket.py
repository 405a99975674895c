#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nodes and their agent say to each other (docs/node-protocol.md): the declaration, JSON lines and TMCD on the node's
own socket, TMCD over TCP, barriers, reports; over restarts of the agent, and with nodes that misbehave."""

import ast
import concurrent.futures
import contextlib
import ipaddress
import json
import os
import socket
import subprocess
import time
import unittest

import lab

IMAGE = "busybox:1.36"
NODES = "/var/lib/tbnode/nodes"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKp0T0ls0gV5bPWjIVhCFdL0RVyFvpWGvF0ZQ4lYxJ8p joe"
DECLARATION = {
    "accounts": {
        "groups": [{"name": "proj", "gid": 6001}, {"name": "more", "gid": 6002}],
        "users": [{"name": "joe", "uid": 20001, "gid": 6001, "groups": ["more"], "root": True, "full_name": "Joe",
                   "home": "/users/joe", "shell": "bash", "password_hash": "$6$salt$hash", "keys": [KEY]}]},
    "hosts": [{"name": "server-lan9", "address": "10.9.1.3", "aliases": ["server", "srv"]}],
    "startup": {"command": "/bin/run.sh", "user": "joe"},
    "programs": [{"name": "prog0", "command": "ls", "user": "joe", "directory": "/tmp", "timeout": 10,
                  "expected_exit_code": 0}],
    "environment": {"NAME": "value"},
    "creator": "joe", "swapper": "mary"}


def setUpModule():
    global L, SSH_KEY
    L = lab.Lab.get()
    SSH_KEY = f"{L.dir}/key"
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", SSH_KEY])
    L.tbnoded.start(config={"start-timeout": "20s"})
    lab.images.busybox(L).push(L.hub, "library/busybox:1.36")
    L.tbnode("augment", IMAGE, check=True)


def run(name, *args, check=True):
    return L.tbnode("run", "--json", "--ssh-key", f"{SSH_KEY}.pub", "--name", name, *args, IMAGE, "sleep", "1000", check=check)


def declaration_file(d):
    path = f"{L.tmp('declaration')}/d.json"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(d, f)
    return path


def declare(node, d, check=True):
    return L.tbnode("declare", node, declaration_file(d), check=check)


class Connection:
    """JSON lines on a node's socket, from the host's side of the mount: what arrives is the same."""

    def __init__(self, key, timeout=10):
        self.s = None
        lab.wait_for(lambda: self.connect(f"{NODES}/{key}/agent.sock"), 10, "the agent to listen")
        self.s.settimeout(timeout)
        self.buffer = b""

    def connect(self, path):
        """The agent may have been started a moment ago."""
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
            self.s.connect(path)
            return True
        self.s.close()
        return False

    def send(self, op, **members):
        self.s.sendall(json.dumps({"op": op, **members}).encode() + b"\n")

    def line(self):
        while b"\n" not in self.buffer:
            data = self.s.recv(65536)
            if not data:
                return None
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, op, **members):
        self.send(op, **members)
        return self.line()

    def close(self):
        self.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()


def tmcd_unix(key, text):
    """As `tmcc -l`: one write, no half-close, read to the end."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as s:
        s.settimeout(10)
        s.connect(f"{NODES}/{key}/agent.sock")
        s.sendall(text.encode())
        return read_all(s)


# As tmcc writes it over TCP: the request, then half-closed, then read to the end. argv: address, port, uid, texts
TMCC = """
import os, socket, sys
os.setuid(int(sys.argv[3]))
for text in sys.argv[4:]:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    s.sendall(text.encode())
    if "VERSION=2" not in text.split():
        s.shutdown(socket.SHUT_WR)
    answer = b""
    while data := s.recv(2047):
        answer += data
    sys.stdout.write(repr(answer.decode("latin-1")) + "\\n")
"""


def gateway():
    return json.loads(L.docker("network", "inspect", "tbnode-control").out)[0]["IPAM"]["Config"][0]["Gateway"]


def tmcd_tcp(container, *texts, uid=0, port=7777, check=True):
    r = L.nsrun(L.container_pid(container), "python3", "-c", TMCC, gateway(), str(port), str(uid), *texts, check=check)
    return [ast.literal_eval(x) for x in r.out.splitlines()] if check else r


def read_all(s):
    out = b""
    while data := s.recv(65536):
        out += data
    return out.decode()


def leftovers():
    files = [f for d in (NODES, "/var/lib/tbnode/declarations", "/run/tbnode/clients") if os.path.isdir(d)
             for f in os.listdir(d)]
    return L.docker("ps", "-aq").out.split() + L.traces() + files


def agent_descriptors():
    return len(os.listdir(f"/proc/{L.tbnoded.pid}/fd"))


class Base(unittest.TestCase):
    def tearDown(self):
        names = [n["container"] for n in L.tbnode("ps", "--json").json()["nodes"]]
        if names:
            L.tbnode("rm", *names, check=True)
        lab.wait_for(lambda: not leftovers(), 15, f"nothing to be left: {leftovers()}")

    def in_node(self, container, *argv, **options):
        """A program of the host in the container's network and its own user, as the node's processes would connect."""
        return L.nsrun(L.container_pid(container), *argv, **options)


class Declare(Base):
    def test_live_declaration_is_answered_and_lasts(self):
        run("a", "--experiment", "e")
        self.assertEqual({}, L.tbnode("declare", "--show", "a").json())
        r = declare("e.a", DECLARATION)
        self.assertIn("not connected", r.out)
        with Connection("e.a") as c:
            first = c.ask("declaration", id=7)
            self.assertTrue(first["ok"])
            self.assertEqual((7, "a", "e", "a"), tuple(first[k] for k in ("id", "node", "experiment", "hostname")))
            self.assertEqual(DECLARATION["accounts"], first["accounts"])
            self.assertEqual(DECLARATION["programs"], first["programs"])
        shown = L.tbnode("declare", "--show", "a").json()
        self.assertEqual("*", shown["accounts"]["users"][0]["password_hash"])
        mode = os.stat("/var/lib/tbnode/declarations/e.a.json").st_mode & 0o777
        self.assertEqual(0o600, mode)
        # over a restart and a kill of the agent, and a restart of the node
        for stop in (L.tbnoded.stop, L.tbnoded.kill):
            stop()
            L.tbnoded.start(config={"start-timeout": "20s"})
            with Connection("e.a") as c:
                again = c.ask("declaration")
                self.assertEqual(DECLARATION["accounts"], again["accounts"])
                self.assertGreaterEqual(again["generation"], first["generation"])
        L.tbnode("stop", "a", check=True)
        L.tbnode("start", "a", check=True)
        with Connection("e.a") as c:
            self.assertEqual(DECLARATION["environment"], c.ask("declaration")["environment"])
        # everything goes when everything is taken back
        declare("a", {})
        with Connection("e.a") as c:
            self.assertNotIn("accounts", c.ask("declaration"))

    def test_what_is_gone_while_no_agent_runs(self):
        for name in ("gone", "stays"):
            run(name)
            declare(name, DECLARATION)
            with Connection(name) as c:
                self.assertTrue(c.ask("state", state="up")["ok"])
        L.tbnoded.stop()
        L.docker("rm", "-f", "gone")
        L.docker("rename", "stays", "renamed")
        L.tbnoded.start(config={"start-timeout": "20s"})
        with Connection("stays") as c:
            self.assertEqual("joe", c.ask("declaration")["creator"])
        kept = [os.listdir(d) for d in (NODES, "/var/lib/tbnode/declarations", "/run/tbnode/clients")]
        self.assertEqual([["stays"], ["stays.json"], ["stays.json"]], kept)
        # what cannot be read is said, and not taken for nothing
        L.tbnoded.stop()
        with open("/var/lib/tbnode/declarations/stays.json", "r+", encoding="utf-8") as f:
            f.write("[[[[")
        L.tbnoded.start(config={"start-timeout": "20s"})
        with Connection("stays") as c:
            self.assertEqual("unavailable", c.ask("declaration")["error"]["code"])
        self.assertEqual("", tmcd_unix("stays", "VERSION=40 creator "))
        self.assertIn("declare it anew", L.tbnode("declare", "--show", "renamed").err)
        self.assertIn("declare it anew", L.tbnode("inspect", "renamed").out)
        self.assertEqual(0, declare("renamed", {"creator": "mary"}).rc)
        self.assertEqual("CREATOR=mary SWAPPER=mary\n", tmcd_unix("stays", "VERSION=40 creator "))

    def test_bad_declarations_name_the_place(self):
        run("aa")
        for d, *words in (
                ({"users": {}}, "users", "no such member"),
                ({"accounts": {"users": [{"name": "joe", "uid": 1}]}}, "accounts.users[0]", "'gid' is missing"),
                ({"accounts": {"users": [{"name": "joe", "uid": -1, "gid": 1}]}}, "accounts.users[0].uid"),
                ({"accounts": {"users": [{"name": "joe", "uid": 0, "gid": 1}]}}, "uid 0 is root's"),
                ({"accounts": {"users": [{"name": "j:o", "uid": 5, "gid": 1}]}}, "accounts.users[0].name"),
                ({"accounts": {"users": [{"name": "x", "uid": 5, "gid": 1}, {"name": "x", "uid": 6, "gid": 1}]}},
                 "accounts.users[1]", "two entries"),
                ({"accounts": {"users": [{"name": "x", "uid": 5, "gid": 1, "home": "/a/../b"}]}}, ".home"),
                ({"accounts": {"users": [{"name": "x", "uid": 5, "gid": 1, "password_hash": "a:b"}]}}, "password_hash"),
                ({"accounts": {"users": [{"name": "x", "uid": 5, "gid": 1, "keys": ["-----BEGIN PRIVATE KEY-----"]}]}},
                 "keys[0]", "private key"),
                ({"hosts": [{"name": "a b", "address": "10.0.0.1"}]}, "hosts[0].name"),
                ({"hosts": [{"name": "aa", "address": "10.0.0.256"}]}, "hosts[0].address"),
                ({"routes": [{"to": "10.1.2.3/24", "via": "10.0.0.1"}]}, "routes[0].to", "host part"),
                ({"routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]}, "default route"),
                ({"mounts": [{"source": "/tmp", "target": "/tbnode/x"}]}, "mounts[0].target", "testbed's own"),
                ({"startup": {"command": "a\nb"}}, "startup.command", "line breaks"),
                ({"programs": [{"name": "p", "command": "x", "timeout": 1e9}]}, "programs[0].timeout"),
                ({"environment": {"1A": "x"}}, "environment.1A"),
                ({"creator": "joe!"}, "creator"),
                ({"hosts": [{"name": f"h{i}", "address": "10.0.0.1"} for i in range(2049)]}, "hosts", "2049")):
            r = declare("aa", d, check=False)
            self.assertEqual(1, r.rc, r)
            self.assertEqual(1, len(r.err.splitlines()), r)
            for w in ("declaration", *words):
                self.assertIn(w, r.err)
        self.assertEqual({}, L.tbnode("declare", "--show", "aa").json())

    def test_hosts_of_the_experiment_come_and_go(self):
        run("a", "--experiment", "e", "--network", "lan0", "--network", "lan1")
        run("other", "--experiment", "f", "--network", "lan0")
        with Connection("e.a") as c:
            self.assertTrue(c.ask("attach")["ok"])
            generation = c.ask("declaration")["generation"]
            run("b", "--experiment", "e", "--network", "lan1")
            event = c.line()
            self.assertEqual("changed", event["event"])
            self.assertGreater(event["generation"], generation)
            hosts = {h["name"]: h for h in c.ask("declaration")["hosts"]}
            self.assertEqual({"a-lan0", "a-lan1", "b-lan1"}, set(hosts))
            self.assertEqual((["a"], [], ["b"]), tuple(hosts[n]["aliases"] for n in ("a-lan0", "a-lan1", "b-lan1")))
            L.docker("network", "disconnect", "lan1", "e.b")
            self.assertEqual("changed", c.line()["event"])
            self.assertEqual({"a-lan0", "a-lan1"}, {h["name"] for h in c.ask("declaration")["hosts"]})
            run("c", "--experiment", "e", "--network", "lan1")
            self.assertEqual("changed", c.line()["event"])
            L.tbnode("rm", "c", check=True)
            self.assertEqual("changed", c.line()["event"])
            self.assertEqual({"a-lan0", "a-lan1"}, {h["name"] for h in c.ask("declaration")["hosts"]})
            declare("a", {"hosts": DECLARATION["hosts"]})
            self.assertEqual("changed", c.line()["event"])
            self.assertIn("server-lan9", {h["name"] for h in c.ask("declaration")["hosts"]})
            interfaces = c.ask("declaration")["interfaces"]
            self.assertEqual(["lan0", "lan1"], [i["network"] for i in interfaces])
            self.assertEqual(hosts["a-lan0"]["address"], interfaces[0]["address"])

    def routes(self, container):
        out = L.nsrun(L.container_pid(container), "ip", "-j", "route", "show", "proto", "116").out
        return sorted((r["dst"], r["gateway"]) for r in json.loads(out or "[]"))

    def test_routes_are_made_from_outside_and_kept(self):
        run("aa", "--network", "lan0")
        own = next(i for i in L.tbnode("inspect", "--json", "aa").json()["interfaces"] if i["network"] == "lan0")
        via = own["address"].rsplit(".", 1)[0] + ".77"
        declare("aa", {"routes": [{"to": "10.200.0.0/16", "via": via}, {"to": "10.201.1.1/32", "via": via}]})
        both = [("10.200.0.0/16", via), ("10.201.1.1", via)]
        self.assertEqual(both, self.routes("aa"))
        # over a restart of the node, and when somebody in it takes one away
        L.tbnode("stop", "aa", check=True)
        L.tbnode("start", "aa", check=True)
        lab.wait_for(lambda: self.routes("aa") == both, 10, "the routes to be back")
        declare("aa", {"routes": [{"to": "10.200.0.0/16", "via": via}]})
        self.assertEqual([("10.200.0.0/16", via)], self.routes("aa"))
        r = declare("aa", {"routes": [{"to": "10.200.0.0/16", "via": "203.0.113.9"}]}, check=False)
        self.assertEqual(1, r.rc)
        self.assertIn("10.200.0.0/16 via 203.0.113.9", r.err)
        self.assertEqual([("10.200.0.0/16", via)], self.routes("aa"))
        self.assertEqual(via, L.tbnode("declare", "--show", "aa").json()["routes"][0]["via"])
        declare("aa", {})
        self.assertEqual([], self.routes("aa"))

    def test_mounts_are_made_with_the_container(self):
        source = L.tmp("proj")
        with open(f"{source}/file", "w", encoding="utf-8") as f:
            f.write("here")
        d = {"mounts": [{"source": source, "target": "/proj/p", "read_only": True}]}
        run("aa", "--declare", declaration_file(d))
        root = f"/proc/{L.container_pid('aa')}/root"
        self.assertEqual("here", open(f"{root}/proj/p/file", encoding="utf-8").read())
        self.assertIn(" ro,", next(x for x in open(f"/proc/{L.container_pid('aa')}/mounts", encoding="utf-8")
                                   if " /proj/p " in x))
        self.assertIn("can't be changed", declare("aa", {}, check=False).err)
        self.assertEqual(0, declare("aa", {**d, "creator": "joe"}).rc)
        r = run("bb", "--declare", declaration_file({"mounts": [{"source": "/nowhere", "target": "/x"}]}), check=False)
        self.assertEqual(1, r.rc)
        self.assertIn("mounts[0].source", r.err)
        self.assertIn("/nowhere", r.err)

    def test_declared_at_run(self):
        run("aa", "--network", "lan0", "--declare", declaration_file({"routes": []}))
        r = run("bb", "--network", "lan0", "--declare",
                declaration_file({"routes": [{"to": "10.200.0.0/16", "via": "203.0.113.9"}]}), check=False)
        self.assertEqual(1, r.rc)
        self.assertIn("203.0.113.9", r.err)
        self.assertEqual(["aa"], os.listdir(NODES))


class Requests(Base):
    def test_reports_are_shown_and_survive_the_agent(self):
        run("a", "--experiment", "e")
        declare("a", DECLARATION)
        with Connection("e.a") as c:
            self.assertTrue(c.ask("state", state="booting")["ok"])
            self.assertTrue(c.ask("state", state="failed", reason="no\nway")["ok"])
            self.assertEqual("invalid", c.ask("state", state="sideways")["error"]["code"])
            self.assertTrue(c.ask("startstatus", state="exited", status=3)["ok"])
            self.assertTrue(c.ask("program", name="prog0", state="running", pid=77)["ok"])
            self.assertEqual("invalid", c.ask("program", name="nope", state="running")["error"]["code"])
            self.assertTrue(c.ask("ready")["ok"])
            self.assertEqual((1, 1), tuple(c.ask("readycount")[k] for k in ("ready", "total")))
            self.assertEqual("unknown", c.ask("dance", id=9)["error"]["code"])
            nodes = c.ask("experiment")["nodes"]
            self.assertEqual([("a", "configured", "failed", 3)],
                             [(n["node"], n["state"], n["client"], n["startup"]["status"]) for n in nodes])
        self.assertIn("failed", L.tbnode("ps").out)

        def client():
            return L.tbnode("inspect", "--json", "a").json()["client"]
        before = client()
        self.assertEqual(("failed", 3, "running", 77, True), (
            before["state"], before["startup"]["status"], before["programs"]["prog0"]["state"],
            before["programs"]["prog0"]["pid"], before["ready"]))
        self.assertNotIn("\n", before["reason"])
        L.tbnoded.restart()
        lab.wait_for(lambda: client() == before, 10, f"what was reported to be known again: {before} {client()}")
        events = [json.loads(x)["event"] for x in L.tbnode("events", "--json").out.splitlines()]
        self.assertIn("engine-connected", events)
        self.assertIn("startup     exited 3", L.tbnode("inspect", "a").out)
        self.assertIn("prog0", L.tbnode("programs", "a").out)
        # another run of the container starts anew
        L.tbnode("stop", "a", check=True)
        L.tbnode("start", "a", check=True)
        lab.wait_for(lambda: L.tbnode("inspect", "--json", "a").json()["state"] == "configured", 10, "a")
        self.assertEqual((None, None, False), tuple(client()[k] for k in ("state", "startup", "ready")))

    def test_orders_reach_the_attached_client(self):
        run("aa")
        declare("aa", DECLARATION)
        r = L.tbnode("program", "aa", "start", "prog0")
        self.assertEqual(1, r.rc)
        self.assertIn("not connected", r.err)
        with Connection("aa") as c:
            self.assertTrue(c.ask("attach")["ok"])
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                told = pool.submit(L.tbnode, "program", "aa", "start", "prog0")
                self.assertEqual({"event": "program", "name": "prog0", "action": "start"}, c.line())
                self.assertTrue(c.ask("program", name="prog0", state="running", pid=5)["ok"])
                self.assertEqual("aa: prog0 running\n", told.result().out)
                told = pool.submit(L.tbnode, "program", "aa", "stop", "prog0")
                self.assertEqual("stop", c.line()["action"])
                self.assertTrue(c.ask("program", name="prog0", state="signaled", status=15)["ok"])
                self.assertEqual("aa: prog0 signaled 15\n", told.result().out)
            self.assertEqual(0, L.tbnode("program", "--signal", "USR1", "aa", "kill", "prog0").rc)
            self.assertEqual({"event": "program", "name": "prog0", "action": "kill", "signal": 10}, c.line())
            self.assertIn("no program 'x'", L.tbnode("program", "aa", "stop", "x").err)
            self.assertIn("start, stop or kill", L.tbnode("program", "aa", "jump", "prog0").err)
            self.assertEqual(0, L.tbnode("startup", "aa").rc)
            self.assertEqual({"event": "startup"}, c.line())
            # one at a time: a new one takes over
            with Connection("aa") as d:
                self.assertTrue(d.ask("attach")["ok"])
                self.assertIsNone(c.line())
                self.assertEqual(0, L.tbnode("startup", "aa").rc)
                self.assertEqual({"event": "startup"}, d.line())

    def test_what_only_root_may(self):
        run("aa")
        declare("aa", DECLARATION)
        probe = ("import os,socket,sys\nos.setuid(65534)\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
                 "for l in sys.argv[2:]:\n s.sendall(l.encode()+b'\\n')\n"
                 "s.shutdown(1)\nprint(s.makefile().read(),end='')")
        os.chmod(NODES, 0o711)
        r = L.run(["python3", "-c", probe, f"{NODES}/aa/agent.sock", '{"op":"declaration"}', '{"op":"attach"}',
                   '{"op":"state","state":"up"}', '{"op":"ready"}'])
        lines = [json.loads(x) for x in r.out.splitlines()]
        user = lines[0]["accounts"]["users"][0]
        self.assertEqual((False, False), ("password_hash" in user, "keys" in user))
        self.assertEqual(["not-root", "not-root"], [x["error"]["code"] for x in lines[1:3]])
        self.assertTrue(lines[3]["ok"])

    def test_barriers(self):
        for name in "abc":
            run(name, "--experiment", "e")
        run("x", "--experiment", "f")
        with contextlib.ExitStack() as stack:
            a, b, c, x = (stack.enter_context(Connection(k)) for k in ("e.a", "e.b", "e.c", "f.x"))
            a.send("sync", id=1)
            b.send("sync", id=2)
            self.assertEqual((True, 1), (x.ask("sync")["ok"], x.ask("sync")["count"]))  # alone in its experiment
            # answers of other requests come meanwhile
            self.assertEqual(3, a.ask("readycount", id=5)["total"])
            self.assertEqual("busy", a.ask("sync", id=6)["error"]["code"])
            self.assertEqual({"id": 3, "ok": True, "count": 3}, c.ask("sync", id=3))
            self.assertEqual({"id": 1, "ok": True, "count": 3}, a.line())
            self.assertEqual({"id": 2, "ok": True, "count": 3}, b.line())
            # again, by name and number; another number is refused; a time-out leaves it
            a.send("sync", name="two", count=2, id=1)
            self.assertEqual(5, a.ask("readycount", id=5)["id"])  # so it has entered
            self.assertEqual("invalid", b.ask("sync", name="two", count=3)["error"]["code"])
            self.assertEqual("timeout", b.ask("sync", name="late", count=2, timeout=1)["error"]["code"])
            self.assertEqual(2, b.ask("sync", name="two")["count"])
            self.assertEqual(2, a.line()["count"])
            # closing leaves
            descriptors = agent_descriptors()
            with Connection("e.c") as gone:
                gone.send("sync", name="two", count=2)
                gone.ask("readycount")
            lab.wait_for(lambda: agent_descriptors() <= descriptors, 10, "the agent to see it go")
            a.send("sync", name="two", count=2)
            self.assertEqual(2, b.ask("sync", name="two", count=2)["count"])
            self.assertEqual(2, a.line()["count"])
            # who waits for all goes on when one of them ends
            a.send("sync", name="all")
            b.send("sync", name="all")
            L.tbnode("rm", "e.c", check=True)
            self.assertEqual((2, 2), (a.line()["count"], b.line()["count"]))


ANSWERS = {
    "nodeid": "a\n",
    "status": "ALLOCATED=tbnode/e NICKNAME=a\n",
    "accounts": "ADDGROUP NAME=proj GID=6001\nADDGROUP NAME=more GID=6002\n"
                "ADDUSER LOGIN=joe PSWD=$6$salt$hash UID=20001 GID=6001 ROOT=1 NAME=\"Joe\" HOMEDIR=/users/joe "
                "GLIST=\"6002\" SERIAL=1 EMAIL=\"\" SHELL=bash\n"
                f"PUBKEY LOGIN=joe KEY=\"{KEY}\"\n",
    "startupcmd": "CMD='/bin/run.sh' UID=joe\n",
    "readycount": "READY=0 TOTAL=1\n",
    "creator": "CREATOR=joe SWAPPER=mary\n",
    "userenv": "NAME=value\n",
    "programs": "UID=mary\nAGENT=prog0 DIR=/tmp TIMEOUT=10 EXPECTED_EXIT_CODE=0 COMMAND='ls'\n",
    "syncserver": "SYNCSERVER SERVER='a' ISSERVER=1\n",
    "isalive": "UPDATE=0\n",
    "firewallinfo": "TYPE=none\n",
    "ntpinfo": "", "localization": "", "keyhash": "", "eventkey": "", "nosuchcommand": "",
}


class Tmcd(Base):
    def setUp(self):
        run("a", "--experiment", "e", "--network", "lan0")
        own = next(i for i in L.tbnode("inspect", "--json", "a").json()["interfaces"] if i["network"] == "lan0")
        self.address, self.mac = own["address"], own["mac"].replace(":", "")
        with Connection("e.a") as c:
            prefix = c.ask("declaration")["interfaces"][0]["prefix"]
        mask = str(ipaddress.ip_network(f"0.0.0.0/{prefix}").netmask)
        self.via = self.address.rsplit(".", 1)[0] + ".77"
        declare("a", {**DECLARATION, "routes": [{"to": "10.200.0.0/16", "via": self.via},
                                                {"to": "10.201.1.1/32", "via": self.via}]})
        self.answers = {
            **ANSWERS,
            "ifconfig": f"INTERFACE IFACETYPE=any INET={self.address} MASK={mask} MAC={self.mac} SPEED=10000Mbps "
                        "DUPLEX=full IFACE= RTABID= LAN=lan0\n",
            "hostnames": f"NAME=a-lan0 IP={self.address} ALIASES='a'\n"
                         "NAME=server-lan9 IP=10.9.1.3 ALIASES='server srv'\n",
            "routing": "ROUTERTYPE=static\n"
                       f"ROUTE DEST=10.200.0.0 DESTTYPE=net DESTMASK=255.255.0.0 NEXTHOP={self.via} COST=1 "
                       f"SRC={self.address}\n"
                       f"ROUTE DEST=10.201.1.1 DESTTYPE=host DESTMASK=255.255.255.255 NEXTHOP={self.via} COST=1 "
                       f"SRC={self.address}\n"}

    def test_unix_socket(self):
        for version in (None, 2, 21, 22, 40):
            words = f"VERSION={version} " if version else ""
            for command, expected in self.answers.items():
                self.assertEqual(expected, tmcd_unix("e.a", f"{words}{command} "), (version, command))
        self.assertEqual("FSTYPE=LOCAL\n", tmcd_unix("e.a", "VERSION=40 mounts "))
        self.assertEqual("", tmcd_unix("e.a", "VERSION=31 mounts "))
        # who one says to be does not matter
        for claim in ("VNODEID=pcvm9-9 ", "PROXYFOR=other ", "PRIVKEY=abc IDKEY=0 ", "USEUDP=1 ", "REDIRECT=10.0.0.1 "):
            self.assertEqual("a\n", tmcd_unix("e.a", f"{claim}VERSION=40 nodeid "))
        self.assertEqual("", tmcd_unix("e.a", "VERSION=x nodeid "))

    def test_tcp(self):
        for version in (2, 22, 31, 40):
            commands = list(self.answers)
            got = tmcd_tcp("e.a", *(f"VERSION={version} {c} " for c in commands))
            self.assertEqual(self.answers, dict(zip(commands, got)), version)
        self.assertEqual(["a\n"] * 3, tmcd_tcp("e.a", "nodeid VERSION=2", "VNODEID=x VERSION=40 nodeid ",
                                               "PROXYFOR=b VERSION=40 nodeidentity "))
        # an upload, and a request in pieces that would be two in any other client's eyes
        self.assertEqual(["", ""], tmcd_tcp("e.a", "VERSION=40 state ISUP ", "VERSION=40 startstatus 5 "))
        client = L.tbnode("inspect", "--json", "a").json()["client"]
        self.assertEqual(("ISUP", 5), (client["emulab_state"], client["startup"]["status"]))
        # TLS is refused in TLS's own words
        self.assertEqual(["\x15\x03\x01\x00\x02\x02\x28"], tmcd_tcp("e.a", "ISPEAKSSL_TMCDV10"))
        # who is not root of the node gets no hashes and no keys, and reports nothing
        got = tmcd_tcp("e.a", "VERSION=40 accounts ", "VERSION=40 state TBFAILED ", "VERSION=40 ready ", uid=65534)
        self.assertIn("LOGIN=joe PSWD=* ", got[0])
        self.assertNotIn("PUBKEY", got[0])
        client = L.tbnode("inspect", "--json", "a").json()["client"]
        self.assertEqual(("ISUP", True), (client["emulab_state"], client["ready"]))

    def test_nobody_asks_as_another(self):
        run("b", "--experiment", "e")
        run("c", "--experiment", "f")
        declare("b", {"creator": "beth"})
        for claim in ("", "VNODEID=a ", "PROXYFOR=a ", "VNODEID=e.a PROXYFOR=e.a PRIVKEY=0 ", "REDIRECT=10.0.0.1 "):
            self.assertEqual(["CREATOR=beth SWAPPER=beth\n", "b\n"],
                             tmcd_tcp("e.b", f"{claim}VERSION=40 creator ", f"{claim}VERSION=40 nodeid "))
        self.assertEqual(["c\n", ""], tmcd_tcp("f.c", "VNODEID=a VERSION=40 nodeid ", "VERSION=40 hostnames "))
        # the host itself is no node
        with contextlib.closing(socket.create_connection((gateway(), 7777), 5)) as s:
            s.sendall(b"VERSION=40 nodeid ")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(b"", s.recv(100))

    def test_every_firewall_style_lets_it_pass(self):
        for style in ("open", "basic", "closed"):
            self.assertEqual(0, L.tbnode("firewall", "set", "a", style).rc)
            self.assertEqual(["a\n"], tmcd_tcp("e.a", "VERSION=40 nodeid "), style)
            if style == "closed":  # and nothing else of the host
                r = L.nsrun(L.container_pid("e.a"), "python3", "-c", "import socket, sys\n"
                            "socket.create_connection((sys.argv[1], 22), 2)", gateway(), check=False)
                self.assertIn("timed out", r.err)

    def test_configured_away_and_elsewhere(self):
        L.tbnoded.stop()
        L.tbnoded.start(config={"start-timeout": "20s", "tmcd": "off"})
        self.assertIn("timed out", tmcd_tcp("e.a", "VERSION=40 nodeid ", check=False).err)
        self.assertEqual("a\n", self.unix_when_ready("VERSION=40 nodeid "))
        L.tbnoded.stop()
        L.tbnoded.start(config={"start-timeout": "20s", "tmcd": "14447"})
        self.unix_when_ready("VERSION=40 nodeid ")
        self.assertEqual(["a\n"], tmcd_tcp("e.a", "VERSION=40 nodeid ", port=14447))
        L.tbnoded.stop()
        L.tbnoded.start(config={"start-timeout": "20s"})
        self.unix_when_ready("VERSION=40 nodeid ")

    @staticmethod
    def unix_when_ready(text):
        with Connection("e.a"):
            pass
        return tmcd_unix("e.a", text)

    def test_uploads(self):
        self.assertEqual("", tmcd_unix("e.a", "VERSION=40 state TBSETUP "))
        client = L.tbnode("inspect", "--json", "a").json()["client"]
        self.assertEqual(("TBSETUP", "booting"), (client["emulab_state"], client["state"]))
        self.assertEqual("", tmcd_unix("e.a", "VERSION=40 state ISUP "))
        self.assertEqual("", tmcd_unix("e.a", "VERSION=40 startstatus 7 "))
        self.assertEqual("", tmcd_unix("e.a", "VERSION=40 ready "))
        self.assertEqual("READY=1 TOTAL=1\n", tmcd_unix("e.a", "VERSION=40 readycount "))
        client = L.tbnode("inspect", "--json", "a").json()["client"]
        self.assertEqual(("ISUP", "up", 7, True), (client["emulab_state"], client["state"],
                                                   client["startup"]["status"], client["ready"]))
        self.assertEqual("", tmcd_unix("e.a", "VERSION=40 state A;B "))
        self.assertEqual("ISUP", L.tbnode("inspect", "--json", "a").json()["client"]["emulab_state"])

    def test_full_configuration(self):
        text = tmcd_unix("e.a", "VERSION=40 fullconfig ")
        parts = text.split("*** ")
        self.assertEqual("", parts[0])
        bodies = {}
        for k in range(1, len(parts), 2):
            name, body = parts[k].split("\n", 1)
            self.assertEqual(f"{name}\n", parts[k + 1])
            bodies[name] = body
        for command in ("nodeid", "accounts", "ifconfig", "routing", "startupcmd", "programs", "creator", "userenv",
                        "syncserver"):
            self.assertEqual(self.answers[command], bodies[command])
        self.assertEqual("", bodies["tarballs"])
        self.assertLess(list(bodies).index("startupcmd"), list(bodies).index("mounts"))


class Remapped(Base):
    """With an engine that gives containers a user namespace of their own."""

    BASE = 300000

    @classmethod
    def setUpClass(cls):
        for path, line in (("passwd", "tbremap:x:29999:29999::/:/bin/false"), ("group", "tbremap:x:29999:"),
                           ("subuid", f"tbremap:{cls.BASE}:65536"), ("subgid", f"tbremap:{cls.BASE}:65536")):
            with open(f"/etc/{path}", "a", encoding="utf-8") as f:
                f.write(line + "\n")
        L.tbnoded.stop()
        L.dockerd.stop()
        L.dockerd.start(config={"userns-remap": "tbremap"})
        L.tbnoded.start(config={"start-timeout": "20s"})
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["engine"]["connected"], 10, "the engine")

    @classmethod
    def tearDownClass(cls):
        L.tbnoded.stop()
        L.dockerd.restart()
        L.tbnoded.start(config={"start-timeout": "20s"})
        lab.wait_for(lambda: L.tbnode("status", "--json").json()["engine"]["connected"], 10, "the engine")

    def test_root_of_the_node_is_not_root_of_the_host(self):
        run("aa")
        with open(f"/proc/{L.container_pid('aa')}/uid_map", encoding="utf-8") as f:
            self.assertEqual(["0", str(self.BASE), "65536"], f.read().split())
        declare("aa", DECLARATION)
        ask = ("import os,socket,sys\ns=socket.socket(socket.AF_UNIX)\nos.setuid(int(sys.argv[2]))\ns.connect(sys.argv[1])\n"
               "s.sendall(b'{\"op\":\"declaration\"}\\n')\ns.shutdown(1)\nprint(s.makefile().read(),end='')")
        for uid, root in ((self.BASE, True), (self.BASE + 1000, False), (0, False), (1000, False)):
            user = json.loads(L.run(["python3", "-c", ask, f"{NODES}/aa/agent.sock", str(uid)]).out)["accounts"]["users"][0]
            self.assertEqual(root, "password_hash" in user, uid)
        # part of no experiment: the host's port is not for it unless somebody says so
        self.assertEqual(0, L.tbnode("firewall", "set", "aa", "open", f"allow out tcp to {gateway()} port 7777").rc)
        self.assertIn("PSWD=$6$salt$hash", tmcd_tcp("aa", "VERSION=40 accounts ", uid=self.BASE)[0])
        self.assertIn("PSWD=* ", tmcd_tcp("aa", "VERSION=40 accounts ", uid=self.BASE + 1)[0])


class Hostile(Base):
    def test_a_flood_harms_only_itself(self):
        run("bad", "--experiment", "e")
        run("good", "--experiment", "e")
        path = f"{NODES}/e.bad/agent.sock"
        sockets = []
        for _ in range(200):  # more than are served, and they say nothing, half a request, or garbage
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.settimeout(5)
            s.setblocking(False)
            try:
                s.connect(path)
            except BlockingIOError:
                s.close()
                break
            with contextlib.suppress(OSError):
                s.send((b"", b'{"op": "decl', b"\x00\xff" * 100, b'{"op":"declaration"}\n' * 500)[len(sockets) % 4])
            sockets.append(s)
        with Connection("e.good") as c:
            start = time.monotonic()
            for _ in range(20):
                self.assertTrue(c.ask("readycount")["ok"])
            self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(0, L.tbnode("ps").rc)
        fds = agent_descriptors()
        self.assertLess(fds, 150)
        for s in sockets:
            s.close()
        lab.wait_for(lambda: agent_descriptors() < fds, 10, "the descriptors to be closed")

        def answered():
            with contextlib.suppress(OSError), Connection("e.bad") as c:
                return c.ask("readycount")["ok"]
            return False
        lab.wait_for(answered, 20, "the node itself to be served again")

    def test_ten_thousand_connects(self):
        run("bad")
        path = f"{NODES}/bad/agent.sock"
        before = agent_descriptors()
        refused = 0
        for _ in range(10000):
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as s:
                s.setblocking(False)
                try:
                    s.connect(path)
                except BlockingIOError:
                    refused += 1
        self.assertGreater(refused, 5000)
        self.assertEqual(0, L.tbnode("ps").rc)
        lab.wait_for(lambda: agent_descriptors() <= before + 2, 20, "no descriptor to be left")

    def test_tcp_flood(self):
        run("bad", "--experiment", "e")
        run("good", "--experiment", "e")
        flood = ("import socket, sys, time\nkeep = []\nfor i in range(3000):\n"
                 "    s = socket.socket()\n    s.setblocking(False)\n"
                 "    try: s.connect((sys.argv[1], 7777))\n    except BlockingIOError: pass\n"
                 "    keep.append(s)\n    if len(keep) > 500: keep.pop(0).close()\nprint('flooding', flush=True)\ntime.sleep(6)")
        with subprocess.Popen(["nsenter", "-t", str(L.container_pid("e.bad")), "-n", "--", "python3", "-c", flood,
                               gateway()], stdout=subprocess.PIPE) as p:
            p.stdout.readline()
            for _ in range(3):
                self.assertEqual(["good\n"] * 5, tmcd_tcp("e.good", *["VERSION=40 nodeid "] * 5))
            self.assertLess(agent_descriptors(), 150)
            p.kill()
        self.assertEqual(0, L.tbnode("ps").rc)

    def test_silence_costs_nothing(self):
        for name in "abc":
            run(name, "--experiment", "e")
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(Connection(f"e.{name}")) for name in "abc"]
            for c in connections:
                self.assertTrue(c.ask("attach")["ok"])
            connections[0].send("sync", name="never")
            connections[1].ask("readycount")
            # What was reported is written, the engine has no more to say, and the memory of the starts was given back.
            time.sleep(8)

            def switches():
                with open(f"/proc/{L.tbnoded.pid}/status", encoding="utf-8") as f:
                    return sum(int(x.split()[1]) for x in f if x.startswith("voluntary_ctxt_switches"))
            before = switches()
            time.sleep(4)
            self.assertLessEqual(switches() - before, 3)
            self.assertTrue(connections[2].ask("readycount")["ok"])

    def test_too_long_and_never_read(self):
        run("bad")
        with Connection("bad") as c:
            with contextlib.suppress(OSError):
                c.s.sendall(b'{"op": "' + b"x" * 200000)
            self.assertIn("65536", c.line()["error"]["message"])
            with contextlib.suppress(ConnectionResetError):
                self.assertIsNone(c.line())
        declare("bad", {"hosts": [{"name": f"host{i}", "address": "10.0.0.1"} for i in range(2000)]})
        before = self.rss_kb()
        with Connection("bad", timeout=2) as c:  # asks and never reads: it is no longer listened to
            with contextlib.suppress(OSError):
                for _ in range(10000):
                    c.send("declaration")
            self.assertEqual(0, L.tbnode("ps").rc)
            self.assertLess(self.rss_kb() - before, 20000)

    @staticmethod
    def rss_kb():
        with open(f"/proc/{L.tbnoded.pid}/status", encoding="utf-8") as f:
            return next(int(x.split()[1]) for x in f if x.startswith("VmRSS"))


if __name__ == "__main__":
    lab.main()
