#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every option of a shape against tc(8), both ways: what we write is what tc reads from a queue that it was told the same
of, and what tc writes into our queue is what we read."""

import json
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import netlab  # noqa: E402
from netlab import js, qdiscs, run  # noqa: E402

CAPS = netlab.capabilities() if os.geteuid() == 0 else {}
PROBABILITY = 0.02

# SPEC, and the words of tc for the same when they are others. Times are multiples of 64 ns, to which this tc rounds them; a
# correlation of duplicates alone it does not send at all.
NETEM = [
    ('delay 20ms', None), ('delay 64us', None), ('delay 60s', None), ('delay 5s 2s', None),
    ('delay 128us 64us 25%', None), ('delay 20ms 4ms distribution normal', None),
    ('delay 20ms 4ms distribution pareto', None), ('delay 20ms 4ms distribution paretonormal', None),
    ('delay 20ms 4ms distribution experimental', None),
    ('loss 0.01%', None), ('loss random 10% 25%', None), ('loss 100%', None),
    ('loss state 1%', None), ('loss state 1% 50%', None), ('loss state 1% 50% 2%', None),
    ('loss state 1% 50% 2% 30%', None), ('loss state 1% 50% 2% 30% 0.5%', None),
    ('loss gemodel 1%', None), ('loss gemodel 1% 10%', None), ('loss gemodel 1% 10% 70%', None),
    ('loss gemodel 1% 10% 70% 0.1%', None), ('loss 1% ecn', None), ('loss gemodel 1% ecn', None),
    ('duplicate 1%', None), ('loss 1% 5% duplicate 2.5% 10%', None), ('corrupt 0.1%', None), ('corrupt 5% 50%', None),
    ('delay 10ms reorder 25%', None), ('delay 10ms reorder 25% 50%', None), ('delay 10ms reorder 25% 50% gap 5',
                                                                          'delay 10ms reorder 25% 50% gap 5'),
    ('slot 800us', None), ('slot 1ms 20ms', None), ('slot 1ms 20ms packets 7', None), ('slot 1ms 20ms bytes 9000', None),
    ('slot 5s 6s packets 7 bytes 9000', None), ('slot distribution normal 5ms 1ms', None),
    ('slot distribution pareto 5ms 1ms packets 3 bytes 4500', None),
    ('delay 1ms limit 321', None), ('delay 1ms limit 10000000', None),
    ('delay 20ms 2ms 10% distribution normal loss 1% 5% duplicate 1% 2% corrupt 0.1% 3% reorder 5% 7% gap 2 limit 77', None),
]


def near(a, b):
    """Equal, but for the last of 32 bits of a probability, which tc rounds in floating point."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(near(a[k], b[k]) for k in a)
    if isinstance(a, float) or isinstance(b, float):
        return abs(a - b) <= 1e-9 + 1e-6 * abs(b)
    return a == b


def near_words(a, b):
    a, b = a.split(), b.split()
    if len(a) != len(b):
        return False
    for x, y in zip(a, b):
        if x != y and not (x.endswith('%') and y.endswith('%') and abs(float(x[:-1]) - float(y[:-1])) < 1e-6):
            return False
    return True


def options(device, parent):
    q = next(q for q in js('tc', '-j', '-d', 'qdisc', 'show', 'dev', device)
             if q.get('parent') == parent or (parent == 'root' and q.get('root')))
    return q['kind'], {k: v for k, v in q.get('options', {}).items() if k != 'seed'}


class Oracle(netlab.Lab):
    def setUp(self):
        super().setUp()
        netlab.bridge('br0')
        self.a = self.node('a')
        self.a.host = self.a.plug('br0', '10.9.0.1')
        run('ip', 'link', 'add', 'scratch', 'type', 'veth', 'peer', 'name', 'scratch1')

    def ours(self, spec):
        return self.apply([self.declare(self.a, [{'ifname': 'eth0', 'down': spec}])])['nodes'][0]['interfaces'][0]['down']

    def shown(self):
        r = json.loads(self.tool('--json', '--id', self.a.id, 'show', str(self.a.pid)).stdout)
        return r['nodes'][0]['interfaces'][0]['down']['shape']

    def tc(self, *words, device='scratch', where=('root', 'handle', '1:')):
        run('tc', 'qdisc', 'replace' if device == 'scratch' else 'change', 'dev', device, *where, *words)

    @unittest.skipUnless(CAPS.get('netem'), 'this kernel has no netem')
    def test_netem(self):
        for spec, words in NETEM:
            with self.subTest(spec=spec):
                down = self.ours(spec)
                kind, got = options(self.a.host, '7462:1')
                limit = got['limit']
                words = (words or spec).split()
                if 'limit' not in words:
                    words = ['limit', str(limit), *words]
                run('tc', 'qdisc', 'del', 'dev', 'scratch', 'root', check=False)
                self.tc('netem', *words)
                self.assertEqual(kind, 'netem')
                want = options('scratch', 'root')[1]
                self.assertTrue(near(got, want), f'we wrote {got}\ntc wrote {want}')

                # The other way: a neutral netem of ours, changed by tc; what only a cookie of ours tells is left out.
                ours = down['shape']
                self.ours('delay 999ms')
                handle = next(q['handle'] for q in qdiscs(self.a.host) if q.get('parent') == '7462:1')
                if 'slot distribution' in spec:
                    continue
                self.tc('netem', *(['delay', '0ms'] if 'delay' not in words else []), *words, device=self.a.host,
                        where=('parent', '7462:1', 'handle', handle))
                expected = re.sub(r' distribution \w+', '', ours)
                self.assertTrue(near_words(self.shown(), expected), f'tc wrote {words}, we read {self.shown()!r}, '
                                f'not {expected!r}')

    @unittest.skipUnless(CAPS.get('netem'), 'this kernel has no netem')
    def test_netem_options_go_again(self):
        """Whatever was set, in place, one after the other: nothing of it is left behind."""
        plain = None
        for spec, _ in [('delay 7ms limit 50', None), *NETEM]:
            self.ours(spec)
            self.ours('delay 7ms limit 50')
            now = options(self.a.host, '7462:1')[1]
            plain = plain or now
            self.assertEqual(now, plain, f'after {spec!r}')

    @unittest.skipUnless(CAPS.get('netem'), 'this kernel has no netem')
    def test_distribution_changes_in_place(self):
        self.ours('delay 20ms 4ms')
        nodes = [self.declare(self.a, [{'ifname': 'eth0', 'down': 'delay 20ms 4ms distribution normal'}])]
        r = self.apply(nodes)
        self.assertEqual(r['nodes'][0]['change'], 'in-place')
        self.assertIn('distribution normal', self.shown())
        self.assertEqual(self.apply(nodes)['netlink_writes'], 0)
        self.ours('delay 20ms 4ms')
        self.assertNotIn('distribution', self.shown())
        self.ours('delay 20ms 4ms distribution experimental')
        self.assertIn('distribution experimental', self.shown())

    @unittest.skipUnless(CAPS.get('netem'), 'this kernel has no netem')
    def test_unknown_distribution(self):
        r = self.apply([self.declare(self.a, [{'ifname': 'eth0', 'down': 'delay 20ms 4ms distribution nosuch'}])], status=1)
        self.assertIn("no distribution 'nosuch'", r['nodes'][0]['error']['message'])

    @unittest.skipUnless(CAPS.get('red'), 'this kernel has no RED')
    def test_red(self):
        for spec, words in (
                ('rate 10mbit queue red min 30kb max 90kb limit 400kb',
                 ('min', 30720, 'max', 92160, 'limit', 409600)),
                ('rate 1mbit queue red min 15kb max 45kb probability 10% harddrop ecn limit 200kb',
                 ('min', 15360, 'max', 46080, 'limit', 204800, 'ecn', 'harddrop')),
                ('rate 1gbit queue red min 300kb max 900kb adaptive limit 4mb',
                 ('min', 307200, 'max', 921600, 'limit', 4194304, 'adaptive'))):
            with self.subTest(spec=spec):
                down = self.ours(spec)
                kind, got = options(self.a.host, '7462:1')
                low, high = words[1], words[3]
                probability = 0.10 if '10%' in spec else PROBABILITY
                run('tc', 'qdisc', 'del', 'dev', 'scratch', 'root', check=False)
                self.tc('red', *words, 'avpkt', 1000, 'burst', (2 * low + high) // 3000, 'probability', probability,
                        'bandwidth', spec.split()[1])
                self.assertEqual(kind, 'red')
                want = options('scratch', 'root')[1]
                self.assertTrue(near(got, want), f'we wrote {got}\ntc wrote {want}')
                self.assertIn(f'queue red min {low // 1024}kb max {high // 1024}kb probability', down['shape'])
                nodes = [self.declare(self.a, [{'ifname': 'eth0', 'down': spec}])]
                self.assertEqual(self.apply(nodes)['netlink_writes'], 0)

    def test_fifos_and_blackhole(self):
        for spec, kind, limit in (('rate 10mbit limit 64kb', 'bfifo', 65536), ('rate 10mbit limit 1514b', 'bfifo', 1514)):
            self.assertIn(spec, self.ours(spec)['shape'])
            self.assertEqual((kind, {'limit': limit}), options(self.a.host, '7462:1'))
            run('tc', 'qdisc', 'change', 'dev', self.a.host, 'parent', '7462:1', 'handle', '7502:', 'bfifo', 'limit', '77777')
            self.assertIn('limit 77777b', self.shown())
        self.ours('rate 10mbit link down')
        self.assertEqual(('blackhole', {}), options(self.a.host, '7462:1'))
        self.assertEqual('link down rate 10mbit', self.shown())
        self.assertIn('rate 10mbit limit', self.ours('rate 10mbit')['shape'])

    def test_classes(self):
        """Rate, overhead, cells, burst and quantum of the class, as tc reads and as tc writes them."""
        for spec, words in (
                ('rate 10mbit', ('rate', '10mbit')), ('rate 1kbit', ('rate', '1kbit')), ('rate 40gbit', ('rate', '40gbit')),
                ('rate 33333kbit', ('rate', '33333kbit')), ('rate 8mbit overhead 24', ('rate', '8mbit', 'overhead', '24')),
                ('rate 8mbit mpu 64', ('rate', '8mbit', 'mpu', '64')),
                ('rate 8mbit linklayer atm', ('rate', '8mbit', 'linklayer', 'atm')),
                ('rate 8mbit 40 48 5', ('rate', '8mbit', 'overhead', '40', 'linklayer', 'atm'))):
            with self.subTest(spec=spec):
                down = self.ours(spec)

                def read():
                    text = run('tc', '-d', 'class', 'show', 'dev', self.a.host, 'classid', '7462:1').stdout
                    return {k: m[1] for k in ('rate', 'ceil', 'overhead', 'mpu', 'linklayer')
                            if (m := re.search(rf'\b{k} (\S+)', text))}
                ours = read()
                self.ours('rate 5mbit')
                run('tc', 'class', 'change', 'dev', self.a.host, 'classid', '7462:1', 'htb', *words)
                self.assertEqual(ours, read())
                self.assertEqual(down['shape'].split(' limit')[0], self.shown().split(' limit')[0])

    def test_burst_and_quantum(self):
        """P3, P4, P5: explicit, in 64 bits, rounded up; what the user says counts."""
        for rate in (10**6, 10**7, 10**8, 10**9, 4 * 10**10):
            down = self.ours(f'rate {rate}bit')
            self.assertGreaterEqual(down['burst_bytes'], 1514 + rate // 8 * 4 // 1000)
            self.assertLess(down['burst_bytes'], 1514 + rate // 8 * 4 // 1000 + 1 + rate // 8 * 64 // 10**9 + 64)
            self.assertTrue(1514 <= down['quantum_bytes'] <= 60000)
            for burst in (1514, 2000, 2999, 32768):
                down = self.ours(f'rate {rate}bit burst {burst}b quantum 3000b')
                self.assertGreaterEqual(down['burst_bytes'], burst)
                self.assertLessEqual(down['burst_bytes'], burst + rate // 8 * 64 // 10**9 + 1)
                self.assertEqual(down['quantum_bytes'], 3000)


if __name__ == '__main__':
    netlab.main()
