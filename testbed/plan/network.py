"""The lab as the fabric sees it: where each effective route of each subnet really leads."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from testbed.plan.routes import EffectiveRoute, effective_routes, winner
from testbed.topology.peering import Connections
from testbed.topology.switches import ForwardedTraffic
from testbed.topology.words import GATEWAY_SUBNET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import NetworkInterface, Rule
    from testbed.topology.model import Topology

__all__ = [
    "ClosedPeering",
    "Drop",
    "Interval",
    "Network",
    "SubnetView",
    "Target",
    "ToInternet",
    "ToNetworkInterface",
    "ToRule",
]

_LAST = 2**32


@dataclass(frozen=True, slots=True)
class ToNetworkInterface:
    """Delivered to a network interface, whatever its destination address is."""

    network_interface: NetworkInterface


@dataclass(frozen=True, slots=True)
class ToRule:
    """Handed to the balancer: to one of the rules of a frontend, or to none."""

    rules: tuple[Rule, ...]

    def rule(self, protocol: str, port: int | None) -> Rule | None:
        """The rule that covers a packet: its own port's (``tcp`` or ``udp``) before that of all ports."""
        own = (protocol, port)
        exact = (each for each in self.rules if (each.protocol.lower(), each.frontend_port) == own)
        return next(exact, None) or next((each for each in self.rules if each.ha_ports), None)


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

    first: IPv4Address
    last: IPv4Address
    target: ToRule | ToInternet


@dataclass(frozen=True, slots=True)
class ClosedPeering:
    """A peering from whose ``remote`` only what starts there (in ``space``) enters the virtual network.

    ``gateway``: what comes in by the remote virtual network's gateway enters as well.
    """

    virtual_network: str
    remote: str
    space: tuple[IPv4Network, ...]
    gateway: bool


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
    """Answers where packets go; pure, made from the document and the numbered interfaces and rules."""

    def __init__(
        self,
        topology: Topology,
        interfaces: tuple[NetworkInterface, ...],
        rules: tuple[Rule, ...],
        subnet_numbers: dict[str, int],
    ) -> None:
        self._connections = Connections(topology)
        self._interfaces = {(each.virtual_network, each.address): each for each in interfaces if not each.on_premises}
        self._on_premises = {
            (each.virtual_network, IPv4Network(prefix)): each for each in interfaces for prefix in each.on_premises
        }
        self._spaces = {each.name: each.address_space for each in topology.virtual_networks}
        self._enforce_forwarded = topology.switches.allow_forwarded_traffic == ForwardedTraffic.DOCUMENTED
        self._rules: dict[tuple[str, str], tuple[Rule, ...]] = {}
        for rule in rules:
            frontend = (rule.virtual_network, rule.frontend_address)
            self._rules[frontend] = (*self._rules.get(frontend, ()), rule)
        self.internet = topology.internet is not None
        self.subnets = tuple(
            SubnetView(
                subnet_numbers[f"{network.name}/{subnet.name}"],
                network.name,
                subnet.name,
                str(subnet.address_prefix),
                effective_routes(topology, network, subnet, self._connections),
            )
            for network in topology.virtual_networks
            for subnet in network.subnets
        )

    def subnet(self, virtual_network: str, name: str) -> SubnetView:
        """The view of one subnet."""
        return next(each for each in self.subnets if (each.virtual_network, each.name) == (virtual_network, name))

    def reachable(self, virtual_network: str) -> tuple[str, ...]:
        """The virtual network itself and those directly peered with it."""
        return (virtual_network, *self._connections.neighbours(virtual_network))

    def closed_peerings(self) -> tuple[ClosedPeering, ...]:
        """The peerings that let in only what starts in the peer; none when the switch says ``Permissive``."""
        if not self._enforce_forwarded:
            return ()
        connected = self._connections.connected
        return tuple(
            ClosedPeering(
                side.virtual_network,
                side.remote_virtual_network,
                self._spaces[side.remote_virtual_network],
                side.use_remote_gateways and connected[there, here].allow_gateway_transit,
            )
            for (here, there), side in connected.items()
            if not side.allow_forwarded_traffic
        )

    def on_premises(self, virtual_network: str) -> dict[IPv4Network, NetworkInterface]:
        """Prefixes behind the gateway in a virtual network, and the cable that leads there."""
        return {prefix: each for (where, prefix), each in self._on_premises.items() if where == virtual_network}

    def _outside(self, virtual_network: str, address: IPv4Address) -> ToNetworkInterface | None:
        """The place behind a gateway that has an address: the longest prefix."""
        found = {prefix: each for prefix, each in self.on_premises(virtual_network).items() if address in prefix}
        return ToNetworkInterface(found[max(found, key=lambda each: each.prefixlen)]) if found else None

    def _at(self, networks: tuple[str, ...], address: IPv4Address) -> ToNetworkInterface | ToRule | None:
        for name in networks:
            if rules := self._rules.get((name, str(address))):
                return ToRule(rules)
            if interface := self._interfaces.get((name, str(address))):
                return ToNetworkInterface(interface)
        return None

    def follow(self, view: SubnetView, route: EffectiveRoute | None, address: IPv4Address) -> Target:
        """Where a packet for ``address`` goes when ``route`` decides."""
        if route is None:
            return Drop("no route")
        hop: ToNetworkInterface | ToRule | None = None
        reason = f"next hop type {route.next_hop_type}"
        match route.next_hop_type:
            case "VnetLocal" | "VNetPeering" if route.virtual_network:
                hop, reason = self._at((route.virtual_network,), address), f"nothing has the address {address}"
            case "VirtualAppliance" if route.next_hop_ip_address:
                hop = self._at(self.reachable(view.virtual_network), route.next_hop_ip_address)
                reason = f"next hop {route.next_hop_ip_address} has no machine or rule"
            case "VirtualNetworkGateway" if route.virtual_network:
                hop, reason = self._outside(route.virtual_network, address), f"no local network has {address}"
            case "Internet" if view.name == GATEWAY_SUBNET:
                reason = "a gateway sends nothing to the internet"
            case "Internet":
                return ToInternet() if self.internet else Drop("the lab has no internet")
        return hop or Drop(reason)

    def target(self, view: SubnetView, address: IPv4Address) -> Target:
        """Where a packet for ``address`` goes when a network interface of this subnet sends it."""
        return self.follow(view, winner(view.routes, address), address)

    def intervals(self, view: SubnetView) -> tuple[Interval, ...]:
        """The destinations of a subnet that are balanced or leave for the internet: disjoint and sorted."""
        merged: list[Interval] = []
        for first, last in self._segments(view):
            target = self.target(view, IPv4Address(first))
            if not isinstance(target, ToRule | ToInternet):
                continue
            if merged and merged[-1].target == target and int(merged[-1].last) + 1 == first:
                first = int(merged.pop().first)  # noqa: PLW2901 - the segment grows to the left
            merged.append(Interval(IPv4Address(first), IPv4Address(last), target))
        return tuple(merged)

    def _segments(self, view: SubnetView) -> Iterator[tuple[int, int]]:
        """Cut the address space where the winning route, or what stands behind it, can change."""
        cuts = {0}
        for route in view.routes:
            cuts.add(int(route.address_prefix.network_address))
            cuts.add(int(route.address_prefix.broadcast_address) + 1)
        for _, address in self._rules:
            cuts |= {int(IPv4Address(address)), int(IPv4Address(address)) + 1}
        points = sorted(cuts - {_LAST})
        return zip(points, [point - 1 for point in points[1:]] + [_LAST - 1], strict=True)
