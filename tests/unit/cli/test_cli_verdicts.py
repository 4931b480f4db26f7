"""What ``testbed verify`` and tables look like to people."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from testbed.cli.output import counted, print_table
from testbed.cli.verdicts import print_verdicts
from testbed.lab.verification import Report
from testbed.plan.model import Plan
from testbed.verify.distribution import judge_distribution
from testbed.verify.failover import FailoverResult, OldTcp
from testbed.verify.symmetry import SymmetryResult

if TYPE_CHECKING:
    import pytest

    from testbed.verify.check import Check

PLAN = Plan("demo", 0.02, "demo-fabric", (), (), (), ())
SYMMETRIC = SymmetryResult(2000, 2000, 0, 0, {"nva1": 1010, "nva2": 990}, 0, 7, 0.4)
FAILOVER = FailoverResult(
    faulted=("nva1",),
    detected_ms=122.0,
    programmed_ms=124.6,
    first_good_ms=None,
    first_good_median_ms=None,
    first_good_max_ms=None,
    new_flows=319,
    new_flows_lost=6,
    new_flows_lost_after_programmed=0,
    old_tcp=OldTcp(0, 0, 18),
    old_tcp_elsewhere=OldTcp(12, 0, 0),
    udp_on_member=1,
    udp_moved=1,
    udp_lost_packets=21,
    udp_gap_ms=140.2,
    udp_lost_elsewhere=0,
    udp_reordered=0,
    latest_send_ms=1.0,
)


def printed(capsys: pytest.CaptureFixture[str], *reports: tuple[str, Check]) -> list[str]:
    """The lines that are printed for some reports."""
    print_verdicts(PLAN, [Report(phase, check) for phase, check in reports], fault="crash")
    return capsys.readouterr().out.splitlines()


def test_checks_that_passed(capsys: pytest.CaptureFixture[str]) -> None:
    """Phases are headings; figures stand in one column; the last line is the verdict on all."""
    spread = judge_distribution("lb/fe/ha", {"nva1": 1010, "nva2": 990}, {"nva1": 2048.0, "nva2": 2048.0})
    lines = printed(capsys, ("steady", SYMMETRIC), ("steady", spread), ("fault", FAILOVER), ("recovered", SYMMETRIC))
    assert lines == [
        "steady state",
        "  symmetry      pass  2000 of 2000 flows symmetric, 0 asymmetric, 0 lost",
        "                      nva1 1010, nva2 990",
        "  distribution  pass  nva1 50.5 % (50.0 % expected), nva2 49.5 % (50.0 % expected)",
        "                      2000 flows of lb/fe/ha, chi-square 0.20, p = 0.655",
        "fault: crash on nva1",
        "  failover      pass  detected 122 ms, programmed 125 ms, first good packet never after the fault",
        "                      detection at Azure's own times: about 6.1 s (time scale 0.02)",
        "                      TCP there before: 0 kept, 0 reset, 18 silent",
        "                      TCP new: 6 of 319 lost, 0 of them after the table had changed",
        "                      UDP: 1 of 1 flow moved, 21 packets lost, longest gap 140 ms",
        "after recovery",
        "  symmetry      pass  2000 of 2000 flows symmetric, 0 asymmetric, 0 lost",
        "                      nva1 1010, nva2 990",
        "PASS: lab demo, 4 checks",
    ]


def test_a_check_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each reason is there, some examples of bad flows, and how to have the same flows again."""
    examples = tuple(f"flow {number}" for number in range(10))
    wrong = replace(
        SYMMETRIC, symmetric=1900, asymmetric=100, examples=examples, reasons=("100 of 2000 flows went astray",)
    )
    lines = printed(capsys, ("steady", wrong), ("fault", FAILOVER))
    text = "\n".join(lines)
    assert "  symmetry      FAIL  1900 of 2000 flows symmetric, 100 asymmetric, 0 lost" in lines
    assert "because 100 of 2000 flows went astray" in text
    assert "e.g. flow 0" in text
    assert text.count("e.g. ") == 5
    assert "--seed 7 --flows 2000" in text
    assert lines[-1] == "FAIL: lab demo, 1 of 2 checks failed"


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Words stand left, whole numbers right, and colour takes no room."""
    print_table(("NAME", "N", "STATE"), [("a", 5, "\033[32mup\033[0m"), ("long", 1234, "down")], indent=" ")
    assert capsys.readouterr().out.splitlines() == [
        " NAME     N  STATE",
        " a        5  \033[32mup\033[0m",
        " long  1234  down",
    ]
    print_table(("NAME",), [])
    assert capsys.readouterr().out == ""


def test_words_are_counted() -> None:
    """One error, two errors."""
    assert [counted(number, "error") for number in (0, 1, 2)] == ["0 errors", "1 error", "2 errors"]
