"""The benchmarks' own parts: the documents they bring up, and how they judge a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench import documents
from bench.figures import Figure, percentile
from testbed.plan.compile import compile_plan
from testbed.plan.numbers import Numbers
from testbed.topology.model import Topology

if TYPE_CHECKING:
    from testbed.plan.model import Plan


def plan_of(document: dict[str, object]) -> Plan:
    """Compile a document that never was a file."""
    return compile_plan(Topology.model_validate(document), "bench", Numbers({}), "/nowhere")


def test_many_machines_are_spread_over_four_subnets() -> None:
    """100 machines sit in two virtual networks, 25 in each of four subnets, with addresses of their own."""
    plan = plan_of(documents.many_machines("bench", 100))
    interfaces = [each for machine in plan.machines for each in machine.network_interfaces]
    subnets = [f"{each.virtual_network}/{each.subnet}" for each in interfaces]
    assert {subnet: subnets.count(subnet) for subnet in subnets} == {
        "vnet1/subnet1": 25,
        "vnet1/subnet2": 25,
        "vnet2/subnet1": 25,
        "vnet2/subnet2": 25,
    }
    assert len({each.address for each in interfaces}) == 100


def test_each_member_is_probed_once_per_rule() -> None:
    """Ten rules over ten members are a hundred probes, every one at Azure's shortest interval."""
    rules = plan_of(documents.many_probes("bench", 10, 10)).rules
    assert sum(len(rule.members) for rule in rules) == 100
    assert len({rule.frontend_address for rule in rules}) == 10
    assert {rule.probe.interval_in_seconds for rule in rules if rule.probe} == {5}


def test_both_paths_differ_in_the_next_hop_only() -> None:
    """What is compared is the balancer against a route to the first NVA, all else being equal."""
    balanced = documents.hub_and_spokes("bench", 2, "10.0.2.4")
    static = documents.hub_and_spokes("bench", 2, "10.0.1.4")
    assert {key for key in balanced if balanced[key] != static[key]} == {"route_tables"}


@pytest.mark.parametrize(
    ("figure", "kept"),
    [
        (Figure("time", 2.0, "s", promise=2.0), True),
        (Figure("time", 2.1, "s", promise=2.0), False),
        (Figure("rate", 2.1, "/s", promise=2.0, at_least=True), True),
        (Figure("rate", 1.9, "/s", promise=2.0, at_least=True), False),
        (Figure("size", 7.0, "MB"), None),
    ],
)
def test_a_promise_has_a_good_side(figure: Figure, kept: bool | None) -> None:  # noqa: FBT001 - a parameter set
    """A time is kept below its bound, a rate above it, and a bare number has nothing to keep."""
    assert figure.kept is kept
    assert ("BROKEN" in str(figure)) is (kept is False)


def test_the_percentile_leaves_its_share_below() -> None:
    """The 99th percentile of a hundred values is the largest one."""
    assert percentile([float(value) for value in range(100)], 0.99) == 99
