"""What a network interface may send and get, and what a peering lets in.

Without ``enable_ip_forwarding`` Azure's host checks source and destination: an interface sends from its own address
and gets what is for it ("Enable or disable IP forwarding"); a frontend with floating IP is an own address too. A
peering without ``allow_forwarded_traffic`` lets in what starts in the peer ("Manage a virtual network peering").
Who lost packets is noted in sets with counters, which :mod:`testbed.lab.explain` reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.plan.refusal import NOT_FORWARDED, RECEIVED_FOR_OTHERS, SENT_FOR_OTHERS, own_addresses
from testbed.plan.ruleset.text import block
from testbed.plan.ruleset.versions import neighbours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.network import ClosedPeering
    from testbed.plan.ruleset.context import Fabric

__all__ = ["closed_to", "interfaces"]

_NOTED = 65_535


def interfaces(fabric: Fabric) -> list[str]:
    """The checks, as chains of their own: they cost nothing where they have nothing to check."""
    lines: list[str] = []
    plain = [each for each in fabric.interfaces if not each.enable_ip_forwarding and not each.on_premises]
    if plain:
        cables = ", ".join(f'"{each.fabric_name}"' for each in plain)
        own = ", ".join(
            f'"{each.fabric_name}" . {address}' for each in plain for address in own_addresses(each, fabric.rules)
        )
        lines += [*_noted(SENT_FOR_OTHERS), *_noted(RECEIVED_FOR_OTHERS)]
        sent = [
            "type filter hook prerouting priority raw - 10; policy accept;",
            *(["ip saddr 0.0.0.0 udp dport 67 accept"] if fabric.dhcp else []),
            *neighbours(fabric, "accept"),
            f"iifname {{ {cables} }} iifname . ip saddr != {{ {own} }} update @{SENT_FOR_OTHERS} {{ iifname }} drop",
        ]
        check = f"oifname {{ {cables} }} oifname . ip daddr != {{ {own} }}"
        got = [
            "type filter hook postrouting priority filter; policy accept;",
            *(["udp sport 67 udp dport 68 accept"] if fabric.dhcp else []),
            *neighbours(fabric, "accept"),
            f"{check} update @{RECEIVED_FOR_OTHERS} {{ oifname }} drop",
        ]
        lines += [*block("chain sent_by", sent), *block("chain got_by", got)]
    return [*lines, *_peered(fabric)]


def _noted(name: str) -> list[str]:
    return block(f"set {name}", ["type ifname", f"size {_NOTED}", "flags dynamic", "counter"])


def _peered(fabric: Fabric) -> list[str]:
    """What enters a virtual network by a peering that lets in only what starts in the peer."""
    checks: dict[str, list[str]] = {}
    for closed in fabric.network.closed_peerings():
        if foreign := _foreign(fabric, closed):
            check = f"{foreign} update @{NOT_FORWARDED} {{ oifname }} drop"
            checks.setdefault(closed.virtual_network, []).append(check)
    numbers = {name: number for number, name in enumerate(checks, 1)}
    ways = [
        f'"{each.fabric_name}" : goto into_{numbers[each.virtual_network]}'
        for each in fabric.interfaces
        if each.virtual_network in numbers
    ]
    if not ways:
        return []
    lines = _noted(NOT_FORWARDED)
    for name, number in numbers.items():
        lines += block(f"chain into_{number}", checks[name])
    hook = "type filter hook forward priority filter; policy accept;"
    return [*lines, *block("chain peered", [hook, f"oifname vmap {{ {', '.join(ways)} }}"])]


def closed_to(fabric: Fabric, virtual_network: str) -> Iterator[str]:
    """The same, beforehand, for what the fabric itself sends on (IPVS does): it meets no hook for forwarding."""
    for closed in fabric.network.closed_peerings():
        if closed.virtual_network == virtual_network and (foreign := _foreign(fabric, closed)):
            yield f"{foreign} drop"


def _foreign(fabric: Fabric, closed: ClosedPeering) -> str:
    """The match of what comes from the peer and did not start there; empty when nobody there can send such.

    What forwards can, and the peer's gateway if that is not used.
    """
    cables = ", ".join(
        f'"{each.fabric_name}"'
        for each in fabric.interfaces
        if each.virtual_network == closed.remote
        and (not closed.gateway if each.on_premises else each.enable_ip_forwarding)
    )
    return f"iifname {{ {cables} }} ip saddr != {{ {', '.join(map(str, closed.space))} }}" if cables else ""
