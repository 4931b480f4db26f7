"""Pearson's chi-square test: how likely counts this uneven are when the shares are right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["chi_square", "p_value", "upper_gamma"]

_PRECISION = 1e-15
_STEPS = 100_000
_TINY = 1e-300


def _series(a: float, x: float) -> float:
    """Lower regularised gamma function P(a, x) by its power series; converges fast for x < a + 1."""
    term = total = 1.0 / a
    for step in range(1, _STEPS):
        term *= x / (a + step)
        total += term
        if term < total * _PRECISION:
            break
    return total * math.exp(a * math.log(x) - x - math.lgamma(a))


def _fraction(a: float, x: float) -> float:
    """Upper regularised gamma function Q(a, x) by Lentz's continued fraction; for x >= a + 1."""
    b = x + 1.0 - a
    c = 1.0 / _TINY
    d = 1.0 / b
    value = d
    for step in range(1, _STEPS):
        factor = -step * (step - a)
        b += 2.0
        d = factor * d + b
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = b + factor / c
        c = c if abs(c) > _TINY else _TINY
        value *= d * c
        if abs(d * c - 1.0) < _PRECISION:
            break
    return value * math.exp(a * math.log(x) - x - math.lgamma(a))


def upper_gamma(a: float, x: float) -> float:
    """Upper regularised incomplete gamma function Q(a, x), for a > 0 and x >= 0 (DLMF 8.2.4).

    Raises:
        ValueError: An argument is out of range.
    """
    if a <= 0 or x < 0:
        raise ValueError(f"Q({a}, {x}) is not defined")
    if x == 0:
        return 1.0
    return 1.0 - _series(a, x) if x < a + 1.0 else _fraction(a, x)


def chi_square(counts: Sequence[float], expected: Sequence[float]) -> float:
    """Sum of (count - expected)² / expected; every expected value must be positive."""
    return math.fsum((count - wish) ** 2 / wish for count, wish in zip(counts, expected, strict=True))


def p_value(statistic: float, degrees: int) -> float:
    """Probability of a statistic at least this large; 1 without a degree of freedom (one member)."""
    return upper_gamma(degrees / 2, statistic / 2) if degrees > 0 else 1.0
