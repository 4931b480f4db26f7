"""Verdict on symmetry: did each flow cross one member, the same one both ways, and get its answer?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from testbed.verify.check import Verdict, flat, verdict_of

if TYPE_CHECKING:
    from testbed.traffic.symmetry import FlowObservation, SymmetryMeasurement

__all__ = ["Outcome", "SymmetryResult", "classify", "count_per_member", "judge_symmetry"]

Outcome = Literal["symmetric", "asymmetric", "lost"]


@dataclass(frozen=True, slots=True)
class SymmetryResult:
    """Figures of a symmetry check; ``flows == symmetric + asymmetric + lost``.

    ``per_member`` counts the flows whose forward direction crossed that member alone. ``examples`` are
    sentences on some of the flows that are not symmetric.
    """

    flows: int
    symmetric: int
    asymmetric: int
    lost: int
    per_member: dict[str, int]
    dropped_frames: int
    seed: int
    seconds: float
    examples: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    check: str = field(default="symmetry", init=False)

    @property
    def verdict(self) -> Verdict:
        """``pass`` or ``fail``."""
        return verdict_of(self.reasons)

    def to_json(self) -> dict[str, object]:
        """Flat, ready for ``json.dumps``."""
        figures = {
            "flows": self.flows,
            "symmetric": self.symmetric,
            "asymmetric": self.asymmetric,
            "lost": self.lost,
            "per_member": dict(self.per_member),
            "dropped_frames": self.dropped_frames,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "examples": list(self.examples),
        }
        return flat(self.check, self.reasons, figures)

    def summary(self) -> str:
        """The outcome in one line."""
        members = ", ".join(f"{name} {count}" for name, count in self.per_member.items())
        return (
            f"symmetry {self.verdict}: {self.symmetric} of {self.flows} flows symmetric, "
            f"{self.asymmetric} asymmetric, {self.lost} lost; {members} ({self.seconds:.2f} s)"
        )


def classify(seen: FlowObservation) -> Outcome:
    """Which kind of flow it was.

    A flow is asymmetric when it was seen at more than one member, when its answer was seen at a member but
    its request was not, or when it was answered although a direction passed all members by. It is lost when
    no answer came and nothing says that the two directions took different ways.
    """
    if len(seen.forward | seen.reverse) > 1 or (seen.reverse and not seen.forward):
        return "asymmetric"
    if not seen.replied:
        return "lost"
    return "symmetric" if seen.forward and seen.forward == seen.reverse else "asymmetric"


def _example(seen: FlowObservation, outcome: Outcome) -> str:
    forward = "+".join(sorted(seen.forward)) or "no member"
    reverse = "+".join(sorted(seen.reverse)) or "no member"
    answer = "answered" if seen.replied else "reset" if seen.reset else "not answered"
    hint = ""
    if seen.flow.pair.answers_rule_id:
        hint = "; another rule balances the answers"
    elif not seen.flow.pair.both_directions:
        hint = "; the answers' route does not name the rule"
    return f"{seen.flow}: {outcome}, forward at {forward}, reverse at {reverse}, {answer}{hint}"


def count_per_member(measured: SymmetryMeasurement, rule_id: int | None = None) -> dict[str, int]:
    """Member to flows whose forward direction crossed it alone; of one rule, or of all."""
    counts = dict.fromkeys(measured.members, 0)
    for seen in measured.observations:
        if len(seen.forward) == 1 and rule_id in (None, seen.flow.pair.rule_id):
            (name,) = seen.forward
            counts[name] += 1
    return counts


def judge_symmetry(measured: SymmetryMeasurement, *, examples: int = 10, loops: tuple[str, ...] = ()) -> SymmetryResult:
    """The verdict on a measurement; keeps at most so many examples of flows that are not symmetric.

    ``loops``: sentences on ways that never end, which the routes tell; they are reasons too.
    """
    outcomes = [(seen, classify(seen)) for seen in measured.observations]
    counts = Counter(outcome for _, outcome in outcomes)
    total = len(outcomes)
    reasons = []
    if not total:
        reasons.append("no flow was sent")
    if counts["asymmetric"]:
        reasons.append(f"{counts['asymmetric']} of {total} flows did not cross the same member both ways")
        crossed = sum(outcome == "asymmetric" and seen.flow.pair.answers_rule_id != 0 for seen, outcome in outcomes)
        if crossed:
            reasons.append(
                f"the answers to {crossed} of them are balanced by another rule, which chooses on its own: "
                "members that translate the source get their answers back"
            )
    if counts["lost"]:
        reasons.append(f"{counts['lost']} of {total} flows got no answer")
    reasons += [f"loop: {each}" for each in loops]
    if measured.dropped_frames:
        reasons.append(f"captures missed {measured.dropped_frames} frames, the figures are incomplete")
    bad = [_example(seen, outcome) for seen, outcome in outcomes if outcome != "symmetric"]
    return SymmetryResult(
        flows=total,
        symmetric=counts["symmetric"],
        asymmetric=counts["asymmetric"],
        lost=counts["lost"],
        per_member=count_per_member(measured),
        dropped_frames=measured.dropped_frames,
        seed=measured.seed,
        seconds=measured.seconds,
        examples=tuple(bad[:examples]),
        reasons=tuple(reasons),
    )
