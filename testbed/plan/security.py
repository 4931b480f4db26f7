"""Effective security rules: what a network interface may send and receive, in Azure's terms. Pure.

From "Network security groups overview" and "Service tags overview". A network interface obeys its subnet's group and
its own, if there are any: what comes in meets the subnet's first, what goes out its own first, and both have to
allow a flow. In each the first rule that fits decides, in order of priority; Azure's default rules come last.
Without any group everything may pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.plan.service_tags import Addresses, addresses, virtual_network_tag
from testbed.topology.peering import Connections
from testbed.topology.security import (
    SecurityRule,
    SecurityRuleAccess,
    SecurityRuleDirection,
    SecurityRuleProtocol,
    port_range,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network

    from testbed.plan.explain import Hop
    from testbed.plan.model import NetworkInterface, Plan
    from testbed.topology.model import Topology

__all__ = [
    "Blocked",
    "EffectiveGroup",
    "EffectiveRule",
    "InterfaceSecurity",
    "Packet",
    "Securities",
    "effective_security",
]

INBOUND, OUTBOUND = SecurityRuleDirection.INBOUND, SecurityRuleDirection.OUTBOUND
#: Azure's default rules: name, priority, direction, access, source, destination.
_DEFAULTS = (
    ("AllowVnetInBound", 65000, INBOUND, "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowAzureLoadBalancerInBound", 65001, INBOUND, "Allow", "AzureLoadBalancer", "*"),
    ("DenyAllInBound", 65500, INBOUND, "Deny", "*", "*"),
    ("AllowVnetOutBound", 65000, OUTBOUND, "Allow", "VirtualNetwork", "VirtualNetwork"),
    ("AllowInternetOutBound", 65001, OUTBOUND, "Allow", "*", "Internet"),
    ("DenyAllOutBound", 65500, OUTBOUND, "Deny", "*", "*"),
)


@dataclass(frozen=True, slots=True)
class Packet:
    """What a rule looks at; ``protocol`` is its IP number, a port that is not known is ``None``."""

    protocol: int
    source: IPv4Address
    destination: IPv4Address
    source_port: int | None = None
    destination_port: int | None = None


@dataclass(frozen=True, slots=True)
class EffectiveRule:
    """A rule with its service tags resolved for one subnet. ``ports``: (first, last) pairs; none: every port."""

    name: str
    priority: int
    direction: SecurityRuleDirection
    access: str
    protocol: SecurityRuleProtocol
    source: Addresses
    source_ports: tuple[tuple[int, int], ...]
    destination: Addresses
    destination_ports: tuple[tuple[int, int], ...]

    @property
    def allows(self) -> bool:
        """Whether flows that fit may pass."""
        return self.access == SecurityRuleAccess.ALLOW

    def fits(self, packet: Packet) -> bool | None:
        """Whether the rule decides this packet; ``None``: that depends on a port which is not known."""
        numbers = {SecurityRuleProtocol.ANY: packet.protocol, **_NUMBERS}
        if numbers[self.protocol] != packet.protocol:
            return False
        if packet.source not in self.source or packet.destination not in self.destination:
            return False
        known: bool | None = True
        for ports, port in (
            (self.source_ports, packet.source_port),
            (self.destination_ports, packet.destination_port),
        ):
            if not ports:
                continue
            if packet.protocol not in (_NUMBERS[SecurityRuleProtocol.TCP], _NUMBERS[SecurityRuleProtocol.UDP]):
                return False
            if port is None:
                known = None
            elif not any(first <= port <= last for first, last in ports):
                return False
        return known


_NUMBERS = {
    SecurityRuleProtocol.ICMP: 1,
    SecurityRuleProtocol.TCP: 6,
    SecurityRuleProtocol.UDP: 17,
    SecurityRuleProtocol.ESP: 50,
    SecurityRuleProtocol.AH: 51,
}


@dataclass(frozen=True, slots=True)
class EffectiveGroup:
    """A network security group as one network interface meets it. ``association``: ``nic`` or ``subnet``."""

    name: str
    association: str
    rules: tuple[EffectiveRule, ...]

    def rules_of(self, direction: SecurityRuleDirection) -> tuple[EffectiveRule, ...]:
        """The rules of a direction, in order of priority."""
        return tuple(each for each in self.rules if each.direction == direction)


@dataclass(frozen=True, slots=True)
class InterfaceSecurity:
    """The groups of one network interface: its own first, then its subnet's."""

    interface: NetworkInterface
    groups: tuple[EffectiveGroup, ...]

    def groups_of(self, direction: SecurityRuleDirection) -> tuple[EffectiveGroup, ...]:
        """The groups in the order in which a packet of this direction meets them."""
        return self.groups if direction == OUTBOUND else self.groups[::-1]

    def verdict(self, direction: SecurityRuleDirection, packet: Packet) -> Blocked | None:
        """What keeps a new flow from passing, or whose ports have to be known to tell; ``None``: it passes."""
        for group in self.groups_of(direction):
            for rule in group.rules_of(direction):
                fits = rule.fits(packet)
                if fits is None or (fits and not rule.allows):
                    return Blocked(self.interface, direction, group, rule, sure=fits is not None)
                if fits:
                    break
        return None


@dataclass(frozen=True, slots=True)
class Blocked:
    """A rule that keeps a new flow from passing; not ``sure``: that depends on ports which are not known."""

    interface: NetworkInterface
    direction: SecurityRuleDirection
    group: EffectiveGroup
    rule: EffectiveRule
    sure: bool

    def why(self) -> str:
        """In a line, for people."""
        where = f"{self.direction.value} at {self.interface.machine} ({self.interface.address})"
        of = "its subnet's" if self.group.association == "subnet" else "its own"
        rule = f"rule {self.rule.name!r} ({self.rule.priority}) of {of} network security group {self.group.name!r}"
        return f"DENIED: {where}, {rule}" if self.sure else f"perhaps denied: {where}, {rule}: give the ports"

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "machine": self.interface.machine,
            "network_interface": self.interface.name,
            "direction": self.direction.value,
            "association": self.group.association,
            "network_security_group": self.group.name,
            "security_rule": self.rule.name,
            "priority": self.rule.priority,
            "sure": self.sure,
        }


class Securities:
    """What all network interfaces of a lab obey."""

    def __init__(self, topology: Topology, plan: Plan) -> None:
        self.all = effective_security(topology, plan.interfaces)
        self._by_place = {(each.interface.machine, each.interface.address): each for each in self.all}

    def of(self, machine: str, address: str) -> InterfaceSecurity | None:
        """What a network interface obeys; ``None``: it has no network security group."""
        return self._by_place.get((machine, address))

    def blocked(self, hop: Hop, packet: Packet) -> Blocked | None:
        """What keeps a new flow from making a hop, at the sender or at the receiver."""
        sender = self.of(hop.sender, hop.sender_address)
        if sender and (found := sender.verdict(OUTBOUND, packet)):
            return found
        there = hop.receiver and self.of(hop.receiver.machine, hop.receiver.address)
        if not (there and hop.receiver):
            return None
        rule = hop.rule
        if rule and not rule.enable_floating_ip and str(packet.destination) == rule.frontend_address:
            port = rule.rewritten_port or packet.destination_port
            here = IPv4Address(hop.receiver.address)
            packet = replace(packet, destination=here, destination_port=port)  # rewritten before it comes there
        return there.verdict(INBOUND, packet)


def effective_security(topology: Topology, interfaces: tuple[NetworkInterface, ...]) -> tuple[InterfaceSecurity, ...]:
    """What each network interface with a network security group obeys."""
    groups = {each.name: each for each in topology.network_security_groups}
    subnets = {f"{net.name}/{subnet.name}": subnet for net in topology.virtual_networks for subnet in net.subnets}
    own = {
        (machine.name, f"eth{i}"): each.network_security_group
        for machine in topology.machines
        for i, each in enumerate(machine.network_interfaces)
    }
    connections = Connections(topology)
    found = []
    for each in interfaces:
        if not each.subnet or each.on_premises:
            continue
        names = (("nic", own[each.machine, each.name]), ("subnet", subnets[each.subnet_key].network_security_group))
        if not any(name for _, name in names):
            continue
        inside = virtual_network_tag(topology, connections, each)
        effective = tuple(
            EffectiveGroup(name, association, tuple(_effective_rules(inside, groups[name].security_rules)))
            for association, name in names
            if name
        )
        found.append(InterfaceSecurity(each, effective))
    return tuple(found)


def _effective_rules(inside: tuple[IPv4Network, ...], rules: tuple[SecurityRule, ...]) -> Iterator[EffectiveRule]:
    """Those of a group and Azure's own; ``inside`` is what ``VirtualNetwork`` stands for."""
    for rule in sorted(rules, key=lambda each: each.priority):
        yield EffectiveRule(
            rule.name,
            rule.priority,
            rule.direction,
            rule.access.value,
            rule.protocol,
            addresses(rule.source_address_prefix, rule.source_address_prefixes, inside),
            _ports(rule.source_port_range, rule.source_port_ranges),
            addresses(rule.destination_address_prefix, rule.destination_address_prefixes, inside),
            _ports(rule.destination_port_range, rule.destination_port_ranges),
        )
    for name, priority, direction, access, source, destination in _DEFAULTS:
        ends = (addresses(source, (), inside), (), addresses(destination, (), inside), ())
        yield EffectiveRule(name, priority, direction, access, SecurityRuleProtocol.ANY, *ends)


def _ports(single: str | None, plural: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Disjoint and sorted; nothing when every port is meant."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(port_range(each) for each in plural or (single or "*",)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return () if merged == [(0, 65535)] else tuple(merged)
