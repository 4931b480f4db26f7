"""Cutting captured frames into headers, and finding their flows."""

from __future__ import annotations

import random

import numpy as np
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from testbed.traffic.flows import FlowKey, Transport
from testbed.traffic.frames import TCP_ACK, TCP_SYN, FlowIndex, Frames, Headers, address_number, headers


def captured(*packets: Packet | bytes, snapshot: int = 160) -> Frames:
    """Frames as a capture would return them."""
    raw = [bytes(packet) for packet in packets]
    octets = np.zeros((len(raw), snapshot), dtype=np.uint8)
    for row, data in enumerate(raw):
        part = data[:snapshot]
        octets[row, : len(part)] = np.frombuffer(part, dtype=np.uint8)
    lengths = np.array([len(data) for data in raw], dtype=np.int64)
    count = len(raw)
    return Frames(octets, np.minimum(lengths, snapshot), lengths, np.arange(count), np.zeros(count, dtype=np.bool_))


ETHERNET = Ether(src="02:00:00:00:00:01", dst="12:34:56:78:9a:bc")
ADDRESSES = IP(src="10.1.0.4", dst="10.2.0.4")


def test_headers_of_tcp_and_udp() -> None:
    """Addresses, ports, flags and the place of the payload are read, with and without options."""
    syn_ack = ETHERNET / ADDRESSES / TCP(sport=1, dport=65535, flags="SA", options=[("MSS", 1400)]) / Raw(b"x")
    padded = IP(src="10.1.0.4", dst="10.2.0.4", options=[IPOption(b"\x01" * 8)])
    datagram = ETHERNET / padded / UDP(sport=20, dport=53) / Raw(b"abc")
    found = headers(captured(syn_ack, datagram))
    assert found.row.tolist() == [0, 1]
    assert found.protocol.tolist() == [6, 17]
    assert found.source.tolist() == [0x0A010004] * 2
    assert found.destination.tolist() == [0x0A020004] * 2
    assert found.source_port.tolist() == [1, 20]
    assert found.destination_port.tolist() == [65535, 53]
    assert found.tcp_flags.tolist() == [TCP_SYN | TCP_ACK, 0]
    assert found.payload.tolist() == [14 + 20 + 24, 14 + 28 + 8]


def test_every_flow_of_many_sets_is_found() -> None:
    """Whatever the ports: an index whose list is not in order loses some (seen in emulated computers)."""
    generator = random.Random(1)  # noqa: S311 - ports of test traffic, not secrets
    for _ in range(200):
        ends = generator.sample(range(1, 65536), 12)
        keys = [FlowKey(Transport.UDP, f"10.{1 + end % 2}.0.4", end, generator.randint(1, 65535)) for end in ends]
        clients = np.array([address_number(key.client_address) for key in keys], dtype=np.int64)
        nothing = np.zeros(len(keys), dtype=np.int64)
        found = Headers(
            row=np.arange(len(keys)),
            protocol=np.full(len(keys), Transport.UDP, dtype=np.int64),
            source=clients,
            destination=nothing,
            source_port=np.array(ends, dtype=np.int64),
            destination_port=np.array([key.server_port for key in keys], dtype=np.int64),
            tcp_flags=nothing,
            payload=nothing,
        )
        assert FlowIndex(keys).match(found).flow.tolist() == list(range(len(keys)))


def test_ipv6_among_ipv4() -> None:
    """Both versions are read side by side; an IPv6 address is one number, and no IPv4 address has it."""
    addresses = IPv6(src="fd00:1::4", dst="fd00:2::4")
    syn = ETHERNET / addresses / TCP(sport=1, dport=65535, flags="S")
    ipv4 = ETHERNET / ADDRESSES / UDP(sport=3, dport=4) / Raw(b"abcdefgh")
    datagram = ETHERNET / IPv6(src="fd00:2::4", dst="fd00:1::4") / UDP(sport=53, dport=20) / Raw(b"abc")
    fragment = ETHERNET / addresses / IPv6ExtHdrFragment(offset=4) / Raw(bytes(64))
    found = headers(captured(syn, ipv4, datagram, fragment, ETHERNET / addresses / ICMPv6EchoRequest()))
    assert found.row.tolist() == [0, 1, 2]
    assert found.protocol.tolist() == [6, 17, 17]
    one, other = address_number("fd00:1::4"), address_number("fd00:2::4")
    assert found.source.tolist() == [one, 0x0A010004, other]
    assert found.destination.tolist() == [other, 0x0A020004, one]
    assert found.source_port.tolist() == [1, 3, 53]
    assert found.tcp_flags.tolist() == [TCP_SYN, 0, 0]
    assert found.payload.tolist() == [14 + 40 + 20, 14 + 20 + 8, 14 + 40 + 8]
    assert len({one, other, 0x0A010004}) == 3
    assert min(one, other) >= 2**32
    keys = [FlowKey(Transport.TCP, "fd00:1::4", 1, 65535), FlowKey(Transport.UDP, "fd00:1::4", 20, 53)]
    keys.append(FlowKey(Transport.UDP, "10.1.0.4", 3, 4))
    matches = FlowIndex(keys).match(found)
    assert sorted(zip(matches.place.tolist(), matches.flow.tolist(), matches.forward.tolist(), strict=True)) == [
        (0, 0, True),
        (1, 2, True),
        (2, 1, False),
    ]


def test_what_is_not_a_whole_tcp_or_udp_header_is_left_out() -> None:
    """Other protocols, tagged frames, fragments and cut frames give nothing and disturb nothing."""
    datagram = UDP(sport=20, dport=53) / Raw(bytes(64))
    fragment = IP(src="10.1.0.4", dst="10.2.0.4", frag=4) / Raw(bytes(16))
    first = IP(src="10.1.0.4", dst="10.2.0.4", flags="MF") / datagram
    whole = bytes(ETHERNET / ADDRESSES / TCP(sport=5, dport=6))
    strange: list[Packet | bytes] = [
        ETHERNET / ARP(),
        ETHERNET / ADDRESSES / ICMP(),
        ETHERNET / Dot1Q(vlan=3) / ADDRESSES / datagram,
        ETHERNET / first,
        ETHERNET / fragment,
        whole[:50],
        b"\0" * 14,
    ]
    found = headers(captured(*strange, whole))
    assert found.row.tolist() == [len(strange)]
    assert found.source_port.tolist() == [5]


def test_a_large_frame_is_read_by_its_beginning() -> None:
    """A merged frame is longer than the snapshot; its headers are in it all the same."""
    large = ETHERNET / ADDRESSES / TCP(sport=5, dport=6) / Raw(bytes(40_000))
    frames = captured(large)
    assert frames.lengths[0] > 40_000
    assert headers(frames).destination_port.tolist() == [6]


def test_flows_are_found_in_both_directions() -> None:
    """The key fits whatever the server's address is; protocol, port or client that differ do not fit."""
    keys = [
        FlowKey(Transport.UDP, "10.1.0.4", 1000, 53),
        FlowKey(Transport.TCP, "10.1.0.4", 1000, 53),
        FlowKey(Transport.TCP, "255.255.255.255", 65535, 65535),
    ]
    packets = [
        IP(src="10.1.0.4", dst="10.2.0.4") / TCP(sport=1000, dport=53),
        IP(src="10.9.9.9", dst="10.1.0.4") / TCP(sport=53, dport=1000),
        IP(src="10.1.0.4", dst="10.2.0.4") / UDP(sport=1000, dport=53),
        IP(src="10.1.0.5", dst="10.2.0.4") / UDP(sport=1000, dport=53),
        IP(src="10.1.0.4", dst="10.2.0.4") / UDP(sport=53, dport=1000),
        IP(src="255.255.255.255", dst="10.2.0.4") / TCP(sport=65535, dport=65535),
    ]
    found = headers(captured(*(ETHERNET / packet for packet in packets)))
    matches = FlowIndex(keys).match(found)
    assert matches.place.tolist() == [0, 1, 2, 5]
    assert matches.flow.tolist() == [1, 1, 0, 2]
    assert matches.forward.tolist() == [True, False, True, True]


def test_nothing_matches_nothing() -> None:
    """No frames, or no keys, give no match and no error."""
    frames = captured(ETHERNET / ADDRESSES / UDP(sport=20, dport=53))
    assert not len(FlowIndex([]).match(headers(frames)).flow)
    empty = Frames(
        np.zeros((0, 160), dtype=np.uint8),
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.bool_),
    )
    assert not len(FlowIndex([]).match(headers(empty)).flow)
