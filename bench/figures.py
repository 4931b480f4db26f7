"""Figures: what was measured, against what, and whether it is what was promised."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Figure", "median", "percentile"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. ``promise`` is the bound; ``at_least`` tells which side of it is good."""

    name: str
    value: float
    unit: str
    promise: float | None = None
    at_least: bool = False

    @property
    def kept(self) -> bool | None:
        """Whether the promise was kept; ``None`` when there is none."""
        if self.promise is None:
            return None
        return self.value >= self.promise if self.at_least else self.value <= self.promise

    def __str__(self) -> str:
        """One line of the table."""
        line = f"{self.name:58} {self.value:12.3f} {self.unit}"
        if self.promise is None:
            return line
        return f"{line:84} {'>=' if self.at_least else '<='} {self.promise:g}: {'kept' if self.kept else 'BROKEN'}"


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
