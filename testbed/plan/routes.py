"""Effective routes: what a network interface of a subnet does with a destination, in Azure's terms.

Rules from "Virtual network traffic routing": system routes for the virtual network, its peers, the internet
and the reserved ranges; the longest prefix wins; on equal prefixes User beats System. The route table that
counts is that of the *sending* network interface's subnet, hop by hop.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.topology.model import Route, Subnet, Topology, VirtualNetwork

__all__ = ["EffectiveRoute", "effective_routes", "peers", "winner"]

_RESERVED = tuple(IPv4Network(each) for each in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"))
#: No table of Azure's documents has a reserved range of IPv6.
_EVERYTHING = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class EffectiveRoute:
    """One row of a network interface's effective routes.

    ``source`` is ``Default`` or ``User``, ``state`` ``Active`` or ``Invalid`` (overridden), as the Azure API
    spells them. ``virtual_network`` names where a ``VnetLocal`` or ``VNetPeering`` route leads.
    """

    source: str
    state: str
    address_prefix: IPv4Network | IPv6Network
    next_hop_type: str
    next_hop_ip_address: IPv4Address | IPv6Address | None = None
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


def peers(topology: Topology, virtual_network: str) -> tuple[str, ...]:
    """Virtual networks directly peered with this one. Peering is not transitive."""
    return tuple(
        other
        for peering in topology.peerings
        if peering.allow_virtual_network_access and virtual_network in peering.between
        for other in peering.between
        if other != virtual_network
    )


def _space(network: VirtualNetwork, version: int) -> list[IPv4Network | IPv6Network]:
    """The prefixes of one IP version."""
    return [prefix for prefix in network.address_space if prefix.version == version]


def _system_routes(topology: Topology, network: VirtualNetwork, version: int) -> list[EffectiveRoute]:
    spaces = {each.name: _space(each, version) for each in topology.virtual_networks}
    own = [prefix for prefix in spaces[network.name] if isinstance(prefix, IPv4Network)]
    routes = [
        EffectiveRoute("Default", "Active", prefix, "VnetLocal", virtual_network=network.name)
        for prefix in spaces[network.name]
    ]
    routes += [
        EffectiveRoute("Default", "Active", prefix, "VNetPeering", virtual_network=peer)
        for peer in peers(topology, network.name)
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


def _user_route(route: Route, network: VirtualNetwork) -> EffectiveRoute:
    return EffectiveRoute(
        "User",
        "Active",
        route.address_prefix,
        route.next_hop_type.value,
        route.next_hop_ip_address,
        route.name,
        network.name if route.next_hop_type == "VnetLocal" else None,
    )


def effective_routes(
    topology: Topology, network: VirtualNetwork, subnet: Subnet, version: int = 4
) -> tuple[EffectiveRoute, ...]:
    """All routes of a subnet for one IP version, active and overridden, in Azure's order: system first, then user."""
    tables = {table.name: table.routes for table in topology.route_tables}
    routes = [each for each in tables.get(subnet.route_table or "", ()) if each.address_prefix.version == version]
    user = [_user_route(route, network) for route in routes]
    overridden = {route.address_prefix for route in user}
    system = [
        EffectiveRoute(
            route.source,
            "Invalid" if route.address_prefix in overridden else "Active",
            route.address_prefix,
            route.next_hop_type,
            virtual_network=route.virtual_network,
        )
        for route in _system_routes(topology, network, version)
    ]
    return (*system, *user)


def winner(routes: tuple[EffectiveRoute, ...], address: IPv4Address | IPv6Address) -> EffectiveRoute | None:
    """The active route with the longest prefix that holds the address."""
    matching = [route for route in routes if route.state == "Active" and address in route.address_prefix]
    return max(matching, key=lambda route: route.address_prefix.prefixlen, default=None)
