# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small laboratory of network namespaces for tests of netctl/.

A test program starts with `netlab.main()`, which runs it again inside a network namespace of its own ("the host"), so that
nothing it does can reach the machine's interfaces, queues or tables. Exit status 77 (skip) without root or `unshare`.
Oracles are tc, ip and iptables-legacy; traffic is real.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(os.environ.get('TBNODE_BUILD_DIR', pathlib.Path(__file__).resolve().parents[2] / 'build'))
TOOL = str(BUILD / 'netctl/tbnode-netctl')
TRAFFIC = str(pathlib.Path(__file__).resolve().with_name('traffic.py'))
LOG_ALL = '/proc/sys/net/netfilter/nf_log_all_netns'
NEEDED = ('unshare', 'nsenter', 'ip', 'tc', 'ping', 'iptables-legacy', 'iptables-legacy-save', 'nft')


def skip(why):
    print(f'SKIP: {why}', file=sys.stderr)
    sys.exit(77)


def main():
    if os.geteuid() != 0:
        skip('needs root')
    missing = [t for t in NEEDED if not shutil.which(t)]
    if missing:
        skip(f'needs {" ".join(missing)}')
    if os.environ.pop('TBNODE_NETLAB_INSIDE', None) != '1':
        # A mount namespace too: the machine's iptables lock is not ours to hold.
        command = ['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--', 'sh', '-c',
                   'mount -t tmpfs none /run && ip link set lo up && exec "$@"', 'sh', sys.executable, *sys.argv]
        environment, files = {**os.environ, 'TBNODE_NETLAB_INSIDE': '1'}, []
        if os.access(LOG_ALL, os.W_OK):
            files.append(os.open(LOG_ALL, os.O_RDWR))
            environment['TBNODE_NETLAB_LOG'] = str(files[0])
        sys.exit(subprocess.run(command, env=environment, pass_fds=files, check=False).returncode)
    unittest.main(verbosity=2)


class KernelLog:
    """What the kernel logs of packets in this namespace, from now on. The kernel says nothing of namespaces other than its first
    one, until net.netfilter.nf_log_all_netns is on, and that is a setting of the first one: main() opened it there."""

    def __init__(self):
        self.setting = int(os.environ.get('TBNODE_NETLAB_LOG', '-1'))
        if self.setting < 0 or not os.access('/dev/kmsg', os.R_OK):
            raise unittest.SkipTest(f'needs {LOG_ALL} and /dev/kmsg')
        self.before = os.pread(self.setting, 16, 0)
        os.pwrite(self.setting, b'1\n', 0)
        self.fd = os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def lines(self):
        """The texts that came since the last call."""
        found = []
        while True:
            try:
                found.append(os.read(self.fd, 8192).decode(errors='replace').partition(';')[2].split('\n')[0])
            except BrokenPipeError:
                continue  # the ring has overtaken us
            except BlockingIOError:
                return found

    def close(self):
        os.pwrite(self.setting, self.before, 0)
        os.close(self.fd)


def run(*command, check=True, stdin=None):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, input=stdin)
    if check and done.returncode != 0:
        raise AssertionError(f'{" ".join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}')
    return done


def js(*command):
    text = run(*command).stdout
    return json.loads(text) if text.strip() else []


def capabilities():
    return json.loads(run(TOOL, '--json', 'caps').stdout)


class Node:
    """A "container": a process in a network namespace of its own, with one veth per network."""

    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen(['unshare', '--net', 'sh', '-c', 'ip link set lo up && echo ready && exec sleep 600'],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == 'ready\n'
        self.pid = self.process.pid
        self.id = f'{name}x{self.pid}'
        self.traffic = []

    def run(self, *command, check=True):
        return run('nsenter', '--net', '-t', self.pid, *command, check=check)

    def start(self, *command):
        p = subprocess.Popen(['nsenter', '--net', '-t', str(self.pid), *map(str, command)], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True)
        self.traffic.append(p)
        return p

    def plug(self, bridge, address, ifname='eth0', host=None, mac=None, prefix=24):
        host = host or f'v{self.name}{len(run("ip", "-br", "link").stdout.splitlines())}'
        command = ['ip', 'link', 'add', host, 'type', 'veth', 'peer', 'name', ifname, 'netns', self.pid]
        run(*command)
        if mac:
            self.run('ip', 'link', 'set', ifname, 'address', mac)
        if bridge:
            run('ip', 'link', 'set', host, 'master', bridge)
        run('ip', 'link', 'set', host, 'up')
        self.run('ip', 'addr', 'add', f'{address}/{prefix}', 'dev', ifname)
        self.run('ip', 'link', 'set', ifname, 'up')
        return host

    def mac(self, ifname='eth0'):
        return json.loads(self.run('ip', '-j', 'link', 'show', ifname).stdout)[0]['address']

    def end(self):
        for p in self.traffic:
            p.kill()
            p.wait()
            p.stdout.close()
        self.traffic = []
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def bridge(name, address=None):
    run('ip', 'link', 'add', name, 'type', 'bridge', 'forward_delay', '0')
    if address:
        run('ip', 'addr', 'add', address, 'dev', name)
    run('ip', 'link', 'set', name, 'up')


def qdiscs(device=None):
    out = js('tc', '-j', 'qdisc', 'show', *(['dev', device] if device else []))
    return out


def class_rate(device):
    """Rate of our class, as tc writes it; None: there is none."""
    text = run('tc', 'class', 'show', 'dev', device).stdout
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ['class', 'htb']:
            return words[words.index('rate') + 1]
    return None


def snapshot():
    """Everything about links and queues that must be the same after removal, without counters, timers, and what the kernel
    finds out about a link in its own time (linkwatch)."""

    def stable(value):
        if isinstance(value, dict):
            return {k: stable(v) for k, v in value.items() if not k.endswith('_timer') and k != 'operstate'}
        return [stable(v) for v in value] if isinstance(value, list) else value

    return {
        'links': stable(js('ip', '-j', '-d', 'link')),
        'qdiscs': qdiscs(),
        'filters': {q['dev']: run('tc', 'filter', 'show', 'dev', q['dev'], 'parent', 'ffff:', check=False).stdout
                    for q in qdiscs()},
        'filter': rules(),
    }


def ours():
    """Everything of our firewall in this namespace, whatever the back end; [] is what removal must reach."""
    text = rules() + rules('nat') + rules(program='ip6tables') + run('nft', '-s', 'list', 'ruleset').stdout.splitlines()
    return [r.strip() for r in text if 'tbnode' in r.lower()]


def everything():
    """All rules of this namespace without counters, sorted: elements of sets have no order."""
    text = run('nft', '-s', 'list', 'ruleset').stdout.replace('elements = {', '').replace('}', '').replace(', ', ',\n')
    lines = [r.strip().rstrip(',').strip() for r in text.splitlines()]
    return sorted(rules() + rules('nat') + rules(program='ip6tables') + [r for r in lines if r])


def rules(table='filter', program='iptables'):
    """iptables-save without the counters of policies: any packet moves them, and iptables(8) resets them."""
    text = run(f'{program}-legacy-save', '-t', table).stdout
    return [line.split(' [')[0] for line in text.splitlines() if not line.startswith('#')]


class Lab(unittest.TestCase):
    """Two or more nodes on a bridge; everything is gone after each test, by the namespaces of the nodes and by hand."""

    maxDiff = None
    backend = 'iptables'
    options = ()  # of tbnode-netctl, before the command

    def setUp(self):
        self.nodes = []
        self.directory = tempfile.TemporaryDirectory()

    def tearDown(self):
        for n in self.nodes:
            n.end()
        run(TOOL, '--firewall', self.backend, 'sweep')
        for link in js('ip', '-j', 'link'):
            if link['ifname'] != 'lo':
                run('ip', 'link', 'del', link['ifname'], check=False)
        for program in ('iptables-legacy', 'ip6tables-legacy'):
            for table in ('filter', 'nat') if program == 'iptables-legacy' else ('filter',):
                run(program, '-t', table, '-F')
                run(program, '-t', table, '-X')
            for chain in ('INPUT', 'FORWARD', 'OUTPUT'):
                run(program, '-P', chain, 'ACCEPT')
        run('nft', 'flush', 'ruleset')
        self.directory.cleanup()

    def node(self, name):
        n = Node(name)
        self.nodes.append(n)
        return n

    def pair(self):
        """a (10.9.0.1) and b (10.9.0.2) on bridge br0, whose own address is 10.9.0.254."""
        bridge('br0', '10.9.0.254/24')
        a, b = self.node('a'), self.node('b')
        a.host = a.plug('br0', '10.9.0.1')
        b.host = b.plug('br0', '10.9.0.2')
        for n, other in ((a, '10.9.0.2'), (b, '10.9.0.1')):
            n.run('ping', '-c1', '-W5', other)
        return a, b

    def tool(self, *args, status=0):
        done = run(TOOL, '--firewall', self.backend, *self.options, *args, check=False)
        self.assertEqual(done.returncode, status, f'{args}: {done.stdout}{done.stderr}')
        return done

    def apply(self, nodes, site=None, status=0, verb='apply'):
        path = os.path.join(self.directory.name, 'nodes.json')
        with open(path, 'w', encoding='utf-8') as f:
            json.dump({'nodes': nodes, **({'site': site} if site else {})}, f)
        done = self.tool('--json', verb, path, status=status)
        report = json.loads(done.stdout)
        report['stderr'] = done.stderr
        return report

    def declare(self, node, interfaces, style='none'):
        return {'id': node.id, 'name': node.name, 'pid': node.pid, 'style': style, 'interfaces': interfaces}

    def measure(self, sender, receiver, address, mbit, seconds=3):
        """Sends UDP at 1.5 x `mbit` and returns the rate that arrives, in Mbit/s of layer 2 frames. A machine that has other
        things to do may send or take less than the link lets pass, but never more: too little is measured again."""
        best = 0
        for _ in range(4):
            best = max(best, self.measure_once(sender, receiver, address, mbit, seconds))
            if best >= 0.97 * mbit:
                break
        return best

    def measure_once(self, sender, receiver, address, mbit, seconds):
        r = receiver.start(sys.executable, TRAFFIC, 'receive', seconds)
        self.assertEqual(r.stdout.readline(), 'ready\n')
        s = sender.start(sys.executable, TRAFFIC, 'send', address, mbit * 1.5, seconds + 2)
        result = json.loads(r.stdout.readline())
        s.kill()
        return result['mbit']
