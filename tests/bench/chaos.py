#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""chaos MINUTES [--seed S] [--nodes N]: everything goes wrong, in an order that the seed decides.

Agent, its worker, the runtime wrapper, dockerd and the registry are killed; the engine's connection is cut or says nothing more;
the kernel's messages overflow; queues, interfaces and rules are damaged by hand; containers die, start, are connected, get other
shapes and labels. After each round the kernel must be as declared: truth.py says so, with docker, ip, tc, iptables and nft only. An agent that is started
again may have been told the other back end of the firewall.
`ours` is the time in ms from the end of a round until it was; a violation is a round after which it never was (LIMIT seconds),
or an agent that holds more descriptors or memory than when it had the same to do. The same seed gives the same rounds."""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import benchlib
import lab

IMAGE = "127.0.0.1:5000/bench/busybox:1"
PROXY = "/run/chaos-docker.sock"
LIMIT = 60
RATES = (1, 2, 5, 10, 20)
BACKENDS = ("iptables", "nftables")
STYLES = ("open", "basic", "closed")
FDS, RSS_KB = 12, 8192  # more than this above the first quiet moment of an agent's life is a leak


class Proxy:
    """Between the agent and its engine: cuts connections, or lets nothing pass any more."""

    def __init__(self):
        self.pairs, self.open = [], threading.Event()
        self.open.set()
        self.listen = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listen.bind(PROXY)
        self.listen.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self.listen.accept()
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect("/run/docker.sock")
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, a, b):
        try:
            while data := a.recv(65536):
                self.open.wait()
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for s in pair:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Chaos:
    def __init__(self, args):
        self.seed, self.rounds = args.seed, 0
        self.random = random.Random(f"{self.seed}")
        self.lab = lab.Lab.get()
        self.declared, self.events, self.violations, self.settled = {}, [], [], []
        self.backend = self.random.choice(BACKENDS)
        self.life, self.n = None, args.nodes
        self.start_engine()
        self.lab.local.ensure()
        lab.images.busybox(self.lab).push(self.lab.local, "bench/busybox:1")
        self.lab.docker("pull", "-q", IMAGE)
        for k in (0, 1):
            self.lab.docker("network", "create", f"lan{k}")
        self.proxy = Proxy()
        self.start_agent()
        for k in range(args.nodes):
            self.create(f"c{k}")
        self.settle("the start")
        for _ in BACKENDS:
            self.judge_is_awake()
            self.other_back_end()
            self.settle("the other back end")

    # ---- the world ----

    def start_engine(self):
        self.lab.dockerd.start(config={"live-restore": self.random.random() < 0.6,
                                       "runtimes": {"tbnode": {"path": f"{self.lab.install()}/tbnode-runtime"}}})

    def start_agent(self):
        self.lab.tbnoded.start(config={"docker": f"unix://{PROXY}", "firewall": self.backend, "replace-foreign": "yes"}, services=False)
        self.life = None

    def create(self, name):
        up, down, second = (self.random.choice(RATES) for _ in range(3))
        style = self.random.choice((None, *STYLES))
        labels = [f"tbnode.shape.lan0=up rate {up}mbit down rate {down}mbit", f"tbnode.shape.lan1=up rate {second}mbit"]
        if style:
            labels.append(f"tbnode.firewall={style}")
        runtime = self.random.choice(("tbnode", "tbnode", "runc"))
        self.lab.docker("run", "-d", "--name", name, "--restart", "always", "--network", "lan0", "--runtime", runtime,
                        *[x for label in labels for x in ("--label", label)], IMAGE, "sleep", "100000", check=False)
        self.declared[name] = {"shape": {"lan0": [up * 10**6, down * 10**6], "lan1": [second * 10**6, None]}, "style": style}

    def veths(self):
        return [x["ifname"] for x in self.lab.links() if x["ifname"].startswith("veth")]

    # ---- what goes wrong ----

    def agent_killed(self):
        self.lab.tbnoded.kill()
        self.somebody_acts()
        self.start_agent()

    def other_back_end(self):
        self.backend = next(x for x in BACKENDS if x != self.backend)
        self.random.choice((self.lab.tbnoded.kill, self.lab.tbnoded.stop))()
        self.start_agent()

    def agent_restarted(self):
        self.lab.tbnoded.stop()
        self.start_agent()

    def worker_killed(self):
        p = subprocess.Popen([f"{self.lab.install()}/tbnode", "augment", IMAGE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.lab.run("pkill", "-9", "-P", str(self.lab.tbnoded.pid), check=False)
        p.wait(120)

    def gate_killed(self):
        name = self.name()
        p = subprocess.Popen(["docker", "restart", "-t", "0", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            if self.lab.run("pkill", "-9", "tbnode-runtime", check=False).rc == 0:
                break
            time.sleep(0.005)
        p.wait(120)
        self.lab.docker("start", name, check=False)

    def engine_killed(self):
        self.lab.dockerd.kill()
        self.somebody_acts(docker=False)
        self.start_engine()

    def engine_restarted(self):
        self.lab.dockerd.stop(timeout=120)
        self.start_engine()

    def registry_killed(self):
        self.lab.local.kill()
        self.lab.local.start()

    def stream_cut(self):
        self.proxy.cut()
        self.somebody_acts()

    def engine_hangs(self):
        self.proxy.open.clear()
        self.somebody_acts()
        self.proxy.open.set()

    def messages_lost(self):
        """The agent stands still while the kernel has more to tell than its queue takes."""
        batch = "".join("qdisc replace dev lo root pfifo limit 10\nqdisc del dev lo root\n" for _ in range(12000))
        os.kill(self.lab.tbnoded.pid, signal.SIGSTOP)
        try:
            self.lab.run("tc", "-force", "-batch", "-", input=batch, check=False)
            self.damage_queues()
        finally:
            os.kill(self.lab.tbnoded.pid, signal.SIGCONT)

    def damage_queues(self):
        for v in self.random.sample(self.veths(), k=min(3, len(self.veths()))):
            index = next((x["ifindex"] for x in self.lab.links() if x["ifname"] == v), 0)
            command = self.random.choice((
                f"tc qdisc del dev {v} root", f"tc qdisc replace dev {v} root handle 1: pfifo limit 10",
                f"tc class change dev {v} classid 7462:1 htb rate 1gbit", f"tc qdisc del dev {v} ingress",
                f"tc filter del dev {v} ingress", f"tc qdisc del dev tbi{index} root", f"ip link del tbi{index}",
                f"ip link set tbi{index} down", f"ip link set {v} down", f"ip link set {v} nomaster"))
            self.lab.run(command.split(), check=False)

    def damage_rules(self):
        if self.backend == "nftables" or self.random.random() < 0.3:
            self.damage_tables()
            return
        save = self.lab.iptables("filter")
        chains = [x.split()[0][1:] for x in save if x.startswith(":TBNODE")] or ["FORWARD"]
        tool = self.random.choice(("iptables-legacy", "ip6tables-legacy"))
        for command in self.random.choice(((f"{tool} -F {self.random.choice(chains)}",), (f"{tool} -D FORWARD -j TBNODE-FORWARD",),
                                           (f"{tool} -D INPUT -j TBNODE-INPUT",),
                                           (f"{tool} -I FORWARD -j ACCEPT", f"{tool} -D FORWARD -j ACCEPT"))):
            self.lab.run(command.split(), check=False)

    def damage_tables(self):
        """Of nf_tables: with both back ends the guard is there."""
        family, table = self.random.choice((("bridge", "tbnode-guard"), ("inet", "tbnode")))
        text = self.lab.run("nft", "list", "table", family, table, check=False).out
        found = [x.split()[:2] for x in text.splitlines() if x.strip().startswith(("chain ", "map ", "set "))]
        kind, what = self.random.choice(found) if found else ("chain", "none")
        self.lab.run(self.random.choice((
            ("nft", "delete", "table", family, table), ("nft", "flush", kind, family, table, what),
            ("nft", "flush", "table", family, table), ("nft", "delete", kind, family, table, what))), check=False)

    def name(self):
        return self.random.choice(sorted(self.declared))

    def container_restarted(self):
        self.lab.docker("restart", "-t", "0", self.name(), check=False)

    def container_killed(self):
        self.lab.docker("kill", self.name(), check=False)  # stays dead until it is started or the engine is

    def container_started(self):
        self.lab.docker("start", *sorted(self.declared), check=False)

    def container_paused(self):
        name = self.name()
        self.lab.docker("pause", name, check=False)
        self.lab.docker("unpause", name, check=False)

    def network_changed(self):
        verb = self.random.choice((("connect",), ("disconnect", "-f")))
        self.lab.docker("network", *verb, "lan1", self.name(), check=False)

    def other_labels(self):
        name = self.name()
        self.lab.docker("rm", "-f", name, check=False)
        del self.declared[name]
        self.create(name)

    def other_shape(self):
        name, up = self.name(), self.random.choice(RATES)
        if self.lab.tbnode("shape", "set", name, "lan0", "up", "rate", f"{up}mbit").rc == 0:
            self.declared[name]["shape"]["lan0"][0] = up * 10**6

    def other_style(self):
        name, style = self.name(), self.random.choice(STYLES)
        if self.lab.tbnode("firewall", "set", name, style).rc == 0:
            self.declared[name]["style"] = style

    def somebody_acts(self, docker=True):
        """One of the harmless things, while something else is away."""
        acts = [self.damage_queues, self.damage_rules]
        if docker:
            acts += [self.container_killed, self.network_changed]
        self.random.choice(acts)()

    # ---- the judge ----

    def wrong(self):
        path = f"{self.lab.dir}/declared.json"
        with open(path, "w", encoding="utf-8") as f:
            json.dump(self.declared, f)
        return self.lab.run(sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "truth.py"), path, self.backend,
                            timeout=180).json()

    def settle(self, what):
        begin, wrong = time.monotonic(), ["nobody has looked"]
        while wrong and time.monotonic() < begin + LIMIT:
            wrong = self.wrong()
        if wrong:
            self.violations.append({"after": what, "wrong": wrong[:20], "nodes": [
                [n["node"], n["state"], n.get("reason")] for n in self.lab.tbnode("ps", "--json").json()["nodes"] if n["state"] not in ("configured", "stopped")]})
            print(f"chaos: VIOLATION {json.dumps(self.violations[-1])}", file=sys.stderr, flush=True)
        else:
            self.settled.append((time.monotonic() - begin) * 1000)
        self.leaks(what)

    def judge_is_awake(self):
        """Who sees no damage sees no repair."""
        filtered = self.lab.docker("ps", "-q", "--filter", f"name=^{next(n for n, d in self.declared.items() if d['style'])}$").out.strip()[:12]
        chain = f"TBNODE-{filtered}-"
        rules = ([f"iptables-legacy -F {next(x.split()[0][1:] for x in self.lab.iptables('filter') if x.startswith(':' + chain))}"]
                 if self.backend == "iptables" else
                 [f"nft flush chain inet tbnode n{filtered}-host", "nft flush map inet tbnode host4", "nft flush chain inet tbnode input"])
        for command in [f"tc qdisc del dev {next(q['dev'] for q in self.lab.qdiscs() if q['handle'] == '7462:')} root",
                        "nft flush chain bridge tbnode-guard forward", f"nft flush chain bridge tbnode-guard n{filtered}-peers", *rules]:
            os.kill(self.lab.tbnoded.pid, signal.SIGSTOP)
            try:
                self.lab.run(command.split())
                wrong = self.wrong()
            finally:
                os.kill(self.lab.tbnoded.pid, signal.SIGCONT)
            if not wrong:
                raise lab.LabError(f"the judge does not see {command}")
            self.settle(command)

    def leaks(self, what):
        pid = self.lab.tbnoded.pid
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            rss = int(next(x for x in f if x.startswith("RssAnon")).split()[1])
        now = (len(os.listdir(f"/proc/{pid}/fd")), rss)
        if self.life is None:
            self.life = now
        if now[0] > self.life[0] + FDS + 4 * self.n or now[1] > self.life[1] + RSS_KB:
            self.violations.append({"after": what, "wrong": [f"descriptors, kB: {now}, at first {self.life}"]})

    def round(self):
        self.rounds += 1
        self.random = random.Random(f"{self.seed}:{self.rounds}")  # what one round finds does not change the next
        heavy = [self.agent_killed, self.agent_restarted, self.other_back_end, self.worker_killed, self.gate_killed, self.engine_killed, self.engine_restarted,
                 self.registry_killed, self.stream_cut, self.engine_hangs, self.messages_lost]
        light = [self.damage_queues, self.damage_rules, self.container_restarted, self.container_killed, self.container_started,
                 self.container_paused, self.network_changed, self.other_labels, self.other_shape, self.other_style]
        acts = self.random.sample(light, k=self.random.randint(1, 4)) + self.random.sample(heavy, k=self.random.randint(0, 1))
        self.random.shuffle(acts)
        for act in acts:
            act()
        names = [a.__name__ for a in acts]
        self.events += names
        print(f"chaos: {self.rounds}: {' '.join(names)}", file=sys.stderr, flush=True)
        self.settle(names)


class Bench(unittest.TestCase):
    def test_bench(self):
        args = benchlib.arguments()
        chaos = Chaos(args)
        end = time.monotonic() + args.minutes * 60
        while chaos.rounds < args.rounds if args.rounds else time.monotonic() < end:
            chaos.round()
        engine = chaos.lab.docker("version", "-f", "{{.Server.Version}}").out.strip()
        benchlib.answer("chaos", vars(args), "ms", chaos.settled or [0], {}, engine=f"docker {engine}", events=len(chaos.events),
                        violations=chaos.violations, seed=args.seed)
        chaos.lab.docker("rm", "-f", *chaos.declared, check=False)
        self.assertEqual([], chaos.violations)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench chaos", description=__doc__.split("\n")[0])
    parser.add_argument("minutes", nargs="?", type=float, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds, however long they take, instead of MINUTES")
    benchlib.run_in_lab(parser, lab.main)
