"""Effective security rules of a lab that is up, with what they have decided so far."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.kernel import namespaces, nft
from testbed.plan.compile import interface_numbers
from testbed.plan.numbers import Numbers
from testbed.plan.security import Securities
from testbed.plan.security_ruleset import SECURITY_TABLE, counter_name
from testbed.topology.security import SecurityRuleDirection

if TYPE_CHECKING:
    from testbed.plan.model import NetworkInterface, Plan
    from testbed.plan.security import EffectiveGroup, EffectiveRule
    from testbed.topology.model import Topology

__all__ = ["InterfaceRules", "RuleCount", "security_rules"]


@dataclass(frozen=True, slots=True)
class RuleCount:
    """A rule with its ``hits``: flows that it let pass, or packets that it dropped."""

    group: EffectiveGroup
    rule: EffectiveRule
    hits: int


@dataclass(frozen=True, slots=True)
class InterfaceRules:
    """The rules of a network interface, in the order in which a packet meets them; none: everything may pass."""

    interface: NetworkInterface
    rules: tuple[RuleCount, ...]


def security_rules(plan: Plan, topology: Topology, machine: str) -> tuple[InterfaceRules, ...]:
    """The effective rules of each network interface of a machine, inbound first.

    Raises:
        UnknownLabError: There is no such machine.
    """
    hits = _hits(plan)
    securities = Securities(topology, plan)
    interfaces = plan.machine(machine).network_interfaces
    numbers = interface_numbers(interfaces, Numbers(dict(plan.ids)))
    found = []
    for each in interfaces:
        security = securities.of(each.machine, each.address)
        rules = [
            RuleCount(group, rule, hits.get(counter_name(numbers[each.machine, each.name], group, rule), 0))
            for direction in SecurityRuleDirection
            for group in (security.groups_of(direction) if security else ())
            for rule in group.rules_of(direction)
        ]
        found.append(InterfaceRules(each, tuple(rules)))
    return tuple(found)


def _hits(plan: Plan) -> dict[str, int]:
    """Packets counted so far, by counter."""
    with namespaces.entered(plan.fabric), suppress(LabError):  # no such table: no group in the lab
        listed = nft.list_table(f"list counters table {SECURITY_TABLE}")
        return {each["counter"]["name"]: each["counter"]["packets"] for each in listed if "counter" in each}
    return {}
