"""Connection tracking of the namespace the thread is in: read it, hear what ends, forget it.

By raw nfnetlink: the probe controller looks often, and a library takes longer to import than to read. Layout:
``linux/netfilter/nfnetlink_conntrack.h``.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from testbed.kernel.rtnetlink import DUMP, Rtnetlink, attribute, nested, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Endings", "Entry", "TcpState", "entries", "flush", "forget", "sweep"]

_NETFILTER = 12  # NETLINK_NETFILTER
_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK with IPCTNL_MSG_CT_GET, _DELETE
_DESTROYED_GROUP = 1 << 2  # NFNLGRP_CONNTRACK_DESTROY is 3
_TUPLE, _PROTOINFO, _TIMEOUT, _MARK, _ZONE, _MARK_MASK = 1, 4, 7, 8, 18, 21  # CTA_*; the tuple is the original one
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_ENDS: dict[int, tuple[int, int]] = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}  # CTA_IP_V4_*, CTA_IP_V6_*
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_*
_TCP, _TCP_STATE = 1, 1  # CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE
_HEADER = struct.Struct("=IHHII")
_BUFFER = 1 << 17
_NOBODYS_MARK = 0xFFFF_FFFF
_RECEIVE_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33


class TcpState(IntEnum):
    """``enum tcp_conntrack``, as far as it matters here."""

    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5


def _general(family: int) -> bytes:
    """``struct nfgenmsg``."""
    return struct.pack("=BBH", family, 0, 0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One tracked flow: the tuple of its first packet, its mark and its zone.

    ``state`` is a TCP flow's, 0 for others; ``seconds`` is how long it will be remembered without a packet.
    """

    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    mark: int
    zone: int
    state: int = 0
    seconds: int = 0

    @property
    def lives(self) -> bool:
        """Whether it is a TCP connection that has begun, and that neither a reset nor both sides have ended."""
        return TcpState.SYN_RECV <= self.state <= TcpState.CLOSE_WAIT


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _entry(payload: bytes) -> Entry | None:
    """The flow of a message; None for what has no ports."""
    family = payload[0]
    values = dict(parse(payload[4:]))
    original = dict(parse(values[_TUPLE]))
    address = dict(parse(original[_TUPLE_IP]))
    ports = dict(parse(original[_TUPLE_PROTO]))
    if _SOURCE_PORT not in ports or family not in _ENDS:
        return None
    source, destination = (socket.inet_ntop(family, address[kind]) for kind in _ENDS[family])
    state = dict(parse(dict(parse(values.get(_PROTOINFO, b""))).get(_TCP, b""))).get(_TCP_STATE, b"\0")
    return Entry(
        protocol=ports[_NUMBER][0],
        source=source,
        destination=destination,
        source_port=_number(ports[_SOURCE_PORT]),
        destination_port=_number(ports[_DESTINATION_PORT]),
        mark=_number(values.get(_MARK, b"")),
        zone=_number(values.get(_ZONE, b"")),
        state=state[0],
        seconds=_number(values.get(_TIMEOUT, b"")),
    )


def entries(mark: int | None = None) -> Iterator[Entry]:
    """All tracked TCP and UDP flows of both IP versions, or those with a mark."""
    chosen = b"" if mark is None else attribute(_MARK, struct.pack(">I", mark)) + attribute(_MARK_MASK, b"\xff" * 4)
    netlink = Rtnetlink(_NETFILTER)
    try:
        for payload in netlink.get(_GET, DUMP, _general(socket.AF_UNSPEC) + chosen):
            entry = _entry(payload)
            if entry is not None:
                yield entry
    finally:
        netlink.close()


def sweep() -> None:
    """Let the kernel remove what is overdue: by itself it may be a minute late, but not when somebody looks."""
    for _ in entries(_NOBODYS_MARK):
        pass


def forget(entry: Entry) -> None:
    """Forget a flow; gone already is fine.

    Raises:
        OSError: The kernel refuses.
    """
    family = socket.AF_INET6 if ":" in entry.source else socket.AF_INET
    ends = zip(_ENDS[family], (entry.source, entry.destination), strict=True)
    address = nested(_TUPLE_IP, *(attribute(kind, socket.inet_pton(family, end)) for kind, end in ends))
    ports = nested(
        _TUPLE_PROTO,
        attribute(_NUMBER, bytes([entry.protocol])),
        attribute(_SOURCE_PORT, struct.pack(">H", entry.source_port)),
        attribute(_DESTINATION_PORT, struct.pack(">H", entry.destination_port)),
    )
    netlink = Rtnetlink(_NETFILTER)
    try:
        with suppress(FileNotFoundError):
            zone = attribute(_ZONE, struct.pack(">H", entry.zone))
            netlink.request(_DELETE, 0, _general(family) + nested(_TUPLE, address, ports) + zone)
    finally:
        netlink.close()


def flush() -> None:
    """Forget all flows."""
    netlink = Rtnetlink(_NETFILTER)
    try:
        netlink.request(_DELETE, 0, _general(socket.AF_UNSPEC))
    finally:
        netlink.close()


class Endings:
    """Hears of flows that the kernel forgets because they were silent for too long.

    Only of those that began when ``net.netfilter.nf_conntrack_events`` was 1, or while somebody listened; and in
    time only when somebody calls :func:`sweep`. ``fileno`` is for a selector.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self._socket.bind((0, _DESTROYED_GROUP))

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def read(self) -> list[Entry]:
        """What ended since the last call; endings that came too thick and fast are lost."""
        found: list[Entry] = []
        while True:
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            offset = 0
            while offset < len(data):
                length, _, _, _, asked_by = _HEADER.unpack_from(data, offset)
                # What somebody deleted carries that process's number, and what timed out nobody's.
                if not asked_by and (entry := _entry(data[offset + _HEADER.size : offset + length])):
                    found.append(entry)
                offset += (length + 3) & ~3
