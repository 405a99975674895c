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


class Party:
    """Who is on a link: its MAC, IPv4 and link-local IPv6 address."""

    def __init__(self, address, ip, ip6=None):
        self.mac = address
        self.ip = ip
        self.ip6 = ip6 or link_local(address)


def link_local(address):
    b = bytearray(mac(address))
    b[0] ^= 2
    return socket.inet_ntop(socket.AF_INET6, b'\xfe\x80' + bytes(6) + bytes(b[:3]) + b'\xff\xfe' + bytes(b[3:]))


OTHER_MAC = '02:00:00:00:00:99'


def forged(me, other, gateway, free, target=None, target_mac=None):
    """Everything that a pinned node must not be able to send, by name: to `other`, or to the address and MAC that are given.
    `free` is an address that nobody has."""
    a, b, bm, target = me.mac, other.mac, target_mac or other.mac, target or other.ip
    neighbour_ip, good = other.ip, ipv4(me.ip, target)
    return {
        'another MAC': ether(OTHER_MAC, bm, 0x800, good),
        'the neighbour\'s MAC': ether(b, bm, 0x800, good),
        'another IPv4 address': ether(a, bm, 0x800, ipv4(free, target)),
        'the gateway\'s IPv4 address': ether(a, bm, 0x800, ipv4(gateway, target)),
        'no IPv4 address': ether(a, BROADCAST, 0x800, ipv4('0.0.0.0', '255.255.255.255', payload=udp(68, 67))),
        'fragments of another, first': ether(a, bm, 0x800, ipv4(free, target, more=True)),
        'fragments of another, later': ether(a, bm, 0x800, ipv4(free, target, payload=b'x' * 8 + MARK, offset=16)),
        'DHCP server': ether(a, BROADCAST, 0x800, ipv4(me.ip, '255.255.255.255', payload=udp(67, 68))),
        'ARP request as another': ether(a, BROADCAST, 0x806, arp(a, free, target)),
        'ARP request with another MAC inside': ether(a, BROADCAST, 0x806, arp(OTHER_MAC, me.ip, target)),
        'ARP answer for the gateway': ether(a, bm, 0x806, arp(a, gateway, target, 2, bm)),
        'ARP answer without address': ether(a, bm, 0x806, arp(a, '0.0.0.0', target, 2, bm)),
        'gratuitous ARP for the gateway': ether(a, BROADCAST, 0x806, arp(a, gateway, gateway)),
        'gratuitous ARP for a neighbour': ether(a, BROADCAST, 0x806, arp(a, neighbour_ip, neighbour_ip, 2)),
        'ARP of another hardware': ether(a, bm, 0x806, b'\0\6' + arp(a, me.ip, target)[2:]),
        'RARP': ether(a, bm, 0x8035, arp(a, me.ip, target)),
        'VLAN tag': tagged(ether(a, bm, 0x800, good), 5),
        'priority tag': tagged(ether(a, bm, 0x800, good), 0),
        'two VLAN tags': tagged(ether(a, bm, 0x800, good), 5, 6),
        'provider tag': tagged(ether(a, bm, 0x800, good), 5, kind=0x88a8),
        'provider tag and VLAN tag': tagged(ether(a, bm, 0x800, good), 5, 6, kind=0x88a8),
        'tagged ARP for the gateway': tagged(ether(a, BROADCAST, 0x806, arp(a, gateway, target, 2)), 5),
        'STP': ether(a, '01:80:c2:00:00:00', 40, b'\x42\x42\x03' + bytes(24) + MARK),
        'LLDP': ether(a, '01:80:c2:00:00:0e', 0x88cc, b'\2\7\4' + bytes(6) + MARK),
        'LLDP, nearest customer bridge': ether(a, '01:80:c2:00:00:03', 0x88cc, b'\2\7\4' + bytes(6) + MARK),
        'unknown protocol': ether(a, BROADCAST, 0x88b5, MARK),
        'MPLS': ether(a, bm, 0x8847, bytes(4) + good),
        'PPPoE discovery': ether(a, BROADCAST, 0x8863, b'\x11\x09' + bytes(4) + MARK),
        '802.3 with SNAP': ether(a, bm, 60, b'\xaa\xaa\x03\0\0\0\x08\0' + good),
        'another IPv6 address': ether(a, bm, 0x86dd, ipv6('fe80::99', other.ip6, 17, udp(1, 2))),
        'no IPv6 address': ether(a, bm, 0x86dd, ipv6('::', other.ip6, 17, udp(1, 2))),
        'router advertisement': ether(a, '33:33:00:00:00:01', 0x86dd, icmp6(me.ip6, 'ff02::1', 134, bytes(12) + MARK)),
        'router advertisement behind an extension': ether(a, '33:33:00:00:00:01', 0x86dd, icmp6(
            me.ip6, 'ff02::1', 134, bytes(12) + MARK, first=60, extensions=b'\x3a\0\1\4\0\0\0\0')),
        'router advertisement behind hop-by-hop': ether(a, '33:33:00:00:00:01', 0x86dd, icmp6(
            me.ip6, 'ff02::1', 134, bytes(12) + MARK, first=0, extensions=b'\x3a\0\1\4\0\0\0\0')),
        'redirect': ether(a, bm, 0x86dd, icmp6(me.ip6, other.ip6, 137, bytes(36) + MARK)),
        'ND advertisement for a neighbour': ether(a, '33:33:00:00:00:01', 0x86dd, neighbour(
            me.ip6, 'ff02::1', 136, other.ip6, a)),
        'ND advertisement for the gateway': ether(a, '33:33:00:00:00:01', 0x86dd, neighbour(
            me.ip6, 'ff02::1', 136, 'fe80::1', a)),
        'ND solicitation as another': ether(a, bm, 0x86dd, neighbour('fe80::99', other.ip6, 135, other.ip6, a, 1)),
        'duplicate address detection of another\'s': ether(a, '33:33:ff:00:00:02', 0x86dd, neighbour(
            '::', 'ff02::1:ff00:2', 135, other.ip6, a, 1)),
        'ND solicitation with another MAC inside': ether(a, bm, 0x86dd, neighbour(me.ip6, other.ip6, 135, other.ip6, OTHER_MAC, 1)),
        'ND advertisement with another MAC inside': ether(a, '33:33:00:00:00:01', 0x86dd, neighbour(
            me.ip6, 'ff02::1', 136, me.ip6, OTHER_MAC)),
        'router solicitation with another MAC inside': ether(a, '33:33:00:00:00:02', 0x86dd, icmp6(
            me.ip6, 'ff02::2', 133, bytes(4) + b'\1\1' + mac(OTHER_MAC) + b'\xfd\2' + MARK + b'\0')),
        'DHCPv6 server': ether(a, bm, 0x86dd, ipv6(me.ip6, other.ip6, 17, udp(547, 546))),
    }


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
