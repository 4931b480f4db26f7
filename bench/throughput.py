"""The balanced path against a static route through one NVA: packets per second and TCP."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import commands, documents
from bench.figures import Figure, median
from testbed.deadline import wait_for
from testbed.kernel import namespaces, nft
from testbed.kernel.netlink import Netlink
from testbed.traffic.rings import Sender

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["SINK", "measure", "packets_per_second", "side_by_side", "source_mac"]

ROUNDS = 5
FLOWS = 2_000
PACKETS = 100_000
TCP_SECONDS = 3
APPLIANCES = 2
PATHS = {"balanced": "10.0.2.4", "static": "10.0.1.4"}
FABRIC_MAC = "12:34:56:78:9a:bc"
IPERF_PORT = 5201
#: What arrives is counted by the interface, and goes no further.
SINK = "table ip bench {\n chain sink {\n  type filter hook prerouting priority raw\n  ip protocol udp drop\n }\n}\n"


def frames(mac: str) -> NDArray[np.uint8]:
    """UDP packets of 60 bytes, the flows one after the other; without a checksum, which UDP allows."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    packet = Ether(src=mac, dst=FABRIC_MAC) / IP(src="10.1.0.4", dst="10.2.0.4") / UDP(chksum=0) / bytes(18)
    made = np.tile(np.frombuffer(bytes(packet), dtype=np.uint8), (PACKETS, 1))
    ports = 10_000 + np.arange(PACKETS) % FLOWS
    made[:, 34], made[:, 35] = ports >> 8, ports & 0xFF
    made[:, 36], made[:, 37] = 0x4E, 0x20
    return made


def _received(namespace: str) -> int:
    with namespaces.entered(namespace):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.strip().startswith("eth0:"))


def packets_per_second(lab: str, prepared: NDArray[np.uint8]) -> float:
    """Packets that arrived, by the time from the first one sent to the last one that arrived."""
    sink = f"{lab}-sink"
    before = _received(sink)
    with Sender(f"{lab}-source", "eth0", prepared) as sender:
        start = time.perf_counter()
        while sender.left:
            sender.send(1_000)
        seen, last, deadline = 0, start, time.perf_counter() + 1
        while seen < len(prepared) and time.perf_counter() < deadline:
            arrived = _received(sink) - before
            if arrived > seen:
                seen, last = arrived, time.perf_counter()
    return seen / (last - start)


def _listening(namespace: str) -> bool:
    with namespaces.entered(namespace):
        tables = [Path(f"/proc/thread-self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    return any(f":{IPERF_PORT:04X} " in line and " 0A " in line for table in tables for line in table.splitlines())


def gigabits_per_second(lab: str) -> float:
    """One TCP connection of iperf3, as its receiver counts it."""
    with namespaces.entered(f"{lab}-sink"):
        server = subprocess.Popen(["iperf3", "--server", "--one-off"], stdout=subprocess.DEVNULL)
    try:
        wait_for("iperf3 listens", lambda: _listening(f"{lab}-sink"), seconds=10)
        command = ["iperf3", "--client", "10.2.0.4", "--time", str(TCP_SECONDS), "--json"]
        with namespaces.entered(f"{lab}-source"):
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TCP_SECONDS + 20)
    finally:
        server.terminate()
        server.wait()
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def source_mac(lab: str) -> str:
    """Of the machine that sends."""
    with namespaces.entered(f"{lab}-source"), Netlink() as netlink:
        return next(link.mac for link in netlink.links() if link.name == "eth0")


def side_by_side(made: Mapping[str, dict[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """Thousands of packets per second, and gigabits of TCP, of each document (of the lab ``bench-NAME``): medians.

    All labs are up at once and are measured in turn; a first pass makes the flows known to the NVAs.
    """
    packets: dict[str, list[float]] = {name: [] for name in made}
    gigabits: dict[str, list[float]] = {name: [] for name in made}
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        for name, document in made.items():
            stack.enter_context(commands.lab_up(documents.write(document, Path(directory)), f"bench-{name}"))
        prepared = {name: frames(source_mac(f"bench-{name}")) for name in made}
        for name in made:
            with namespaces.entered(f"bench-{name}-sink"):
                nft.run(SINK)
            packets_per_second(f"bench-{name}", prepared[name])
        for _ in range(ROUNDS):
            for name in made:
                packets[name].append(packets_per_second(f"bench-{name}", prepared[name]))
                gigabits[name].append(gigabits_per_second(f"bench-{name}"))
    rate = {name: median(values) / 1_000 for name, values in packets.items()}
    return rate, {name: median(values) for name, values in gigabits.items()}


def measure() -> list[Figure]:
    """Through the balancer, and by a static route."""
    rate, tcp = side_by_side(
        {path: documents.hub_and_spokes(f"bench-{path}", APPLIANCES, hop) for path, hop in PATHS.items()}
    )
    return [
        Figure("balanced path", rate["balanced"], "kpackets/s"),
        Figure("static route through one NVA", rate["static"], "kpackets/s"),
        Figure("packets, ratio", rate["balanced"] / rate["static"], "", promise=0.9, at_least=True),
        Figure("balanced path, TCP", tcp["balanced"], "Gbit/s"),
        Figure("static route through one NVA, TCP", tcp["static"], "Gbit/s"),
        Figure("TCP, ratio", tcp["balanced"] / tcp["static"], "", promise=0.9, at_least=True),
    ]
