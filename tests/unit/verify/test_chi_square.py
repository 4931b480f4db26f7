"""The chi-square test against published and closed-form values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.verify.chi_square import chi_square, p_value, upper_gamma


@pytest.mark.parametrize(
    ("statistic", "degrees", "probability"),
    [
        # Critical values of the usual printed tables.
        (3.841, 1, 0.05),
        (6.635, 1, 0.01),
        (10.828, 1, 0.001),
        (5.991, 2, 0.05),
        (14.067, 7, 0.05),
        (18.475, 7, 0.01),
        (124.342, 100, 0.05),
        (1118.948, 1000, 0.005),
    ],
)
def test_printed_tables(statistic: float, degrees: int, probability: float) -> None:
    """Critical values have the probability that the tables print."""
    assert p_value(statistic, degrees) == pytest.approx(probability, rel=2e-3)


@given(st.floats(1e-6, 500))
def test_closed_forms(x: float) -> None:
    """Q(1, x) is exp(-x), Q(1/2, x) is erfc(sqrt x), Q(3, x) is a finite sum."""
    assert upper_gamma(1, x) == pytest.approx(math.exp(-x), rel=1e-10, abs=1e-14)
    assert upper_gamma(0.5, x) == pytest.approx(math.erfc(math.sqrt(x)), rel=1e-10, abs=1e-14)
    assert upper_gamma(3, x) == pytest.approx(math.exp(-x) * (1 + x + x * x / 2), rel=1e-10, abs=1e-14)


@given(st.floats(0.1, 300), st.floats(0, 600))
def test_it_is_a_probability_that_falls(a: float, x: float) -> None:
    """Q lies between 0 and 1 and does not grow with x; both ways of computing it meet without a step."""
    value = upper_gamma(a, x)
    assert 0 <= value <= 1
    assert upper_gamma(a, x + 1) <= value + 1e-12
    assert upper_gamma(a, a + 1 - 1e-9) == pytest.approx(upper_gamma(a, a + 1 + 1e-9), abs=1e-8)


def test_edges() -> None:
    """Nothing unexpected has probability 1; one member has no degree of freedom; nonsense is refused."""
    assert p_value(0, 3) == 1
    assert p_value(12, 0) == 1
    assert chi_square([30, 20], [25, 25]) == 2
    with pytest.raises(ValueError, match="not defined"):
        upper_gamma(0, 1)
    with pytest.raises(ValueError, match="longer"):
        chi_square([1], [1, 2])
