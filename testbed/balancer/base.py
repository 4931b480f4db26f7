"""What the controller asks of a data plane, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Backend", "FakeBackend", "MemberCounters", "Update"]


@dataclass(frozen=True, slots=True)
class Update:
    """One change of the data plane.

    ``moved`` counts the hash buckets that changed their owner; ``duration_ms`` is the time of the whole
    transaction, from the decision to the kernel's acknowledgement.
    """

    rule: int
    eligible: frozenset[int]
    moved: int
    duration_ms: float


@dataclass(frozen=True, slots=True)
class MemberCounters:
    """Since the table was loaded: flows given to a member, and packets steered to it."""

    flows: int
    packets: int


class Backend(Protocol):
    """A data plane that sends each flow of a rule to one eligible member.

    Rules are named by their id, members by theirs (:class:`testbed.plan.model.Member`). All methods work in
    the network namespace the calling thread is in and are synchronous; they take milliseconds.
    """

    def eligible(self) -> Mapping[int, frozenset[int]]:
        """Per rule, the members that the kernel takes as eligible now (read from the kernel)."""

    def apply(self, rule: int, eligible: frozenset[int]) -> Update:
        """Make exactly these members eligible, in one transaction that loses no packet."""

    def counters(self) -> Mapping[int, MemberCounters]:
        """Per member id, its counters (read from the kernel)."""


class FakeBackend:
    """A backend that only remembers; for tests of what sits above it."""

    def __init__(self, eligible: Mapping[int, frozenset[int]]) -> None:
        self._eligible = dict(eligible)
        self.updates: list[Update] = []

    def eligible(self) -> Mapping[int, frozenset[int]]:
        """What was applied last."""
        return dict(self._eligible)

    def apply(self, rule: int, eligible: frozenset[int]) -> Update:
        """Remember."""
        update = Update(rule, eligible, len(eligible ^ self._eligible.get(rule, frozenset())), 0.0)
        self._eligible[rule] = eligible
        self.updates.append(update)
        return update

    def counters(self) -> Mapping[int, MemberCounters]:
        """All zero."""
        members = frozenset().union(*self._eligible.values())
        return {member: MemberCounters(0, 0) for member in members}
