#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shapes for some destinations of an interface: what packets experience, and that nobody else notices a change."""

import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import netlab  # noqa: E402
from netlab import js, qdiscs, run, snapshot  # noqa: E402


class Rules(netlab.Lab):
    def world(self, addresses=()):
        """a and b on a bridge; b has further addresses."""
        a, b = self.pair()
        self.addresses(b, addresses)
        return a, b

    def addresses(self, node, addresses):
        run('nsenter', '--net', '-t', node.pid, 'ip', '-batch', '-',
            stdin=''.join(f'addr add {a} dev eth0{" nodad" if ":" in a else ""}\n' for a in addresses))

    def shape(self, node, text, **kwargs):
        return self.apply([self.declare(node, [{'ifname': 'eth0', 'shape': text}])], **kwargs)

    def counters(self, node, direction='up'):
        """Packets by rule, as the kernel counts them now."""
        r = self.apply([self.declare(node, [{'ifname': 'eth0'}])], verb='read')
        rules = r['nodes'][0]['interfaces'][0][direction]['rules']
        return {rule['match']: rule['packets'] for rule in rules}

    def hits(self, node, act, direction='up'):
        """The rules whose packets act() makes."""
        before = self.counters(node, direction)
        act()
        after = self.counters(node, direction)
        return {match for match in after if after[match] > before[match]}

    def classes(self, device):
        return sorted(line.split()[2] for line in run('tc', 'class', 'show', 'dev', device).stdout.splitlines())

    def udp(self, node, address, port, sport=0, n=1):
        family = 'AF_INET6' if ':' in address else 'AF_INET'
        node.run(sys.executable, '-c', f'import socket; s = socket.socket(socket.{family}, socket.SOCK_DGRAM); '
                 f's.bind(("", {sport})); [s.sendto(bytes(200), ("{address}", {port})) for i in range({n})]')

    def test_most_specific_wins_for_real_packets(self):
        a, _ = self.world(['10.9.0.3/24', '10.9.0.4/24', '10.9.0.9/24', 'fd00::2/64', 'fd00::3/64'])
        self.addresses(a, ['fd00::1/64', '10.9.0.11/24'])
        a.run('ping', '-c1', '-W5', 'fd00::2')
        self.shape(a, 'rate 1gbit; to any icmp rate 1mbit; to 10.9.0.0/29 rate 2mbit; to 10.9.0.3 rate 3mbit; '
                      'to 10.9.0.3 udp port 5000-5999 rate 4mbit; to 10.9.0.3 udp port 5001 rate 5mbit; '
                      'to 10.9.0.3 udp sport 7000 port 9 rate 6mbit; to fd00::/64 rate 7mbit; to fd00::3 udp port 53 rate 8mbit; '
                      'to 10.9.0.4 from 10.9.0.11 rate 9mbit')
        for act, rule in (
                (lambda: self.udp(a, '10.9.0.3', 5001), 'to 10.9.0.3 udp port 5001'),
                (lambda: self.udp(a, '10.9.0.3', 5002), 'to 10.9.0.3 udp port 5000-5999'),
                (lambda: self.udp(a, '10.9.0.3', 6000), 'to 10.9.0.3'),
                (lambda: self.udp(a, '10.9.0.3', 9, 7000), 'to 10.9.0.3 udp port 9 sport 7000'),
                (lambda: self.udp(a, '10.9.0.4', 1), 'to 10.9.0.0/29'),
                (lambda: a.run('ping', '-c1', '-I', '10.9.0.11', '10.9.0.4'), 'to 10.9.0.4 from 10.9.0.11'),
                (lambda: a.run('ping', '-c1', '10.9.0.9'), 'to any icmp'),
                (lambda: self.udp(a, 'fd00::3', 53), 'to fd00::3 udp port 53'),
                (lambda: self.udp(a, 'fd00::3', 54), 'to fd00::/64')):
            hit = self.hits(a, act)
            # IPv6 discovers neighbours and reports groups whenever it likes: ICMPv6, to fd00::/64 or elsewhere.
            self.assertIn(rule, hit)
            self.assertLessEqual(hit, {rule, 'to fd00::/64', 'to any icmp'})
        self.assertLessEqual(self.hits(a, lambda: self.udp(a, '10.9.0.9', 5001)), {'to fd00::/64', 'to any icmp'}, 'the default')
        # The way back is mirrored: `to` is the source of what comes to the node.
        self.assertIn('to 10.9.0.3', self.hits(a, lambda: a.run('ping', '-c1', '10.9.0.3'), 'down'))

    def test_fragments_follow_the_address(self):
        a, _ = self.world()
        self.shape(a, 'to 10.9.0.2 rate 100mbit; to 10.9.0.2 udp port 5000 rate 50mbit')

        def send():
            a.run(sys.executable, '-c', 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); '
                  's.setsockopt(socket.IPPROTO_IP, 10, 0); s.sendto(bytes(4000), ("10.9.0.2", 5000))')

        before = self.counters(a)
        send()
        after = self.counters(a)
        self.assertEqual({m: after[m] - before[m] for m in after}, {'to 10.9.0.2': 2, 'to 10.9.0.2 udp port 5000': 1})

    def test_each_destination_has_its_rate(self):
        a, b = self.world(['10.9.0.3/24', '10.9.0.4/24'])
        self.shape(a, 'rate 30mbit; to 10.9.0.2 rate 2mbit; to 10.9.0.3 up rate 5mbit')
        slack = 0.5 if os.environ.get('TBNODE_VM') else 0.05
        for address, rate in (('10.9.0.2', 2), ('10.9.0.3', 5), ('10.9.0.4', 30 if not os.environ.get('TBNODE_VM') else None)):
            if rate:
                self.assertLess(abs(self.measure(a, b, address, rate, 2) - rate) / rate, slack, address)

    def test_a_thousand_destinations(self):
        hosts = [f'10.9.{1 + i // 250}.{1 + i % 250}' for i in range(1000)]
        six = [f'fd00::{i + 1:x}' for i in range(1000)]
        a, b = self.pair()
        self.addresses(b, [f'{h}/16' for h in hosts] + [f'{h}/64' for h in six[::50]])
        a.run('ip', 'addr', 'add', '10.9.0.1/16', 'dev', 'eth0')
        a.run('ip', 'addr', 'add', 'fd00::ffff/64', 'dev', 'eth0', 'nodad')
        before = snapshot()
        text = 'rate 1gbit' + ''.join(f'; to {h} rate {i + 1000}kbit' for i, h in enumerate(hosts + six))
        r = self.shape(a, text)
        self.assertEqual((r['netlink_sends'] <= 8, len(r['nodes'][0]['interfaces'][0]['up']['rules'])), (True, 2000))
        self.assertEqual(self.shape(a, text)['netlink_writes'], 0)
        for host in hosts[::97] + six[::200]:
            self.assertLessEqual({f'to {host}'}, self.hits(a, lambda h=host: a.run('ping', '-c1', '-W5', h)))
        classes = run('tc', 'class', 'show', 'dev', a.host).stdout
        self.assertEqual(classes.count('class htb 7462:'), 2001)
        # One comes, one goes, one changes: three classes are written, and the programs.
        changed = text.replace(f'; to {hosts[0]} rate 1000kbit', '').replace('rate 1500kbit', 'rate 7mbit') + '; to 10.9.9.9 rate 1mbit'
        r = self.shape(a, changed)
        self.assertLess(r['netlink_writes'], 60)
        self.assertEqual(r['nodes'][0]['change'], 'leaf-replaced')
        self.tool('--id', a.id, 'clear', str(a.pid))
        self.assertEqual(snapshot(), before)

    def test_other_queues_are_not_touched(self):
        """60 packets wait in the slow rule's queue while other rules come, change and go, and while somebody deletes the filters
        by hand: all of them arrive."""
        a, b = self.world(['10.9.0.3/24', '10.9.0.4/24'])
        slow = 'rate 100mbit; to 10.9.0.2 udp rate 100kbit limit 100'
        ifb = self.shape(a, slow)['nodes'][0]['interfaces'][0]['up']['device']
        counter = b.start(sys.executable, netlab.TRAFFIC, 'count', 2)
        self.assertEqual(counter.stdout.readline(), 'ready\n')
        sender = a.start(sys.executable, netlab.TRAFFIC, 'stream', '10.9.0.2', 5000, 60)
        changes = 0
        while sender.poll() is None or changes < 30:
            other = ('to 10.9.0.3 rate 1mbit', 'to 10.9.0.3 rate 2mbit; to 10.9.0.4 pass', 'to 10.9.0.4 rate 3mbit', '')[changes % 4]
            if changes % 3 == 2:
                run('tc', 'filter', 'del', 'dev', ifb, 'parent', '7462:')
            self.shape(a, f'{slow}; {other}' if other else slow)
            changes += 1
        self.assertEqual(json.loads(counter.stdout.readline())['received'], 60, f'{changes} changes')

    def test_removal_restores_exactly(self):
        a, b = self.world()
        before = snapshot()
        self.shape(a, 'rate 10mbit; to 10.9.0.2 rate 1mbit; to fd00::1 pass')
        self.shape(a, 'rate 10mbit')
        tree = {(q['kind'], q['handle']) for q in qdiscs(a.host)}
        self.assertEqual(len(tree), 3, 'without rules there is what there was without rules')
        self.assertEqual(run('tc', 'filter', 'show', 'dev', a.host).stdout, '')
        self.assertEqual(run('tc', 'class', 'show', 'dev', a.host).stdout.count('class htb'), 1)
        self.shape(a, 'rate 10mbit; to 10.9.0.2 rate 1mbit')
        self.tool('--id', a.id, 'clear', str(a.pid))
        self.assertEqual(snapshot(), before)
        self.shape(b, 'to 10.9.0.1 rate 1mbit')
        self.tool('sweep')
        self.tool('--id', b.id, 'clear', str(b.pid))
        self.assertEqual(snapshot(), before)

    def test_drift_is_repaired(self):
        a, _ = self.world(['10.9.0.3/24'])
        text = 'rate 100mbit; to 10.9.0.2 rate 1mbit; to 10.9.0.3 rate 2mbit'
        for damage in ('tc filter del dev {host} parent 7462:', 'tc class change dev {host} classid {down} htb rate 7mbit',
                       'tc filter del dev {host} parent 7462: pref {pref} handle 1 bpf',
                       'tc qdisc del dev {host} parent {down}', 'tc class del dev {ifb} classid {up}', 'tc qdisc del dev {host} root', 'ip link del {ifb}'):
            r = self.shape(a, text)['nodes'][0]['interfaces'][0]
            classes = {d: f'7462:{x["class"]:x}' for d in ('up', 'down') for x in r[d]['rules'] if x['match'] == 'to 10.9.0.3'}
            filters = run('tc', 'filter', 'show', 'dev', a.host).stdout.split()
            values = {'host': a.host, 'ifb': r['up']['device'], 'pref': filters[filters.index('pref') + 1], **classes}
            ids = self.classes(a.host)
            run(*damage.format(**values).split())
            self.assertGreater(self.shape(a, text)['netlink_writes'], 0, damage)
            if 'filter' in damage:
                self.assertEqual(self.classes(a.host), ids, 'only the programs are written again')
            self.assertEqual(self.shape(a, text)['netlink_writes'], 0, damage)
            self.assertIn('to 10.9.0.3', self.hits(a, lambda: a.run('ping', '-c1', '-W5', '10.9.0.3')))

    def test_classes_that_nobody_declared_go(self):
        """Also where no rules are declared, and when they were made while nobody listened: the next look finds them."""
        a, b = self.pair()
        nodes = [self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}]),
                 self.declare(b, [{'ifname': 'eth0', 'shape': 'rate 10mbit; to 10.9.0.3 rate 1mbit'}])]
        self.apply(nodes)
        for host in (a.host, b.host):
            ifb = f'tbi{js("ip", "-j", "link", "show", "dev", host)[0]["ifindex"]}'
            for device in (host, ifb):
                before = self.classes(device)
                for parent, minor in (('7462:', '5'), ('7462:', '6'), ('7462:6', '9'), ('7462:', 'fff0')):
                    run('tc', 'class', 'add', 'dev', device, 'parent', parent, 'classid', f'7462:{minor}', 'htb', 'rate', '1mbit')
                run('tc', 'qdisc', 'add', 'dev', device, 'parent', '7462:5', 'handle', '99:', 'pfifo', 'limit', '3')
                self.assertEqual(len(self.classes(device)), len(before) + 4)
                self.apply(nodes)
                self.assertEqual(self.classes(device), before)
        self.assertEqual(self.apply(nodes)['netlink_writes'], 0)

    def test_filters_of_others_at_our_roots_go(self):
        """They lead packets past the rate: class 0 of HTB is "as fast as it goes"."""
        a, b = self.pair()
        for spec in ('rate 1mbit', 'rate 1mbit; to 10.9.0.3 rate 2mbit'):
            self.tool('--id', a.id, 'shape', a.pid, 'eth0', spec)
            ifb = f'tbi{js("ip", "-j", "link", "show", "dev", a.host)[0]["ifindex"]}'
            good = {d: run('tc', 'filter', 'show', 'dev', d, 'parent', '7462:').stdout for d in (a.host, ifb)}
            for device in good:
                for pref, protocol in ((1, 'all'), (2, 'ip'), (65000, 'ipv6')):
                    run('tc', 'filter', 'add', 'dev', device, 'parent', '7462:', 'pref', pref, 'protocol', protocol, 'u32', 'match', 'u32',
                        '0', '0', 'flowid', '7462:0')
            self.tool('--id', a.id, 'shape', a.pid, 'eth0', spec)
            self.assertEqual(good, {d: run('tc', 'filter', 'show', 'dev', d, 'parent', '7462:').stdout for d in good})
        self.tool('--id', a.id, 'clear', a.pid)

    def test_mistakes_leave_everything_as_it_was(self):
        a, _ = self.world()
        self.shape(a, 'rate 10mbit; to 10.9.0.2 rate 1mbit')
        before = snapshot()
        path = os.path.join(self.directory.name, 'bad.json')
        with open(path, 'w', encoding='utf-8') as f:
            json.dump({'nodes': [self.declare(a, [{'ifname': 'eth0', 'shape': 'to 10.9.0.300 rate 1mbit'}])]}, f)
        out = self.tool('apply', path, status=2)
        self.assertIn('address or network', out.stderr)
        if not netlab.capabilities()['netem']:
            # The second rule's leaf is refused: the first one's change goes back, too.
            r = self.shape(a, 'rate 20mbit; to 10.9.0.2 rate 7mbit; to 10.9.0.3 delay 5ms', status=1)
            self.assertIn('sch_netem', r['nodes'][0]['error']['message'])
        self.assertEqual(snapshot(), before)
        self.assertIn('1Mbit', run('tc', 'class', 'show', 'dev', a.host, 'classid', '7462:2').stdout)

    @unittest.skipUnless(netlab.capabilities()['netem'], 'this kernel has no netem')
    def test_each_destination_has_its_delay(self):
        a, _ = self.world(['10.9.0.3/24', '10.9.0.4/24'])
        self.shape(a, 'to 10.9.0.2 up delay 40ms; to 10.9.0.3 up delay 80ms')
        for address, low, high in (('10.9.0.2', 40, 75), ('10.9.0.3', 80, 140), ('10.9.0.4', 0, 35)):
            out = a.run('ping', '-c', '5', '-i', '0.2', '-q', address).stdout
            rtt = float(out.split('rtt min/avg/max/mdev = ')[1].split('/')[0])
            self.assertTrue(low <= rtt <= high, (address, rtt))


if __name__ == '__main__':
    netlab.main()
