#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shaping by tbnode-netctl on a kernel that has netem: what packets between two nodes experience, what tc says, and
what tbnode-netctl reads back. Runs as root in the test machine:

    TBNODE_BUILD_DIR=build tests/vm/run -- tests/vm/test_netem.py [-v] [TEST...]

Delays have a strict lower bound: netem never sends a packet early. The upper bound is for the median, and the best of
three trains counts: an emulated machine on a busy host adds milliseconds now and then, it never takes any away.
Counts (loss, duplicates) are compared with the 99% interval of their binomial distribution; as one right measurement in
a hundred lies outside, a second one decides (one in 10,000).
"""

import json
import os
import select
import statistics
import subprocess
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from tbvm import lab  # noqa: E402

BUILD = Path(os.environ.get('TBNODE_BUILD_DIR', 'build'))
NETCTL = BUILD / 'netctl/tbnode-netctl'

SLACK_MS = 10.0     # of a median one-way delay, above what the bare path takes
LOSS_PACKETS = 2000


class Product:
    """tbnode-netctl as one would use it by hand."""

    @staticmethod
    def call(*words, status=0):
        done = subprocess.run([NETCTL, '--json', *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != status:
            raise AssertionError(f'tbnode-netctl {" ".join(words)}: exit status {done.returncode}: {done.stderr}'
                                 f'{done.stdout}')
        return json.loads(done.stdout) if status == 0 else done.stderr

    @classmethod
    def shape(cls, node, spec):
        return cls.call('--id', node.name, 'shape', node.netns, 'eth0', spec)['nodes'][0]['interfaces'][0]

    @classmethod
    def show(cls, node):
        return cls.call('--id', node.name, 'show', node.netns)['nodes'][0]['interfaces'][0]

    @classmethod
    def clear(cls, node):
        cls.call('--id', node.name, 'clear', node.netns)


class NetemTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.net = lab.Network()
        cls.addClassCleanup(cls.net.close)
        cls.one, cls.two = cls.net.one, cls.net.two
        bare = lab.send_train(cls.one, cls.two, 100, 0.01)
        cls.bare_ms = bare.median
        print(f'bare path: {bare}', flush=True)

    def tearDown(self):
        Product.clear(self.one)
        self.assertEqual(lab.qdiscs('h-one'), [])
        links = json.loads(lab.command('ip', '-j', '-d', 'link').stdout)
        self.assertEqual([l['ifname'] for l in links if l.get('linkinfo', {}).get('info_kind') == 'ifb'], [])

    # "down" is to the node, "up" from it.
    def down(self, count, interval, **options):
        return lab.send_train(self.two, self.one, count, interval, **options)

    def up(self, count, interval, **options):
        return lab.send_train(self.one, self.two, count, interval, **options)

    def assert_delay(self, train, low_ms, median_ms):
        """Every packet took at least low_ms; the median is median_ms, in the best of three trains."""
        best = None
        for _ in range(3):
            flow = train(100, 0.01)
            print(f'  {flow}', flush=True)
            self.assertEqual(flow.lost, 0)
            self.assertGreaterEqual(min(flow.delays), low_ms)
            best = flow.median if best is None else min(best, flow.median)
            if best <= self.bare_ms + median_ms + SLACK_MS:
                return
        self.fail(f'median {best:.2f} ms in the best of three trains; {median_ms} ms declared, bare path '
                  f'{self.bare_ms:.2f} ms')

    def assert_count(self, measure, n, p):
        """measure() gives a count that is binomial(n, p) distributed."""
        low, high = lab.binomial_interval(n, p, 0.99)
        seen = []
        for _ in range(2):
            seen.append(measure())
            print(f'  {seen[-1]} of {n}; 99% interval {low}..{high}', flush=True)
            if low <= seen[-1] <= high:
                return
        self.fail(f'{seen} of {n}: both outside {low}..{high}, where {p:.0%} gives 99 of 100 measurements')


class Delay(NetemTest):
    def test_ping_sees_delay_of_both_directions(self):
        bare = statistics.median(lab.ping(self.two, self.one.ipv4))
        Product.shape(self.one, 'delay 20ms 0.4ms')
        best = None
        for _ in range(3):
            times = lab.ping(self.two, self.one.ipv4)
            print(f'  ping: min {min(times):.2f} median {statistics.median(times):.2f} max {max(times):.2f} '
                  f'(bare median {bare:.2f})', flush=True)
            self.assertEqual(len(times), 40)
            self.assertGreaterEqual(min(times), 2 * (20 - 0.4))
            best = min(best or 1e9, statistics.median(times))
            if best <= bare + 40 + 2 * SLACK_MS:
                break
        self.assertLessEqual(best, bare + 40 + 2 * SLACK_MS)

    def test_one_way_delay_each_direction(self):
        Product.shape(self.one, 'delay 20ms 0.4ms')
        self.assert_delay(self.down, 19.6, 20)
        self.assert_delay(self.up, 19.6, 20)

    def test_directions_are_not_exchanged(self):
        Product.shape(self.one, 'up delay 10ms down delay 45ms')
        self.assert_delay(self.up, 10, 10)
        self.assert_delay(self.down, 45, 45)

    def test_only_one_direction(self):
        Product.shape(self.one, 'up delay 30ms')
        self.assert_delay(self.up, 30, 30)
        self.assert_delay(self.down, 0, 0)

    def test_jitter_spreads(self):
        """+-10 ms, uniform: that of 200 packets none is in the lowest quarter has probability 0.75^200. (Jitter of 0.4 ms
        is below what this machine adds by itself; what the kernel was told is in
        test_declared_is_what_the_kernel_has.)"""
        Product.shape(self.one, 'down delay 30ms 10ms')
        flow = self.down(200, 0.01)
        print(f'  {flow}')
        self.assertEqual(flow.lost, 0)
        self.assertGreaterEqual(min(flow.delays), 20)
        self.assertLess(min(flow.delays), 25)
        self.assertGreater(max(flow.delays), 35)
        # P9: what the tool measures of it is what packets met, and not what was declared. Neighbours that are 5 ms apart change
        # places with a probability of 9/32.
        seen = Product.call('probe', self.two.netns, 'eth0', self.one.netns, 'eth0', 'packets', '200', 'interval', '5ms')
        print(f'  {seen}')
        self.assertEqual(seen['received'], 200)
        self.assertGreater(seen['reordered'], 0)
        self.assertGreaterEqual(seen['delay_min_ns'], 20e6)
        self.assertGreater(seen['delay_max_ns'] - seen['delay_min_ns'], 10e6)

    def test_ipv6_is_delayed_too(self):
        Product.shape(self.one, 'up delay 25ms')
        times = lab.ping(self.two, self.one.ipv6, count=10)
        self.assertEqual(len(times), 10)
        self.assertGreaterEqual(min(times), 25)

    def test_more_than_32_bits_of_ticks(self):
        """Older encodings end at 4.3 s."""
        Product.shape(self.one, 'down delay 5s')
        self.assertEqual(lab.netem_nanoseconds('h-one')[0], 5 * 10**9)
        flow = self.down(20, 0.01, quiet=10)
        print(f'  {flow}')
        self.assertEqual(flow.lost, 0)
        self.assertGreaterEqual(min(flow.delays), 5000)


class Loss(NetemTest):
    def test_loss_one_direction(self):
        Product.shape(self.one, 'down loss 10%')

        def lost():
            before = lab.netem('h-one')['drops']
            flow = self.down(LOSS_PACKETS, 0.001)
            # What is missing was dropped by netem and by nothing else on the way; netem also meets a packet of IPv6's
            # own now and then.
            dropped = lab.netem('h-one')['drops'] - before
            self.assertTrue(flow.lost <= dropped <= flow.lost + 5, f'{flow.lost} missing, {dropped} dropped by netem')
            self.assertEqual(flow.sent, LOSS_PACKETS)
            return flow.lost
        self.assert_count(lost, LOSS_PACKETS, 0.10)
        self.assertEqual(self.up(500, 0.001).lost, 0)

    def test_loss_other_direction(self):
        Product.shape(self.one, 'up loss 30%')
        self.assert_count(lambda: self.up(LOSS_PACKETS, 0.001).lost, LOSS_PACKETS, 0.30)
        self.assertEqual(self.down(500, 0.001).lost, 0)

    def test_duplicates(self):
        Product.shape(self.one, 'duplicate 20%')
        for train in (self.down, self.up):
            def doubled(train=train):
                flow = train(LOSS_PACKETS, 0.001)
                self.assertEqual(flow.lost, 0)
                return flow.received - flow.sent
            self.assert_count(doubled, LOSS_PACKETS, 0.20)

    def test_what_is_corrupted_is_noticed(self):
        """Packets cross a veth with unfinished checksums; they are finished before a bit is turned, so that no damaged packet is
        taken for a good one."""
        def bad_checksums():
            lines = [line.split() for line in self.one.run('cat', '/proc/net/snmp').stdout.splitlines() if line.startswith('Udp:')]
            return int(dict(zip(*lines))['InCsumErrors'])

        payload, before = bytes(range(250)) * 4, bad_checksums()
        Product.shape(self.one, 'down corrupt 100%')
        with self.one.socket(receive=True) as receiver, self.two.socket() as sender:
            for _ in range(200):
                sender.sendto(payload, (self.one.ipv4, lab.PORT))
            Product.clear(self.one)
            sender.sendto(b'end', (self.one.ipv4, lab.PORT))
            seen = []
            while seen[-1:] != [b'end']:
                self.assertTrue(select.select([receiver], [], [], 30)[0], 'the last packet did not arrive')
                seen.append(receiver.recv(2000))
        self.assertEqual([p for p in seen[:-1] if p != payload], [])
        self.assertGreater(bad_checksums() - before, 100)

    def test_full_loss_holds_for_arp(self):
        """Nothing passes, whatever its ethertype."""
        Product.shape(self.one, 'up loss 100%')
        self.addCleanup(self.net.settle)
        self.two.run('ip', 'neigh', 'del', self.one.ipv4, 'dev', 'eth0')
        self.assertEqual(lab.ping(self.two, self.one.ipv4, count=1), [])
        entry = json.loads(self.two.run('ip', '-j', 'neigh', 'show', self.one.ipv4).stdout)
        self.assertFalse(any('lladdr' in e for e in entry), entry)
        Product.shape(self.one, 'up delay 1ms')


class Change(NetemTest):
    SPECS = ['delay 20ms', 'delay 40ms', 'delay 40ms 1ms', 'delay 5ms', 'delay 30ms limit 5000', 'delay 20ms rate 50mbit',
             'delay 20ms rate 80mbit', 'delay 25ms']

    def change_under_load(self, train, specs):
        Product.shape(self.one, specs[0])
        reports = []
        flow = train(1000, 0.002, meanwhile=lambda: reports.extend(Product.shape(self.one, s) for s in specs[1:]))
        print(f'  {flow}')
        self.assertEqual(len(reports), len(specs) - 1)
        return flow, reports

    def test_live_change_loses_nothing(self):
        for direction, train in (('down', self.down), ('up', self.up)):
            with self.subTest(direction=direction):
                specs = [f'{direction} {s}' for s in self.SPECS]
                flow, reports = self.change_under_load(train, specs)
                self.assertEqual(flow.lost, 0)
                self.assertEqual(flow.received, flow.sent)
                self.assertGreaterEqual(min(flow.delays), 5)
                for spec, report in zip(specs[1:], reports):
                    self.assertEqual(report['change'], 'in-place', spec)
                self.assertGreaterEqual(len({round(d / 10) for d in flow.delays}), 3, 'the changes were not felt')

    def test_roots_stay(self):
        """Same handles, same counters going on: nothing was taken away and made anew."""
        Product.shape(self.one, 'down delay 20ms')
        before = {(q['kind'], q['handle'], q.get('parent')) for q in lab.qdiscs('h-one')}
        self.down(50, 0.002)
        sent = lab.netem('h-one')['packets']
        self.assertGreaterEqual(sent, 50)
        Product.shape(self.one, 'down delay 35ms loss 1%')
        self.assertEqual({(q['kind'], q['handle'], q.get('parent')) for q in lab.qdiscs('h-one')}, before)
        self.assertGreaterEqual(lab.netem('h-one')['packets'], sent)

    def test_same_again_writes_nothing(self):
        words = ('--id', self.one.name, 'shape', self.one.netns, 'eth0', 'delay 20ms 0.4ms loss 10% rate 20mbit')
        self.assertGreater(Product.call(*words)['netlink_writes'], 0)
        again = Product.call(*words)
        self.assertEqual((again['netlink_writes'], again['nodes'][0]['change']), (0, 'unchanged'))


class Declared(NetemTest):
    def test_declared_is_what_the_kernel_has(self):
        Product.shape(self.one, 'up delay 3ms loss 2% down delay 20ms 0.4ms loss 10% limit 321 duplicate 1% corrupt 0.5%')
        status = Product.show(self.one)
        down, up = lab.netem(status['down']['device']), lab.netem(status['up']['device'])
        self.assertEqual(status['down']['device'], 'h-one')

        options = down['options']
        self.assertEqual(options['limit'], 321)
        self.assertEqual((options['delay']['delay'], options['delay']['jitter']), (0.02, 0.0004))
        self.assertAlmostEqual(options['loss-random']['loss'], 0.10, places=6)
        self.assertAlmostEqual(options['duplicate']['duplicate'], 0.01, places=6)
        self.assertAlmostEqual(options['corrupt']['corrupt'], 0.005, places=6)
        options = up['options']
        self.assertEqual((options['delay']['delay'], options['delay']['jitter']), (0.003, 0))
        self.assertAlmostEqual(options['loss-random']['loss'], 0.02, places=6)
        self.assertNotIn('duplicate', options)

        # Read back by us: the same words.
        shape = status['down']['shape']
        for words in ('delay 20ms 400us', 'loss 10%', 'duplicate 1%', 'corrupt 0.5%', 'limit 321'):
            self.assertIn(words, shape)
        self.assertIn('delay 3ms', status['up']['shape'])
        self.assertIn('loss 2%', status['up']['shape'])
        self.assertTrue(status['down']['netem'] and status['up']['netem'])

    def test_delay_to_the_nanosecond(self):
        Product.shape(self.one, 'down delay 1234567ns 123457ns')
        self.assertEqual(lab.netem_nanoseconds('h-one'), (1234567, 123457))
        self.assertIn('1234567ns', Product.show(self.one)['down']['shape'])

    def test_limit_is_reported_and_set(self):
        """Without a limit of the user's: room for what is on its way, plus a queue."""
        Product.shape(self.one, 'down delay 100ms rate 100mbit')
        status = Product.show(self.one)
        limit = lab.netem('h-one')['options']['limit']
        self.assertGreaterEqual(limit, 100e6 * 0.1 / 8 / 1514)
        self.assertIn(f'limit {limit}', status['down']['shape'])

    def test_rate_above_netem(self):
        """The shaper holds the rate, netem in its leaf the delay."""
        Product.shape(self.one, 'down rate 4mbit delay 10ms limit 1000')
        kinds = [q['kind'] for q in lab.qdiscs('h-one') if q['kind'] != 'ingress']
        self.assertEqual(sorted(kinds), ['htb', 'netem'])
        count, frame = 400, 1400 + 42
        exact_ms = (count - 1) * frame * 8 / 4e6 * 1000
        spans = []
        for _ in range(3):
            flow = self.down(count, 0.0005, size=1400)
            print(f'  {flow}; first to last {flow.span_ms:.0f} ms, {exact_ms:.0f} at 4 Mbit/s', flush=True)
            self.assertEqual(flow.lost, 0)
            self.assertGreaterEqual(min(flow.delays), 10)
            # Never more than the rate and one burst (here at most 16 frames) lets through, however late the machine is.
            self.assertGreaterEqual(flow.span_ms, exact_ms * (count - 16) / count)
            # That the rate is reached shows only when there was always something to send.
            if flow.sending_ms < exact_ms:
                spans.append(flow.span_ms)
                if flow.span_ms <= exact_ms * 1.2:
                    return
        if not spans:
            print('  the machine sent too slowly to show that the rate is reached', flush=True)
            return
        self.fail(f'{min(spans):.0f} ms in the best of {len(spans)} trains, {exact_ms:.0f} at the declared rate')


if __name__ == '__main__':
    if os.geteuid() != 0:
        print('SKIP: not root')
        sys.exit(77)
    if not NETCTL.exists():
        print(f'{NETCTL} not found; set TBNODE_BUILD_DIR to a build directory', file=sys.stderr)
        sys.exit(1)
    unittest.main(verbosity=2)
