"""Explain a packet's way in a lab that is up, with the member of a live flow."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.balancer.nftables import preference_table, read_eligible
from testbed.balancer.prediction import pair_bucket
from testbed.errors import InputError
from testbed.kernel import conntrack, namespaces, nft
from testbed.plan.compile import network_of
from testbed.plan.explain import Hop, way
from testbed.plan.replacement import BALANCER_TABLES
from testbed.plan.security import Packet, Securities

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv6Address

    from testbed.plan.model import Plan, Rule
    from testbed.plan.refusal import Refusal
    from testbed.plan.security import Blocked
    from testbed.topology.model import Topology

__all__ = ["ExplainedHop", "explain"]

_PROTOCOLS = {"tcp": 6, "udp": 17}


@dataclass(frozen=True, slots=True)
class ExplainedHop:
    """A hop; at a balancer the member that carries the live flow, and those that a new one can get.

    ``blocked``: the security rule that lets no new flow of this kind pass; the way ends there.
    ``predicted``: the one that a new flow gets, where no ports are hashed.
    ``refused``: where the hop drops the packet though a route leads on, how many the kernel has dropped there so far.
    """

    hop: Hop
    member: str | None
    candidates: tuple[str, ...]
    blocked: Blocked | None = None
    predicted: str | None = None
    refused: int | None = None


def explain(
    plan: Plan,
    topology: Topology,
    sender: str,
    destination: IPv4Address | IPv6Address,
    protocol: str,
    source_port: int | None,
    destination_port: int | None,
) -> tuple[ExplainedHop, ...]:
    """The hops of a packet that a machine sends from its primary network interface.

    Raises:
        UnknownLabError: There is no such machine.
        InputError: It has no address of the destination's IP version.
    """
    primary = plan.machine(sender).network_interfaces[0]
    source = primary.of_version(destination.version)
    if source is None:
        problem = f"machine {sender!r} has no IPv6 address"
        raise InputError(problem, fix="add ip_configurations to its primary network interface")
    if not source.subnet:  # the internet: what it sends is delivered to whom it answers
        return ()
    tuple_ = (_PROTOCOLS[protocol], source.address, str(destination), source_port, destination_port)
    with namespaces.entered(plan.fabric):
        network = network_of(topology, plan, destination.version)
        hops = way(plan, network, source, destination, lambda rule: _next(rule, tuple_), protocol, destination_port)
        packet = None
        if isinstance(destination, IPv4Address):  # security groups of a lab know no other
            ends = IPv4Address(source.address), destination
            packet = Packet(_PROTOCOLS[protocol], *ends, source_port, destination_port)
        return tuple(_until_blocked(Securities(topology, plan), hops, packet, tuple_))


def _until_blocked(
    securities: Securities,
    hops: tuple[Hop, ...],
    packet: Packet | None,
    wanted: tuple[int, str, str, int | None, int | None],
) -> Iterator[ExplainedHop]:
    """The hops, up to the one where a network security group drops the packet."""
    for hop in hops:
        blocked = securities.blocked(hop, packet) if packet else None
        yield _explained(hop, wanted, blocked)
        if blocked and blocked.sure:
            return


def _explained(hop: Hop, wanted: tuple[int, str, str, int | None, int | None], blocked: Blocked | None) -> ExplainedHop:
    refused = _dropped(hop.refusal, 6 if ":" in wanted[2] else 4) if hop.refusal else None
    if hop.rule is None:
        return ExplainedHop(hop, None, (), blocked, refused=refused)
    predicted = _name(hop.rule, _predicted(hop.rule, wanted))
    member = _name(hop.rule, _live(hop.rule, wanted))
    return ExplainedHop(hop, member, _candidates(hop.rule), blocked, predicted, refused)


def _dropped(refusal: Refusal, version: int) -> int:
    """Packets of an IP version that the kernel has dropped for this reason, at this cable."""
    said = nft.list_table(f"list set {BALANCER_TABLES[version]} {refusal.counted_in}")
    listed = next(each["set"] for each in said if "set" in each)
    found = [each["elem"] for each in listed.get("elem", ()) if each["elem"]["val"] == refusal.cable]
    return sum(int(each["counter"]["packets"]) for each in found)


def _next(rule: Rule, wanted: tuple[int, str, str, int | None, int | None]) -> int | None:
    """From whom the packet goes on: the live flow's member, the one it would get, or the first that it can get."""
    eligible = read_eligible(rule)
    first = next((member.id for member in rule.members if member.id in eligible), None)
    return _live(rule, wanted) or _predicted(rule, wanted) or first


def _predicted(rule: Rule, wanted: tuple[int, str, str, int | None, int | None]) -> int | None:
    """The member that a new flow gets, if its hash can be known; None also when nobody is eligible."""
    bucket = pair_bucket(rule, *wanted[:3])
    return None if bucket is None else int(preference_table(rule).owners(read_eligible(rule))[bucket]) or None


def _name(rule: Rule, chosen: int | None) -> str | None:
    return next((member.machine for member in rule.members if member.id == chosen), None)


def _live(rule: Rule, wanted: tuple[int, str, str, int | None, int | None]) -> int | None:
    protocol, source, destination, source_port, destination_port = wanted
    if source_port is None or destination_port is None:
        return None
    back = (protocol, destination, source, destination_port, source_port)
    for entry in conntrack.entries():
        found = (entry.protocol, entry.source, entry.destination, entry.source_port, entry.destination_port)
        if entry.zone == rule.id and found in (wanted, back):
            return entry.mark
    return None


def _candidates(rule: Rule) -> tuple[str, ...]:
    eligible = read_eligible(rule)
    return tuple(member.machine for member in rule.members if member.id in eligible)
