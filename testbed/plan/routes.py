"""Effective routes: what a network interface of a subnet does with a destination, in Azure's terms.

Rules from "Virtual network traffic routing": system routes for the virtual network, its peers, the internet
and the reserved ranges; a gateway's routes (Azure: BGP); the longest prefix wins; on equal prefixes User beats BGP,
and BGP System, but those of the virtual network and its peers beat even longer ones of BGP. The route table that
counts is that of the *sending* network interface's subnet, hop by hop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING

from testbed.topology.peering import Connections
from testbed.topology.prefixes import IPAddress, IPNetwork, inside

if TYPE_CHECKING:
    from testbed.topology.model import Route, Subnet, Topology, VirtualNetwork

__all__ = ["EffectiveRoute", "effective_routes", "winner"]

_RESERVED = tuple(IPv4Network(each) for each in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"))
#: No table of Azure's documents has a reserved range of IPv6.
_EVERYTHING = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class EffectiveRoute:
    """One row of a network interface's effective routes.

    ``source`` is ``Default``, ``VirtualNetworkGateway`` or ``User``, ``state`` ``Active`` or ``Invalid`` (overridden),
    as the Azure API spells them. ``virtual_network`` names where a ``VnetLocal`` or ``VNetPeering`` route leads, and
    where the gateway is of a ``VirtualNetworkGateway`` one.
    """

    source: str
    state: str
    address_prefix: IPNetwork
    next_hop_type: str
    next_hop_ip_address: IPAddress | None = None
    name: str | None = None
    virtual_network: str | None = None

    def to_json(self) -> dict[str, object]:
        """As the API's ``EffectiveRoute``: prefixes and next hop addresses are lists."""
        return {
            "name": self.name,
            "source": self.source,
            "state": self.state,
            "address_prefix": [str(self.address_prefix)],
            "next_hop_type": self.next_hop_type,
            "next_hop_ip_address": [str(self.next_hop_ip_address)] if self.next_hop_ip_address else [],
        }

    def why(self) -> str:
        """This route in a few words, for people."""
        hop = f" {self.next_hop_ip_address}" if self.next_hop_ip_address else ""
        name = f" ({self.name})" if self.name else ""
        return f"{self.source} {self.address_prefix} -> {self.next_hop_type}{hop}{name}"


def _space(network: VirtualNetwork, version: int) -> list[IPNetwork]:
    """The prefixes of one IP version."""
    return [prefix for prefix in network.address_space if prefix.version == version]


def _system_routes(
    topology: Topology, network: VirtualNetwork, connections: Connections, version: int
) -> list[EffectiveRoute]:
    spaces = {each.name: _space(each, version) for each in topology.virtual_networks}
    own = [prefix for prefix in spaces[network.name] if isinstance(prefix, IPv4Network)]
    routes = [
        EffectiveRoute("Default", "Active", prefix, "VnetLocal", virtual_network=network.name)
        for prefix in spaces[network.name]
    ]
    routes += [
        EffectiveRoute("Default", "Active", prefix, "VNetPeering", virtual_network=peer)
        for peer in connections.neighbours(network.name)
        for prefix in spaces[peer]
    ]
    routes.append(EffectiveRoute("Default", "Active", _EVERYTHING[version], "Internet"))
    taken = {route.address_prefix for route in routes}
    routes += [
        EffectiveRoute("Default", "Active", reserved, "None")
        for reserved in (_RESERVED if version == 4 else ())
        # A reserved range that holds a part of the virtual network is not dropped as a whole any more.
        if reserved not in taken and not any(prefix.subnet_of(reserved) for prefix in own)
    ]
    return routes


def _gateway_routes(network: VirtualNetwork, connections: Connections) -> list[EffectiveRoute]:
    """What is outside Azure, as its gateway tells it to the virtual network."""
    gateway = connections.gateway(network.name)
    where = gateway.virtual_network if gateway else None
    return [
        EffectiveRoute("VirtualNetworkGateway", "Active", prefix, "VirtualNetworkGateway", virtual_network=where)
        for prefix in connections.on_premises_prefixes(network.name)
    ]


def _user_route(route: Route, network: VirtualNetwork, connections: Connections) -> EffectiveRoute:
    where = network.name if route.next_hop_type == "VnetLocal" else None
    if route.next_hop_type == "VirtualNetworkGateway" and (gateway := connections.gateway(network.name)):
        where = gateway.virtual_network
    return EffectiveRoute(
        "User",
        "Active",
        route.address_prefix,
        route.next_hop_type.value,
        route.next_hop_ip_address,
        route.name,
        where,
    )


def effective_routes(
    topology: Topology,
    network: VirtualNetwork,
    subnet: Subnet,
    connections: Connections | None = None,
    version: int = 4,
) -> tuple[EffectiveRoute, ...]:
    """All routes of a subnet for one IP version, active and overridden, in Azure's order.

    System first, then a gateway's (of IPv4 only), then user.
    """
    connections = connections or Connections(topology)
    table = next((each for each in topology.route_tables if each.name == subnet.route_table), None)
    routes = [each for each in table.routes if each.address_prefix.version == version] if table else []
    user = [_user_route(route, network, connections) for route in routes]
    system = _system_routes(topology, network, connections, version)
    propagated = version == 4 and not (table and table.disable_bgp_route_propagation)
    told = _gateway_routes(network, connections) if propagated else []
    spaces = [route.address_prefix for route in system if route.virtual_network]
    of_users = {route.address_prefix for route in user}
    told = [
        _overridden(route)
        if route.address_prefix in of_users or any(inside(route.address_prefix, space) for space in spaces)
        else route
        for route in told
    ]
    if _EVERYTHING[version] in of_users:
        # The example of "Virtual network traffic routing": Azure takes these routes away then.
        system = [route for route in system if route.next_hop_type != "None"]
    stronger = of_users | {route.address_prefix for route in told if route.state == "Active"}
    return (*(_overridden(route) if route.address_prefix in stronger else route for route in system), *told, *user)


def _overridden(route: EffectiveRoute) -> EffectiveRoute:
    return replace(route, state="Invalid")


def winner(routes: tuple[EffectiveRoute, ...], address: IPAddress) -> EffectiveRoute | None:
    """The active route with the longest prefix that holds the address."""
    matching = [route for route in routes if route.state == "Active" and address in route.address_prefix]
    return max(matching, key=lambda route: route.address_prefix.prefixlen, default=None)
