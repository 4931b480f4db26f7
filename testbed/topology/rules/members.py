"""What a pool says of its members ("Admin state overview")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.topology.model import AdminState
from testbed.topology.wording import one_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.model import BackendAddressPool
    from testbed.topology.nodes import Location

__all__ = ["admin_states", "backend_addresses"]


def _pools(draft: Draft) -> Iterator[tuple[Location, str, BackendAddressPool]]:
    for i, balancer in enumerate(draft.topology.load_balancers):
        for j, pool in enumerate(balancer.backend_address_pools):
            yield ("load_balancers", i, "backend_address_pools", j), f"{balancer.name}/{pool.name}", pool


def backend_addresses(draft: Draft) -> Iterator[Finding]:
    """Each names one member of its pool, and no two the same."""
    for location, key, pool in _pools(draft):
        members = [f"{each.machine.name}/eth{each.location[3]}" for each in draft.lookup.members(key)]
        seen: set[str] = set()
        for k, address in enumerate(pool.load_balancer_backend_addresses):
            place = (*location, "load_balancer_backend_addresses", k, "machine")
            word = address.machine
            meant = [each for each in members if word in (each, each.partition("/")[0])]
            if not meant:
                if draft.lost(word.partition("/")[0], key, kind="machines") or draft.lost(kind="network_interfaces"):
                    continue
                fix = f"use {one_of(tuple(members))}" if members else f"add {key!r} to its backend_address_pools"
                yield draft.error(place, f"{word!r} is not a member of pool {key!r}", fix=fix)
            elif len(meant) > 1:
                message = f"several network interfaces of {word!r} are members of pool {key!r}"
                yield draft.error(place, message, fix=f"use {one_of(tuple(meant))}")
            elif meant[0] in seen:
                yield draft.error(place, f"{meant[0]} is there already", fix="name each member once")
            seen.update(meant)


def admin_states(draft: Draft) -> Iterator[Finding]:
    """They are for rules with a probe."""
    for location, key, pool in _pools(draft):
        rules = [place.rule for place in draft.lookup.rules if place.pool == key]
        if not rules or any(rule.probe for rule in rules):
            continue
        for k, address in enumerate(pool.load_balancer_backend_addresses):
            if address.admin_state is not AdminState.NONE:
                place = (*location, "load_balancer_backend_addresses", k, "admin_state")
                message = "an admin state has no effect: no rule of the pool has a probe"
                yield draft.error(place, message, fix="add 'probe:' to the rule")
