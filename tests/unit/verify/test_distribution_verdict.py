"""From counts per member to the verdict on distribution."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from testbed.verify.distribution import judge_distribution


def test_even_counts_pass() -> None:
    """Counts near their shares pass; expected values are flows and add up."""
    result = judge_distribution("lb/fe/ha", {"a": 1010, "b": 990}, {"a": 2048, "b": 2048})
    assert result.verdict == "pass"
    assert result.expected == {"a": 1000, "b": 1000}
    assert (result.chi_square, result.degrees_of_freedom) == (0.2, 1)
    assert result.p_value == pytest.approx(0.6547, abs=1e-4)
    assert json.loads(json.dumps(result.to_json()))["verdict"] == "pass"
    assert result.to_json()["rule"] == "lb/fe/ha"
    shares = "a 50.5 %, b 49.5 % of 2000 flows of lb/fe/ha"
    assert result.summary() == f"distribution pass: {shares}, chi-square 0.20, p = 0.655"


def test_honest_randomness_passes() -> None:
    """2,000 flows thrown at random on uneven shares pass, fifty times in a row."""
    shares = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05}
    generator = random.Random(1)  # noqa: S311 - a repeatable throw of dice
    for _ in range(50):
        counts = Counter(generator.choices(list(shares), list(shares.values()), k=2000))
        assert judge_distribution("lb/fe/ha", counts, shares).verdict == "pass"


@pytest.mark.parametrize(
    ("counts", "shares", "reason"),
    [
        ({"a": 1200, "b": 800}, {"a": 1, "b": 1}, "the shares are wrong: chi-square 80.0, p = 3.7e-19"),
        ({"a": 0, "b": 0}, {"a": 1, "b": 1}, "no flow crossed a member"),
        ({"a": 99, "b": 1}, {"a": 1, "b": 0}, "b got 1 flows and should get none"),
        ({"a": 99, "x": 1}, {"a": 1}, "x got 1 flows and should get none"),
        ({"a": 430, "b": 0}, {"a": 410, "b": 20}, "b got no flow, about 20 were expected"),
        ({"a": 1}, {"a": 0}, "no member is expected to get a flow"),
    ],
)
def test_each_reason_to_fail(counts: dict[str, int], shares: dict[str, float], reason: str) -> None:
    """Wrong shares, no flows, flows where none belong, and an idle member each fail."""
    result = judge_distribution("lb/fe/ha", counts, shares)
    assert result.verdict == "fail"
    assert reason in result.reasons


def test_few_flows_do_not_fail() -> None:
    """A member that could be idle by chance does not fail, and one member alone has nothing to compare."""
    assert judge_distribution("lb/fe/ha", {"a": 9, "b": 0}, {"a": 1, "b": 1}).verdict == "pass"
    assert judge_distribution("lb/fe/ha", {"a": 500}, {"a": 4096}).p_value == 1
