#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""netctl N [--runs R]: time to shape N veths both ways, ours against tc and ip. (The firewall has a bench of its own.)

Every side makes the same objects from nothing on N veth pairs: per node an ifb, HTB root + class + leaf on the veth and on
the ifb, ingress with a redirecting filter. Offloads are left alone: they are written inside the containers.

    ours       one `tbnode-netctl apply` process (JSON file in, read back and verified)
    exec       one ip or tc process per object, from one shell
    tc_batch   `ip -batch` and `tc -batch`, one process each

Sides alternate within a run; after each, tc and ip say that the objects are the same. `exec` takes part in --exec-runs of the
runs only: it needs half a minute for 1,000 nodes, and much more where others work. Times are of the whole process, started by fork + exec from here, in ms.
noop_ms: a look at the configured host that finds nothing to do, as the agent has it: the second one of a process.
noop_first_ms: the first one of a process, which has to ask for each namespace's number besides.
bytes_per_node: what the library holds for one more node when it is done (its report), peak_bytes_per_node: what it needs at
most meanwhile (dumps, plans, messages); the hand tool's JSON is not counted.
Everything happens in a network namespace of its own.
"""

import argparse
import ctypes
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(os.environ.get('TBNODE_BUILD_DIR', pathlib.Path(__file__).resolve().parents[2] / 'build'))
TOOL = str(BUILD / 'netctl/tbnode-netctl')
CLONE_NEWNET = 0x40000000
IFB_BASE = 0x40000000


def run(*command, stdin=None):
    done = subprocess.run([str(c) for c in command], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f'{" ".join(map(str, command))[:200]}: {done.stderr.strip()}')
    return done.stdout


def timed(*command):
    """Wall time in ms of one process, its output thrown away."""
    begin = time.monotonic()
    with open(os.devnull, 'wb') as null:
        p = subprocess.Popen([str(c) for c in command], stdout=null)
        _, status = os.waitpid(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    if p.returncode != 0:
        sys.exit(f'{command[0]} failed: {p.returncode}')
    return (time.monotonic() - begin) * 1000


class Host:
    def __init__(self, count, directory):
        self.count = count
        self.directory = directory
        self.pids = []
        libc = ctypes.CDLL(None, use_errno=True)
        for _ in range(count):
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                libc.prctl(1, signal.SIGKILL)
                ok = libc.unshare(CLONE_NEWNET) == 0
                os.write(write, b'1' if ok else b'0')
                signal.pause()
                os._exit(0)
            if os.read(read, 1) != b'1':
                sys.exit('cannot make a network namespace')
            os.close(read)
            os.close(write)
            self.pids.append(pid)
        lines = ['link add br0 type bridge', 'link set br0 up']
        for i, pid in enumerate(self.pids):
            lines += [f'link add h{i} index {1000 + i} type veth peer name eth0 address {self.mac(i)} netns {pid}',
                      f'link set h{i} up', f'link set h{i} master br0']
        run('ip', '-batch', '-', stdin='\n'.join(lines) + '\n')

    def mac(self, i):
        return f'02:00:00:00:{i >> 8:02x}:{i & 255:02x}'

    def ip(self, i):
        return f'10.9.{i >> 8}.{i & 255}'

    def node_id(self, i):
        return f'{i:04d}bench{i:03d}'

    def write(self, count=None):
        nodes = [{'id': self.node_id(i), 'pid': pid, 'shapes_only': True,
                  'interfaces': [{'mac': self.mac(i), 'shape': 'offload on rate 10mbit up rate 2mbit', 'ipv4': self.ip(i)}]}
                 for i, pid in enumerate(self.pids[:count])]
        path = os.path.join(self.directory, f'nodes{count or ""}.json')
        with open(path, 'w', encoding='utf-8') as f:
            json.dump({'nodes': nodes}, f)
        return path

    def objects(self):
        """What is in the kernel, without names that may differ: burst is rounded by tc in its own way."""
        qdiscs = sorted((q['dev'], q['kind'], q['handle'], json.dumps(q['options'].get('limit')))
                        for q in json.loads(run('tc', '-j', 'qdisc', 'show')) if q['handle'] != '0:')
        devices = [dev for i in range(self.count) for dev in (f'h{i}', f'tbi{1000 + i}')]
        out = run('tc', '-batch', '-', stdin=''.join(f'class show dev {dev}\n' for dev in devices))
        classes = re.findall(r'class htb (\S+).* rate (\S+) ceil (\S+)', out)
        out = run('tc', '-batch', '-', stdin=''.join(f'filter show dev h{i} parent ffff:\n' for i in range(self.count)))
        filters = re.findall(r'protocol (\S+) pref (\d+) u32 .*flowid|Redirect to device (\S+)\)', out)
        links = sorted((link['ifname'], link['ifindex'], link['txqlen'], link['num_tx_queues'], link['ifalias'],
                        'UP' in link['flags']) for link in json.loads(run('ip', '-j', '-d', 'link', 'show', 'type', 'ifb')))
        return {'qdiscs': qdiscs, 'classes': classes, 'filters': filters, 'links': links}

    def clean(self):
        run(TOOL, 'sweep')
        left = run('tc', 'qdisc', 'show')
        if '7462:' in left or 'tbi' in left:
            sys.exit('clean-up left something')


def commands(host, leaf):
    """The same objects as ip and tc commands."""
    ip, tc = [], []
    kind, handle = leaf
    for i in range(host.count):
        v = 1000 + i
        ip += [f'link add name tbi{v} index {IFB_BASE + v} txqueuelen 1000 numtxqueues 1 numrxqueues 1 type ifb',
               f'link set dev tbi{v} alias tbnode:{host.node_id(i)}:{v}:up', f'link set dev tbi{v} up']
        for dev, rate, burst, quantum, limit in ((f'h{i}', '10mbit', 6514, 60000, 50), (f'tbi{v}', '2mbit', 2514, 25000, 50)):
            tc += [f'qdisc add dev {dev} root handle 7462: htb default 1',
                   f'class add dev {dev} parent 7462: classid 7462:1 htb rate {rate} burst {burst} cburst {burst} quantum {quantum}',
                   f'qdisc add dev {dev} parent 7462:1 handle {handle} {kind} limit {limit}']
        tc += [f'qdisc add dev h{i} ingress',
               f'filter add dev h{i} parent ffff: protocol all pref 29794 u32 match u32 0 0 '
               f'action mirred egress redirect dev tbi{v}']
    return ip, tc


def write_sides(host, leaf):
    ip, tc = commands(host, leaf)
    paths = {}

    def put(name, lines):
        paths[name] = os.path.join(host.directory, name)
        with open(paths[name], 'w', encoding='utf-8') as f:
            f.write('\n'.join(lines) + '\n')

    put('ip', ip)
    put('tc', tc)
    put('exec.sh', ['set -e', *(f'ip {c}' for c in ip), *(f'tc {c}' for c in tc)])
    put('batch.sh', ['set -e', f'ip -batch {paths["ip"]}', f'tc -batch {paths["tc"]}'])
    return {'exec': ['sh', paths['exec.sh']], 'tc_batch': ['sh', paths['batch.sh']]}


def spread(values):
    return {'median': round(statistics.median(values), 3), 'min': round(min(values), 3), 'max': round(max(values), 3)}


def bench(count, runs, exec_runs):
    with tempfile.TemporaryDirectory() as directory:
        run(TOOL, 'sweep')  # an agent is there before its nodes
        host = Host(count, directory)
        path = host.write()
        ours = [TOOL, '--json', 'apply', path]

        # Not measured: modules, caches.
        first = json.loads(run(*ours))
        failed = [n['error']['message'] for n in first['nodes'] if n['error']]
        if failed:
            sys.exit(failed[0])
        wanted = host.objects()
        noop, writes = {1: [], 2: []}, 0
        for _ in range(max(runs, 7)):
            for times, found in noop.items():
                again = json.loads(run(TOOL, '--times', times, '--json', 'apply', path))
                found.append(again['elapsed_ms'])
                writes += again['netlink_writes'] + again['firewall_commits'] + again['sysctl_writes']
        leaf = next((q[1], q[2]) for q in wanted['qdiscs'] if q[1] in ('netem', 'pfifo'))
        host.clean()
        one = json.loads(run(TOOL, '--json', 'apply', host.write(1)))['memory']
        host.clean()

        sides = {'ours': ours, **write_sides(host, leaf)}
        times = {name: [] for name in sides}
        inside, held, peak = [], [], []
        names = list(sides)
        for r in range(runs):
            for name in names[r % len(names):] + names[:r % len(names)]:
                if name == 'exec' and r >= exec_runs:
                    continue
                ms = timed(*sides[name])
                times[name].append(ms)
                made = host.objects()
                for what, value in wanted.items():
                    if made[what] != value:
                        sys.exit(f'{name} made other {what} than ours')
                host.clean()
            report = json.loads(run(*ours))
            inside.append(report['elapsed_ms'])
            held.append(report['memory']['held'] - one['held'])
            peak.append(report['memory']['peak'] - one['peak'])
            host.clean()
        for pid in host.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    others = {name: spread(values) for name, values in times.items() if name != 'ours' and values}
    return {
        'bench': 'netctl', 'args': {'nodes': count},
        'machine': {'cores': os.cpu_count(), 'kernel': platform.release(), 'engine': None},
        'runs': runs, 'unit': 'ms', 'ours': spread(times['ours']), 'others': others,
        # exec is only there in the first runs, so that its pairs are those.
        'ratios': {name: round(statistics.median(o / m for o, m in zip(times[name], times['ours'])), 3) for name in others},
        'exec_runs': len(times['exec']),
        'in_process_ms': spread(inside), 'noop_ms': round(statistics.median(noop[2]), 3),
        'noop_first_ms': round(statistics.median(noop[1]), 3), 'noop_writes': writes,
        'bytes_per_node': int(statistics.median(held) / max(1, count - 1)),
        'peak_bytes_per_node': int(statistics.median(peak) / max(1, count - 1)),
        'objects': {what: len(value) for what, value in wanted.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('nodes', nargs='?', type=int, default=50)
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--exec-runs', type=int, help='default: all; 2 above 100 nodes, none above 500')
    args = parser.parse_args()
    exec_runs = args.exec_runs if args.exec_runs is not None else args.runs if args.nodes <= 100 else 2 if args.nodes <= 500 else 0
    if not 1 <= args.nodes <= 1000 or args.runs < 1:
        parser.error('1 to 1000 nodes')
    if os.geteuid() != 0:
        print('SKIP: needs root', file=sys.stderr)
        return 77
    if not os.access(TOOL, os.X_OK):
        sys.exit(f'{TOOL} is missing: build first')
    if os.environ.pop('TBNODE_BENCH_INSIDE', None) != '1':
        command = ['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--', 'sh', '-c',
                   'mount -t tmpfs none /run && ip link set lo up && exec "$@"', 'sh', sys.executable, *sys.argv]
        return subprocess.run(command, env={**os.environ, 'TBNODE_BENCH_INSIDE': '1'}, check=False).returncode
    print(json.dumps(bench(args.nodes, args.runs, exec_runs)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
