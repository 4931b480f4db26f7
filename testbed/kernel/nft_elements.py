"""Elements of nftables sets and maps, and counters, by raw nfnetlink over a socket that stays open.

Why not libnftables: it parses and evaluates text for each element (4 microseconds apiece, against under 1 for a
prebuilt batch), it reads every element of every set of a table into its cache before it does anything, and closing
a netlink socket makes the kernel wait for the memory of deleted elements, 15 ms each time. Only what the balancer
needs: keys of one or more four-byte numbers and values of one, in host order (``mark``, hashes), and named counters.
Message layout:
``linux/netfilter/nf_tables.h``, ``nfnetlink.h`` and ``linux/netlink.h``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from testbed.errors import LabError
from testbed.kernel.rtnetlink import NESTED, attribute, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Elements", "NftSocket"]

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEW_ELEMENTS, _GET_ELEMENTS, _DELETE_ELEMENTS, _GET_OBJECTS = 12, 13, 14, 19  # NFT_MSG_…
_REQUEST, _ACK, _DUMP, _CREATE = 1, 4, 0x300, 0x400
_PER_MESSAGE = 2_000  # an attribute's length is 16 bits: 32 bytes x 2,000 stays below
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_COUNTER = 1  # NFT_OBJECT_COUNTER
_HEAD = [
    ("element", "u2"),
    ("element_type", "u2"),
    ("key", "u2"),
    ("key_type", "u2"),
    ("key_value", "u2"),
    ("key_value_type", "u2"),
]
_DATA = [
    ("data", "u2"),
    ("data_type", "u2"),
    ("value", "u2"),
    ("value_type", "u2"),
    ("data_data", "u4"),
]


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements to add to or delete from one set or map.

    ``keys`` has a row for each element, of as many numbers as the key has parts. ``values`` is ``None`` for a set,
    and for deletions; both arrays are unsigned 32-bit.
    """

    name: str
    keys: NDArray[np.uint32]
    values: NDArray[np.uint32] | None = None
    delete: bool = False


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _message(kind: int, flags: int, sequence: int, payload: bytes, *, family: int, resource: int = 0) -> bytes:
    body = struct.pack("=BBH", family, 0, socket.htons(resource)) + payload
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _records(keys: NDArray[np.uint32], values: NDArray[np.uint32] | None) -> bytes:
    parts = keys.shape[1]
    layout = [*_HEAD, ("key_data", "u4", parts), *(() if values is None else _DATA)]
    records = np.zeros(len(keys), dtype=layout)
    records["element"] = records.itemsize
    records["element_type"] = 1 | NESTED  # NFTA_LIST_ELEM
    records["key"], records["key_type"] = 8 + 4 * parts, 1 | NESTED  # NFTA_SET_ELEM_KEY
    records["key_value"], records["key_value_type"] = 4 + 4 * parts, 1  # NFTA_DATA_VALUE
    records["key_data"] = keys
    if values is not None:
        records["data"], records["data_type"] = 12, 2 | NESTED  # NFTA_SET_ELEM_DATA
        records["value"], records["value_type"] = 8, 1
        records["data_data"] = values
    return records.tobytes()


def _find(data: bytes, *kinds: int) -> bytes:
    """The payload of an attribute inside an attribute …; empty when one is missing."""
    for wanted in kinds:
        data = next((payload for kind, payload in parse(data) if kind == wanted), b"")
    return data


class NftSocket:
    """A netlink socket to the nftables of the namespace where it is made, for one table of family ``ip``."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 21)  # SO_RCVBUFFORCE
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close the socket; this waits for the kernel to free what was deleted."""
        self._socket.close()

    def commit(self, changes: list[Elements]) -> None:
        """Apply all changes in one transaction: packets see either none or all of them.

        Raises:
            LabError: The kernel refuses one of them; then none has taken effect.
        """
        messages = self._messages(changes)
        if not messages:
            return
        begin = _message(_BATCH_BEGIN, _REQUEST, 0, b"", family=0, resource=_SUBSYSTEM)
        end = _message(_BATCH_END, _REQUEST, len(messages) + 1, b"", family=0, resource=_SUBSYSTEM)
        batch = b"".join([begin, *messages, end])
        self._socket.setsockopt(socket.SOL_SOCKET, 32, max(1 << 18, 2 * len(batch)))  # SO_SNDBUFFORCE
        self._socket.send(batch)
        # Every message is acknowledged before send() returns: the kernel works in the sender's context.
        problems = [self._problem(payload) for kind, payload in self._answers(len(messages)) if kind == _ERROR]
        if failed := [each for each in problems if each]:
            raise LabError(f"nftables refuses to change elements of table {self._table!r}: {failed[0]}")

    def _messages(self, changes: list[Elements]) -> list[bytes]:
        messages: list[bytes] = []
        for change in changes:
            kind = _SUBSYSTEM << 8 | (_DELETE_ELEMENTS if change.delete else _NEW_ELEMENTS)
            flags = _REQUEST | _ACK | (0 if change.delete else _CREATE)
            names = _text(1, self._table) + _text(2, change.name)
            for start in range(0, len(change.keys), _PER_MESSAGE):
                part = slice(start, start + _PER_MESSAGE)
                values = None if change.values is None else change.values[part]
                elements = attribute(3 | NESTED, _records(change.keys[part], values))
                payload = names + elements
                messages.append(_message(kind, flags, len(messages) + 1, payload, family=socket.AF_INET))
        return messages

    def elements(self, name: str) -> frozenset[int]:
        """All keys of a set.

        Raises:
            LabError: There is no such set.
        """
        asked = _text(1, self._table) + _text(2, name)
        found = set()
        for payload in self._dump(_GET_ELEMENTS, asked, f"set {name!r}"):
            for _, element in parse(_find(payload, 3)):  # NFTA_SET_ELEM_LIST_ELEMENTS
                found.add(int.from_bytes(_find(element, 1, 1)[:4], sys.byteorder))
        return frozenset(found)

    def counters(self) -> dict[str, int]:
        """Packets of every named counter of the table.

        Raises:
            LabError: There is no such table.
        """
        asked = _text(1, self._table) + attribute(3, struct.pack(">I", _COUNTER))
        found = {}
        for payload in self._dump(_GET_OBJECTS, asked, "counters"):
            name = _find(payload, 2).rstrip(b"\0").decode()  # NFTA_OBJ_NAME
            found[name] = int.from_bytes(_find(payload, 4, 2), "big")  # NFTA_OBJ_DATA, NFTA_COUNTER_PACKETS
        return found

    def _dump(self, kind: int, asked: bytes, what: str) -> list[bytes]:
        flags = _REQUEST | _DUMP
        self._socket.send(_message(_SUBSYSTEM << 8 | kind, flags, 1, asked, family=socket.AF_INET))
        payloads = []
        for answer, payload in self._answers(None):
            if answer == _ERROR and (problem := self._problem(payload)):
                raise LabError(f"nftables cannot list {what} of table {self._table!r}: {problem}")
            if answer not in (_ERROR, _DONE):
                payloads.append(payload[4:])  # after the nfgenmsg
        return payloads

    def _answers(self, expected: int | None) -> Iterator[tuple[int, bytes]]:
        """(kind, payload) of so many answers, or of all up to the end of a dump."""
        seen = 0
        while expected is None or seen < expected:
            data = self._socket.recv(1 << 17)
            offset = 0
            while offset < len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                yield kind, data[offset + 16 : offset + length]
                seen += 1
                if expected is None and kind in (_ERROR, _DONE):
                    return
                offset += (length + 3) & ~3

    @staticmethod
    def _problem(payload: bytes) -> str:
        """What an acknowledgement complains about; empty when it does not."""
        number = -struct.unpack_from("=i", payload)[0]
        if number == errno.ENOENT:
            return "it is not there"
        return os.strerror(number) if number else ""
