"""The lab as the fabric sees it: where each effective route of each subnet really leads."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from testbed.plan.routes import EffectiveRoute, effective_routes, peers, winner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import NetworkInterface, Rule
    from testbed.topology.model import Topology

__all__ = [
    "Drop",
    "Interval",
    "Network",
    "SubnetView",
    "Target",
    "ToInternet",
    "ToNetworkInterface",
    "ToRule",
]

_ADDRESS: dict[int, type[IPv4Address | IPv6Address]] = {4: IPv4Address, 6: IPv6Address}
_NO_INTERNET = {4: "the lab has no internet", 6: "the lab's internet is IPv4 only"}


@dataclass(frozen=True, slots=True)
class ToNetworkInterface:
    """Delivered to a network interface, whatever its destination address is."""

    network_interface: NetworkInterface


@dataclass(frozen=True, slots=True)
class ToRule:
    """Handed to the balancer."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class ToInternet:
    """Leaves the trusted space."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Goes nowhere, and nobody is told."""

    reason: str


Target = ToNetworkInterface | ToRule | ToInternet | Drop


@dataclass(frozen=True, slots=True)
class Interval:
    """Destinations ``first`` to ``last`` (both included) that share a fate other than plain routing."""

    first: IPv4Address | IPv6Address
    last: IPv4Address | IPv6Address
    target: ToRule | ToInternet


@dataclass(frozen=True, slots=True)
class SubnetView:
    """One subnet: its number, its interfaces, and its effective routes."""

    number: int
    virtual_network: str
    name: str
    address_prefix: str
    routes: tuple[EffectiveRoute, ...]

    @property
    def key(self) -> str:
        """``virtual_network/subnet``."""
        return f"{self.virtual_network}/{self.name}"


class Network:
    """Answers where packets of one IP version go; pure, made from the document and the numbered interfaces and rules.

    Args:
        topology: The document.
        interfaces: The network interfaces with an address of that version, and that address.
        rules: With a frontend of that version.
        subnet_numbers: By ``virtual_network/subnet``.
        version: 4 or 6. The subnets are those with a prefix of it; the lab's internet is IPv4 only.
    """

    def __init__(
        self,
        topology: Topology,
        interfaces: tuple[NetworkInterface, ...],
        rules: tuple[Rule, ...],
        subnet_numbers: dict[str, int],
        version: int = 4,
    ) -> None:
        self.version = version
        self._peers = {each.name: peers(topology, each.name) for each in topology.virtual_networks}
        self._interfaces = {(each.virtual_network, each.address): each for each in interfaces}
        self._rules = {(each.virtual_network, each.frontend_address): each for each in rules}
        self.internet = topology.internet is not None and version == 4
        self.subnets = tuple(
            SubnetView(
                subnet_numbers[f"{network.name}/{subnet.name}"],
                network.name,
                subnet.name,
                str(prefix),
                effective_routes(topology, network, subnet, version),
            )
            for network in topology.virtual_networks
            for subnet in network.subnets
            if (prefix := subnet.ipv4 if version == 4 else subnet.ipv6)
        )

    def subnet(self, virtual_network: str, name: str) -> SubnetView:
        """The view of one subnet."""
        return next(each for each in self.subnets if (each.virtual_network, each.name) == (virtual_network, name))

    def reachable(self, virtual_network: str) -> tuple[str, ...]:
        """The virtual network itself and those directly peered with it."""
        return (virtual_network, *self._peers[virtual_network])

    def _at(self, networks: tuple[str, ...], address: IPv4Address | IPv6Address) -> ToNetworkInterface | ToRule | None:
        for name in networks:
            if rule := self._rules.get((name, str(address))):
                return ToRule(rule)
            if interface := self._interfaces.get((name, str(address))):
                return ToNetworkInterface(interface)
        return None

    def follow(self, view: SubnetView, route: EffectiveRoute | None, address: IPv4Address | IPv6Address) -> Target:
        """Where a packet for ``address`` goes when ``route`` decides."""
        if route is None:
            return Drop("no route")
        match route.next_hop_type:
            case "VnetLocal" | "VNetPeering" if route.virtual_network:
                return self._at((route.virtual_network,), address) or Drop(f"nothing has the address {address}")
            case "VirtualAppliance" if route.next_hop_ip_address:
                hop = self._at(self.reachable(view.virtual_network), route.next_hop_ip_address)
                return hop or Drop(f"next hop {route.next_hop_ip_address} has no machine or rule")
            case "Internet":
                return ToInternet() if self.internet else Drop(_NO_INTERNET[self.version])
        return Drop(f"next hop type {route.next_hop_type}")

    def target(self, view: SubnetView, address: IPv4Address | IPv6Address) -> Target:
        """Where a packet for ``address`` goes when a network interface of this subnet sends it."""
        return self.follow(view, winner(view.routes, address), address)

    def intervals(self, view: SubnetView) -> tuple[Interval, ...]:
        """The destinations of a subnet that are balanced or leave for the internet: disjoint and sorted."""
        address = _ADDRESS[self.version]
        merged: list[Interval] = []
        for first, last in self._segments(view):
            target = self.target(view, address(first))
            if not isinstance(target, ToRule | ToInternet):
                continue
            if merged and merged[-1].target == target and int(merged[-1].last) + 1 == first:
                first = int(merged.pop().first)  # noqa: PLW2901 - the segment grows to the left
            merged.append(Interval(address(first), address(last), target))
        return tuple(merged)

    def _segments(self, view: SubnetView) -> Iterator[tuple[int, int]]:
        """Cut the address space where the winning route, or what stands behind it, can change."""
        cuts = {0}
        for route in view.routes:
            cuts.add(int(route.address_prefix.network_address))
            cuts.add(int(route.address_prefix.broadcast_address) + 1)
        for _, text in self._rules:
            address = int(_ADDRESS[self.version](text))
            cuts |= {address, address + 1}
        end = 2 ** _ADDRESS[self.version](0).max_prefixlen
        points = sorted(cuts - {end})
        return zip(points, [point - 1 for point in points[1:]] + [end - 1], strict=True)
