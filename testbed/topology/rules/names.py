"""Names: each thing has one of its own, and none that the lab needs itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.model import (
        BackendAddressPool,
        FrontendIPConfiguration,
        LoadBalancer,
        LoadBalancingRule,
        LocalNetworkGateway,
        Machine,
        Probe,
        Route,
        RouteTable,
        Subnet,
        VirtualNetwork,
        VirtualNetworkGateway,
        VirtualNetworkPeering,
    )
    from testbed.topology.nodes import Location
    from testbed.topology.security import NetworkSecurityGroup, SecurityRule

    Named = (
        BackendAddressPool
        | FrontendIPConfiguration
        | LoadBalancer
        | LoadBalancingRule
        | LocalNetworkGateway
        | Machine
        | NetworkSecurityGroup
        | Probe
        | Route
        | RouteTable
        | SecurityRule
        | Subnet
        | VirtualNetwork
        | VirtualNetworkGateway
        | VirtualNetworkPeering
    )

__all__ = ["RESERVED", "duplicate_names", "reserved_names"]

#: Machine names the lab uses for its own namespaces and files.
RESERVED = {
    "controller": "the process that probes the pool members",
    "dhcp": "the process that gives machines with a kernel of their own their addresses",
    "fabric": "the namespace that stands for Azure's network",
    "keeper": "the process that watches the containers",
    "internet": "the machine outside the trusted space; it comes with the key 'internet'",
}


def duplicate_names(draft: Draft) -> Iterator[Finding]:
    """A name counts in its list: two route tables may not share one, a subnet and a machine may."""
    topology = draft.topology
    yield from _duplicates(draft, ("virtual_networks",), topology.virtual_networks, "virtual network")
    for i, network in enumerate(topology.virtual_networks):
        yield from _duplicates(draft, ("virtual_networks", i, "subnets"), network.subnets, "subnet")
        here = ("virtual_networks", i, "virtual_network_peerings")
        yield from _duplicates(draft, here, network.virtual_network_peerings, "peering")
    gateways = topology.virtual_network_gateways
    yield from _duplicates(draft, ("virtual_network_gateways",), gateways, "virtual network gateway")
    places = topology.local_network_gateways
    yield from _duplicates(draft, ("local_network_gateways",), places, "local network gateway")
    yield from _duplicates(draft, ("route_tables",), topology.route_tables, "route table")
    for i, table in enumerate(topology.route_tables):
        yield from _duplicates(draft, ("route_tables", i, "routes"), table.routes, "route")
    yield from _duplicates(
        draft, ("network_security_groups",), topology.network_security_groups, "network security group"
    )
    for i, group in enumerate(topology.network_security_groups):
        where = ("network_security_groups", i, "security_rules")
        yield from _duplicates(draft, where, group.security_rules, "security rule")
    yield from _duplicates(draft, ("load_balancers",), topology.load_balancers, "load balancer")
    for i, balancer in enumerate(topology.load_balancers):
        parts: tuple[tuple[str, Sequence[Named], str], ...] = (
            ("frontend_ip_configurations", balancer.frontend_ip_configurations, "frontend"),
            ("backend_address_pools", balancer.backend_address_pools, "backend address pool"),
            ("probes", balancer.probes, "probe"),
            ("load_balancing_rules", balancer.load_balancing_rules, "load-balancing rule"),
        )
        for key, items, kind in parts:
            yield from _duplicates(draft, ("load_balancers", i, key), items, kind)
    yield from _duplicates(draft, ("machines",), topology.machines, "machine")


def _duplicates(draft: Draft, location: Location, items: Sequence[Named], kind: str) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if item.name in first:
            line = draft.line((*location, first[item.name]))
            message = f"a {kind} named {item.name!r} is already defined on line {line}"
            yield draft.error((*location, index, "name"), message, fix=f"give this {kind} a name of its own")
        first.setdefault(item.name, index)


def reserved_names(draft: Draft) -> Iterator[Finding]:
    """The lab has namespaces and files of its own next to those of the machines."""
    kinds: tuple[tuple[str, Sequence[Machine | LocalNetworkGateway]], ...] = (
        ("machines", draft.topology.machines),
        ("local_network_gateways", draft.topology.local_network_gateways),
    )
    for key, items in kinds:
        for index, each in enumerate(items):
            if each.name in RESERVED:
                message = f"a machine cannot be named {each.name!r}: that is {RESERVED[each.name]}"
                yield draft.error((key, index, "name"), message, fix=f"name it otherwise, e.g. {each.name}1")
