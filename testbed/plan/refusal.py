"""Why a packet is dropped between two network interfaces though a route leads there. Pure.

The same checks as :mod:`testbed.plan.ruleset.interfaces` writes for the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import NetworkInterface, Rule
    from testbed.plan.network import Network
    from testbed.topology.prefixes import IPAddress

__all__ = ["NOT_FORWARDED", "RECEIVED_FOR_OTHERS", "SENT_FOR_OTHERS", "Refusal", "own_addresses", "refused"]

#: The kernel's sets of who lost packets, or got none: cables (fabric ends) with a counter.
SENT_FOR_OTHERS = "sent_for_others"
RECEIVED_FOR_OTHERS = "received_for_others"
NOT_FORWARDED = "not_forwarded"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why, and where the kernel counts it: a set, and the cable that is its element."""

    reason: str
    counted_in: str
    cable: str


def own_addresses(interface: NetworkInterface, rules: tuple[Rule, ...]) -> Iterator[str]:
    """Its address, and the frontends with floating IP that it answers for itself."""
    yield interface.address
    yield from dict.fromkeys(
        rule.frontend_address
        for rule in rules
        if rule.enable_floating_ip and rule.backend_address_pool in interface.backend_address_pools
    )


def _checked(interface: NetworkInterface) -> bool:
    return bool(interface.subnet) and not interface.enable_ip_forwarding and not interface.on_premises


def refused(
    network: Network,
    rules: tuple[Rule, ...],
    sender: NetworkInterface,
    receiver: NetworkInterface | None,
    source: IPAddress,
    destination: IPAddress,
) -> Refusal | None:
    """Why a packet that one interface sends does not come to another one; None: it does.

    Args:
        network: Where packets go.
        rules: Of the lab.
        sender: Whose route decided.
        receiver: To whom it goes; None: out to the internet.
        source: Of the packet.
        destination: Of the packet, as the receiver sees it.
    """
    if _checked(sender) and str(source) not in own_addresses(sender, rules):
        reason = f"{sender.machine} does not forward: {sender.name} sends from its own address only"
        return Refusal(f"{reason} (enable_ip_forwarding)", SENT_FOR_OTHERS, sender.fabric_name)
    if receiver is None or not receiver.subnet:
        return None
    for closed in network.closed_peerings():
        if (closed.virtual_network, closed.remote) != (receiver.virtual_network, sender.virtual_network):
            continue
        started_there = any(source in prefix for prefix in closed.space)
        if not started_there and not (sender.on_premises and closed.gateway):
            reason = f"{source} did not start in {closed.remote}, and {closed.virtual_network}'s side of the peering"
            return Refusal(f"{reason} does not allow forwarded traffic", NOT_FORWARDED, receiver.fabric_name)
    if _checked(receiver) and str(destination) not in own_addresses(receiver, rules):
        reason = f"{receiver.machine} does not forward: {receiver.name} gets what is for its own address only"
        return Refusal(f"{reason} (enable_ip_forwarding)", RECEIVED_FOR_OTHERS, receiver.fabric_name)
    return None
