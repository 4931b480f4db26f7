"""A network interface with a network security group against one without: packets per second and TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import documents
from bench.figures import Figure
from bench.throughput import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["measure"]

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
    """Without a group, and with one."""
    rate, tcp = side_by_side({name: _document(name, guarded=name == "guarded") for name in NAMES})
    return [
        Figure("no network security group", rate["open"], "kpackets/s"),
        Figure("network security group at the receiver", rate["guarded"], "kpackets/s"),
        Figure("packets, ratio", rate["guarded"] / rate["open"], ""),
        Figure("no network security group, TCP", tcp["open"], "Gbit/s"),
        Figure("network security group at the receiver, TCP", tcp["guarded"], "Gbit/s"),
        Figure("TCP, ratio", tcp["guarded"] / tcp["open"], ""),
    ]
