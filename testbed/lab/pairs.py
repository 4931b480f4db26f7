"""Which pairs of machines talk through the balancer: what a verification sends its flows between. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.plan.compile import INTERNET
from testbed.plan.explain import loops, way
from testbed.plan.network import ToRule
from testbed.traffic.flows import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.explain import Hop
    from testbed.plan.model import Machine, NetworkInterface, Plan, Rule
    from testbed.plan.network import Network

__all__ = ["balanced_pairs", "looping_pairs"]


def balanced_pairs(plan: Plan, network: Network) -> tuple[Pair, ...]:
    """All pairs of a lab that an HA Ports rule balances and whose two ends answer on every port (program ``echo``).

    Transit: client and server are machines, and the way between them crosses a balancer; when it crosses several,
    there is a pair for each. Addressed: the pool's members answer themselves, and the client addresses the frontend.
    """
    clients = tuple(machine for machine in _ends(plan) if machine.name != INTERNET)
    return (*_transit(plan, network), *_addressed(plan, clients, network))


def looping_pairs(plan: Plan, network: Network) -> tuple[str, ...]:
    """Sentences on the pairs whose packets go round until their TTL ends."""
    return tuple(
        f"what {client.machine} sends to {name} goes round: {hop.sender} sends it back to where it came from"
        for client, name, hops in _ways(plan, network)
        if (hop := loops(hops))
    )


def _ends(plan: Plan) -> tuple[Machine, ...]:
    return tuple(machine for machine in plan.machines if machine.program == "echo")


def _ways(plan: Plan, network: Network) -> Iterator[tuple[NetworkInterface, str, tuple[Hop, ...]]]:
    """From each machine inside to each other one: the sender, the other's name, the hops."""
    for machine in _ends(plan):
        client = machine.network_interfaces[0]
        for other in _ends(plan) if client.subnet else ():  # of the internet's nothing is routed
            if other is not machine:
                yield client, other.name, way(plan, network, client, IPv4Address(other.network_interfaces[0].address))


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


def _transit(plan: Plan, network: Network) -> Iterator[Pair]:
    crossed = {
        (client.machine, name): tuple(dict.fromkeys(hop.rule for hop in hops if hop.rule and hop.rule.transit))
        for client, name, hops in _ways(plan, network)
    }
    for (name, other), rules in crossed.items():
        client, server = (plan.machine(each).network_interfaces[0] for each in (name, other))
        for rule in rules:
            both = rule in crossed.get((other, name), ())
            yield _pair(plan, client, other, server.address, rule, both=both)


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
