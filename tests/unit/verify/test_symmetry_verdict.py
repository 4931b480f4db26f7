"""From what captures saw to the verdict on symmetry."""

from __future__ import annotations

import json

import pytest

from testbed.traffic.flows import Flow, Pair, Transport
from testbed.traffic.symmetry import FlowObservation, SymmetryMeasurement
from testbed.verify.check import NotMeasured
from testbed.verify.symmetry import classify, count_per_member, judge_symmetry

PAIR = Pair("web1", "lab-web1", "10.1.0.4", "eth0", "web2", "10.2.0.4", 1, both_directions=True)
ONE_WAY = Pair("web1", "lab-web1", "10.1.0.4", "eth0", "db", "10.3.0.4", 2, both_directions=False)


TWO_RULES = Pair(
    "web1", "lab-web1", "10.1.0.4", "eth0", "web2", "10.2.0.4", 1, both_directions=False, answers_rule_id=2
)


def seen(forward: str, reverse: str, *, replied: bool = True, pair: Pair = PAIR) -> FlowObservation:
    """A flow that crossed these members (one letter each)."""
    flow = Flow(0, pair, Transport.TCP, 1000, 443)
    return FlowObservation(flow, frozenset(forward), frozenset(reverse), replied, reset=False)


def measurement(*observations: FlowObservation, dropped: int = 0) -> SymmetryMeasurement:
    """A measurement with members a, b and c."""
    return SymmetryMeasurement(observations, ("a", "b", "c"), dropped, 1, 0.5)


@pytest.mark.parametrize(
    ("forward", "reverse", "replied", "outcome"),
    [
        ("a", "a", True, "symmetric"),
        ("a", "b", True, "asymmetric"),
        ("a", "b", False, "asymmetric"),
        ("ab", "a", True, "asymmetric"),
        ("ab", "ab", True, "asymmetric"),
        ("", "", True, "asymmetric"),
        ("a", "", True, "asymmetric"),
        ("", "a", True, "asymmetric"),
        ("", "a", False, "asymmetric"),
        ("a", "", False, "lost"),
        ("a", "a", False, "lost"),
        ("", "", False, "lost"),
    ],
)
def test_every_kind_of_flow(forward: str, reverse: str, *, replied: bool, outcome: str) -> None:
    """One member both ways and an answer is symmetric; two members or a detour are asymmetric; else lost."""
    assert classify(seen(forward, reverse, replied=replied)) == outcome


def test_all_good_passes() -> None:
    """Flows that are all symmetric pass, and are counted per member, idle ones too."""
    result = judge_symmetry(measurement(seen("a", "a"), seen("a", "a"), seen("b", "b")))
    assert result.verdict == "pass"
    assert result.to_json() == {
        "check": "symmetry",
        "verdict": "pass",
        "flows": 3,
        "symmetric": 3,
        "asymmetric": 0,
        "lost": 0,
        "per_member": {"a": 2, "b": 1, "c": 0},
        "dropped_frames": 0,
        "seed": 1,
        "seconds": 0.5,
        "examples": [],
        "reasons": [],
    }
    assert result.summary() == ("symmetry pass: 3 of 3 flows symmetric, 0 asymmetric, 0 lost; a 2, b 1, c 0 (0.50 s)")


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (measurement(), "no flow was sent"),
        (measurement(seen("a", "a"), seen("a", "b")), "1 of 2 flows did not cross the same member both ways"),
        (measurement(seen("a", "a"), seen("a", "", replied=False)), "1 of 2 flows got no answer"),
        (measurement(seen("a", "a"), dropped=3), "captures missed 3 frames, the figures are incomplete"),
    ],
)
def test_each_reason_to_fail(measured: SymmetryMeasurement, reason: str) -> None:
    """No flows, an asymmetric one, a lost one, or a capture with holes each fail alone."""
    result = judge_symmetry(measured)
    assert (result.verdict, result.reasons) == ("fail", (reason,))


def test_examples_say_what_was_seen() -> None:
    """A few bad flows are kept in words, with a hint when the answers are routed elsewhere."""
    bad = [seen("a", "", pair=ONE_WAY), *(seen("ab", "c", replied=False) for _ in range(30))]
    result = judge_symmetry(measurement(*bad), examples=3)
    assert len(result.examples) == 3
    assert result.examples[0] == (
        "tcp 10.1.0.4:1000 -> 10.3.0.4:443 (web1 -> db): asymmetric, forward at a, reverse at no member, "
        "answered; the answers' route does not name the rule"
    )
    assert "forward at a+b, reverse at c, not answered" in result.examples[1]
    json.dumps(result.to_json())


def test_counts_of_one_rule() -> None:
    """Members can be counted for one rule alone."""
    measured = measurement(seen("a", "a"), seen("b", "b", pair=ONE_WAY))
    assert count_per_member(measured) == {"a": 1, "b": 1, "c": 0}
    assert count_per_member(measured, 2) == {"a": 0, "b": 1, "c": 0}


def test_a_second_rule_is_named_as_the_cause() -> None:
    """Answers that another rule balances are told apart from those that nothing balances."""
    result = judge_symmetry(measurement(seen("a", "b", pair=TWO_RULES), seen("a", "a", pair=TWO_RULES)))
    assert result.asymmetric == 1
    assert "the answers to 1 of them are balanced by another rule" in result.reasons[1]
    assert result.examples[0].endswith("; another rule balances the answers")
    other = judge_symmetry(measurement(seen("a", "b"), seen("a", "", pair=ONE_WAY)))
    assert len(other.reasons) == 1


def test_a_check_that_was_not_made_is_a_failure() -> None:
    """It has a reason and no figures."""
    missing = NotMeasured("failover", ("loss before the fault",))
    assert missing.to_json() == {"check": "failover", "verdict": "fail", "reasons": ["loss before the fault"]}
    assert missing.summary() == "not measured"
