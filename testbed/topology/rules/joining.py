"""Peerings by their sides, gateways, and what is behind them ("Virtual network peering", "VPN Gateway settings")."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from testbed.topology.lookup import network_name
from testbed.topology.peering import sides
from testbed.topology.prefixes import inside
from testbed.topology.wording import suggestion
from testbed.topology.words import GATEWAY_SUBNET

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.nodes import Location
    from testbed.topology.peering import PeeringSide

__all__ = [
    "gateway_routes",
    "gateway_subnets",
    "gateway_transit",
    "local_network_names",
    "local_network_spaces",
    "peering_sides",
]

_SMALLEST = 29
_EVERYTHING = IPv4Network("0.0.0.0/0")


def peering_sides(draft: Draft) -> Iterator[Finding]:
    """A side names another virtual network, once, and has its other side there."""
    networks = draft.lookup.networks
    first: dict[tuple[str, str], PeeringSide] = {}
    for side in sides(draft.topology):
        here, there = side.virtual_network, side.remote_virtual_network
        earlier = first.setdefault((here, there), side)
        if side.location[0] == "peerings":
            continue  # both sides of it are checked as references
        location = (*side.location, "remote_virtual_network")
        if there == here:
            yield draft.error(location, f"{here} is peered with itself", fix="name another virtual network")
        elif there not in networks:
            if not draft.lost(there, kind="virtual_networks"):
                fix = suggestion(there, networks, "virtual_networks")
                yield draft.error(location, f"there is no virtual network {there!r}", fix=fix)
        elif earlier is not side:
            message = f"{here}'s side of the peering with {there} is already on line {draft.line(earlier.location)}"
            yield draft.error(side.location, message, fix="keep one of the two")
        elif (here, there) not in draft.lookup.connections.connected and not draft.lost(
            there, kind="virtual_network_peerings"
        ):
            message = f"the peering is Initiated only: {there} has no side to {here}, so nothing passes"
            fix = f"add 'remote_virtual_network: {here}' to the virtual_network_peerings of {there}"
            yield draft.warning(side.location, message, fix=fix)


def gateway_transit(draft: Draft) -> Iterator[Finding]:
    """Who uses a peer's gateway may do so, has none of its own, and uses one only."""
    gateways = {each.virtual_network: each for each in draft.topology.virtual_network_gateways}
    connected = draft.lookup.connections.connected
    using: dict[str, PeeringSide] = {}
    for side in sides(draft.topology):
        if not side.use_remote_gateways:
            continue
        here, there = side.virtual_network, side.remote_virtual_network
        location = (*side.location, "use_remote_gateways")
        if here in gateways:
            message = f"{here} has a gateway of its own ({gateways[here].name}), so it cannot use that of {there}"
            yield draft.error(location, message, fix="set it to false, or remove the gateway")
        other = connected.get((there, here))
        if other and not other.allow_gateway_transit:
            message = f"{there} does not let {here} use its gateway"
            fix = f"set allow_gateway_transit: true in {there}'s side (a key of virtual_network_peerings)"
            yield draft.error(location, message, fix=fix)
        elif other and there not in gateways and not draft.lost(there, kind="virtual_network_gateways"):
            message = f"{there} has no gateway"
            yield draft.error(
                location, message, fix=f"add one to virtual_network_gateways, in {there}/{GATEWAY_SUBNET}"
            )
        first = using.setdefault(here, side)
        if first is not side:
            message = f"{here} uses the gateway of {first.remote_virtual_network} already"
            yield draft.error(location, message, fix="only one peering of a virtual network may say so")


def gateway_subnets(draft: Draft) -> Iterator[Finding]:
    """A gateway stands in its virtual network's GatewaySubnet, alone."""
    first: dict[str, int] = {}
    for i, gateway in enumerate(draft.topology.virtual_network_gateways):
        location = ("virtual_network_gateways", i, "subnet")
        if gateway.subnet.partition("/")[2] != GATEWAY_SUBNET:
            message = f"{gateway.subnet}: a gateway stands in a subnet named {GATEWAY_SUBNET}"
            yield draft.error(location, message, fix=f"write {network_name(gateway.subnet)}/{GATEWAY_SUBNET}")
        elif gateway.subnet not in draft.lookup.subnet and not draft.lost(
            GATEWAY_SUBNET, network_name(gateway.subnet), kind="subnets"
        ):
            message = f"there is no subnet {gateway.subnet}"
            yield draft.error(location, message, fix=f"add a subnet named {GATEWAY_SUBNET} to the virtual network")
        elif gateway.subnet in first:
            line = draft.line(("virtual_network_gateways", first[gateway.subnet]))
            yield draft.error(
                location, f"{gateway.subnet} has a gateway already, on line {line}", fix="keep one of them"
            )
        first.setdefault(gateway.subnet, i)
    for place in draft.lookup.interfaces:
        if place.interface.subnet.endswith(f"/{GATEWAY_SUBNET}"):
            message = f"{place.machine.name} is in a {GATEWAY_SUBNET}, which is for the gateway alone"
            yield draft.error((*place.location, "subnet"), message, fix="give the machine another subnet")
    for front in draft.lookup.frontends:
        if (front.frontend.subnet or "").endswith(f"/{GATEWAY_SUBNET}"):
            message = f"frontend {front.key} is in a {GATEWAY_SUBNET}, which is for the gateway alone"
            yield draft.error((*front.location, "subnet"), message, fix="give the frontend another subnet")


def gateway_routes(draft: Draft) -> Iterator[Finding]:
    """What Azure warns of: a gateway whose subnet's table takes its traffic or its routes away."""
    for place in draft.lookup.subnets:
        if place.subnet.name != GATEWAY_SUBNET:
            continue
        for i, table in enumerate(draft.topology.route_tables):
            if table.name != place.subnet.route_table:
                continue
            for j, route in enumerate(table.routes):
                if route.address_prefix == _EVERYTHING:
                    message = f"0.0.0.0/0 on {place.key} takes the gateway its way to Azure: it may stop working"
                    fix = "route the prefixes of the spokes instead"
                    yield draft.warning(("route_tables", i, "routes", j), message, fix=fix)
            if table.disable_bgp_route_propagation:
                message = f"without its own routes the gateway in {place.key} does not work in Azure"
                fix = f"give {GATEWAY_SUBNET} a route table of its own"
                yield draft.warning(("route_tables", i, "disable_bgp_route_propagation"), message, fix=fix)


def local_network_names(draft: Draft) -> Iterator[Finding]:
    """A local network gateway is connected to a gateway, and no machine has its name."""
    gateways = [each.name for each in draft.topology.virtual_network_gateways]
    machines = {each.name: i for i, each in reversed(list(enumerate(draft.topology.machines)))}
    for i, place in enumerate(draft.topology.local_network_gateways):
        here: Location = ("local_network_gateways", i)
        name = place.virtual_network_gateway
        if name not in gateways and not draft.lost(name, kind="virtual_network_gateways"):
            fix = suggestion(name, gateways, "virtual_network_gateways")
            yield draft.error((*here, "virtual_network_gateway"), f"there is no gateway {name!r}", fix=fix)
        if place.name in machines:
            line = draft.line(("machines", machines[place.name]))
            message = f"a machine named {place.name!r} is on line {line}; a local network gateway makes one of its name"
            yield draft.error((*here, "name"), message, fix="give one of them another name")


def local_network_spaces(draft: Draft) -> Iterator[Finding]:
    """What is outside has addresses of its own; inside a virtual network, the system's route would win."""
    connections = draft.lookup.connections
    for i, place in enumerate(draft.topology.local_network_gateways):
        here: Location = ("local_network_gateways", i, "local_network_address_space")
        space = place.local_network_address_space
        if space[0].prefixlen > _SMALLEST:
            message = f"{space[0]} is too small for the machine that stands for {place.name}"
            yield draft.error((*here, 0), message, fix=f"make the first prefix a /{_SMALLEST} or larger")
        for network in draft.topology.virtual_networks:
            if not any(each.name == place.name for each in connections.local_networks(network.name)):
                continue
            for own in network.address_space:
                if space[0].prefixlen <= _SMALLEST and space[0][4] in own:
                    message = f"{space[0][4]}, the machine of {place.name}, is in {network.name} ({own})"
                    yield draft.error((*here, 0), message, fix="put a prefix first that is outside Azure")
                    continue
                for j, prefix in enumerate(space):
                    if inside(prefix, own):
                        message = f"{prefix} is inside {network.name} ({own}), whose own route beats a gateway's"
                        yield draft.warning(
                            (*here, j), message, fix="use a prefix that is outside the virtual networks"
                        )
