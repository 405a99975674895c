#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ethernet frames byte by byte, and a program that sends and catches them.

    frames.py send IFACE < one frame per line, in hex
    frames.py catch IFACE           prints "ready", then each frame with our marker that comes in, until its input ends

Every frame of an attack carries a marker in its payload, of which the first 7 bytes stay, so that the other side knows it from
what a kernel says by itself.
"""

import select
import socket
import struct
import sys

BROADCAST = 'ff:ff:ff:ff:ff:ff'
MARK = b'tbnode-attack'


def mac(text):
    return bytes.fromhex(text.replace(':', ''))


def ip4(text):
    return socket.inet_aton(text)


def ip6(text):
    return socket.inet_pton(socket.AF_INET6, text)


def checksum(data):
    if len(data) % 2:
        data += b'\0'
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ether(source, target, kind, payload):
    return mac(target) + mac(source) + struct.pack('!H', kind) + payload


def tagged(frame, *tags, kind=0x8100):
    """The frame with VLAN tags, outermost first; `kind` is the outermost's."""
    middle = b''.join(struct.pack('!HH', kind if i == 0 else 0x8100, tag) for i, tag in enumerate(tags))
    return frame[:12] + middle + frame[12:]


def arp(sender, sender_ip, target_ip, operation=1, target='00:00:00:00:00:00'):
    return struct.pack('!HHBBH', 1, 0x800, 6, 4, operation) + mac(sender) + ip4(sender_ip) + mac(target) + ip4(target_ip) + MARK


def ipv4(source, target, protocol=17, payload=None, offset=0, more=False):
    if payload is None:
        payload = udp(5000, 5001)
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(payload), 7, (0x2000 if more else 0) | offset // 8, 64, protocol, 0,
                       ip4(source), ip4(target))
    return head[:10] + struct.pack('!H', checksum(head)) + head[12:] + payload


def udp(source, target, data=MARK):
    return struct.pack('!HHHH', source, target, 8 + len(data), 0) + data


def ipv6(source, target, protocol, payload, hops=255, extensions=b'', first=None):
    return struct.pack('!IHBB', 6 << 28, len(extensions) + len(payload), protocol if first is None else first, hops) + \
        ip6(source) + ip6(target) + extensions + payload


def icmp6(source, target, kind, body, **more):
    pseudo = ip6(source) + ip6(target) + struct.pack('!II', 4 + len(body), 58)
    value = checksum(pseudo + struct.pack('!BBH', kind, 0, 0) + body)
    return ipv6(source, target, 58, struct.pack('!BBH', kind, 0, value) + body, **more)


def neighbour(source, target, kind, about, address, option=2):
    """Solicitation (135) or advertisement (136) about an address, with a link-layer address option; marked by a further one."""
    body = struct.pack('!I', 0xe0000000 if kind == 136 else 0) + ip6(about) + struct.pack('!BB', option, 1) + mac(address) + \
        struct.pack('!BB', 253, 2) + MARK + b'\0'
    return icmp6(source, target, kind, body)


def send(interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((interface, 0))
    for line in sys.stdin:
        s.send(bytes.fromhex(line))


def catch(interface):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
    s.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: tags that the kernel took off
    s.bind((interface, 0))
    print('ready', flush=True)
    ended = False
    while True:
        ready = select.select([s] if ended else [s, sys.stdin], [], [], 0 if ended else None)[0]
        if s in ready:
            frame, _, _, address = s.recvmsg(65536, 256)
            if MARK[:7] in frame and address[2] != socket.PACKET_OUTGOING:
                print(frame.hex(), flush=True)
        elif sys.stdin in ready:
            ended = True
        elif ended:
            return


if __name__ == '__main__':
    {'send': send, 'catch': catch}[sys.argv[1]](sys.argv[2])
