"""The preference table: which member owns which hash bucket, for any set of eligible members. Pure.

Each bucket orders the members by a score of its own (rendezvous hashing); its owner is the first eligible one.
So a member that goes down moves only its own buckets, spread over the others; one that comes back gets exactly
its old buckets; a new one takes 1/(N+1) of all, and no bucket moves between old members. The order depends on
the rule's name and the members' names alone: not on their number, on the history, or on the machine.
"""

from __future__ import annotations

from hashlib import blake2b
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["NOBODY", "PreferenceTable"]

#: Owner of a bucket when no member is eligible. Member ids start at 1.
NOBODY = 0


def _seed(key: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little"))


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: every input bit reaches every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class PreferenceTable:
    """Owners of the buckets of one rule.

    Args:
        rule: Name of the rule; rules with different names decide independently.
        members: Member id to the member's name, which must be the same for the member's whole life.
        buckets: Number of hash buckets.
        pairs: The buckets are the pairs (a, b) of numbers, row by row; (a, b) and (b, a) have the same owner.
    """

    def __init__(self, rule: str, members: Mapping[int, str], buckets: int, *, pairs: bool = False) -> None:
        self._ids = np.array(list(members), dtype=np.uint32)
        numbers = np.arange(buckets, dtype=np.uint64)
        if pairs:
            side = np.uint64(isqrt(buckets))
            one, other = numbers // side, numbers % side
            numbers = np.minimum(one, other) * side + np.maximum(one, other)
        rows = _mix(_seed(f"rule {rule}") + numbers * np.uint64(0x9E3779B97F4A7C15))
        # 32 bits of the score are kept, and the member's place breaks ties: 65,536 buckets x 100 members are 26 MB.
        self._scores = np.empty((len(members), buckets), dtype=np.uint32)
        for place, name in enumerate(members.values()):
            self._scores[place] = _mix(rows ^ _seed(f"member {name}")) >> np.uint64(32)
        self.buckets = buckets

    def owners(self, eligible: Iterable[int]) -> NDArray[np.uint32]:
        """Owner of each bucket: array of member ids (shape ``buckets``), ``NOBODY`` where none is eligible."""
        chosen = np.isin(self._ids, np.fromiter(eligible, dtype=np.uint32))
        if not chosen.any():
            return np.full(self.buckets, NOBODY, dtype=np.uint32)
        owners: NDArray[np.uint32] = self._ids[chosen][self._scores[chosen].argmax(axis=0)]
        return owners

    def shares(self, eligible: Iterable[int]) -> dict[int, float]:
        """Part of all buckets that each eligible member owns; the parts add up to 1."""
        ids, counts = np.unique(self.owners(eligible), return_counts=True)
        return {int(each): float(count) / self.buckets for each, count in zip(ids, counts, strict=True) if each}
