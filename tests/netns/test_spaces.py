#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Host sides of veths in other namespaces than ours, as Docker's overlay networks have them."""

import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import netlab  # noqa: E402
from netlab import run, snapshot  # noqa: E402


# RTM_GETNSID of our own namespace; -1: it has none.
OWN_NUMBER = """
import os, socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
fd = os.open('/proc/self/ns/net', os.O_RDONLY)
s.send(struct.pack('=IHHIIBxxxHHI', 28, 90, 1, 1, 0, 0, 8, 3, fd))
answer = s.recv(4096)
print(struct.unpack_from('=i', answer, 24)[0])
"""


class Spaces(netlab.Lab):
    def setUp(self):
        super().setUp()
        os.makedirs('/run/docker/netns', exist_ok=True)
        self.named = []

    def tearDown(self):
        super().tearDown()
        for path in self.named:
            subprocess.run(['umount', path], check=False)
            os.unlink(path)
        self.named = []

    def overlay(self, name='1-lan0', directory='/run/docker/netns'):
        """A namespace with a name and a bridge, as moby makes one for each overlay network."""
        path = f'{directory}/{name}'
        os.makedirs(directory, exist_ok=True)
        with open(path, 'w', encoding='utf-8'):
            pass
        self.named.append(path)
        n = self.node(name.replace('-', ''))
        run('mount', '--bind', f'/proc/{n.pid}/ns/net', path)
        n.path = path
        n.run('ip', 'link', 'add', 'br0', 'type', 'bridge', 'forward_delay', '0')
        n.run('ip', 'link', 'set', 'br0', 'up')
        return n

    def member(self, overlay, name, address, index=None):
        n = self.node(name)
        host = f'veth{name}'
        overlay.run('ip', 'link', 'add', host, *(['index', str(index)] if index else []), 'type', 'veth', 'peer', 'name', 'eth0', 'netns', n.pid)
        overlay.run('ip', 'link', 'set', host, 'master', 'br0', 'up')
        n.run('ip', 'addr', 'add', f'{address}/24', 'dev', 'eth0')
        n.run('ip', 'link', 'set', 'eth0', 'up')
        n.host = host
        return n

    def state(self, n):
        """What must be as before after a removal, in a namespace."""
        text = n.run('sh', '-c', 'ip -br link | sed "s/ [A-Z]* / /"; tc qdisc show; tc class show dev br0').stdout
        return [line for line in text.splitlines() if 'noqueue' in line or 'tbi' in line or '7462' in line or '@' in line]

    def rate(self, n, device):
        return [line.split(' rate ')[1].split()[0] for line in n.run('tc', 'class', 'show', 'dev', device).stdout.splitlines()]

    def test_shaped_where_the_bridge_is(self):
        lan = self.overlay()
        a, b = self.member(lan, 'a', '10.8.0.1'), self.member(lan, 'b', '10.8.0.2')
        a.run('ping', '-c1', '-W5', '10.8.0.2')
        here, there = snapshot(), self.state(lan)
        nodes = [self.declare(n, [{'ifname': 'eth0', 'shape': f'rate 10mbit up rate {k}mbit; to 10.8.0.9 rate 1mbit'}])
                 for k, n in ((2, a), (3, b))]
        r = self.apply(nodes)
        for k, n in ((0, a), (1, b)):
            i = r['nodes'][k]['interfaces'][0]
            self.assertEqual((i['host_ifname'], i['host_netns']), (n.host, lan.path))
            self.assertEqual(self.rate(lan, n.host), ['10Mbit', '1Mbit'])
            self.assertEqual(self.rate(lan, i['up']['device']), [f'{2 + k}Mbit', '1Mbit'])
        self.assertEqual(snapshot(), here, 'nothing of it is in our own namespace')
        again = self.apply(nodes)
        # One batch where the bridge is, and one in each container whose interface may not send large frames.
        self.assertEqual((again['netlink_writes'], r['netlink_sends']), (0, 3))
        slack = 0.5 if os.environ.get('TBNODE_VM') else 0.05
        self.assertLess(abs(self.measure(a, b, '10.8.0.2', 2, 2) - 2) / 2, slack)
        # Changes are in place, and a removal leaves nothing.
        nodes[0]['interfaces'][0]['shape'] = 'rate 20mbit; to 10.8.0.9 rate 1mbit'
        self.assertEqual(self.apply(nodes)['nodes'][0]['change'], 'in-place')
        self.tool('--id', a.id, 'clear', str(a.pid))
        self.tool('--id', b.id, 'clear', str(b.pid))
        self.assertEqual((snapshot(), self.state(lan)), (here, there))

    def test_same_index_in_two_namespaces(self):
        """One interface on a bridge here and one on an overlay there, whose host sides have the same index and so the same
        name of an ifb; both in one call."""
        lan = self.overlay(directory='/run/netns')
        netlab.bridge('br0')
        a = self.member(lan, 'a', '10.8.0.1', index=77)
        run('ip', 'link', 'add', 'here', 'index', '77', 'type', 'veth', 'peer', 'name', 'eth1', 'netns', a.pid)
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 1mbit'}, {'ifname': 'eth1', 'shape': 'rate 2mbit'}])])
        devices = [(i['host_netns'], i['up']['device']) for i in r['nodes'][0]['interfaces']]
        self.assertEqual(devices, [(lan.path, 'tbi77'), (None, 'tbi77')])
        self.assertEqual((self.rate(lan, 'vetha'), netlab.class_rate('here')), (['1Mbit'], '2Mbit'))
        # A failure of one is taken back for both, in both namespaces.
        if not netlab.capabilities()['netem']:
            self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 3mbit'},
                                         {'ifname': 'eth1', 'shape': 'rate 4mbit delay 1ms'}])], status=1)
            self.assertEqual((self.rate(lan, 'vetha'), netlab.class_rate('here')), (['1Mbit'], '2Mbit'))

    def test_the_host_has_the_lowest_number(self):
        """Answers about interfaces in containers name the host's namespace by its number, which the kernel finds by going through
        all of them from the lowest: we take ours before there are containers."""
        self.tool('sweep')
        for i in range(3):
            n = self.node(f'n{i}')
            run('ip', 'link', 'add', f'v{i}', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', n.pid)
        own = int(run('python3', '-c', OWN_NUMBER).stdout)
        others = [link['link_netnsid'] for link in netlab.js('ip', '-j', 'link') if 'link_netnsid' in link]
        self.assertEqual(len(others), 3)
        self.assertGreaterEqual(own, 0)
        self.assertLess(own, min(others))

    def test_leftovers_are_found(self):
        lan = self.overlay()
        for verb in ('remove', 'sweep'):
            a, b = self.member(lan, 'a', '10.8.0.1'), self.member(lan, 'b', '10.8.0.2')
            self.apply([self.declare(n, [{'ifname': 'eth0', 'shape': 'rate 1mbit'}]) for n in (a, b)])
            self.assertEqual(lan.run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 2)
            a.end()
            for _ in range(100):
                if 'vetha' not in lan.run('ip', '-br', 'link').stdout:
                    break
            self.tool(verb, a.id if verb == 'remove' else b.id)
            self.assertEqual(lan.run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 1)
            self.tool('sweep')
            self.assertEqual(lan.run('ip', '-br', 'link', 'show', 'type', 'ifb').stdout.count('tbi'), 0)
            self.assertEqual(lan.run('tc', 'qdisc', 'show', 'dev', 'vethb').stdout.count('ingress'), 0)
            b.end()
            for _ in range(100):
                if 'vethb' not in lan.run('ip', '-br', 'link').stdout:
                    break

    def test_a_firewall_is_not_possible_there(self):
        lan = self.overlay()
        a = self.member(lan, 'a', '10.8.0.1')
        there = self.state(lan)
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 1mbit', 'filtered': True}], 'basic')], status=1)
        self.assertIn(lan.path, r['nodes'][0]['error']['message'])
        self.assertIn('control network', r['nodes'][0]['error']['message'])
        self.assertEqual(self.state(lan), there)

    def test_nameless_namespace_and_other_kinds(self):
        """Where there is nothing that could be shaped the error says what and why."""
        self.overlay()
        a, b = self.node('a'), self.node('b')
        run('ip', 'link', 'add', 'x0', 'netns', a.pid, 'type', 'veth', 'peer', 'name', 'x1', 'netns', b.pid)
        r = self.apply([self.declare(a, [{'ifname': 'x0', 'shape': 'rate 1mbit'}])], status=1)
        self.assertIn('in none that has a name', r['nodes'][0]['error']['message'])
        for kind in ('macvlan', 'ipvlan'):
            run('ip', 'link', 'add', 'parent', 'type', 'veth', 'peer', 'name', 'other')
            if subprocess.run(['ip', 'link', 'add', 'm0', 'netns', str(a.pid), 'link', 'parent', 'type', kind], check=False,
                              stderr=subprocess.DEVNULL).returncode == 0:
                r = self.apply([self.declare(a, [{'ifname': 'm0', 'shape': 'rate 1mbit'}])], status=1)
                self.assertIn(f'is of kind {kind}, not a veth', r['nodes'][0]['error']['message'])
                a.run('ip', 'link', 'del', 'm0')
            run('ip', 'link', 'del', 'parent')

    def test_hostile_names(self):
        """Files that are no namespaces, and namespaces that went away, are passed by."""
        lan = self.overlay()
        for name, make in (('file', lambda p: open(p, 'w', encoding='utf-8').close()), ('fifo', os.mkfifo),
                           ('link', lambda p: os.symlink('/dev/zero', p)), ('folder', os.mkdir)):
            make(f'/run/docker/netns/{name}')
        a = self.member(lan, 'a', '10.8.0.1')
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 1mbit'}])])
        self.assertEqual(r['nodes'][0]['interfaces'][0]['host_netns'], lan.path)
        self.assertEqual(json.loads(self.tool('--json', 'sweep').stdout), {'removed': 1})
        for name in ('file', 'fifo', 'link'):
            os.unlink(f'/run/docker/netns/{name}')
        os.rmdir('/run/docker/netns/folder')


if __name__ == '__main__':
    netlab.main()
