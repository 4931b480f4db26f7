"""Waiting for a condition with a deadline; the one place of the testbed where time just passes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

from testbed.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["wait_for"]

T = TypeVar("T")


def wait_for(
    what: str,
    observe: Callable[[], T],
    accept: Callable[[T], bool] = bool,
    *,
    seconds: float,
    interval: float = 0.01,
    describe: Callable[[T], str] = repr,
) -> T:
    """Observe until the observation is accepted, and return it.

    Args:
        what: The condition in words, for the message.
        observe: Looks at the state; called at least once.
        accept: Whether the state is the wanted one.
        seconds: How long to wait at most.
        interval: Pause between two looks, in seconds.
        describe: Turns the last state into text.

    Raises:
        DeadlineError: The time is up; the message holds the last state.
    """
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while True:
        state = observe()
        if accept(state):
            return state
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"{what}: not within {seconds:g} s; last seen: {describe(state)}")
        pause.wait(min(interval, left))
