#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent's API: as docs/api.yaml says, for whom it is, its bounds, events and metrics."""

import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unittest
import urllib.parse

sys.path.append("/usr/lib/python3/dist-packages")  # Debian's, whichever python3 this is

import jsonschema  # noqa: E402
import yaml  # noqa: E402

import lab  # noqa: E402

SOCKET = "/run/tbnode/tbnoded.sock"
IMAGE = "127.0.0.1:5000/t/busybox:1"
ANN, BEN, OPERATOR = 4711, 4712, 4713
METRICS_PORT = 9911
CONFIG = {"socket-group": "testers", "operators-group": "opers", "metrics": str(METRICS_PORT)}
SLOW = []


def setUpModule():
    global L, DOCUMENT
    L = lab.Lab.get()
    L.run(["groupadd", "-g", "4700", "testers"])
    L.run(["groupadd", "-g", "4701", "opers"])
    L.tbnoded.start(config=CONFIG)
    lab.images.busybox(L).push(L.local, "t/busybox:1")
    L.docker("pull", "-q", IMAGE)
    L.docker("network", "create", "lan0")
    with open(f"{L.source}/docs/api.yaml", encoding="utf-8") as f:
        DOCUMENT = yaml.safe_load(f)


def connect(data=b""):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(SOCKET)
    s.sendall(data)
    return s


def as_user(uid, groups=(4700,)):
    return ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--groups", ",".join(map(str, groups))]


def curl(method, path, body=None, uid=None, groups=(4700,), timeout=60):
    """(status, text, content type)"""
    data = [] if body is None else ["--data-binary", body if isinstance(body, str) else json.dumps(body)]
    r = L.run([*(as_user(uid, groups) if uid else ()), "curl", "-sS", "-m", str(timeout), "-X", method, "-w", "\n%{http_code} %{content_type}",
               "--unix-socket", SOCKET, *data, f"http://tbnoded{path}"], check=False, timeout=timeout + 20)
    if r.rc:
        raise lab.LabError(f"{method} {path}: {r}")
    text, tail = r.out.rsplit("\n", 1)
    status, _, kind = tail.partition(" ")
    return int(status), text, kind


def ask(method, path, body=None, want=200, **options):
    status, text, _ = curl(method, path, body, **options)
    if status != want:
        raise AssertionError(f"{method} {path}: {status} {text}")
    return json.loads(text) if text.lstrip().startswith("{") and "\n" not in text.strip() else text


def message(method, path, want, body=None, **options):
    return ask(method, path, body, want, **options)["error"]["message"]


def start(name, *labels, network="lan0"):
    args = [x for label in labels for x in ("--label", label)]
    L.docker("run", "-d", "--name", name, "--network", network, *args, IMAGE, "sleep", "1000")


def wait_configured(*names):
    for name in names:
        lab.wait_for(lambda name=name: curl("GET", f"/v1/nodes/{name}")[0] == 200 and
                     ask("GET", f"/v1/nodes/{name}")["state"] == "configured", 20, f"{name} to be configured")


class Base(unittest.TestCase):
    def tearDown(self):
        ids = L.docker("ps", "-aq").out.split()
        if ids:
            L.docker("rm", "-f", *ids)
        if not L.tbnoded.running:
            L.tbnoded.start(config=CONFIG)
        lab.wait_for(lambda: not L.traces(), 10, f"no traces: {L.traces()}")
        lab.wait_for(lambda: ask("GET", "/v1/nodes")["nodes"] == [], 10, "no nodes")


# ---- The document ------------------------------------------------------------------------------------------------


def strict(part):
    """The schema, with members that it does not name forbidden: the document is to be complete."""
    if isinstance(part, list):
        return [strict(x) for x in part]
    if not isinstance(part, dict):
        return part
    part = {k: strict(v) for k, v in part.items()}
    if "properties" in part and isinstance(part["properties"], dict):
        part.setdefault("additionalProperties", False)
    return part


class Contract(Base):
    """Asks for everything that there is, and compares each answer with its schema."""

    @classmethod
    def setUpClass(cls):
        # These are to be cut off by the agent after a while; until then the other tests go on (ZSlowness).
        if not L.tbnoded.running:
            L.tbnoded.start(config=CONFIG)
        SLOW.append(connect(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-A: "))
        SLOW.append(connect(b"POST /v1/augment HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"))

    def setUp(self):
        document = strict(copy.deepcopy(DOCUMENT))
        self.asked = set()
        self.document = document
        self.resolver = jsonschema.RefResolver("", document)

    def check(self, schema, value, what):
        try:
            jsonschema.Draft202012Validator(schema, resolver=self.resolver).validate(value)
        except jsonschema.ValidationError as e:
            self.fail(f"{what}: {e.message} at {list(e.absolute_path)}\n{json.dumps(value)[:2000]}")

    def resolve(self, part):
        return self.resolver.resolve(part["$ref"])[1] if "$ref" in part else part

    def call(self, template, method, body=None, want=200, query="", **arguments):
        operation = self.document["paths"][template][method.lower()]
        if body is not None and want == 200:
            self.check(self.resolve(operation["requestBody"])["content"]["application/json"]["schema"], body, f"request {template}")
        path = template.format(**{k: urllib.parse.quote(v, safe="") for k, v in arguments.items()})
        status, text, kind = curl(method, path + query, body, timeout=120)
        self.assertEqual(want, status, (method, path, text))
        response = self.resolve(operation["responses"].get(str(status), operation["responses"]["default"]))
        kind = kind.split(";")[0]
        self.assertIn(kind, response["content"], path)
        schema = response["content"][kind]["schema"]
        self.asked.add((method, template))
        if schema == {"type": "string"}:
            return text
        values = [json.loads(x) for x in text.splitlines() if x] if kind == "application/x-ndjson" else [json.loads(text)]
        for v in values:
            self.check(schema, v, f"{method} {path}")
        return values if kind == "application/x-ndjson" else values[0]

    def run_nodes(self):
        lines = self.call("/v1/nodes", "POST", {
            "image": IMAGE, "name": "n1", "experiment": "e", "networks": ["lan0"], "level": "core", "firewall": "basic",
            "shape": "rate 10mbit; to 10.1.0.7 rate 1mbit", "cmd": ["sleep", "1000"],
            "declare": {"programs": [{"name": "p", "command": "sleep 1000"}]}})
        self.assertEqual("result", lines[-1]["event"], lines[-1])
        self.call("/v1/nodes", "POST", {"image": IMAGE, "name": "n2", "experiment": "e", "networks": ["lan0"],
                                        "shape": "rate 10mbit", "cmd": ["sleep", "1000"]})

    def about_nodes(self):
        n = "/v1/nodes/{node}"
        self.call("/v1/nodes", "GET")
        self.call(n, "GET", node="e.n1")
        self.call(n, "GET", node="nobody", want=404)
        for path in ("/shape", "/firewall", "/declaration", "/programs"):
            self.call(n + path, "GET", node="n1")
        self.call("/v1/shapes", "GET")
        self.call("/v1/firewall", "GET")
        self.call(n + "/logs", "GET", node="n1")
        self.call(n + "/logs", "GET", node="n1", query="?source=syslog&tail=3")
        self.call(n + "/logs", "GET", node="n1", query="?source=all&since=1h30m&tail=3&timestamps=0")
        self.call(n + "/logs", "GET", node="n1", query="?since=2026-11-21T20:38:50%2B01:00&timestamps=1&follow=0")
        for query in ("source=dream", "since=yesterday", "since=2026-11-21", "since=%zz", "tail=-1", "follow=yes", "timestamps=1&source=all"):
            self.call(n + "/logs", "GET", node="n1", query=f"?{query}", want=400)
        self.assertIn("files/etc/hostname", self.call(n + "/files", "POST", {"paths": ["/etc/host*", "/nowhere"]}, node="n1"))
        for body in ({}, {"paths": "x"}, {"paths": ["x"]}, {"paths": [7]}, {"paths": ["/a/.."]}, {"paths": 65 * ["/a"]}, {"paths": [], "x": 1}):
            self.call(n + "/files", "POST", body, node="n1", want=400)
        shape = n + "/shape/{interface}"
        self.call(shape, "PUT", {"spec": "rate 5mbit", "for": "60s"}, node="n1", interface="lan0")
        self.call(shape, "PUT", {"flap": "1s 2s 3"}, node="n1", interface="eth0")
        self.call(shape, "DELETE", node="n1", interface="lan0")
        self.call(shape, "PUT", {"spec": "rate furlong"}, node="n1", interface="lan0", want=400)
        self.call(n + "/firewall", "PUT", {"style": "closed", "rules": "allow tcp to port 80"}, node="n1")
        for method, body in (("PUT", {"ssh_keys": ["ssh-ed25519 AAAA x"]}), ("DELETE", None)):
            self.call(n + "/ssh-keys", method, body, node="n1", want=400)  # its ssh is its own
        explain = self.call(n + "/firewall/explain", "POST", {"protocol": "tcp", "address": "10.0.0.1", "port": 80}, node="n1")
        self.assertIn(explain["verdict"], ("allow", "deny"))
        lab.wait_for(lambda: self.call(n + "/programs", "GET", node="n1")["attached"], 20, "the client of n1")
        self.call(n + "/programs/{program}", "POST", {"action": "stop"}, node="n1", program="p")
        self.call(n + "/declaration", "PUT", {"startup": {"command": "true"}}, node="n1")
        self.call(n + "/startup", "POST", node="n1")
        self.call(n + "/snapshot", "POST", {"name": "n1:1", "pause": False}, node="n1")
        self.call(n + "/snapshot", "POST", {"name": "N1"}, node="n1", want=400)
        self.call(n + "/exec", "POST", {"cmd": ["true"]}, node="n1", want=426)
        self.exec_answers()

    def exec_answers(self):
        body = b'{"cmd": ["/tbnode/bin/sh", "-c", "echo hello"]}'
        s = connect(b"POST /v1/nodes/n1/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tbnode-exec\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        text = b""
        while b'"exit"' not in text:
            more = s.recv(4096)
            self.assertTrue(more, text)
            text += more
        s.close()
        self.assertTrue(text.startswith(b"HTTP/1.1 101 "), text)
        self.assertIn(b"hello\n", text)

    def test_answers_are_as_documented(self):
        self.run_nodes()
        self.about_nodes()
        self.call("/v1/links/check", "POST", {"rate": False, "network": "lan0"})
        self.call("/v1/augment", "POST", {"image": IMAGE, "level": "basic"})
        self.call("/v1/dockerfile", "POST", {"image": IMAGE})
        self.call("/v1/images", "GET")
        self.call("/v1/images/prune", "POST", {"dry_run": True, "keep_days": 0})
        self.call("/v1/events", "GET")
        self.call("/v1/status", "GET")
        self.call("/metrics", "GET")
        told = self.call("/v1", "GET")["operations"]
        for verb in ("stop", "start", "restart"):
            self.call(f"/v1/nodes/{{node}}/{verb}", "POST", node="n1")
        for name in ("n1", "n2"):
            self.call("/v1/nodes/{node}", "DELETE", node=name)
        self.assertEqual({(o["method"], o["path"]) for o in told},
                         {(m.upper(), re.sub(r"\{[^}]*\}", "{}", p)) for p, item in DOCUMENT["paths"].items()
                          for m in item if m != "parameters"})
        everything = {(m.upper(), p) for p, item in DOCUMENT["paths"].items() for m in item if m != "parameters"}
        self.assertEqual(set(), everything - self.asked, "never asked here")


# ---- Users -------------------------------------------------------------------------------------------------------


class Users(Base):
    def test_each_sees_and_changes_his_own(self):
        for uid, name in ((ANN, "a1"), (BEN, "b1")):
            lines = ask("POST", "/v1/nodes", {"image": IMAGE, "level": "none", "name": name, "experiment": f"exp{uid}", "networks": [f"lan{uid}"],
                                              "cmd": ["sleep", "1000"]}, uid=uid, timeout=90)
            self.assertIn('"event":"result"', lines)
        start("r1", "tbnode.shape=rate 1mbit")
        start("a2", f"tbnode.experiment=exp{ANN}")  # by Docker, in Ann's experiment
        wait_configured("r1", "a2")

        def names(**options):
            return sorted(n["node"] for n in ask("GET", "/v1/nodes", **options)["nodes"])
        self.assertEqual(["a1", "a2"], names(uid=ANN))
        self.assertEqual(["b1"], names(uid=BEN))
        self.assertEqual(["a1", "a2", "b1", "r1"], names())
        self.assertEqual(["a1", "a2", "b1", "r1"], names(uid=OPERATOR, groups=(4700, 4701)))
        self.assertEqual({"a1", "a2"}, {n["node"] for n in ask("GET", "/v1/shapes", uid=ANN)["nodes"]})
        self.assertEqual({"b1"}, {n["node"] for n in ask("GET", "/v1/firewall", uid=BEN)["nodes"]})
        self.assertEqual("b1", ask("GET", "/v1/nodes/b1", uid=BEN)["node"])

        for method, path, body in (("GET", "/v1/nodes/a1", None), ("DELETE", "/v1/nodes/a1", None), ("POST", "/v1/nodes/a2/stop", None),
                                   ("GET", "/v1/nodes/a1/logs", None), ("PUT", "/v1/nodes/a1/firewall", {"style": "open"}),
                                   ("PUT", f"/v1/nodes/a1/shape/lan{ANN}", {"spec": "rate 1mbit"}), ("PUT", "/v1/nodes/a1/declaration", {}),
                                   ("GET", f"/v1/nodes/exp{ANN}.a1", None), ("POST", "/v1/links/check", {"node": "a1"})):
            self.assertIn(f"belongs to user {ANN}, not to you (user {BEN})", message(method, path, 403, body, uid=BEN))
        # and whatever else there is about a node, now and in time to come
        bodies = {"files": {"paths": ["/etc/hostname"]}, "firewall": {"style": "open"}, "{interface}": {"spec": "rate 1mbit"}, "declaration": {},
                  "explain": {"protocol": "tcp", "address": "10.0.0.1", "port": 80}, "{program}": {"action": "start"}, "exec": {"cmd": ["true"]}}
        refused = 0
        for path, methods in DOCUMENT["paths"].items():
            for method in [m.upper() for m in methods if "{node}" in path and m != "parameters"]:
                body = None if method in ("GET", "DELETE") else bodies.get(path.split("/")[-1])
                status, text, _ = curl(method, path.format(node="a1", interface=f"lan{ANN}", program="p"), body, uid=BEN)
                if path.endswith("/exec"):
                    self.assertEqual(426, status, "before it is looked at, it has to ask for the protocol")
                else:
                    self.assertEqual((403, True), (status, "not to you" in text), (method, path, text))
                refused += 1
        self.assertGreater(refused, 18)
        self.assertIn("belongs to user 0", message("GET", "/v1/nodes/r1", 403, uid=ANN))
        self.assertIn("name one of your nodes", message("POST", "/v1/links/check", 403, {}, uid=ANN))
        self.assertIn("operators", message("POST", "/v1/images/prune", 403, {"dry_run": True}, uid=ANN))

        r = L.run([*as_user(BEN), f"{L.install()}/tbnode", "rm", "a1"], check=False)
        self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())), r)
        self.assertIn("not to you", r.err)
        self.assertEqual(["a1", "a2"], names(uid=ANN), "nothing happened to them")

        seen = [json.loads(x) for x in ask("GET", "/v1/events", uid=BEN).splitlines() if x]
        self.assertTrue([e for e in seen if e.get("node") == "b1"])
        self.assertEqual([], [e for e in seen if e.get("node") in ("a1", "a2", "r1")])
        text = curl("GET", "/metrics", uid=BEN)[1]
        self.assertIn('tbnode_nodes{state="configured"} 1\n', text)
        self.assertNotIn("a1", re.findall(r'node="([^"]*)"', text))
        ask("DELETE", "/v1/nodes/b1", uid=BEN)
        ask("DELETE", "/v1/nodes/a1", uid=OPERATOR, groups=(4700, 4701))

    def test_what_a_user_may_not_make(self):
        start("r1", "tbnode.experiment=roots")
        wait_configured("r1")
        for body, words in (({"experiment": "roots"}, "experiment roots belongs to user 0"),
                            ({"networks": ["lan0"]}, "network lan0 is used by a node of user 0"),
                            ({"volumes": ["/etc:/mnt"]}, "root and operators only"),
                            ({"volumes": [f"u{ANN}-data:/mnt", f"u{BEN}-data:/mnt"]}, f"your volumes begin with 'u{ANN}-'"),
                            ({"declare": {"mounts": [{"source": "/etc", "target": "/mnt"}]}}, "root and operators only")):
            self.assertIn(words, message("POST", "/v1/nodes", 403, {"image": IMAGE, "level": "none", **body}, uid=ANN))
        self.assertEqual(["r1"], L.docker("ps", "-a", "--format", "{{.Names}}").out.split())

    def test_owner_of_a_label(self):
        start("a1", f"tbnode.owner={ANN}", "tbnode.shape=rate 1mbit")
        start("bad", "tbnode.owner=ann")
        wait_configured("a1")
        self.assertEqual(["a1"], [n["node"] for n in ask("GET", "/v1/nodes", uid=ANN)["nodes"]])
        lab.wait_for(lambda: "tbnode.owner=ann" in (ask("GET", "/v1/nodes/bad")["reason"] or ""), 10, "a reason")

    def test_without_the_group_nobody_gets_in(self):
        r = L.run([*as_user(ANN, (ANN,)), f"{L.install()}/tbnode", "ps"], check=False)
        self.assertEqual(3, r.rc, r)
        self.assertIn("no permission", r.err)


# ---- Start -------------------------------------------------------------------------------------------------------


class AtStart(Base):
    def test_nobody_is_told_that_there_is_no_node_before_the_list_is_in(self):
        start("aa", "tbnode.shape=rate 1mbit")
        wait_configured("aa")
        L.tbnoded.stop()
        os.kill(L.dockerd.pid, signal.SIGSTOP)
        try:
            L.tbnoded.start(config=CONFIG, services=False)
            asked = [subprocess.Popen([f"{L.install()}/tbnode", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                     for words in (("ps", "--json"), ("inspect", "--json", "aa"))]
            self.assertEqual(200, curl("GET", "/v1/status")[0], "who needs no list does not wait")
            self.assertEqual([None, None], [p.poll() for p in asked])
        finally:
            os.kill(L.dockerd.pid, signal.SIGCONT)
        out = [p.communicate(timeout=30) for p in asked]
        self.assertEqual([0, 0], [p.returncode for p in asked], out)
        self.assertEqual(["aa"], [n["node"] for n in json.loads(out[0][0])["nodes"]])
        self.assertEqual("configured", json.loads(out[1][0])["state"])

    def test_without_an_engine_it_says_what_is_missing(self):
        L.tbnoded.stop()
        L.tbnoded.start(config={**CONFIG, "docker": "unix:///run/no-such.sock"}, services=False)
        for path in ("/v1/nodes", "/v1/nodes/aa", "/v1/shapes", "/v1/firewall"):
            lab.wait_for(lambda path=path: curl("GET", path)[0] == 503, 15, "a refusal")
            said = message("GET", path, 503)
            self.assertIn("does not know the nodes of this host yet", said)
            self.assertIn("no-such.sock", said)
        r = L.tbnode("ps")
        self.assertEqual(1, r.rc, r)
        L.tbnoded.stop()


# ---- Events ------------------------------------------------------------------------------------------------------


class Events(Base):
    def flood(self, n):
        for i in range(n):
            ask("PUT", "/v1/nodes/aa/shape/lan0", {"spec": f"rate {1 + i % 9}mbit"})

    def test_a_client_that_never_reads_harms_nobody(self):
        start("aa", "tbnode.shape=rate 1mbit")
        wait_configured("aa")
        stuck = [connect(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(20)]
        reader = subprocess.Popen([f"{L.install()}/tbnode", "events", "--follow", "--json"], stdout=subprocess.PIPE, text=True)
        before = self.memory()
        # 12,000 events of 170 bytes: more than a stream holds and more than the ring does, for each of them.
        requests = "".join(f"url = \"http://x/v1/nodes/aa/shape/lan0\"\nunix-socket = {SOCKET}\nrequest = PUT\n"
                           f"data = \"{{\\\"spec\\\":\\\"rate {1 + i % 9}mbit\\\"}}\"\noutput = /dev/null\nnext\n" for i in range(12000))
        path = L.tmp("curl") + "/requests"
        with open(path, "w", encoding="utf-8") as f:
            f.write(requests.removesuffix("next\n"))
        L.run(["curl", "-sS", "-K", path], timeout=200)
        start("bb", "tbnode.shape=rate 1mbit")
        wait_configured("bb")
        seqs = []
        for line in reader.stdout:
            e = json.loads(line)
            if "seq" in e:
                seqs.append(e["seq"])
            if e.get("node") == "bb" and e.get("to") == "configured":
                break
        reader.kill()
        reader.wait()
        reader.stdout.close()
        self.assertEqual(sorted(set(seqs)), seqs)
        self.assertLess(self.memory() - before, 40 << 20, "20 streams of at most 1 MiB each, and some")
        # Who wakes up is told how much he has missed, and goes on with what is there.
        stuck[0].settimeout(10)
        text = b""
        while b'"bb"' not in text:
            more = stuck[0].recv(1 << 20)
            self.assertTrue(more)
            text += more
        self.assertRegex(text.decode(), r'\{"event":"lost","events":[1-9][0-9]*\}')
        for s in stuck:
            s.close()

    def test_logs_and_files_that_nobody_reads(self):
        """Each holds what fits into its stream and no more, and who does read gets all of it meanwhile."""
        noise = "i=0; while [ $i -lt 60000 ]; do echo line $i of a hundred bytes, which are more than enough for anybody who does not read them; i=$((i+1)); done"
        made = ask("POST", "/v1/nodes", {"image": IMAGE, "name": "aa", "cmd": [
            "sh", "-c", f"{noise}; dd if=/dev/zero of=/big bs=1M count=60; seq 5000 | /tbnode/bin/logger; touch /ready; exec sleep 1000"]}, timeout=120)
        self.assertIn('"event":"result"', made)
        lab.wait_for(lambda: L.docker("exec", "aa", "test", "-e", "/ready", check=False).rc == 0, 60, "its files")
        before = self.memory()
        body = b'{"paths":["/big"]}'
        stuck = [connect(b"GET /v1/nodes/aa/logs?source=%s&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n" % source) for source in (b"all", b"output") * 5]
        stuck += [connect(b"POST /v1/nodes/aa/files HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)) for _ in range(3)]
        archive = L.run(["curl", "-sS", "--unix-socket", SOCKET, "-d", body.decode(), "-o", L.tmp("tar") + "/x", "-w", "%{size_download}",
                         "http://x/v1/nodes/aa/files"], timeout=60).out
        self.assertGreater(int(archive), 60 << 20)
        lines = curl("GET", "/v1/nodes/aa/logs?source=output&tail=50000")[1].splitlines()
        self.assertEqual((50000, 1), (len(lines), len([x for x in lines if x.startswith("line 59999 ")])))
        self.assertLess(self.memory() - before, 40 << 20)
        children = lambda: [p for p in L.run(["ps", "--ppid", str(L.tbnoded.pid), "-o", "comm="], check=False).out.split() if p == "tbnoded-files"]
        self.assertEqual(3, len(children()))
        # Of one user four run at a time; who comes behind them waits, and his turn comes when one of them goes away.
        stuck += [connect(b"POST /v1/nodes/aa/files HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)) for _ in range(3)]
        lab.wait_for(lambda: len(children()) == 4, 10, "the fourth")
        last = subprocess.Popen(["curl", "-sS", "--unix-socket", SOCKET, "-d", body.decode(), "-o", "/dev/null", "-w", "%{size_download}",
                                 "http://x/v1/nodes/aa/files"], stdout=subprocess.PIPE, text=True)
        for s in stuck:
            s.close()
        self.assertGreater(int(last.communicate(timeout=60)[0]), 60 << 20)
        lab.wait_for(lambda: not children(), 20, "the processes to end")

    def memory(self):
        with open(f"/proc/{L.tbnoded.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * 4096


# ---- Metrics -----------------------------------------------------------------------------------------------------

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)$')


def parse(text):
    """{(name, labels): value}; refuses what Prometheus would refuse, and what it would wonder about."""
    samples, types, current = {}, {}, None
    if not text.endswith("\n"):
        raise AssertionError("no line break at the end")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            if current in types:
                raise AssertionError(f"{current} comes twice")
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            if name != current or kind not in ("counter", "gauge", "histogram"):
                raise AssertionError(line)
            types[name] = kind
            continue
        m = SAMPLE.match(line)
        if not m:
            raise AssertionError(f"not a sample: {line}")
        family = re.sub(r"_(bucket|sum|count)$", "", m[1]) if types[current] == "histogram" else m[1]
        if family != current or (types[current] == "counter") != m[1].endswith("_total"):
            raise AssertionError(f"{line} under {current}")
        key = (m[1], tuple(sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2] or ""))))
        if key in samples:
            raise AssertionError(f"{line} comes twice")
        samples[key] = float(m[3])
    for name in [n for n, t in types.items() if t == "histogram"]:
        buckets = sorted((float(dict(k[1])["le"]), v) for k, v in samples.items() if k[0] == name + "_bucket")
        if [v for _, v in buckets] != sorted(v for _, v in buckets) or len({b for b, _ in buckets}) != len(buckets) or \
                buckets[-1] != (float("inf"), samples[(name + "_count", ())]):
            raise AssertionError(f"{name}: {buckets}")
    return samples


class Metrics(Base):
    def get(self):
        status, text, kind = curl("GET", "/metrics")
        self.assertEqual((200, "text/plain; version=0.0.4; charset=utf-8"), (status, kind))
        return parse(text)

    def test_counts_and_shapes(self):
        before = self.get()
        start("aa", "tbnode.shape=up rate 3mbit down rate 2mbit", "tbnode.experiment=e")
        start("bb", "tbnode.shape=rate 10furlong")
        wait_configured("aa")
        lab.wait_for(lambda: self.get()[("tbnode_nodes", (("state", "failed"),))] == 1, 10, "the failed one")
        now = self.get()
        self.assertEqual(1, now[("tbnode_nodes", (("state", "configured"),))])
        for counter in ("tbnode_kernel_writes_total", "tbnode_batches_total", "tbnode_nodes_applied_total", "tbnode_engine_events_total",
                        "tbnode_plan_duration_seconds_count", "tbnode_apply_duration_seconds_count", "tbnode_configure_duration_seconds_count",
                        "tbnode_api_requests_total"):
            self.assertGreater(now[(counter, ())], before[(counter, ())], counter)
        cid = L.docker("inspect", "-f", "{{.Id}}", "aa").out[:12]
        for direction, rate in (("up", 3e6), ("down", 2e6)):
            key = (("container", cid), ("direction", direction), ("experiment", "e"), ("network", "lan0"), ("node", "aa"))
            for name in ("requested", "kernel"):
                self.assertEqual(rate, now[(f"tbnode_shape_{name}_bits_per_second", key)])
            self.assertIn(("tbnode_shape_drops_total", key), now)

    def test_over_tcp(self):
        def tcp(path, *args):
            return L.run(["curl", "-s", "-w", "\n%{http_code}", *args, f"http://127.0.0.1:{METRICS_PORT}{path}"]).out.rsplit("\n", 1)
        text, status = tcp("/metrics")
        self.assertEqual("200", status)
        self.assertIn(("tbnode_engine_connected", ()), parse(text))
        self.assertEqual("404", tcp("/v1/nodes")[1])
        self.assertEqual("405", tcp("/metrics", "-d", "x")[1])
        # A few that say nothing do not keep Prometheus out.
        idle = [socket.create_connection(("127.0.0.1", METRICS_PORT)) for _ in range(10)]
        self.assertEqual("200", tcp("/metrics")[1])
        for s in idle:
            s.close()


# ---- Limits ------------------------------------------------------------------------------------------------------

MANY = """
import socket, sys
alive, refused = [], b""
for i in range(80):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(sys.argv[1])
    s.setblocking(True)
    s.settimeout(10)
    s.sendall(b"GET /v1/events?follow=1 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n") if i < 60 else None
    alive.append(s)
try:
    refused = alive[-1].recv(4096)
except ConnectionError:
    refused = b"reset"
print(refused.decode(), flush=True)
sys.stdin.read()
"""


class Limits(Base):
    def receive(self, s):
        text = b""
        try:
            while True:
                more = s.recv(65536)
                if not more:
                    return text
                text += more
        except ConnectionError:
            return text

    def test_one_user_cannot_take_all_connections(self):
        p = subprocess.Popen([*as_user(ANN), "python3", "-c", MANY, SOCKET], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertIn("503", p.stdout.readline())
        for uid in (None, BEN):
            self.assertEqual(200, curl("GET", "/v1/status", uid=uid)[0])
        status, text, _ = curl("GET", "/v1/status", uid=OPERATOR)
        self.assertEqual(200, status, text)
        p.communicate()
        lab.wait_for(lambda: curl("GET", "/v1/status", uid=ANN)[0] == 200, 10, "room for the user")

    def test_endless_header_and_bodies(self):
        s = connect(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n")
        try:
            for i in range(4000):
                s.sendall(f"X-{i}: {'a' * 60}\r\n".encode())
        except OSError:
            pass
        else:
            self.fail("a header of 300 kB was read")
        s.close()
        s = connect(b"POST /v1/augment HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0
        try:
            while sent < 64 << 20:
                s.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                sent += 65536
        except OSError:
            pass
        self.assertLess(sent, 8 << 20, "an endless body was read")
        s.close()
        s = connect(b"POST /v1/augment HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        self.assertIn(b" 413 ", self.receive(s))
        s.close()
        self.assertIn("too large", message("POST", "/v1/augment", 413, "@" + self.big()))
        self.assertEqual(200, curl("GET", "/v1/status")[0])

    def big(self):
        path = L.tmp("big") + "/body"
        with open(path, "w", encoding="utf-8") as f:
            f.write('{"image":"' + "x" * 1400000 + '"}')
        return path

    def test_methods_and_paths(self):
        for method, path, want in (("PUT", "/v1/nodes", 405), ("GET", "/v1/nodes/" + "a/" * 20, 400), ("GET", "/v1/nodes/%00", 400),
                                   ("GET", "/v1/nodes/" + "x" * 20000, 404), ("GET", "/v2", 404), ("POST", "/metrics", 405)):
            message(method, path, want)


class ZSlowness(Base):
    """Last: by now the agent has had enough of those that began to send when this file began."""

    def test_slow_senders_are_cut_off(self):
        began = time.monotonic()
        self.assertEqual(2, len(SLOW))
        while SLOW:
            s = SLOW[-1]
            s.settimeout(1)
            try:
                s.sendall(b"a")  # one byte every second: never silent for long
                if s.recv(4096) == b"":
                    raise ConnectionResetError
                self.fail("it was answered")
            except TimeoutError:
                self.assertLess(time.monotonic() - began, 120, "it is still connected")
            except OSError:
                SLOW.pop().close()
        refused = parse(curl("GET", "/metrics")[1])[("tbnode_api_refused_connections_total", ())]
        self.assertGreaterEqual(refused, 2)


if __name__ == "__main__":
    lab.main()
