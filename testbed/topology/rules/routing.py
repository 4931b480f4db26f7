"""User-defined routes, and what stands at their next hops ("Virtual network traffic routing")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.topology.lookup import FrontendPlace, InterfacePlace
from testbed.topology.model import NextHopType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.lookup import SubnetPlace
    from testbed.topology.model import Route
    from testbed.topology.nodes import Location

__all__ = ["next_hop_types", "next_hops_forward", "next_hops_reachable", "one_route_per_prefix"]


def _routes(draft: Draft) -> Iterator[tuple[Location, Route]]:
    for i, table in enumerate(draft.topology.route_tables):
        for j, route in enumerate(table.routes):
            yield ("route_tables", i, "routes", j), route


def one_route_per_prefix(draft: Draft) -> Iterator[Finding]:
    """A route table holds one route for a prefix."""
    for i, table in enumerate(draft.topology.route_tables):
        first: dict[object, str] = {}
        for j, route in enumerate(table.routes):
            if route.address_prefix in first:
                location = ("route_tables", i, "routes", j, "address_prefix")
                message = f"{route.address_prefix} is already the prefix of route {first[route.address_prefix]!r}"
                yield draft.error(location, message, fix="keep one of the two routes")
            first.setdefault(route.address_prefix, route.name)


def next_hop_types(draft: Draft) -> Iterator[Finding]:
    """An address belongs to ``VirtualAppliance`` and to nothing else."""
    for location, route in _routes(draft):
        there = (*location, "next_hop_ip_address")
        kind = route.next_hop_type
        if kind == NextHopType.VIRTUAL_NETWORK_GATEWAY:
            yield from _gateways(draft, location)
        if kind == NextHopType.VIRTUAL_APPLIANCE and route.next_hop_ip_address is None:
            message = "VirtualAppliance needs an address"
            yield draft.error(location, message, fix="add next_hop_ip_address: a network interface or a frontend")
        elif kind != NextHopType.VIRTUAL_APPLIANCE and route.next_hop_ip_address is not None:
            fix = "remove it, or set next_hop_type: VirtualAppliance"
            yield draft.error(there, f"next hop type {kind.value} takes no address", fix=fix)
        if kind == NextHopType.INTERNET and draft.topology.internet is None and not draft.lost(kind="internet"):
            yield draft.warning(
                (*location, "next_hop_type"),
                "the lab has no internet, so what takes this route is dropped",
                fix="add 'internet: {address_prefix: 203.0.113.0/24}'",
            )


def _gateways(draft: Draft, location: Location) -> Iterator[Finding]:
    """Every subnet that uses a route to a gateway has one: its virtual network's, or that of a peer."""
    table = draft.topology.route_tables[int(location[1])].name
    users = [each.network.name for each in draft.lookup.subnets if each.subnet.route_table == table]
    for name in dict.fromkeys(users):
        lost = draft.lost(name, kind="virtual_network_gateways") or draft.lost(kind="virtual_network_peerings")
        if draft.lookup.connections.gateway(name) is None and not lost:
            message = f"{name} has no gateway, and uses none of a peer"
            fix = "add one to virtual_network_gateways, or use_remote_gateways: true in its side of a peering"
            yield draft.error((*location, "next_hop_type"), message, fix=fix)


def _appliance_routes(draft: Draft) -> Iterator[tuple[Location, Route, IPv4Address, tuple[SubnetPlace, ...]]]:
    """Routes to an address: where, which, to what, and for which subnets."""
    users: dict[str, list[SubnetPlace]] = {}
    for place in draft.lookup.subnets:
        users.setdefault(place.subnet.route_table or "", []).append(place)
    for location, route in _routes(draft):
        if route.next_hop_type == NextHopType.VIRTUAL_APPLIANCE and route.next_hop_ip_address:
            table = draft.topology.route_tables[int(location[1])].name
            there = (*location, "next_hop_ip_address")
            yield there, route, route.next_hop_ip_address, tuple(users.get(table, ()))


def next_hops_reachable(draft: Draft) -> Iterator[Finding]:
    """A next hop is in the virtual network of the subnet that uses the route, or in one peered with it."""
    for location, _, address, subnets in _appliance_routes(draft):
        owners = draft.lookup.owners(address)
        if not owners:
            if not draft.lost(str(address), kind="network_interfaces"):
                message = f"nothing has the address {address}"
                fix = "name the address of an appliance's network interface, or of a load balancer's frontend"
                yield draft.error(location, message, fix=fix)
            continue
        networks = {owner.network for owner in owners}
        for place in subnets:
            if draft.lookup.reachable(place.network.name).isdisjoint(networks):
                where = " and ".join(sorted(networks))
                if draft.lost(where, place.network.name, kind="peerings"):
                    continue
                message = f"{address} is in {where}, which subnet {place.key} cannot reach directly"
                yield draft.error(location, message, fix=f"peer {place.network.name} with {where}")


def next_hops_forward(draft: Draft) -> Iterator[Finding]:
    """What stands at a next hop forwards: Azure drops packets for others at a NIC that does not."""
    reported: set[Location] = set()
    for location, _, address, subnets in _appliance_routes(draft):
        reachable = frozenset().union(*(draft.lookup.reachable(each.network.name) for each in subnets))
        for owner in draft.lookup.owners(address):
            if subnets and owner.network not in reachable:
                continue
            found = _interface(draft, owner) if isinstance(owner, InterfacePlace) else _frontend(draft, location, owner)
            for place, finding in found:
                if place not in reported:
                    reported.add(place)
                    yield finding


def _interface(draft: Draft, owner: InterfacePlace, why: str = "") -> Iterator[tuple[Location, Finding]]:
    if not owner.interface.enable_ip_forwarding:
        address = owner.interface.private_ip_address
        message = f"{owner.machine.name} ({address}) is a next hop{why} and does not forward: it gets nothing of others"
        fix = "set enable_ip_forwarding: true, or route to an appliance"
        yield owner.location, draft.warning(owner.location, message, fix=fix)


def _frontend(draft: Draft, location: Location, owner: FrontendPlace) -> Iterator[tuple[Location, Finding]]:
    rules = [each for each in draft.lookup.rules if each.frontend == owner.key]
    others = [each for each in draft.lookup.rules if each.balancer is owner.balancer]
    stray = any(each.frontend not in draft.lookup.frontend for each in others)  # it may mean this frontend
    if not rules and not stray and not draft.lost(owner.frontend.name, kind="load_balancing_rules"):
        message = f"frontend {owner.key} has no load-balancing rule, so this next hop leads nowhere"
        yield location, draft.error(location, message, fix="add a rule: protocol All, frontend_port and backend_port 0")
    for rule in rules:
        for member in draft.lookup.members(rule.pool):
            yield from _interface(draft, member, f" through frontend {owner.key}")
