"""The preference table keeps its promises for every number of members and every set of eligible ones."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.balancer.preference import NOBODY, PreferenceTable

BUCKETS = 1024


def table(ids: list[int], rule: str = "lb/fe/ha") -> PreferenceTable:
    return PreferenceTable(rule, {each: f"nva{each}/eth0" for each in ids}, BUCKETS)


members = st.lists(st.integers(1, 60), min_size=1, max_size=12, unique=True)


@given(members, st.data())
@settings(max_examples=60)
def test_member_down_moves_only_its_own_buckets(ids: list[int], data: st.DataObject) -> None:
    """A bucket changes its owner only when its owner went down."""
    lost = data.draw(st.sampled_from(ids))
    before = table(ids).owners(ids)
    after = table(ids).owners(set(ids) - {lost})
    assert (before[before != after] == lost).all()
    assert lost not in after


@given(members, st.data())
@settings(max_examples=60)
def test_recovery_restores_the_old_owners(ids: list[int], data: st.DataObject) -> None:
    """Owners depend on who is eligible now, not on what happened before or on the order of members."""
    eligible = data.draw(st.sets(st.sampled_from(ids)))
    shuffled = data.draw(st.permutations(ids))
    assert (table(ids).owners(eligible) == table(shuffled).owners(sorted(eligible, reverse=True))).all()


@given(members)
@settings(max_examples=60)
def test_newcomer_takes_from_all_and_nothing_moves_between_the_others(ids: list[int]) -> None:
    """Adding a member moves buckets to it and to nobody else."""
    before, after = table(ids).owners(ids), table([*ids, 99]).owners([*ids, 99])
    assert (after[before != after] == 99).all()


def test_newcomer_gets_its_share() -> None:
    """The fourth member of a large table gets a quarter of the buckets, within a few per cent."""
    wide = PreferenceTable("lb/fe/ha", {each: f"nva{each}/eth0" for each in (1, 2, 3, 4)}, 65536)
    assert abs(wide.shares([1, 2, 3, 4])[4] - 0.25) < 0.01


def test_survivors_share_the_lost_buckets() -> None:
    """The buckets of a member that is gone spread over all others, about evenly."""
    before, after = table([1, 2, 3, 4, 5]).owners([1, 2, 3, 4, 5]), table([1, 2, 3, 4, 5]).owners([2, 3, 4, 5])
    heirs, counts = np.unique(after[before == 1], return_counts=True)
    assert set(heirs.tolist()) == {2, 3, 4, 5}
    assert counts.min() > 0.5 * counts.mean()


def test_rules_decide_independently() -> None:
    """Two rules over the same members agree on about one bucket in four, as chance would have it."""
    same = table([1, 2, 3, 4]).owners([1, 2, 3, 4]) == table([1, 2, 3, 4], "lb/other/ha").owners([1, 2, 3, 4])
    assert 0.18 < same.mean() < 0.32


def test_nobody_eligible_means_nobody_owns() -> None:
    """Without eligible members every bucket is owned by nobody, also when strangers are named."""
    assert (table([1, 2]).owners([]) == NOBODY).all()
    assert (table([1, 2]).owners([7]) == NOBODY).all()
    assert table([1, 2]).shares([]) == {}


def test_owners_are_the_same_everywhere() -> None:
    """The table is part of a lab's behaviour: these owners must never change with a release."""
    owners = PreferenceTable("nva-lb/fe/ha-ports", {1: "nva1/eth0", 2: "nva2/eth0"}, 64).owners([1, 2])
    assert "".join(map(str, owners)) == OWNERS


OWNERS = "1122211222122122111122111111111212212122112221122211222112121122"


@given(members, st.data())
@settings(max_examples=30)
def test_pairs_have_the_same_owner_in_both_orders(ids: list[int], data: st.DataObject) -> None:
    """In modes without ports the owner of (a, b) is that of (b, a), whoever is eligible; all members get pairs."""
    pairs = PreferenceTable("lb/fe/ha", {each: f"nva{each}/eth0" for each in ids}, 4096, pairs=True)
    eligible = data.draw(st.sets(st.sampled_from(ids), min_size=1))
    square = pairs.owners(eligible).reshape(64, 64)
    assert (square == square.T).all()
    assert set(square.flat) == eligible
