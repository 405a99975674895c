#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnode augment, dockerfile and run, end to end: from a name on Docker Hub to a node one logs in to; and what is left
when that fails (nothing)."""

import base64
import concurrent.futures
import datetime
import filecmp
import json
import os
import shutil
import signal
import subprocess
import unittest

import lab

IMAGE = "busybox:1.36"


def setUpModule():
    global L, KEY
    L = lab.Lab.get()
    L.tbnoded.start(config={"start-timeout": "20s"})
    lab.images.busybox(L).push(L.hub, "library/busybox:1.36")
    lab.images.busybox(L, config={"User": "1000", "Env": ["COLOUR=blue"], "Entrypoint": ["/bin/sh", "-c"],
                                  "Cmd": ["id -u > /tmp/uid; echo $COLOUR > /tmp/colour; exec sleep 1000"]}
                       ).push(L.hub, "library/withuser:1")
    KEY = f"{L.dir}/key"
    L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])
    L.tbnode("augment", IMAGE, check=True)


def run(*args, **options):
    return L.tbnode("run", "--json", "--ssh-key", f"{KEY}.pub", *args, **options)


def leftovers():
    """Everything a run makes: containers, networks of ours, node directories, things in the kernel."""
    networks = L.docker("network", "ls", "--format", "{{.Name}}").out.split()
    nodes = "/var/lib/tbnode/nodes"
    return (L.docker("ps", "-aq").out.split() + [n for n in networks if n.startswith("lan")] + L.traces()
            + (os.listdir(nodes) if os.path.isdir(nodes) else []))


class Base(unittest.TestCase):
    def tearDown(self):
        names = [n["container"] for n in L.tbnode("ps", "--json").json()["nodes"]]
        if names:
            L.tbnode("rm", *names, check=True)
        lab.wait_for(lambda: not leftovers(), 15, f"nothing to be left: {leftovers()}")


class Run(Base):
    def test_system_log(self):
        run("--name", "web", IMAGE, "sleep", "1000")
        ssh = lambda command: L.tbnode("ssh", "-i", KEY, "web", command)
        self.assertEqual(0, ssh("logger -t probe first; logger -t probe second").rc)
        lab.wait_for(lambda: "probe: second" in L.tbnode("logs", "--syslog", "web").out, 10, "the log")
        self.assertIn("probe: first", L.tbnode("logs", "--syslog", "web").out)
        last = L.tbnode("logs", "--syslog", "--tail", "1", "web").out
        self.assertEqual(1, len(last.splitlines()))
        follow = subprocess.Popen([f"{L.build}/agent/tbnode", "logs", "--syslog", "--follow", "--tail", "0", "web"],
                                  stdout=subprocess.PIPE, text=True)
        # More than the files hold: they change places under the reader. It gets the last line too.
        self.assertEqual(0, ssh("for i in $(seq 9000); do echo a line of some length, number $i; done | logger -t many").rc)
        self.assertEqual(0, ssh("logger -t probe over").rc)
        for line in follow.stdout:
            if "probe: over" in line:
                break
        else:
            self.fail("the stream ended before the last line")
        # The log of a node that was stopped is not there, and who follows is told the end.
        L.tbnode("stop", "web", check=True)
        self.assertEqual(0, follow.wait(20))
        follow.stdout.close()
        lab.one_line(self, L.tbnode("logs", "--syslog", "web"), 1, "web", "not running")

    def test_both_logs_in_one_order(self):
        run("--name", "web", IMAGE, "sh", "-c", "mkfifo /tmp/in; while :; do cat /tmp/in; done")
        logs = lambda *args: L.tbnode("logs", *args, "web", check=True).out.splitlines()
        inside = lambda command: self.assertEqual(0, L.tbnode("exec", "web", "/bin/sh", "-c", command).rc)
        lab.wait_for(lambda: L.tbnode("exec", "web", "test", "-p", "/tmp/in").rc == 0, 10, "main")
        names = lambda lines: [x.split()[-1] for x in lines if x.startswith("output | ") or "probe:" in x]
        want = []
        for i in range(6):
            word = f"{('print', 'log')[i % 2]}{i}"
            inside(f"echo {word} > /tmp/in" if i % 2 == 0 else f"/tbnode/bin/logger -t probe {word}")
            lab.wait_for(lambda: any(x.endswith(word) for x in logs(("--no-syslog", "--syslog")[i % 2])), 10, word)  # pylint: disable=cell-var-from-loop
            want.append(word)
            if i == 2:
                between = datetime.datetime.now(datetime.timezone.utc)
        self.assertEqual(want, names(logs()))
        marks = [x[:9] for x in logs() if "probe" in x or "print" in x]
        self.assertEqual(["output | ", "syslog | "] * 3, marks)
        self.assertEqual(want[3:], names(logs("--since", between.isoformat())))
        self.assertEqual(want[3:], names(logs("--since", between.isoformat(), "--tail", "1000")))
        self.assertEqual(["print4", "log5"], names(logs("--tail", "2")))
        self.assertEqual([], logs("--tail", "0"))
        self.assertEqual(want, names(logs("--since", "1h")))
        self.assertEqual([], logs("--since", "0s"))
        self.assertEqual(["print0", "print2", "print4"], logs("--no-syslog"))
        self.assertEqual(["print4"], logs("--no-syslog", "--since", between.isoformat()))
        self.assertEqual(["log3", "log5"], [x.split()[-1] for x in logs("--syslog", "--since", between.isoformat()) if "probe" in x])
        # thousands of both at once: nothing is lost, each is in its own order, and the end of it is the end of it
        inside("seq 4000 | /tbnode/bin/logger -t many & seq 4000 > /tmp/in; wait")
        every = lambda: (lambda a: a if len(a[0]) == 4003 and a[1] and a[1][-1].endswith("many: 4000") else None)(
            [[x for x in logs() if x.startswith("output | ")], [x for x in logs() if "many" in x]])
        printed, logged = lab.wait_for(every, 20, "all of it")
        self.assertEqual([str(n) for n in range(1, 4001)], [x[9:] for x in printed][-4000:])
        numbers = [int(x.split()[-1]) for x in logged]
        self.assertEqual(sorted(numbers), numbers)
        whole = logs()
        for n in (1, 1000, 5000):
            self.assertEqual(whole[-n:], logs("--tail", str(n)))
        # as JSON, of both and of one: the same lines
        objects = [json.loads(x) for x in logs("--json")]
        self.assertEqual(whole, [f"{x['source']} | {x['text']}" for x in objects])
        self.assertEqual([("time", "node", "source", "text")], list({tuple(x) for x in objects}))
        for flag, source in (("--syslog", "syslog"), ("--no-syslog", "output")):
            self.assertEqual([x for x in objects if x["source"] == source], [json.loads(x) for x in logs("--json", flag)])
        # what comes, of both
        lines = subprocess.Popen([f"{L.build}/agent/tbnode", "logs", "--json", "--no-syslog", "--follow", "--tail", "1", "web"], stdout=subprocess.PIPE, text=True)
        self.assertEqual("4000", json.loads(lines.stdout.readline())["text"])
        follow = subprocess.Popen([f"{L.build}/agent/tbnode", "logs", "--follow", "--tail", "1", "web"], stdout=subprocess.PIPE, text=True)
        first = follow.stdout.readline()
        self.assertEqual(whole[-1], first.rstrip("\n"))
        for word, command in (("new1", "echo new1 > /tmp/in"), ("new2", "/tbnode/bin/logger -t probe new2"), ("new3", "echo new3 > /tmp/in")):
            inside(command)
            self.assertTrue(follow.stdout.readline().endswith(word + "\n"))
        L.tbnode("stop", "web", check=True)
        self.assertEqual(0, follow.wait(30))
        follow.stdout.close()
        self.assertEqual(["new1", "new3"], [json.loads(x)["text"] for x in lines.communicate(timeout=30)[0].splitlines()])
        self.assertEqual(0, lines.returncode)
        # of a node that is stopped there is one log only
        stopped = [json.loads(x) for x in logs("--json", "--tail", "1")]
        self.assertEqual([("new3", "output", "web")], [(x["text"], x["source"], x["node"]) for x in stopped])
        self.assertEqual("new3", logs()[-1])
        # mistakes
        for args, word in ((("--since", "yesterday"), "yesterday"), (("--tail", "-1"), "-1"), (("--files", "/x"), "--collect"), ((), "one node")):
            r = L.tbnode("logs", *args, *(("web",) if args else ()))
            self.assertEqual((2, 1), (r.rc, len(r.err.splitlines())), r)
            self.assertIn(word, r.err)
        lab.one_line(self, L.tbnode("logs", "nosuch"), 1, "nosuch")

    def test_no_host_key_in_a_snapshot(self):
        before = L.docker("volume", "ls", "-q").out.split()
        run("--name", "web", IMAGE, "sleep", "1000")
        self.assertEqual(0, L.tbnode("ssh", "-i", KEY, "web", "ls /tbnode/keys/ssh/host_key_ed25519").rc)
        container = L.tbnode("inspect", "--json", "web").json()["container"]
        L.docker("commit", container, "snapshot:1")
        found = L.docker("run", "--rm", "--entrypoint", "/tbnode/bin/find", "snapshot:1", "/", "-xdev", "-name", "host_key*").out
        self.assertEqual("", found)
        L.tbnode("rm", "web", check=True)
        self.assertEqual(before, L.docker("volume", "ls", "-q").out.split())

    def test_node_with_link_and_ssh(self):
        a = run("--name", "web", "--experiment", "exp", "--network", "lan0", "--shape", "rate 10mbit", IMAGE, "sleep",
                "1000").json()
        run("--name", "client", "--experiment", "exp", "--network", "lan0", IMAGE, "sleep", "1000").json()
        self.assertEqual("web", a["name"])
        self.assertEqual("hit", a["augment"]["cache"])
        self.assertEqual(a["ip"], a["ssh"]["host"])
        who = L.tbnode("ssh", "-i", KEY, "exp.web", "hostname; cat /proc/1/comm; /tbnode/bin/sv status main")
        self.assertEqual(0, who.rc, who)
        self.assertIn("web", who.out)
        self.assertIn("run: main", who.out)
        self.assertEqual(7, L.tbnode("ssh", "-i", KEY, "web", "exit 7").rc)
        # by name over the link, and the link is what was asked for
        self.assertEqual(0, L.tbnode("ssh", "-i", KEY, "web", "ping -c1 -W2 client").rc)
        other = L.tbnode("inspect", "--json", "client").json()
        to = next(i["address"] for i in other["interfaces"] if i["network"] == "lan0")
        measured = L.bandwidth(L.container_pid("exp.web"), L.container_pid("exp.client"), to)
        self.assertLess(measured, 10.6e6)
        self.assertGreater(measured, 7e6)
        # the outside is reached through the control network
        route = L.nsrun(L.container_pid("exp.web"), "ip", "-j", "route", "show", "default").out
        gateway = json.loads(L.docker("network", "inspect", "tbnode-control").out)[0]["IPAM"]["Config"][0]["Gateway"]
        self.assertEqual([gateway], [x["gateway"] for x in json.loads(route)])
        ps = L.tbnode("ps").out
        self.assertIn("lan0: rate 10mbit", ps)

    def test_host_keys_go_with_the_container(self):
        """However it is removed, and when the agent is away at that moment. Volumes of others stay."""
        volumes = lambda: L.docker("volume", "ls", "-q").out.split()
        L.docker("volume", "create", "--label", "tbnode.key=", "mine")
        L.docker("volume", "create")
        before = volumes()
        self.assertEqual(2, len(before))
        run("--name", "web", IMAGE, "sleep", "1000")
        run("--name", "stays", IMAGE, "sleep", "1000")
        self.assertEqual(6, len(volumes()))  # its keys, and /run/tbnode
        L.docker("rm", "-f", "web")
        lab.wait_for(lambda: len(volumes()) == 4, 20, "its volumes to go")
        L.docker("stop", "-t", "0", "stays")  # a container that is stopped keeps its keys
        run("--name", "web", IMAGE, "sleep", "1000")
        L.tbnoded.stop()
        L.docker("rm", "-f", "web")
        L.tbnoded.start(config={"start-timeout": "20s"})
        lab.wait_for(lambda: len(volumes()) == 4, 20, "its volumes to go when the agent is back")
        self.assertEqual(0, L.tbnode("start", "stays").rc)
        L.tbnode("rm", "stays", check=True)
        self.assertEqual(before, volumes())
        L.docker("volume", "rm", *before)

    def test_limits(self):
        """What was asked for is what the kernel has, for all that runs in the node."""
        run("--name", "small", "--cpus", "0.5", "-m", "64m", "--pids-limit", "50", IMAGE, "sleep", "1000")
        host = json.loads(L.docker("inspect", "small").out)[0]["HostConfig"]
        self.assertEqual((500000000, 64 << 20, 64 << 20, 50),
                         tuple(host[k] for k in ("NanoCpus", "Memory", "MemorySwap", "PidsLimit")))
        self.assertEqual({"cpu": 0.5, "memory": 64 << 20, "pids": 50}, self.cgroup_limits(L.container_pid("small")))
        for option, value, word in (("--cpus", "no", "processors"), ("--cpus", "0", "processors"), ("--memory", "1m", "6 MB"),
                                    ("--memory", "12parsecs", "memory"), ("--pids-limit", "0", "pids")):
            lab.one_line(self, run("--name", "bad", option, value, IMAGE), 1, word)

    @staticmethod
    def cgroup_limits(pid):
        """By control group v2 or v1, whichever has the controller."""
        paths = {}
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as f:
            for line in f:
                _, names, path = line.strip().split(":", 2)
                for name in names.split(","):
                    paths[name] = f"/sys/fs/cgroup/{names}{path}" if names else f"/sys/fs/cgroup{path}"

        def value(controller, new, *old):
            base = paths.get(controller) or paths[""]
            texts = []
            for name in (old if controller in paths else (new,)):
                with open(f"{base}/{name}", encoding="ascii") as g:
                    texts += g.read().split()
            return [int(t) for t in texts]
        quota, period = value("cpu", "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
        return {"cpu": quota / period, "memory": value("memory", "memory.max", "memory.limit_in_bytes")[0],
                "pids": value("pids", "pids.max", "pids.max")[0]}

    def test_many_at_once(self):
        """They wait for each other, and all come up; others are answered meanwhile."""
        many = 200 if os.environ.get("TBNODE_TEST_LONG") == "yes" else 20
        with concurrent.futures.ThreadPoolExecutor(many) as pool:
            running = [pool.submit(run, "--name", f"m{i}", IMAGE, "sleep", "100000", timeout=600) for i in range(many)]
            self.assertEqual(0, L.tbnode("status", timeout=60).rc)
            results = [r.result() for r in running]
        self.assertEqual([0] * many, [r.rc for r in results], [r for r in results if r.rc][:1])
        nodes = L.tbnode("ps", "--json").json()["nodes"]
        self.assertEqual(["configured"] * many, [n["state"] for n in nodes])
        self.assertEqual(many, len({n["ip"] for n in nodes}))

    def test_programs_that_call_ssh(self):
        """scp by both its protocols, rsync, and exit statuses, with a node's name in place of an address."""
        run("--name", "web", "--experiment", "exp", IMAGE, "sleep", "1000")
        here = L.tmp("copies")
        shell = f"{here}/tbnode-ssh"
        os.symlink(f"{L.build}/agent/tbnode", shell)
        with open(f"{here}/up", "wb") as f:
            f.write(os.urandom(3_000_000))
        for protocol in ((), ("-O",)):
            L.run(["scp", "-q", *protocol, "-S", shell, "-i", KEY, f"{here}/up", "exp.web:/tmp/up"], timeout=60)
            L.run(["scp", "-q", *protocol, "-S", shell, "-i", KEY, "root@web:/tmp/up", f"{here}/back"], timeout=60)
            self.assertTrue(filecmp.cmp(f"{here}/up", f"{here}/back", shallow=False))
            os.remove(f"{here}/back")
            self.assertEqual(0, L.tbnode("ssh", "-i", KEY, "web", "rm /tmp/up").rc)
        rsync = os.path.realpath(shutil.which("rsync"))
        libraries = [w for w in L.run("ldd", rsync).out.split() if w.startswith("/")]
        self.assertEqual(0, L.tbnode("ssh", "-l", "root", "-i", KEY, "--", "web", "mkdir", "/opt", "/srv").rc)
        for path in (rsync, *libraries):
            L.docker("cp", "-L", path, f"exp.web:/opt/{os.path.basename(path)}")
        loader = next(p for p in libraries if "/ld-" in p)
        L.run(["rsync", "-a", "-e", f"{L.build}/agent/tbnode ssh -i {KEY}", "--rsync-path",
               f"/opt/{os.path.basename(loader)} --library-path /opt /opt/rsync", f"{here}/up", "web:/srv/"], timeout=60)
        L.docker("cp", "exp.web:/srv/up", f"{here}/back")
        self.assertTrue(filecmp.cmp(f"{here}/up", f"{here}/back", shallow=False))
        self.assertEqual(9, L.tbnode("ssh", "-q", "-T", "-o", "BatchMode=yes", "-i", KEY, "root@exp.web", "exit 9").rc)
        self.assertEqual(2, L.tbnode("ssh", "--no-such-option", "web").rc)

    def test_only_keys_that_were_given_log_in(self):
        run("--name", "web", IMAGE, "sleep", "1000").json()
        other = f"{L.tmp('key')}/other"
        L.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other])
        self.assertEqual(255, L.tbnode("ssh", "-i", other, "web", "true").rc)

    def test_flags_and_the_image_s_own_settings(self):
        r = run("--name", "uu", "-e", "COLOUR=red", "withuser:1").json()
        pid = L.container_pid("uu")
        root = f"/proc/{pid}/root"
        lab.wait_for(lambda: os.path.exists(f"{root}/tmp/colour"), 10, "main to have run")
        self.assertEqual("red", open(f"{root}/tmp/colour", encoding="utf-8").read().strip())
        self.assertEqual("1000", open(f"{root}/tmp/uid", encoding="utf-8").read().strip())
        self.assertEqual(1, len(L.docker("inspect", r["id"]).out.split('"Destination": "/tbnode/run"')) - 1)
        run("--name", "vv", "-u", "2000:3000", "-w", "/tmp", "-v", f"{L.tmp('vol')}:/data:ro", "--entrypoint", "/bin/sh",
            "withuser:1", "-c", "id -u > /tmp/uid; pwd > /tmp/pwd; exec sleep 1000").json()
        root = f"/proc/{L.container_pid('vv')}/root"
        lab.wait_for(lambda: os.path.exists(f"{root}/tmp/pwd"), 10, "main to have run")
        self.assertEqual(("2000", "/tmp"), tuple(open(f"{root}/tmp/{f}", encoding="utf-8").read().strip()
                                                 for f in ("uid", "pwd")))
        r = L.tbnode("ssh", "-i", KEY, "vv", "hostname")
        self.assertEqual("vv", r.out.strip(), r)

    def test_main_s_end_is_told(self):
        run("--name", "shorty", IMAGE, "sh", "-c", "exit 3").json()
        lab.wait_for(lambda: L.tbnode("inspect", "--json", "shorty").json()["main"] == "exited 3", 10, "main's status")
        lab.wait_for(lambda: L.tbnode("inspect", "--json", "shorty").json()["state"] == "configured", 10, "the node to be up still")

    def test_level_none_is_the_original_image(self):
        r = run("--level", "none", "--name", "bare", IMAGE, "sleep", "1000").json()
        self.assertNotIn("ssh", r)
        comm = f"/proc/{L.container_pid('bare')}/comm"
        lab.wait_for(lambda: open(comm, encoding="utf-8").read().strip() == "sleep", 10, "the program itself as process 1")

    def test_many_with_links_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for r in pool.map(lambda k: run("--name", f"m{k}", "--network", "lan0", "--shape", "rate 5mbit", IMAGE,
                                            "sleep", "1000"), range(8)):
                self.assertEqual(0, r.rc, r)
        self.assertEqual(8, len([n for n in L.tbnode("ps", "--json").json()["nodes"] if n["state"] == "configured"]))
        self.assertEqual(1, len(L.docker("network", "ls", "-q", "-f", "name=lan0").out.split()))

    def test_stop_start_keeps_changes(self):
        run("--name", "web", "--network", "lan0", "--shape", "rate 10mbit", IMAGE, "sleep", "1000").json()
        self.assertEqual(0, L.tbnode("shape", "set", "web", "lan0", "rate", "2mbit").rc)
        self.assertEqual(0, L.tbnode("stop", "web").rc)
        lab.wait_for(lambda: not L.traces(), 10, f"nothing in the kernel: {L.traces()}")
        self.assertEqual(0, L.tbnode("start", "web").rc)
        n = lab.wait_for(lambda: (lambda x: x["state"] == "configured" and x)(L.tbnode("inspect", "--json", "web").json()),
                         10, "web to be configured again")
        i = next(i for i in n["interfaces"] if i["network"] == "lan0")
        self.assertTrue(i["up"]["shape"].startswith("rate 2mbit"), i)


class Directories(Base):
    """<state-dir>/nodes/<container>: as long as the container exists, whatever it is called, and no longer."""

    DIR = "/var/lib/tbnode/nodes"

    def test_restart(self):
        """As stop and start: what was changed stays, and so does the log of the run before."""
        run("--name", "web", "--network", "lan0", "--shape", "rate 10mbit", IMAGE, "sleep", "1000").json()
        run("--name", "off", IMAGE, "sleep", "1000").json()
        L.tbnode("stop", "off", check=True)
        self.assertEqual(0, L.tbnode("shape", "set", "web", "lan0", "rate", "2mbit").rc)
        self.assertEqual(0, L.tbnode("exec", "web", "/tbnode/bin/logger", "-t", "probe", "before the end").rc)
        lab.wait_for(lambda: "before the end" in L.tbnode("logs", "--syslog", "web").out, 10, "the log")
        pid = L.container_pid("web")
        r = L.tbnode("restart", "web", "off", "nosuch")
        self.assertEqual((1, "web restarted\noff restarted\n"), (r.rc, r.out))
        self.assertIn("there is no node 'nosuch'", r.err)
        configured = lambda name: (lambda x: x["state"] == "configured" and x)(L.tbnode("inspect", "--json", name).json())
        n = lab.wait_for(lambda: configured("web"), 15, "the node")
        lab.wait_for(lambda: configured("off"), 15, "the other")
        self.assertNotEqual(pid, L.container_pid("web"))
        self.assertEqual("rate 2mbit", next(i["shape"] for i in n["interfaces"] if i["network"] == "lan0"))
        lab.wait_for(lambda: "before the end" in L.tbnode("logs", "--syslog", "web").out, 10, "the log of before")
        self.assertEqual({"nodes": []}, L.tbnode("restart", "--json", "nosuch").json())
        self.assertEqual(2, L.tbnode("restart").rc)

    def test_networks_that_sort_before_the_control_network(self):
        """Docker takes the default route to the first in the alphabet, the agent takes it back; both in any order."""
        for name in ("aaa", "bbb", "zzz"):
            L.docker("network", "create", name)
        try:
            run("--name", "web", "--network", "lan0", IMAGE, "sleep", "1000").json()
            gateway = json.loads(L.docker("network", "inspect", "tbnode-control").out)[0]["IPAM"]["Config"][0]["Gateway"]

            def right():
                pid = L.container_pid("web")
                routes = json.loads(L.nsrun(pid, "ip", "-j", "route", "show", "default").out)
                to = json.loads(L.nsrun(pid, "ip", "-j", "route", "get", "198.51.100.1").out)[0]
                return gateway == to.get("gateway") and {gateway} == {x["gateway"] for x in routes}
            self.assertTrue(right())
            for verb, name in (("connect", "bbb"), ("connect", "aaa"), ("connect", "zzz"), ("disconnect", "aaa"), ("connect", "aaa"),
                               ("disconnect", "lan0"), ("disconnect", "bbb"), ("disconnect", "aaa"), ("connect", "bbb")):
                r = L.docker("network", verb, name, "web", check=False)
                self.assertEqual(0, r.rc, (verb, name, r))
                lab.wait_for(right, 15, f"the route after {verb} {name}")
            L.tbnode("restart", "web", check=True)
            lab.wait_for(right, 15, "the route after a restart")
            writes = L.tbnode("status", "--json").json()["counters"]["kernel_writes"]
            L.tbnoded.restart()
            lab.wait_for(lambda: L.tbnode("ps", "--json").json()["nodes"][0]["state"] == "configured", 15, "the node")
            self.assertGreater(writes, 0)
            self.assertEqual(0, L.tbnode("status", "--json").json()["counters"]["kernel_writes"])
        finally:
            L.tbnode("rm", "web")
            L.docker("network", "rm", "aaa", "bbb", "zzz", check=False)

    def test_rename_then_remove(self):
        run("--name", "before", IMAGE, "sleep", "1000").json()
        self.assertEqual(0o711, os.stat(self.DIR).st_mode & 0o777)
        L.docker("rename", "before", "after")
        L.tbnode("stop", "after", check=True)
        L.tbnode("start", "after", check=True)
        self.assertEqual(["before"], os.listdir(self.DIR))
        L.tbnode("rm", "after", check=True)
        lab.wait_for(lambda: not os.listdir(self.DIR), 10, "the directory to be gone")

    def test_removed_while_no_agent_ran(self):
        run("--name", "gone", IMAGE, "sleep", "1000").json()
        run("--name", "stays", IMAGE, "sleep", "1000").json()
        run("--name", "renamed", IMAGE, "sleep", "1000").json()
        L.tbnoded.stop()
        L.docker("rename", "renamed", "gone2")
        L.docker("rm", "-f", "gone")
        L.docker("stop", "-t0", "stays")
        L.tbnoded.start(config={"start-timeout": "20s"})
        lab.wait_for(lambda: sorted(os.listdir(self.DIR)) == ["renamed", "stays"], 10, "only what is gone to go")

    def test_directory_of_another_node_stays_that_node_s(self):
        run("--name", "owner", IMAGE, "sleep", "1000").json()
        L.docker("run", "-d", "--name", "thief", "--label", "tbnode.firewall=open", "-v",
                 f"{self.DIR}/owner:/tbnode/run:ro", "--entrypoint", "sleep",
                 L.tbnode("inspect", "--json", "owner").json()["image"], "1000")
        lab.wait_for(lambda: L.tbnode("inspect", "--json", "thief").json()["state"] == "configured", 10, "thief")
        L.docker("rm", "-f", "thief")
        lab.wait_for(lambda: L.tbnode("inspect", "thief").rc == 1, 10, "thief to be gone")
        self.assertEqual(["owner"], os.listdir(self.DIR))


class Failures(Base):
    def test_unknown_image(self):
        lab.one_line(self, run("nosuch:1"), 1, "nosuch")
        lab.one_line(self, L.tbnode("augment", "--json", "nosuch:1"), 1, "nosuch")
        lab.one_line(self, L.tbnode("dockerfile", "nosuch:1"), 1, "nosuch")
        lab.one_line(self, run("UPPER/Case"), 1, "UPPER")
        self.assertEqual([], leftovers())

    def test_registry_down(self):
        L.local.stop()
        try:
            lab.one_line(self, run("--network", "lan9", IMAGE), 1, "127.0.0.1:5000")
            lab.one_line(self, L.tbnode("augment", IMAGE), 1, "127.0.0.1:5000")
            r = L.tbnode("doctor")
            self.assertEqual(1, r.rc)
            self.assertIn("FAIL  registry", r.out)
        finally:
            L.local.start()
        self.assertEqual([], leftovers())

    def test_wrong_digest_from_the_registry(self):
        lab.images.busybox(L, config={"Env": ["X=1"]}, extra={"marker": b"corrupt me"}).push(L.hub, "library/broken:1")
        document = next(x for x in L.hub.manifest("library/broken", "1") if isinstance(x, dict) and "layers" in x)
        L.hub.corrupt(document["layers"][-1]["digest"])
        lab.one_line(self, run("broken:1"), 1, "digest")
        self.assertNotIn("broken", " ".join(L.local.all_tags()))
        self.assertEqual([], leftovers())

    def test_container_that_dies_during_set_up(self):
        lab.one_line(self, run("--level", "none", "--network", "lan7", IMAGE, "/no/such/program"), 1, "no such file")
        self.assertEqual([], leftovers())
        # Whether it ends before or after it is configured is a matter of luck; what is left is not.
        for k in range(6):
            r = run("--level", "none", "--name", f"brief{k}", "--network", "lan7", "--shape", "rate 1mbit", IMAGE, "true")
            if r.rc != 0:
                lab.one_line(self, r, 1, "ended while it was being set up")
        lab.wait_for(lambda: not L.traces(), 10, f"nothing in the kernel: {L.traces()}")

    def test_wrong_arguments(self):
        for args, word in ((("--shape", "rate 1mbit"), "network"), (("--network", "lan0", "--shape", "rate x"), "x"),
                           (("--firewall", "ajar"), "firewall"),
                           (("--name", "a b"), "a b"), (("--network", "tbnode-control"), "control"),
                           (("-p", "99999"), "99999"), (("-v", "/tmp:/tbnode/run"), "/tbnode"), (("--level", "full"), "level"),
                           (("--on-exit", "explode"), "on-exit")):
            lab.one_line(self, run(*args, IMAGE), 1, word)
        self.assertEqual(2, L.tbnode("run", "--no-such-flag", IMAGE).rc)
        self.assertEqual(2, L.tbnode("run").rc)
        self.assertEqual([], leftovers())

    def test_name_taken(self):
        run("--name", "web", IMAGE, "sleep", "1000").json()
        lab.one_line(self, run("--name", "web", "--network", "lan3", IMAGE), 1, "web", "already")
        self.assertEqual(["web"], [n["node"] for n in L.tbnode("ps", "--json").json()["nodes"]])
        self.assertEqual(0, L.tbnode("ssh", "-i", KEY, "web", "true").rc)

    def test_client_that_goes_away(self):
        os.kill(L.local.pid, signal.SIGSTOP)  # else the augmentation is over before anybody sees it
        try:
            p = subprocess.Popen([f"{L.install()}/tbnode", "run", "--ssh-key", f"{KEY}.pub", "--network", "lan0", "--update",
                                  IMAGE, "sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lab.wait_for(lambda: L.tbnode("status", "--json").json()["jobs"] > 0, 10, "the augmentation to run")
            p.send_signal(signal.SIGKILL)
            p.wait(10)
        finally:
            os.kill(L.local.pid, signal.SIGCONT)
        lab.wait_for(lambda: not leftovers() and L.tbnode("status", "--json").json()["jobs"] == 0, 15, "nothing left")


class Augment(Base):
    def test_status_tells_what_the_hub_allows(self):
        L.tbnode("augment", IMAGE, check=True)
        limits = L.tbnode("status", "--json").json()["rate_limits"]
        hub = next(x for x in limits if x["registry"] == "docker.io")
        self.assertEqual((100, 76, 21600), (hub["limit"], hub["remaining"], hub["window_s"]))
        self.assertNotIn("refused_until", hub)
        self.assertIn("docker.io: 76 of 100 requests left (per 360 min), told at 20", L.tbnode("status").out)

    def test_credentials_that_change_are_taken_up(self):
        credentials = f"{L.dir}/docker-config.json"

        def log_in(text):
            with open(f"{credentials}.new", "w", encoding="utf-8") as f:
                json.dump(text, f)
            os.rename(f"{credentials}.new", credentials)

        log_in({})
        lab.images.busybox(L).push(L.hub, "private/app:1")
        L.hub.add_user("me", "secret")
        L.tbnoded.stop()
        try:
            L.tbnoded.start(config={"start-timeout": "20s", "docker-config": credentials})
            lab.one_line(self, L.tbnode("augment", "private/app:1"), 1, "private/app")
            log_in({"auths": {"https://index.docker.io/v1/": {"auth": base64.b64encode(b"me:secret").decode()}}})
            first = L.tbnode("augment", "--json", "private/app:1", check=True).json()
            self.assertEqual("miss", first["cache"])
            self.assertEqual("hit", L.tbnode("augment", "--json", "private/app:1", check=True).json()["cache"])
            # The token and the connection of the last hit serve the next one.
            tokens = len(L.hub.token_requests)
            again = L.tbnode("augment", "--json", "private/app:1", check=True).json()
            self.assertEqual(("hit", first["digest"]), (again["cache"], again["digest"]))
            self.assertEqual(tokens, len(L.hub.token_requests))
            log_in({})
            lab.one_line(self, L.tbnode("augment", "private/app:1"), 1, "private/app")
        finally:
            L.tbnoded.stop()
            L.tbnoded.start(config={"start-timeout": "20s"})

    def test_credential_helper(self):
        """The agent runs it, and a worker gets what it said, and nothing about other hosts."""
        folder, credentials, said = L.tmp("helpers"), f"{L.dir}/helper-config.json", "/tmp/tbnode-worker-said"
        helper, fake = f"{folder}/docker-credential-lab", f"{folder}/worker"
        os.chmod(folder, 0o755)

        def write(path, text):
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            os.chmod(path, 0o755)

        def start(**env):
            L.tbnoded.stop()
            L.tbnoded.start(config={"start-timeout": "20s", "docker-config": credentials},
                            env={"PATH": f"{folder}:{os.environ['PATH']}", **env})

        answer = '{"ServerURL": "s", "Username": "helped", "Secret": "by"}'
        write(helper, f"#!/bin/sh\ncat >{folder}/asked\necho '{answer}'\n")
        write(fake, f"#!/bin/sh\nread request\ncat /proc/self/fd/3 >{said}\nexit 1\n")
        write(credentials, json.dumps({"credHelpers": {"docker.io": "lab"}, "auths": {
            "elsewhere.example": {"auth": base64.b64encode(b"other:hidden").decode()}}}))
        L.hub.add_user("helped", "by")
        for name in ("private/helped", "library/public"):
            lab.images.busybox(L, config={"Labels": {"for": name}}).push(L.hub, f"{name}:1")
        try:
            start(TBNODE_WORKER=fake)
            lab.one_line(self, L.tbnode("augment", "private/helped:1"), 1, "worker")
            with open(said, encoding="utf-8") as f:
                self.assertEqual({"auths": {"https://index.docker.io/v1/": {
                    "auth": base64.b64encode(b"helped:by").decode()}}}, json.load(f))
            start()
            r = self.augment("private/helped:1", "miss")
            self.assertTrue(r["source"]["private"])
            with open(f"{folder}/asked", encoding="utf-8") as f:
                self.assertEqual("https://index.docker.io/v1/", f.read().strip())
            # What is wrong with it is said where credentials are needed, and stops nothing else.
            for text, word in (("echo nonsense", "credential helper"), ("echo no keyring; exit 1", "no keyring"), (None, "not installed")):
                if text:
                    write(helper, f"#!/bin/sh\n{text}\n")
                else:
                    os.unlink(helper)
                start()
                lab.one_line(self, L.tbnode("augment", "private/helped:1"), 1, "private/helped", word)
                self.assertEqual(0, L.tbnode("augment", "--update", "public:1").rc)
        finally:
            if os.path.exists(said):
                os.unlink(said)
            L.tbnoded.stop()
            L.tbnoded.start(config={"start-timeout": "20s"})

    def test_same_request_at_once_is_one_job(self):
        before = len([x for x in L.hub.accesses()])
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            results = list(pool.map(lambda _: L.tbnode("augment", "--json", "--update", IMAGE), range(6)))
        self.assertEqual({0}, {r.rc for r in results})
        self.assertEqual(1, len({r.json()["digest"] for r in results}))
        self.assertGreater(len([x for x in L.hub.accesses()]), before)

    def test_worker_has_no_privileges(self):
        fake = f"{L.tmp('worker')}/worker"
        with open(fake, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nread request\n(id -u; id -G; grep -E 'NoNewPrivs|CapEff' /proc/self/status; ulimit -v;"
                    " ulimit -n) > /tmp/tbnode-worker-said\nexit 1\n")
        os.chmod(fake, 0o755)
        os.chmod(os.path.dirname(fake), 0o755)
        L.tbnoded.stop()
        try:
            L.tbnoded.start(env={"TBNODE_WORKER": fake})
            lab.one_line(self, L.tbnode("augment", "--update", IMAGE), 1, "worker")
            with open("/tmp/tbnode-worker-said", encoding="utf-8") as f:
                said = f.read()
            self.assertIn("65534", said.splitlines()[0])
            self.assertIn("NoNewPrivs:\t1", said)
            self.assertIn("CapEff:\t0000000000000000", said)
            self.assertEqual("256", said.splitlines()[-1])
            if "libasan" not in L.run(["ldd", f"{L.install()}/tbnoded"]).out:  # it needs terabytes of address space
                self.assertNotIn("unlimited", said)
        finally:
            if os.path.exists("/tmp/tbnode-worker-said"):
                os.unlink("/tmp/tbnode-worker-said")
            L.tbnoded.stop()
            L.tbnoded.start(config={"start-timeout": "20s"})

    def test_worker_dies_with_the_agent(self):
        fake = f"{L.tmp('worker')}/worker"
        with open(fake, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexec sleep 987\n")
        os.chmod(fake, 0o755)
        os.chmod(os.path.dirname(fake), 0o755)
        sleeping = lambda: L.run(["pgrep", "-f", "sleep 987"], check=False).out.split()  # noqa: E731
        L.tbnoded.stop()
        try:
            L.tbnoded.start(env={"TBNODE_WORKER": fake})
            p = subprocess.Popen([f"{L.install()}/tbnode", "augment", "--update", IMAGE], stderr=subprocess.PIPE, text=True)
            lab.wait_for(sleeping, 10, "the worker")
            L.tbnoded.kill()
            lab.wait_for(lambda: not sleeping(), 10, "the worker's end")
            self.assertEqual(3, p.wait(10))
            self.assertEqual(1, len(p.stderr.read().splitlines()))
            p.stderr.close()
        finally:
            L.tbnoded.start(config={"start-timeout": "20s"})

    def test_dockerfile_and_context_build_with_docker(self):
        folder = L.tmp("context")
        r = L.tbnode("dockerfile", "--context", folder, IMAGE, check=True)
        self.assertIn('ENTRYPOINT ["/tbnode/init"', r.out)
        self.assertEqual(r.out, open(f"{folder}/Dockerfile", encoding="utf-8").read())
        self.assertTrue(os.path.exists(f"{folder}/basic.tar.gz"))
        self.assertEqual(r.out, L.tbnode("dockerfile", "--json", IMAGE).json()["dockerfile"])

    def test_docker_builder(self):
        r = L.tbnode("augment", "--json", "--builder", "docker", "--update", IMAGE)
        self.assertEqual(0, r.rc, r)
        self.assertEqual("docker", r.json()["builder"])
        self.assertEqual(0, run("--name", "web", IMAGE, "sleep", "1000").rc)

    def augment(self, image, cache, *args):
        r = L.tbnode("augment", "--json", *args, image, check=True).json()
        self.assertEqual(cache, r["cache"], r)
        return r

    def test_a_hit_tells_who_built_the_image(self):
        """Whoever is asked for, also after a restart, and of an image that was augmented before."""
        image = lab.images.busybox(L, config={"Labels": {"built": "by"}})
        image.push(L.hub, "library/by-docker:1")
        docker = ("--platform", "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine], "--level", "core")
        made = self.augment("by-docker:1", "miss", *docker, "--builder", "docker")
        self.assertEqual(("docker", "core"), (made["builder"], made["level"]))
        for restarted in (False, True):
            if restarted:
                L.tbnoded.restart()
            r = self.augment("by-docker:1", "hit", *docker)
            self.assertEqual(("docker", made["digest"]), (r["builder"], r["digest"]))
        # Used as it is for a lower level, and by the other builder.
        for cache in ("miss", "hit"):
            r = self.augment(made["image"], cache)
            self.assertEqual(("docker", "core", made["digest"]), (r["builder"], r["level"], r["digest"]))

    def test_nothing_is_said_of_files_that_nobody_read(self):
        lab.images.busybox(L).push(L.local, "t/unread:1")
        out = L.tbnode("augment", "127.0.0.1:5000/t/unread:1", check=True).out
        self.assertIn("cache miss", out)
        self.assertNotIn("no distribution", out)

    def test_a_hit_asks_the_registry_once(self):
        """The name and what it was augmented to are asked for at the same time; what has changed meanwhile is noticed."""
        lab.images.busybox(L, config={"Labels": {"hit": "1"}}).push(L.hub, "library/hits:1")
        first = self.augment("hits:1", "miss")
        self.augment("hits:1", "hit")
        before = len(L.local.accesses())
        self.assertEqual(first["digest"], self.augment("hits:1", "hit")["digest"])
        self.assertEqual([("HEAD", "/v2/augmented/docker.io/library/hits/manifests/1-basic", 200)],
                         L.local.accesses()[before:])
        # Another base, then the old one again: the moving tag has to follow.
        lab.images.busybox(L, config={"Labels": {"hit": "2"}}).push(L.hub, "library/hits:1")
        second = self.augment("hits:1", "miss")
        self.assertEqual(second["digest"], self.augment("hits:1", "hit")["digest"])
        lab.images.busybox(L, config={"Labels": {"hit": "1"}}).push(L.hub, "library/hits:1")
        for _ in range(2):
            self.assertEqual(first["digest"], self.augment("hits:1", "hit")["digest"])
            self.assertEqual(first["digest"], L.local.manifest("augmented/docker.io/library/hits", "1-basic")[1])
        # Somebody has removed it.
        L.local.request("DELETE", f"/v2/augmented/docker.io/library/hits/manifests/{first['digest']}")
        self.assertEqual(first["digest"], self.augment("hits:1", "miss")["digest"])


if __name__ == "__main__":
    lab.main()
