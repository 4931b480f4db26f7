"""Elements of nftables sets and maps, changed by raw nfnetlink in one batch.

libnftables parses and evaluates text for each element, which costs about 4 microseconds apiece; a prebuilt binary
batch costs under 1. Only what the balancer needs: keys and values of four bytes in host order (``mark``,
``symhash``). Message layout: ``linux/netfilter/nf_tables.h`` and ``nfnetlink.h``.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from testbed.errors import LabError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Elements", "commit"]

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEW, _DELETE = 12, 14  # NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM
_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_NESTED = 0x8000
_PER_MESSAGE = 2_000  # an attribute's length is 16 bits: 28 bytes x 2,000 stays below
_ERROR = 2  # NLMSG_ERROR
_KEY = [("element", "u2"), ("element_type", "u2"), ("key", "u2"), ("key_type", "u2"),
        ("key_value", "u2"), ("key_value_type", "u2"), ("key_data", "u4")]  # fmt: skip
_KEY_AND_DATA = [*_KEY, ("data", "u2"), ("data_type", "u2"), ("value", "u2"), ("value_type", "u2"),
                 ("data_data", "u4")]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements to add to or delete from one set or map.

    ``values`` is ``None`` for a set, and for deletions; both arrays are unsigned 32-bit.
    """

    name: str
    keys: NDArray[np.uint32]
    values: NDArray[np.uint32] | None = None
    delete: bool = False


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _message(kind: int, flags: int, sequence: int, payload: bytes, *, family: int, resource: int = 0) -> bytes:
    body = struct.pack("=BBH", family, 0, socket.htons(resource)) + payload
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _records(keys: NDArray[np.uint32], values: NDArray[np.uint32] | None) -> bytes:
    records = np.zeros(len(keys), dtype=_KEY if values is None else _KEY_AND_DATA)
    records["element"] = records.itemsize
    records["element_type"] = 1 | _NESTED  # NFTA_LIST_ELEM
    records["key"], records["key_type"] = 12, 1 | _NESTED  # NFTA_SET_ELEM_KEY
    records["key_value"], records["key_value_type"] = 8, 1  # NFTA_DATA_VALUE
    records["key_data"] = keys
    if values is not None:
        records["data"], records["data_type"] = 12, 2 | _NESTED  # NFTA_SET_ELEM_DATA
        records["value"], records["value_type"] = 8, 1
        records["data_data"] = values
    return records.tobytes()


def _messages(family: int, table: str, changes: list[Elements]) -> list[bytes]:
    messages = []
    for change in changes:
        kind = _SUBSYSTEM << 8 | (_DELETE if change.delete else _NEW)
        flags = _REQUEST | _ACK | (0 if change.delete else _CREATE)
        names = _attribute(1, table.encode() + b"\0") + _attribute(2, change.name.encode() + b"\0")
        for start in range(0, len(change.keys), _PER_MESSAGE):
            part = slice(start, start + _PER_MESSAGE)
            values = None if change.values is None else change.values[part]
            elements = _attribute(3 | _NESTED, _records(change.keys[part], values))
            messages.append(_message(kind, flags, len(messages) + 1, names + elements, family=family))
    return messages


def commit(table: str, changes: list[Elements], *, family: int = socket.AF_INET) -> None:
    """Apply all changes in one transaction: packets see either none or all of them.

    Raises:
        LabError: The kernel refuses one of them; then none has taken effect.
    """
    messages = _messages(family, table, changes)
    if not messages:
        return
    begin = _message(_BATCH_BEGIN, _REQUEST, 0, b"", family=0, resource=_SUBSYSTEM)
    end = _message(_BATCH_END, _REQUEST, len(messages) + 1, b"", family=0, resource=_SUBSYSTEM)
    batch = b"".join([begin, *messages, end])
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as netlink:
        netlink.setsockopt(socket.SOL_SOCKET, 32, max(1 << 18, 2 * len(batch)))  # SO_SNDBUFFORCE
        netlink.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)  # SO_RCVBUFFORCE
        netlink.bind((0, 0))
        netlink.send(batch)
        _read_acknowledgements(netlink, len(messages), table)


def _read_acknowledgements(netlink: socket.socket, expected: int, table: str) -> None:
    """Every message is acknowledged before ``send`` returns: the kernel works in the sender's context."""
    seen = 0
    netlink.settimeout(0)
    while seen < expected:
        try:
            data = netlink.recv(1 << 16)
        except BlockingIOError as error:
            raise LabError(f"nftables acknowledged {seen} of {expected} changes of table {table!r}") from error
        offset = 0
        while offset < len(data):
            length, kind = struct.unpack_from("=IH", data, offset)
            if kind == _ERROR:
                number = -struct.unpack_from("=i", data, offset + 16)[0]
                if number:
                    reason = os.strerror(number)
                    hint = "an element is not there" if number == errno.ENOENT else reason
                    raise LabError(f"nftables refuses to change elements of table {table!r}: {hint}")
                seen += 1
            offset += (length + 3) & ~3
