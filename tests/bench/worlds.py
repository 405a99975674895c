# SPDX-License-Identifier: LGPL-2.1-or-later
"""Containers without an engine: a process, its network namespace and a veth to a bridge, as Docker would have made them. With a fake
engine (labkit/fakeengine.py) that describes them, the agent sees no difference."""

import hashlib
import os
import resource
import signal
import subprocess

import benchlib  # noqa: F401  puts the laboratory on sys.path
from labkit.process import LabError, run

PER_BRIDGE = 250  # the kernel takes 1023
LABELS = {"tbnode.shape": "rate 10mbit", "tbnode.firewall": "basic"}
IMAGE = "127.0.0.1:5000/bench/probe:1"
BRIDGE_MAC = "02:42:0a:00:00:01"  # fixed, as Docker does; else it is the lowest one of its ports and changes with them
BATCH = 100  # made at a time: each is a shell that waits for the kernel


def identity(text):
    return hashlib.sha256(text.encode()).hexdigest()


class Worlds:
    """Bridges in this network namespace, and containers at them. `prefix` keeps several of these apart."""

    def __init__(self, prefix="w"):
        self.prefix, self.bridges = prefix, []
        self.count = 0  # the next one's place, which has its address; may be set back when the containers there are gone
        self.total = 0
        self.processes = {}  # container id: Popen
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 16384:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(16384, hard), hard))

    def _bridge(self, k):
        while len(self.bridges) <= k:
            n = len(self.bridges)
            network = identity(f"{self.prefix} network {n}")
            name = f"br-{network[:12]}"
            run(["ip", "link", "add", name, "address", BRIDGE_MAC, "type", "bridge"])
            run(["ip", "addr", "add", f"10.{100 + n}.0.1/16", "dev", name])
            run(["ip", "link", "set", name, "up"])
            self.bridges.append((f"lan{n}", network, name))
        return self.bridges[k]

    def make(self, n, program="exec sleep infinity", labels=None, prepare="true", batch=""):
        """n more containers that run; what the fake engine is to say of them, `created`. program: what its shell does once its
        interface is up, with ID in $1; prepare: what it does before it says so; batch: more lines for ip(8) in it."""
        made = []
        while len(made) < n:
            part = [self._spawn(f"{prepare} && echo up && {program}", LABELS if labels is None else labels, batch)
                    for _ in range(min(BATCH, n - len(made)))]
            for c in part:
                p = self.processes[c["id"]]
                if p.stdout.readline() != b"up\n":
                    raise LabError(f"the process of {c['name']} ended with {p.wait()}")
                p.stdout.close()
            made += part
        return made

    def _spawn(self, program, labels, batch):
        i, number = self.count, self.total
        self.count += 1
        self.total += 1
        network, network_id, bridge = self._bridge(i // PER_BRIDGE)
        k, j = i // PER_BRIDGE, i % PER_BRIDGE + 2
        name, address = f"{self.prefix}{number}", f"10.{100 + k}.{j >> 8}.{j & 255}"
        mac = f"02:42:0a:{100 + k:02x}:{j >> 8:02x}:{j & 255:02x}"
        container = identity(name)
        # Process 1 of the laboratory stands for the host: its namespace is where the bridges are.
        # No IPv6, as in a container of a network without: nothing is sent that its program does not send.
        script = f"""echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null
ip -batch - <<END && {program}
link add eth0 address {mac} type veth peer name ve{self.prefix}{number} netns $HOST
addr add {address}/16 dev eth0
link set lo up
link set eth0 up
route add default via 10.{100 + k}.0.1
{batch}
END
"""
        self.processes[container] = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", script, "sh", container], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            env=dict(os.environ, HOST=str(os.getpid())), start_new_session=True)
        return {"id": container, "name": name, "labels": labels, "image": IMAGE, "pid": self.processes[container].pid,
                "state": "created", "veth": f"ve{self.prefix}{number}", "bridge": bridge,
                "networks": {network: {"NetworkID": network_id, "MacAddress": mac, "IPAddress": address, "IPPrefixLen": 16,
                                       "Gateway": f"10.{100 + k}.0.1"}}}

    @staticmethod
    def plug(containers):
        """The host sides go to their bridges."""
        lines = [f"link set {c['veth']} master {c['bridge']} up\n" for c in containers]
        run(["ip", "-batch", "-"], input="".join(lines))

    def end(self, containers):
        """Their processes end, and with them namespaces and veths."""
        for c in containers:
            try:
                os.killpg(c["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass
        for c in containers:
            self.processes.pop(c["id"]).wait()
