"""The nftables backend: the owner map and the eligible set of each rule, changed in one transaction.

The rules around them are the fabric's (:mod:`testbed.plan.ruleset`); the tables are ``ip testbed``
and, for rules of IPv6, ``ip6 testbed``.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from testbed.balancer.base import MemberCounters, Update
from testbed.balancer.preference import NOBODY, PreferenceTable
from testbed.kernel.nft_elements import Elements, NftSocket
from testbed.plan.replacement import BALANCER_TABLES
from testbed.plan.ruleset.choice import pair_side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from testbed.plan.model import Rule

__all__ = ["TABLE", "NftablesBackend", "elements", "preference_table", "read_eligible"]

#: The fabric's own table, in each family.
TABLE = "testbed"


def preference_table(rule: Rule) -> PreferenceTable:
    """The preference table of a rule; members are named by machine and network interface."""
    names = {member.id: member.key for member in rule.members}
    return PreferenceTable(rule.key, names, rule.buckets, pairs=not rule.hashes_ports)


def elements(rules: tuple[Rule, ...], eligible: Mapping[int, frozenset[int]]) -> str:
    """The nft commands that fill fresh tables, so that these members are eligible from the first packet on."""
    return "".join(_fill(rule, eligible.get(rule.id, frozenset())) for rule in rules)


def _fill(rule: Rule, eligible: frozenset[int]) -> str:
    present = sorted(eligible & {member.id for member in rule.members})
    if not present:
        return ""
    owners = preference_table(rule).owners(present)
    keys = _keys(rule, np.arange(rule.buckets, dtype=np.uint32)).tolist()
    owned = ", ".join(
        f"{' . '.join(map(str, key))} : {owner}" for key, owner in zip(keys, owners.tolist(), strict=True)
    )
    table = BALANCER_TABLES[rule.version]
    return (
        f"add element {table} {rule.owner_map} {{ {owned} }}\n"
        f"add element {table} eligible_{rule.id} {{ {', '.join(map(str, present))} }}\n"
    )


def _keys(rule: Rule, buckets: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Buckets as keys of the owner map, one row each: a number, or a pair of numbers."""
    return np.stack(divmod(buckets, pair_side(rule)) if not rule.hashes_ports else (buckets,), axis=1)


def read_eligible(rule: Rule) -> frozenset[int]:
    """Members that the kernel takes as eligible for a rule now.

    Raises:
        LabError: The rule is not in the kernel.
    """
    socket = NftSocket(TABLE, rule.version)
    try:
        return socket.elements(f"eligible_{rule.id}")
    finally:
        socket.close()


class NftablesBackend:
    """See :class:`testbed.balancer.base.Backend`. Make it in the fabric's namespace: it reads what is there."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = {rule.id: rule for rule in rules}
        self._sockets = {version: NftSocket(TABLE, version) for version in sorted({each.version for each in rules})}
        self._tables = {rule.id: preference_table(rule) for rule in rules}
        self._eligible = {rule.id: self._read(rule.id) for rule in rules}
        self._owners = {number: table.owners(self._eligible[number]) for number, table in self._tables.items()}

    def _read(self, rule: int) -> frozenset[int]:
        return self._sockets[self._rules[rule].version].elements(f"eligible_{rule}")

    def close(self) -> None:
        """Give the netlink sockets back."""
        for each in self._sockets.values():
            each.close()

    def eligible(self) -> Mapping[int, frozenset[int]]:
        """Per rule, the eligible members, read from the kernel."""
        return {number: self._read(number) for number in self._rules}

    def apply(self, rule: int, eligible: frozenset[int]) -> Update:
        """Make exactly these members eligible: elements are deleted and added in one batch.

        Raises:
            LabError: The kernel refuses, for example because somebody else changed the table.
        """
        start = time.perf_counter()
        before, now = self._owners[rule], self._tables[rule].owners(eligible)
        moved = np.flatnonzero(before != now).astype(np.uint32)
        self._sockets[self._rules[rule].version].commit(self._changes(rule, moved, before, now, eligible))
        self._owners[rule], self._eligible[rule] = now, eligible
        return Update(rule, eligible, len(moved), (time.perf_counter() - start) * 1000)

    def _changes(
        self,
        rule: int,
        moved: NDArray[np.uint32],
        before: NDArray[np.uint32],
        now: NDArray[np.uint32],
        eligible: frozenset[int],
    ) -> list[Elements]:
        owner_map, keys = self._rules[rule].owner_map, partial(_keys, self._rules[rule])
        owned = moved[before[moved] != NOBODY]
        given = moved[now[moved] != NOBODY]
        left = np.array(sorted(self._eligible[rule] - eligible), dtype=np.uint32)
        joined = np.array(sorted(eligible - self._eligible[rule]), dtype=np.uint32)
        changes = [
            Elements(owner_map, keys(owned), delete=True),
            Elements(owner_map, keys(given), now[given]),
            Elements(f"eligible_{rule}", left[:, None], delete=True),
            Elements(f"eligible_{rule}", joined[:, None]),
        ]
        return [change for change in changes if len(change.keys)]

    def counters(self) -> Mapping[int, MemberCounters]:
        """Flows and packets per member since the table was loaded."""
        packets: dict[str, int] = {}
        for each in self._sockets.values():
            packets |= each.counters()
        members = {member.id for rule in self._rules.values() for member in rule.members}
        return {each: MemberCounters(packets[f"flows_{each}"], packets[f"packets_{each}"]) for each in members}
