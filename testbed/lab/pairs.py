"""Which pairs of machines talk through the balancer: what a verification sends its flows between. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.plan.compile import INTERNET
from testbed.plan.network import ToRule
from testbed.traffic.flows import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import Machine, NetworkInterface, Plan, Rule
    from testbed.plan.network import Network

__all__ = ["balanced_pairs"]


def balanced_pairs(plan: Plan, network: Network) -> tuple[Pair, ...]:
    """All pairs of a lab that an HA Ports rule balances and whose two ends answer on every port (program ``echo``).

    Transit: client and server are machines, and the route between them names a frontend. Addressed: the pool's
    members answer themselves, and the client addresses the frontend.
    """
    ends = tuple(machine for machine in plan.machines if machine.program == "echo")
    clients = tuple(machine for machine in ends if machine.name != INTERNET)
    return (*_transit(plan, clients, ends, network), *_addressed(plan, clients, network))


def _rule(network: Network, source: NetworkInterface, destination: str) -> Rule | None:
    if not source.subnet:  # the internet machine: nothing of its is balanced
        return None
    view = network.subnet(source.virtual_network, source.subnet)
    target = network.target(view, IPv4Address(destination))
    return target.rule("all", None) if isinstance(target, ToRule) else None


def _pair(plan: Plan, client: NetworkInterface, name: str, address: str, rule: Rule, *, both: bool) -> Pair:
    """A pair whose flows leave out the ports that other rules of the frontend have."""
    ports = {each.frontend_port for each in plan.rules if each.frontend_address == rule.frontend_address}
    others = frozenset(ports - {0})
    return Pair(client.machine, client.namespace, client.address, client.name, name, address, rule.id, both, others)


def _transit(plan: Plan, clients: tuple[Machine, ...], ends: tuple[Machine, ...], network: Network) -> Iterator[Pair]:
    for machine in clients:
        client = machine.network_interfaces[0]
        for other in ends:
            server = other.network_interfaces[0]
            rule = None if other is machine else _rule(network, client, server.address)
            if rule and rule.transit:
                both = _rule(network, server, client.address) == rule
                yield _pair(plan, client, other.name, server.address, rule, both=both)


def _addressed(plan: Plan, clients: tuple[Machine, ...], network: Network) -> Iterator[Pair]:
    answering = {machine.name for machine in plan.machines if machine.program == "echo"}
    for rule in plan.rules:
        members = {member.machine for member in rule.members}
        if rule.transit or not members or not members <= answering:
            continue
        for machine in clients:
            client = machine.network_interfaces[0]
            if machine.name not in members and _rule(network, client, rule.frontend_address) == rule:
                name = f"{rule.load_balancer}/{rule.frontend}"
                yield _pair(plan, client, name, rule.frontend_address, rule, both=True)
