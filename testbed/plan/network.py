"""The lab as the fabric sees it: where each effective route of each subnet really leads."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import TYPE_CHECKING

from testbed.plan.routes import EffectiveRoute, effective_routes, winner
from testbed.topology.peering import Connections
from testbed.topology.switches import ForwardedTraffic
from testbed.topology.words import GATEWAY_SUBNET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import NetworkInterface, Rule
    from testbed.topology.model import Topology
    from testbed.topology.prefixes import IPAddress, IPNetwork

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

_ADDRESS: dict[int, type[IPAddress]] = {4: IPv4Address, 6: IPv6Address}
_NO_INTERNET = {4: "the lab has no internet", 6: "the lab's internet is IPv4 only"}


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

    first: IPAddress
    last: IPAddress
    target: ToRule | ToInternet


@dataclass(frozen=True, slots=True)
class ClosedPeering:
    """A peering from whose ``remote`` only what starts there (in ``space``) enters the virtual network.

    ``gateway``: what comes in by the remote virtual network's gateway enters as well.
    """

    virtual_network: str
    remote: str
    space: tuple[IPNetwork, ...]
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
        self._connections = Connections(topology)
        self._interfaces = {(each.virtual_network, each.address): each for each in interfaces if not each.on_premises}
        self._on_premises = {
            (each.virtual_network, IPv4Network(prefix)): each for each in interfaces for prefix in each.on_premises
        }
        self._spaces = {
            each.name: tuple(prefix for prefix in each.address_space if prefix.version == version)
            for each in topology.virtual_networks
        }
        self._enforce_forwarded = topology.switches.allow_forwarded_traffic == ForwardedTraffic.DOCUMENTED
        self._rules: dict[tuple[str, str], tuple[Rule, ...]] = {}
        for rule in rules:
            frontend = (rule.virtual_network, rule.frontend_address)
            self._rules[frontend] = (*self._rules.get(frontend, ()), rule)
        self.internet = topology.internet is not None and version == 4
        self.subnets = tuple(
            SubnetView(
                subnet_numbers[f"{network.name}/{subnet.name}"],
                network.name,
                subnet.name,
                str(prefix),
                effective_routes(topology, network, subnet, self._connections, version),
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
        return self._connections.reachable(virtual_network)

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
            if not side.allow_forwarded_traffic and self._spaces[side.remote_virtual_network]
        )

    def on_premises(self, virtual_network: str) -> dict[IPv4Network, NetworkInterface]:
        """Prefixes behind the gateway in a virtual network, and the cable that leads there."""
        return {prefix: each for (where, prefix), each in self._on_premises.items() if where == virtual_network}

    def _outside(self, virtual_network: str, address: IPAddress) -> ToNetworkInterface | None:
        """The place behind a gateway that has an address: the longest prefix."""
        found = {prefix: each for prefix, each in self.on_premises(virtual_network).items() if address in prefix}
        return ToNetworkInterface(found[max(found, key=lambda each: each.prefixlen)]) if found else None

    def _at(self, networks: tuple[str, ...], address: IPAddress) -> ToNetworkInterface | ToRule | None:
        for name in networks:
            if rules := self._rules.get((name, str(address))):
                return ToRule(rules)
            if interface := self._interfaces.get((name, str(address))):
                return ToNetworkInterface(interface)
        return None

    def follow(self, view: SubnetView, route: EffectiveRoute | None, address: IPAddress) -> Target:
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
                return ToInternet() if self.internet else Drop(_NO_INTERNET[self.version])
        return hop or Drop(reason)

    def target(self, view: SubnetView, address: IPAddress) -> Target:
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
