"""What a restarted controller takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from testbed.plan.model import Member, Probe, Rule
from testbed.probes.adoption import KnownHealth, adopt, load, save
from testbed.probes.health import eligible_members
from testbed.probes.targets import build_targets

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1000.0


def _rule(behavior: str = "AllProbedDown") -> Rule:
    members = tuple(
        Member(n, f"m{n}", "eth0", f"l-m{n}", f"10.0.0.{n}", f"m{n}-eth0", forwards=True) for n in (1, 2, 3)
    )
    probe = Probe("p", "Tcp", 80, None, 5.0, 2, behavior)
    return Rule(
        7,
        "lb",
        "fe",
        "r",
        "10.0.1.4",
        "hub",
        "lb/pool",
        enable_floating_ip=False,
        idle_timeout_in_minutes=4,
        buckets=4096,
        members=members,
        probe=probe,
    )


def _note(member: int, *, healthy: bool, since: float = 5.0) -> KnownHealth:
    return KnownHealth(7, member, healthy, since, started=True)


def test_without_notes_the_kernel_is_believed() -> None:
    """With the state directory lost, eligible members are healthy since now and the others unknown."""
    adopted = adopt((_rule(),), {7: frozenset({1, 3})}, (), NOW)
    assert {member: (each.healthy, each.since) for (_, member), each in adopted.items()} == {
        1: (True, NOW),
        3: (True, NOW),
    }


def test_notes_that_agree_keep_their_time() -> None:
    """Members whose noted health is what the kernel shows keep `since`, up or down."""
    notes = (_note(1, healthy=True), _note(2, healthy=False, since=6.0))
    adopted = adopt((_rule(),), {7: frozenset({1})}, notes, NOW)
    assert adopted == {(7, 1): notes[0], (7, 2): notes[1]}


def test_a_note_that_disagrees_is_dropped() -> None:
    """Where the notes say down and the kernel says eligible, the kernel wins."""
    adopted = adopt((_rule(),), {7: frozenset({1})}, (_note(1, healthy=False),), NOW)
    assert adopted[7, 1] == _note(1, healthy=True, since=NOW)


def test_all_probed_up_with_everybody_down_is_recognised() -> None:
    """All members eligible and all noted as down is a whole pool down under AllProbedUp, not a healthy one."""
    notes = tuple(_note(member, healthy=False) for member in (1, 2, 3))
    adopted = adopt((_rule("AllProbedUp"),), {7: frozenset({1, 2, 3})}, notes, NOW)
    assert [each.healthy for each in adopted.values()] == [False, False, False]


@given(
    st.sets(st.sampled_from([1, 2, 3])),
    st.dictionaries(st.sampled_from([1, 2, 3]), st.booleans()),
    st.sampled_from(["AllProbedDown", "AllProbedUp"]),
)
def test_adoption_never_changes_the_kernel(eligible: set[int], noted: dict[int, bool], behavior: str) -> None:
    """What is adopted gives the eligible set that the kernel has, so running flows are not disturbed."""
    if behavior == "AllProbedUp" and not eligible:
        eligible = {1, 2, 3}  # a pool under AllProbedUp is never empty
    notes = tuple(_note(member, healthy=healthy) for member, healthy in noted.items())
    one = _rule(behavior)
    adopted = adopt((one,), {7: frozenset(eligible)}, notes, NOW)
    healthy = {member for (_, member), each in adopted.items() if each.healthy}
    assert eligible_members(one, healthy) == eligible


def test_notes_are_read_back(tmp_path: Path) -> None:
    """`load` gives what `save` was given."""
    notes = (_note(1, healthy=True), _note(2, healthy=False))
    save(str(tmp_path), notes)
    assert load(str(tmp_path)) == notes


def test_missing_or_damaged_notes_are_none(tmp_path: Path) -> None:
    """A controller starts without its notes, and with half a file."""
    assert load(str(tmp_path)) == ()
    for text in ("[{", "[1]", '{"a": 1}', '[{"rule": 1}]'):
        tmp_path.joinpath("health.json").write_text(text)
        assert load(str(tmp_path)) == ()


def test_rules_that_share_a_probe_share_its_targets() -> None:
    """Two rules over one pool and one probe are probed once per member, and change together."""
    first = _rule()
    second = Rule(
        8,
        "lb",
        "fe2",
        "r2",
        "10.0.1.5",
        "hub",
        "lb/pool",
        enable_floating_ip=True,
        idle_timeout_in_minutes=4,
        buckets=4096,
        members=first.members,
        probe=first.probe,
    )
    targets = build_targets((first, second), {}, (None, None), lambda: NOW)
    assert [target.member.id for target in targets] == [1, 2, 3]
    assert all(target.rules == [first, second] for target in targets)
    assert all(target.wire.mark == target.member.id for target in targets)
