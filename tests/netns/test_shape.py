#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shapes on real veths: what tc and ip say, what packets experience."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import netlab  # noqa: E402
from netlab import TOOL, class_rate, js, qdiscs, run, snapshot  # noqa: E402


class Objects(netlab.Lab):
    def test_both_directions(self):
        a, _ = self.pair()
        report = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit up rate 2mbit'}])])
        self.assertEqual(class_rate(a.host), '10Mbit')
        i = report['nodes'][0]['interfaces'][0]
        self.assertEqual(i['host_ifname'], a.host)
        ifb = i['up']['device']
        self.assertEqual(class_rate(ifb), '2Mbit')
        link = js('ip', '-j', '-d', 'link', 'show', ifb)[0]
        self.assertEqual(link['linkinfo']['info_kind'], 'ifb')
        self.assertEqual((link['num_tx_queues'], link['num_rx_queues'], link['txqlen']), (1, 1, 1000))
        self.assertTrue(link['ifalias'].startswith(f'tbnode:{a.id}:'))
        self.assertEqual({q['kind'] for q in qdiscs(a.host)}, {'htb', 'ingress', 'netem' if i['down']['netem'] else 'pfifo'})
        f = run('tc', 'filter', 'show', 'dev', a.host, 'parent', 'ffff:').stdout
        self.assertIn('filter protocol all', f)
        self.assertIn(f'Egress Redirect to device {ifb}', f)
        # One for the host, one inside the node: that it sends segment by segment.
        self.assertEqual(report['netlink_sends'], 2)

    def test_second_apply_writes_nothing(self):
        a, b = self.pair()
        nodes = [self.declare(n, [{'ifname': 'eth0', 'shape': 'rate 10mbit', 'filtered': True, 'pinned': True}], 'closed')
                 for n in (a, b)]
        first = self.apply(nodes)
        self.assertEqual(first['nodes'][0]['change'], 'rebuilt')
        self.assertIn(first['firewall_commits'], range(1, 5), 'one per table that there is')
        second = self.apply(nodes)
        self.assertEqual((second['netlink_writes'], second['firewall_commits'], second['sysctl_writes']), (0, 0, 0))
        self.assertEqual([n['change'] for n in second['nodes']], ['unchanged', 'unchanged'])

    def test_change_is_in_place(self):
        a, _ = self.pair()
        self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}])])
        before = run('tc', '-s', 'qdisc', 'show', 'dev', a.host).stdout
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 40mbit'}])])
        self.assertEqual(r['nodes'][0]['change'], 'in-place')
        self.assertEqual(class_rate(a.host), '40Mbit')
        self.assertIn('htb 7462:', before)
        # Clearing keeps the permanent root and lets everything pass.
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': ''}])])
        self.assertEqual(r['nodes'][0]['change'], 'in-place')
        self.assertEqual(class_rate(a.host), '100Gbit')
        self.assertNotIn('rate', r['nodes'][0]['interfaces'][0]['down']['shape'])

    def test_wide_range_of_rates(self):
        a, _ = self.pair()
        for spec, shown in (('1kbit', '1Kbit'), ('9600bit', '9600bit'), ('1500kbit', '1500Kbit'), ('1gbit', '1Gbit'),
                            ('40gbit', '40Gbit')):
            r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': f'rate {spec}'}])])
            self.assertEqual(class_rate(a.host), shown)
            text = r['nodes'][0]['interfaces'][0]['down']['shape']
            self.assertTrue(text.startswith(f'rate {spec} '), text)

    def test_removal_restores_exactly(self):
        a, b = self.pair()
        before = snapshot()
        nodes = [self.declare(n, [{'ifname': 'eth0', 'shape': 'rate 10mbit', 'filtered': True, 'pinned': True}], 'basic')
                 for n in (a, b)]
        self.apply(nodes)
        self.assertNotEqual(snapshot(), before)
        self.tool('--id', a.id, 'clear', str(a.pid))
        self.tool('--id', b.id, 'clear', str(b.pid))
        self.assertEqual(snapshot(), before)
        # Nothing there is success, and writes nothing.
        self.assertEqual(json.loads(self.tool('--json', '--id', a.id, 'clear', str(a.pid)).stdout), {'writes': 0})

    def test_many_are_removed_at_once(self):
        """Their ifbs go as one group; whoever is in a group of that number stays, and so do the nodes that are kept."""
        netlab.bridge('br0')
        nodes = [self.node(f'n{i}') for i in range(6)]
        for i, n in enumerate(nodes):
            n.plug('br0', f'10.9.0.{i + 1}')
        run('ip', 'link', 'add', 'other', 'group', str(0x74620000), 'type', 'veth', 'peer', 'name', 'other1')
        before = snapshot()
        self.apply([self.declare(n, [{'ifname': 'eth0', 'up': 'rate 1mbit'}]) for n in nodes])
        self.tool('sweep', nodes[0].id, nodes[1].id)
        left = run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout
        self.assertEqual((left.count('tbi'), 'other' in run('ip', '-br', 'link').stdout), (2, True))
        self.tool('remove', *(n.id for n in nodes))
        self.assertEqual(snapshot(), before)

    def test_removal_of_what_is_half_gone(self):
        """One of two networks was disconnected meanwhile; the other one's shape goes all the same, also a down-only one."""
        netlab.bridge('br0')
        a = self.node('a')
        first, second = a.plug('br0', '10.9.0.1', 'eth0'), a.plug('br0', '10.9.0.2', 'eth1')
        self.apply([self.declare(a, [{'ifname': 'eth0', 'down': 'rate 1mbit'}, {'ifname': 'eth1', 'shape': 'rate 1mbit'}])])
        run('ip', 'link', 'del', second)
        self.tool('--id', a.id, 'clear', str(a.pid))
        self.assertEqual([q['kind'] for q in qdiscs(first)], ['noqueue'])
        self.assertEqual(run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 0)

    def test_foreign_qdisc_is_reported_and_untouched(self):
        a, b = self.pair()
        run('tc', 'qdisc', 'add', 'dev', a.host, 'root', 'handle', '1:', 'tbf', 'rate', '1mbit', 'burst', '10k', 'limit', '10k')
        before = qdiscs(a.host)
        r = self.apply([self.declare(n, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}]) for n in (a, b)], status=1)
        self.assertIn("root qdisc 'tbf' of somebody else", r['nodes'][0]['error']['message'])
        self.assertEqual(qdiscs(a.host), before)
        self.assertIsNone(r['nodes'][1]['error'])
        self.assertEqual(class_rate(b.host), '10Mbit')
        self.assertEqual(run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 1)

    def test_foreign_ingress_is_reported_and_untouched(self):
        a, _ = self.pair()
        run('tc', 'qdisc', 'add', 'dev', a.host, 'clsact')
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}])], status=1)
        self.assertIn("'clsact'", r['nodes'][0]['error']['message'])
        self.assertEqual([q['kind'] for q in qdiscs(a.host)], ['noqueue', 'clsact'])
        # Down alone has no need of it.
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'down': 'rate 10mbit'}])])
        self.assertEqual(class_rate(a.host), '10Mbit')

    def test_foreign_qdiscs_are_replaced_when_allowed(self):
        a, b = self.pair()
        empty = snapshot()
        run('tc', 'qdisc', 'add', 'dev', a.host, 'root', 'handle', '1:', 'tbf', 'rate', '1mbit', 'burst', '10k', 'limit', '10k')
        run('tc', 'qdisc', 'add', 'dev', a.host, 'clsact')
        before = snapshot()
        declared = self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}])
        self.assertIn('replace-foreign', self.apply([declared], status=1)['nodes'][0]['error']['message'])
        self.assertEqual(snapshot(), before)
        r = self.apply([{**declared, 'replace_foreign': True}])
        self.assertEqual((r['nodes'][0]['change'], class_rate(a.host)), ('rebuilt', '10Mbit'))
        self.assertEqual(self.apply([{**declared, 'replace_foreign': True}])['netlink_writes'], 0)
        self.tool('--id', a.id, 'clear', str(a.pid))
        self.assertEqual(snapshot(), empty, 'theirs is not restored')
        run('tc', 'qdisc', 'add', 'dev', a.host, 'root', 'handle', '1:', 'tbf', 'rate', '1mbit', 'burst', '10k', 'limit', '10k')
        self.tool('--replace-foreign', '--id', a.id, 'shape', str(a.pid), 'eth0', 'rate 3mbit')
        self.assertEqual(class_rate(a.host), '3Mbit')

    def drift(self, nodes, a):
        r = self.apply(nodes)
        ifb = r['nodes'][0]['interfaces'][0]['up']['device']
        for damage in (('tc', 'qdisc', 'del', 'dev', a.host, 'root'), ('tc', 'qdisc', 'del', 'dev', a.host, 'ingress'),
                       ('ip', 'link', 'del', ifb), ('ip', 'link', 'set', ifb, 'down'),
                       ('tc', 'class', 'change', 'dev', ifb, 'classid', '7462:1', 'htb', 'rate', '1mbit'),
                       ('tc', 'class', 'change', 'dev', a.host, 'classid', '7462:1', 'htb', 'rate', '10mbit', 'burst', '9999'),
                       ('tc', 'class', 'del', 'dev', a.host, 'classid', '7462:1'),
                       ('tc', 'filter', 'del', 'dev', a.host, 'parent', 'ffff:'),
                       ('tc', 'qdisc', 'replace', 'dev', a.host, 'parent', '7462:1', 'handle', '9:', 'pfifo', 'limit', '3')):
            run(*damage)
            r = self.apply(nodes)
            self.assertNotEqual(r['nodes'][0]['change'], 'unchanged', damage)
            r = self.apply(nodes)
            self.assertEqual((r['nodes'][0]['change'], r['netlink_writes']), ('unchanged', 0), damage)
        self.assertEqual((class_rate(a.host), class_rate(ifb)), ('10Mbit', '10Mbit'))
        run('tc', 'filter', 'add', 'dev', a.host, 'parent', 'ffff:', 'pref', '1', 'u32', 'match', 'u32', '0', '0', 'flowid', '1:1')
        r = self.apply(nodes, status=1)
        self.assertIn('somebody else', r['nodes'][0]['error']['message'])
        run('tc', 'filter', 'del', 'dev', a.host, 'parent', 'ffff:', 'pref', '1')

    def test_drift_is_repaired(self):
        a, _ = self.pair()
        self.drift([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}])], a)

    def test_drift_is_repaired_from_outside(self):
        """With the address given the container's namespace is not entered."""
        a, b = self.pair()
        nodes = [self.declare(n, [{'mac': n.mac(), 'shape': 'rate 10mbit', 'ipv4': ip}]) for n, ip in ((a, '10.9.0.1'), (b, '10.9.0.2'))]
        self.drift(nodes, a)
        self.assertEqual([n['interfaces'][0]['host_ifname'] for n in self.apply(nodes)['nodes']], [a.host, b.host])
        b.run('ip', 'link', 'set', 'eth0', 'address', a.mac())  # each still has its own
        nodes[1]['interfaces'][0]['mac'] = a.mac()
        self.assertEqual([n['interfaces'][0]['host_ifname'] for n in self.apply(nodes)['nodes']], [a.host, b.host])

    def test_a_look_at_few_sees_what_a_look_at_all_sees(self):
        """With the address given only what concerns the node is asked for; without, everything is listed."""
        a, _ = self.pair()
        spec = 'rate 10mbit up rate 2mbit; to 10.1.0.7 rate 1mbit; to 10.2.0.0/16 udp port 53 rate 3mbit'
        interface = {'mac': a.mac(), 'shape': 'offload on ' + spec}
        few, full = self.declare(a, [{**interface, 'ipv4': '10.9.0.1'}]), self.declare(a, [interface])
        ifb = f'tbi{js("ip", "-j", "link", "show", a.host)[0]["ifindex"]}'

        def looks():
            counts = ('bytes', 'packets', 'drops', 'overlimits', 'backlog')
            seen = [json.loads(json.dumps(self.apply([n], verb='read')['nodes']), object_hook=lambda o: {
                k: v for k, v in o.items() if k not in counts}) for n in (few, full)]
            self.assertEqual(*seen)
            return seen[0][0]['interfaces'][0]

        self.assertIsNone(looks()['down'])
        for damage in (None, ('tc', 'qdisc', 'del', 'dev', a.host, 'root'), ('tc', 'qdisc', 'del', 'dev', a.host, 'ingress'),
                       ('ip', 'link', 'set', ifb, 'down'), ('ip', 'link', 'del', ifb), ('ip', 'link', 'set', ifb, 'name', 'other'),
                       ('tc', 'class', 'del', 'dev', a.host, 'classid', '7462:10'), ('tc', 'filter', 'del', 'dev', a.host),
                       ('tc', 'qdisc', 'replace', 'dev', a.host, 'parent', '7462:1', 'handle', '9:', 'pfifo', 'limit', '3'),
                       ('tc', 'qdisc', 'del', 'dev', ifb, 'parent', '7462:1'),
                       ('tc', 'class', 'add', 'dev', a.host, 'parent', '7462:', 'classid', '7462:77', 'htb', 'rate', '1mbit')):
            if damage:
                run(*damage, check=False)
            looks()
            # Both repair it in the same way: the second has nothing left to write.
            self.apply([few])
            looks()
            self.assertEqual(self.apply([full])['netlink_writes'], 0, damage)
            self.assertEqual(self.apply([few])['netlink_writes'], 0, damage)
            self.assertEqual(len(looks()['down']['rules']), 2)
        self.tool('remove', a.id)
        for foreign in ('root handle 9: pfifo', 'clsact'):
            run('tc', 'qdisc', 'add', 'dev', a.host, *foreign.split())
            errors = [self.apply([n], status=1)['nodes'][0]['error']['message'] for n in (few, full)]
            self.assertIn('somebody else', errors[0])
            self.assertEqual(*errors)
            run('tc', 'qdisc', 'del', 'dev', a.host, foreign.split()[0])

    def test_netem_or_a_clear_error(self):
        a, b = self.pair()
        self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}])])
        before = snapshot()
        wanted = 'rate 20mbit delay 20ms 2ms 25% loss 1% 10% duplicate 0.5% corrupt 0.1% reorder 5% 50% gap 3 limit 777'
        nodes = [self.declare(a, [{'ifname': 'eth0', 'shape': wanted}]),
                 self.declare(b, [{'ifname': 'eth0', 'shape': 'rate 5mbit'}])]
        if not netlab.capabilities()['netem']:
            r = self.apply(nodes, status=1)
            self.assertIn('sch_netem', r['nodes'][0]['error']['message'])
            self.assertIn('linux-image-amd64', r['nodes'][0]['error']['message'])
            self.assertIsNone(r['nodes'][1]['error'])
            self.tool('--id', b.id, 'clear', str(b.pid))
            self.assertEqual(snapshot(), before, 'the failed node is as it was')
            return
        self.apply(nodes)
        for q in qdiscs():
            if q['kind'] != 'netem' or q['options']['limit'] != 777:
                continue
            o = q['options']
            self.assertAlmostEqual(o['delay']['delay'], 0.02, places=6)
            self.assertAlmostEqual(o['delay']['jitter'], 0.002, places=6)
            self.assertAlmostEqual(o['delay']['correlation'], 0.25, places=4)
            self.assertAlmostEqual(o['loss-random']['loss'], 0.01, places=6)
            self.assertAlmostEqual(o['loss-random']['correlation'], 0.1, places=4)
            self.assertAlmostEqual(o['duplicate']['duplicate'], 0.005, places=6)
            self.assertAlmostEqual(o['corrupt']['corrupt'], 0.001, places=6)
            self.assertAlmostEqual(o['reorder']['reorder'], 0.05, places=6)
            self.assertEqual(o['gap'], 3)
        r = self.apply(nodes)
        self.assertEqual(r['netlink_writes'], 0)
        self.assertEqual(r['nodes'][0]['interfaces'][0]['down']['shape'], wanted)

    @unittest.skipUnless(netlab.capabilities()['netem'], 'this kernel has no netem')
    def test_delay_is_one_way_exact_and_changes_in_place(self):
        a, _ = self.pair()
        self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': ''}])])
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'down': 'delay 20400us', 'up': ''}])])
        self.assertEqual(r['nodes'][0]['change'], 'in-place')
        self.assertEqual(r['nodes'][0]['interfaces'][0]['down']['shape'].split(' limit')[0], 'delay 20400us')
        out = a.run('ping', '-c', '10', '-i', '0.2', '-q', '10.9.0.2').stdout
        low = float(out.split('rtt min/avg/max/mdev = ')[1].split('/')[0])
        self.assertGreaterEqual(low, 20.4)
        self.assertLess(low, 40.0, 'one direction only')
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'down': 'delay 5s', 'up': ''}])])
        self.assertTrue(r['nodes'][0]['interfaces'][0]['down']['shape'].startswith('delay 5s '))

    @unittest.skipUnless(netlab.capabilities()['netem'], 'this kernel has no netem')
    def test_distributions(self):
        a, _ = self.pair()
        for d in ('normal', 'pareto', 'paretonormal'):
            nodes = [self.declare(a, [{'ifname': 'eth0', 'shape': f'delay 20ms 5ms distribution {d}'}])]
            r = self.apply(nodes)
            self.assertIn(f'distribution {d}', r['nodes'][0]['interfaces'][0]['up']['shape'])
            self.assertEqual(self.apply(nodes)['netlink_writes'], 0)

    @unittest.skipUnless(netlab.capabilities()['netem'] and not netlab.capabilities()['netem-seed'], 'needs an old netem')
    def test_seed_that_the_kernel_ignores_is_an_error(self):
        a, _ = self.pair()
        before = snapshot()
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'loss 1% seed 7'}])], status=1)
        self.assertIn('6.6', r['nodes'][0]['error']['message'])
        self.assertEqual(snapshot(), before)

    def test_limit_follows_rate_and_delay(self):
        a, _ = self.pair()
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 1gbit'}])])
        self.assertIn('limit 4128', r['nodes'][0]['interfaces'][0]['down']['shape'])
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 1gbit limit 77'}])])
        self.assertEqual([q['options']['limit'] for q in qdiscs(a.host) if q['kind'] in ('pfifo', 'netem')], [77])

    def test_usage_and_help(self):
        self.assertIn('Usage:', self.tool('--help').stdout)
        a, _ = self.pair()
        self.apply([self.declare(a, [{'ifname': 'eth0', 'down': 'rate 3mbit'}])])
        for words in (('sweep', '--help'), ('sweep', '-h')):
            self.assertIn('Usage:', self.tool(*words).stdout)
        self.assertIn('come before', self.tool('sweep', '--jsonn', status=2).stderr)
        self.assertEqual(class_rate(a.host), '3Mbit', 'who asks for help wants no sweep')
        self.tool(status=2)
        self.tool('nonsense', status=2)
        self.tool('shape', '1', status=2)
        out = self.tool('shape', '1', 'eth0', 'rate 10mbit bogus', status=2)
        self.assertIn("'bogus'", out.stderr)
        self.assertEqual(out.stderr.count('\n'), 1)
        out = self.tool('show', '999999', status=1)
        self.assertEqual(out.stderr.count('\n'), 1)


class Veths(netlab.Lab):
    def test_colliding_ifindexes(self):
        """All containers have eth0 with the same ifindex, which on the host is another interface altogether."""
        netlab.bridge('br0')
        nodes = [self.node(c) for c in 'abc']
        for i, n in enumerate(nodes):
            n.host = n.plug('br0', f'10.9.0.{i + 1}')
        inside = {json.loads(n.run('ip', '-j', 'link', 'show', 'eth0').stdout)[0]['ifindex'] for n in nodes}
        self.assertEqual(len(inside), 1, 'the collision that this is about')
        for i, n in enumerate(nodes):
            self.apply([self.declare(n, [{'ifname': 'eth0', 'down': f'rate {i + 1}mbit'}])])
        self.assertEqual([class_rate(n.host) for n in nodes], ['1Mbit', '2Mbit', '3Mbit'])

    def test_veth_of_another_container_with_the_same_mac(self):
        netlab.bridge('br0')
        a, b = self.node('a'), self.node('b')
        mac = '02:00:00:00:00:99'
        ha, hb = a.plug('br0', '10.9.0.1', mac=mac), b.plug('br0', '10.9.0.2', mac=mac)
        self.apply([self.declare(b, [{'mac': mac, 'down': 'rate 3mbit'}])])
        self.assertEqual((class_rate(ha), class_rate(hb)), (None, '3Mbit'))

    def test_not_a_veth(self):
        a = self.node('a')
        a.run('ip', 'link', 'add', 'dum0', 'type', 'bridge')
        r = self.apply([self.declare(a, [{'ifname': 'dum0', 'shape': 'rate 1mbit'}])], status=1)
        self.assertIn('not a veth', r['nodes'][0]['error']['message'])

    def test_host_side_in_another_namespace(self):
        a, b = self.node('a'), self.node('b')
        run('ip', 'link', 'add', 'x0', 'netns', a.pid, 'type', 'veth', 'peer', 'name', 'x1', 'netns', b.pid)
        before = snapshot()
        r = self.apply([self.declare(a, [{'ifname': 'x0', 'shape': 'rate 1mbit'}])], status=1)
        self.assertIn('another network namespace', r['nodes'][0]['error']['message'])
        self.assertEqual(snapshot(), before)

    def test_no_such_interface(self):
        a, _ = self.pair()
        r = self.apply([self.declare(a, [{'mac': '02:00:00:00:00:77', 'shape': 'rate 1mbit'}])], status=1)
        self.assertIn('no interface with MAC address 02:00:00:00:00:77', r['nodes'][0]['error']['message'])

    def test_container_dies(self):
        """After the container is gone its ifb and chains are found by tag, by remove and by sweep."""
        for verb in ('remove', 'sweep'):
            a, b = self.pair()
            before = netlab.rules()
            self.apply([self.declare(n, [{'ifname': 'eth0', 'shape': 'rate 1mbit', 'filtered': True}], 'closed')
                        for n in (a, b)])
            a.end()
            for _ in range(100):
                if a.host not in run('ip', '-br', 'link').stdout:
                    break
                time.sleep(0.05)
            self.assertEqual(run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 2)
            self.tool(verb, a.id if verb == 'remove' else b.id)
            self.assertEqual(run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 1)
            self.assertFalse([r for r in netlab.rules() if a.id[:12] in r])
            self.assertTrue([r for r in netlab.rules() if b.id[:12] in r])
            self.assertEqual(class_rate(b.host), '1Mbit')
            self.tool('--id', b.id, 'clear', str(b.pid))
            self.assertEqual(netlab.rules(), before)
            self.tearDown()
            self.setUp()

    def test_container_dies_in_the_middle(self):
        """Containers are killed while 20 nodes are configured: every node is either done or has one clear error, and
        nothing is left of the dead ones after a sweep."""
        netlab.bridge('br0')
        nodes = [self.node(f'n{i}') for i in range(20)]
        for i, n in enumerate(nodes):
            n.plug('br0', f'10.9.0.{i + 1}')
        declared = [{'id': n.id, 'netns': f'/proc/{n.pid}/ns/net', 'interfaces': [{'mac': n.mac(), 'shape': 'rate 5mbit'}]}
                    for n in nodes]
        path = os.path.join(self.directory.name, 'n.json')
        with open(path, 'w', encoding='utf-8') as f:
            json.dump({'nodes': declared}, f)
        for _ in range(5):
            with subprocess.Popen([TOOL, '--json', 'apply', path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
                for n in nodes[::2]:
                    n.process.kill()
                out, errors = p.communicate(timeout=60)
            self.assertIn(p.returncode, (0, 1), errors)
            self.assertNotIn('Sanitizer', errors)
            if out.strip():
                for n in json.loads(out)['nodes']:
                    if n['error']:
                        self.assertNotIn('\n', n['error']['message'])
        alive = [n.id for n in nodes[1::2]]
        for _ in range(100):
            if run('ip', '-br', 'link', 'show', 'type', 'veth').stdout.count('\n') == 10:
                break
            time.sleep(0.05)
        self.tool('sweep', *alive)
        self.apply([d for d in declared if d['id'] in alive])
        self.assertEqual(run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 10)


class Traffic(netlab.Lab):
    def assert_rate(self, measured, declared):
        said = f'{measured:.3f} Mbit/s instead of {declared}'
        if os.environ.get('TBNODE_VM'):
            # An emulated machine may not be able to send this much, and stands still for moments; that the rate is also
            # reached there is asserted where it can be told apart (tests/vm/test_netem.py).
            self.assertTrue(0 < measured < 1.5 * declared, said)
        else:
            self.assertLess(abs(measured - declared) / declared, 0.05, said)

    def test_rates_each_way(self):
        a, b = self.pair()
        self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit up rate 2mbit'}])])
        self.assert_rate(self.measure(b, a, '10.9.0.1', 10), 10)
        self.assert_rate(self.measure(a, b, '10.9.0.2', 2), 2)
        self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 2mbit up rate 10mbit'}])])
        self.assert_rate(self.measure(b, a, '10.9.0.1', 2), 2)
        self.assert_rate(self.measure(a, b, '10.9.0.2', 10), 10)

    def test_no_packet_lost_by_changes(self):
        a, b = self.pair()
        self.apply([self.declare(n, [{'ifname': 'eth0', 'shape': 'rate 10mbit limit 3000'}]) for n in (a, b)])
        counter = b.start(sys.executable, netlab.TRAFFIC, 'count', 2)
        self.assertEqual(counter.stdout.readline(), 'ready\n')
        sender = a.start(sys.executable, netlab.TRAFFIC, 'stream', '10.9.0.2', 400, 1600)
        changes = 0
        while sender.poll() is None:
            rate = ('2mbit', '10mbit', '40gbit', '')[changes % 4]
            # With room for what the sender makes up for after the machine stood still.
            spec = f'rate {rate} limit 3000' if rate else 'limit 3000'
            r = self.apply([self.declare(n, [{'ifname': 'eth0', 'shape': spec}]) for n in (a, b)])
            self.assertEqual(r['nodes'][0]['change'], 'in-place')
            changes += 1
        self.assertEqual(json.loads(counter.stdout.readline())['received'], 1600, f'{changes} changes')
        self.assertGreater(changes, 5)

    def test_what_the_machine_adds_is_measured(self):
        """P11 and P23: a link without a shape has a delay of its own, and who was too late to send is told from who waited on the
        way. Nothing declared comes into it."""
        a, b = self.pair()

        def sent():
            return int(a.run('ip', '-s', '-j', 'link', 'show', 'eth0').stdout.split('"tx":')[1].split('"packets":')[1].split(',')[0])

        began = sent()
        p = subprocess.Popen([netlab.TOOL, '--json', 'probe', str(a.pid), 'eth0', str(b.pid), 'eth0', 'packets', '1000', 'interval',
                              '1ms'], stdout=subprocess.PIPE, text=True)
        while sent() < began + 50:
            self.assertIsNone(p.poll())
        p.send_signal(signal.SIGSTOP)
        time.sleep(0.2)  # not until anything happens: this is the disturbance
        p.send_signal(signal.SIGCONT)
        seen = json.loads(p.communicate()[0])
        self.assertEqual((seen['sent'], seen['received'], seen['reordered']), (1000, 1000, 0))
        self.assertGreater(seen['late_max_ns'], 150e6)
        self.assertGreater(seen['delay_min_ns'], 0)
        self.assertLess(seen['delay_median_ns'], 100e6)

    def test_arp_and_ipv6_pass_the_ifb(self):
        a, b = self.pair()
        a.run('ip', '-6', 'addr', 'add', 'fd00::1/64', 'dev', 'eth0', 'nodad')
        b.run('ip', '-6', 'addr', 'add', 'fd00::2/64', 'dev', 'eth0', 'nodad')
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'up': 'rate 5mbit'}])])
        ifb = r['nodes'][0]['interfaces'][0]['up']['device']

        def packets():
            return next(q for q in js('tc', '-j', '-s', 'qdisc', 'show', 'dev', ifb) if q['kind'] == 'htb')['packets']

        a.run('ip', 'neigh', 'flush', 'all')
        n = packets()
        a.run('ping', '-c', '3', '-i', '0.2', 'fd00::2')
        self.assertGreaterEqual(packets() - n, 3)
        a.run('ip', 'neigh', 'flush', 'all')
        n = packets()
        a.run('ping', '-c', '1', '10.9.0.2')
        self.assertGreaterEqual(packets() - n, 2, 'ARP request and echo request')


if __name__ == '__main__':
    netlab.main()
