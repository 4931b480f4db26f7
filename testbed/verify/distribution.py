"""Verdict on distribution: do the members get the shares that the balancer's table gives them?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testbed.verify.check import Verdict, flat, verdict_of
from testbed.verify.chi_square import chi_square, p_value

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DistributionResult", "judge_distribution"]

#: One false alarm in a million runs.
_UNLIKELY = 1e-6
#: A member that should have this many flows and has none is broken, whatever the statistic says.
_ENOUGH = 20


@dataclass(frozen=True, slots=True)
class DistributionResult:
    """Figures of a distribution check. ``expected`` are flows, not shares; they add up to ``flows``."""

    rule: str
    flows: int
    per_member: dict[str, int]
    expected: dict[str, float]
    chi_square: float
    degrees_of_freedom: int
    p_value: float
    reasons: tuple[str, ...] = ()
    check: str = field(default="distribution", init=False)

    @property
    def verdict(self) -> Verdict:
        """``pass`` or ``fail``."""
        return verdict_of(self.reasons)

    def to_json(self) -> dict[str, object]:
        """Flat, ready for ``json.dumps``."""
        figures = {
            "rule": self.rule,
            "flows": self.flows,
            "per_member": dict(self.per_member),
            "expected": {name: round(wish, 3) for name, wish in self.expected.items()},
            "chi_square": round(self.chi_square, 4),
            "degrees_of_freedom": self.degrees_of_freedom,
            "p_value": self.p_value,
        }
        return flat(self.check, self.reasons, figures)

    def summary(self) -> str:
        """The outcome in one line."""
        total = self.flows or 1
        members = ", ".join(f"{name} {100 * count / total:.1f} %" for name, count in self.per_member.items())
        return (
            f"distribution {self.verdict}: {members} of {self.flows} flows of {self.rule}, "
            f"chi-square {self.chi_square:.2f}, p = {self.p_value:.3g}"
        )


def judge_distribution(rule: str, per_member: Mapping[str, int], shares: Mapping[str, float]) -> DistributionResult:
    """The verdict on counts of flows.

    Args:
        rule: Which load-balancing rule spread them, for the report.
        per_member: Member to flows seen there.
        shares: Member to its expected share; any positive unit (buckets of the table do), 0 for a member
            that must get nothing, such as one whose probe is down.
    """
    total = sum(per_member.values())
    whole = sum(shares.values())
    names = [name for name, share in shares.items() if share > 0]
    expected = {name: total * share / whole if whole else 0.0 for name, share in shares.items()}
    reasons = []
    if not total:
        reasons.append("no flow crossed a member")
    if not names:
        reasons.append("no member is expected to get a flow")
    for name, count in per_member.items():
        if count and not shares.get(name):
            reasons.append(f"{name} got {count} flows and should get none")
    reasons += [
        f"{name} got no flow, about {expected[name]:.0f} were expected"
        for name in names
        if not per_member.get(name) and expected[name] >= _ENOUGH
    ]
    counted = bool(total and names)
    statistic = (
        chi_square([per_member.get(name, 0) for name in names], [expected[name] for name in names]) if counted else 0.0
    )
    degrees = max(len(names) - 1, 0)
    probability = p_value(statistic, degrees) if counted else 1.0
    if probability < _UNLIKELY:
        reasons.append(f"the shares are wrong: chi-square {statistic:.1f}, p = {probability:.2g}")
    return DistributionResult(
        rule=rule,
        flows=total,
        per_member=dict(per_member),
        expected=expected,
        chi_square=statistic,
        degrees_of_freedom=degrees,
        p_value=probability,
        reasons=tuple(reasons),
    )
