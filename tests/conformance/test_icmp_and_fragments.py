"""ICMP, path-MTU discovery and fragments through the balancer (row 10)."""

from __future__ import annotations

import os
import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from documents import APP_FRONTEND, behind_a_router, hub_spoke, servers_behind_a_router
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab, Packet, Tap

_NVAS = ("nva1", "nva2")
_WEB1, _WEB2, _BEHIND = "10.1.0.4", "10.2.0.4", "10.2.1.5"
_SERVERS = {"app1": "10.20.1.4", "app2": "10.20.1.5"}
_LARGE = b"x" * 20_000
_MORE, _DONT = 0x2000, 0x4000


def _document(**switches: str) -> dict[str, Any]:
    """A hub and two spokes; ``behind`` is in the second one, behind the router ``gw``, whose far link has MTU 1300."""
    return behind_a_router(hub_spoke()) | {"switches": switches}


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    lab = labs(_document())
    _small_link(lab, "10.2.1.0/24", "10.2.1.4")
    return lab


def _pings(lab: Lab, sender: str, address: str) -> bool:
    """Whether one of a few echo requests is answered."""
    return lab.run(sender, "ping", "-c", "3", "-i", "0.2", "-W", "1", address, check=False).returncode == 0


def _too_big(packets: list[Packet]) -> set[tuple[str, frozenset[int]]]:
    """Machines that got "fragmentation needed", and the ports of the packet it is about."""
    return {
        (each.machine, frozenset(struct.unpack_from("!HH", each.raw, 48)))
        for each in packets
        if not each.sent and each.protocol == socket.IPPROTO_ICMP and each.raw[20:22] == b"\3\4"
    }


def _discovers(lab: Lab, client: str, server: str) -> None:
    """Send much both ways over some connections; the sender is told of the small link, by way of the right member."""
    for _ in range(6):
        lab.run("web1", "ip", "route", "flush", "cache")
        with lab.tap(*_NVAS, "web1") as tap, lab.tcp(client, server) as connection:
            own = connection.getsockname()[1]
            assert lab.echoes(connection, _LARGE, seconds=lab.timing.patience)
            address = _BEHIND if client == "behind" else _WEB1
            carriers = tap.members_of(address, own) - {"web1"}
            told = {name for name, ports in _too_big(tap.packets()) if own in ports}
        assert len(carriers) == 1
        assert told == carriers | {"web1"}


@fact(row=10)
def test_path_mtu_discovery_works_through_the_balancer(lab: Lab) -> None:
    """An ICMP error reaches the appliance that has the flow it is about, so that path-MTU discovery works.

    Source: azure.md §1, "High availability ports overview"
    Note: No document says so; without it no appliance that keeps state could work.
    """
    _discovers(lab, "web1", _BEHIND)


@fact(row=10)
def test_path_mtu_discovery_works_for_answers(lab: Lab) -> None:
    """The same holds when the large packets are the answers of a flow that began behind the small link.

    Source: azure.md §1, "High availability ports overview"
    """
    _discovers(lab, "behind", _WEB1)


@fact(row=10)
def test_path_mtu_discovery_works_for_members_that_answer(own_lab: Callable[..., Lab]) -> None:
    """An error about what a member sent from a floating frontend reaches that member, whatever rule the flow has.

    Source: azure.md §4, "Azure Load Balancer Floating IP configuration"
    """
    lab = own_lab()
    for covers in ({}, {"protocol": "Tcp", "frontend_port": 80, "backend_port": 80}):
        _servers_discover(lab, servers_behind_a_router(floating=True, **covers), (APP_FRONTEND, 80))


@fact(row=10)
def test_path_mtu_discovery_works_for_members_with_addresses_of_their_own(own_lab: Callable[..., Lab]) -> None:
    """Floating IP off: an error about an answer reaches its member, and quotes the packet as the member sent it.

    Source: azure.md §4, "Multiple frontends for Azure Load Balancer"
    Note: No document says so. The checksum of the quoted IPv4 header is the frontend's still; hosts do not look at it.
    """
    lab = own_lab()
    for covers, port in (({}, 80), ({"protocol": "Tcp", "frontend_port": 80, "backend_port": 8080}, 8080)):
        _servers_discover(lab, servers_behind_a_router(floating=False, **covers), (None, port))


def _servers_discover(lab: Lab, document: dict[str, Any], source: tuple[str | None, int]) -> None:
    """Servers send much to ``behind``; the one that does is told of the small link, in terms of its own socket.

    ``source`` is that of its packets; without an address, its network interface's.
    """
    lab.up(document)
    _small_link(lab, "10.20.5.0/24", "10.20.5.4")
    for _ in range(6):
        with lab.tap(*_SERVERS) as tap, lab.tcp("behind", APP_FRONTEND, 80) as connection:
            for name in _SERVERS:
                lab.run(name, "ip", "route", "flush", "cache")
            assert lab.echoes(connection, _LARGE, seconds=lab.timing.patience)
            own = connection.getsockname()[1]
            carriers = tap.members_of("10.20.5.5", own)
            packets = tap.packets()
        quoted = {
            (each.machine, each.destination, socket.inet_ntoa(each.raw[40:44]), struct.unpack_from("!HH", each.raw, 48))
            for each in packets
            if (each.machine, frozenset({source[1], own})) in _too_big([each])
        }
        (name,) = carriers
        address = source[0] or _SERVERS[name]
        assert quoted == {(name, address, address, (source[1], own))}


def _small_link(lab: Lab, prefix: str, address: str) -> None:
    """Make ``gw`` forward, and its far link one of MTU 1300."""
    lab.run("gw", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    lab.run("gw", "ip", "route", "change", prefix, "dev", "eth1", "src", address, "mtu", "1300")


@fact(row=10, state="switchable")
def test_icmp_is_forwarded_by_default(lab: Lab) -> None:
    """ICMP through an HA Ports rule: the documents say TCP and UDP only, users see that ping works.

    Source: azure.md §1, "High availability ports overview"
    Note: ``switches: {icmp: Forward}`` is the default; the hash is of addresses and protocol.
    """
    lab.up(_document())
    with lab.tap(*_NVAS) as tap:
        assert _pings(lab, "web1", _WEB2)
        icmp = [each for each in tap.packets() if each.protocol == socket.IPPROTO_ICMP]
    assert {each.raw[20] for each in icmp} == {0, 8}
    assert len({each.machine for each in icmp}) == 1


@fact(row=10, state="switchable")
def test_icmp_can_be_dropped(lab: Lab) -> None:
    """ICMP through an HA Ports rule, as documented: it is not balanced.

    Source: azure.md §1, "Azure Load Balancer concepts"
    Note: ``switches: {icmp: Drop}``. What is only routed is not touched, and errors about a flow go with the flow.
    """
    lab.up(_document(icmp="Drop"))
    with lab.tap(*_NVAS) as tap:
        assert not _pings(lab, "web1", _WEB2)
        assert not [each for each in tap.packets() if each.protocol == socket.IPPROTO_ICMP]
    assert _pings(lab, "nva1", _WEB2)
    _discovers(lab, "web1", _BEHIND)


@fact(row=10, state="switchable")
def test_fragments_are_dropped_by_default(lab: Lab) -> None:
    """Fragments are not supported by HA Ports rules: nothing of a fragmented datagram arrives.

    Source: azure.md §1, "High availability ports overview"
    Note: ``switches: {fragments: Drop}`` is the default. What is only routed is not touched.
    """
    lab.up(_document())
    with lab.tap(*_NVAS) as tap:
        assert not lab.asks("web1", _WEB2, text=b"x" * 4000)
        assert lab.asks("web1", _WEB2, text=b"x" * 1000)
        assert not [each for each in tap.packets() if each.fragment & ~_DONT and not each.sent]
    assert lab.asks("nva1", _WEB2, text=b"x" * 4000)


@fact(row=10, state="switchable")
def test_fragments_can_be_forwarded(lab: Lab) -> None:
    """The documents of 2020 said that HA Ports rules forward fragments: first and later ones go to one member.

    Source: azure.md §1, "Azure Load Balancer concepts"
    Note: ``switches: {fragments: Forward}``. The member is that of the flow's whole datagrams, too.
    """
    lab.up(_document(fragments="Forward"))
    for _ in range(6):
        with lab.tap(*_NVAS) as tap, lab.open("web1", socket.SOCK_DGRAM) as asker:
            assert lab.answered(asker, _WEB2, text=b"x" * 4000)
            assert lab.answered(asker, _WEB2, text=b"x" * 1000)
            mine = [each for each in tap.packets() if each.protocol == socket.IPPROTO_UDP]
            parts = [each for each in mine if each.fragment & ~_DONT]
        offsets = {(each.source, (each.fragment & 0x1FFF) * 8) for each in parts if not each.sent}
        assert offsets == {(end, offset) for end in (_WEB1, _WEB2) for offset in (0, 1480, 2960)}
        assert len({each.machine for each in mine}) == 1


@fact(row=10, state="switchable")
def test_forwarded_fragments_keep_their_size(lab: Lab) -> None:
    """Fragments that are forwarded reach the member as large as they were, also those that are not to be fragmented.

    Source: azure.md §1, "Azure Load Balancer concepts"
    Note: ``switches: {fragments: Forward}``. The fabric puts datagrams together to choose, and cuts them again;
        the kernel may clear the "do not fragment" bit of what came in parts.
    """
    lab.up(_document(fragments="Forward"))
    for bit in (0, _DONT):
        sent = _datagram_in_parts(bit, sizes=(800, 800, 200))
        with lab.tap(*_NVAS) as tap, lab.open_raw("gw") as raw:
            for each in sent:
                raw.sendto(each, (_WEB1, 0))
            came = partial(_parts, tap, sent[0][4:6])
            lab.wait("all parts came to a member", came, lambda found: len(found) == 3)
            expected = [(struct.unpack_from("!H", each, 6)[0] & ~_DONT, len(each)) for each in sent]
            assert came() == sorted(expected)


def _parts(tap: Tap, identity: bytes) -> list[tuple[int, int]]:
    """The offset with "more fragments", and the length, of the fragments of a datagram that came to members."""
    parts = [each for each in tap.packets() if not each.sent and each.raw[4:6] == identity]
    return sorted((each.fragment & ~_DONT, struct.unpack_from("!H", each.raw, 2)[0]) for each in parts)


def _datagram_in_parts(bit: int, sizes: tuple[int, ...]) -> list[bytes]:
    """A UDP datagram as the packets of its fragments; ``bit`` is put into the flags of each."""
    payload = os.urandom(sum(sizes) - 8)
    datagram = struct.pack("!HHHH", 41_000, 9, sum(sizes), 0) + payload
    identity = int.from_bytes(os.urandom(2), "big") | 1
    parts = []
    offset = 0
    for size in sizes:
        flags = bit | (_MORE if offset + size < len(datagram) else 0) | offset // 8
        ends = socket.inet_aton("10.2.0.9") + socket.inet_aton(_WEB1)
        # The kernel fills in the header's checksum.
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, identity, flags, 64, socket.IPPROTO_UDP, 0)
        parts.append(head + ends + datagram[offset : offset + size])
        offset += size
    return parts
