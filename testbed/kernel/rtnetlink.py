"""Netlink messages: requests with attributes, answers and dumps, over one socket, without a library.

A lab of a hundred machines takes some two thousand requests; each costs about 20 microseconds here. Layout:
``linux/netlink.h``, ``linux/rtnetlink.h``; RFC 3549.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CREATE", "DUMP", "EXCL", "NESTED", "REPLACE", "Attributes", "Rtnetlink", "attribute", "nested", "parse"]

_ROUTE = 0  # NETLINK_ROUTE
_REQUEST, _ACK = 1, 4
REPLACE, EXCL, CREATE, DUMP = 0x100, 0x200, 0x400, 0x300
NESTED = 0x8000
_TYPE = 0x3FFF  # without the flags for nesting and byte order
_ERROR, _DONE = 2, 3
_BUFFER = 1 << 16
_HEADER = struct.Struct("=IHHII")

#: Attributes of an answer by type; the last one wins.
Attributes = dict[int, bytes]


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def _walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & _TYPE, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def parse(data: bytes) -> tuple[tuple[int, bytes], ...]:
    """All attributes in order, where one type may stand several times."""
    return tuple(_walk(data))


class Rtnetlink:
    """A socket in the namespace where it is made; ``family``: of another netlink than that of routes.

    Refused requests raise :class:`OSError` with the kernel's number.
    """

    def __init__(self, family: int = _ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.bind((0, 0))
        self._socket.settimeout(10)  # the kernel answers at once; this is for a bug, not for waiting
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, kind: int, flags: int, body: bytes) -> None:
        """Ask for a change, and wait for the acknowledgement."""
        for _ in self._exchange(kind, flags | _ACK, body):
            pass

    def get(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Ask for objects: a dump with :data:`DUMP`, otherwise one; each is a payload without its header."""
        return list(self._exchange(kind, flags if flags & DUMP == DUMP else flags | _ACK, body))

    def _exchange(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._sequence, 0) + body)
        while True:
            data = self._socket.recv(_BUFFER)
            offset = 0
            while offset < len(data):
                length, answer, _, sequence, _ = _HEADER.unpack_from(data, offset)
                payload = data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # the rest of an exchange that was broken off
                if answer == _ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                if answer == _DONE:
                    return
                yield payload
