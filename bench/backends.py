"""The two balancers side by side: new flows and packets per second. Needs a kernel with IPVS (``make bench-ipvs``).

In a guest kernel under emulation only the ratios say something: everything takes many times as long as it would.
"""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench import commands, documents
from bench.figures import Figure, median
from bench.throughput import FABRIC_MAC, SINK, packets_per_second, source_mac
from testbed.kernel import conntrack, namespaces, nft

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["measure"]

ROUNDS = 5
NEW_FLOWS = 5_000
FLOWS, PACKETS = 500, 20_000
APPLIANCES = 2
BALANCERS = ("nftables", "ipvs")


def _frames(mac: str, protocol: int, count: int, flows: int) -> NDArray[np.uint8]:
    """Packets of 60 bytes from ``flows`` source ports, in turn; TCP ones ask for a connection."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.l2 import Ether

    is_tcp = protocol == socket.IPPROTO_TCP
    layer = TCP(sport=0, dport=443, flags="S") if is_tcp else UDP(sport=0, dport=443, chksum=0)
    padding = bytes(6 if is_tcp else 18)
    packet = bytes(Ether(src=mac, dst=FABRIC_MAC) / IP(src="10.1.0.4", dst="10.2.0.4") / layer / padding)
    frames = np.tile(np.frombuffer(packet, dtype=np.uint8), (count, 1))
    ports = 10_000 + np.arange(count) % flows
    frames[:, 34], frames[:, 35] = ports >> 8, ports & 0xFF
    if is_tcp:  # conntrack wants a good checksum; the one that is there was made for port 0
        sums = (~(packet[50] << 8 | packet[51]) & 0xFFFF) + ports
        sums = ~((sums & 0xFFFF) + (sums >> 16)) & 0xFFFF
        frames[:, 50], frames[:, 51] = sums >> 8, sums & 0xFF
    return frames


def _forget(lab: str) -> None:
    """No flow is known any more, neither to the balancer nor to the NVAs."""
    for place in ("fabric", *(f"nva{number + 1}" for number in range(APPLIANCES))):
        with namespaces.entered(f"{lab}-{place}"):
            conntrack.flush()


def measure() -> list[Figure]:
    """Both labs are up at once and are measured in turn."""
    kinds = {
        "new TCP flows": (socket.IPPROTO_TCP, NEW_FLOWS, NEW_FLOWS),
        "new UDP flows": (socket.IPPROTO_UDP, NEW_FLOWS, NEW_FLOWS),
        "packets of known flows": (socket.IPPROTO_UDP, PACKETS, FLOWS),
    }
    rates: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        for balancer in BALANCERS:
            lab = f"bench-{balancer}"
            document = documents.hub_and_spokes(lab, APPLIANCES, "10.0.2.4", time_scale=0.2)
            file = documents.write(document, Path(directory))
            stack.enter_context(commands.lab_up(file, lab, "--balancer", balancer))
            with namespaces.entered(f"{lab}-sink"):
                nft.run(SINK.replace("ip protocol udp", "ip protocol { tcp, udp }"))
        for kind, (protocol, count, flows) in kinds.items():
            frames = {each: _frames(source_mac(f"bench-{each}"), protocol, count, flows) for each in BALANCERS}
            for turn in range(ROUNDS + 1):
                for balancer in BALANCERS:
                    if kind.startswith("new"):
                        _forget(f"bench-{balancer}")
                    rate = packets_per_second(f"bench-{balancer}", frames[balancer])
                    if turn:  # the first one warms up
                        rates.setdefault((kind, balancer), []).append(rate)
    figures = []
    for kind in kinds:
        medians = {each: median(rates[kind, each]) for each in BALANCERS}
        figures += [Figure(f"{kind}, {each}", medians[each], "/s") for each in BALANCERS]
        figures.append(Figure(f"{kind}, ipvs to nftables", medians["ipvs"] / medians["nftables"], ""))
    return figures
