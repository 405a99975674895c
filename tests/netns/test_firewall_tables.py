#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firewall of nodes: who they may claim to be, whom they may meet, rules of users, address translation, IPv6, and what is
read back from the kernel. What passes is found out by packets."""

import ipaddress
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import netlab  # noqa: E402
from netlab import rules, run  # noqa: E402

LISTEN = '''
import socket, sys
s = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    c, peer = s.accept()
    c.sendall(peer[0].removeprefix("::ffff:").encode())
    c.close()
'''
CONNECT = '''
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
print(s.recv(50).decode())
'''
SEND = '''
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
for _ in range(30):
    s.sendto(b"x", (sys.argv[2], 9))
'''
# How often a node comes and goes.
FLAPS = 1000 if os.environ.get('TBNODE_TEST_LONG') == 'yes' else 50
# Lines of one rule in the kernel's log that may come at once (FW_LOG_BURST), and one that a slow machine gives time for.
LOGGED = 6
# How long is waited for an answer: one that must come is waited for as long as a busy machine may need, and ends the waiting.
PATIENCE = 5
# One that must not come.
SILENCE = 0.4


def link_local(mac):
    b = bytes.fromhex(mac.replace(':', ''))
    return str(ipaddress.IPv6Address(b'\xfe\x80' + bytes(6) + bytes([b[0] ^ 2]) + b[1:3] + b'\xff\xfe' + b[3:]))


class Tables:
    """What holds whatever the back end."""

    def listen(self, node, port):
        if node:
            p = node.start(sys.executable, '-c', LISTEN, port)
        else:
            p = netlab.subprocess.Popen([sys.executable, '-c', LISTEN, str(port)], stdout=netlab.subprocess.PIPE, text=True)
            self.addCleanup(lambda: (p.kill(), p.wait(), p.stdout.close()))
        self.assertEqual(p.stdout.readline(), 'ready\n')

    def seen_as(self, node, address, port):
        """The source address that the other side sees."""
        command = [sys.executable, '-c', CONNECT, address, port, PATIENCE]
        return (node.run(*command) if node else run(*command)).stdout.strip()

    def connection(self, node, address, port):
        return node, lambda seconds: [sys.executable, '-c', CONNECT, address, port, seconds]

    def ping(self, node, address, *more):
        return node, lambda seconds: ['ping', '-c1', f'-W{seconds}', *more, address]

    def expect(self, passes=(), fails=(), about=None):
        """Tries all of these at once; one packet each."""
        def start(node, command):
            enter = ['nsenter', '--net', '-t', node.pid] if node else []
            return netlab.subprocess.Popen([str(c) for c in (*enter, *command)], stdout=netlab.subprocess.DEVNULL,
                                           stderr=netlab.subprocess.DEVNULL)

        tried = [(True, *p) for p in passes] + [(False, *f) for f in fails]
        running = [start(node, command(PATIENCE if wanted else SILENCE)) for wanted, node, command in tried]
        for p, (wanted, node, command) in zip(running, tried):
            what = f'{node.name if node else "host"}: {" ".join(map(str, command(0)[-4:]))} {about or ""}'
            self.assertEqual(p.wait() == 0, wanted, what)

    def forget_neighbours(self, *nodes):
        """A kernel that asks for a neighbour in vain gives up after three seconds and drops what waited: who was cut off a moment
        ago may lose a packet by that, whatever the firewall does now. So everybody starts anew."""
        for n in nodes:
            n.run('ip', 'neigh', 'flush', 'all')
        run('ip', 'neigh', 'flush', 'all')

    def node_json(self, node, style, interface=None, **more):
        n = self.declare(node, [{'ifname': 'eth0', 'filtered': True, 'pinned': True, **(interface or {})}], style)
        n.update(more)
        return n

    def protect(self, node, style, site=None, interface=None, **more):
        return self.apply([self.node_json(node, style, interface, **more)], site)

    def read(self, nodes, site=None):
        path = os.path.join(self.directory.name, 'read.json')
        with open(path, 'w', encoding='utf-8') as f:
            json.dump({'nodes': nodes, **({'site': site} if site else {})}, f)
        return [n['firewall'] for n in json.loads(self.tool('firewall', path).stdout)]

    def wait_for_ipv6(self, *nodes):
        """Until link-local addresses may be used (duplicate address detection)."""
        for n in nodes:
            while 'tentative' in n.run('ip', '-6', 'addr').stdout:
                time.sleep(0.05)

    def nothing_left(self):
        self.tool('sweep')
        self.assertEqual(netlab.ours(), [])

    def test_rules_of_users(self):
        a, b = self.pair()
        for port in (80, 81, 8005):
            self.listen(a, port)
        self.listen(b, 90)
        self.protect(a, 'closed; deny tcp from 10.9.0.254 to port 80; allow tcp from 10.9.0.0/24 to port 80,8000-8010; '
                        'allow out tcp to 10.9.0.2')
        self.expect([self.connection(b, '10.9.0.1', 80), self.connection(b, '10.9.0.1', 8005),
                     self.connection(a, '10.9.0.2', 90)],
                    [self.connection(b, '10.9.0.1', 81), self.ping(a, '10.9.0.2')])
        self.protect(a, 'basic; deny icmp echo; deny out icmp', {'rules': 'allow tcp to port 81'})
        self.expect([self.connection(b, '10.9.0.1', 81)], [self.ping(b, '10.9.0.1'), self.connection(b, '10.9.0.1', 80)])
        self.protect(a, 'open; deny tcp to port 80')
        self.expect([self.connection(b, '10.9.0.1', 81)], [self.connection(b, '10.9.0.1', 80)])
        self.nothing_left()

    def test_mac_is_pinned(self):
        a, b = self.pair()
        self.protect(a, 'open')
        self.expect([self.ping(a, '10.9.0.2')])
        a.run('ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:77')
        self.expect(fails=[self.ping(a, '10.9.0.2'), self.ping(a, '10.9.0.254')])

    def test_ipv6_is_pinned(self):
        a, b = self.pair()
        b.run('ip', 'addr', 'add', 'fd00::2/64', 'dev', 'eth0', 'nodad')
        for address in ('fd00::1/64', 'fd00::77/64'):
            a.run('ip', 'addr', 'add', address, 'dev', 'eth0', 'nodad')
        self.wait_for_ipv6(a, b)
        self.expect([self.ping(a, 'fd00::2', '-I', 'fd00::77')])
        local = link_local(b.mac())
        self.protect(a, 'open')
        self.expect([self.ping(a, f'{local}%eth0')], [self.ping(a, 'fd00::2', '-I', 'fd00::1')])
        self.protect(a, 'open', interface={'ipv6': ['fd00::1']})
        # In this order: who asks for a neighbour asks with the address of the first packet, of a forged one in vain.
        self.forget_neighbours(a, b)
        self.expect([self.ping(a, 'fd00::2', '-I', 'fd00::1'), self.ping(a, f'{local}%eth0')])
        self.expect(fails=[self.ping(a, 'fd00::2', '-I', 'fd00::77')])
        # Styles hold there as well, and neighbours are found.
        self.listen(a, 80)
        self.forget_neighbours(a, b)
        self.protect(a, 'closed; allow tcp from fd00::/64 to port 80', interface={'ipv6': ['fd00::1']})
        self.expect([self.connection(b, 'fd00::1', 80)], [self.ping(b, 'fd00::1')])

    def test_isolation(self):
        a, b = self.pair()
        self.wait_for_ipv6(a, b)
        for groups, passes in (((1, 2), False), ((1, 1), True), ((1, 0), True), ((65535, 2), False)):
            self.apply([self.node_json(n, 'open', group=g) for n, g in zip((a, b), groups)])
            self.forget_neighbours(a, b)
            each = [self.ping(a, '10.9.0.2'), self.ping(b, '10.9.0.1'), self.ping(a, f'{link_local(b.mac())}%eth0')]
            host = self.ping(a, '10.9.0.254')
            self.expect([host, *(each if passes else [])], [] if passes else each, about=groups)

    def routed(self):
        """c (10.8.0.1) on another bridge; the host routes."""
        a, b = self.pair()
        netlab.bridge('br1', '10.8.0.254/24')
        c = self.node('c')
        c.plug('br1', '10.8.0.1')
        run('sysctl', '-q', 'net.ipv4.ip_forward=1')
        for n, gateway in ((a, '10.9.0.254'), (b, '10.9.0.254'), (c, '10.8.0.254')):
            n.run('ip', 'route', 'add', 'default', 'via', gateway)
        return a, b, c

    def test_isolation_through_the_host(self):
        a, _, c = self.routed()
        self.apply([self.node_json(n, 'open', group=g) for n, g in ((a, 1), (c, 2))])
        self.expect(fails=[self.ping(a, '10.8.0.1'), self.ping(c, '10.9.0.1')])
        self.apply([self.node_json(n, 'open', group=2) for n in (a, c)])
        self.forget_neighbours(a, c)
        self.expect([self.ping(a, '10.8.0.1')])

    def test_isolation_through_the_host_with_ipv6(self):
        a, _, c = self.routed()
        run('sysctl', '-q', 'net.ipv6.conf.all.forwarding=1')
        for n, network, bridge in ((a, 'fd00:9:', 'br0'), (c, 'fd00:8:', 'br1')):
            n.run('ip', 'addr', 'add', f'{network}:1/64', 'dev', 'eth0', 'nodad')
            run('ip', 'addr', 'add', f'{network}:fe/64', 'dev', bridge, 'nodad')
            n.run('ip', '-6', 'route', 'add', 'default', 'via', f'{network}:fe')
        self.wait_for_ipv6(a, c)
        each = [self.ping(a, 'fd00:8::1'), self.ping(c, 'fd00:9::1')]
        self.expect(each)
        for groups, passes in (((1, 2), False), ((2, 2), True), ((1, 0), True)):
            self.apply([self.node_json(n, 'open', {'ipv6': [address]}, group=g)
                        for n, g, address in ((a, groups[0], 'fd00:9::1'), (c, groups[1], 'fd00:8::1'))])
            self.forget_neighbours(a, c)
            self.expect(each if passes else [], [] if passes else each, about=groups)

    def test_host_is_closed_but_for_what_is_declared(self):
        a, _ = self.pair()
        self.listen(None, 5000)
        self.listen(None, 7777)
        self.wait_for_ipv6(a)
        host = run('ip', '-6', '-br', 'addr', 'show', 'br0', 'scope', 'link').stdout.split()[2].split('/')[0]
        six = self.connection(a, f'{host}%eth0', 5000)
        self.expect([six], about='without a firewall')
        site = {'agent': '10.9.0.254', 'agent_port': 7777}
        for style in ('open', 'basic', 'closed'):
            self.protect(a, style, site)
            self.expect(fails=[self.connection(a, '10.9.0.254', 5000), self.connection(a, '10.9.0.254', 7777), six], about=style)
            self.protect(a, style, site, agent=True)
            self.expect([self.connection(a, '10.9.0.254', 7777)], [self.connection(a, '10.9.0.254', 5000)], about=style)
            self.protect(a, f'{style}; allow out tcp to 10.9.0.254 port 5000', site)
            self.expect([self.connection(a, '10.9.0.254', 5000)], about=style)
        # An interface that the style does not hold for is no way in either.
        self.protect(a, 'open', interface={'filtered': False})
        self.expect([self.ping(a, '10.9.0.2')], [self.connection(a, '10.9.0.254', 5000), six])

    def test_ssh_port(self):
        a, b, c = self.routed()
        self.listen(a, 22)
        self.listen(b, 22)
        self.apply([self.node_json(a, 'basic', ssh_port=2201), self.node_json(b, 'closed', ssh_port=2202)])
        self.assertEqual(self.seen_as(c, '10.8.0.254', 2201), '10.8.0.1')
        self.expect([self.connection(c, '10.9.0.254', 2201), self.connection(None, '10.9.0.254', 2201)],
                    [self.connection(c, '10.8.0.254', 2202), self.connection(c, '10.8.0.254', 2203)],
                    about='its style says no')
        before = [r for r in netlab.everything() if a.id[:12] in r]
        self.assertTrue(before)
        self.protect(b, 'basic', ssh_port=2210)
        self.assertEqual([r for r in netlab.everything() if a.id[:12] in r], before)
        self.expect([self.connection(c, '10.8.0.254', 2210)], [self.connection(c, '10.8.0.254', 2202)])
        self.tool('remove', a.id)
        self.expect(fails=[self.connection(c, '10.8.0.254', 2201)])
        self.nothing_left()

    def test_masquerade(self):
        a, b, c = self.routed()
        self.listen(c, 80)
        self.listen(b, 80)
        site = {'masquerade': ['10.9.0.0/24']}
        self.protect(a, 'open', site)
        self.assertEqual(self.seen_as(a, '10.8.0.1', 80), '10.8.0.254')
        self.assertEqual(self.seen_as(a, '10.9.0.2', 80), '10.9.0.1')
        self.protect(a, 'open', {**site, 'networks': ['10.8.0.0/16']})
        self.assertEqual(self.seen_as(a, '10.8.0.1', 80), '10.9.0.1')
        self.nothing_left()

    def everything(self, a, b):
        site = {'masquerade': ['10.9.0.0/24'], 'networks': ['10.0.0.0/8'], 'log': True, 'dns': ['10.9.0.2'], 'ntp': ['fd00::5'],
                'rules': 'allow udp from port 123 to port 1-1000', 'gateways': ['10.9.0.254']}
        nodes = [self.node_json(a, 'closed; allow log tcp to port 80,90-99; deny icmp echo; allow out proto 47 to fd00::/8',
                                {'ipv6': ['fd00::1']}, group=1, ssh_port=2201),
                 self.node_json(b, 'basic', group=2, ssh_port=2202)]
        return nodes, site

    def test_flapping(self):
        """A node that comes and goes leaves nothing, and its neighbour's rules are not touched."""
        a, b = self.pair()
        site = {'log': True}
        self.protect(b, 'closed; allow tcp to port 80', site, ssh_port=2202, group=2)
        before = netlab.everything()
        one = self.node_json(a, 'closed; allow tcp to port 80,90; allow out udp', {'ipv6': ['fd00::1']}, group=1, ssh_port=2201)
        for i in range(FLAPS):
            one['id'] = f'{i:012x}'
            self.apply([one], site)
            self.tool('remove', one['id'])
        self.assertEqual(netlab.everything(), before)
        self.tool('remove', b.id)
        self.assertEqual(netlab.ours(), [])

    def test_others_at_any_instant(self):
        """Somebody flushes everything and loads their own again, all the time, while nodes change: no call of ours fails, and when
        it is over, one call makes everything right, theirs and ours."""
        a, b = self.pair()
        self.listen(a, 80)
        self.listen(a, 81)
        theirs = os.path.join(self.directory.name, 'theirs')
        with open(theirs, 'w', encoding='utf-8') as f:
            f.write(self.THEIRS)
        loop = netlab.subprocess.Popen(['bash', '-c', 'while :; do ' + self.LOAD.format(theirs) +
                                        '; sleep 0.0$((RANDOM % 10)); done'], stderr=netlab.subprocess.DEVNULL)
        try:
            for i in range(15):
                self.apply([self.node_json(a, ('open', 'closed')[i % 2], group=1), self.node_json(b, 'open', group=1)])
                self.tool('remove', b.id)
        finally:
            loop.kill()
            loop.wait()
        run('bash', '-c', self.LOAD.format(theirs))
        nodes = [self.node_json(a, 'closed; allow tcp to port 80', group=1), self.node_json(b, 'open', group=1)]
        self.apply(nodes)
        self.assertTrue(all(n['intact'] for n in self.read(nodes)))
        self.assertEqual(self.apply(nodes)['firewall_commits'], 0)
        self.assertIn('192.0.2.77', run('bash', '-c', self.SAVE).stdout)
        self.expect([self.connection(b, '10.9.0.1', 80)], [self.connection(b, '10.9.0.1', 81)])
        self.nothing_left()
        self.assertIn('192.0.2.77', run('bash', '-c', self.SAVE).stdout)

    def test_log(self):
        """Who was denied what is in the kernel's log with the node's name; a flood is not."""
        a, b = self.pair()
        log = netlab.KernelLog()
        self.addCleanup(log.close)
        names = [f'{x}{os.getpid()}' for x in ('one', 'two')]
        b.run('ip', 'addr', 'add', '10.9.0.77/24', 'dev', 'eth0')
        for n in (a, b):
            # Who joins IPv6's groups is denied and logged as well, and takes lines away from those that are looked for.
            n.run('sysctl', '-q', 'net.ipv6.conf.all.disable_ipv6=1')

        def flood(source, address, what, line):
            log.lines()
            b.run(sys.executable, '-c', SEND, source, address)
            found = [x for x in log.lines() if what in x]
            self.assertTrue(1 <= len(found) <= LOGGED, found)
            self.assertTrue(any(all(word in x for word in line) for x in found), found)

        site = {'log': True}
        self.apply([self.node_json(a, 'closed; deny log udp to port 9', name=names[0], group=1),
                    self.node_json(b, 'open', name=names[1], group=1)], site)
        flood('10.9.0.2', '10.9.0.1', f'tbnode {names[0]} in: ', ('SRC=10.9.0.2', 'DST=10.9.0.1', 'DPT=9'))
        flood('10.9.0.77', '10.9.0.1', f'tbnode {names[1]} guard: ', ('SRC=10.9.0.77', 'DST=10.9.0.1'))
        flood('10.9.0.2', '10.9.0.254', f'tbnode {names[1]} host: ', ('SRC=10.9.0.2', 'DST=10.9.0.254'))
        self.apply([self.node_json(b, 'open', name=names[1], group=2)], site)
        flood('10.9.0.2', '10.9.0.1', f'tbnode {names[1]} isolation: ', ('SRC=10.9.0.2', 'DST=10.9.0.1'))

    def test_what_is_read_back(self):
        a, b = self.pair()
        nodes = [self.node_json(a, 'closed; allow tcp to port 80'), self.node_json(b, 'open')]
        self.apply(nodes)
        self.listen(a, 80)
        self.expect([self.connection(b, '10.9.0.1', 80)], [self.connection(b, '10.9.0.1', 81)])
        b.run('ip', 'addr', 'add', '10.9.0.77/24', 'dev', 'eth0')
        self.expect(fails=[self.ping(b, '10.9.0.1', '-I', '10.9.0.77')])
        one, two = self.read(nodes)
        self.assertTrue(one['present'] and one['intact'] and two['intact'])
        allowed = next(r for r in one['rules'] if r['rule'] == 'allow in tcp to port 80')
        self.assertEqual((allowed['from'], allowed['packets']), ('user', 1))
        self.assertGreaterEqual(one['counters']['dropped']['rules'], 1)
        self.assertGreaterEqual(two['counters']['dropped']['identity'], 1)
        self.assertGreater(one['counters']['in']['packets'], 3)
        self.assertEqual(one['found'], [])
        self.damage(a, nodes)

    def test_many_are_found(self):
        """Every node of many finds its own chain, whatever the trees look like; and a node that comes or goes leaves the
        others' chains alone."""
        netlab.bridge('br0', '10.9.0.254/16')
        nodes = [self.node(f'm{i}') for i in range(20)]
        for i, n in enumerate(nodes):
            n.plug('br0', f'10.9.{i % 3}.{i + 1}', prefix=16, host=f'veth{i * 7919 % 4096:03x}')
            self.listen(n, 80)
        declared = [self.node_json(n, f'closed; allow tcp from 10.9.{i % 3}.{i + 1} to port 1; allow tcp to port 80' if i % 2
                                   else 'closed') for i, n in enumerate(nodes)]
        for k in range(0, 20, 5):
            self.apply(declared[k:k + 5])
        self.assertEqual(self.apply(declared)['firewall_commits'], 0)
        ways = [self.connection(None, f'10.9.{i % 3}.{i + 1}', 80) for i in range(20)]
        self.expect(ways)
        self.apply([self.node_json(nodes[0], 'open')])
        ways = [self.connection(nodes[0], f'10.9.{i % 3}.{i + 1}', 80) for i in range(20)]
        self.expect(ways[1::2], ways[2::2])
        self.tool('remove', *[n.id for n in nodes[10:]])
        self.assertTrue(all(n['intact'] for n in self.read(declared[1:10])))
        self.nothing_left()


class Iptables(Tables, netlab.Lab):
    backend = 'iptables'
    THEIRS = '*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 192.0.2.77 -j DROP\nCOMMIT\n'
    LOAD = ('iptables-legacy -w -F; ip6tables-legacy -w -F; iptables-legacy -w -t nat -F; iptables-legacy -w -X; '
            'iptables-legacy-restore -w < {}')
    SAVE = 'iptables-legacy-save'

    def damage(self, a, nodes):
        run('iptables-legacy', '-I', f'TBNODE-{a.id[:12]}-I', '-p', 'udp', '--dport', '9', '-j', 'RETURN')
        one, two = self.read(nodes)
        self.assertTrue(one['present'] and not one['intact'] and two['intact'])
        self.assertIn('allow in udp to port 9', [r['rule'] for r in one['found']])
        run('iptables-legacy', '-D', 'FORWARD', '-j', 'TBNODE-FORWARD')
        self.assertFalse(any(n['intact'] for n in self.read(nodes)))

    def test_save_and_restore(self):
        """Somebody saves all rules, loses them and loads them again: ours are among them and are not touched afterwards."""
        a, b = self.pair()
        nodes, site = self.everything(a, b)
        self.assertEqual(self.apply(nodes, site)['firewall_commits'], 4)
        self.assertEqual(self.apply(nodes, site)['firewall_commits'], 0)
        for program in ('iptables', 'ip6tables'):
            saved = run(f'{program}-legacy-save').stdout
            for table in ('filter', 'nat') if program == 'iptables' else ('filter',):
                run(f'{program}-legacy', '-t', table, '-F')
                run(f'{program}-legacy', '-t', table, '-X')
            run(f'{program}-legacy-restore', stdin=saved)
        self.assertEqual(self.apply(nodes, site)['firewall_commits'], 0)
        self.assertTrue(all(n['intact'] for n in self.read(nodes, site)))

    def test_others_start_over(self):
        """What firewalld and friends do when they reload: policies to DROP, everything flushed, then written anew."""
        a, b = self.pair()
        nodes, site = self.everything(a, b)
        self.apply(nodes, site)
        good = [sorted(rules('filter')), sorted(rules('nat')), sorted(rules('filter', 'ip6tables'))]
        for table in ('filter', 'nat'):
            for op in ('-F', '-X'):
                run('iptables-legacy', '-t', table, op)
        run('ip6tables-legacy-restore', stdin='*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n')
        self.assertFalse(any(n['present'] for n in self.read(nodes, site)))
        self.assertEqual(self.apply(nodes, site)['firewall_commits'], 3)
        self.assertEqual([sorted(rules('filter')), sorted(rules('nat')), sorted(rules('filter', 'ip6tables'))], good)

    def test_others_survive_everywhere(self):
        a, b = self.pair()
        run('iptables-legacy-restore', stdin='\n'.join([
            '*nat', ':PREROUTING ACCEPT [0:0]', ':INPUT ACCEPT [0:0]', ':OUTPUT ACCEPT [0:0]', ':POSTROUTING ACCEPT [0:0]',
            ':DOCKER - [0:0]', '[5:300] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER',
            '[7:420] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE', '[2:120] -A DOCKER -i docker0 -j RETURN',
            '[1:60] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80', 'COMMIT', '']))
        run('ip6tables-legacy-restore', stdin='\n'.join([
            '*filter', ':INPUT ACCEPT [11:1111]', ':FORWARD DROP [22:2222]', ':OUTPUT ACCEPT [33:3333]', ':MINE - [0:0]',
            '[9:900] -A FORWARD -s fd00:1::/32 -m limit --limit 5/min -j MINE', '[3:30] -A MINE -p ipv6-icmp -j ACCEPT',
            'COMMIT', '']))

        def save():
            # Policies without their counters: IPv6 is never quiet.
            text = run('iptables-legacy-save', '-c', '-t', 'nat').stdout + run('ip6tables-legacy-save', '-c').stdout
            return [r.split(' [')[0] if r.startswith(':') else r for r in text.splitlines()
                    if not r.startswith('#') and 'TBNODE' not in r]

        before = save()
        nodes, site = self.everything(a, b)
        self.apply(nodes, site)
        self.assertEqual(save(), before)
        self.nothing_left()
        self.assertEqual(save(), before)


# What Docker 29 makes with firewall-backend=nftables, for one bridge with a published port.
DOCKER = '''
table ip docker-bridges {
    map filter-forward-in-jumps { type ifname : verdict; elements = { "br0" : jump filter-forward-in__br0 } }
    map filter-forward-out-jumps { type ifname : verdict; elements = { "br0" : jump filter-forward-out__br0 } }
    map nat-postrouting-out-jumps { type ifname : verdict; elements = { "br0" : jump nat-postrouting-out__br0 } }
    chain filter-FORWARD {
        type filter hook forward priority filter; policy accept;
        oifname vmap @filter-forward-in-jumps
        iifname vmap @filter-forward-out-jumps
    }
    chain filter-forward-in__br0 {
        ct state established,related counter accept
        iifname "br0" counter accept comment "ICC"
        ip daddr 10.9.0.2 tcp dport 80 counter accept
        counter drop comment "UNPUBLISHED PORT DROP"
    }
    chain filter-forward-out__br0 {
        ct state established,related counter accept
        counter accept comment "OUTGOING"
    }
    chain nat-POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname vmap @nat-postrouting-out-jumps
        oifname != "br0" ip saddr 10.9.0.0/24 counter masquerade comment "MASQUERADE"
    }
    chain nat-postrouting-out__br0 {
    }
    chain raw-PREROUTING {
        type filter hook prerouting priority raw; policy accept;
        iifname != "br0" ip daddr 10.9.0.99 counter drop comment "DROP DIRECT ACCESS"
    }
}
'''


class Nftables(Tables, netlab.Lab):
    backend = 'nftables'
    THEIRS = 'table ip mine { chain forward { type filter hook forward priority 0; ip saddr 192.0.2.77 drop; }; }\n'
    LOAD = 'nft flush ruleset; nft -f {}'
    SAVE = 'nft list ruleset'

    def test_beside_docker_and_firewalls(self):
        """Docker's tables and a firewall with policies DROP: what they drop stays dropped, what ours drop they don't accept, and their
        reloads are none of our business."""
        a, b, c = self.routed()
        for n in (a, b):
            self.listen(n, 80)
            self.listen(n, 81)
        run('nft', '-f', '-', stdin=DOCKER)
        nodes = [self.node_json(a, 'closed; allow tcp from 10.9.0.0/24 to port 80'), self.node_json(b, 'open')]
        self.apply(nodes)
        theirs = run('nft', '-s', 'list', 'table', 'ip', 'docker-bridges').stdout
        self.expect([self.connection(b, '10.9.0.1', 80), self.connection(c, '10.9.0.2', 80)],
                    [self.connection(b, '10.9.0.1', 81), self.connection(c, '10.9.0.2', 81), self.connection(c, '10.9.0.1', 80)])
        self.assertEqual(self.seen_as(c, '10.9.0.2', 80), '10.8.0.1')
        for policy in ('drop', 'accept'):
            run('nft', '-f', '-', stdin='add table inet firewalld; delete table inet firewalld; table inet firewalld { '
                f'chain f {{ type filter hook forward priority 10; policy {policy}; ct state established,related accept; '
                'tcp dport 81 accept; }; }')
            run('nft', '-f', '-', stdin='delete table ip docker-bridges\n' + DOCKER)
            self.assertEqual(self.apply(nodes)['firewall_commits'], 0)
            dropped = [self.connection(b, '10.9.0.1', 81), self.connection(c, '10.9.0.2', 81)]
            way = [self.connection(b, '10.9.0.1', 80)]
            self.expect([] if policy == 'drop' else way, dropped + (way if policy == 'drop' else []), about=policy)
        self.nothing_left()
        self.assertEqual(run('nft', '-s', 'list', 'table', 'ip', 'docker-bridges').stdout, theirs)

    def damage(self, a, nodes):
        run('nft', 'insert', 'rule', 'inet', 'tbnode', f'n{a.id[:12]}-in', 'udp dport 9 return')
        one, two = self.read(nodes)
        self.assertTrue(one['present'] and not one['intact'] and two['intact'])
        run('nft', 'flush', 'chain', 'inet', 'tbnode', 'forward')
        self.assertFalse(any(n['intact'] for n in self.read(nodes)))


class Auto(netlab.Lab):
    """Which back end is chosen, and that it stays."""

    backend = 'auto'

    def chosen(self, node):
        """Writes the rules of a node; where are they?"""
        self.apply([self.declare(node, [{'ifname': 'eth0', 'filtered': True, 'pinned': True}], 'open')])
        legacy = any('TBNODE' in r for r in rules())
        self.assertNotEqual(legacy, 'table inet tbnode' in run('nft', 'list', 'tables').stdout.splitlines())
        return 'iptables' if legacy else 'nftables'

    def test_what_others_use_decides_once(self):
        a, b = self.pair()
        # Listing the legacy tables makes them; it is no use of them.
        run('iptables-legacy-save')
        run('ip6tables-legacy-save')
        run('iptables-legacy', '-t', 'nat', '-L')
        self.assertEqual(self.chosen(a), 'nftables')
        run('iptables-legacy', '-A', 'INPUT', '-s', '192.0.2.1', '-j', 'DROP')
        self.assertEqual(self.chosen(b), 'nftables', 'there are rules of nodes')
        self.tool('sweep')
        self.assertEqual(self.chosen(a), 'iptables', 'somebody has a rule there')
        run('iptables-legacy', '-F', 'INPUT')
        run('nft', 'add', 'table', 'ip', 'docker-bridges')
        self.assertEqual(self.chosen(b), 'iptables', 'there are rules of nodes')
        self.tool('sweep')
        self.assertEqual(netlab.ours(), [])
        run('iptables-legacy', '-P', 'FORWARD', 'DROP')
        self.assertEqual(self.chosen(a), 'nftables', 'Docker is there')
        self.tool('sweep')
        run('nft', 'delete', 'table', 'ip', 'docker-bridges')
        self.assertEqual(self.chosen(a), 'iptables', 'a policy as ufw sets it')


if __name__ == '__main__':
    netlab.main()
