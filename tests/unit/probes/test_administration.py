"""Admin states: who is eligible, and which word counts when."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.plan.model import Member, Probe, Rule
from testbed.probes.administration import AdminStates
from testbed.probes.adoption import KnownHealth, adopt
from testbed.probes.health import eligible_members

if TYPE_CHECKING:
    from pathlib import Path

STATES = st.sampled_from(["None", "Up", "Down"])
BEHAVIOURS = st.sampled_from(["AllProbedDown", "AllProbedUp"])


def _rule(*admin: str, behaviour: str = "AllProbedDown", identity: int = 1, pool: str = "lb/nvas") -> Rule:
    members = tuple(
        Member(number, f"nva{number}", "eth0", "", f"10.0.1.{number}", "", forwards=True, admin_state=state)
        for number, state in enumerate(admin, 1)
    )
    return Rule(
        id=identity,
        load_balancer="lb",
        frontend=f"fe{identity}",
        name="ha",
        frontend_address="10.0.2.4",
        virtual_network="hub",
        backend_address_pool=pool,
        enable_floating_ip=False,
        idle_timeout_in_minutes=4,
        buckets=4096,
        members=members,
        probe=Probe("health", "Tcp", 80, None, 5.0, 1, behaviour),
    )


@given(st.lists(st.tuples(STATES, st.booleans()), min_size=1, max_size=6), BEHAVIOURS)
def test_eligible_by_admin_state_and_health(members: list[tuple[str, bool]], behaviour: str) -> None:
    """Down is never eligible, Up always; None follows the probe, but for the last resort of AllProbedUp."""
    rule = _rule(*(state for state, _ in members), behaviour=behaviour)
    admin = {number: state for number, (state, _) in enumerate(members, 1)}
    healthy = {number for number, (_, good) in enumerate(members, 1) if good}
    chosen = eligible_members(rule, healthy, admin)
    for number, state in admin.items():
        if state == "Down":
            assert number not in chosen
        elif state == "Up" or number in healthy:
            assert number in chosen
    possible = {number for number, state in admin.items() if state != "Down"}
    nobody = not any(number in healthy or admin[number] == "Up" for number in possible)
    if nobody:
        assert chosen == (possible if behaviour == "AllProbedUp" else frozenset())
    else:
        assert not any(admin[number] == "None" and number not in healthy for number in chosen)


@given(st.lists(st.booleans(), min_size=1, max_size=6), BEHAVIOURS)
def test_without_admin_states_nothing_changes(health: list[bool], behaviour: str) -> None:
    """None for everybody is the same as no admin states at all."""
    rule = _rule(*("None" for _ in health), behaviour=behaviour)
    healthy = {number for number, good in enumerate(health, 1) if good}
    assert eligible_members(rule, healthy, dict.fromkeys(healthy, "None")) == eligible_members(rule, healthy)


def test_a_rule_without_a_probe_heeds_no_admin_state(tmp_path: Path) -> None:
    """Admin states need a probe on the rule."""
    rule = replace(_rule("Down", "None"), probe=None)
    states = AdminStates(str(tmp_path), (rule,), 1.0)
    assert states.of_rule(rule) == {}
    assert eligible_members(rule, set(), {1: "Down"}) == {1, 2}


def test_a_command_counts_until_the_document_changes(tmp_path: Path) -> None:
    """Over restarts of the controller a command's state stays; a new word in the document replaces it."""
    first = AdminStates(str(tmp_path), (_rule("None"),), 1.0)
    first.change("lb/nvas", _rule("None").members[0], "Down", 5.0)
    first.save()
    again = AdminStates(str(tmp_path), (_rule("None"),), 9.0)
    assert [(each.state, each.since) for each in again] == [("Down", 5.0)]
    changed = AdminStates(str(tmp_path), (_rule("Up"),), 9.0)
    assert [(each.state, each.since) for each in changed] == [("Up", 9.0)]
    assert changed.earlier(_rule("Up")) == {1: "Down"}
    changed.save()
    assert [each.state for each in AdminStates(str(tmp_path), (_rule("None"),), 9.0)] == ["None"]


def test_an_admin_state_is_the_pools(tmp_path: Path) -> None:
    """It counts for every rule of the pool, and for no other pool with the same member."""
    rules = (_rule("None"), _rule("None", identity=2), _rule("None", identity=3, pool="lb/others"))
    states = AdminStates(str(tmp_path), rules, 1.0)
    states.change("lb/nvas", rules[0].members[0], "Up", 2.0)
    assert [states.of_rule(rule) for rule in rules] == [{1: "Up"}, {1: "Up"}, {1: "None"}]


@pytest.mark.parametrize("text", ["", "{", '[{"pool": "lb/nvas"}]', "[3]"])
def test_a_damaged_file_is_no_obstacle(tmp_path: Path, text: str) -> None:
    """What cannot be read is forgotten: the document's word counts."""
    (tmp_path / "admin.json").write_text(text)
    assert [each.state for each in AdminStates(str(tmp_path), (_rule("Down"),), 1.0)] == ["Down"]


def test_health_is_adopted_past_admin_states(tmp_path: Path) -> None:
    """A member that an admin state keeps in or out is as healthy as was noted, whatever the kernel says of it."""
    before = AdminStates(str(tmp_path), (_rule("Up", "Down"),), 1.0)
    before.save()
    rule = _rule("None", "None")
    admin = AdminStates(str(tmp_path), (rule,), 2.0)
    notes = (
        KnownHealth(1, 1, healthy=False, since=1.0, started=True),
        KnownHealth(1, 2, healthy=True, since=1.0, started=True),
    )
    adopted = adopt((rule,), {1: frozenset({1})}, notes, 3.0, admin)
    assert {member: each.healthy for (_, member), each in adopted.items()} == {1: False, 2: True}
