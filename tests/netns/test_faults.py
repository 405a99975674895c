#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""One object of a batch fails: what failed is said, its node is as it was before, and all other nodes are done."""

import json
import os
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import netlab  # noqa: E402
from netlab import TOOL, class_rate, js, run, snapshot  # noqa: E402

IFB_BASE = 0x40000000


class Faults(netlab.Lab):
    def lan(self, count=4, second=False):
        netlab.bridge('br0')
        nodes = [self.node(f'n{i}') for i in range(count)]
        for i, n in enumerate(nodes):
            n.host = n.plug('br0', f'10.9.0.{i + 1}')
            if second:
                n.second = n.plug('br0', f'10.9.1.{i + 1}', 'eth1')
        for i in range(1, count):  # until the ports forward; before that links still change by themselves
            nodes[0].run('ping', '-c1', '-W5', f'10.9.0.{i + 1}')
        return nodes

    def index(self, name):
        return self.links()[name]

    def links(self):
        return {link['ifname']: link['ifindex'] for link in js('ip', '-j', 'link')}

    def half(self, nodes, bad, text, interfaces=('eth0',)):
        """Applies to all; the bad node fails with this text and is as before, the others are done. Twice, to see that a
        failure is no state of its own."""
        declared = [self.declare(n, [{'ifname': i, 'shape': 'rate 5mbit; to 10.9.0.9 rate 1mbit'} for i in interfaces]) for n in nodes]
        before = self.of(bad)
        for _ in range(2):
            r = self.apply(declared, status=1)
            for n, status in zip(nodes, r['nodes']):
                if n is bad:
                    self.assertIn(text, status['error']['message'])
                    self.assertEqual(status['error']['message'].count('\n'), 0)
                    self.assertEqual(status['change'], 'unchanged')
                else:
                    self.assertIsNone(status['error'])
                    self.assertEqual(class_rate(n.host), '5Mbit')
            self.assertEqual(self.of(bad), before, 'the failed node is as it was')
        return declared

    def of(self, node):
        """What there is at a node's host sides, and of its ifbs."""
        hosts = [h for h in (node.host, getattr(node, 'second', None)) if h]
        text = ''
        for h in hosts:
            text += run('tc', 'qdisc', 'show', 'dev', h).stdout + run('tc', 'class', 'show', 'dev', h).stdout
            text += run('tc', 'filter', 'show', 'dev', h).stdout + run('tc', 'filter', 'show', 'dev', h, 'parent', 'ffff:', check=False).stdout
        links = [line for line in run('ip', '-d', 'link').stdout.splitlines() if f'tbnode:{node.id}:' in line]
        return text, links

    def test_index_of_an_ifb_is_taken(self):
        """Seen only when the ifb is made: the name is another one, and so is the kind."""
        nodes = self.lan()
        bad = nodes[1]
        run('ip', 'link', 'add', 'dummybr', 'index', str(IFB_BASE + self.index(bad.host)), 'type', 'bridge')
        self.half(nodes, bad, 'dummybr')
        run('ip', 'link', 'del', 'dummybr')

    def test_name_of_an_ifb_is_taken_by_an_alternative_name(self):
        """No look at names and indexes shows this one: making the ifb fails in the middle of the batch."""
        nodes = self.lan(second=True)
        bad = nodes[2]
        run('ip', 'link', 'property', 'add', 'dev', 'br0', 'altname', f'tbi{self.index(bad.second)}')
        self.half(nodes, bad, 'create ifb', ('eth0', 'eth1'))
        run('ip', 'link', 'property', 'del', 'dev', 'br0', 'altname', f'tbi{self.index(bad.second)}')

    @unittest.skipIf(netlab.capabilities()['netem'], 'this kernel has netem: the qdisc is known')
    def test_kind_of_a_rule_is_unknown(self):
        nodes = self.lan()
        declared = [self.declare(n, [{'ifname': 'eth0', 'shape': 'rate 5mbit' + ('; to 10.9.0.9 delay 5ms' if n is nodes[3] else '')}])
                    for n in nodes]
        before = self.of(nodes[3])
        r = self.apply(declared, status=1)
        self.assertIn('sch_netem', r['nodes'][3]['error']['message'])
        self.assertEqual(self.of(nodes[3]), before)
        self.assertEqual([class_rate(n.host) for n in nodes[:3]], ['5Mbit'] * 3)

    def test_configured_node_keeps_what_it_had(self):
        """A change that fails at the last object takes back what it did at the first."""
        nodes = self.lan(2, second=True)
        bad = nodes[0]
        self.apply([self.declare(bad, [{'ifname': 'eth0', 'shape': 'rate 3mbit; to 10.9.0.9 rate 2mbit'}])])
        run('ip', 'link', 'property', 'add', 'dev', 'br0', 'altname', f'tbi{self.index(bad.second)}')
        self.half(nodes, bad, 'create ifb', ('eth0', 'eth1'))
        self.assertEqual(class_rate(bad.host), '3Mbit')
        run('ip', 'link', 'property', 'del', 'dev', 'br0', 'altname', f'tbi{self.index(bad.second)}')

    def test_everything_is_repaired_by_the_next_apply(self):
        """Killed at any moment: what is half there is recognised as ours, and made whole or swept."""
        nodes = self.lan(6)
        empty = snapshot()
        declared = [{'id': n.id, 'netns': f'/proc/{n.pid}/ns/net',
                     'interfaces': [{'mac': n.mac(), 'shape': 'rate 5mbit; to 10.9.0.9 rate 1mbit'}]} for n in nodes]
        path = os.path.join(self.directory.name, 'n.json')
        with open(path, 'w', encoding='utf-8') as f:
            f.write(json.dumps({'nodes': declared}))
        for wait in (0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01):
            with subprocess.Popen([TOOL, 'apply', path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
                t = threading.Timer(wait, p.kill)
                t.start()
                p.wait()
                t.cancel()
            self.tool('apply', path)
            self.assertEqual(json.loads(self.tool('--json', 'apply', path).stdout)['netlink_writes'], 0)
            for n in nodes:
                self.tool('--id', n.id, 'clear', str(n.pid))
            self.assertEqual(snapshot(), empty)

    def test_veths_vanish_in_mid_batch(self):
        """Links are deleted while the batch is written: every node is done or failed with one line, never in between."""
        for _ in range(3):
            nodes = self.lan(12, second=True)
            declared = [self.declare(n, [{'ifname': i, 'shape': 'rate 5mbit; to 10.9.0.9 rate 1mbit'} for i in ('eth0', 'eth1')])
                        for n in nodes]
            script = ''.join(f'link del {n.second}\n' for n in nodes[::2])
            killer = subprocess.Popen(['ip', '-force', '-batch', '-'], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            path = os.path.join(self.directory.name, 'n.json')
            with open(path, 'w', encoding='utf-8') as f:
                f.write(json.dumps({'nodes': declared}))
            with subprocess.Popen([TOOL, '--json', 'apply', path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
                killer.communicate(script)
                out, errors = p.communicate(timeout=60)
            self.assertNotIn('Sanitizer', errors)
            if out.strip():
                for n, status in zip(nodes, json.loads(out)['nodes']):
                    if status['error'] and n.host in self.links():
                        self.assertEqual(class_rate(n.host), None, status['error']['message'])
            self.tool('sweep', *(n.id for n in nodes))
            links = self.links()
            for name in links:
                if name.startswith('tbi'):
                    self.assertIn(int(name[3:]), links.values(), 'an ifb without its veth')
            self.tearDown()
            self.setUp()


if __name__ == '__main__':
    netlab.main()
