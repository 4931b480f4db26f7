"""What a picture of a topology shows, whatever it is drawn with: boxes in boxes, and lines between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from testbed.topology.lookup import FrontendPlace, Lookup
from testbed.topology.model import NextHopType, TransportProtocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.lookup import InterfacePlace, SubnetPlace
    from testbed.topology.model import LoadBalancingRule, Route, Topology, VirtualNetwork

__all__ = ["Edge", "Item", "NetworkBox", "Scene", "SubnetBox", "scene_of"]

EdgeKind = Literal["peering", "route", "balance"]
ItemKind = Literal["machine", "frontend", "internet"]


@dataclass(frozen=True, slots=True)
class Item:
    """A network interface, a frontend, or the internet; ``lines`` stand under the title."""

    id: str
    kind: ItemKind
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubnetBox:
    """A subnet with what has an address in it.

    ``notes`` tell of routes that lead nowhere; ``pooled`` says that lines from a frontend come to its machines.
    """

    id: str
    title: str
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    pooled: bool = False


@dataclass(frozen=True, slots=True)
class NetworkBox:
    """A virtual network."""

    id: str
    title: str
    subnets: tuple[SubnetBox, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from a box or item to another, by id. Peerings have no direction."""

    source: str
    target: str
    kind: EdgeKind
    label: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """The whole picture."""

    title: str
    networks: tuple[NetworkBox, ...]
    internet: Item | None
    edges: tuple[Edge, ...]


def _id(*parts: object) -> str:
    """Letters, digits and underscores, distinct for distinct parts: names have no underscore."""
    return "_".join(str(part).replace("-", "__") for part in parts)


def _interface_id(place: InterfacePlace) -> str:
    return _id("nic", place.machine.name, place.location[3])


def _frontend_id(place: FrontendPlace) -> str:
    return _id("fe", place.balancer.name, place.frontend.name)


def _interface(place: InterfacePlace) -> Item:
    machine = place.machine
    several = len(machine.network_interfaces) > 1
    title = f"{machine.name} eth{place.location[3]}" if several else machine.name
    further = [str(each.private_ip_address) for each in place.interface.ip_configurations]
    lines = (str(place.interface.private_ip_address), *further, machine.runtime.summary)
    return Item(_interface_id(place), "machine", title, lines)


def _frontend(place: FrontendPlace, lookup: Lookup) -> Item:
    rules = [each.rule for each in lookup.rules if each.frontend == place.key]
    words = [_covers(each) + (", floating IP" if each.enable_floating_ip else "") for each in rules]
    return Item(
        _frontend_id(place), "frontend", place.key, (str(place.frontend.private_ip_address), *(words or ["no rule"]))
    )


def _covers(rule: LoadBalancingRule) -> str:
    if rule.protocol == TransportProtocol.ALL:
        return "HA Ports"
    there = "" if rule.backend_port == rule.frontend_port else f" to {rule.backend_port}"
    return f"{rule.protocol.value} {rule.frontend_port}{there}"


def _subnet(topology: Topology, lookup: Lookup, place: SubnetPlace) -> SubnetBox:
    frontends = [_frontend(each, lookup) for each in lookup.frontends if each.frontend.subnet == place.key]
    gateways = {each.name for each in topology.virtual_network_gateways if each.subnet == place.key}
    outside = [
        Item(_id("place", each.name), "machine", each.name, tuple(map(str, each.local_network_address_space)))
        for each in topology.local_network_gateways
        if each.virtual_network_gateway in gateways
    ]
    interfaces = [_interface(each) for each in lookup.interfaces if each.interface.subnet == place.key]
    notes = [
        f"{route.address_prefix} -> {route.next_hop_type.value}"
        for route in _routes(topology, place)
        if route.next_hop_type in (NextHopType.NONE, NextHopType.VNET_LOCAL, NextHopType.VIRTUAL_NETWORK_GATEWAY)
        or (route.next_hop_type == NextHopType.INTERNET and topology.internet is None)
    ]
    title = f"{place.subnet.name}  {', '.join(map(str, filter(None, (place.subnet.ipv4, place.subnet.ipv6))))}"
    here = _id("subnet", place.network.name, place.subnet.name)
    pooled = any(each.pools for each in lookup.configurations if each.interface.subnet == place.key)
    return SubnetBox(here, title, (*frontends, *interfaces, *outside), tuple(notes), pooled)


def _routes(topology: Topology, place: SubnetPlace) -> tuple[Route, ...]:
    return next((each.routes for each in topology.route_tables if each.name == place.subnet.route_table), ())


def _route_edges(topology: Topology, lookup: Lookup) -> Iterator[Edge]:
    """One line for all routes of a subnet that lead to the same place."""
    labels: dict[tuple[str, str], list[str]] = {}
    for edge in _single_routes(topology, lookup):
        labels.setdefault((edge.source, edge.target), []).append(edge.label)
    for (source, target), prefixes in labels.items():
        shown = prefixes if len(prefixes) < 3 else [prefixes[0], f"{len(prefixes) - 1} more"]
        yield Edge(source, target, "route", ", ".join(shown))


def _single_routes(topology: Topology, lookup: Lookup) -> Iterator[Edge]:
    for place in lookup.subnets:
        source = _id("subnet", place.network.name, place.subnet.name)
        for route in _routes(topology, place):
            label = str(route.address_prefix)
            if route.next_hop_type == NextHopType.INTERNET and topology.internet:
                yield Edge(source, "internet", "route", label)
            if route.next_hop_ip_address is None:
                continue
            for owner in lookup.owners(route.next_hop_ip_address):
                if owner.network in lookup.reachable(place.network.name):
                    target = _frontend_id(owner) if isinstance(owner, FrontendPlace) else _interface_id(owner)
                    yield Edge(source, target, "route", label)


def _balance_edges(lookup: Lookup) -> Iterator[Edge]:
    pairs = (
        Edge(_id("fe", rule.balancer.name, rule.rule.frontend_ip_configuration), _interface_id(member), "balance")
        for rule in lookup.rules
        for member in lookup.members(rule.pool)
    )
    yield from dict.fromkeys(pairs)


def _network(topology: Topology, lookup: Lookup, network: VirtualNetwork) -> NetworkBox:
    subnets = tuple(_subnet(topology, lookup, each) for each in lookup.subnets if each.network is network)
    title = f"{network.name}  {', '.join(map(str, network.address_space))}"
    return NetworkBox(_id("vnet", network.name), title, subnets)


def scene_of(topology: Topology) -> Scene:
    """What to draw of a checked topology, in the order of its document."""
    lookup = Lookup(topology)
    networks = tuple(_network(topology, lookup, each) for each in topology.virtual_networks)
    order = [each.name for each in topology.virtual_networks]
    peerings = [
        Edge(_id("vnet", one), _id("vnet", other), "peering", "peering")
        for one, other in {tuple(sorted(pair, key=order.index)): None for pair in lookup.connections.connected}
    ]
    internet = None
    if topology.internet:
        prefix = topology.internet.address_prefix
        internet = Item("internet", "internet", "internet", (str(prefix),))
    edges = (*peerings, *_route_edges(topology, lookup), *_balance_edges(lookup))
    return Scene(topology.name, networks, internet, edges)
