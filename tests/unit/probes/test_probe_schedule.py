"""Probe schedules."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from testbed.probes.schedule import lateness, next_due, phases


@given(st.integers(1, 200), st.floats(0.01, 100))
def test_phases_are_spread_evenly(count: int, interval: float) -> None:
    """N probes of one interval start at N different times, an N-th of the interval apart, all within it."""
    starts = phases((interval,) * count)
    assert len(set(starts)) == count
    assert all(0 <= start < interval for start in starts)
    gaps = [after - before for before, after in pairwise(starts)]
    assert all(abs(gap - interval / count) < 1e-9 * interval for gap in gaps)


def test_no_targets_have_no_phases() -> None:
    """A lab without probes has an empty schedule."""
    assert phases(()) == ()


@given(st.integers(0, 1000), st.integers(0, 100_000))
def test_due_times_stay_on_the_grid(steps: int, late_ms: int) -> None:
    """However late a probe ends, the next is the first whole number of intervals that was not missed."""
    interval = 0.125
    previous = steps * interval
    now = previous + late_ms / 1024
    due = next_due(previous, interval, now)
    assert ((due - previous) / interval).is_integer()
    assert due > now - 0.11 * interval
    assert due == previous + interval or due - interval < now - 0.09 * interval


def test_a_probe_that_timed_out_does_not_cost_the_next_one() -> None:
    """When a probe takes its whole interval and a little, the next is due at once, not an interval later."""
    assert next_due(10.0, 1.0, 11.05) == 11.0
    assert next_due(10.0, 1.0, 11.2) == 12.0


def test_a_late_probe_keeps_most_of_its_time() -> None:
    """A little lateness is taken from the timeout; a long stop of the process takes a tenth, not all."""
    assert lateness(10.0, 1.0, 9.9) == 0.0
    assert lateness(10.0, 1.0, 10.0625) == 0.0625
    assert lateness(10.0, 1.0, 100.0) == 0.1
