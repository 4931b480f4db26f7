"""What IPVS is told, and what a plan has more because of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from testbed.plan import objects, virtual_services
from testbed.plan.compile import compile_plan
from testbed.plan.describe import describe
from testbed.plan.numbers import Numbers
from testbed.topology.model import Scheduler, Topology

if TYPE_CHECKING:
    from testbed.plan.model import Plan

TOPOLOGIES = Path(__file__).parents[3] / "topologies"
GOLDEN = Path(__file__).parent / "golden"


def plan(name: str, **more: Any) -> Plan:
    document = yaml.safe_load((TOPOLOGIES / f"{name}.yaml").read_text()) | more
    return compile_plan(Topology.model_validate(document), name, Numbers(), f"/run/testbed/{name}")


def test_the_difference_of_the_plans_is_as_recorded() -> None:
    """All that IPVS adds to the plan of a lab with rewriting, and it takes nothing away. UPDATE_GOLDEN=1 writes it."""
    before, after = (
        "\n".join(describe(each) for each in plan("all-ports-app", balancer=name).objects).splitlines()
        for name in ("nftables", "ipvs")
    )
    known, now = set(before), set(after)
    golden = GOLDEN / "all-ports-app-ipvs.txt"
    text = "\n".join(each for each in after if each not in known and "version_" not in each) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text
    assert [each for each in before if each not in now and "version_" not in each] == []


@pytest.mark.parametrize("scheduler", [each.value for each in Scheduler])
def test_who_is_not_eligible_has_no_weight(scheduler: str) -> None:
    """Weights are 1 and 0; with ``fo`` they fall in the order of the document."""
    (rule,) = plan("hub-spoke").rules
    first, second = rule.members
    both = frozenset({first.id, second.id})
    names = [virtual_services.destination(each) for each in rule.members]
    expected = [2, 1] if scheduler == "fo" else [1, 1]
    assert virtual_services.weights(rule, both, scheduler) == dict(zip(names, expected, strict=True))
    assert virtual_services.weights(rule, both - {first.id}, scheduler) == {names[0]: 0, names[1]: 1}
    assert set(virtual_services.weights(rule, frozenset(), scheduler).values()) == {0}


@pytest.mark.parametrize("scheduler", [each.value for each in Scheduler])
def test_datagrams_are_chosen_for_one_by_one(scheduler: str) -> None:
    """UDP services are one-packet services, so least-connection has nothing to count there and takes turns."""
    tcp, udp = virtual_services.services(plan("hub-spoke").rules, scheduler)
    assert (tcp.scheduler, tcp.flags & 4, udp.flags & 4) == (scheduler, 0, 4)
    assert udp.scheduler == {"lc": "rr", "wlc": "wrr"}.get(scheduler, scheduler)
    assert bool(tcp.flags & 0x18) is (scheduler in ("mh", "sh"))


def test_rules_meet_no_flow_of_each_other() -> None:
    """A flow has another destination at each rule, and another one when its member is picked anew."""
    rules = plan("mixed").rules + plan("all-ports-app").rules
    (first, *_), known = rules, {virtual_services.flow_address(each) for each in rules}
    assert virtual_services.flow_address(first, again=True) not in known
    assert len(known) == len({each.id for each in rules})


def test_without_members_nobody_is_asked() -> None:
    """A pool without members has no services: there is nobody to choose, and a plan without them has no such object."""
    made = plan("hub-spoke", balancer="ipvs")
    (services,) = [each for each in made.objects if isinstance(each, objects.VirtualServices)]
    assert len(services.services) == 2
    (rule,) = made.rules
    assert virtual_services.services((replace(rule, members=()),), "mh") == ()
    nobody = plan("hub-spoke", balancer="ipvs", load_balancers=[], route_tables=[{"name": "to-nva", "routes": []}])
    assert not [each for each in nobody.objects if isinstance(each, objects.VirtualServices)]
