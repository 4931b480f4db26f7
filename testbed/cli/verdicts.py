"""The reports of ``testbed verify`` for people: a line per check, its figures below, and why one failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.cli.output import bad, counted, good, weak
from testbed.verify.distribution import DistributionResult
from testbed.verify.failover import FailoverResult
from testbed.verify.symmetry import SymmetryResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from testbed.lab.verification import Report
    from testbed.plan.model import Plan
    from testbed.verify.check import Check

__all__ = ["print_verdicts"]

_NAME = 14
_MARGIN = " " * (2 + _NAME + 6)
_MOST_EXAMPLES = 5


def print_verdicts(plan: Plan, reports: Sequence[Report], *, fault: str) -> None:
    """Print the reports in their order, under a heading for each phase, and the verdict on all of them.

    Args:
        plan: Of the lab.
        reports: What ``verify`` returned.
        fault: Kind of the fault that a failover check was told to use.
    """
    faulted = [name for each in reports if isinstance(each.check, FailoverResult) for name in each.check.faulted]
    headings = {
        "steady": "steady state",
        "fault": f"fault: {fault} on {', '.join(faulted)}" if faulted else f"fault: {fault}",
        "recovered": "after recovery",
    }
    phase = ""
    for each in reports:
        if each.phase != phase:
            phase = each.phase
            print(weak(headings.get(phase, phase)))
        _print_check(each.check, plan.time_scale)
    failed = sum(each.check.verdict != "pass" for each in reports)
    if failed:
        print(f"{bad('FAIL')}: lab {plan.lab}, {failed} of {counted(len(reports), 'check')} failed")
    else:
        print(f"{good('PASS')}: lab {plan.lab}, {counted(len(reports), 'check')}")


def _print_check(check: Check, time_scale: float) -> None:
    mark = good("pass") if check.verdict == "pass" else bad("FAIL")
    first, *more = _figures(check, time_scale)
    print(f"  {check.check:{_NAME}}{mark}  {first}")
    for line in more:
        print(_MARGIN + line)
    for reason in check.reasons:
        print(f"{_MARGIN}{bad('because')} {reason}")
    if isinstance(check, SymmetryResult) and check.examples:
        for example in check.examples[:_MOST_EXAMPLES]:
            print(f"{_MARGIN}  e.g. {example}")
        print(f"{_MARGIN}the same ports again: --seed {check.seed} --flows {check.flows}")


def _figures(check: Check, time_scale: float) -> Iterator[str]:
    match check:
        case SymmetryResult():
            yield from _symmetry(check)
        case DistributionResult():
            yield from _distribution(check)
        case FailoverResult():
            yield from _failover(check, time_scale)
        case _:
            yield check.summary()


def _symmetry(check: SymmetryResult) -> Iterator[str]:
    share = f"{check.symmetric} of {counted(check.flows, 'flow')} symmetric"
    yield f"{share}, {check.asymmetric} asymmetric, {check.lost} lost"
    yield ", ".join(f"{name} {count}" for name, count in check.per_member.items())


def _distribution(check: DistributionResult) -> Iterator[str]:
    total = check.flows or 1
    whole = sum(check.expected.values()) or 1
    yield ", ".join(
        f"{name} {100 * count / total:.1f} % ({100 * check.expected.get(name, 0) / whole:.1f} % expected)"
        for name, count in check.per_member.items()
    )
    yield f"{counted(check.flows, 'flow')} of {check.rule}, chi-square {check.chi_square:.2f}, p = {check.p_value:.3g}"


def _failover(check: FailoverResult, time_scale: float) -> Iterator[str]:
    times = (
        ("detected", check.detected_ms),
        ("programmed", check.programmed_ms),
        ("first good packet", check.first_good_ms),
    )
    yield ", ".join(f"{what} {_after(value)}" for what, value in times) + " after the fault"
    if time_scale != 1 and check.detected_ms is not None:
        seconds = check.detected_ms / 1000 / time_scale
        yield f"detection at Azure's own times: about {seconds:.1f} s (time scale {time_scale:g})"
    old = check.old_tcp
    yield f"TCP there before: {old.kept} kept, {old.reset} reset, {old.silent} silent"
    after = check.new_flows_lost_after_programmed
    yield f"TCP new: {check.new_flows_lost} of {check.new_flows} lost, {after} of them after the table had changed"
    yield (
        f"UDP: {check.udp_moved} of {counted(check.udp_on_member, 'flow')} moved, "
        f"{counted(check.udp_lost_packets, 'packet')} lost, longest gap {check.udp_gap_ms:.0f} ms"
    )


def _after(milliseconds: float | None) -> str:
    return "never" if milliseconds is None else f"{milliseconds:.0f} ms"
