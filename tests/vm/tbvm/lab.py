# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two nodes on a bridge, as Docker makes them, and ways to measure what lies between them. Runs inside the guest, or in
any network namespace of one's own.

         namespace "one"                 this namespace                namespace "two"
        eth0 10.9.0.1 ---- veth h-one -- bridge br-exp -- veth h-two ---- eth0 10.9.0.2

Packets are UDP with a number and the time of sending in them. Times of arrival are the kernel's (SO_TIMESTAMPNS), taken
when the packet reaches the receiver's namespace; all namespaces share one clock, so delays are true one-way delays.
"""

import contextlib
import ctypes
import json
import math
import os
import select
import socket
import statistics
import struct
import subprocess
import threading
import time

SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35     # asm-generic/socket.h; Python 3.11 has no names for them
CLONE_NEWNET = 0x40000000
PORT = 9999

_libc = ctypes.CDLL(None, use_errno=True)


def command(*words, check=True):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f'{" ".join(words)}: exit status {done.returncode}: {done.stderr.strip()}')
    return done


def qdiscs(device):
    """What tc says is there, the built-in ones left out."""
    found = json.loads(command('tc', '-j', '-s', 'qdisc', 'show', 'dev', device).stdout)
    return [q for q in found if q['kind'] not in ('noqueue', 'pfifo_fast', 'fq_codel') or q['handle'] != '0:']


def netem(device):
    """tc's description of the one netem of a device."""
    found = [q for q in qdiscs(device) if q['kind'] == 'netem']
    if len(found) != 1:
        raise AssertionError(f'{len(found)} netems on {device}: {qdiscs(device)}')
    return found[0]


@contextlib.contextmanager
def inside(name):
    """This thread is in the named network namespace for a moment."""
    with open('/proc/thread-self/ns/net') as home, open(f'/run/netns/{name}') as there:
        if _libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f'setns {name}')
        try:
            yield
        finally:
            if _libc.setns(home.fileno(), CLONE_NEWNET) != 0:
                os._exit(1)     # nothing may go on in the wrong namespace


class Node:
    def __init__(self, name, number):
        self.name = name
        self.netns = f'/run/netns/{name}'
        self.host_ifname = f'h-{name}'
        self.ipv4 = f'10.9.0.{number}'
        self.ipv6 = f'fd00:9::{number}'
        command('ip', 'netns', 'add', name)
        command('ip', 'link', 'add', self.host_ifname, 'type', 'veth', 'peer', 'name', 'eth0', 'address',
                f'02:00:00:00:09:{number:02x}', 'netns', name)
        for words in (f'addr add {self.ipv4}/24 dev eth0', f'addr add {self.ipv6}/64 dev eth0 nodad', 'link set lo up',
                      'link set eth0 up'):
            command('ip', '-n', name, *words.split())
        command('ip', 'link', 'set', self.host_ifname, 'master', 'br-exp', 'up')

    def run(self, *words, check=True):
        return command('ip', 'netns', 'exec', self.name, *words, check=check)

    def forget_neighbours(self):
        self.run('ip', 'neigh', 'flush', 'dev', 'eth0')

    def socket(self, receive=False):
        with inside(self.name):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if receive:
            s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
            s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            s.bind((self.ipv4, PORT))
        return s


class Network:
    def __init__(self):
        command('ip', 'link', 'add', 'br-exp', 'type', 'bridge', 'mcast_snooping', '0')
        command('ip', 'link', 'set', 'br-exp', 'up')
        self.one = Node('one', 1)
        self.two = Node('two', 2)
        self.settle()

    def settle(self):
        """Both have resolved each other, so that the first packet of a measurement waits for nothing but its path."""
        for a, b in ((self.one, self.two), (self.two, self.one)):
            a.run('ping', '-q', '-c', '1', '-w', '60', b.ipv4)
            # No renewal in the middle of a measurement.
            mac = json.loads(a.run('ip', '-j', 'neigh', 'show', b.ipv4).stdout)[0]['lladdr']
            a.run('ip', 'neigh', 'replace', b.ipv4, 'lladdr', mac, 'dev', 'eth0', 'nud', 'permanent')

    def close(self):
        for node in (self.one, self.two):
            command('ip', 'netns', 'del', node.name, check=False)
        command('ip', 'link', 'del', 'br-exp', check=False)


class Flow:
    """What came of a train of packets: arrivals = {number: [one-way delay in ms, ...]} (several: duplicates)."""

    def __init__(self, sent):
        self.sent = sent
        self.arrivals = {}
        self.order = []
        self.first_ns = self.last_ns = 0    # kernel's time of the first and the last arrival
        self.sending_ms = 0.0               # from the first to the last sending

    @property
    def span_ms(self):
        return (self.last_ns - self.first_ns) / 1e6

    @property
    def lost(self):
        return self.sent - len(self.arrivals)

    @property
    def received(self):
        return len(self.order)

    @property
    def delays(self):
        return [d for ds in self.arrivals.values() for d in ds]

    @property
    def median(self):
        return statistics.median(self.delays)

    def __str__(self):
        if not self.arrivals:
            return f'{self.sent} sent, none arrived'
        d = sorted(self.delays)
        return f'{self.sent} sent, {self.received} arrived, {self.lost} lost, one-way delay ms: min {d[0]:.2f} ' \
               f'median {self.median:.2f} p90 {d[len(d) * 9 // 10]:.2f} max {d[-1]:.2f}'


def _take(receiver, flow):
    while True:
        try:
            data, extra, _, _ = receiver.recvmsg(2048, 64)
        except BlockingIOError:
            return
        number, sent_ns = struct.unpack_from('!IQ', data)
        stamp = next(d for level, kind, d in extra if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS))
        seconds, nanoseconds = struct.unpack_from('ll', stamp)
        flow.last_ns = seconds * 10**9 + nanoseconds
        flow.first_ns = flow.first_ns or flow.last_ns
        flow.arrivals.setdefault(number, []).append((flow.last_ns - sent_ns) / 1e6)
        flow.order.append(number)


def send_train(source, target, count, interval, size=100, meanwhile=None, quiet=2.0):
    """Sends `count` packets, one every `interval` seconds, and waits until nothing has come for `quiet` seconds (more
    than any delay of the path). `meanwhile` runs beside it in a thread, and the train goes on until it has ended."""
    padding = bytes(size - 12)
    flow = Flow(0)
    worker = None
    failure = []
    if meanwhile:
        def work():
            try:
                meanwhile()
            except BaseException as e:  # carried over to the caller's thread
                failure.append(e)
        worker = threading.Thread(target=work)
    with source.socket() as sender, target.socket(receive=True) as receiver:
        if worker:
            worker.start()
        started = due = time.monotonic()
        while flow.sent < count or (worker and worker.is_alive()):
            sender.sendto(struct.pack('!IQ', flow.sent, time.time_ns()) + padding, (target.ipv4, PORT))
            flow.sent += 1
            flow.sending_ms = (time.monotonic() - started) * 1000
            # A late machine sends late, never in bursts that would fill a queue.
            due = max(due + interval, time.monotonic())
            while True:
                left = due - time.monotonic()
                if left <= 0:
                    break
                if select.select([receiver], [], [], left)[0]:
                    _take(receiver, flow)
        while select.select([receiver], [], [], quiet)[0]:
            _take(receiver, flow)
    if worker:
        worker.join()
    if failure:
        raise failure[0]
    return flow


def ping(source, address, count=40, interval=0.05):
    """Round trip times in ms, one per answer."""
    done = source.run('ping', '-n', '-c', str(count), '-i', str(interval), '-W', '10', address, check=False)
    return [float(word[5:]) for line in done.stdout.splitlines() for word in line.split() if word.startswith('time=')]


def binomial_interval(n, p, confidence):
    """Smallest and largest count of the central interval that holds `confidence` of Binomial(n, p), exactly."""
    tail = (1 - confidence) / 2
    low = high = None
    below = 0.0
    for k in range(n + 1):
        mass = math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) +
                        (n - k) * math.log1p(-p))
        if low is None and below + mass > tail:
            low = k
        below += mass
        if high is None and below >= 1 - tail:
            high = k
            break
    return low, n if high is None else high


# -- what the kernel was told, read without tc, which rounds to microseconds ----------------------------------------

RTM_GETQDISC, NLM_DUMP, NLMSG_DONE, NLMSG_ERROR = 38, 0x301, 3, 2
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_NETEM_LATENCY64, TCA_NETEM_JITTER64 = 10, 11
TC_NETEM_QOPT_SIZE = 24


def _attributes(data):
    while len(data) >= 4:
        size, kind = struct.unpack_from('=HH', data)
        if size < 4:
            return
        yield kind & 0x3fff, data[4:size]
        data = data[(size + 3) & ~3:]


def netem_nanoseconds(device):
    """(delay, jitter) in ns of the one netem of a device, as the kernel reports them over rtnetlink."""
    index = socket.if_nametoindex(device)
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as s:
        s.send(struct.pack('=IHHII', 16 + 20, RTM_GETQDISC, NLM_DUMP, 1, 0) + struct.pack('=BxxxiIII', 0, index, 0, 0, 0))
        while True:
            data = s.recv(1 << 17)
            while data:
                size, kind, _, _, _ = struct.unpack_from('=IHHII', data)
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    if len(found) != 1:
                        raise AssertionError(f'{len(found)} netems on {device}')
                    return found[0]
                body, data = data[16:size], data[(size + 3) & ~3:]
                if struct.unpack_from('=i', body, 4)[0] != index:
                    continue
                options = dict(_attributes(body[20:]))
                if options[TCA_KIND] == b'netem\0':
                    own = dict(_attributes(options[TCA_OPTIONS][TC_NETEM_QOPT_SIZE:]))
                    found.append(tuple(struct.unpack('=q', own[k])[0] for k in (TCA_NETEM_LATENCY64,
                                                                               TCA_NETEM_JITTER64)))
