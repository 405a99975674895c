#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""gate N: N starts through tbnode-runtime alone, each of a container whose first act is to send. None of it may leave.

Without Docker: a process in a network namespace with a veth waits as `runc create` leaves it, tbnode-runtime is called as containerd
calls it and asks the agent, and the runtime that it then becomes is a stand-in that lets the process go on (as runc does, by a FIFO in
the container's directory). At once the process sends datagrams with its number to another container of its bridge, to all of them, and to
the host. For each 16 there is one without a label: what it sends has to arrive at all three, which shows that the ways are open and are
listened to.

`ours` is a start, from the call to the end of tbnode-runtime, in ms: labelled ones; open_ms: those without a label.

    passed     labelled containers of which a datagram arrived
    unshaped   of which one did not go through the queue that shapes what they send
    refused    starts that the gate refused
    open       containers without label; all of them were heard

Of the first three one is enough for the bench to fail."""

import argparse
import concurrent.futures
import ctypes
import json
import os
import select
import socket
import subprocess
import threading
import time
import unittest

import benchlib
import lab
import worlds
from labkit.fakeengine import Fake

SOCKET, TOP, PORT, PARALLEL, BATCH, EVERY = "/run/fake.sock", "/run/gate", 9999, 8, 64, 16
CONFIG = "/etc/tbnode/tbnoded.conf"
LABELS = {"tbnode.shape": "rate 10mbit", "tbnode.firewall": "closed"}
TIMES = 3  # datagrams on each way, as first-act.c has it
WAYS = ("another container", "all of the bridge", "the host")
CLONE_NEWNET = 0x40000000
# runc writes nothing when it lets a container go: it opens the FIFO that the process waits for.
OCI = f"#!/bin/sh\nfor id; do :; done\necho >{TOP}/$id.fifo\n"


def udp_socket(pid):
    """A socket in that process' network namespace, for what is sent to PORT."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net", "rb") as home, open(f"/proc/{pid}/ns/net", "rb") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            s.bind(("", PORT))
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
    return s


class Ears:
    """Who was heard, and on which ways."""

    def __init__(self, *sockets):
        self.sockets, self.heard = sockets, {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            for s in select.select(self.sockets, [], [])[0]:
                container, way = s.recv(256).decode().split()
                self.heard.setdefault(container, set()).add(WAYS[int(way)])


class Bench(unittest.TestCase):
    def write(self, path, value):
        with open(path, "w", encoding="utf-8") as f:
            f.write(value if isinstance(value, str) else json.dumps(value))

    def bundle(self, c):
        """What containerd's shim and dockerd leave of a container that was created and not started."""
        docker = f"{TOP}/containers/{c['id']}"
        for path in (f"{TOP}/{c['id']}", docker):
            os.makedirs(path)
        self.write(f"{TOP}/{c['id']}/init.pid", str(c["pid"]))
        self.write(f"{TOP}/{c['id']}/config.json", {"mounts": [{"destination": "/etc/hosts", "source": f"{docker}/hosts"}]})
        self.write(f"{docker}/config.v2.json", {"Name": f"/{c['name']}", "Config": {"Image": c["image"], "Labels": c["labels"]},
                                                "NetworkSettings": {"Networks": c["networks"]}})
        self.write(f"{docker}/hostconfig.json", {"NetworkMode": next(iter(c["networks"]))})

    def unbundle(self, c):
        for path in (f"{TOP}/{c['id']}", f"{TOP}/containers/{c['id']}"):
            for name in os.listdir(path):
                os.unlink(f"{path}/{name}")
            os.rmdir(path)

    def call(self, c):
        """Milliseconds, or None: refused."""
        begin = time.perf_counter()
        r = subprocess.run([f"{self.lab.install()}/tbnode-runtime", f"--tbnode-config={CONFIG}", "start", c["id"]],
                           cwd=f"{TOP}/{c['id']}", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if r.returncode != 0:
            print(f"# {c['name']}: {r.stdout.strip()}", flush=True)
            return None
        return (time.perf_counter() - begin) * 1000

    def start(self, containers):
        """All of them; the times. They have done what they do first when it returns."""
        with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
            times = list(pool.map(self.call, containers))
        for c, ms in zip(containers, times, strict=True):
            if ms is not None:
                lab.wait_for(lambda c=c: not os.path.exists(f"{TOP}/{c['id']}.fifo"), 60, f"the first act of {c['name']}")
        return times

    def outside_of_shapes(self, n):
        """Of how many containers not every datagram went through the queue of what comes from them."""
        def through():
            queues = [q for q in self.lab.qdiscs(stats=True) if q["kind"] == "htb" and q.get("root") and q["dev"].startswith("tbi")]
            return sum(1 for q in queues if q["packets"] >= TIMES * len(WAYS))
        try:
            lab.wait_for(lambda: through() == n, 3, "what was sent to come out of the queues")
            return 0
        except lab.LabError:
            return n - through()

    def batch(self, n):
        """n labelled containers, then some without label, which have to be heard."""
        self.worlds.count = 1  # the first place is the listener's
        act = f"exec {self.act} {TOP}/$1.fifo $1 {PORT} {' '.join(self.to)}"
        options = {"program": act, "prepare": f"mkfifo {TOP}/$1.fifo", "batch": self.neighbours}
        labelled = self.worlds.make(n, labels=LABELS, **options)
        free = self.worlds.make(max(1, n // EVERY), labels={}, **options)
        self.worlds.plug(labelled + free)
        for c in labelled + free:
            self.bundle(c)
        self.fake.add(labelled)
        times = self.start(labelled)
        self.refused += times.count(None)
        self.times += [t for t in times if t is not None]
        self.free_times += [t for t in self.start(free) if t is not None]
        for c in free:
            lab.wait_for(lambda c=c: self.ears.heard.get(c["id"]) == set(WAYS), 20, f"{c['name']} on all ways, it was heard on "
                         f"{self.ears.heard.get(c['id'])}")
        self.unshaped += self.outside_of_shapes(n)
        self.labelled |= {c["id"]: c["name"] for c in labelled}
        self.worlds.end(labelled + free)
        self.fake.happen("die", *labelled)
        self.fake.happen("destroy", *labelled)
        for c in labelled + free:
            self.unbundle(c)

    def test_bench(self):
        args = benchlib.arguments()
        self.lab = lab.Lab.get()
        self.act = f"{self.lab.build}/tests/bench/first-act"
        os.makedirs(f"{TOP}/containers")
        self.write(f"{TOP}/oci", OCI)
        os.chmod(f"{TOP}/oci", 0o755)
        self.worlds = worlds.Worlds()
        listener = self.worlds.make(1)[0]
        self.worlds.plug([listener])
        network = next(iter(listener["networks"].values()))
        self.to = (network["IPAddress"], "10.100.255.255", network["Gateway"])
        # So that no ARP is needed: the datagram itself is the first packet.
        self.neighbours = "\n".join(f"neigh add {address} lladdr {mac} dev eth0 nud permanent" for address, mac in (
            (network["IPAddress"], network["MacAddress"]), (network["Gateway"], worlds.BRIDGE_MAC)))
        self.ears = Ears(udp_socket(os.getpid()), udp_socket(listener["pid"]))
        self.fake = Fake(f"{self.lab.dir}/logs", SOCKET).start()
        self.times, self.free_times, self.labelled, self.refused = [], [], {}, 0
        self.unshaped = 0
        try:
            self.lab.tbnoded.start({"docker": f"unix://{SOCKET}", "oci-runtime": f"{TOP}/oci"}, services=False)
            for done in range(0, args.starts, BATCH):
                self.batch(min(BATCH, args.starts - done))
            lab.wait_for(lambda: not self.lab.traces(), 120, "no traces")
        finally:
            self.fake.kill()
        passed = {self.labelled[i]: sorted(ways) for i, ways in self.ears.heard.items() if i in self.labelled}
        for name, ways in list(passed.items())[:20]:
            print(f"# {name} was heard by {', '.join(ways)}", flush=True)
        benchlib.answer("gate", {"starts": args.starts}, "ms", self.times, {}, engine="fake", passed=len(passed), unshaped=self.unshaped,
                        refused=self.refused, open=len(self.free_times), open_ms=benchlib.summary(self.free_times))
        self.assertEqual((0, 0, 0), (len(passed), self.unshaped, self.refused))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench gate", description=__doc__.split("\n")[0])
    parser.add_argument("starts", nargs="?", type=int, default=10000, help="starts of labelled containers (10000)")
    benchlib.run_in_lab(parser, lab.main)
