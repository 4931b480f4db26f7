"""Members that flap are held down: the numbers, and what they mean for health."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from testbed.probes.flapping import CALM, LONGEST, TOLERATED, Flapping
from testbed.probes.health import MemberHealth, ProbeResult, ResultKind

INTERVAL = 5.0
LIVES = st.lists(st.floats(0, 3 * CALM * INTERVAL), max_size=30)
RESULTS = st.lists(st.booleans(), max_size=120)


class _Clock:
    """Moves one interval with every probe."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _probe(health: MemberHealth, clock: _Clock, *, good: bool) -> bool:
    clock.now += INTERVAL
    kind = ResultKind.SUCCESS if good else ResultKind.WRONG_STATUS
    return health.observe(ProbeResult(kind, "", 0.0))


def _member(clock: _Clock, interval: float | None = INTERVAL) -> MemberHealth:
    return MemberHealth("Http", 1, clock, interval=interval)


def test_the_documented_numbers() -> None:
    """Two falls are free; then a return waits 2, 4, 8, 16 and again 16 intervals; a calm life ends the row."""
    flapping = Flapping(INTERVAL)
    holds = []
    for _ in range(7):
        flapping.fell(0)
        holds.append(flapping.hold / INTERVAL)
    assert holds == [0, 0, 2, 4, 8, 16, 16]
    flapping.fell(CALM * INTERVAL)
    assert flapping.hold == 0


@given(LIVES)
def test_a_hold_is_bounded_and_never_for_calm_members(lives: list[float]) -> None:
    """No hold is longer than the longest; none comes before the third short life in a row."""
    flapping = Flapping(INTERVAL)
    row = 0
    for lived in lives:
        flapping.fell(lived)
        row = 1 if lived >= CALM * INTERVAL else row + 1
        assert 0 <= flapping.hold <= LONGEST * INTERVAL
        assert (flapping.hold > 0) == (row > TOLERATED)


def test_a_held_member_comes_back_when_its_time_is_over() -> None:
    """After the third fall it is down for two intervals of good probes, and says until when."""
    clock = _Clock()
    health = _member(clock)
    for good in (True, False, True, False, True, False):
        assert _probe(health, clock, good=good)
    assert not _probe(health, clock, good=True)
    assert health.held_until == clock.now + 2 * INTERVAL
    assert not _probe(health, clock, good=True)
    assert _probe(health, clock, good=True)
    assert health.healthy
    assert vars(health)["held_until"] is None


def test_a_failure_ends_a_hold() -> None:
    """A member that fails while it is held begins its hold anew, and has not fallen once more."""
    clock = _Clock()
    health = _member(clock)
    for good in (True, False, True, False, True, False, True, False):
        _probe(health, clock, good=good)
    assert health.held_until is None
    _probe(health, clock, good=True)
    assert health.held_until == clock.now + 2 * INTERVAL


@given(RESULTS)
def test_holding_only_delays_returns(results: list[bool]) -> None:
    """A member that is held down is never up when one that is not held is down; falls are as quick."""
    clock, other_clock = _Clock(), _Clock()
    held, free = _member(clock), _member(other_clock, None)
    for good in results:
        was_up = held.healthy
        _probe(held, clock, good=good)
        _probe(free, other_clock, good=good)
        assert free.healthy or not held.healthy
        assert not was_up or held.healthy == good
        assert (held.held_until is not None) == (bool(free.healthy) and held.healthy is False)


@given(RESULTS)
def test_steady_probes_bring_everybody_back(results: list[bool]) -> None:
    """Whatever was before: after the longest hold of good probes a member is up."""
    clock = _Clock()
    health = _member(clock)
    for good in (*results, *(True for _ in range(LONGEST + 1))):
        _probe(health, clock, good=good)
    assert health.healthy
