#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nodes may send on layer 2. Attackers write frames; whoever is on the other side catches what arrives."""

import contextlib
import json
import os
import subprocess
import sys
import time
import unittest.mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import frames  # noqa: E402
import netlab  # noqa: E402
from frames import BROADCAST, OTHER_MAC, arp, ether, icmp6, ipv4, ipv6, link_local, neighbour, tagged, udp  # noqa: E402
from netlab import run  # noqa: E402

PROGRAM = str(netlab.pathlib.Path(__file__).resolve().with_name('frames.py'))
LAST = b'tbnode-attack-the-end'


@contextlib.contextmanager
def kernel_without(family):
    """Programs that are started meanwhile have a kernel whose nf_tables lacks this family."""
    more = {'LD_PRELOAD': str(netlab.BUILD / 'tests/netns/without-family.so'), 'WITHOUT_FAMILY': str(family),
            'ASAN_OPTIONS': os.environ.get('ASAN_OPTIONS', '') + ':verify_asan_link_order=0'}
    with unittest.mock.patch.dict(os.environ, more):
        yield


class Guard:
    """a attacks, b and the host see what arrives; both are pinned."""

    def setUp(self):
        super().setUp()
        self.a, self.b = self.pair()
        self.a_mac, self.b_mac = self.a.mac(), self.b.mac()
        self.a6, self.b6 = link_local(self.a_mac), link_local(self.b_mac)
        self.host_mac = netlab.js('ip', '-j', 'link', 'show', 'br0')[0]['address']

    def guard(self, nodes=None, style='open', **interface):
        interface = {'ifname': 'eth0', 'filtered': True, 'pinned': True, **interface}
        return self.apply([self.declare(n, [interface], style) for n in nodes or (self.a, self.b)])

    def catcher(self, node, interface):
        command = [sys.executable, PROGRAM, 'catch', interface]
        if node:
            command = ['nsenter', '--net', '-t', str(node.pid), *command]
        p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(p.stdout.readline(), 'ready\n')
        return p

    def send(self, node, interface, *attack):
        run('nsenter', '--net', '-t', node.pid, sys.executable, PROGRAM, 'send', interface,
            stdin=''.join(f.hex() + '\n' for f in attack))

    def arrives(self, attack, sender=None, receiver=None, interface='eth0', source='eth0', fence=True):
        """Which of the frames of {name: frame} arrive at `receiver`'s interface (None: the host's, which is to be named). A frame
        that is allowed follows, and when it is there, everything before it is, too."""
        sender = sender or self.a
        p = self.catcher(receiver, interface)
        numbers = [b'tbnode-%06d' % i for i in range(len(attack))]
        self.send(sender, source, *(f.replace(frames.MARK, number) for f, number in zip(attack.values(), numbers)))
        seen = []
        if fence:
            mac = sender.mac(source)
            address = sender.run('ip', '-4', '-br', 'addr', 'show', source).stdout.split()[2].split('/')[0]
            self.send(sender, source, ether(mac, BROADCAST, 0x806, arp(mac, address, '10.9.0.254') + LAST))
            while LAST not in (frame := bytes.fromhex(p.stdout.readline())):
                seen.append(frame)
        else:
            time.sleep(0.3)  # nothing may arrive, so there is nothing to wait for
        out, _ = p.communicate('')
        seen += [bytes.fromhex(line) for line in out.split()]
        return {name for name, number in zip(attack, numbers) if any(number in f for f in seen)}

    def attacks(self, target='10.9.0.2', target_mac=None):
        """Everything that a pinned node must not be able to send."""
        return frames.forged(frames.Party(self.a_mac, '10.9.0.1'), frames.Party(self.b_mac, '10.9.0.2'), '10.9.0.254', '10.9.0.77',
                             target, target_mac)

    def allowed(self):
        a, b = self.a_mac, self.b_mac
        return {
            'IPv4': ether(a, b, 0x800, ipv4('10.9.0.1', '10.9.0.2')),
            'IPv4 broadcast': ether(a, BROADCAST, 0x800, ipv4('10.9.0.1', '10.9.0.255')),
            'ARP request': ether(a, BROADCAST, 0x806, arp(a, '10.9.0.1', '10.9.0.2')),
            'ARP answer': ether(a, b, 0x806, arp(a, '10.9.0.1', '10.9.0.2', 2, b)),
            'ARP probe': ether(a, BROADCAST, 0x806, arp(a, '0.0.0.0', '10.9.0.1')),
            'gratuitous ARP': ether(a, BROADCAST, 0x806, arp(a, '10.9.0.1', '10.9.0.1')),
            'IPv6': ether(a, b, 0x86dd, ipv6(self.a6, self.b6, 17, udp(5000, 5001))),
            'ND solicitation': ether(a, b, 0x86dd, neighbour(self.a6, self.b6, 135, self.b6, a, 1)),
            'ND advertisement': ether(a, b, 0x86dd, neighbour(self.a6, self.b6, 136, self.a6, a)),
            'duplicate address detection': ether(a, '33:33:ff:00:00:01', 0x86dd, neighbour(
                '::', 'ff02::1:ff00:1', 135, self.a6, a, 1)),
        }

    def test_attacks_fail_and_the_rest_passes(self):
        attacks, allowed = self.attacks(), self.allowed()
        # Without the guard they arrive: so it is the guard that stops them. (Not what bridges keep for themselves.)
        before = self.arrives({**attacks, **allowed}, receiver=self.b)
        self.assertEqual(set(allowed) - before, set())
        self.assertGreater(len(before & set(attacks)), 30)
        run('ip', 'neigh', 'flush', 'all')
        self.b.run('ip', 'neigh', 'flush', 'all')
        self.guard()
        self.assertEqual(self.arrives({**attacks, **allowed}, receiver=self.b), set(allowed))
        # Nor at the host itself, behind the bridge.
        self.assertEqual(self.arrives(self.attacks('10.9.0.254', self.host_mac), receiver=None, interface='br0'), set())
        # Who is attacked can't be made to believe it.
        known = self.b.run('ip', 'neigh').stdout + run('ip', 'neigh').stdout
        self.assertNotIn('10.9.0.77', known)
        counted = run('nft', 'list', 'chain', 'bridge', 'tbnode-guard', f'n{self.a.id[:12]}-drop').stdout
        self.assertGreaterEqual(int(counted.split('packets ')[-1].split()[0]), 2 * (len(attacks) - 3))

    def test_experiment_interfaces_are_open(self):
        netlab.bridge('br1')
        for n, address in ((self.a, '10.8.0.1'), (self.b, '10.8.0.2')):
            n.plug('br1', address, ifname='exp0')
        both = [{'ifname': 'eth0', 'filtered': True, 'pinned': True}, {'ifname': 'exp0'}]
        self.apply([self.declare(n, both, 'closed') for n in (self.a, self.b)])
        attack = {'tag': tagged(ether(OTHER_MAC, BROADCAST, 0x800, ipv4('192.0.2.1', '192.0.2.2')), 5),
                  'other': ether(OTHER_MAC, BROADCAST, 0x88b5, frames.MARK)}
        self.assertEqual(self.arrives(attack, receiver=self.b, interface='exp0', source='exp0'), set(attack))

    def test_unknown_port_of_a_managed_bridge(self):
        self.options = ('--managed', 'br0')
        self.guard()
        c, d = self.node('c'), self.node('d')
        for n, address in ((c, '10.9.0.3'), (d, '10.9.0.4')):
            n.plug('br0', address)
        c6 = link_local(c.mac())
        attack = {
            'own': ether(c.mac(), BROADCAST, 0x800, ipv4('10.9.0.3', '10.9.0.255')),
            'as a': ether(self.a_mac, BROADCAST, 0x800, ipv4('10.9.0.1', '10.9.0.255')),
            'IPv6': ether(c.mac(), '33:33:00:00:00:01', 0x86dd, ipv6(c6, 'ff02::1', 17, udp(1, 2))),
            'ARP': ether(c.mac(), BROADCAST, 0x806, arp(c.mac(), '10.9.0.3', '10.9.0.2')),
            'other': ether(c.mac(), BROADCAST, 0x88b5, frames.MARK)}
        self.assertEqual(self.arrives(attack, sender=c, receiver=self.b, fence=False), set())
        if netlab.capabilities()['nft-bridge-meta']:
            self.assertEqual(self.arrives(attack, sender=c, receiver=d, fence=False), set())
            self.assertEqual(self.arrives(attack, sender=c, receiver=None, interface='br0', fence=False), set())
        else:
            self.assertEqual(self.arrives(attack, sender=c, receiver=d, fence=False) & {'own', 'as a', 'IPv6'}, set())
        for n in (c, d):
            self.assertNotEqual(n.run('ping', '-c1', '-W1', '10.9.0.254', check=False).returncode, 0)
            self.assertNotEqual(n.run('ping', '-c1', '-W1', '10.9.0.2', check=False).returncode, 0)
        self.assertNotIn('10.9.0.3', ' '.join(x['dst'] for x in netlab.js('ip', '-j', 'neigh') if x.get('lladdr')))
        # The others don't notice, and those who become known pass.
        self.a.run('ping', '-c1', '-W2', '10.9.0.2')
        self.a.run('ping', '-c1', '-W2', '10.9.0.254')
        self.guard((c,))
        c.run('ip', 'neigh', 'flush', 'all')  # what it asked for in vain
        c.run('ping', '-c1', '-W2', '10.9.0.2')
        c.run('ping', '-c1', '-W2', '10.9.0.254')
        self.assertNotEqual(c.run('ping', '-c1', '-W1', '10.9.0.4', check=False).returncode, 0)
        # A bridge that nobody manages stays as it was.
        netlab.bridge('br2', '10.7.0.254/24')
        d.plug('br2', '10.7.0.1', ifname='eth1')
        d.run('ping', '-c1', '-W2', '10.7.0.254')
        # A sweep without a node keeps the door shut.
        self.tool('sweep')
        self.assertNotEqual(d.run('ping', '-c1', '-W1', '10.9.0.254', check=False).returncode, 0)
        self.options = ()
        self.tool('sweep')
        self.assertEqual(netlab.ours(), [])
        d.run('ping', '-c1', '-W2', '10.9.0.254')

    def firewall(self, node):
        """What the tool reads back of one node's firewall."""
        return json.loads(self.tool('firewall', os.path.join(self.directory.name, 'nodes.json')).stdout)[0]['firewall']

    def test_arp_without_a_bridge(self):
        """The host side of c is nobody's port: the host must not learn from c who else is there."""
        c = self.node('c')
        host = c.plug(None, '10.7.0.1')
        run('ip', 'addr', 'add', '10.7.0.254/24', 'dev', host)
        mac = c.mac()
        forged = [ether(mac, BROADCAST, 0x806, arp(mac, '10.7.0.77', '10.7.0.254')),
                  ether(mac, BROADCAST, 0x806, arp(OTHER_MAC, '10.7.0.78', '10.7.0.254')),
                  ether(mac, BROADCAST, 0x806, arp(OTHER_MAC, '10.7.0.1', '10.7.0.254'))]

        def learned():
            """Whom the host knows after the forged ones; c itself, which comes last, is known for certain."""
            run('ip', 'neigh', 'flush', 'dev', host)
            self.send(c, 'eth0', *forged, ether(mac, BROADCAST, 0x806, arp(mac, '10.7.0.1', '10.7.0.254')))
            while True:
                seen = {x['dst']: x.get('lladdr') for x in netlab.js('ip', '-j', '-4', 'neigh', 'show', 'dev', host)}
                if seen.get('10.7.0.1') == mac:
                    return set(seen)

        self.assertEqual(learned(), {'10.7.0.1', '10.7.0.77', '10.7.0.78'})
        self.guard((c,))
        self.assertEqual(learned(), {'10.7.0.1'})
        c.run('ping', '-c1', '-W5', '10.7.0.254')
        seen = self.firewall(c)
        self.assertTrue(seen['intact'], seen)
        self.assertGreaterEqual(seen['counters']['dropped']['identity'], 3)
        # Somebody's hand on it is seen, and undone.
        run('nft', 'flush', 'chain', 'arp', 'tbnode-guard', f'n{c.id[:12]}-drop')
        self.assertFalse(self.firewall(c)['intact'])
        self.assertEqual(self.guard((c,))['firewall_commits'], 1)
        self.assertTrue(self.firewall(c)['intact'])
        self.assertEqual(self.guard((c,))['firewall_commits'], 0)
        self.assertEqual(learned(), {'10.7.0.1'})

    def test_neighbours_without_a_bridge(self):
        """The same of IPv6, where neighbour discovery and routers' messages tell the host who is there."""
        c = self.node('c')
        host = c.plug(None, '10.7.0.1')
        mac, host_mac = c.mac(), netlab.js('ip', '-j', 'link', 'show', host)[0]['address']
        own, own6 = link_local(mac), [f'fd00:7::{i}' for i in (1, 2, 3, 4)]
        for key, value in (('accept_ra', 2), ('forwarding', 1)):  # as a router it hears RS, and RA as it is told to
            netlab.pathlib.Path(f'/proc/sys/net/ipv6/conf/{host}/{key}').write_text(str(value), encoding='ascii')
        run('ip', 'addr', 'add', 'fd00:7::fe/64', 'dev', host, 'nodad')
        c.run('ip', 'addr', 'add', 'fd00:7::1/64', 'dev', 'eth0', 'nodad')

        def solicit(source, lladdr):
            return ether(mac, host_mac, 0x86dd, neighbour(source, 'fd00:7::fe', 135, 'fd00:7::fe', lladdr, 1))

        def advertise(about, lladdr):
            return ether(mac, host_mac, 0x86dd, neighbour(own6[0], 'fd00:7::fe', 136, about, lladdr))

        router = bytes(2) + (1800).to_bytes(2, 'big') + bytes(8)
        forged = [solicit('fd00:7::77', mac), solicit(own6[0], OTHER_MAC), advertise('fd00:7::78', mac), advertise(own6[1], OTHER_MAC),
                  ether(mac, host_mac, 0x86dd, icmp6(own6[2], 'ff02::2', 133, bytes(4) + b'\1\1' + frames.mac(OTHER_MAC))),
                  ether(mac, host_mac, 0x86dd, icmp6(own, 'ff02::1', 134, b'\x40' + bytes(1) + router[2:]))]
        known = {'fd00:7::78': '02:00:00:00:00:55', own6[1]: mac}

        def learned():
            """Whom the host knows where after the forged ones; what is allowed comes last, and is known for certain."""
            run('ip', '-6', 'neigh', 'flush', 'dev', host)
            run('ip', '-6', 'route', 'flush', 'default', 'dev', host, check=False)
            for address, lladdr in known.items():
                run('ip', 'neigh', 'replace', address, 'lladdr', lladdr, 'nud', 'stale', 'dev', host)
            self.send(c, 'eth0', *forged, solicit(own6[3], mac))
            while True:
                seen = {x['dst']: x.get('lladdr') for x in netlab.js('ip', '-j', '-6', 'neigh', 'show', 'dev', host)}
                seen.pop(own, None)  # c's kernel may have spoken
                if seen.pop(own6[3], None) == mac:
                    return seen, run('ip', '-6', 'route', 'show', 'default', 'dev', host).stdout

        seen, route = learned()
        self.assertEqual(seen, {'fd00:7::77': mac, own6[0]: OTHER_MAC, 'fd00:7::78': mac, own6[1]: OTHER_MAC, own6[2]: OTHER_MAC})
        self.assertIn(own, route)
        self.guard((c,), ipv6=own6)
        self.assertEqual(learned(), (known, ''))
        # What is meant well works: each finds the other, and a duplicate is found.
        run('ip', '-6', 'neigh', 'flush', 'dev', host)
        c.run('ip', '-6', 'neigh', 'flush', 'dev', 'eth0')
        c.run('ping', '-6', '-c1', '-W5', 'fd00:7::fe')
        run('ip', '-6', 'neigh', 'flush', 'dev', host)
        run('ping', '-6', '-c1', '-W5', 'fd00:7::1')
        run('ip', 'addr', 'add', 'fd00:7::3/64', 'dev', host, 'nodad')
        c.run('ip', 'addr', 'add', 'fd00:7::3/64', 'dev', 'eth0')
        while 'tentative' in (state := c.run('ip', '-6', 'addr', 'show', 'dev', 'eth0', 'to', 'fd00:7::3').stdout) \
                and 'dadfailed' not in state:
            time.sleep(0.05)
        self.assertIn('dadfailed', state)
        seen = self.firewall(c)
        self.assertTrue(seen['intact'], seen)
        self.assertGreaterEqual(seen['counters']['dropped']['identity'], len(forged))
        # Somebody's hand on it is seen, and undone.
        run('nft', 'delete', 'table', 'inet', 'tbnode-guard')
        self.assertFalse(self.firewall(c)['intact'])
        self.assertEqual(self.guard((c,), ipv6=own6)['firewall_commits'], 1)
        self.assertEqual(learned(), (known, ''))
        self.assertEqual(self.guard((c,), ipv6=own6)['firewall_commits'], 0)
        self.guard((c,), style='none')
        self.assertEqual(netlab.ours(), [])

    def test_kernel_without_family_arp(self):
        """What can't be pinned has no firewall and says why; all others don't notice."""
        c = self.node('c')
        c.plug(None, '10.7.0.1')
        interface = {'ifname': 'eth0', 'filtered': True, 'pinned': True}
        with kernel_without(3):
            self.assertFalse(netlab.capabilities()['nf-tables-arp'])
            r = self.apply([self.declare(n, [interface], 'open') for n in (self.a, c, self.b)], status=1)
            self.assertTrue(self.firewall(self.a)['intact'])
        self.assertEqual([n['error'] is None for n in r['nodes']], [True, False, True])
        self.assertIn('CONFIG_NF_TABLES_ARP', r['nodes'][1]['error']['message'])
        self.assertTrue(netlab.capabilities()['nf-tables-arp'])
        self.guard((c,))
        self.assertTrue(self.firewall(c)['intact'])

    def test_damage_to_what_marks_is_seen(self):
        """Where bridges have no names, the bit of known ports is asked for in tables of their own."""
        self.options = ('--managed', 'br0')
        self.guard()
        self.assertTrue(self.firewall(self.a)['intact'])
        for family, chain in (('arp', 'input'), ('inet', 'prerouting')):
            if run('nft', 'list', 'table', family, 'tbnode-guard', check=False).returncode != 0:
                continue
            run('nft', 'flush', 'chain', family, 'tbnode-guard', chain)
            self.assertFalse(self.firewall(self.a)['intact'])
            self.guard()
            self.assertTrue(self.firewall(self.a)['intact'])

    def test_restart_is_no_write(self):
        self.options = ('--managed', 'br0')
        self.guard(style='basic')
        self.assertEqual(self.guard(style='basic')['firewall_commits'], 0)


class GuardIptables(Guard, netlab.Lab):
    backend = 'iptables'

    def test_kernel_without_family_bridge(self):
        """As without nf_tables: the rest of the firewall works, `doctor` says what doesn't."""
        with kernel_without(7):
            self.assertFalse(netlab.capabilities()['nf-tables-bridge'])
            self.guard(style='closed')
            self.assertTrue(self.firewall(self.a)['intact'])
            self.assertEqual(self.guard(style='closed')['firewall_commits'], 0)
            self.assertNotEqual(self.a.run('ping', '-c1', '-W1', '10.9.0.2', check=False).returncode, 0)


class GuardNftables(Guard, netlab.Lab):
    backend = 'nftables'


del Guard

if __name__ == '__main__':
    netlab.main()
