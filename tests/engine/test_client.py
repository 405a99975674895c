#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The testbed client inside nodes of level core, against the real agent: accounts, hosts, startup command, programs, barriers
and Emulab's tmcc in images of several families; and against an agent that misbehaves."""

import contextlib
import json
import os
import socket
import threading
import time
import unittest

import lab

CLIENT = "/tbnode/bin/tbnode-client"
FAMILIES = {"debian": "debian:12", "busybox": "busybox:1.36", "scratch": "scratch:1"}
HOLD = {"debian": ["sleep", "1000"], "busybox": ["sleep", "1000"], "scratch": []}
ACCOUNTS = {"groups": [{"name": "proj", "gid": 6001}],
            "users": [{"name": "joe", "uid": 20001, "gid": 6001, "groups": ["proj"], "root": True, "full_name": "Joe",
                       "shell": "bash", "password_hash": "$6$salt$hash"}]}


def setUpModule():
    global L, KEY, JOES
    L = lab.Lab.get()
    KEY = f"{L.dir}/key"
    JOES = f"{L.dir}/joes-key"
    for path in (KEY, JOES):
        L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path])
    L.tbnoded.start(config={"start-timeout": "30s"})
    lab.images.debian(L).push(L.hub, "library/debian:12")
    lab.images.busybox(L).push(L.hub, "library/busybox:1.36")
    lab.images.scratch(L).push(L.hub, "library/scratch:1")


def declaration_file(d):
    path = f"{L.tmp('declaration')}/d.json"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(d, f)
    return path


def run(family, name, d=None, *options):
    L.tbnode("run", "--json", "--level", "core", "--ssh-key", f"{KEY}.pub", "--name", name, "--declare", declaration_file(d or {}),
             *options, FAMILIES[family], *HOLD[family], check=True)


def inside(node, *argv, user=None, check=True):
    return L.docker("exec", *(["-u", user] if user else []), node, *argv, check=check)


def ask(node, *argv, check=True, **options):
    return inside(node, CLIENT, *argv, check=check, **options)


def status(node):
    return ask(node, "--json", "status").json()["client"] or {}


def content(node, path):
    return inside(node, "/tbnode/bin/cat", path).out


def agent_view(node):
    return L.tbnode("inspect", "--json", node).json()["client"]


def startup(node):
    return agent_view(node).get("startup") or {}


def wait_state(node, state, what=""):
    lab.wait_for(lambda: agent_view(node).get("state") == state, 20,
                 f"{node} to be {state} {what}: {agent_view(node)} {ask(node, 'status', check=False)}")


class Nodes(unittest.TestCase):
    def tearDown(self):
        names = [n["container"] for n in L.tbnode("ps", "--json").json()["nodes"]]
        if names:
            L.tbnode("rm", *names, check=True)

    def test_accounts_in_every_family(self):
        with open(f"{JOES}.pub", encoding="utf-8") as f:
            key = f.read().strip()
        accounts = json.loads(json.dumps(ACCOUNTS))
        accounts["users"][0]["keys"] = [key]
        for family in FAMILIES:
            with self.subTest(family):
                name = f"n{family}"
                run(family, name, {"accounts": accounts, "environment": {"FLAVOUR": "a b"},
                                   "startup": {"command": "id -un; id -gn; pwd; echo $FLAVOUR $HOME $USER; exit 3", "user": "joe"}})
                wait_state(name, "up")
                passwd = [x for x in content(name, "/etc/passwd").splitlines() if x.startswith("joe:")]
                shell = "/bin/bash" if family == "debian" else "/tbnode/bin/sh" if family == "scratch" else "/bin/sh"
                self.assertEqual(1, len(passwd))
                self.assertRegex(passwd[0], f"^joe:x:20001:6001:Joe:/home/joe:(/usr)?{shell}$")
                self.assertIn("proj:x:6001:joe\n", content(name, "/etc/group"))
                self.assertIn("joe:$6$salt$hash:::::::\n", content(name, "/etc/shadow"))
                self.assertEqual("700 20001 6001\n", inside(name, "/tbnode/bin/stat", "-c", "%a %u %g", "/home/joe").out)
                self.assertIn("600 0\n", inside(name, "/tbnode/bin/stat", "-c", "%a %u", "/run/tbnode/keys/joe").out)
                self.assertEqual("FLAVOUR=a b\n", content(name, "/run/tbnode/environment"))
                self.assertEqual("/tbnode/bin/tmcc", inside(name, "/tbnode/bin/readlink", "/usr/local/etc/emulab/tmcc").out.strip())
                # the startup command, as its user, reported
                lab.wait_for(lambda: startup(name).get("state") == "exited", 10, "the startup command to end")
                self.assertEqual(3, startup(name)["status"])
                self.assertEqual("joe\nproj\n/home/joe\na b /home/joe joe\n", content(name, "/run/tbnode/startup.log"))
                self.assertEqual("exited 3\n", ask(name, "startstatus").out)
                # ssh as that user, with the key that only he has declared
                for user, uid in (("joe", "20001\n"), ("root", "0\n")):
                    r = L.tbnode("ssh", "-l", user, "-i", JOES, name, "id -u")
                    self.assertEqual((0, uid), (r.rc, r.out), r)
                self.assertEqual("a b\n", L.tbnode("ssh", "-l", "joe", "-i", JOES, name, "echo \"$FLAVOUR\"").out)
                # nothing twice; then all of it gone
                before = content(name, "/etc/passwd"), content(name, "/etc/group"), content(name, "/etc/hosts")
                inside(name, "/tbnode/bin/sv", "-w", "10", "restart", "/run/tbnode/service/client")
                wait_state(name, "up")
                self.assertEqual(before, (content(name, "/etc/passwd"), content(name, "/etc/group"), content(name, "/etc/hosts")))
                L.tbnode("declare", name, declaration_file({}), check=True)
                lab.wait_for(lambda: "joe:" not in content(name, "/etc/passwd"), 10, "the account to go")
                lab.wait_for(lambda: "proj" not in content(name, "/etc/group"), 10, "the group to go")
                self.assertEqual("", inside(name, "/tbnode/bin/ls", "/run/tbnode/keys").out)
                self.assertEqual(255, L.tbnode("ssh", "-i", JOES, name, "true").rc)

    def test_startup_runs_once_per_start_of_the_container(self):
        d = {"startup": {"command": "echo run >> /count; sleep 1000", "user": "root"}}
        run("busybox", "aa", d)
        lab.wait_for(lambda: startup("aa").get("state") == "running", 10, "the startup command to run")
        # over restarts of the agent and of the client, whose command goes on
        L.tbnoded.restart()
        inside("aa", "/tbnode/bin/sv", "-w", "10", "restart", "/run/tbnode/service/client")
        wait_state("aa", "up")
        pid = content("aa", "/run/tbnode/service/client/supervise/pid")
        inside("aa", "/tbnode/bin/kill", "-9", pid.strip())
        lab.wait_for(lambda: content("aa", "/run/tbnode/service/client/supervise/pid") not in ("", pid), 10, "another client")
        wait_state("aa", "up")
        self.assertEqual("run\n", content("aa", "/count"))
        self.assertEqual("running", startup("aa")["state"])
        # it ends while neither agent nor client is there: told later
        job = content("aa", "/run/tbnode/client/startup.run").split()
        self.assertEqual("running", job[0])
        L.tbnoded.stop()
        inside("aa", "/tbnode/bin/sv", "-w", "10", "down", "/run/tbnode/service/client")
        inside("aa", "/tbnode/bin/kill", "-9", job[1])
        L.tbnoded.start(config={"start-timeout": "30s"})
        inside("aa", "/tbnode/bin/sv", "-w", "10", "up", "/run/tbnode/service/client")
        lab.wait_for(lambda: startup("aa").get("state") == "signaled", 15, "the end to be told")
        self.assertEqual(9, startup("aa")["status"])
        L.tbnode("stop", "aa", check=True)
        L.tbnode("start", "aa", check=True)
        lab.wait_for(lambda: content("aa", "/count") == "run\nrun\n", 15, "the second run")

    def test_programs(self):
        d = {"programs": [{"name": "ok", "command": "echo out; echo err >&2; exit 4", "directory": "/tmp"},
                          {"name": "long", "command": "sleep 1000 & wait"},
                          {"name": "slow", "command": "sleep 1000", "timeout": 1},
                          {"name": "lost", "command": "true", "user": "nobody-here"}]}
        run("busybox", "aa", d)
        wait_state("aa", "up")

        def program(name):
            return (agent_view("aa").get("programs") or {}).get(name, {})

        def order(*words):
            L.tbnode("program", *words, check=True)
        order("aa", "start", "ok")
        lab.wait_for(lambda: program("ok").get("state") == "exited", 10, "ok to end")
        self.assertEqual(4, program("ok")["status"])
        self.assertEqual("out\nerr\n", content("aa", "/run/tbnode/programs/ok.log"))
        order("aa", "start", "long")
        lab.wait_for(lambda: program("long").get("state") == "running", 10, "long to run")
        self.assertGreater(program("long")["pid"], 1)
        order("aa", "stop", "long")
        lab.wait_for(lambda: program("long").get("state") == "signaled", 10, "long to be stopped")
        self.assertEqual(15, program("long")["status"])
        order("aa", "start", "long")
        lab.wait_for(lambda: program("long").get("state") == "running", 10, "long to run again")
        order("--signal", "KILL", "aa", "kill", "long")
        lab.wait_for(lambda: program("long").get("state") == "signaled", 10, "long to be killed")
        order("aa", "start", "slow")
        lab.wait_for(lambda: program("slow").get("state") == "timeout", 15, "slow to run out of time")
        order("aa", "start", "lost")
        lab.wait_for(lambda: program("lost").get("state") == "failed", 10, "lost to fail")
        self.assertIn("nobody-here", program("lost")["reason"])
        self.assertIn("ok                   exited 4", ask("aa", "programs").out)
        self.assertEqual([], [x for x in inside("aa", "/tbnode/bin/ps").out.splitlines() if "tbnode-job" in x])

    def test_barriers_hosts_and_questions(self):
        run("busybox", "a", {"hosts": [{"name": "far", "address": "203.0.113.7", "aliases": ["away"]}]}, "--experiment", "e", "--network", "lan0")
        run("debian", "b", {}, "--experiment", "e", "--network", "lan0")
        wait_state("a", "up")
        wait_state("b", "up")
        lab.wait_for(lambda: "b-lan0 b\n" in content("e.a", "/etc/hosts"), 10, "b to be known")
        self.assertIn("203.0.113.7\tfar away\n", content("e.a", "/etc/hosts"))
        self.assertEqual(0, inside("e.a", "/bin/ping", "-c1", "-W2", "b").rc)
        answers = {}

        def sync(node):
            answers[node] = ask(node, "sync", "-n", "start", "-t", "30")
        threads = [threading.Thread(target=sync, args=(n,)) for n in ("e.a", "e.b")]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual({"2 nodes are here\n"}, {r.out for r in answers.values()})
        late = ask("e.a", "sync", "-n", "alone", "-c", "2", "-t", "1", check=False)
        self.assertEqual(1, late.rc)
        self.assertIn("in time", late.err)
        self.assertEqual("a\n", ask("e.a", "nodeid").out)
        self.assertIn("lan0", ask("e.a", "interfaces").out)
        self.assertRegex(ask("e.a", "interfaces").out, r"^eth[0-9] +lan0 +02:42:[0-9a-f:]+ [0-9.]+/[0-9]+\n$")
        self.assertIn("far away", ask("e.a", "hostnames").out)
        self.assertEqual(["a", "b"], sorted(n["node"] for n in ask("e.b", "experiment", "--json").json()))
        ask("e.a", "ready")
        self.assertEqual("1 of 2 nodes are ready\n", ask("e.b", "readycount").out)
        self.assertRegex(ask("e.a", "status").out, r"node +a\nexperiment +e\nstate +up\n")
        # what only root may do, and wrong words
        r = ask("e.a", "state", "up", user="1000", check=False)
        self.assertEqual(1, r.rc)
        self.assertIn("root", r.err)
        self.assertEqual((2, 1), (ask("e.a", "dance", check=False).rc, len(ask("e.a", "dance", check=False).err.splitlines())))
        self.assertEqual(2, ask("e.a", "sync", "-c", "many", check=False).rc)
        self.assertEqual(3, ask("e.a", "--socket", "/nowhere", "status", check=False).rc)

    def test_tmcc(self):
        run("debian", "a", {"accounts": ACCOUNTS, "startup": {"command": "true"}, "creator": "joe"}, "--experiment", "e", "--network", "lan0")
        wait_state("a", "up")
        tmcc = "/usr/local/etc/emulab/tmcc"

        def say(*args, **options):
            return inside("e.a", tmcc, *args, **options)
        self.assertEqual("ALLOCATED=tbnode/e NICKNAME=a\n", say("status").out)
        self.assertEqual("a\n", say("-s", "boss", "-p", "7777", "-n", "pcvm1-1", "-i", "nodeid").out)
        self.assertIn("ADDUSER LOGIN=joe", say("accounts").out)
        self.assertIn("PSWD=* ", say("accounts", user="1000").out)
        self.assertIn("NAME=a-lan0 IP=", say("hostnames").out)
        self.assertEqual("CREATOR=joe SWAPPER=joe\n", say("creator").out.replace("SWAPPER=\n", "SWAPPER=joe\n"))
        self.assertEqual("", say("startstatus", "7").out)
        lab.wait_for(lambda: startup("a").get("status") == 7, 5, "startstatus to be known")
        say("state", "TBFAILED")
        wait_state("a", "failed")
        say("state", "ISUP")
        wait_state("a", "up")
        say("ready")
        self.assertEqual("READY=1 TOTAL=1\n", say("readycount").out)
        r = say(check=False)
        self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())))
        begin = time.monotonic()
        self.assertEqual(1, say("-t", "1", "-l", "/nowhere", "status", check=False).rc)
        self.assertLess(time.monotonic() - begin, 10)

    def test_what_can_not_be_is_told(self):
        run("busybox", "aa", {"accounts": {"users": [{"name": "www-data", "uid": 4711, "gid": 33}]}})
        wait_state("aa", "failed")
        reason = agent_view("aa")["reason"]
        self.assertIn("www-data", reason)
        self.assertIn("4711", reason)
        self.assertIn(reason, ask("aa", "status").out)
        L.tbnode("declare", "aa", declaration_file({}), check=True)
        wait_state("aa", "up")

    def test_a_route_that_is_taken_away(self):
        """Whoever is root in a node may do that: the agent doesn't put it back by itself, but the node isn't `up` without it."""
        run("busybox", "aa")
        via = json.loads(L.docker("network", "inspect", "tbnode-control").out)[0]["IPAM"]["Config"][0]["Gateway"]
        declared = {"routes": [{"to": "10.200.0.0/16", "via": via}]}
        L.tbnode("declare", "aa", declaration_file(declared), check=True)

        def route():
            return L.nsrun(L.container_pid("aa"), "ip", "route", "show", "10.200.0.0/16").out

        lab.wait_for(route, 10, "the route")
        wait_state("aa", "up")

        def taken_away():
            L.nsrun(L.container_pid("aa"), "ip", "route", "del", "10.200.0.0/16")
            wait_state("aa", "failed", "without its route")
            self.assertEqual("", route())
            view = agent_view("aa")
            for words in (f"the route to 10.200.0.0/16 via {via} is not there", "tbnode declare"):
                self.assertIn(words, view["reason"])
                self.assertIn(words, ask("aa", "status").out)

        self.assertIn(f"via {via}", route())
        taken_away()
        # back by hand
        L.nsrun(L.container_pid("aa"), "ip", "route", "add", "10.200.0.0/16", "via", via)
        wait_state("aa", "up", "with its route")
        # and by declaring the same once more
        taken_away()
        L.tbnode("declare", "aa", declaration_file(declared), check=True)
        wait_state("aa", "up", "with its route")
        self.assertIn(f"via {via}", route())

    def test_mounts(self):
        shared, data = L.tmp("shared"), L.tmp("data")
        with open(f"{shared}/from-host", "w", encoding="utf-8") as f:
            f.write("hello\n")
        d = {"mounts": [{"source": shared, "target": "/proj/a b"}, {"source": data, "target": "/data", "read_only": True}]}

        def mounted():
            lines = [x.split() for x in content("aa", "/proc/self/mountinfo").splitlines()]
            return [(x[4], "ro" in x[5].split(",")) for x in lines if x[4].startswith(("/proj", "/data"))]

        def look_again():
            inside("aa", "/tbnode/bin/sv", "hup", "/run/tbnode/service/client")

        def check():
            self.assertEqual([("/data", True), ("/proj/a\\040b", False)], sorted(mounted()))

        run("busybox", "aa", d)
        wait_state("aa", "up")
        check()
        self.assertEqual("hello\n", content("aa", "/proj/a b/from-host"))
        inside("aa", "/bin/sh", "-c", "echo from node > '/proj/a b/from-node'")
        with open(f"{shared}/from-node", encoding="utf-8") as f:
            self.assertEqual("from node\n", f.read())
        r = inside("aa", "/bin/sh", "-c", "echo x > /data/x", check=False)
        self.assertIn("Read-only file system", r.err)
        self.assertEqual(1, ask("aa", "mounts").out.count("/proj/a b"))
        # idempotent: nothing is mounted a second time by another look, another client, another agent, the same declaration
        look_again()
        inside("aa", "/tbnode/bin/sv", "-w", "10", "restart", "/run/tbnode/service/client")
        L.tbnoded.restart()
        lab.wait_for(lambda: L.tbnode("inspect", "aa").rc == 0, 20, "the agent to know the node again")
        L.tbnode("declare", "aa", declaration_file(d), check=True)
        wait_state("aa", "up")
        check()
        # taken away: said at the next look, and there again after the next start
        L.run(["nsenter", "-m", "-t", str(L.container_pid("aa")), "umount", "/proj/a b"])
        look_again()
        wait_state("aa", "failed", "without its mount")
        self.assertIn("/proj/a b is not mounted", agent_view("aa")["reason"])
        self.assertIn("tbnode stop", agent_view("aa")["reason"])
        L.tbnode("stop", "aa", check=True)
        L.tbnode("start", "aa", check=True)
        wait_state("aa", "up", "with its mount")
        check()
        self.assertEqual("hello\n", content("aa", "/proj/a b/from-host"))
        # mounts are the container's: another declaration of them is refused, and changes nothing
        r = L.tbnode("declare", "aa", declaration_file({"mounts": d["mounts"][:1]}))
        self.assertEqual(1, r.rc)
        self.assertIn("mounts: they are made with the container and can't be changed", r.err)
        wait_state("aa", "up")
        check()

    def test_mounts_that_can_not_be(self):
        directory = L.tmp("source")
        with open(f"{directory}/file", "w", encoding="utf-8"):
            pass
        for mounts, words in (([{"source": f"{directory}/nothing", "target": "/x"}], ("mounts[0].source", f"{directory}/nothing", "make it")),
                              ([{"source": f"{directory}/file", "target": "/x"}], ("mounts[0].source", "is no directory")),
                              ([{"source": directory, "target": "/"}], ("mounts[0].target", "root")),
                              ([{"source": directory, "target": "/tbnode/bin"}], ("mounts[0].target", "/tbnode")),
                              ([{"source": directory, "target": "relative"}], ("mounts[0].target",)),
                              ([{"source": directory, "target": "/x"}, {"source": directory, "target": "/x"}], ("mounts[1]", "two entries with this target")),
                              ([{"target": "/x"}], ("mounts[0]", "source"))):
            with self.subTest(mounts=mounts):
                r = L.tbnode("run", "--level", "core", "--ssh-key", f"{KEY}.pub", "--name", "aa", "--declare",
                             declaration_file({"mounts": mounts}), FAMILIES["busybox"], "sleep", "1000")
                self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())), r)
                for word in words:
                    self.assertIn(word, r.err)
        self.assertEqual([], L.tbnode("ps", "--json").json()["nodes"])

    def test_output_is_bounded(self):
        run("busybox", "aa", {"startup": {"command": "i=0; while [ $i -lt 200000 ]; do echo line $i of a long story about nothing at all; "
                                                     "i=$((i+1)); done; echo end"}})
        lab.wait_for(lambda: startup("aa").get("state") == "exited", 60, "the story to end")
        lab.wait_for(lambda: content("aa", "/run/tbnode/startup.log").endswith("end\n"), 10, "its end to be logged")
        size = int(inside("aa", "/tbnode/bin/stat", "-c", "%s", "/run/tbnode/startup.log").out)
        self.assertTrue(4 << 20 < size <= 8 << 20, size)


class OddAgent:
    """Plays the agent on a socket in a directory of its own: says what the test wants, whatever it is."""

    def __init__(self, directory):
        self.path, self.requests, self.connections = f"{directory}/agent.sock", [], []
        self.answer = lambda request: {"ok": True, "id": request.get("id")}
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.bind(self.path)
        os.chmod(self.path, 0o777)
        self.s.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                c, _ = self.s.accept()
                self.connections.append(c)
                threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        with contextlib.suppress(OSError, ValueError), c, c.makefile("rb") as f:
            for line in f:
                request = json.loads(line)
                self.requests.append(request)
                answer = self.answer(request)
                if answer is None:
                    return
                c.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")

    def close(self):
        self.s.close()
        for c in self.connections:
            with contextlib.suppress(OSError):
                c.shutdown(socket.SHUT_RDWR)

    def reports(self):
        return [r for r in self.requests if r.get("op") == "state"]


class Odd(unittest.TestCase):
    """Containers that no agent would make: the mounted directory is the test's."""

    def setUp(self):
        self.dir = L.tmp("run")
        os.chmod(self.dir, 0o755)
        with open(f"{self.dir}/node.conf", "w", encoding="utf-8") as f:
            f.write("node=odd\n")
        self.agent = OddAgent(self.dir)
        self.declaration = {"node": "odd", "hostname": "odd", "generation": 1}
        self.agent.answer = lambda r: {**(self.declaration if r["op"] == "declaration" else {}), "ok": True, "id": r.get("id")}

    def tearDown(self):
        L.docker("rm", "-f", "odd", check=False)
        self.agent.close()

    def start(self, *options, image="busybox:1.36", command=("sleep", "1000")):
        reference = L.tbnode("augment", "--json", "--level", "core", image, check=True).json()["image"]
        L.docker("run", "-d", "--name", "odd", "--hostname", "odd", "-u", "0", "-v", f"{self.dir}:/tbnode/run:ro", *options, reference, *command)

    def wait_report(self, state):
        lab.wait_for(lambda: any(r["state"] == state for r in self.agent.reports()), 15,
                     f"report of {state}: {self.agent.requests[-5:]}")
        return [r for r in self.agent.reports() if r["state"] == state][-1]

    def test_read_only_root(self):
        self.declaration["accounts"] = ACCOUNTS
        self.start("--read-only")
        reason = self.wait_report("failed")["reason"]
        self.assertIn("Read-only file system", reason)
        self.declaration = {"node": "odd", "hostname": "odd", "generation": 2, "startup": {"command": "exit 5"}}
        inside("odd", "/tbnode/bin/sv", "hup", "/dev/.tbnode/service/client")
        self.wait_report("up")
        lab.wait_for(lambda: any(r.get("op") == "startstatus" and r.get("status") == 5 for r in self.agent.requests), 10, "the status")
        self.assertIn("state       up", ask("odd", "status").out)

    def test_without_capabilities(self):
        self.declaration["accounts"] = {"users": [{"name": "joe", "uid": 20001, "gid": 20001}]}
        self.declaration["startup"] = {"command": "true", "user": "joe"}
        self.start("--cap-drop", "ALL")
        self.wait_report("failed")
        lab.wait_for(lambda: any(r.get("op") == "startstatus" and r.get("state") == "failed" for r in self.agent.requests), 10, "the status")

    def test_etc_is_odd(self):
        self.declaration["accounts"] = ACCOUNTS
        self.start("--entrypoint", "/tbnode/bin/sh", command=(
            "-c", "cd /etc; mkdir x; mv passwd x; ln -s x/passwd passwd; rm -f group; mkfifo group; "
            "exec /tbnode/init --level core -- sleep 1000"))
        self.assertIn("/etc/group: it is no regular file", self.wait_report("failed")["reason"])
        # docker exec would wait for somebody to write into it
        os.unlink(f"/proc/{L.container_pid('odd')}/root/etc/group")
        inside("odd", "/tbnode/bin/sv", "hup", "/run/tbnode/service/client")
        self.wait_report("up")
        self.assertEqual("x/passwd\n", inside("odd", "/tbnode/bin/readlink", "/etc/passwd").out)
        self.assertIn("joe:x:20001:", content("odd", "/etc/x/passwd"))

    def test_hostile_answers(self):
        deep = b'{"id":2,"ok":true,"accounts":' + b"[" * 500000 + b"\n"
        for what, answer in (("no JSON", b"hello\n"), ("an endless line", b"x" * (2 << 20)), ("deep", deep),
                             ("another type", b"[1,2]\n"), ("the end", None),
                             ("wrong types", {"id": 2, "ok": True, "accounts": [1], "hosts": {"a": 1}, "startup": "x", "programs": [[]],
                                              "environment": 5, "routes": "r", "mounts": "m", "hostname": ["x"]})):
            with self.subTest(what):
                self.agent.answer = lambda r, a=answer: a if r["op"] == "declaration" else {"ok": True, "id": r.get("id")}
                if what == "no JSON":
                    self.start()
                n = len(self.agent.connections)
                if what == "wrong types":
                    self.wait_report("up")
                else:
                    lab.wait_for(lambda: len(self.agent.connections) > n, 15, "the client to come again")
                self.assertNotEqual(0, ask("odd", "nodeid", check=False).rc if what != "wrong types" else 1)
        # the same client is there all the while, and small
        pid = inside("odd", "/tbnode/bin/pgrep", "-f", "tbnode-client run").out.split()
        self.assertEqual(1, len(pid))
        rss = int(next(x for x in content("odd", f"/proc/{pid[0]}/status").splitlines() if x.startswith("VmHWM")).split()[1])
        self.assertLess(rss, 24000)

    def test_events_for_nothing(self):
        self.start()
        self.wait_report("up")
        attached = self.agent.connections[0]
        for event in ({"event": "program", "name": "nope", "action": "start"}, {"event": "program"}, {"event": 3}, {"event": "startup"},
                      {"event": "program", "name": "../../etc", "action": "kill", "signal": -1}, {}, {"ok": False}, {"event": "changed"}):
            attached.sendall(json.dumps(event).encode() + b"\n")
        lab.wait_for(lambda: [r["op"] for r in self.agent.requests].count("declaration") == 2, 10, "the change to be asked for")
        self.assertEqual(1, len(self.agent.connections))


if __name__ == "__main__":
    lab.main(debian=True)
