"""From packet traces to the phases and the verdict of a failover."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from testbed.errors import InputError
from testbed.traffic.failover import FailoverMeasurement, Load, TcpTrace, UdpTrace
from testbed.traffic.flows import Flow, Pair, Transport
from testbed.traffic.streams import Attempt, AttemptOutcome
from testbed.verify.failover import Expectation, judge_failover, recovery, tcp_fate

PAIR = Pair("web1", "lab-web1", "10.1.0.4", "eth0", "web2", "10.2.0.4", 1, both_directions=True)
MS = 10**6
START = 1_700_000_000 * 10**9
FAULT, STOP = START + 1000 * MS, START + 3000 * MS
DETECTED, PROGRAMMED = (FAULT + 200 * MS) / 1e9, (FAULT + 210 * MS) / 1e9
EXPECTED = Expectation(detection_bound_ms=300, slack_ms=50)
A, B = frozenset({"a"}), frozenset({"b"})


def udp(before: frozenset[str], after: frozenset[str], lost: range = range(0), duplicates: int = 0) -> UdpTrace:
    """A flow with a datagram every 10 ms, each answered after 1 ms except the lost numbers (100: the fault)."""
    sent = tuple(START + number * 10 * MS for number in range(300))
    received = tuple(0 if number in lost else at + MS for number, at in enumerate(sent))
    flow = Flow(0, PAIR, Transport.UDP, 1000, 53)
    return UdpTrace(flow, before, after, sent, received, duplicates, 0)


def tcp(before: frozenset[str], echoed: int = 150, ended: str = "") -> TcpTrace:
    """A connection with a number every 20 ms, of which the first ``echoed`` came back."""
    sent = tuple(START + number * 20 * MS for number in range(150))
    echoes = tuple(at + MS for at in sent[:echoed])
    return TcpTrace(Flow(1, PAIR, Transport.TCP, 1000, 22), before, before, sent, echoes, ended)


def attempt(after_fault_ms: int, outcome: AttemptOutcome = "ok") -> Attempt:
    """A new connection that began so long after the fault."""
    return Attempt(FAULT + after_fault_ms * MS, PAIR, 443, outcome, 0.01)


GOOD = FailoverMeasurement(
    faulted=A,
    udp=(udp(A, B, range(100, 121)), udp(A, B, range(100, 122)), udp(B, B)),
    tcp=(tcp(A), tcp(B)),
    attempts=(attempt(-10), attempt(20), attempt(100, "timeout"), attempt(250)),
    started_ns=START,
    fault_ns=FAULT,
    injected_ns=FAULT + 5 * MS,
    settled_ns=FAULT + 215 * MS,
    stopped_ns=STOP,
    dropped_frames=0,
    latest_send_ms=1.5,
)


def judged(measured: FailoverMeasurement, expected: Expectation = EXPECTED) -> tuple[str, ...]:
    """The reasons why a measurement fails."""
    result = judge_failover(measured, detected_at=DETECTED, programmed_at=PROGRAMMED, expected=expected)
    return result.reasons


def test_a_good_failover_passes_with_its_figures() -> None:
    """Phases, gaps and counts come out as they were put in."""
    result = judge_failover(GOOD, detected_at=DETECTED, programmed_at=PROGRAMMED, expected=EXPECTED)
    assert result.verdict == "pass", result.reasons
    figures = result.to_json()
    assert figures["detected_ms"] == pytest.approx(200, abs=0.01)
    assert figures["programmed_ms"] == pytest.approx(210, abs=0.01)
    # Numbers 121 and 122 are the first good ones, sent 210 and 220 ms after the fault.
    assert (figures["first_good_ms"], figures["first_good_max_ms"]) == (211, 221)
    assert figures["first_good_median_ms"] == 216
    assert (figures["new_flows"], figures["new_flows_lost"]) == (4, 1)
    assert figures["new_flows_lost_after_programmed"] == 0
    assert figures["old_tcp"] == {"kept": 1, "reset": 0, "silent": 0}
    assert figures["udp"] == {
        "on_member": 2,
        "moved": 2,
        "lost_packets": 43,
        "gap_ms": 230.0,
        "lost_elsewhere": 0,
        "reordered": 0,
    }
    json.dumps(figures)
    assert result.summary().startswith("failover pass (a): detected 200 ms, programmed 210 ms, first good packet")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"udp": (udp(A, A), udp(B, B))}, "1 of 1 UDP flows did not move to another member"),
        ({"udp": (udp(A, frozenset("ab")),)}, "1 of 1 UDP flows did not move to another member"),
        ({"udp": (udp(A, frozenset(), range(100, 300)),)}, "1 of 1 UDP flows did not recover"),
        ({"udp": (udp(A, B, range(100, 298)),)}, "1 of 1 UDP flows did not recover"),
        ({"udp": (udp(B, B),)}, "no UDP flow crossed the faulted member before the fault"),
        ({"udp": (udp(A, B), udp(B, B, range(150, 152)))}, "2 datagrams of flows on other members were lost"),
        ({"udp": (udp(A, B), udp(B, frozenset("c")))}, "1 UDP flows on other members were moved without need"),
        ({"udp": (udp(A, B, duplicates=2),)}, "2 datagrams were answered more than once"),
        (
            {"tcp": (tcp(A, 60, "Connection reset by peer"),)},
            "1 old TCP connections were reset or closed, which the balancer must not do",
        ),
        ({"tcp": (tcp(A, 50),)}, "1 old TCP connections fell silent, although their member still forwards"),
        (
            {"tcp": (tcp(B, 50), tcp(B, 50, "x"))},
            "connections on other members: 1 reset, 1 silent; all must be kept",
        ),
        (
            {"attempts": (attempt(250), attempt(211, "timeout"))},
            "1 of 2 new flows were lost after the balancer had changed",
        ),
        ({"attempts": (attempt(20),)}, "no new flow was tried after the balancer had changed"),
        ({"dropped_frames": 4}, "captures missed 4 frames, the figures are incomplete"),
    ],
)
def test_each_reason_to_fail(change: dict[str, object], reason: str) -> None:
    """Every promise of a failover fails the check when it is broken."""
    assert reason in judged(replace(GOOD, **change))  # type: ignore[arg-type]


def test_phases_that_never_came_or_came_late() -> None:
    """No detection, no change and a late detection are reasons; a slow injection is not held against it."""
    never = judge_failover(GOOD, detected_at=None, programmed_at=None, expected=EXPECTED)
    assert never.reasons == ("the probe never noticed the fault", "the balancer was never changed")
    assert "detected never" in never.summary()
    tight = Expectation(detection_bound_ms=150, slack_ms=44)
    assert judged(GOOD, tight) == ("the probe noticed after 200 ms; at most 150 ms and 44 ms of slack are allowed",)
    assert not judged(GOOD, replace(tight, slack_ms=46))


def test_a_dead_data_path_must_silence_old_connections() -> None:
    """With the data path gone silence is right, and a connection that goes on has been moved."""
    dead = replace(EXPECTED, data_path_dies=True)
    silent = replace(GOOD, tcp=(tcp(A, 50), tcp(B)))
    assert not judged(silent, dead)
    assert judged(GOOD, dead) == ("1 old TCP connections went on, although their member forwards nothing",)


def test_a_member_that_resets_is_not_the_balancers_fault() -> None:
    """Resets on the member are forgiven only when the fault implies them."""
    ended = replace(GOOD, tcp=(tcp(A, 60, "Connection reset by peer"), tcp(B)))
    assert judged(ended)
    assert not judged(ended, replace(EXPECTED, member_resets=True))


def test_nobody_left_to_move_to() -> None:
    """When no member is left, UDP flows need not recover."""
    gone = replace(GOOD, udp=(udp(A, frozenset(), range(100, 300)),))
    assert not judged(gone, replace(EXPECTED, udp_moves=False))


def test_recovery_of_a_flow_without_loss() -> None:
    """Without loss, the first good answer is that of the first datagram after the fault."""
    assert recovery(udp(A, B), FAULT, STOP).first_good_ms == 1
    assert recovery(udp(A, B), FAULT, STOP).gap_ms == 10
    assert recovery(udp(A, B), FAULT, STOP).lost == 0


def test_recovery_is_after_the_last_loss() -> None:
    """A flow that comes back for a moment has not recovered yet."""
    trace = udp(A, B, range(100, 121))
    flapping = replace(trace, received_ns=(*trace.received_ns[:150], 0, *trace.received_ns[151:]))
    assert recovery(flapping, FAULT, STOP).first_good_ms == 511
    assert recovery(flapping, FAULT, STOP).lost == 22
    assert recovery(udp(A, B, range(100, 300)), FAULT, STOP).gap_ms == 2009


@pytest.mark.parametrize(
    ("trace", "fate"),
    [(tcp(A), "kept"), (tcp(A, 61), "silent"), (tcp(A, 62), "kept"), (tcp(A, 0), "silent"), (tcp(A, 5, "x"), "reset")],
)
def test_fates_of_a_connection(trace: TcpTrace, fate: str) -> None:
    """Kept is only what still carries something that was sent after the change (numbers from 61 on)."""
    assert tcp_fate(trace, START + 1210 * MS) == fate


def test_too_much_load_is_refused() -> None:
    """More messages than this process can time are an input error that says how many they are."""
    with pytest.raises(InputError, match="100 UDP flows and 0 TCP connections make 10000 messages"):
        Load(udp_flows=100, tcp_connections=0)
