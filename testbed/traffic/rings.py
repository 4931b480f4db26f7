"""Memory-mapped packet sockets (AF_PACKET, TPACKET_V2): a capture and a fast sender.

The kernel shares a ring of equal slots with this process, so thousands of frames cost a few system calls.
Sockets are opened inside a namespace and stay there. Source: Documentation/networking/packet_mmap.rst.
"""

from __future__ import annotations

import mmap
import socket
import struct
from typing import TYPE_CHECKING, Self

import numpy as np

from testbed.errors import InputError, LabError, MachineError
from testbed.kernel.namespaces import entered
from testbed.kernel.packet_filter import Instruction, attach
from testbed.traffic.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy.typing as npt

__all__ = ["TCP_OR_UDP", "Capture", "Instruction", "Sender"]

#: TCP or UDP in IPv4 that is no fragment, or right behind the header of IPv6. The constant of the last but one is how
#: many bytes to keep: all.
TCP_OR_UDP: tuple[Instruction, ...] = (
    (0x28, 0, 0, 12),  # ldh [12]
    (0x15, 4, 0, 0x0800),  # IPv4: four on
    (0x15, 0, 9, 0x86DD),  # IPv6, or refuse
    (0x30, 0, 0, 20),  # ldb [20]
    (0x15, 6, 0, 6),  # TCP: keep
    (0x15, 5, 6, 17),  # UDP: keep, or refuse
    (0x30, 0, 0, 23),  # ldb [23]
    (0x15, 1, 0, 6),  # TCP
    (0x15, 0, 3, 17),  # UDP, or refuse
    (0x28, 0, 0, 20),  # ldh [20]
    (0x45, 1, 0, 0x3FFF),  # a fragment: refuse
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
)

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_PACKET_TX_RING = 13
_PACKET_QDISC_BYPASS = 20
_TPACKET_V2 = 1
_ETH_P_ALL = 3

_STATUS_KERNEL = 0  # receiving: the slot is the kernel's; sending: the slot is free
_STATUS_USER = 1  # receiving: a frame is in it; sending: please send it
_STATUS_WRONG_FORMAT = 4

# struct tpacket2_hdr, then (receiving only) struct sockaddr_ll with the direction in sll_pkttype.
_HEADER = np.dtype(
    [
        ("status", "=u4"),
        ("length", "=u4"),
        ("captured", "=u4"),
        ("mac", "=u2"),
        ("net", "=u2"),
        ("seconds", "=u4"),
        ("nanoseconds", "=u4"),
        ("vlan", "=u2", (2,)),
        ("padding", "u1", (4,)),
    ]
)
_PACKET_TYPE = _HEADER.itemsize + 10
_PACKET_OUTGOING = 4
_RECEIVE_OVERHEAD = 80  # TPACKET2_HDRLEN + 16, aligned: where the network header starts at the latest
_BLOCK = 1 << 16


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 1).bit_length()


class _Ring:
    """A packet socket with one mapped ring; the common part of capture and sender."""

    def __init__(self, namespace: str | None, nic: str, option: int, slot: int, slots: int) -> None:
        self._where = f"{nic!r} in {namespace or 'this namespace'!r}"
        blocks = max(1, -(-slots * slot // _BLOCK))
        self._slots = blocks * (_BLOCK // slot)
        with entered(namespace):
            try:
                # Protocol 0: nothing is received before filter and ring are in place.
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            except PermissionError as error:
                problem = f"packet socket on {self._where}: {error.strerror}"
                raise MachineError(problem, fix="run as root, or give CAP_NET_RAW") from error
            try:
                socket.if_nametoindex(nic)
            except OSError as error:
                self._socket.close()
                raise LabError(f"there is no network interface {self._where}") from error
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            request = struct.pack("=4I", _BLOCK, blocks, slot, self._slots)
            self._socket.setsockopt(_SOL_PACKET, option, request)
            self._memory = mmap.mmap(self._socket.fileno(), _BLOCK * blocks, mmap.MAP_SHARED)
        except OSError as error:
            self._socket.close()
            raise LabError(
                f"packet ring of {blocks * _BLOCK >> 10} KiB on {self._where}: {error.strerror}",
                fix="free memory, or use fewer flows",
            ) from error
        whole = np.frombuffer(self._memory, dtype=np.uint8)
        self._octets: npt.NDArray[np.uint8] = whole.reshape(self._slots, slot)
        # A structured view of the first bytes of every slot; writing to it writes to the ring.
        self._headers = np.ndarray((self._slots,), _HEADER, buffer=self._memory, strides=(slot,))
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket, for ``poll``."""
        return self._socket.fileno()

    def close(self) -> None:
        """Unmap the ring and close the socket."""
        # The mapping cannot be closed while an array looks into it.
        self._octets = np.empty((0, 0), dtype=np.uint8)
        self._headers = np.empty(0, dtype=_HEADER)
        self._memory.close()
        self._socket.close()


class Capture(_Ring):
    """Records what crosses a network interface, both directions, with the kernel's time stamps.

    Args:
        namespace: Network namespace of the interface; None: where the thread is.
        nic: Name of the interface.
        frames: How many frames fit before :meth:`read` must have been called.
        snapshot: Bytes kept of each frame.
        program: Classic BPF program that chooses frames; empty: all.

    Raises:
        LabError: There is no such interface, or no memory for the ring.
        MachineError: The right to open packet sockets is missing.
    """

    def __init__(
        self,
        namespace: str | None,
        nic: str,
        *,
        frames: int = 16384,
        snapshot: int = 160,
        program: Sequence[Instruction] = TCP_OR_UDP,
    ) -> None:
        self.namespace = namespace
        self.nic = nic
        self._snapshot = snapshot
        self._dropped = 0
        super().__init__(namespace, nic, _PACKET_RX_RING, _power_of_two(_RECEIVE_OVERHEAD + snapshot), frames)
        try:
            if program:
                attach(self._socket, program)
            self._socket.bind((nic, _ETH_P_ALL))
        except OSError as error:
            self.close()
            raise LabError(f"capture on {self._where}: {error.strerror}") from error

    def _ready(self) -> int:
        """How many slots in a row, from the next one to the end of the ring, hold a frame."""
        status = self._headers["status"]
        if not status[self._next] & _STATUS_USER:
            return 0
        empty = np.flatnonzero(status[self._next :] & _STATUS_USER == 0)
        return int(empty[0]) if len(empty) else self._slots - self._next

    def read(self) -> Frames:
        """All frames since the last call; never waits. Their slots go back to the kernel."""
        parts = []
        # Twice, because the frames may go round the end of the ring.
        for _ in range(2):
            count = self._ready()
            if not count:
                break
            parts.append(self._take(count))
        if not parts:
            parts.append(self._take(0))
        if len(parts) == 1:
            return parts[0]
        return Frames(
            np.concatenate([part.octets for part in parts]),
            np.concatenate([part.captured for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.times_ns for part in parts]),
            np.concatenate([part.outgoing for part in parts]),
        )

    def _take(self, count: int) -> Frames:
        rows = slice(self._next, self._next + count)
        head = self._headers[rows].copy()
        slots = self._octets[rows]
        octets = np.zeros((count, self._snapshot), dtype=np.uint8)
        for mac in np.unique(head["mac"]):  # one value for all frames, unless links of several kinds mix
            same = np.flatnonzero(head["mac"] == mac)
            part = slots[same, int(mac) : int(mac) + self._snapshot]
            octets[same, : part.shape[1]] = part
        outgoing = slots[:, _PACKET_TYPE] == _PACKET_OUTGOING
        self._headers["status"][rows] = _STATUS_KERNEL
        self._next = (self._next + count) % self._slots
        return Frames(
            octets,
            np.minimum(head["captured"], self._snapshot).astype(np.int64),
            head["length"].astype(np.int64),
            head["seconds"].astype(np.int64) * 1_000_000_000 + head["nanoseconds"],
            outgoing,
        )

    def dropped(self) -> int:
        """Frames the kernel could not store since the capture began; anything but 0 spoils a measurement."""
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._dropped += struct.unpack("=2I", statistics)[1]  # reading them sets them to zero
        return self._dropped


class Sender(_Ring):
    """Sends prebuilt frames, each from a slot of its own.

    The kernel sends straight out of the slots and reports a slot as free when the frame has left the first
    device, which for a veth is long before it has arrived. A slot that is written once can never change
    under a frame on its way.

    Args:
        namespace: Network namespace of the interface; None: where the thread is.
        nic: Name of the interface.
        frames: (frames, length) bytes, complete with Ethernet header and checksums.

    Raises:
        InputError: There is no frame.
        LabError: There is no such interface, or no memory for the ring.
        MachineError: The right to open packet sockets is missing.
    """

    def __init__(self, namespace: str | None, nic: str, frames: npt.NDArray[np.uint8]) -> None:
        count, length = int(frames.shape[0]), int(frames.shape[1])
        if not count:
            raise InputError(f"no frames to send on {nic!r}")
        super().__init__(namespace, nic, _PACKET_TX_RING, _power_of_two(_HEADER.itemsize + length), count)
        self._count = count
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
            self._socket.bind((nic, 0))  # protocol 0: it receives nothing
        except OSError as error:
            self.close()
            raise LabError(f"send on {self._where}: {error.strerror}") from error
        self._octets[:count, _HEADER.itemsize : _HEADER.itemsize + length] = frames
        self._headers["length"][:count] = length

    @property
    def left(self) -> int:
        """Frames that were not sent yet."""
        return int(self._count - self._next)

    def send(self, count: int) -> int:
        """Send the next ``count`` frames, or what is left; returns how many.

        Raises:
            LabError: The kernel refused a frame.
        """
        count = min(count, self.left)
        if not count:
            return 0
        rows = slice(self._next, self._next + count)
        self._headers["status"][rows] = _STATUS_USER
        try:
            self._socket.send(b"")
        except OSError as error:
            problem = f"send frames on {self._where}: {error.strerror}"
            raise LabError(problem, fix="is the link up? look at: ip link") from error
        wrong = np.flatnonzero(self._headers["status"][rows] & _STATUS_WRONG_FORMAT)
        if len(wrong):
            raise LabError(f"send frames on {self._where}: the kernel refused {len(wrong)} malformed frames")
        self._next += count
        return count
