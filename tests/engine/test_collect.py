#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tbnode logs --collect: logs, state and files of all nodes of an experiment, whatever one of them is like."""

import json
import os
import pty
import signal
import subprocess
import tarfile
import unittest

import lab

IMAGE = "busybox:1.36"


def setUpModule():
    global L
    L = lab.Lab.get()
    L.tbnoded.start(config={"start-timeout": "20s"})
    lab.images.busybox(L).push(L.hub, "library/busybox:1.36")


def run(*args, **options):
    return L.tbnode("run", "--json", *args, check=True, **options)


class Collect(unittest.TestCase):
    def tearDown(self):
        names = [n["container"] for n in L.tbnode("ps", "--json").json()["nodes"]]
        if names:
            L.tbnode("rm", *names, check=True)
        self.assertEqual([], L.docker("ps", "-aq").out.split())

    HOSTILE = r"""mkdir -p /data/sub/deep "/data/sub/..." && cd /data && echo plain > plain.txt && echo deep > sub/deep/file
        ln -s /etc/passwd link.txt; ln -s ../../../../../../../../etc/shadow up.txt; ln -s /proc/1/root/etc root.txt
        ln -s / sub/everything; ln -s /data/sub/deep loop; mkfifo fifo.txt; echo odd > "$(printf 'a\nb\033[2J%%..txt')"
        echo space > "with space.txt"; echo back > 'back\\slash.txt'; truncate -s 100G sparse.txt; echo dots > sub/.../dots
        mkdir "$(printf 'x%.0s' $(seq 250))"; echo long > "$(printf '\001%.0s' $(seq 200)).txt"
        echo done > /tmp/ready"""

    def ready(self, *names):
        for name in names:
            lab.wait_for(lambda: L.tbnode("exec", name, "test", "-e", "/tmp/ready").rc == 0, 20, "its files")  # pylint: disable=cell-var-from-loop

    def test_everything_of_everybody(self):
        place = L.tmp("collect")
        target = f"{place}/all"
        run("--name", "aa", "--experiment", "exp", "--network", "lan0", "--shape", "rate 10mbit", "--firewall", "basic", "--startup",
            "echo from startup; exit 4", IMAGE, "sh", "-c", self.HOSTILE + "; echo printed; exit 3")
        run("--name", "bb", "--experiment", "exp", IMAGE, "sh", "-c", "mkdir /data; echo of bb > /data/b.txt; echo done > /tmp/ready; exec sleep 1000")
        run("--level", "none", "--name", "bare", "--experiment", "exp", IMAGE, "sh", "-c", "echo bare; touch /tmp/ready; exec sleep 1000")
        run("--name", "other", IMAGE, "sleep", "1000")
        self.ready("exp.aa", "exp.bb", "exp.bare")
        L.tbnode("exec", "exp.aa", "/tbnode/bin/logger", "-t", "probe", "to the log", check=True)
        lab.wait_for(lambda: (L.tbnode("inspect", "--json", "exp.aa").json()["client"]["startup"] or {}).get("state") == "exited", 20, "startup")
        lab.wait_for(lambda: "to the log" in L.tbnode("logs", "--syslog", "exp.aa").out, 10, "the log")
        r = L.tbnode("logs", "--experiment", "exp", "--collect", target, "--files", "/data/*.txt", "/data/sub", "/data/loop/*", "/proc/1/environ",
                     "/nowhere/*")
        self.assertEqual(1, r.rc, r)
        for word in ("sparse.txt", "larger than 64 MiB", "neither a file nor a directory", "/proc/1/environ", "the kernel makes it up",
                     "name is too long", "no node has a file that matches '/nowhere/*'"):
            self.assertIn(word, r.err)
        self.assertNotIn("\033", r.err + r.out)
        self.assertEqual(["all"], os.listdir(place))
        self.assertEqual({"aa", "bb", "bare", "collect.json"}, set(os.listdir(target)))
        found = {}
        for folder, dirs, files in os.walk(target):
            self.assertFalse([x for x in dirs + files if os.path.islink(f"{folder}/{x}")])
            for x in files:
                with open(f"{folder}/{x}", encoding="utf-8", errors="replace") as f:
                    found[os.path.relpath(f"{folder}/{x}", target)] = f.read()
        with open(f"/proc/{L.container_pid('exp.aa')}/root/etc/passwd", encoding="utf-8") as f:
            inside = f.read()
        data = {k[len("aa/files/data/"):]: v for k, v in found.items() if k.startswith("aa/files/data/")}
        self.assertEqual({"plain.txt": "plain\n", "link.txt": inside, "a%0Ab%1B[2J%25..txt": "odd\n", "with%20space.txt": "space\n",
                          "back%5C%5Cslash.txt": "back\n", "sub/deep/file": "deep\n", "sub/.../dots": "dots\n", "loop/file": "deep\n"},
                         {k: v for k, v in data.items() if k != "up.txt"})
        self.assertNotIn("root:$", data.get("up.txt", ""), "the host's")
        self.assertEqual("of bb\n", found["bb/files/data/b.txt"])
        self.assertEqual("from startup\n", found["aa/startup.log"])
        self.assertRegex(found["aa/output.log"], r"^2\d{3}-\d\d-\d\dT.*Z printed\n$")
        self.assertIn("probe: to the log", found["aa/syslog.log"])
        self.assertRegex(found["bare/output.log"], "Z bare\n$")
        self.assertNotIn("bare/syslog.log", found)
        status = json.loads(found["aa/status.json"])
        self.assertEqual(("exited 3", "exited", 4), (status["main"], status["startup"]["state"], status["startup"]["status"]))
        lan = next(i for i in json.loads(found["aa/inspect.json"])["interfaces"] if i["network"] == "lan0")
        self.assertTrue(lan["up"]["shape"].startswith("rate 10mbit"))
        self.assertEqual(("rate 10mbit", "rate 10mbit"), (lan["shape"], lan["up"]["requested"]))
        self.assertIn('"style":"basic"', found["aa/firewall.json"].replace(" ", ""))
        said = {n["node"]: n for n in json.loads(found["collect.json"])["nodes"]}
        self.assertEqual(["/proc/1/environ"], [x.split(":")[0] for x in said["bb"]["errors"]])
        self.assertTrue(any("no system log" in x for x in said["bare"]["notes"]), said["bare"])
        # a tar file has the same; nothing is written over, and nobody else's nodes are collected
        ours, theirs = pty.openpty()
        p = subprocess.Popen([f"{L.build}/agent/tbnode", "logs", "--experiment", "exp", "--collect", f"{target}.tar.gz", "--files", "/data/b.txt"],
                             stdout=subprocess.PIPE, stderr=theirs, text=True)
        out = p.communicate(timeout=60)[0]
        os.close(theirs)
        shown = os.read(ours, 65536).decode()
        os.close(ours)
        self.assertEqual(0, p.returncode, shown)
        self.assertRegex(out, rf"^{target}\.tar\.gz: 3 nodes, \d+ files, .*B\n$")
        for word in ("collecting: 0 of 3 nodes", "collecting: 3 of 3 nodes"):
            self.assertIn(word, shown)
        with tarfile.open(f"{target}.tar.gz") as t:
            names = t.getnames()
        self.assertIn("all/bb/files/data/b.txt", names)
        self.assertTrue(all(n == "all" or n.startswith("all/") for n in names))
        for name, word in ((target, "exists"), (f"{target}.tar.gz", "exists"), (f"{place}/no/such", f"{place}/no/"), (f"{place}/..", "no name")):
            lab.one_line(self, L.tbnode("logs", "--experiment", "exp", "--collect", name), 1, word)
        lab.one_line(self, L.tbnode("logs", "--experiment", "nosuch", "--collect", f"{place}/x"), 1, "nosuch")
        lab.one_line(self, L.tbnode("logs", "--experiment", "exp", "--collect", f"{place}/x", "--files", "data/*"), 1, "data/*", "absolute")
        lab.one_line(self, L.tbnode("logs", "--experiment", "exp", "--collect", f"{place}/x", "--files", "/a/../b"), 1, "'..'")
        self.assertEqual(2, L.tbnode("logs", "--collect", f"{place}/x").rc)
        self.assertEqual(2, L.tbnode("logs", "--experiment", "exp", "--collect", f"{place}/x", "--follow").rc)
        self.assertEqual({"all", "all.tar.gz"}, set(os.listdir(place)))
        # of one that is stopped there are no files; the others are collected
        L.tbnode("stop", "exp.bb", check=True)
        os.mkdir(f"{place}/empty")
        r = L.tbnode("logs", "--json", "--experiment", "exp", "--collect", f"{place}/empty", "--files", "/data/plain.txt")
        self.assertEqual((1, 1), (r.rc, len(r.err.splitlines())), r)
        self.assertIn("bb: files: node bb is not running", r.err)
        self.assertEqual({"aa": 0, "bb": 1, "bare": 0}, {n["node"]: len(n["errors"]) for n in r.json()["nodes"]})
        self.assertTrue(os.path.exists(f"{place}/empty/aa/files/data/plain.txt"))
        self.assertEqual(0, L.tbnode("logs", "--experiment", "exp", "--collect", f"{place}/logs").rc, "without files that is no failure")

    def test_interrupted(self):
        """And an agent that is killed meanwhile: nothing has the name."""
        place = L.tmp("interrupt")
        run("--name", "aa", "--experiment", "exp", IMAGE, "sh", "-c", "mkdir /data; for i in 1 2 3; do dd if=/dev/zero of=/data/$i bs=1M count=60; done; "
            "touch /tmp/ready; exec sleep 1000")
        self.ready("exp.aa")
        for kill in (lambda p: p.send_signal(signal.SIGINT), lambda p: p.send_signal(signal.SIGTERM), lambda p: L.tbnoded.kill()):
            for name in ("it", "it.tar"):
                p = subprocess.Popen([f"{L.build}/agent/tbnode", "logs", "--experiment", "exp", "--collect", f"{place}/{name}", "--files", "/data"],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                lab.wait_for(lambda: os.listdir(place) or p.poll() is not None, 20, "it to begin")  # pylint: disable=cell-var-from-loop
                kill(p)
                err = p.communicate(timeout=60)[1]
                if "interrupted" in err:
                    self.assertEqual([], os.listdir(place))
                    self.assertEqual(1, p.returncode)
                for x in os.listdir(place):  # it was faster, or told what it did not get
                    self.assertEqual(name, x)
                    L.run(["rm", "-rf", f"{place}/{x}"])
                if not L.tbnoded.running:
                    self.assertEqual(1, p.returncode)
                    L.tbnoded.start(config={"start-timeout": "20s"})


if __name__ == "__main__":
    lab.main()
