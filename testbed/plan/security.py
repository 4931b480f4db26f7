"""Effective security rules: what a network interface may send and receive, in Azure's terms. Pure.

From "Network security groups overview" and "Service tags overview". A network interface obeys its subnet's group and
its own, if there are any: what comes in meets the subnet's first, what goes out its own first, and both have to
allow a flow. In each the first rule that fits decides, in order of priority; Azure's default rules come last.
Without any group everything may pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from testbed.plan.routes import peers
from testbed.plan.ruleset.context import PROBE_SOURCE
from testbed.topology.security import (
    SecurityRule,
    SecurityRuleAccess,
    SecurityRuleDirection,
    SecurityRuleProtocol,
    ServiceTag,
    address_prefix,
    port_range,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.explain import Hop
    from testbed.plan.model import NetworkInterface, Plan
    from testbed.topology.model import Topology

__all__ = [
    "Addresses",
    "Blocked",
    "EffectiveGroup",
    "EffectiveRule",
    "InterfaceSecurity",
    "Packet",
    "Securities",
    "effective_security",
]

INBOUND, OUTBOUND = SecurityRuleDirection.INBOUND, SecurityRuleDirection.OUTBOUND
_PLATFORM = IPv4Network(PROBE_SOURCE)
_EVERYTHING = IPv4Network("0.0.0.0/0")
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
class Addresses:
    """One side of a rule: ``words`` as the document has them, and the prefixes they stand for.

    ``outside``: it is all but these prefixes that is meant (the tag ``Internet``).
    """

    words: tuple[str, ...]
    prefixes: tuple[IPv4Network, ...]
    outside: bool = False

    @property
    def everything(self) -> bool:
        """Whether every address is meant."""
        return not self.outside and self.prefixes == (_EVERYTHING,)

    @property
    def nothing(self) -> bool:
        """Whether no address is left."""
        return self.outside and self.prefixes == (_EVERYTHING,)

    def __contains__(self, address: IPv4Address) -> bool:
        return any(address in prefix for prefix in self.prefixes) != self.outside


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
        interfaces = tuple(each for machine in plan.machines for each in machine.network_interfaces)
        self.all = effective_security(topology, interfaces)
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
            packet = replace(packet, destination=IPv4Address(hop.receiver.address))  # rewritten before it comes there
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
    found = []
    for each in interfaces:
        if not each.subnet:
            continue
        names = (("nic", own[each.machine, each.name]), ("subnet", subnets[each.subnet_key].network_security_group))
        effective = tuple(
            EffectiveGroup(name, association, tuple(_effective_rules(topology, each, groups[name].security_rules)))
            for association, name in names
            if name
        )
        if effective:
            found.append(InterfaceSecurity(each, effective))
    return tuple(found)


def _effective_rules(
    topology: Topology, interface: NetworkInterface, rules: tuple[SecurityRule, ...]
) -> Iterator[EffectiveRule]:
    inside = virtual_network_tag(topology, interface)
    for rule in sorted(rules, key=lambda each: each.priority):
        yield EffectiveRule(
            rule.name,
            rule.priority,
            rule.direction,
            rule.access.value,
            rule.protocol,
            _addresses(rule.source_address_prefix, rule.source_address_prefixes, inside),
            _ports(rule.source_port_range, rule.source_port_ranges),
            _addresses(rule.destination_address_prefix, rule.destination_address_prefixes, inside),
            _ports(rule.destination_port_range, rule.destination_port_ranges),
        )
    for name, priority, direction, access, source, destination in _DEFAULTS:
        ends = (_addresses(source, (), inside), (), _addresses(destination, (), inside), ())
        yield EffectiveRule(name, priority, direction, access, SecurityRuleProtocol.ANY, *ends)


def virtual_network_tag(topology: Topology, interface: NetworkInterface) -> tuple[IPv4Network, ...]:
    """What ``VirtualNetwork`` stands for in the rules of a network interface.

    Its virtual network, those peered with it, what is known behind a gateway, the platform's address, and the
    prefixes of the user-defined routes of its subnet: a route for 0.0.0.0/0 makes it everything.
    """
    networks = {each.name: each for each in topology.virtual_networks}
    tables = {each.name: each.routes for each in topology.route_tables}
    here = networks[interface.virtual_network]
    subnet = next(each for each in here.subnets if each.name == interface.subnet)
    prefixes = [*here.address_space, _PLATFORM, *_on_premises(topology, here.name)]
    for peer in peers(topology, here.name):
        prefixes += networks[peer].address_space
    prefixes += [route.address_prefix for route in tables.get(subnet.route_table or "", ())]
    return _outermost(prefixes)


def _on_premises(_topology: Topology, _virtual_network: str) -> tuple[IPv4Network, ...]:
    """Prefixes on premises that a virtual network reaches through a gateway. The lab has no gateway."""
    return ()


def _addresses(single: str | None, plural: tuple[str, ...], inside: tuple[IPv4Network, ...]) -> Addresses:
    words = plural or (single or "*",)
    meant = [address_prefix(each) for each in words]
    if meant == [ServiceTag.VIRTUAL_NETWORK]:
        return Addresses(words, inside)
    if meant == [ServiceTag.INTERNET]:
        return Addresses(words, inside, outside=True)
    if meant == [ServiceTag.AZURE_LOAD_BALANCER]:
        return Addresses(words, (_PLATFORM,))
    networks = [each if isinstance(each, IPv4Network) else _EVERYTHING for each in meant]
    return Addresses(words, _outermost(networks))


def _outermost(prefixes: list[IPv4Network]) -> tuple[IPv4Network, ...]:
    """Those that no other one holds, in order: an nftables set takes no overlaps."""
    distinct = dict.fromkeys(prefixes)
    return tuple(each for each in distinct if not any(each != other and each.subnet_of(other) for other in distinct))


def _ports(single: str | None, plural: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Disjoint and sorted; nothing when every port is meant."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(port_range(each) for each in plural or (single or "*",)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return () if merged == [(0, 65535)] else tuple(merged)
