"""Packet templates built by scapy, and a patcher that makes thousands of flows from one template.

The patcher writes addresses, ports and numbers into copies of the template and updates the checksums from
the difference (RFC 1624, equation 3), all rows at once; the result is what scapy would have built.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import numpy as np

from testbed.traffic.flows import Transport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from scapy.packet import Packet

    from testbed.traffic.flows import Flow

__all__ = ["UDP_MAGIC", "Template", "flow_frames", "icmp_echo", "patch", "tcp_syn", "udp_datagram"]

#: First bytes of every UDP payload; the flow's number follows in four bytes, big-endian.
UDP_MAGIC = b"HAPT"
_UDP_PADDING = bytes(24)

_IP = 14  # offset of the IP header in the frame
_L4 = {4: 34, 6: 54}  # of the transport header: templates carry no IP options
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}


@dataclass(frozen=True, slots=True)
class Template:
    """A frame and where its parts are.

    ``fields`` maps a field's name to (offset, size, IP checksum covers it, transport checksum covers it).
    """

    octets: bytes
    checksum: int
    fields: dict[str, tuple[int, int, bool, bool]]
    udp: bool = False
    version: int = 4


def _fields(version: int = 4, *, pseudo_header: bool, **own: tuple[int, int]) -> dict[str, tuple[int, int, bool, bool]]:
    if version == 4:
        common = {
            "ip_id": (_IP + 4, 2, True, False),
            "source": (_IP + 12, 4, True, pseudo_header),
            "destination": (_IP + 16, 4, True, pseudo_header),
        }
    else:  # whose header has no checksum
        common = {"source": (_IP + 8, 16, False, True), "destination": (_IP + 24, 16, False, True)}
    return common | {name: (_L4[version] + offset, size, False, True) for name, (offset, size) in own.items()}


def _headers(version: int, flags: str = "") -> Packet:
    """The Ethernet and IP headers of a template; the flags are IPv4's."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    below = IP(src="0.0.0.0", dst="0.0.0.0", flags=flags) if version == 4 else IPv6(src="::", dst="::")
    nobody = "00:00:00:00:00:00"  # or scapy would ask for the neighbour
    return Ether(src=nobody, dst=nobody, type=_ETHERTYPES[version]) / below


def tcp_syn(ethernet: bytes = bytes(12), version: int = 4) -> Template:
    """A SYN with the options Linux sends; fields ``source_port``, ``destination_port``, ``sequence``.

    Args:
        ethernet: Destination and source MAC, 12 bytes.
        version: Of IP.
    """
    from scapy.layers.inet import TCP

    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    segment = TCP(sport=0, dport=0, seq=0, flags="S", window=64240, options=options)
    octets = ethernet + bytes(_headers(version, "DF") / segment)[12:]
    fields = _fields(version, pseudo_header=True, source_port=(0, 2), destination_port=(2, 2), sequence=(4, 4))
    return Template(octets, _L4[version] + 16, fields, version=version)


def udp_datagram(ethernet: bytes = bytes(12), version: int = 4) -> Template:
    """A datagram that carries its flow's number; fields ``source_port``, ``destination_port``, ``number``."""
    from scapy.layers.inet import UDP
    from scapy.packet import Raw

    payload = UDP_MAGIC + bytes(4) + _UDP_PADDING
    octets = ethernet + bytes(_headers(version) / UDP(sport=0, dport=0) / Raw(payload))[12:]
    fields = _fields(version, pseudo_header=True, source_port=(0, 2), destination_port=(2, 2), number=(12, 4))
    return Template(octets, _L4[version] + 6, fields, udp=True, version=version)


def icmp_echo(ethernet: bytes = bytes(12)) -> Template:
    """An echo request; fields ``identifier`` and ``sequence``."""
    from scapy.layers.inet import ICMP
    from scapy.packet import Raw

    octets = ethernet + bytes(_headers(4) / ICMP(id=0, seq=0) / Raw(_UDP_PADDING))[12:]
    fields = _fields(pseudo_header=False, identifier=(4, 2), sequence=(6, 2))
    return Template(octets, _L4[4] + 2, fields)


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
        if size > 8:  # an IPv6 address, larger than numpy's numbers
            written = b"".join(value.to_bytes(size, "big") for value in values)
            frames[:, place] = np.frombuffer(written, dtype=np.uint8).reshape(count, size)
        else:
            numbers = np.array(values, dtype=np.int64)
            for step in range(size):
                frames[:, offset + step] = numbers >> 8 * (size - 1 - step) & 0xFF
        difference += _words(frames[:, place])
        if in_ip:
            ip_change += difference
        if in_transport:
            change += difference
    if template.version == 4:
        _update(frames, _IP + 10, ip_change, udp=False)
    _update(frames, template.checksum, change, udp=template.udp)
    return frames


def flow_frames(template: Template, flows: Sequence[Flow], sequence: int = 0) -> npt.NDArray[np.uint8]:
    """One first frame per flow, all of the template's protocols; TCP starts at ``sequence`` plus the number."""
    columns: dict[str, Sequence[int]] = {
        "source": [int(ip_address(flow.pair.client_address)) for flow in flows],
        "destination": [int(ip_address(flow.pair.server_address)) for flow in flows],
        "source_port": [flow.client_port for flow in flows],
        "destination_port": [flow.server_port for flow in flows],
    }
    if template.version == 4:
        columns["ip_id"] = [flow.number & 0xFFFF for flow in flows]
    if flows and flows[0].protocol is Transport.UDP:
        columns["number"] = [flow.number & 0xFFFFFFFF for flow in flows]
    else:
        columns["sequence"] = [sequence + flow.number & 0xFFFFFFFF for flow in flows]
    return patch(template, columns)
