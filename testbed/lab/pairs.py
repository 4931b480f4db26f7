"""Which pairs of machines talk through the balancer: what a verification sends its flows between. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from testbed.plan.compile import INTERNET
from testbed.plan.explain import loops, way
from testbed.plan.network import ToRule
from testbed.traffic.flows import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.explain import Hop
    from testbed.plan.model import NetworkInterface, Plan, Rule
    from testbed.plan.network import Network

    #: By machine: its primary network interface, in one IP version.
    _Ends = dict[str, NetworkInterface]

__all__ = ["balanced_pairs", "looping_pairs"]


def balanced_pairs(plan: Plan, network: Network) -> tuple[Pair, ...]:
    """All pairs of a lab that an HA Ports rule balances and whose two ends answer on every port (program ``echo``).

    In the network's IP version.

    Transit: client and server are machines, and the way between them crosses a balancer; when it crosses several,
    there is a pair for each. Addressed: the pool's members answer themselves, and the client addresses the frontend.
    """
    clients = {name: each for name, each in _ends(plan, network).items() if name != INTERNET}
    return (*_transit(plan, network), *_addressed(plan, clients, network))


def looping_pairs(plan: Plan, network: Network) -> tuple[str, ...]:
    """Sentences on the pairs whose packets go round until their TTL ends."""
    return tuple(
        f"what {client.machine} sends to {name} goes round: {hop.sender} sends it back to where it came from"
        for client, name, hops in _ways(plan, network)
        if (hop := loops(hops))
    )


def _ends(plan: Plan, network: Network) -> _Ends:
    return {
        machine.name: interface
        for machine in plan.machines
        if machine.program == "echo" and (interface := machine.network_interfaces[0].of_version(network.version))
    }


def _ways(plan: Plan, network: Network) -> Iterator[tuple[NetworkInterface, str, tuple[Hop, ...]]]:
    """From each machine inside to each other one: the sender, the other's name, the hops."""
    ends = _ends(plan, network)
    for machine, client in ends.items():
        for other, server in ends.items() if client.subnet else ():  # of the internet's nothing is routed
            if other != machine:
                yield client, other, way(plan, network, client, ip_address(server.address))


def _rule(network: Network, source: NetworkInterface, destination: str) -> Rule | None:
    if not source.subnet:  # the internet machine: nothing of its is balanced
        return None
    view = network.subnet(source.virtual_network, source.subnet)
    target = network.target(view, ip_address(destination))
    return target.rule("all", None) if isinstance(target, ToRule) else None


def _pair(
    plan: Plan, client: NetworkInterface, name: str, address: str, rule: Rule, *, both: bool, answers: int = 0
) -> Pair:
    """A pair whose flows leave out the ports that other rules of the frontend have."""
    ports = {each.frontend_port for each in plan.rules if each.frontend_address == rule.frontend_address}
    others = frozenset(ports - {0})
    ends = (client.machine, client.namespace, client.address, client.name, name, address)
    return Pair(*ends, rule.id, both, others, answers)


def _transit(plan: Plan, network: Network) -> Iterator[Pair]:
    crossed = {
        (client.machine, name): tuple(dict.fromkeys(hop.rule for hop in hops if hop.rule and hop.rule.transit))
        for client, name, hops in _ways(plan, network)
    }
    ends = _ends(plan, network)
    for (name, other), rules in crossed.items():
        for rule in rules:
            back = crossed.get((other, name), ())
            answers = 0 if rule in back else next((each.id for each in back if each not in rules), 0)
            yield _pair(plan, ends[name], other, ends[other].address, rule, both=rule in back, answers=answers)


def _addressed(plan: Plan, clients: _Ends, network: Network) -> Iterator[Pair]:
    answering = {machine.name for machine in plan.machines if machine.program == "echo"}
    for rule in plan.rules:
        members = {member.machine for member in rule.members}
        if rule.version != network.version or rule.transit or not members or not members <= answering:
            continue
        for machine, client in clients.items():
            if machine not in members and _rule(network, client, rule.frontend_address) == rule:
                name = f"{rule.load_balancer}/{rule.frontend}"
                yield _pair(plan, client, name, rule.frontend_address, rule, both=True)
