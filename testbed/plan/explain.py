"""One packet's way through the lab, hop by hop, from the effective routes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.plan.network import Drop, ToInternet, ToNetworkInterface, ToRule
from testbed.plan.routes import EffectiveRoute, winner

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from testbed.plan.model import NetworkInterface, Plan, Rule
    from testbed.plan.network import Network, Target

__all__ = ["Hop", "way"]

_MOST_HOPS = 8


@dataclass(frozen=True, slots=True)
class Hop:
    """A network interface sends the packet: which route decides, which ones lose, where it goes.

    ``kind``: ``delivered``, ``appliance`` (a NIC that is to forward it), ``balancer``, ``internet``, ``dropped``.
    """

    sender: str
    sender_address: str
    route: EffectiveRoute | None
    losers: tuple[EffectiveRoute, ...]
    kind: str
    detail: str
    rule: Rule | None = None
    loop: bool = False


def way(plan: Plan, network: Network, source: NetworkInterface, destination: IPv4Address) -> tuple[Hop, ...]:
    """The hops of a packet. Behind a balancer it goes on from the first member; all members share a subnet."""
    hops: list[Hop] = []
    sender: NetworkInterface | None = source
    seen: set[tuple[str, str]] = set()
    while sender is not None and len(hops) < _MOST_HOPS:
        loop = (sender.virtual_network, sender.subnet) in seen
        seen.add((sender.virtual_network, sender.subnet))
        hop, sender = _hop(plan, network, sender, destination, loop=loop)
        hops.append(hop)
        if loop and sender is not None:
            break
    return tuple(hops)


def _hop(
    plan: Plan, network: Network, sender: NetworkInterface, destination: IPv4Address, *, loop: bool
) -> tuple[Hop, NetworkInterface | None]:
    view = network.subnet(sender.virtual_network, sender.subnet)
    route = winner(view.routes, destination)
    losers = tuple(each for each in view.routes if each is not route and destination in each.address_prefix)
    target = network.follow(view, route, destination)
    kind, detail, following = _describe(plan, target, destination)
    rule = target.rule if isinstance(target, ToRule) else None
    return Hop(sender.machine, sender.address, route, losers, kind, detail, rule, loop), following


def _describe(plan: Plan, target: Target, destination: IPv4Address) -> tuple[str, str, NetworkInterface | None]:
    match target:
        case ToNetworkInterface(interface) if interface.address == str(destination):
            return "delivered", f"to {interface.machine} ({interface.address})", None
        case ToNetworkInterface(interface):
            return "appliance", f"to {interface.machine} ({interface.address}), which forwards it", interface
        case ToRule(rule):
            frontend = f"{rule.load_balancer}/{rule.frontend} ({rule.frontend_address})"
            if str(destination) == rule.frontend_address:
                how = "unchanged" if rule.enable_floating_ip else "rewritten to the member's address"
                return "balancer", f"frontend {frontend}, rule {rule.name}: destination {how}", None
            return "balancer", f"frontend {frontend}, rule {rule.name}: in transit", _first_member(plan, rule)
        case ToInternet():
            return "internet", "leaves the trusted space", None
        case Drop(reason):
            return "dropped", reason, None


def _first_member(plan: Plan, rule: Rule) -> NetworkInterface | None:
    ids = [member.id for member in rule.members]
    for machine in plan.machines:
        for each in machine.network_interfaces:
            if ids and each.member_id == ids[0]:
                return each
    return None
