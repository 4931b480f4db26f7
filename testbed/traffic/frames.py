"""Captured Ethernet frames as columns: cut into headers and matched to flows, thousands at a time."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
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

__all__ = ["TCP_ACK", "TCP_RST", "TCP_SYN", "FlowIndex", "Frames", "Headers", "Matches", "headers"]

_ETHERNET = 14
_IPV4 = 0x0800
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
    """The TCP and UDP packets among frames; ``row`` is the place in the frames, addresses are integers."""

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


def headers(frames: Frames) -> Headers:
    """Cut frames into headers.

    What is not IPv4 with TCP or UDP, is a fragment, or is cut off before the end of the transport header is
    left out. IP options are stepped over.
    """
    octets = frames.octets
    width = octets.shape[1]

    def number(rows: Numbers, offset: Numbers | int, size: int) -> Numbers:
        value = np.zeros(len(rows), dtype=np.int64)
        for step in range(size):
            value = value << 8 | octets[rows, offset + step]
        return value

    rows = np.flatnonzero(frames.captured >= _ETHERNET + 20).astype(np.int64)
    rows = rows[number(rows, 12, 2) == _IPV4]
    rows = rows[number(rows, 20, 2) & _FRAGMENT == 0]
    protocol = number(rows, 23, 1)
    transport = _ETHERNET + (number(rows, 14, 1) & 0x0F) * 4
    shortest = np.where(protocol == Transport.TCP, 20, 8)
    keep = (protocol == Transport.TCP) | (protocol == Transport.UDP)
    keep &= transport + shortest <= np.minimum(frames.captured[rows], width)
    rows, protocol, transport = rows[keep], protocol[keep], transport[keep]
    tcp = protocol == Transport.TCP
    # Bytes 12 and 13 lie beyond a UDP header; there the reading is clipped and then thrown away.
    offset_byte = np.where(tcp, transport + 12, 0)
    flag_byte = np.where(tcp, transport + 13, 0)
    return Headers(
        row=rows,
        protocol=protocol,
        source=number(rows, 26, 4),
        destination=number(rows, 30, 4),
        source_port=number(rows, transport, 2),
        destination_port=number(rows, transport + 2, 2),
        tcp_flags=np.where(tcp, number(rows, flag_byte, 1), 0),
        payload=transport + np.where(tcp, (number(rows, offset_byte, 1) >> 4) * 4, 8),
    )


class FlowIndex:
    """Finds flows by their keys.

    Per protocol, a sorted list of 64-bit words: client address, client port, server port.
    """

    def __init__(self, keys: Sequence[FlowKey]) -> None:
        words = np.array(
            [int(IPv4Address(k.client_address)) << 32 | k.client_port << 16 | k.server_port for k in keys],
            dtype=np.uint64,
        )
        protocols = np.array([key.protocol for key in keys], dtype=np.int64)
        self._lists: dict[Transport, tuple[npt.NDArray[np.uint64], Numbers]] = {}
        for protocol in Transport:
            chosen = np.flatnonzero(protocols == protocol).astype(np.int64)
            order = chosen[np.argsort(words[chosen])]
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
            words = (client << 32 | client_port << 16 | server_port).astype(np.uint64)
            for protocol in Transport:
                chosen = np.flatnonzero((found.protocol == protocol) & (flow < 0))
                hits = self._find(protocol, words[chosen])
                flow[chosen] = hits
                forward[chosen] = direction
        place = np.flatnonzero(flow >= 0).astype(np.int64)
        return Matches(place, flow[place], forward[place])
