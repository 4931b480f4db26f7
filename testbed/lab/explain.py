"""Explain a packet's way in a lab that is up, with the member of a live flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.balancer.nftables import read_eligible
from testbed.kernel import conntrack, namespaces
from testbed.plan.compile import network_of
from testbed.plan.explain import Hop, way

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from testbed.plan.model import Plan, Rule
    from testbed.topology.model import Topology

__all__ = ["ExplainedHop", "explain"]

_PROTOCOLS = {"tcp": 6, "udp": 17}


@dataclass(frozen=True, slots=True)
class ExplainedHop:
    """A hop; at a balancer the member that carries the live flow, and those that a new one can get."""

    hop: Hop
    member: str | None
    candidates: tuple[str, ...]


def explain(
    plan: Plan,
    topology: Topology,
    sender: str,
    destination: IPv4Address,
    protocol: str,
    source_port: int | None,
    destination_port: int | None,
) -> tuple[ExplainedHop, ...]:
    """The hops of a packet that a machine sends from its primary network interface.

    Raises:
        UnknownLabError: There is no such machine.
    """
    source = plan.machine(sender).network_interfaces[0]
    if not source.subnet:  # the internet: what it sends is delivered to whom it answers
        return ()
    tuple_ = (_PROTOCOLS[protocol], source.address, str(destination), source_port, destination_port)
    hops = way(plan, network_of(topology, plan), source, destination)
    with namespaces.entered(plan.fabric):
        return tuple(
            ExplainedHop(hop, _live(hop.rule, tuple_), _candidates(hop.rule))
            if hop.rule
            else ExplainedHop(hop, None, ())
            for hop in hops
        )


def _live(rule: Rule, wanted: tuple[int, str, str, int | None, int | None]) -> str | None:
    protocol, source, destination, source_port, destination_port = wanted
    if source_port is None or destination_port is None:
        return None
    back = (protocol, destination, source, destination_port, source_port)
    names = {member.id: member.machine for member in rule.members}
    for entry in conntrack.entries():
        found = (entry.protocol, entry.source, entry.destination, entry.source_port, entry.destination_port)
        if entry.zone == rule.id and found in (wanted, back):
            return names.get(entry.mark)
    return None


def _candidates(rule: Rule) -> tuple[str, ...]:
    eligible = read_eligible(rule.id)
    return tuple(member.machine for member in rule.members if member.id in eligible)
