"""Packet templates built by scapy, and a patcher that makes thousands of flows from one template.

The patcher writes addresses, ports and numbers into copies of the template and updates the checksums from
the difference (RFC 1624, equation 3), all rows at once; the result is what scapy would have built.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import numpy as np

from testbed.traffic.flows import Transport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from testbed.traffic.flows import Flow

__all__ = ["UDP_MAGIC", "Template", "flow_frames", "icmp_echo", "patch", "tcp_syn", "udp_datagram"]

#: First bytes of every UDP payload; the flow's number follows in four bytes, big-endian.
UDP_MAGIC = b"HAPT"
_UDP_PADDING = bytes(24)

_IP = 14  # offset of the IPv4 header in the frame
_L4 = 34  # of the transport header: templates carry no IP options


@dataclass(frozen=True, slots=True)
class Template:
    """A frame and where its parts are.

    ``fields`` maps a field's name to (offset, size, IP checksum covers it, transport checksum covers it).
    """

    octets: bytes
    checksum: int
    fields: dict[str, tuple[int, int, bool, bool]]
    udp: bool = False


def _fields(*, pseudo_header: bool, **own: tuple[int, int]) -> dict[str, tuple[int, int, bool, bool]]:
    common = {
        "ip_id": (_IP + 4, 2, True, False),
        "source": (_IP + 12, 4, True, pseudo_header),
        "destination": (_IP + 16, 4, True, pseudo_header),
    }
    return common | {name: (_L4 + offset, size, False, True) for name, (offset, size) in own.items()}


def tcp_syn(ethernet: bytes = bytes(12)) -> Template:
    """A SYN with the options Linux sends; fields ``source_port``, ``destination_port``, ``sequence``.

    Args:
        ethernet: Destination and source MAC, 12 bytes.
    """
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    packet = IP(src="0.0.0.0", dst="0.0.0.0", flags="DF") / TCP(
        sport=0, dport=0, seq=0, flags="S", window=64240, options=options
    )
    octets = ethernet + bytes(Ether(type=0x0800) / packet)[12:]
    fields = _fields(pseudo_header=True, source_port=(0, 2), destination_port=(2, 2), sequence=(4, 4))
    return Template(octets, _L4 + 16, fields)


def udp_datagram(ethernet: bytes = bytes(12)) -> Template:
    """A datagram that carries its flow's number; fields ``source_port``, ``destination_port``, ``number``."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    payload = UDP_MAGIC + bytes(4) + _UDP_PADDING
    packet = IP(src="0.0.0.0", dst="0.0.0.0") / UDP(sport=0, dport=0) / Raw(payload)
    octets = ethernet + bytes(Ether(type=0x0800) / packet)[12:]
    fields = _fields(pseudo_header=True, source_port=(0, 2), destination_port=(2, 2), number=(12, 4))
    return Template(octets, _L4 + 6, fields, udp=True)


def icmp_echo(ethernet: bytes = bytes(12)) -> Template:
    """An echo request; fields ``identifier`` and ``sequence``."""
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw

    packet = IP(src="0.0.0.0", dst="0.0.0.0") / ICMP(id=0, seq=0) / Raw(_UDP_PADDING)
    octets = ethernet + bytes(Ether(type=0x0800) / packet)[12:]
    fields = _fields(pseudo_header=False, identifier=(4, 2), sequence=(6, 2))
    return Template(octets, _L4 + 2, fields)


def _words(octets: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Sum of the 16-bit words of each row, not folded."""
    wide = octets.astype(np.int64)
    return np.asarray((wide[:, 0::2] << 8).sum(axis=1) + wide[:, 1::2].sum(axis=1))


def _update(frames: npt.NDArray[np.uint8], offset: int, change: npt.NDArray[np.int64], *, udp: bool) -> None:
    """HC' = ~(~HC + ~m + m'), with ``change`` the sum of all ~m + m'."""
    old = _words(frames[:, offset : offset + 2])
    if udp:
        old[old == 0xFFFF] = 0  # UDP writes a checksum of 0 as 0xFFFF (RFC 768)
    total = (old ^ 0xFFFF) + change
    while (total >> 16).any():
        total = (total & 0xFFFF) + (total >> 16)
    new = total ^ 0xFFFF
    if udp:
        new[new == 0] = 0xFFFF
    frames[:, offset] = new >> 8
    frames[:, offset + 1] = new & 0xFF


def patch(template: Template, columns: Mapping[str, Sequence[int]]) -> npt.NDArray[np.uint8]:
    """Copies of the template, one per row of the columns, with right checksums.

    Args:
        template: What to copy.
        columns: Field name to one integer per frame; all of the same length. Fields not named stay.

    Returns:
        (frames, length) bytes.
    """
    count = len(next(iter(columns.values())))
    frames = np.tile(np.frombuffer(template.octets, dtype=np.uint8), (count, 1))
    ip_change = np.zeros(count, dtype=np.int64)
    change = np.zeros(count, dtype=np.int64)
    for name, values in columns.items():
        offset, size, in_ip, in_transport = template.fields[name]
        place = slice(offset, offset + size)
        # ~m is 0xFFFF - m for each word of the field.
        difference = size // 2 * 0xFFFF - _words(frames[:, place])
        numbers = np.array(values, dtype=np.int64)
        for step in range(size):
            frames[:, offset + step] = numbers >> 8 * (size - 1 - step) & 0xFF
        difference += _words(frames[:, place])
        if in_ip:
            ip_change += difference
        if in_transport:
            change += difference
    _update(frames, _IP + 10, ip_change, udp=False)
    _update(frames, template.checksum, change, udp=template.udp)
    return frames


def flow_frames(template: Template, flows: Sequence[Flow], sequence: int = 0) -> npt.NDArray[np.uint8]:
    """One first frame per flow, all of the same protocol; TCP starts at ``sequence`` plus the number."""
    columns: dict[str, Sequence[int]] = {
        "ip_id": [flow.number & 0xFFFF for flow in flows],
        "source": [int(IPv4Address(flow.pair.client_address)) for flow in flows],
        "destination": [int(IPv4Address(flow.pair.server_address)) for flow in flows],
        "source_port": [flow.client_port for flow in flows],
        "destination_port": [flow.server_port for flow in flows],
    }
    if flows and flows[0].protocol is Transport.UDP:
        columns["number"] = [flow.number & 0xFFFFFFFF for flow in flows]
    else:
        columns["sequence"] = [sequence + flow.number & 0xFFFFFFFF for flow in flows]
    return patch(template, columns)
