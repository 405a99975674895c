#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Frames of many segments (P6): where a shape counts packets, none leaves the node; elsewhere, and afterwards, all is as the
kernel made it."""

import json
import os
import socket
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import netlab  # noqa: E402
from netlab import js  # noqa: E402

MTU_FRAME = 1514
SINK = '''
import socket
s = socket.create_server(('', 5998))
print('ready', flush=True)
c, _ = s.accept()
n = 0
while (d := c.recv(1 << 20)):
    n += len(d)
print(n, flush=True)
'''
SOURCE = '''
import socket, sys
s = socket.create_connection((sys.argv[1], 5998))
s.sendall(bytes(int(sys.argv[2])))
s.close()
'''


class Offload(netlab.Lab):
    def largest_frame(self, sender, receiver, address, size=2_000_000):
        """Of a TCP transfer, as it comes out of the sender's veth on the host."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, 'SO_RCVBUFFORCE') else 33, 32 << 20)
            tap.bind((sender.host, 0))
            tap.setblocking(False)
            sink = receiver.start(sys.executable, '-c', SINK)
            self.assertEqual(sink.stdout.readline(), 'ready\n')
            sender.run(sys.executable, '-c', SOURCE, address, size)
            self.assertEqual(int(sink.stdout.readline()), size)
            largest = 0
            try:
                while True:
                    largest = max(largest, tap.recv_into(bytearray(1 << 17)))
            except BlockingIOError:
                return largest

    def segments(self, node):
        return json.loads(node.run('ip', '-j', '-d', 'link', 'show', 'eth0').stdout)[0]['gso_max_segs']

    def shape(self, node, spec, **more):
        r = self.apply([self.declare(node, [{'ifname': 'eth0', 'shape': spec, **more}])])
        return r['nodes'][0]['interfaces'][0]

    def test_each_segment_counts(self):
        a, b = self.pair()
        before = self.segments(a)
        self.assertGreater(self.largest_frame(a, b, '10.9.0.2'), MTU_FRAME)
        i = self.shape(a, 'rate 2gbit limit 5000')
        self.assertEqual('off', i['segmentation'])
        self.assertIn('every segment', i['offload'])
        self.assertEqual(1, self.segments(a))
        self.assertLessEqual(self.largest_frame(a, b, '10.9.0.2'), MTU_FRAME)
        self.tool('--id', a.id, 'clear', str(a.pid))
        self.assertEqual(before, self.segments(a))
        self.assertGreater(self.largest_frame(a, b, '10.9.0.2'), MTU_FRAME)

    def test_decision(self):
        a, _ = self.pair()
        for spec, expected in (('rate 10mbit', 'off'), ('rate 1gbit', 'on'), ('rate 1gbit limit 500', 'off'),
                               ('rate 1gbit overhead 24', 'off'), ('rate 1gbit offload off', 'off'),
                               ('rate 10mbit offload on', 'on'), ('link down', 'on'), ('', 'on'),
                               ('rate 1gbit; to 10.9.0.2 rate 1mbit', 'off')):
            with self.subTest(spec=spec):
                nodes = [self.declare(a, [{'ifname': 'eth0', 'shape': spec}])]
                i = self.apply(nodes)['nodes'][0]['interfaces'][0]
                self.assertEqual(expected, i['segmentation'])
                self.assertEqual(1 if expected == 'off' else 65535, self.segments(a))
                self.assertEqual(0, self.apply(nodes)['netlink_writes'])

    def test_a_failed_node_keeps_what_it_had(self):
        a, _ = self.pair()
        netlab.run('tc', 'qdisc', 'add', 'dev', a.host, 'root', 'handle', '1:', 'tbf', 'rate', '1mbit', 'burst', '10k', 'limit',
                   '10k')
        before = self.segments(a)
        r = self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}])], status=1)
        self.assertIn('somebody else', r['nodes'][0]['error']['message'])
        self.assertEqual(before, self.segments(a))

    def test_drift_is_repaired(self):
        a, _ = self.pair()
        self.shape(a, 'rate 10mbit')
        a.run('ip', 'link', 'set', 'eth0', 'gso_max_segs', '100')
        self.assertEqual(1, self.apply([self.declare(a, [{'ifname': 'eth0', 'shape': 'rate 10mbit'}])])['netlink_writes'])
        self.assertEqual(1, self.segments(a))
        self.assertEqual([], [x for x in js('ip', '-j', 'link', 'show', a.host) if x.get('gso_max_segs') == 1])


if __name__ == '__main__':
    netlab.main()
