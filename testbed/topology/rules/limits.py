"""Limits that Azure documents: of HA Ports rules, by the edition of their overview, and of how many there may be.

``azure_behaviour`` chooses the edition: that of the preview (2017), or the current one. Limits that all editions share
are with the rules for load balancers (:mod:`testbed.topology.rules.balancing`). Numbers are those of "Azure Load
Balancer limits" for the Standard SKU.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations
from typing import TYPE_CHECKING

from testbed.topology.model import AzureBehaviour
from testbed.topology.runtimes import NamespaceRuntime, SourceNat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.lookup import RulePlace
    from testbed.topology.model import Machine
    from testbed.topology.nodes import Location

__all__ = [
    "alone_on_its_balancer",
    "alone_on_its_instances",
    "counts",
    "mixed_pools_of_the_preview",
    "preview_access",
    "symmetry_of_several_frontends",
    "symmetry_of_several_interfaces",
]

_BALANCERS = 1_000
_FRONTENDS = 600
_RULES = 1_500
_RULES_OF_AN_INTERFACE = 300
_MEMBERS = 5_000
_CONFIGURATIONS_OF_A_FRONTEND = 10_000
_CONFIGURATIONS = 500_000


def _preview(draft: Draft) -> bool:
    return draft.topology.azure_behaviour == AzureBehaviour.PREVIEW_2017


def preview_access(draft: Draft) -> Iterator[Finding]:
    """In the preview, a subscription had to ask for HA Ports."""
    if _preview(draft) and any(each.ha_ports for each in draft.lookup.rules):
        message = "in the preview of 2017 a subscription cannot have HA Ports rules until it has registered for them"
        fix = "register feature Microsoft.Network/AllowILBAllPortsRule there; or write azure_behaviour: current"
        yield draft.warning(("azure_behaviour",), message, fix=fix)


def mixed_pools_of_the_preview(draft: Draft) -> Iterator[Finding]:
    """In the preview, floating IP does not let HA Ports rules share a pool with others."""
    if not _preview(draft):
        return
    for first, second in draft.lookup.rule_pairs():
        floating = first.rule.enable_floating_ip and second.rule.enable_floating_ip
        if first.pool == second.pool and first.ha_ports != second.ha_ports and floating:
            message = (
                f"in the preview of 2017 pool {second.rule.backend_address_pool!r} cannot be used by HA Ports "
                f"and by other rules, floating or not ({first.rule.name!r}, {second.rule.name!r})"
            )
            fix = "give each kind of rule a pool of its own, or write azure_behaviour: current"
            yield draft.error((*second.location, "backend_address_pool"), message, fix=fix)


def _strict(place: RulePlace) -> bool:
    return place.ha_ports and not place.rule.enable_floating_ip


def alone_on_its_balancer(draft: Draft) -> Iterator[Finding]:
    """Since 2018: an HA Ports rule without floating IP is the only rule of its load balancer for an IP version."""
    if _preview(draft):
        return
    together = {frozenset(pools) for each in draft.lookup.configurations for pools in combinations(set(each.pools), 2)}
    alone = [each for each in draft.lookup.rules if _strict(each)]
    for strict, other in ((one, each) for one in alone for each in draft.lookup.rules if each.balancer is one.balancer):
        if other is strict or (_strict(other) and other.location < strict.location):
            continue
        if draft.lookup.version(strict) != draft.lookup.version(other):
            continue  # those of the two IP versions are independent
        apart = strict.pool != other.pool and strict.frontend != other.frontend
        if not apart or frozenset((strict.pool, other.pool)) in together:
            continue  # what shares a pool, a frontend or a network interface is an error, and reported for that
        message = (
            f"HA Ports rule {strict.rule.name!r} has floating IP disabled, and then Azure supports no other rule "
            f"on load balancer {strict.balancer.name!r}; {other.rule.name!r} is one"
        )
        fix = "set enable_floating_ip: true on both rules, or use another load balancer"
        yield draft.warning(other.location, message, fix=fix)


def alone_on_its_instances(draft: Draft) -> Iterator[Finding]:
    """Since 2018: what an HA Ports rule without floating IP reaches is behind no other internal load balancer."""
    if _preview(draft):
        return
    strict = {each.pool: each for each in draft.lookup.rules if _strict(each)}
    for i, machine in enumerate(draft.topology.machines):
        if any(len({each.partition("/")[0] for each in pools}) > 1 for pools in _pools(machine)):
            continue  # one of its network interfaces has two, which is an error
        pools = [pool for pools in _pools(machine) for pool in pools]
        balancers = {pool.partition("/")[0] for pool in pools}
        mine = next((strict[pool] for pool in pools if pool in strict), None)
        if mine and len(balancers) > 1:
            others = ", ".join(sorted(balancers - {mine.balancer.name}))
            message = (
                f"HA Ports rule {mine.rule.name!r} has floating IP disabled, and then Azure supports no other "
                f"internal load balancer for {machine.name}, on any of its network interfaces; it is behind {others}"
            )
            fix = "set enable_floating_ip: true on the rules of both, or use one load balancer"
            yield draft.warning(("machines", i, "network_interfaces"), message, fix=fix)


def _pools(machine: Machine) -> list[tuple[str, ...]]:
    return [each.backend_address_pools for each in machine.network_interfaces]


def _appliances(draft: Draft) -> Iterator[tuple[Location, Machine]]:
    """Machines that forward what an HA Ports rule gives them."""
    pools = {each.pool for each in draft.lookup.rules if each.ha_ports}
    for i, machine in enumerate(draft.topology.machines):
        if any(
            each.enable_ip_forwarding and not pools.isdisjoint(each.backend_address_pools)
            for each in machine.network_interfaces
        ):
            yield ("machines", i, "network_interfaces"), machine


def symmetry_of_several_interfaces(draft: Draft) -> Iterator[Finding]:
    """In 2017 one appliance for both directions was promised to those with a single network interface."""
    for location, machine in _appliances(draft):
        if _preview(draft) and len(machine.network_interfaces) > 1:
            yield draft.warning(
                location,
                f"{machine.name} has {len(machine.network_interfaces)} network interfaces: in the preview of 2017 "
                "Azure does not promise that both directions of a flow cross the same appliance",
                fix="use one network interface, or source NAT on the appliance",
            )


def symmetry_of_several_frontends(draft: Draft) -> Iterator[Finding]:
    """Today several network interfaces are fine, as long as one frontend and pool decide on both directions."""
    frontends_of: defaultdict[str, set[str]] = defaultdict(set)
    for place in draft.lookup.rules:
        if place.ha_ports:
            frontends_of[place.pool].add(place.frontend)
    for location, machine in _appliances(draft):
        runtime = machine.runtime
        translates = isinstance(runtime, NamespaceRuntime) and runtime.source_nat == SourceNat.ALL
        sides = [set().union(*(frontends_of[each] for each in pools)) for pools in _pools(machine)]
        frontends = sorted(set().union(*sides))
        if _preview(draft) or translates or len(frontends) < 2 or sum(map(bool, sides)) < 2:
            continue
        message = (
            f"{machine.name} gets flows of {len(frontends)} frontends ({', '.join(frontends)}) on several network "
            "interfaces: each frontend chooses on its own, so the directions of a flow can cross different appliances"
        )
        fix = "use one frontend for both directions, or source NAT on the appliance (source_nat: all)"
        yield draft.warning(location, message, fix=fix)


def counts(draft: Draft) -> Iterator[Finding]:
    """How many there may be of what."""
    for location, number, what, most, code in _counted(draft):
        if number > most:
            message = f"{number:,} {what}: Azure's limit is {most:,}"
            yield draft.error(location, message, fix=f"use at most {most:,}", code=code)


def _counted(draft: Draft) -> Iterator[tuple[Location, int, str, int, str | None]]:
    balancers = draft.topology.load_balancers
    yield ("load_balancers",), len(balancers), "load balancers in a region", _BALANCERS, None
    rules_of_a_pool = Counter(each.pool for each in draft.lookup.rules)
    configurations: defaultdict[str, int] = defaultdict(int)
    for rule in draft.lookup.rules:
        configurations[rule.frontend] += len(draft.lookup.members(rule.pool))
    for i, balancer in enumerate(balancers):
        here: Location = ("load_balancers", i)
        frontends = balancer.frontend_ip_configurations
        yield (*here, "frontend_ip_configurations"), len(frontends), "frontends of a load balancer", _FRONTENDS, None
        rules = balancer.load_balancing_rules
        yield (*here, "load_balancing_rules"), len(rules), "rules of a load balancer", _RULES, None
        for j, pool in enumerate(balancer.backend_address_pools):
            members = len(draft.lookup.members(f"{balancer.name}/{pool.name}"))
            yield (*here, "backend_address_pools", j), members, "members of a pool", _MEMBERS, None
        reached = [configurations[f"{balancer.name}/{each.name}"] for each in frontends]
        for j, number in enumerate(reached):
            what = "members behind the rules of a frontend, once for each rule"
            frontend = (*here, "frontend_ip_configurations", j)
            yield frontend, number, what, _CONFIGURATIONS_OF_A_FRONTEND, None
        what = "members behind all frontends of a load balancer, once for each rule"
        yield here, sum(reached), what, _CONFIGURATIONS, None
    for place in draft.lookup.interfaces:
        number = sum(rules_of_a_pool[pool] for pool in dict.fromkeys(place.all_pools))
        code = "LoadBalancerRuleCountLimitReachedForNic"
        yield place.location, number, "rules that reach a network interface", _RULES_OF_AN_INTERFACE, code
