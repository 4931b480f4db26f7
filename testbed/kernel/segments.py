"""TCP segments without payload, sent and read on cables by a packet socket: no routing, no filter is between."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.kernel.packet_filter import attach

if TYPE_CHECKING:
    from collections.abc import Iterable

    from testbed.kernel.packet_filter import Instruction

__all__ = ["ACK", "RST", "SYN", "Segment", "SegmentSocket"]

SYN, RST, ACK = 0x02, 0x04, 0x10
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_OUTGOING = 4  # PACKET_OUTGOING
_SNAP = 0x4_0000
_IP = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_TCP = struct.Struct("!HHIIBBHHH")
_ETHERNET = 14
_NUMBERS = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Segment:
    """Addresses, ports, sequence numbers and flags of a TCP segment."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int

    @property
    def ether_type(self) -> int:
        """Of the packet: IPv4's or IPv6's."""
        return _ETH_P_IPV6 if ":" in self.source else _ETH_P_IP

    def octets(self) -> bytes:
        """As an IP packet with right checksums."""
        family = socket.AF_INET if self.ether_type == _ETH_P_IP else socket.AF_INET6
        source, destination = socket.inet_pton(family, self.source), socket.inet_pton(family, self.destination)
        numbers = (self.sequence & _NUMBERS, self.acknowledgement & _NUMBERS)
        ports = (self.source_port, self.destination_port)
        # The sum is that of either version's pseudo header: their fields differ in length only.
        pseudo = source + destination + struct.pack("!HH", socket.IPPROTO_TCP, _TCP.size)
        bare = _TCP.pack(*ports, *numbers, _TCP.size << 2, self.flags, 0, 0, 0)
        tcp = _TCP.pack(*ports, *numbers, _TCP.size << 2, self.flags, 0, _checksum(pseudo + bare), 0)
        if family == socket.AF_INET6:
            return _IPV6.pack(6 << 28, _TCP.size, socket.IPPROTO_TCP, 64, source, destination) + tcp
        head = (0x45, 0, _IP.size + _TCP.size, 0, 0x4000, 64, socket.IPPROTO_TCP)
        ip = _IP.pack(*head, _checksum(_IP.pack(*head, 0, source, destination)), source, destination)
        return ip + tcp

    @classmethod
    def read(cls, packet: bytes) -> Segment | None:
        """Of an IP packet, without extension headers if it is IPv6; None when it is cut off."""
        if packet and packet[0] >> 4 == 6:
            family, start, ends = socket.AF_INET6, _IPV6.size, (packet[8:24], packet[24:40])
        else:
            start = (packet[0] & 0x0F) * 4 if packet else 0
            family, ends = socket.AF_INET, (packet[12:16], packet[16:20])
        if len(packet) < start + _TCP.size or start < _IP.size:
            return None
        source_port, destination_port, sequence, acknowledgement, _, flags, *_ = _TCP.unpack_from(packet, start)
        source, destination = (socket.inet_ntop(family, end) for end in ends)
        return cls(source, source_port, destination, destination_port, sequence, acknowledgement, flags)


def _checksum(data: bytes) -> int:
    """RFC 1071; of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _filter(ports: Iterable[tuple[int, int]]) -> list[Instruction]:
    """Classic BPF that keeps TCP segments with one of these pairs of source and destination port."""
    words = [source << 16 | destination for source, destination in ports]
    count = len(words)
    return [
        (0x28, 0, 0, 12),  # the EtherType
        (0x15, 5, 0, _ETH_P_IP),
        (0x15, 0, count + 10, _ETH_P_IPV6),
        (0x30, 0, 0, _ETHERNET + 6),  # the next header
        (0x15, 0, count + 8, socket.IPPROTO_TCP),
        (0x01, 0, 0, _IPV6.size),  # X: the length of the IP header
        (0x05, 0, 0, 5),  # on to the ports
        (0x30, 0, 0, _ETHERNET + 9),  # the protocol
        (0x15, 0, count + 4, socket.IPPROTO_TCP),
        (0x28, 0, 0, _ETHERNET + 6),  # flags and fragment offset
        (0x45, count + 2, 0, 0x1FFF),
        (0xB1, 0, 0, _ETHERNET),  # X: the length of the IP header
        (0x40, 0, 0, _ETHERNET),  # both ports
        *((0x15, count - number, 0, word) for number, word in enumerate(words)),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, _SNAP),
    ]


class SegmentSocket:
    """Sends segments out of links of the namespace where it is made, and reads what comes in by them.

    It hears nothing until :meth:`watch` is called. ``fileno`` is for a selector.

    Args:
        mark: Packet mark of what it sends.
    """

    #: Pairs of ports that can be watched at a time: a jump of classic BPF is short.
    MOST = 200

    def __init__(self, mark: int = 0) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        self.watch(())
        self.read()  # what came before the filter was there

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def watch(self, ports: Iterable[tuple[int, int]]) -> None:
        """From now on, hear segments with these (source port, destination port)."""
        attach(self._socket, _filter(ports))

    def send(self, link: str, mac: str, source_mac: str, segment: Segment) -> None:
        """Send a segment out of a link, to a MAC address.

        Raises:
            OSError: The link is down or gone.
        """
        addresses = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex(source_mac.replace(":", ""))
        frame = addresses + struct.pack("!H", segment.ether_type) + segment.octets()
        self._socket.sendto(frame, (link, segment.ether_type))

    def read(self) -> list[Segment]:
        """What came since the last call."""
        found: list[Segment] = []
        while True:
            try:
                data, address = self._socket.recvfrom(256)
            except BlockingIOError:
                return found
            except OSError:  # a link went down
                continue
            if address[2] != _OUTGOING and (segment := Segment.read(data[_ETHERNET:])):
                found.append(segment)
