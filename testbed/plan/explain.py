"""One packet's way through the lab, hop by hop, from the effective routes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from testbed.plan.network import Drop, ToInternet, ToNetworkInterface, ToRule
from testbed.plan.refusal import Refusal, refused
from testbed.plan.routes import EffectiveRoute, winner

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.plan.model import NetworkInterface, Plan, Rule
    from testbed.plan.network import Network, Target
    from testbed.topology.prefixes import IPAddress

__all__ = ["Hop", "loops", "way"]

_MOST_HOPS = 8


@dataclass(frozen=True, slots=True)
class Hop:
    """A network interface sends the packet: which route decides, which ones lose, where it goes.

    ``kind``: ``delivered``, ``appliance`` (a NIC that is to forward it), ``balancer``, ``internet``, ``on-premises``,
    ``dropped``. ``receiver``: the network interface it comes to, if it is known. ``refusal``: what drops it although a
    route leads on.
    """

    sender: str
    sender_address: str
    route: EffectiveRoute | None
    losers: tuple[EffectiveRoute, ...]
    kind: str
    detail: str
    rule: Rule | None = None
    loop: bool = False
    receiver: NetworkInterface | None = None
    refusal: Refusal | None = None


def way(
    plan: Plan,
    network: Network,
    source: NetworkInterface,
    destination: IPAddress,
    choose: Callable[[Rule], int | None] = lambda _rule: None,
    protocol: str = "tcp",
    port: int | None = None,
) -> tuple[Hop, ...]:
    """The hops of a packet.

    ``choose`` gives the member (its id) that a balancer has chosen; None: the packet goes on from the first one.
    ``protocol`` and ``port`` (the destination's; None: any other than those of rules) choose between rules.
    """
    hops: list[Hop] = []
    sender: NetworkInterface | None = source
    seen: set[tuple[str, str]] = set()
    while sender is not None and len(hops) < _MOST_HOPS:
        loop = (sender.virtual_network, sender.subnet) in seen
        seen.add((sender.virtual_network, sender.subnet))
        hop, receiver, following = _hop(network, sender, destination, (protocol, port), loop=loop)
        at = destination
        if rule := hop.rule:
            receiver = _member(plan, rule, choose(rule))
            if str(destination) != rule.frontend_address:
                following = receiver if receiver and receiver.address != str(destination) else None
            elif receiver and not rule.enable_floating_ip:  # the member answers itself
                at = ip_address(receiver.address)
        if hop.kind != "dropped" and (
            refusal := refused(network, plan.rules, sender, receiver, ip_address(source.address), at)
        ):
            hop, following = replace(hop, refusal=refusal), None
        hop = replace(hop, receiver=receiver)
        hops.append(hop)
        if loop and following is not None:
            break
        sender = following
    return tuple(hops)


def loops(hops: tuple[Hop, ...]) -> Hop | None:
    """The hop at which a packet has come back to a subnet that it left before, and goes round until its TTL ends."""
    last = hops[-1] if hops else None
    return last if last and last.loop and last.kind in ("appliance", "balancer") and not last.refusal else None


def _hop(
    network: Network,
    sender: NetworkInterface,
    destination: IPAddress,
    service: tuple[str, int | None],
    *,
    loop: bool,
) -> tuple[Hop, NetworkInterface | None, NetworkInterface | None]:
    """The hop, who gets the packet, and who sends it on."""
    view = network.subnet(sender.virtual_network, sender.subnet)
    route = winner(view.routes, destination)
    losers = tuple(each for each in view.routes if each is not route and destination in each.address_prefix)
    target = network.follow(view, route, destination)
    kind, detail, following = _describe(target, destination, service)
    rule = target.rule(*service) if isinstance(target, ToRule) else None
    receiver = target.network_interface if isinstance(target, ToNetworkInterface) else None
    return Hop(sender.machine, sender.address, route, losers, kind, detail, rule, loop), receiver, following


def _arrival(interface: NetworkInterface, destination: IPAddress) -> tuple[str, str, NetworkInterface | None]:
    to = f"to {interface.machine} ({interface.address})"
    if interface.on_premises:
        return "on-premises", f"{to}, behind the gateway in {interface.virtual_network}", None
    if interface.address == str(destination):
        return "delivered", to, None
    return "appliance", f"{to}, which forwards it", interface


def _describe(
    target: Target, destination: IPAddress, service: tuple[str, int | None]
) -> tuple[str, str, NetworkInterface | None]:
    match target:
        case ToNetworkInterface(interface):
            return _arrival(interface, destination)
        case ToRule():
            return (*_describe_frontend(target, destination, service), None)
        case ToInternet():
            return "internet", "leaves the trusted space", None
        case Drop(reason):
            return "dropped", reason, None


def _describe_frontend(target: ToRule, destination: IPAddress, service: tuple[str, int | None]) -> tuple[str, str]:
    first, rule = target.rules[0], target.rule(*service)
    frontend = f"{first.load_balancer}/{first.frontend} ({first.frontend_address})"
    if rule is None:
        covered = ", ".join(f"{each.protocol.lower()} {each.frontend_port}" for each in target.rules)
        asked = service[0] if service[1] is None else f"{service[0]} port {service[1]}"
        return "dropped", f"frontend {frontend} has no rule for {asked}, only for {covered}"
    if str(destination) != rule.frontend_address:
        return "balancer", f"frontend {frontend}, rule {rule.name}: in transit"
    how = "unchanged" if rule.enable_floating_ip else "rewritten to the member's address"
    how += f" and port {rule.rewritten_port}" if rule.rewritten_port else ""
    return "balancer", f"frontend {frontend}, rule {rule.name}: destination {how}"


def _member(plan: Plan, rule: Rule, chosen: int | None) -> NetworkInterface | None:
    ids = [chosen] if chosen else [member.id for member in rule.members]
    interfaces = {each.member_id: each for interface in plan.interfaces for each in interface.versions}
    return interfaces.get(ids[0]) if ids else None
