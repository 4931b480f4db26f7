"""When each probe is due: spread over the interval, without drift. Pure; times in seconds of one clock."""

from __future__ import annotations

import math

__all__ = ["lateness", "next_due", "phases"]

_LATENESS = 0.1  # of an interval: not more is taken from a probe's timeout


def phases(intervals: tuple[float, ...]) -> tuple[float, ...]:
    """How long after the start each probe is due first: the i-th of N at i/N of its own interval."""
    count = len(intervals)
    return tuple(interval * index / count for index, interval in enumerate(intervals))


def next_due(previous: float, interval: float, now: float) -> float:
    """The next time on the grid of whole intervals that is not yet missed, so nothing drifts or piles up.

    A probe that used its whole interval ends just when the next one is due; being late by up to a tenth of an
    interval is not missing it.
    """
    return previous + max(1, math.ceil((now - previous) / interval - _LATENESS)) * interval


def lateness(due: float, interval: float, now: float) -> float:
    """How much of a probe's timeout is over when it starts now, so that it ends before the next one is due.

    At most a tenth of the interval: after a stop of the whole computer a probe still gets its time.
    """
    return min(max(now - due, 0.0), _LATENESS * interval)
