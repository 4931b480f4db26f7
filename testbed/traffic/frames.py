"""Captured Ethernet frames as columns: cut into headers and matched to flows, thousands at a time."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import numpy as np

from testbed.traffic.flows import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from testbed.traffic.flows import FlowKey

    Bools = npt.NDArray[np.bool_]
    Bytes = npt.NDArray[np.uint8]
    Numbers = npt.NDArray[np.int64]

__all__ = ["TCP_ACK", "TCP_RST", "TCP_SYN", "FlowIndex", "Frames", "Headers", "Matches", "address_number", "headers"]

_ETHERNET = 14
_IPV4, _IPV6 = 0x0800, 0x86DD
#: An IPv6 address is two halves; these mix them into one number (odd, from the digits of the golden ratio and of pi).
_MIX = (0x9E3779B97F4A7C15, 0x3243F6A8885A308D)
_FRAGMENT = 0x3FFF  # "more fragments" or an offset
TCP_SYN, TCP_RST, TCP_ACK = 0x02, 0x04, 0x10


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames as a capture read them, in order of arrival.

    ``octets`` is (frames, snapshot length) and starts with the Ethernet header; ``captured`` tells how much
    of each row is filled and ``lengths`` how long the frame was. Times are Unix nanoseconds, the kernel's.
    """

    octets: Bytes
    captured: Numbers
    lengths: Numbers
    times_ns: Numbers
    outgoing: Bools

    def __len__(self) -> int:
        return len(self.times_ns)


@dataclass(frozen=True, slots=True)
class Headers:
    """The TCP and UDP packets among frames; ``row`` is the place in the frames.

    Addresses are integers: see :func:`address_number`.
    """

    row: Numbers
    protocol: Numbers
    source: Numbers
    destination: Numbers
    source_port: Numbers
    destination_port: Numbers
    tcp_flags: Numbers
    payload: Numbers
    """Offset of the first byte after the TCP or UDP header, in the row."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Headers that belong to a flow: ``place`` in the headers, ``flow`` in the index, and the direction."""

    place: Numbers
    flow: Numbers
    forward: Bools


def _ipv6_numbers(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> Numbers:
    """61 bits of a hash and a bit above them, so that no IPv4 address has the same number."""
    mixed = high * np.uint64(_MIX[0]) + low * np.uint64(_MIX[1])
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(_MIX[0])
    numbers: Numbers = ((mixed >> np.uint64(3)) | np.uint64(1 << 61)).astype(np.int64)
    return numbers


def address_number(address: str) -> int:
    """An address as captures number it: IPv4 as it is, of IPv6 a hash of 61 bits (a lab has few addresses)."""
    parsed = ip_address(address)
    if parsed.version == 4:
        return int(parsed)
    halves = [np.array([half], dtype=np.uint64) for half in (int(parsed) >> 64, int(parsed) & 2**64 - 1)]
    return int(_ipv6_numbers(halves[0], halves[1])[0])


def headers(frames: Frames) -> Headers:
    """Cut frames into headers.

    What is not IPv4 or IPv6 with TCP or UDP, is a fragment, or is cut off before the end of the transport header is
    left out. IPv4's options are stepped over; IPv6's extension headers are not.
    """
    octets = frames.octets
    width = octets.shape[1]

    def number(rows: Numbers, offset: Numbers | int, size: int) -> Numbers:
        value = np.zeros(len(rows), dtype=np.int64)
        for step in range(size):
            value = value << 8 | octets[rows, offset + step]
        return value

    def halves(rows: Numbers, offset: int) -> Numbers:
        whole = np.ascontiguousarray(octets[rows, offset : offset + 16]).view(">u8").astype(np.uint64)
        return _ipv6_numbers(whole[:, 0], whole[:, 1])

    rows = np.flatnonzero(frames.captured >= _ETHERNET + 20).astype(np.int64)
    kind = number(rows, 12, 2)
    old = rows[kind == _IPV4]
    old = old[number(old, 20, 2) & _FRAGMENT == 0]
    new = rows[(kind == _IPV6) & (frames.captured[rows] >= _ETHERNET + 40)] if width >= _ETHERNET + 40 else rows[:0]
    rows = np.sort(np.concatenate([old, new]))
    ipv6 = np.isin(rows, new)
    protocol = np.where(ipv6, number(rows, 20, 1), number(rows, 23, 1))
    transport = _ETHERNET + np.where(ipv6, 40, (number(rows, 14, 1) & 0x0F) * 4)
    shortest = np.where(protocol == Transport.TCP, 20, 8)
    keep = (protocol == Transport.TCP) | (protocol == Transport.UDP)
    keep &= transport + shortest <= np.minimum(frames.captured[rows], width)
    rows, protocol, transport, ipv6 = rows[keep], protocol[keep], transport[keep], ipv6[keep]
    source, destination = number(rows, 26, 4), number(rows, 30, 4)
    source[ipv6], destination[ipv6] = halves(rows[ipv6], 22), halves(rows[ipv6], 38)
    tcp = protocol == Transport.TCP
    # Bytes 12 and 13 lie beyond a UDP header; there the reading is clipped and then thrown away.
    offset_byte = np.where(tcp, transport + 12, 0)
    flag_byte = np.where(tcp, transport + 13, 0)
    return Headers(
        row=rows,
        protocol=protocol,
        source=source,
        destination=destination,
        source_port=number(rows, transport, 2),
        destination_port=number(rows, transport + 2, 2),
        tcp_flags=np.where(tcp, number(rows, flag_byte, 1), 0),
        payload=transport + np.where(tcp, (number(rows, offset_byte, 1) >> 4) * 4, 8),
    )


class FlowIndex:
    """Finds flows by their keys.

    Per protocol, a sorted list of 64-bit words: the client address's place among the clients, client port, server port.
    """

    def __init__(self, keys: Sequence[FlowKey]) -> None:
        numbers = {address: address_number(address) for address in {key.client_address for key in keys}}
        self._clients = np.array(sorted(set(numbers.values())), dtype=np.int64)
        places = {address: int(np.searchsorted(self._clients, number)) for address, number in numbers.items()}
        words = np.array(
            [places[k.client_address] << 32 | k.client_port << 16 | k.server_port for k in keys], dtype=np.uint64
        )
        protocols = np.array([key.protocol for key in keys], dtype=np.int64)
        self._lists: dict[Transport, tuple[npt.NDArray[np.uint64], Numbers]] = {}
        for protocol in Transport:
            chosen = np.flatnonzero(protocols == protocol).astype(np.int64)
            # NumPy's default sort uses AVX2, which QEMU 7.2 emulates wrongly: in such a guest flows would not be found.
            order = chosen[np.argsort(words[chosen], kind="stable")]
            self._lists[protocol] = (words[order], order)

    def _find(self, protocol: Transport, words: npt.NDArray[np.uint64]) -> Numbers:
        known, flows = self._lists[protocol]
        if not len(known):
            return np.full(len(words), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(known, words), len(known) - 1)
        return np.where(known[at] == words, flows[at], -1)

    def match(self, found: Headers) -> Matches:
        """The headers that belong to a flow; forward is from the client."""
        flow = np.full(len(found.row), -1, dtype=np.int64)
        forward = np.zeros(len(found.row), dtype=np.bool_)
        towards = (found.source, found.source_port, found.destination_port)
        back = (found.destination, found.destination_port, found.source_port)
        for direction, (client, client_port, server_port) in ((True, towards), (False, back)):
            if not len(self._clients):
                continue
            place = np.minimum(np.searchsorted(self._clients, client), len(self._clients) - 1)
            known = self._clients[place] == client
            words = (place << 32 | client_port << 16 | server_port).astype(np.uint64)
            for protocol in Transport:
                chosen = np.flatnonzero((found.protocol == protocol) & (flow < 0) & known)
                hits = self._find(protocol, words[chosen])
                flow[chosen] = hits
                forward[chosen] = direction
        place = np.flatnonzero(flow >= 0).astype(np.int64)
        return Matches(place, flow[place], forward[place])
