"""A network interface with a network security group against one without: packets per second and TCP."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import commands, documents
from bench.figures import Figure, median
from bench.throughput import SINK, frames, gigabits_per_second, packets_per_second, source_mac
from testbed.kernel import namespaces, nft

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["measure"]

ROUNDS = 5
NAMES = ("open", "guarded")


def _document(name: str, *, guarded: bool) -> dict[str, Any]:
    """Spokes behind a static route through one NVA; the receiving machine has a group with ten rules of its own."""
    document = documents.hub_and_spokes(f"bench-{name}", 1, "10.0.1.4")
    if guarded:
        rules = [
            {
                "name": f"deny-{number}",
                "priority": 100 + number,
                "direction": "Inbound",
                "access": "Deny",
                "protocol": "Tcp",
                "destination_port_range": str(number),
            }
            for number in range(1, 11)
        ]
        document["network_security_groups"] = [{"name": "guard", "security_rules": rules}]
        document["machines"][-1]["network_interfaces"][0]["network_security_group"] = "guard"
    return document


def measure() -> Iterable[Figure]:
    """Both labs are up at once and are measured in turn; a first pass makes the flows known."""
    packets: dict[str, list[float]] = {name: [] for name in NAMES}
    gigabits: dict[str, list[float]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as directory:
        files = {name: documents.write(_document(name, guarded=name == "guarded"), Path(directory)) for name in NAMES}
        with commands.lab_up(files["open"], "bench-open"), commands.lab_up(files["guarded"], "bench-guarded"):
            prepared = {name: frames(source_mac(f"bench-{name}")) for name in NAMES}
            for name in NAMES:
                with namespaces.entered(f"bench-{name}-sink"):
                    nft.run(SINK)
                packets_per_second(f"bench-{name}", prepared[name])
            for _ in range(ROUNDS):
                for name in NAMES:
                    packets[name].append(packets_per_second(f"bench-{name}", prepared[name]))
                    gigabits[name].append(gigabits_per_second(f"bench-{name}"))
    rate = {name: median(values) / 1_000 for name, values in packets.items()}
    tcp = {name: median(values) for name, values in gigabits.items()}
    return [
        Figure("no network security group", rate["open"], "kpackets/s"),
        Figure("network security group at the receiver", rate["guarded"], "kpackets/s"),
        Figure("packets, ratio", rate["guarded"] / rate["open"], ""),
        Figure("no network security group, TCP", tcp["open"], "Gbit/s"),
        Figure("network security group at the receiver, TCP", tcp["guarded"], "Gbit/s"),
        Figure("TCP, ratio", tcp["guarded"] / tcp["open"], ""),
    ]
