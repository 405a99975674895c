#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firewall of nodes: which packets really pass, and that nobody else's rules notice."""

import fcntl
import json
import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import netlab  # noqa: E402
from netlab import rules, run  # noqa: E402

LISTEN = '''
import socket, sys
s = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b"hello")
    c.close()
'''
CONNECT = '''
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)
print(s.recv(5).decode())
'''


class Behaviour:
    """What holds whatever the back end."""

    def listen(self, node, port):
        p = node.start(sys.executable, '-c', LISTEN, port)
        self.assertEqual(p.stdout.readline(), 'ready\n')

    def connects(self, node, address, port):
        command = [sys.executable, '-c', CONNECT, address, str(port)]
        done = node.run(*command, check=False) if node else run(*command, check=False)
        return done.returncode == 0 and done.stdout == 'hello\n'

    def pings(self, node, address, *more):
        return node.run('ping', '-c1', '-W1', *more, address, check=False).returncode == 0

    def protect(self, node, style, site=None, **interface):
        return self.apply([self.declare(node, [{'ifname': 'eth0', 'filtered': True, 'pinned': True, **interface}], style)],
                          site)

    def test_open_passes(self):
        a, b = self.pair()
        self.listen(a, 80)
        self.protect(a, 'open')
        self.assertTrue(self.pings(b, '10.9.0.1'))
        self.assertTrue(self.pings(a, '10.9.0.2'))
        self.assertTrue(self.connects(b, '10.9.0.1', 80))

    def test_closed_blocks_both_ways(self):
        a, b = self.pair()
        for port in (22, 80):
            self.listen(a, port)
            self.listen(b, port)
        self.assertTrue(self.connects(b, '10.9.0.1', 22))
        r = self.protect(a, 'closed')
        self.assertTrue(r['nodes'][0]['firewall'])
        self.assertFalse(self.pings(b, '10.9.0.1'))
        self.assertFalse(self.pings(a, '10.9.0.2'))
        self.assertFalse(self.connects(b, '10.9.0.1', 22))
        self.assertFalse(self.connects(b, '10.9.0.1', 80))
        self.assertFalse(self.connects(a, '10.9.0.2', 80))
        # The host gets in, the node does not get at the host.
        self.assertTrue(self.connects(None, '10.9.0.1', 22))
        self.assertFalse(self.pings(a, '10.9.0.254'))
        # Gateways of the site get in.
        self.protect(a, 'closed', {'gateways': ['10.9.0.2']})
        self.assertTrue(self.connects(b, '10.9.0.1', 22))
        self.assertTrue(self.pings(b, '10.9.0.1'))
        self.assertFalse(self.connects(a, '10.9.0.2', 80))
        # And it opens again without a trace.
        self.tool('remove', a.id)
        self.assertTrue(self.connects(a, '10.9.0.2', 80))
        self.assertEqual(netlab.ours(), [])

    def test_basic_lets_ssh_and_icmp_in(self):
        a, b = self.pair()
        for port in (22, 80):
            self.listen(a, port)
            self.listen(b, port)
        self.protect(a, 'basic', {'dns': ['10.9.0.2']})
        self.assertTrue(self.connects(b, '10.9.0.1', 22))
        self.assertFalse(self.connects(b, '10.9.0.1', 80))
        self.assertTrue(self.pings(b, '10.9.0.1'))
        self.assertTrue(self.pings(a, '10.9.0.2'))
        self.assertFalse(self.connects(a, '10.9.0.2', 80))
        self.listen(b, 53)
        self.assertTrue(self.connects(a, '10.9.0.2', 53))

    def test_spoofed_sources_are_dropped(self):
        a, b = self.pair()
        a.run('ip', 'addr', 'add', '10.9.0.77/24', 'dev', 'eth0')
        self.assertTrue(self.pings(a, '10.9.0.2', '-I', '10.9.0.77'))
        for style in ('open', 'basic'):
            self.protect(a, style, ipv4='10.9.0.1')
            self.assertFalse(self.pings(a, '10.9.0.2', '-I', '10.9.0.77'), style)
            self.assertFalse(self.pings(a, '10.9.0.254', '-I', '10.9.0.77'), f'{style}: to the host itself')
            self.assertTrue(self.pings(a, '10.9.0.2', '-I', '10.9.0.1'), style)

    def test_routed_to_another_network(self):
        """Through the host's routing instead of the bridge: the same styles hold."""
        a, _ = self.pair()
        netlab.bridge('br1', '10.8.0.254/24')
        c = self.node('c')
        c.plug('br1', '10.8.0.1')
        run('sysctl', '-q', 'net.ipv4.ip_forward=1')
        a.run('ip', 'route', 'add', 'default', 'via', '10.9.0.254')
        c.run('ip', 'route', 'add', 'default', 'via', '10.8.0.254')
        self.listen(a, 22)
        self.assertTrue(self.connects(c, '10.9.0.1', 22))
        self.protect(a, 'closed')
        self.assertFalse(self.connects(c, '10.9.0.1', 22))
        self.assertFalse(self.pings(a, '10.8.0.1'))
        self.protect(a, 'closed', {'servers': ['10.8.0.0/24']})
        self.assertTrue(self.connects(c, '10.9.0.1', 22))
        self.assertFalse(self.pings(a, '10.8.0.1'))

    def test_veth_without_bridge(self):
        a = self.node('a')
        host = a.plug(None, '10.7.0.1')
        run('ip', 'addr', 'add', '10.7.0.254/24', 'dev', host)
        self.listen(a, 22)
        self.protect(a, 'closed')
        self.assertTrue(self.connects(None, '10.7.0.1', 22))
        self.assertFalse(self.pings(a, '10.7.0.254'))
        self.protect(a, 'open')
        self.assertTrue(self.pings(a, '10.7.0.254'))
        a.run('ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:77')
        self.assertFalse(self.pings(a, '10.7.0.254'), 'with another MAC')

    def test_two_nodes_both_sides_count(self):
        """What one node's chain allows must still pass the other's: "allowed" is not ACCEPT."""
        a, b = self.pair()
        self.listen(b, 53)
        self.apply([self.declare(a, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], 'basic'),
                    self.declare(b, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], 'closed')],
                   {'dns': ['10.9.0.2']})
        self.assertFalse(self.connects(a, '10.9.0.2', 53))

    def test_bridge_nf_is_turned_on_and_said(self):
        a, b = self.pair()
        run('sysctl', '-q', 'net.bridge.bridge-nf-call-iptables=0')
        r = self.protect(a, 'closed')
        self.assertTrue(r['nodes'][0]['bridge_nf_enabled'])
        self.assertFalse(self.pings(b, '10.9.0.1'))
        r = self.protect(a, 'closed')
        self.assertFalse(r['nodes'][0]['bridge_nf_enabled'])

    def test_style_change_and_other_nodes_untouched(self):
        a, b = self.pair()
        self.protect(a, 'closed')
        self.protect(b, 'basic')
        mine = [r for r in netlab.everything() if a.id[:12] in r]
        self.assertTrue(mine)
        self.protect(b, 'open')
        self.assertEqual([r for r in netlab.everything() if a.id[:12] in r], mine)
        self.tool('remove', b.id)
        self.assertEqual([r for r in netlab.everything() if a.id[:12] in r], mine)

    def test_many_nodes_one_commit(self):
        netlab.bridge('br0', '10.9.0.254/16')
        nodes = [self.node(f'm{i}') for i in range(30)]
        for i, x in enumerate(nodes):
            x.plug('br0', f'10.9.1.{i + 1}', prefix=16)
        declared = [self.declare(x, [{'mac': x.mac(), 'filtered': True, 'pinned': True, 'shape': 'rate 10mbit'}], 'closed')
                    for x in nodes]
        r = self.apply(declared)
        # One batch of the host's, and one in each container: its offloads.
        self.assertEqual((r['firewall_commits'], r['netlink_sends']), (self.commits, 1 + len(nodes)))
        self.assertEqual(self.apply(declared)['firewall_commits'], 0)
        self.assertFalse(self.pings(nodes[3], '10.9.1.9'))
        keep = [x.id for x in nodes[:5]]
        self.tool('sweep', *keep)
        self.assertEqual(self.chains_of('m'), {x.id[:12] for x in nodes[:5]})
        self.assertEqual(run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 5)


class Iptables(Behaviour, netlab.Lab):
    backend = 'iptables'
    commits = 3  # the guard's, and one each for IPv4 and IPv6

    def chains_of(self, prefix):
        return {r.split()[0][8:].rsplit('-', 1)[0] for r in rules() if r.startswith(f':TBNODE-{prefix}')}

    def test_others_survive_bit_for_bit(self):
        a, b = self.pair()
        run('iptables-legacy-restore', '-c', stdin='\n'.join([
            '*filter', ':INPUT ACCEPT [11:1111]', ':FORWARD ACCEPT [22:2222]', ':OUTPUT ACCEPT [33:3333]',
            ':DOCKER-USER - [0:0]', ':THEIRS - [0:0]', '[5:500] -A INPUT -s 192.0.2.1/32 -j DROP',
            '[7:700] -A FORWARD -j DOCKER-USER', '[1:100] -A FORWARD -m comment --comment "keep \\"me\\"" -j THEIRS',
            '[3:300] -A DOCKER-USER -i docker0 -p tcp -m multiport --dports 1,2,3 -j RETURN',
            '[9:900] -A THEIRS -p icmp -m icmp --icmp-type 8 -m limit --limit 5/min -j LOG --log-prefix "x "', 'COMMIT', '']))

        def save():
            text = [r for r in run('iptables-legacy-save', '-c').stdout.splitlines() if not r.startswith('#')]
            return [r for r in text if 'TBNODE' not in r]

        def same():
            """All as before. The bridge reports its multicast groups when it likes: what leaves the host may grow."""
            now = save()
            self.assertEqual([re.sub(r'^(:(?:OUTPUT|POSTROUTING) \S+) .*', r'\1', r) for r in now],
                             [re.sub(r'^(:(?:OUTPUT|POSTROUTING) \S+) .*', r'\1', r) for r in before])
            for old, new in zip(before, now):
                for c, d in zip(re.findall(r'\[(\d+):(\d+)\]', old), re.findall(r'\[(\d+):(\d+)\]', new)):
                    self.assertLessEqual((int(c[0]), int(c[1])), (int(d[0]), int(d[1])), f'{old} became {new}')

        before = save()
        self.assertIn(':FORWARD ACCEPT [22:2222]', before)
        self.assertTrue([r for r in before if r.startswith('[7:700] -A FORWARD')], before)
        nodes = [self.declare(n, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], 'closed') for n in (a, b)]
        self.apply(nodes)
        same()
        self.assertTrue([r for r in rules() if 'TBNODE' in r])
        self.assertEqual(rules()[rules().index('-A FORWARD -j TBNODE-FORWARD') + 1], '-A FORWARD -j DOCKER-USER')
        self.tool('sweep')
        same()
        self.assertFalse([r for r in rules() if 'TBNODE' in r])

    def test_drift_is_repaired(self):
        a, b = self.pair()
        nodes = [self.declare(n, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], 'closed') for n in (a, b)]
        self.apply(nodes)

        def shown():
            return sorted(rules())

        good = shown()
        chain = next(r.split()[0][1:] for r in rules() if r.startswith(f':TBNODE-{a.id[:12]}-I'))
        for damage in (('-D', 'FORWARD', '-j', 'TBNODE-FORWARD'), ('-I', 'FORWARD', '-j', 'ACCEPT'), ('-F',),
                       ('-F', chain), ('-I', chain, '-j', 'ACCEPT'), ('-D', 'TBNODE-FORWARD', '1')):
            run('iptables-legacy', *damage)
            r = self.apply(nodes)
            self.assertEqual(r['firewall_commits'], 1, damage)
            run('iptables-legacy', '-D', 'FORWARD', '-j', 'ACCEPT', check=False)
            self.assertEqual(shown(), good, damage)
            self.assertEqual(self.apply(nodes)['firewall_commits'], 0, damage)

    def test_lock_is_respected_and_bounded(self):
        a, _ = self.pair()
        before = netlab.snapshot()
        with open('/run/xtables.lock', 'w', encoding='utf-8') as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            begin = time.monotonic()
            r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 1mbit', 'filtered': True}], 'closed')], status=1)
            self.assertLess(time.monotonic() - begin, 15)
            self.assertTrue(r['nodes'][0]['error']['retryable'])
            self.assertIn('iptables lock', r['nodes'][0]['error']['message'])
            self.assertEqual(netlab.qdiscs(), before['qdiscs'], 'shaping rolled back with it')
        self.protect(a, 'closed')
        # An unchanged host doesn't wait for the lock.
        with open('/run/xtables.lock', 'w', encoding='utf-8') as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            self.assertEqual(self.protect(a, 'closed')['firewall_commits'], 0)

    def test_beside_concurrent_iptables(self):
        a, b = self.pair()
        failed = []

        def others():
            for i in range(60):
                for op in ('-A', '-D') if i % 2 else ('-A',):
                    done = run('iptables-legacy', '-w', '10', op, 'FORWARD', '-s', f'192.0.2.{i + 1}', '-j', 'DROP', check=False)
                    if done.returncode != 0:
                        failed.append(done.stderr)

        thread = threading.Thread(target=others)
        thread.start()
        n = 0
        while thread.is_alive():
            self.apply([self.declare(x, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], ('closed', 'basic')[n % 2])
                        for x in (a, b)])
            n += 1
        thread.join()
        self.assertEqual(failed, [])
        left = [r for r in rules() if '192.0.2.' in r]
        self.assertEqual(left, [f'-A FORWARD -s 192.0.2.{i + 1}/32 -j DROP' for i in range(0, 60, 2)])
        self.assertGreater(n, 0)


class Nftables(Behaviour, netlab.Lab):
    backend = 'nftables'
    commits = 1

    def chains_of(self, prefix):
        text = run('nft', '-s', 'list', 'ruleset').stdout.splitlines()
        return {r.split()[1][1:].rsplit('-', 1)[0] for r in text if r.startswith(f'\tchain n{prefix}') and '-' in r}

    def both(self, style='closed'):
        return [self.declare(n, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], style) for n in self.nodes]

    def test_others_survive(self):
        self.pair()
        run('nft', '-f', '-', stdin='''
            table inet theirs {
                map m { type ifname . ipv4_addr : verdict; elements = { "eth0" . 192.0.2.1 : drop } }
                chain c { type filter hook forward priority -10; policy accept; counter packets 5 bytes 500 ip saddr 192.0.2.1 drop; }
            }
            table bridge theirs {
                chain c { type filter hook prerouting priority -310; counter accept; }
            }''')

        def theirs():
            return [run('nft', '-s', 'list', 'table', family, 'theirs').stdout for family in ('inet', 'bridge')]

        before = theirs()
        self.apply(self.both())
        self.assertEqual(theirs(), before)
        self.tool('sweep')
        self.assertEqual((theirs(), netlab.ours()), (before, []))

    def test_drift_is_repaired(self):
        a, _ = self.pair()
        self.apply(self.both())
        good = netlab.everything()
        chain = f'n{a.id[:12]}-in'
        for damage in ('flush ruleset', 'delete table inet tbnode', 'delete table bridge tbnode-guard',
                       'flush chain inet tbnode forward', f'flush chain inet tbnode {chain}', f'insert rule inet tbnode {chain} accept',
                       f'delete rule inet tbnode {chain} handle HANDLE', 'flush map inet tbnode out4',
                       'flush map bridge tbnode-guard ports', 'add element inet tbnode direct { "lo" }',
                       f'add chain inet tbnode n{a.id[:12]}-more', 'delete chain inet tbnode input'):
            text = run('nft', '-a', 'list', 'chain', 'inet', 'tbnode', chain).stdout.splitlines()
            damage = damage.replace('HANDLE', next(r.split()[-1] for r in text if 'state established' in r))
            run('nft', damage)
            self.assertNotEqual(netlab.everything(), good, damage)
            self.assertEqual(self.apply(self.both())['firewall_commits'], 1, damage)
            self.assertEqual(netlab.everything(), good, damage)
            self.assertEqual(self.apply(self.both())['firewall_commits'], 0, damage)

    def test_can_be_saved_and_loaded(self):
        """What `nft list ruleset` prints is what `nft -f` reads, also for ids that begin with a digit."""
        a, b = self.pair()
        nodes = [{**n, 'id': f'{k}f{n["id"]}'} for k, n in enumerate(self.both('basic'))]
        c = self.node('c')
        c.plug(None, '10.7.0.1')
        nodes.append(self.declare(c, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], 'open'))
        self.apply(nodes)
        good = netlab.everything()
        saved = run('nft', 'list', 'ruleset').stdout
        run('nft', 'flush', 'ruleset')
        run('nft', '-f', '-', stdin=saved)
        self.assertEqual(netlab.everything(), good)
        self.assertEqual(self.apply(nodes)['firewall_commits'], 0)
        self.assertFalse(self.connects(b, '10.9.0.1', 80))

    def test_beside_concurrent_nft(self):
        a, b = self.pair()
        failed = []

        def others():
            run('nft', 'add table inet busy')
            run('nft', 'add chain inet busy c')
            for i in range(150):
                done = run('nft', f'add rule inet busy c ip saddr 192.0.2.{i + 1} drop', check=False)
                if done.returncode != 0:
                    failed.append(done.stderr)

        thread = threading.Thread(target=others)
        thread.start()
        n = 0
        while thread.is_alive():
            self.apply([self.declare(x, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], ('closed', 'basic')[n % 2])
                        for x in (a, b)])
            n += 1
        thread.join()
        self.assertEqual(failed, [])
        self.assertEqual(run('nft', 'list', 'chain', 'inet', 'busy', 'c').stdout.count('192.0.2.'), 150)
        self.assertGreater(n, 0)


FLOOD = '''
import select, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
n = 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    for port in (5000, 5001):
        s.sendto(b"%d" % n, (sys.argv[1], port))
    n += 1
print(n, flush=True)
'''
COUNT = '''
import select, socket, sys
both = {}
for port in (5000, 5001):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind(("", port))
    both[s] = [port, 0]
print("ready", flush=True)
while True:
    ready = select.select([sys.stdin, *both], [], [])[0]
    for s in ready:
        if s in both:
            s.recv(100)
            both[s][1] += 1
    if ready == [sys.stdin]:
        break
print(*(n for _, n in both.values()), flush=True)
'''


class Switch(netlab.Lab):
    """From one back end to the other and back, while packets come: none that is forbidden passes, none that is allowed is lost."""

    def helper(self, node, program, *args):
        p = netlab.subprocess.Popen(['nsenter', '--net', '-t', str(node.pid), sys.executable, '-c', program, *args],
                                    stdin=netlab.subprocess.PIPE, stdout=netlab.subprocess.PIPE, text=True)
        self.assertEqual(p.stdout.readline(), 'ready\n')
        return p

    def test_switch_under_traffic(self):
        a, b = self.pair()
        nodes = [{**self.declare(a, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], 'closed; allow udp to port 5000')},
                 self.declare(b, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], 'open')]
        self.apply(nodes)
        count = self.helper(a, COUNT)
        flood = self.helper(b, FLOOD, '10.9.0.1')
        for k in range(8):
            self.backend = ('nftables', 'iptables')[k % 2]
            self.apply(nodes)
            legacy = [r for r in rules() if 'TBNODE' in r]
            table = run('nft', 'list', 'table', 'inet', 'tbnode', check=False).returncode == 0
            self.assertEqual((bool(legacy), table), ((False, True), (True, False))[k % 2])
            self.assertEqual(self.apply(nodes)['firewall_commits'], 0)
        sent = int(flood.communicate('\n')[0])
        run('ping', '-c1', '-W5', '10.9.0.1')  # behind everything that was sent
        received = count.communicate('\n')[0].split()
        self.assertGreater(sent, 0)
        self.assertEqual(received, [str(sent), '0'])


if __name__ == '__main__':
    netlab.main()
