"""Which pairs of machines talk through the balancer: what a verification sends its flows between. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from testbed.plan.compile import INTERNET
from testbed.plan.network import ToRule
from testbed.traffic.flows import Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import NetworkInterface, Plan, Rule
    from testbed.plan.network import Network

    #: By machine: its primary network interface, in one IP version.
    _Ends = dict[str, NetworkInterface]

__all__ = ["balanced_pairs"]


def balanced_pairs(plan: Plan, network: Network) -> tuple[Pair, ...]:
    """All balanced pairs of a lab, in the network's IP version, whose two ends answer on every port (program ``echo``).

    Transit: client and server are machines, and the route between them names a frontend. Addressed: the pool's
    members answer themselves, and the client addresses the frontend.
    """
    ends = {
        machine.name: interface
        for machine in plan.machines
        if machine.program == "echo" and (interface := machine.network_interfaces[0].of_version(network.version))
    }
    clients = {name: interface for name, interface in ends.items() if name != INTERNET}
    return (*_transit(clients, ends, network), *_addressed(plan, clients, network))


def _rule(network: Network, source: NetworkInterface, destination: str) -> Rule | None:
    if not source.subnet:  # the internet machine: nothing of its is balanced
        return None
    view = network.subnet(source.virtual_network, source.subnet)
    target = network.target(view, ip_address(destination))
    return target.rule if isinstance(target, ToRule) else None


def _pair(client: NetworkInterface, name: str, address: str, rule: Rule, *, both: bool) -> Pair:
    return Pair(client.machine, client.namespace, client.address, client.name, name, address, rule.id, both)


def _transit(clients: _Ends, ends: _Ends, network: Network) -> Iterator[Pair]:
    for name, client in clients.items():
        for other, server in ends.items():
            rule = None if other == name else _rule(network, client, server.address)
            if rule and rule.transit:
                both = _rule(network, server, client.address) == rule
                yield _pair(client, other, server.address, rule, both=both)


def _addressed(plan: Plan, clients: _Ends, network: Network) -> Iterator[Pair]:
    answering = {machine.name for machine in plan.machines if machine.program == "echo"}
    for rule in plan.rules:
        members = {member.machine for member in rule.members}
        if rule.version != network.version or rule.transit or not members or not members <= answering:
            continue
        for machine, client in clients.items():
            if machine not in members and _rule(network, client, rule.frontend_address) == rule:
                name = f"{rule.load_balancer}/{rule.frontend}"
                yield _pair(client, name, rule.frontend_address, rule, both=True)
