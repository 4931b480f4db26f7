"""Members whose probe flaps are held down for longer (row 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from documents import hub_spoke
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab

_TRIES = 10


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(hub_spoke())


def falls(lab: Lab) -> None:
    """Let nva1's probe fail and be good again; the member may not be back yet."""
    lab.fault("nva1", "probe-down")
    lab.wait_member("nva1", healthy=False)
    lab.recover("nva1")


def holds(lab: Lab) -> list[float]:
    """Until when nva1 was held down, each time."""
    return [each.fields["until"] for each in lab.events() if each.event == "hold-down"]


@fact(row=15, balancer=False)
def test_a_flapping_member_is_held_down(lab: Lab) -> None:
    """Flapping probes: the platform waits longer before it brings the instance back, on purpose; no numbers are given.

    Source: azure.md §3, "Azure Load Balancer health probes"
    Note: The lab's numbers: a member that falls again after less than 10 probe intervals of being up has had a short
    life. Of such a row, two falls are free; then the return waits 2 intervals, then 4, 8 and 16.
    """
    for tries in range(_TRIES):
        falls(lab)
        if tries < 2:
            lab.wait_member("nva1", healthy=True)
            assert holds(lab) == []
            continue
        # A slow computer may have given it a long life in between, which is none that counts.
        lab.wait("nva1 is back or held", lambda: holds(lab) or lab.member("nva1").healthy)
        if holds(lab):
            break
    held = lab.member("nva1")
    if not held.healthy:  # it may be over already
        assert (held.eligible, held.held_until) == (False, holds(lab)[0])
        assert "HTTP 200, held down until " in held.detail
    back = lab.wait_member("nva1", healthy=True)
    assert back.since is not None
    assert back.since >= holds(lab)[0]
    assert back.held_until is None


@fact(row=15, state="switchable", balancer=False)
def test_no_hold_down_where_the_switch_says_so(lab: Lab) -> None:
    """How long the platform waits for a flapping instance is not documented.

    Source: azure.md §3, "Azure Load Balancer health probes"
    Note: `switches: {probe_hold_down: false}` brings it back at once, however often it falls.
    """
    before = holds(lab)
    lab.up(hub_spoke() | {"switches": {"probe_hold_down": False}})
    for _ in range(5):
        falls(lab)
        lab.wait_member("nva1", healthy=True)
    assert holds(lab) == before
