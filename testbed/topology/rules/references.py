"""References: what is named elsewhere exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.topology.lookup import network_name
from testbed.topology.wording import suggestion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.nodes import Location

__all__ = ["balancer_references", "peering_ends", "pool_references", "subnet_references", "table_references"]


def _unknown(draft: Draft, location: Location, name: str, names: Collection[str], kind: str) -> Iterator[Finding]:
    """``kind`` is the key of the list that should hold it."""
    if name not in names and not draft.lost(name, kind=kind):
        word = {"virtual_networks": "virtual network", "route_tables": "route table", "probes": "probe"}.get(kind)
        word = word or {"frontend_ip_configurations": "frontend"}.get(kind, "backend address pool")
        yield draft.error(location, f"there is no {word} {name!r}", fix=suggestion(name, names, kind))


def peering_ends(draft: Draft) -> Iterator[Finding]:
    """A peering joins two virtual networks that exist, once."""
    networks = draft.lookup.networks
    first: dict[frozenset[str], int] = {}
    for i, peering in enumerate(draft.topology.peerings):
        location = ("peerings", i, "between")
        for j, name in enumerate(peering.between):
            yield from _unknown(draft, (*location, j), name, networks, "virtual_networks")
        ends = frozenset(peering.between)
        if len(ends) == 1:
            message = f"{peering.between[0]} is peered with itself"
            yield draft.error(location, message, fix="name two virtual networks")
        elif ends in first:
            line = draft.line(("peerings", first[ends]))
            message = f"{' and '.join(peering.between)} are already peered on line {line}"
            yield draft.error(location, message, fix="keep one of the two; an entry stands for both sides")
        first.setdefault(ends, i)


def table_references(draft: Draft) -> Iterator[Finding]:
    """A subnet's route table exists."""
    tables = [each.name for each in draft.topology.route_tables]
    for place in draft.lookup.subnets:
        if place.subnet.route_table:
            location = (*place.location, "route_table")
            yield from _unknown(draft, location, place.subnet.route_table, tables, "route_tables")


def subnet_references(draft: Draft) -> Iterator[Finding]:
    """The subnets of network interfaces and frontends exist."""
    for interface in draft.lookup.interfaces:
        yield from _subnet(draft, (*interface.location, "subnet"), interface.interface.subnet)
    for front in draft.lookup.frontends:
        if front.frontend.subnet:
            yield from _subnet(draft, (*front.location, "subnet"), front.frontend.subnet)


def _subnet(draft: Draft, location: Location, reference: str) -> Iterator[Finding]:
    if reference in draft.lookup.subnet or draft.lost(reference.partition("/")[2], kind="subnets"):
        return
    name = network_name(reference)
    if name not in draft.lookup.networks:
        if not draft.lost(name, kind="virtual_networks"):
            fix = suggestion(name, draft.lookup.networks, "virtual_networks")
            yield draft.error(location, f"{reference}: there is no virtual network {name!r}", fix=fix)
        return
    subnets = [each.key for each in draft.lookup.subnets if each.network.name == name]
    message = f"virtual network {name!r} has no subnet {reference.partition('/')[2]!r}"
    yield draft.error(location, message, fix=suggestion(reference, subnets, f"the subnets of {name}"))


def pool_references(draft: Draft) -> Iterator[Finding]:
    """The pools that network interfaces join exist, and each is joined once."""
    pools = [
        f"{balancer.name}/{pool.name}"
        for balancer in draft.topology.load_balancers
        for pool in balancer.backend_address_pools
    ]
    for place in draft.lookup.configurations:
        seen: set[str] = set()
        for j, reference in enumerate(place.pools):
            location = (*place.location, "backend_address_pools", j)
            balancer, _, pool = reference.partition("/")
            lost = draft.lost(balancer, kind="load_balancers") or draft.lost(pool, kind="backend_address_pools")
            if reference not in pools and not lost:
                message = f"there is no backend address pool {reference!r}"
                yield draft.error(location, message, fix=suggestion(reference, pools, "a load balancer"))
            if reference in seen:
                message = f"the network interface is in {reference} already"
                yield draft.error(location, message, fix="name each pool once")
            seen.add(reference)


def balancer_references(draft: Draft) -> Iterator[Finding]:
    """A rule's frontend, pool and probe are of the same load balancer."""
    for place in draft.lookup.rules:
        balancer, rule = place.balancer, place.rule
        wanted = [
            (
                "frontend_ip_configuration",
                rule.frontend_ip_configuration,
                [each.name for each in balancer.frontend_ip_configurations],
                "frontend_ip_configurations",
            ),
            (
                "backend_address_pool",
                rule.backend_address_pool,
                [each.name for each in balancer.backend_address_pools],
                "backend_address_pools",
            ),
        ]
        if rule.probe:
            wanted.append(("probe", rule.probe, [each.name for each in balancer.probes], "probes"))
        for key, name, names, kind in wanted:
            yield from _unknown(draft, (*place.location, key), name, names, kind)
