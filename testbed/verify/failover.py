"""Verdict on a failover: how long each phase took, and what became of old and new flows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Literal

from testbed.verify.check import Verdict, flat, verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from testbed.traffic.failover import FailoverMeasurement, TcpTrace, UdpTrace

__all__ = ["Expectation", "FailoverResult", "OldTcp", "Recovery", "judge_failover", "recovery", "tcp_fate"]

Fate = Literal["kept", "reset", "silent"]
#: A flow has recovered when the last so many of its datagrams were all answered.
_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the fault should lead to.

    Attributes:
        detection_bound_ms: By when the probe must have noticed: threshold times interval, plus the
            timeout, in the lab's time.
        slack_ms: What a busy computer may add to that.
        data_path_dies: The member forwards nothing any more (link down), so old TCP connections on it fall
            silent; else they must be kept, since an established connection stays with its member.
        member_resets: The member itself resets its connections as a part of the fault.
        udp_moves: Another member is left, so UDP flows must move and recover.
    """

    detection_bound_ms: float
    slack_ms: float = 500.0
    data_path_dies: bool = False
    member_resets: bool = False
    udp_moves: bool = True


@dataclass(frozen=True, slots=True)
class OldTcp:
    """How many long-lived connections were kept, were reset (or closed), or fell silent."""

    kept: int
    reset: int
    silent: int

    def to_json(self) -> dict[str, int]:
        """As in the report."""
        return {"kept": self.kept, "reset": self.reset, "silent": self.silent}


@dataclass(frozen=True, slots=True)
class Recovery:
    """What one UDP flow went through, in milliseconds.

    ``first_good_ms`` is from the fault to the first answer after the last loss, None when the flow did not
    recover. ``gap_ms`` is the longest time between two answers one after the other, or from the last answer
    to the end.
    """

    lost: int
    first_good_ms: float | None
    gap_ms: float


@dataclass(frozen=True, slots=True)
class FailoverResult:
    """Figures of a failover check; times in milliseconds after the fault.

    ``first_good_ms`` is the earliest recovery of a UDP flow that had been on the faulted member; its median
    and its latest stand beside it. ``old_tcp`` counts connections that were on that member.
    """

    faulted: tuple[str, ...]
    detected_ms: float | None
    programmed_ms: float | None
    first_good_ms: float | None
    first_good_median_ms: float | None
    first_good_max_ms: float | None
    new_flows: int
    new_flows_lost: int
    new_flows_lost_after_programmed: int
    old_tcp: OldTcp
    old_tcp_elsewhere: OldTcp
    udp_on_member: int
    udp_moved: int
    udp_lost_packets: int
    udp_gap_ms: float
    udp_lost_elsewhere: int
    udp_reordered: int
    latest_send_ms: float
    reasons: tuple[str, ...] = ()
    check: str = field(default="failover", init=False)

    @property
    def verdict(self) -> Verdict:
        """``pass`` or ``fail``."""
        return verdict_of(self.reasons)

    def to_json(self) -> dict[str, object]:
        """Flat, ready for ``json.dumps``; times rounded to 0.01 ms."""
        figures = {
            "faulted": list(self.faulted),
            "detected_ms": _rounded(self.detected_ms),
            "programmed_ms": _rounded(self.programmed_ms),
            "first_good_ms": _rounded(self.first_good_ms),
            "first_good_median_ms": _rounded(self.first_good_median_ms),
            "first_good_max_ms": _rounded(self.first_good_max_ms),
            "new_flows": self.new_flows,
            "new_flows_lost": self.new_flows_lost,
            "new_flows_lost_after_programmed": self.new_flows_lost_after_programmed,
            "old_tcp": self.old_tcp.to_json(),
            "old_tcp_elsewhere": self.old_tcp_elsewhere.to_json(),
            "udp": {
                "on_member": self.udp_on_member,
                "moved": self.udp_moved,
                "lost_packets": self.udp_lost_packets,
                "gap_ms": _rounded(self.udp_gap_ms),
                "lost_elsewhere": self.udp_lost_elsewhere,
                "reordered": self.udp_reordered,
            },
            "latest_send_ms": _rounded(self.latest_send_ms),
        }
        return flat(self.check, self.reasons, figures)

    def summary(self) -> str:
        """The outcome in one line."""
        old = self.old_tcp
        return (
            f"failover {self.verdict} ({', '.join(self.faulted)}): detected {_text(self.detected_ms)}, "
            f"programmed {_text(self.programmed_ms)}, first good packet {_text(self.first_good_ms)}; "
            f"{self.new_flows_lost} of {self.new_flows} new flows lost; old TCP {old.kept} kept, "
            f"{old.reset} reset, {old.silent} silent; UDP {self.udp_moved} of {self.udp_on_member} moved, "
            f"gap {_text(self.udp_gap_ms)}"
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _text(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} ms"


def recovery(trace: UdpTrace, fault_ns: int, stopped_ns: int) -> Recovery:
    """What a UDP flow went through after the fault; datagrams sent before it count when their answer is lost."""
    lost = [number for number, at in enumerate(trace.received_ns) if not at]
    start = (
        lost[-1] + 1
        if lost
        else next((number for number, at in enumerate(trace.sent_ns) if at >= fault_ns), len(trace.sent_ns))
    )
    good = trace.received_ns[start:]
    answers = [*sorted(at for at in trace.received_ns if at >= fault_ns), stopped_ns]
    last_before = max((at for at in trace.received_ns if at < fault_ns), default=0)
    edges = [last_before or fault_ns, *answers]
    gap = max((after - before for before, after in pairwise(edges)), default=0)
    recovered = len(good) >= _IN_A_ROW
    return Recovery(
        lost=len(lost),
        first_good_ms=(min(good) - fault_ns) / 1e6 if recovered else None,
        gap_ms=max(gap, 0) / 1e6,
    )


def tcp_fate(trace: TcpTrace, since_ns: int) -> Fate:
    """``kept``: something sent after ``since_ns`` was echoed; ``reset``: it was ended; else ``silent``."""
    if trace.ended:
        return "reset"
    if trace.echo_ns and trace.sent_ns[len(trace.echo_ns) - 1] >= since_ns:
        return "kept"
    return "silent"


def _fates(traces: Iterable[TcpTrace], since_ns: int) -> OldTcp:
    counts = Counter(tcp_fate(trace, since_ns) for trace in traces)
    return OldTcp(counts["kept"], counts["reset"], counts["silent"])


def _timing(detected_ms: float | None, programmed_ms: float | None, late_ms: float, want: Expectation) -> list[str]:
    """Complaints about the phases; ``late_ms`` is how long the injection took, the fault lies within."""
    reasons = []
    bound = want.detection_bound_ms + want.slack_ms
    if detected_ms is None:
        reasons.append("the probe never noticed the fault")
    elif detected_ms - late_ms > bound:
        reasons.append(
            f"the probe noticed after {detected_ms:.0f} ms; at most {want.detection_bound_ms:.0f} ms and "
            f"{want.slack_ms:.0f} ms of slack are allowed"
        )
    if programmed_ms is None:
        reasons.append("the balancer was never changed")
    return reasons


def _udp(on: Sequence[UdpTrace], moved: int, recovered: int, want: Expectation) -> list[str]:
    """Complaints about UDP flows that were on the member."""
    if not want.udp_moves:
        return []
    reasons = []
    if moved < len(on):
        reasons.append(f"{len(on) - moved} of {len(on)} UDP flows did not move to another member")
    if recovered < len(on):
        reasons.append(f"{len(on) - recovered} of {len(on)} UDP flows did not recover")
    return reasons


def _old_tcp(on: OldTcp, elsewhere: OldTcp, want: Expectation) -> list[str]:
    """Complaints about connections that were there before the fault."""
    reasons = []
    if elsewhere.reset or elsewhere.silent:
        reasons.append(
            f"connections on other members: {elsewhere.reset} reset, {elsewhere.silent} silent; all must be kept"
        )
    if want.member_resets:
        return reasons
    if on.reset:
        reasons.append(f"{on.reset} old TCP connections were reset or closed, which the balancer must not do")
    if want.data_path_dies and on.kept:
        reasons.append(f"{on.kept} old TCP connections went on, although their member forwards nothing")
    if not want.data_path_dies and on.silent:
        reasons.append(f"{on.silent} old TCP connections fell silent, although their member still forwards")
    return reasons


def judge_failover(
    measured: FailoverMeasurement,
    *,
    detected_at: float | None,
    programmed_at: float | None,
    expected: Expectation,
) -> FailoverResult:
    """The verdict on a measurement.

    Args:
        measured: What happened to the traffic.
        detected_at: Unix time when the controller took the member as down; None: never.
        programmed_at: Unix time when the kernel had confirmed the new table; None: never.
        expected: What the fault should lead to.
    """
    fault = measured.fault_ns
    detected_ms = None if detected_at is None else detected_at * 1e3 - fault / 1e6
    programmed_ms = None if programmed_at is None else programmed_at * 1e3 - fault / 1e6
    on = [trace for trace in measured.udp if trace.before & measured.faulted]
    other = [trace for trace in measured.udp if not trace.before & measured.faulted]
    recoveries = [recovery(trace, fault, measured.stopped_ns) for trace in on]
    good = sorted(each.first_good_ms for each in recoveries if each.first_good_ms is not None)
    moved = sum(1 for trace in on if trace.after and not trace.after & measured.faulted)
    lost_elsewhere = sum(trace.received_ns.count(0) for trace in other)
    change = int(programmed_at * 1e9) if programmed_at is not None else measured.settled_ns or measured.injected_ns
    tcp_on = _fates((trace for trace in measured.tcp if trace.before & measured.faulted), change)
    tcp_other = _fates((trace for trace in measured.tcp if not trace.before & measured.faulted), change)
    lost = [attempt for attempt in measured.attempts if attempt.outcome != "ok"]
    late = [attempt for attempt in lost if programmed_at is not None and attempt.started_ns > change]
    tried_late = sum(1 for attempt in measured.attempts if attempt.started_ns > change)

    reasons = _timing(detected_ms, programmed_ms, (measured.injected_ns - fault) / 1e6, expected)
    if not on:
        reasons.append("no UDP flow crossed the faulted member before the fault")
    reasons += _udp(on, moved, len(good), expected)
    if lost_elsewhere:
        reasons.append(f"{lost_elsewhere} datagrams of flows on other members were lost")
    disturbed = sum(1 for trace in other if trace.before and trace.after and trace.before != trace.after)
    if disturbed:
        reasons.append(f"{disturbed} UDP flows on other members were moved without need")
    duplicates = sum(trace.duplicates for trace in measured.udp)
    if duplicates:
        reasons.append(f"{duplicates} datagrams were answered more than once")
    reasons += _old_tcp(tcp_on, tcp_other, expected)
    if late:
        reasons.append(f"{len(late)} of {tried_late} new flows were lost after the balancer had changed")
    if measured.attempts and not tried_late:
        reasons.append("no new flow was tried after the balancer had changed")
    if measured.dropped_frames:
        reasons.append(f"captures missed {measured.dropped_frames} frames, the figures are incomplete")
    return FailoverResult(
        faulted=tuple(sorted(measured.faulted)),
        detected_ms=detected_ms,
        programmed_ms=programmed_ms,
        first_good_ms=good[0] if good else None,
        first_good_median_ms=median(good) if good else None,
        first_good_max_ms=good[-1] if good else None,
        new_flows=len(measured.attempts),
        new_flows_lost=len(lost),
        new_flows_lost_after_programmed=len(late),
        old_tcp=tcp_on,
        old_tcp_elsewhere=tcp_other,
        udp_on_member=len(on),
        udp_moved=moved,
        udp_lost_packets=sum(each.lost for each in recoveries),
        udp_gap_ms=max((each.gap_ms for each in recoveries), default=0.0),
        udp_lost_elsewhere=lost_elsewhere,
        udp_reordered=sum(trace.reordered for trace in measured.udp),
        latest_send_ms=measured.latest_send_ms,
        reasons=tuple(reasons),
    )
