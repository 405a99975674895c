#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""fidelity [--quick] [--section PART/NAME]... [--merge FILE...] [--table FILE]: does a link do what was declared, and the same link made by hand with tc?

Two network namespaces with a bridge between them, as Docker makes it. A row is one declared property of one direction: once made
by tbnode-netctl, once by hand with `tc` (htb, netem, an ifb for the way from the node), measured with the same train of packets,
one after the other in the same run. Rates are of layer 2 frames. Bounds:

    rate    0.5 % of the declared rate after the first second, 2 % (or one full frame: no bucket holds less) in it; offered 1.3 times as much
    delay   median one-way delay: at most 50 us above the declared one plus what a tree without delay takes; no packet earlier than
            declared
    loss    inside the 99 % interval of the binomial distribution (one in a hundred lies outside: a second one decides)
    lossless  no packet lost at 95 % of the rate where no loss is declared
    live    no packet lost while the shape changes, again and again, under traffic
    tcp     data of one connection on the wire, at 1448 of 1514 bytes: within 1 % of what the rate allows

Part `host` runs under this kernel (rates: exact, but no netem here on many machines; on a machine that does nothing else), part `vm`
under Debian's kernel in an emulated machine with a clock of its own (tests/vm/README.md): by that clock it computes an instruction
in a nanosecond, as a core of 1 GHz does, whatever the host is busy with, and answers are the same each time. What a machine could
not offer in time is reported with the verdict "too slow", and counts neither way. `ours` and `tc_by_hand` are errors as a part of the
bound: below 1 is good.

The whole takes an hour or two. `--section` runs a part of it (host/rates-10, vm/delay-5, ...: what
--help lists); `--merge` puts the answers of such runs together, the last one of a row counts; `--table` writes all rows as
Markdown (docs/shaping-fidelity.md).
"""

import argparse
import concurrent.futures
import contextlib
import json
import math
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TBNODE_BUILD_DIR", SOURCE / "build"))
NETCTL = str(BUILD / "netctl/tbnode-netctl")
sys.dont_write_bytecode = True
sys.path.insert(0, str(SOURCE / "tests/vm"))
from tbvm import lab  # noqa: E402

FULL, SMALL = 1514, 98
PACKETS_PER_SECOND = 300000
TOO_SLOW = "too slow"
LATE_NS = 20e6
LOSS_PPS = 20000
LOSS_TRAIN = 100000  # packets at once; their times of arrival are kept

# One TCP connection: data that came over the wire, in bit/s, from two seconds after the first byte on; both ends of that time are
# arrivals of frames. (What the program reads comes in leaps, whenever a loss is made up for: 3 % of ten seconds at 1 Mbit/s.)
SINK = """
import socket, sys, threading, time
def counters():
    values = []
    for name in ("rx_bytes", "rx_packets"):
        with open("/sys/class/net/eth0/statistics/" + name) as f:
            values.append(int(f.read()))
    return values
def arrival():
    before = now = counters()
    while now == before:
        time.sleep(0.0005)
        now = counters()
    return time.monotonic(), now[0] - 66 * now[1]  # Ethernet, IP, TCP with timestamps; frames of many segments count once
def drain():
    while c.recv(1 << 18):
        pass
s = socket.create_server(("", 5301))
print("ready", flush=True)
c, _ = s.accept()
c.recv(1)
threading.Thread(target=drain, daemon=True).start()
time.sleep(2)
begin, before = arrival()
time.sleep(float(sys.argv[1]))
end, after = arrival()
print((after - before) * 8 / (end - begin), flush=True)
"""
FLOOD = """
import socket, sys
s = socket.create_connection((sys.argv[1], 5301))
while True:
    s.sendall(bytes(1 << 16))
"""


def say(text):
    print(f"fidelity: {text}", file=sys.stderr, flush=True)


def rate_word(mbit):
    return f"{int(mbit * 1000)}kbit"


def backlog_drops():
    """Packets that the kernel dropped between two devices, because nobody took them in time: the machine's doing, no link's."""
    with open("/proc/net/softnet_stat", encoding="ascii") as f:
        return sum(int(line.split()[1], 16) for line in f)


class Side:
    """One way to make a shape at node `one`. A direction is a dict with mbit, delay_ms, loss (percent)."""

    def __init__(self, net):
        self.net = net


class Ours(Side):
    name = "ours"

    def spec(self, d):
        words = []
        if d.get("mbit"):
            words.append(f"rate {rate_word(d['mbit'])}")
        if "delay_ms" in d:
            words.append(f"delay {int(d['delay_ms'] * 1000)}us")
        if d.get("loss"):
            words.append(f"loss {d['loss']}%")
        return " ".join(words)

    def make(self, up, down):
        spec = " ".join(f"{name} {self.spec(d)}" for name, d in (("up", up), ("down", down)) if self.spec(d))
        lab.command(NETCTL, "--id", "one", "shape", self.net.one.netns, "eth0", spec)
        # The agent sees to it that the neighbours' frames can be counted, too.
        self.segments(json.loads(self.net.one.run("ip", "-d", "-j", "link", "show", "eth0").stdout)[0]["gso_max_segs"])

    def segments(self, number):
        self.net.two.run("ip", "link", "set", "eth0", "gso_max_segs", str(number))

    def limit(self, device):
        """Packets of the leaf, for the other side to have the same."""
        for q in lab.qdiscs(device):
            if "limit" in q.get("options", {}):
                return q["options"]["limit"]
        return 1000

    def limits(self):
        ifb = [l["ifname"] for l in json.loads(lab.command("ip", "-j", "link", "show", "type", "ifb").stdout)
               if l["ifname"].startswith("tbi")]
        return {"down": self.limit("h-one"), "up": self.limit(ifb[0]) if ifb else 1000}

    def clear(self):
        lab.command(NETCTL, "--id", "one", "clear", self.net.one.netns)
        self.segments(65535)


class ByHand(Side):
    """As a careful user would: the limits are ours (tc's default of 1000 packets loses on long fast links), the rest is tc's choice."""

    name = "tc_by_hand"
    limits = {"up": 1000, "down": 1000}

    def tree(self, device, d, limit):
        lab.command("tc", "qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1")
        lab.command("tc", "class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb", "rate",
                    rate_word(d.get("mbit") or 100000))
        if "delay_ms" in d or d.get("loss"):
            words = ["delay", f"{int(d.get('delay_ms', 0) * 1000)}us"]
            if d.get("loss"):
                words += ["loss", f"{d['loss']}%"]
            lab.command("tc", "qdisc", "add", "dev", device, "parent", "1:1", "handle", "2:", "netem", "limit",
                        str(limit), *words)
        else:
            lab.command("tc", "qdisc", "add", "dev", device, "parent", "1:1", "handle", "2:", "pfifo", "limit",
                        str(limit))

    def make(self, up, down):
        if down:
            self.tree("h-one", down, self.limits["down"])
        if up:
            lab.command("ip", "link", "add", "hand0", "type", "ifb")
            lab.command("ip", "link", "set", "hand0", "up", "txqueuelen", "1000")
            self.tree("hand0", up, self.limits["up"])
            lab.command("tc", "qdisc", "add", "dev", "h-one", "ingress")
            lab.command("tc", "filter", "add", "dev", "h-one", "parent", "ffff:", "protocol", "all", "u32", "match",
                        "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", "hand0")

    def clear(self):
        for words in (("tc", "qdisc", "del", "dev", "h-one", "root"),
                      ("tc", "qdisc", "del", "dev", "h-one", "ingress"), ("ip", "link", "del", "hand0")):
            lab.command(*words, check=False)


class Bench:
    def __init__(self, where, quick):
        self.where = where
        self.quick = quick
        self.net = lab.Network()
        self.quiet()
        if where == "vm":
            # Between two devices the kernel keeps 1,000 packets: a moment's work for an emulated machine.
            lab.command("sysctl", "-q", "net.core.netdev_max_backlog=100000")
        self.ours, self.hand = Ours(self.net), ByHand(self.net)
        self.rows = []
        self.probes, self.probes_lock = 0, threading.Lock()
        for direction in ("up", "down"):  # All that a measurement needs is in memory after it.
            self.probe(direction, size=FULL, packets=20, interval="1ms", quiet="100ms", idle=False)

    @contextlib.contextmanager
    def nothing_else(self):
        """The emulated machine's filler of idle time stands still: nobody waits for the host meanwhile."""
        busy = int(os.environ.get("TBNODE_VM_BUSY", "0"))
        if not busy:
            yield
            return
        with self.probes_lock:
            self.probes += 1
            os.kill(busy, signal.SIGSTOP)
        try:
            yield
        finally:
            with self.probes_lock:
                self.probes -= 1
                if not self.probes:
                    os.kill(busy, signal.SIGCONT)

    def quiet(self):
        """Nothing but the trains on the link: what the stacks say by themselves when interfaces come up (solicitations and reports
        of IPv6) is 1.3 kB in the first ten seconds, 1 % of what 0.1 Mbit/s carries in that time."""
        for node in (self.net.one, self.net.two):
            node.run("sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1")
        for name in ("default", "br-exp", "h-one", "h-two"):
            lab.command("sysctl", "-q", f"net.ipv6.conf.{name}.disable_ipv6=1")

    def ends(self, direction):
        one, two = self.net.one.netns, self.net.two.netns
        return (one, "eth0", two, "eth0") if direction == "up" else (two, "eth0", one, "eth0")

    def probe(self, direction, idle=True, **words):
        extra = [w for k, v in words.items() for w in (k, str(v))]
        with self.nothing_else() if idle else contextlib.nullcontext():
            return json.loads(lab.command(NETCTL, "--json", "probe", *self.ends(direction), *extra).stdout)

    def at_once(self, **by_direction):
        """Trains of both directions at the same time."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            flows = {d: pool.submit(self.probe, d, **words) for d, words in by_direction.items()}
            return {d: f.result() for d, f in flows.items()}

    def both_sides(self, up, down, measure):
        """measure() under our link and under the hand-made one; {side: result}."""
        result = {}
        for side in (self.ours, self.hand):
            side.make(up, down)
            if side is self.ours:
                self.hand.limits = self.ours.limits()
            try:
                result[side.name] = measure()
            finally:
                side.clear()
        return result

    def row(self, what, declared, measured, error, bound, verdict, unit, **more):
        """measured, error and verdict: {side: value}; error and bound in `unit`."""
        for side in ("ours", "tc_by_hand"):
            self.rows.append({"where": self.where, "side": side, "what": what, "declared": declared, "unit": unit,
                              "measured": measured[side], "error": error[side], "bound": bound,
                              "verdict": verdict[side], **{k: v[side] for k, v in more.items()}})
        say(f"{self.where} {what} {declared}: " + ", ".join(
            f"{side} {measured[side]} ({verdict[side]})" for side in ("ours", "tc_by_hand")))

    def judge(self, what, declared, measured, errors, bound, unit, slow=None, **more):
        verdict = {s: TOO_SLOW if slow and slow[s] else "ok" if abs(errors[s]) <= bound else "missed" for s in measured}
        self.row(what, declared, measured, errors, bound, verdict, unit, **more)

    # -- rows

    def rate(self, up, down, size, seconds):
        """Both directions at once; the steady rate and the first second."""
        def words(mbit):
            # Small frames at high rates: as many as a core can send; the verdict says if that was too little.
            return {"size": size, "rate": rate_word(min(mbit * 1.3, PACKETS_PER_SECOND * size * 8 / 1e6)), "duration": f"{seconds}s", "warmup": "1s",
                    "quiet": "300ms"}
        seen = self.both_sides({"mbit": up}, {"mbit": down}, lambda: self.at_once(up=words(up), down=words(down)))
        for direction, mbit in (("up", up), ("down", down)):
            declared = f"{direction} {mbit} Mbit/s, {size} byte frames" + \
                       (f", other way {up if direction == 'down' else down}" if up != down else "")
            flows = {s: seen[s][direction] for s in seen}
            # A sender that stood still for longer may have left the queue empty: what is missing then is not the link's.
            slow = {s: f["offered_bps"] < mbit * 1e6 * 1.05 or (f["late_max_ns"] > LATE_NS and f["rate_bps"] < mbit * 1e6)
                    for s, f in flows.items()}
            for what, key, bound in (("rate", "rate_bps", 0.5),
                                     ("rate, first second", "first_second_bps",
                                      max(2.0, 100 * FULL * 8 / (mbit * 1e6)))):
                self.judge(what, declared, {s: round(f[key] / 1e6, 6) for s, f in flows.items()},
                           {s: round((f[key] / (mbit * 1e6) - 1) * 100, 4) for s, f in flows.items()},
                           round(bound, 3), "percent", slow=slow)

    def tcp(self, mbit, direction, seconds):
        source, target = (self.net.one, self.net.two) if direction == "up" else (self.net.two, self.net.one)

        def measure():
            sink = subprocess.Popen(["ip", "netns", "exec", target.name, sys.executable, "-c", SINK, str(seconds)], stdout=subprocess.PIPE,
                                    text=True)
            sink.stdout.readline()
            flood = subprocess.Popen(["ip", "netns", "exec", source.name, sys.executable, "-c", FLOOD, target.ipv4],
                                     stderr=subprocess.DEVNULL)
            with self.nothing_else():
                bits = float(sink.communicate()[0])
            flood.kill()
            flood.wait()
            return bits * FULL / 1448
        shape = {"mbit": mbit}
        seen = self.both_sides(shape if direction == "up" else {}, shape if direction == "down" else {}, measure)
        self.judge("tcp", f"{direction} {mbit} Mbit/s", {s: round(v / 1e6, 4) for s, v in seen.items()},
                   {s: round((v / (mbit * 1e6) - 1) * 100, 3) for s, v in seen.items()}, 1.0, "percent")

    def delay(self, up, down, size, packets):
        words = {"size": size, "packets": packets, "interval": "5ms", "quiet": f"{int(max(up, down) + 500)}ms"}
        flows = {}

        def measure(name):
            flows[name] = {d: self.probe(d, **words) for d in ("up", "down")}
        self.hand.make({"mbit": 0}, {"mbit": 0})
        measure("base")
        self.hand.clear()
        for side in (self.ours, self.hand):
            side.make({"delay_ms": up}, {"delay_ms": down})
            if side is self.ours:
                self.hand.limits = self.ours.limits()
            measure(side.name)
            side.clear()
        for direction, ms in (("up", up), ("down", down)):
            median = {s: f[direction]["delay_median_ns"] / 1000 for s, f in flows.items()}
            least = {s: f[direction]["delay_min_ns"] / 1000 for s, f in flows.items()}
            sides = ("ours", "tc_by_hand")
            measured = {s: round(median[s] / 1000, 4) for s in sides}
            errors = {s: round(median[s] - ms * 1000 - median["base"], 1) for s in sides}
            verdict = {s: "early" if least[s] < ms * 1000 else "ok" if errors[s] <= 50 else "missed" for s in sides}
            self.row("delay", f"{direction} {ms} ms, {size} byte frames" +
                     (f", other way {up if direction == 'down' else down}" if up != down else ""),
                     measured, errors, 50, verdict, "us", base_us={s: round(median["base"], 1) for s in sides},
                     fastest_us={s: round(least[s] - ms * 1000, 1) for s in sides})

    def loss(self, direction, percent, packets, pps):
        words = {"size": SMALL, "interval": f"{int(1e9 / pps)}ns", "quiet": "500ms"}
        low, high = lab.binomial_interval(packets, percent / 100, 0.99) if percent else (0, 0)
        shape = {"loss": percent, "delay_ms": 0.1}

        def measure():
            flows = []
            for _ in range(2):
                before = backlog_drops()
                trains = [self.probe(direction, packets=min(LOSS_TRAIN, packets - i), **words)
                          for i in range(0, packets, LOSS_TRAIN)]
                flows.append({k: sum(t[k] for t in trains) for k in ("sent", "received", "overrun")})
                flows[-1]["overrun"] += backlog_drops() - before
                if flows[-1]["overrun"] == 0 and low <= flows[-1]["sent"] - flows[-1]["received"] <= high:
                    break
            return flows
        seen = self.both_sides(shape if direction == "up" else {}, shape if direction == "down" else {}, measure)
        lost = {s: f[-1]["sent"] - f[-1]["received"] for s, f in seen.items()}
        self.judge("loss", f"{direction} {percent} % of {packets}", lost,
                   {s: round(v - packets * percent / 100, 1) for s, v in lost.items()},
                   max((high - low) / 2, 0), "packets", slow={s: f[-1]["overrun"] > 0 for s, f in seen.items()},
                   interval={s: [low, high] for s in lost}, attempts={s: len(f) for s, f in seen.items()})

    def lossless(self, mbit, delay_ms, seconds):
        """Both directions at once at 95 %."""
        words = {"size": FULL, "rate": rate_word(mbit * 0.95), "duration": f"{seconds}s",
                 "quiet": f"{int(delay_ms) + 1000}ms"}
        shape = {"mbit": mbit, "delay_ms": delay_ms}
        seen = self.both_sides(shape, shape, lambda: self.at_once(up=words, down=words))
        for direction in ("up", "down"):
            flows = {s: seen[s][direction] for s in seen}
            lost = {s: f["sent"] - f["received"] for s, f in flows.items()}
            slow = {s: f["offered_bps"] < mbit * 1e6 * 0.85 or f["overrun"] > 0 for s, f in flows.items()}
            self.judge("lossless", f"{direction} {mbit} Mbit/s x {delay_ms} ms", lost, lost, 0, "packets", slow=slow,
                       offered_mbit={s: round(f["offered_bps"] / 1e6, 1) for s, f in flows.items()})

    def live(self, changes, shapes):
        """Our shape changes in place while packets flow both ways. By hand: `tc ... change` of the same parameters."""
        result = {}
        for side in (self.ours, self.hand):
            side.make(shapes[0], shapes[0])
            stop = threading.Event()
            done = [0]

            def change(side=side, stop=stop, done=done):
                for i in range(1, changes + 1):
                    d = shapes[i % len(shapes)]
                    if side is self.ours:
                        self.ours.make(d, d)
                    else:
                        for dev in ("h-one", "hand0"):
                            lab.command("tc", "class", "change", "dev", dev, "parent", "1:", "classid", "1:1", "htb",
                                        "rate", rate_word(d["mbit"]))
                            if d.get("delay_ms"):
                                lab.command("tc", "qdisc", "change", "dev", dev, "parent", "1:1", "handle", "2:",
                                            "netem", "limit", "1000", "delay", f"{int(d['delay_ms'] * 1000)}us")
                    done[0] = i
                stop.set()
            worker = threading.Thread(target=change)
            worker.start()
            lost = sent = 0
            while not stop.is_set():
                words = {"size": 298, "packets": 1000, "interval": "1ms", "quiet": "400ms"}
                for f in self.at_once(up=words, down=words).values():
                    lost += f["sent"] - f["received"]
                    sent += f["sent"]
            worker.join()
            side.clear()
            result[side.name] = (lost, sent, done[0])
        lost = {s: r[0] for s, r in result.items()}
        self.judge("live", f"{changes} changes under traffic, {'with' if shapes[0].get('delay_ms') else 'without'} netem",
                   lost, lost, 0, "packets", sent={s: r[1] for s, r in result.items()},
                   changes={s: r[2] for s, r in result.items()})


def rates(bench, mbit):
    for size in (FULL, SMALL):
        bench.rate(mbit, mbit, size, 14 if mbit < 1 else 11)


def tcp(bench, mbit):
    for direction in ("up", "down"):
        bench.tcp(mbit, direction, 10)


def vm_delay(bench, ms):
    for size in (SMALL, FULL):
        bench.delay(ms, ms, size, 200 if ms < 500 else 100)


def vm_loss(bench, percent, direction):
    bench.loss(direction, percent, 1000000 if percent == 0.01 else 100000, LOSS_PPS)


def with_value(row, *values):
    return lambda b: row(b, *values)


def asymmetric(bench):
    bench.rate(1, 10, FULL, 11)
    bench.rate(100, 10, FULL, 11)


SECTIONS = {
    **{f"{part}/rates-{mbit}": with_value(rates, mbit) for part in ("host", "vm") for mbit in (0.1, 1, 10, 100, 1000)},
    **{f"{part}/tcp-{mbit}": with_value(tcp, mbit) for part in ("host", "vm") for mbit in (1, 10, 100, 1000)},
    "host/asymmetric": asymmetric, "vm/asymmetric": asymmetric,
    "host/live": lambda b: b.live(1000, [{"mbit": 20}, {"mbit": 50}]),
    **{f"vm/delay-{ms}": with_value(vm_delay, ms) for ms in (0, 0.1, 0.4, 1, 5, 20, 100, 500)},
    "vm/delay-asymmetric": lambda b: (b.delay(1, 20, SMALL, 200), b.delay(100, 0.4, SMALL, 200)),
    **{f"vm/loss-{percent}-{direction}": with_value(vm_loss, percent, direction)
       for percent in (0, 0.01, 0.1, 1, 10) for direction in ("up", "down")},
    **{f"vm/lossless-{mbit}x{ms}": with_value(Bench.lossless, mbit, ms, 6)
       for mbit, ms in ((1, 100), (10, 20), (10, 500), (100, 5), (100, 100), (1000, 100))},
    "vm/live": lambda b: b.live(1000, [{"mbit": 20, "delay_ms": 5}, {"mbit": 50, "delay_ms": 20}]),
}


def quick(bench):
    if bench.where == "host":
        bench.rate(10, 10, FULL, 2)
        bench.rate(2, 20, FULL, 2)
    else:
        bench.delay(0.4, 5, SMALL, 50)
        bench.loss("down", 1, 5000, 2000)


def inside(part, sections, out):
    bench = Bench(part, not sections)
    begin = time.monotonic()
    for name in sections:
        SECTIONS[name](bench)
    if not sections:
        quick(bench)
    bench.net.close()
    with open(out, "w", encoding="utf-8") as f:
        json.dump({"rows": bench.rows, "kernel": platform.release(), "seconds": round(time.monotonic() - begin)}, f)


def run_part(part, sections, folder):
    """sections: those of this part; none: the quick rows."""
    out = f"{folder}/{part}.json"
    words = [sys.executable, os.path.abspath(__file__), "--inside", part, "--out", out,
             *(w for s in sections for w in ("--section", s))]
    if part == "vm":
        # The guest sees the host's files; what it writes reaches us only through the shared folder.
        command = [sys.executable, str(SOURCE / "tests/vm/run"), "--own-clock", "--timeout", "5400", "--share", folder, "--", *words]
    else:
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c",
                   'mount -t tmpfs none /run && ip link set lo up && exec "$@"', "sh", *words]
    rc = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode
    if rc == 77:
        say(f"part {part}: SKIPPED, see above")
        return None
    if rc != 0:
        sys.exit(f"fidelity: part {part} failed with status {rc}; what went wrong is above")
    with open(out, encoding="utf-8") as f:
        return json.load(f)


def spread(values):
    return {"median": round(statistics.median(values), 5), "min": round(min(values), 5), "max": round(max(values), 5)}


def merge(answers):
    """Rows of later answers take the place of the same rows of earlier ones."""
    rows, kernels, seconds = {}, {}, {}
    for a in answers:
        for r in a["rows"]:
            rows[r["where"], r["what"], r["declared"], r["side"]] = r
        kernels.update(a["kernels"])
        for part, s in a["seconds"].items():
            seconds[part] = seconds.get(part, 0) + s
    return list(rows.values()), kernels, seconds


def table(rows, kernels):
    """All rows as Markdown: ours beside the hand-made link."""
    sides = {}
    for r in rows:
        sides.setdefault((r["where"], r["what"], r["declared"]), {})[r["side"]] = r
    lines = ["| where | what | declared | bound | ours: measured | off by | | tc by hand: measured | off by | |", "|" + "---|" * 10]
    for (where, what, declared), both in sides.items():
        cells = [where, what, declared, f"{both['ours']['bound']:g} {both['ours']['unit']}"]
        for side in ("ours", "tc_by_hand"):
            r = both[side]
            cells += [f"{r['measured']:g}", f"{r['error']:g}", r["verdict"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*(f"`{part}`: Linux {kernel}" for part, kernel in sorted(kernels.items())), "", *lines]) + "\n"


def answer(rows, kernels, seconds, args):
    def used(side):
        """Error as a part of the bound; a bound of 0 packets is met wholly or not at all."""
        return [max(min(abs(r["error"]) / r["bound"] if r["bound"] else math.inf if r["error"] else 0, 1000), 1e-6)
                for r in rows if r["side"] == side and r["verdict"] != TOO_SLOW] or [0]
    ours, hand = used("ours"), used("tc_by_hand")
    verdicts = {side: {v: sum(1 for r in rows if r["side"] == side and r["verdict"] == v)
                       for v in ("ok", "missed", "early", TOO_SLOW)} for side in ("ours", "tc_by_hand")}
    return {
        "bench": "fidelity", "args": args,
        "machine": {"cores": os.cpu_count(), "kernel": platform.release(), "engine": None},
        "runs": len(ours), "unit": "part of the allowed error", "ours": spread(ours),
        "others": {"tc_by_hand": spread(hand)},
        "ratios": {"tc_by_hand": round(statistics.median(hand) / max(statistics.median(ours), 1e-6), 3)},
        "verdicts": verdicts, "kernels": kernels, "seconds": seconds, "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rows only, half a minute each part")
    parser.add_argument("--part", choices=("host", "vm"), action="append", help="only this part; may be repeated")
    parser.add_argument("--section", choices=SECTIONS, action="append", help="only this section; may be repeated")
    parser.add_argument("--merge", nargs="+", metavar="FILE", help="answers of earlier runs; nothing is measured")
    parser.add_argument("--table", metavar="FILE", help="write all rows as Markdown there")
    parser.add_argument("--inside", choices=("host", "vm"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        inside(args.inside, args.section or [], args.out)
        return 0
    if args.merge:
        answers = []
        for path in args.merge:
            with open(path, encoding="utf-8") as f:
                answers.append(json.load(f))
        rows, kernels, seconds = merge(answers)
    else:
        if os.geteuid() != 0:
            print("SKIP: needs root", file=sys.stderr)
            return 77
        if not os.access(NETCTL, os.X_OK):
            sys.exit(f"{NETCTL} is missing: build first")
        sections = args.section or ([] if args.quick else list(SECTIONS))
        chosen = {p: [s for s in sections if s.startswith(p + "/")] for p in args.part or ("host", "vm")}
        with tempfile.TemporaryDirectory(prefix="tbnode-bench-") as folder:
            parts = {p: run_part(p, s, folder) for p, s in chosen.items() if s or args.quick}
        parts = {p: v for p, v in parts.items() if v}
        if not parts:
            return 77
        rows = [r for v in parts.values() for r in v["rows"]]
        kernels = {p: v["kernel"] for p, v in parts.items()}
        seconds = {p: v["seconds"] for p, v in parts.items()}
    if args.table:
        with open(args.table, "w", encoding="utf-8") as f:
            f.write(table(rows, kernels))
    print(json.dumps(answer(rows, kernels, seconds,
                            {"quick": args.quick, "part": sorted(kernels), "section": args.section})))
    return 0


if __name__ == "__main__":
    sys.exit(main())
