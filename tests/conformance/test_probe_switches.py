"""What Azure's documents on probes disagree about, and machines that are stopped (row 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from documents import hub_spoke
from facts import fact

from testbed.probes.config import PROBE_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab

INTERVAL = 5


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    """Each test makes of it what it needs."""
    return labs(hub_spoke(1))


def seconds_to_fall(lab: Lab) -> float:
    """From the first failed probe of nva1 to its fall, in the document's seconds."""
    before = len(lab.events())
    lab.fault("nva1", "crash")
    lab.wait_member("nva1", healthy=False)
    events = lab.events()[before:]
    lab.recover("nva1")
    failed = next(each.time for each in events if each.event == "probe" and each.fields["result"] != "success")
    fell = next(each.time for each in events if each.event == "health" and not each.fields["healthy"])
    return (fell - failed) / lab.timing.scale


def tcp_probe() -> dict[str, Any]:
    """With the old count."""
    return {"protocol": "Tcp", "request_path": None, "number_of_probes": 3}


@fact(row=13, balancer=False)
def test_number_of_probes_has_no_effect(lab: Lab) -> None:
    """`number_of_probes` is not respected: an instance changes its state after one probe, whatever it says.

    Source: azure.md §3, "What's new in Azure Load Balancer"
    """
    outcome = lab.up(hub_spoke(1, probe=tcp_probe()))
    assert any("number_of_probes" in each.message for each in outcome.warnings)
    assert seconds_to_fall(lab) < INTERVAL / 2


@fact(row=13, state="switchable", balancer=False)
def test_number_of_probes_where_the_switch_says_so(lab: Lab) -> None:
    """Architecture guides count with three failed probes, though the count is not respected.

    Source: azure.md §10, "Highly available network virtual appliances"
    Note: `switches: {number_of_probes: Respected}` takes it for `probe_threshold` where that is not given.
    """
    lab.up(hub_spoke(1, probe=tcp_probe()) | {"switches": {"number_of_probes": "Respected"}})
    assert seconds_to_fall(lab) > INTERVAL


@fact(row=13, state="switchable", balancer=False)
@pytest.mark.parametrize(
    ("switch", "seconds"), [("Interval", INTERVAL), ("ThirtySeconds", 30), ("ThirtyOneSeconds", 31)]
)
def test_the_timeout_of_http_probes(lab: Lab, switch: str, seconds: int) -> None:
    """An HTTP probe waits for its answer 31 s (2018), 30 s (2023), or the interval and at most 30 s (today).

    Source: azure.md §3, "Azure Load Balancer health probes"
    Note: The smaller of the two; `switches: {http_probe_timeout: ThirtySeconds}` or `ThirtyOneSeconds` are the others.
    """
    lab.up(hub_spoke(1) | {"switches": {"http_probe_timeout": switch}})
    lab.fault("nva1", "probe-silent")
    detail = lab.wait_member("nva1", healthy=False).detail
    lab.recover("nva1")
    value, unit = detail.removeprefix("timeout after ").split()
    assert float(value) / (1000 if unit == "ms" else 1) == pytest.approx(seconds * lab.timing.scale)


@fact(row=13, balancer=False)
def test_stopped_machines_are_not_probed(lab: Lab) -> None:
    """Stopped virtual machines are not probed.

    Source: azure.md §3, "Azure Load Balancer health probes" (2023)
    Note: What the lab has crashed is probed until its probe has failed, as the platform's host would notice; then no
    more, until it is started again.
    """
    lab.up(hub_spoke(1))
    lab.fault("nva1", "crash")
    lab.wait_member("nva1", healthy=False)
    assert lab.member("nva1").detail == "stopped"
    with lab.tap("nva1") as tap:
        assert not lab.connects("web1", "10.2.0.4")  # several intervals
        assert not [each for each in tap.packets() if each.source == PROBE_SOURCE]
    lab.recover("nva1")
    lab.wait_member("nva1", healthy=True)


@fact(row=13, state="switchable")
@pytest.mark.parametrize(("switch", "go_on"), [("FlowsEnd", False), ("FlowsContinue", True)])
def test_a_pool_of_one_that_is_down(lab: Lab, switch: str, go_on: bool) -> None:  # noqa: FBT001
    """All down: established TCP goes on if the pool has more than one instance; for a pool of one nothing is said.

    Source: azure.md §3, "Azure Load Balancer health probes"
    Note: It ends; with `switches: {single_instance_all_down: FlowsContinue}` it goes on.
    """
    lab.up(hub_spoke(1) | {"switches": {"single_instance_all_down": switch}})
    with lab.tcp("web1", "10.2.0.4") as connection:
        assert lab.echoes(connection)
        lab.fault("nva1", "probe-down")
        try:
            lab.wait_member("nva1", healthy=False)
            assert lab.echoes(connection) is go_on
            assert not lab.connects("web1", "10.2.0.4")
        finally:
            lab.recover("nva1")
