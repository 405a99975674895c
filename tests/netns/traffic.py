#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""UDP traffic inside a namespace: `receive SECONDS`, `send ADDRESS MBIT SECONDS`, `count IDLE`, `stream ADDRESS RATE COUNT`."""

import json
import socket
import struct
import sys
import time

PORT = 5999
PAYLOAD = 1400
FRAME = PAYLOAD + 8 + 20 + 14


def receive(seconds):
    """Measures from 0.5 s after the first packet on: the bucket's burst is behind us then."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind(('', PORT))
    s.settimeout(20)
    print('ready', flush=True)
    s.recv(65536)
    begin = time.monotonic() + 0.5
    while time.monotonic() < begin:
        s.recv(65536)
    packets = 0
    begin = last = time.monotonic()
    while last - begin < seconds:
        s.recv(65536)
        packets += 1
        last = time.monotonic()
    print(json.dumps({'mbit': packets * FRAME * 8 / 1e6 / (last - begin), 'packets': packets}), flush=True)


def send(address, mbit, seconds):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    data = bytes(PAYLOAD)
    gap = FRAME * 8 / (mbit * 1e6)
    begin = time.monotonic()
    sent = 0
    while (now := time.monotonic()) - begin < seconds:
        due = int((now - begin) / gap) + 1
        while sent < due:
            try:
                s.sendto(data, (address, PORT))
            except OSError:
                pass
            sent += 1
        time.sleep(min(gap, 0.002))


def stream(address, rate, count):
    """Numbered packets at `rate` per second."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    begin = time.monotonic()
    for i in range(count):
        wait = begin + i / rate - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        s.sendto(struct.pack('!I', i) + bytes(200), (address, PORT))
    print(json.dumps({'sent': count}), flush=True)


def count(idle):
    """Which numbers came, until nothing comes for `idle` seconds after the first."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind(('', PORT))
    s.settimeout(30)
    print('ready', flush=True)
    seen = set()
    try:
        while True:
            seen.add(struct.unpack('!I', s.recv(65536)[:4])[0])
            s.settimeout(idle)
    except socket.timeout:
        pass
    print(json.dumps({'received': len(seen)}), flush=True)


if __name__ == '__main__':
    verb, *args = sys.argv[1:]
    if verb == 'receive':
        receive(float(args[0]))
    elif verb == 'send':
        send(args[0], float(args[1]), float(args[2]))
    elif verb == 'stream':
        stream(args[0], float(args[1]), int(args[2]))
    elif verb == 'count':
        count(float(args[0]))
