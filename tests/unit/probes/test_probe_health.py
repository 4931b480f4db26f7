"""The health state machine and the choice of eligible members."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.plan.model import Member, Probe, Rule
from testbed.probes.health import MemberHealth, ProbeResult, ResultKind, eligible_members

GOOD = ResultKind.SUCCESS
SILENT = ResultKind.TIMEOUT
KINDS = st.lists(st.sampled_from(ResultKind), max_size=40)
TCP_KINDS = st.lists(st.sampled_from([kind for kind in ResultKind if kind != "wrong-status"]), max_size=40)
THRESHOLDS = st.integers(1, 5)


def _machine(protocol: str = "Tcp", threshold: int = 2, *, adopted: bool | None = None) -> MemberHealth:
    ticks = count(1)
    return MemberHealth(protocol, threshold, lambda: float(next(ticks)), adopted=adopted)


def _feed(health: MemberHealth, *kinds: ResultKind) -> list[bool | None]:
    states: list[bool | None] = []
    for kind in kinds:
        health.observe(ProbeResult(kind, kind.value, 0.0))
        states.append(health.healthy)
    return states


def test_one_success_after_the_start_is_enough() -> None:
    """The first success makes a member healthy, whatever failed before it and whatever the threshold."""
    assert _feed(_machine(threshold=3), SILENT, SILENT, GOOD) == [False, False, True]


def test_tcp_needs_the_threshold_both_ways() -> None:
    """A TCP member goes down and comes back after as many equal results as the threshold says."""
    states = _feed(_machine(), GOOD, SILENT, GOOD, SILENT, SILENT, GOOD, SILENT, GOOD, GOOD)
    assert states == [True, True, True, True, False, False, False, False, True]


@pytest.mark.parametrize("protocol", ["Http", "Https"])
def test_explicit_http_answers_act_at_once(protocol: str) -> None:
    """Status 503 takes a member down and 200 brings it back with one probe, at any threshold."""
    states = _feed(_machine(protocol, 3), GOOD, ResultKind.WRONG_STATUS, GOOD)
    assert states == [True, False, True]


@pytest.mark.parametrize("kind", [kind for kind in ResultKind if kind not in ("success", "wrong-status")])
def test_http_failures_without_an_answer_are_counted(kind: ResultKind) -> None:
    """Resets, timeouts and garbage take an HTTP member down only at the threshold."""
    assert _feed(_machine("Http", 3), GOOD, kind, kind, kind) == [True, True, True, False]


def test_an_explicit_answer_resets_the_count() -> None:
    """Timeouts before and after an HTTP 200 are not added up."""
    assert _feed(_machine("Http"), GOOD, SILENT, GOOD, SILENT) == [True] * 4


def test_since_is_the_time_of_the_change() -> None:
    """`since` moves when the state changes, and only then."""
    health = _machine(threshold=1)
    _feed(health, GOOD)
    up = health.since
    _feed(health, GOOD)
    assert health.since == up
    _feed(health, SILENT)
    assert health.since > up


def test_an_adopted_member_stays_healthy_until_the_threshold() -> None:
    """A healthy state taken over from an earlier controller is not lost by one bad probe."""
    assert _feed(_machine(adopted=True), SILENT, SILENT) == [True, False]


def test_an_adopted_down_member_is_no_fresh_start() -> None:
    """A member that was down before the controller restarted needs the whole threshold again."""
    assert _feed(_machine(adopted=False), GOOD, GOOD) == [False, True]


@given(TCP_KINDS, THRESHOLDS)
def test_tcp_state_follows_the_last_results(kinds: list[ResultKind], threshold: int) -> None:
    """A TCP member changes only when the last `threshold` results all say so, or with its first success."""
    health = _machine("Tcp", threshold)
    before = health.healthy
    for index, state in enumerate(_feed(health, *kinds)):
        run = kinds[max(0, index + 1 - threshold) : index + 1]
        good = [kind is GOOD for kind in run]
        if GOOD not in kinds[: index + 1]:
            assert state is False
        elif kinds[: index + 1].count(GOOD) == 1 and kinds[index] is GOOD:
            assert state is True
        elif len(good) == threshold and len(set(good)) == 1:
            assert state is good[0]
        else:
            assert state is before
        before = state


@given(KINDS, THRESHOLDS)
def test_http_state_is_the_last_explicit_answer(kinds: list[ResultKind], threshold: int) -> None:
    """An HTTP member is up exactly if its last answer was 200 and fewer than `threshold` failures followed."""
    answers = {ResultKind.SUCCESS, ResultKind.WRONG_STATUS}
    for index, state in enumerate(_feed(_machine("Http", threshold), *kinds)):
        seen = kinds[: index + 1]
        last = max((at for at, kind in enumerate(seen) if kind in answers), default=None)
        failures = index - last if last is not None else 0
        assert state is (last is not None and seen[last] is GOOD and failures < threshold)


@given(KINDS, THRESHOLDS, st.sampled_from(["Tcp", "Http", "Https"]))
def test_observe_tells_exactly_the_changes(kinds: list[ResultKind], threshold: int, protocol: str) -> None:
    """`observe` returns true when, and only when, `healthy` has another value than before."""
    health = _machine(protocol, threshold)
    for kind in kinds:
        before = health.healthy
        assert health.observe(ProbeResult(kind, "", 0.0)) is (health.healthy is not before)


def _rule(behavior: str | None, members: int = 3) -> Rule:
    probe = Probe("p", "Tcp", 80, None, 5.0, 1, behavior) if behavior else None
    pool = tuple(
        Member(n, f"m{n}", "eth0", f"l-m{n}", f"10.0.0.{n}", f"m{n}-eth0", forwards=True) for n in range(members)
    )
    return Rule(
        1,
        "lb",
        "fe",
        "r",
        "10.0.1.4",
        "hub",
        "lb/pool",
        enable_floating_ip=False,
        idle_timeout_in_minutes=4,
        buckets=4096,
        members=pool,
        probe=probe,
    )


@given(st.sets(st.integers(0, 6)))
def test_only_healthy_members_are_eligible(healthy: set[int]) -> None:
    """With AllProbedDown the eligible members are the rule's healthy ones, also when there is none."""
    assert eligible_members(_rule("AllProbedDown"), healthy) == healthy & {0, 1, 2}


@given(st.sets(st.integers(0, 6)))
def test_all_probed_up_turns_nobody_into_everybody(healthy: set[int]) -> None:
    """With AllProbedUp all members are eligible when none is healthy, otherwise the healthy ones."""
    assert eligible_members(_rule("AllProbedUp"), healthy) == (healthy & {0, 1, 2} or {0, 1, 2})


def test_a_rule_without_a_probe_takes_everybody() -> None:
    """Without a probe every member gets flows."""
    assert eligible_members(_rule(None), set()) == {0, 1, 2}
    assert eligible_members(replace(_rule(None), members=()), set()) == frozenset()
