"""What all verdicts have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Check", "NotMeasured", "Verdict", "flat", "verdict_of"]

Verdict = Literal["pass", "fail"]


class Check(Protocol):
    """The outcome of one check: its figures, whether they are good, and why not."""

    @property
    def check(self) -> str:
        """Name of the check: ``symmetry``, ``distribution`` or ``failover``."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it failed, one sentence each; empty when it passed."""

    @property
    def verdict(self) -> Verdict:
        """``pass`` or ``fail``."""

    def to_json(self) -> dict[str, object]:
        """``{"check": …, "verdict": …, "reasons": […]}`` and the figures, ready for ``json.dumps``."""

    def summary(self) -> str:
        """The outcome in one line."""


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A check that could not be made, because an earlier one had failed; that is a failure too."""

    check: str
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """``fail``."""
        return verdict_of(self.reasons)

    def to_json(self) -> dict[str, object]:
        """Without figures."""
        return flat(self.check, self.reasons, {})

    def summary(self) -> str:
        """That it was not made."""
        return "not measured"


def verdict_of(reasons: tuple[str, ...]) -> Verdict:
    """``fail`` when there is any reason for it."""
    return "fail" if reasons else "pass"


def flat(check: str, reasons: tuple[str, ...], figures: Mapping[str, object]) -> dict[str, object]:
    """The JSON form of a check; the figures keep their order."""
    return {"check": check, "verdict": verdict_of(reasons), **figures, "reasons": list(reasons)}
