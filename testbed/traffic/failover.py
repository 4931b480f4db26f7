"""What happens to old and new flows when a member fails, recorded packet by packet.

Order: open old flows, see that all of them work, learn from captures which of them cross the member, inject
the fault, go on until the balancer has changed and an observation time is over, stop. Loss before the fault
is an error and not a result.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.errors import DeadlineError, InputError, LabError
from testbed.traffic.frames import FlowIndex, headers
from testbed.traffic.rings import Capture
from testbed.traffic.streams import Attempt, Connections, Connector, Datagrams, every

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from testbed.traffic.flows import Flow, Pair, Tap

__all__ = ["FailoverMeasurement", "Load", "Phases", "TcpTrace", "UdpTrace", "measure_failover"]

_MOST_MESSAGES = 5000  # per second; more and this process itself becomes the bottleneck
_POLL = 0.02  # between two looks at a condition; no figure depends on it
_CATCH_UP = 2.0  # seconds that answers may take when the machine is busy


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent, intervals and timeout in seconds; ``seed`` makes the destination ports repeatable.

    ``connect_timeout`` is not more than the second after which the kernel repeats a lost SYN, so that a
    lost SYN is a lost flow.

    Raises:
        InputError: It is more than 5,000 messages a second.
    """

    udp_flows: int = 32
    udp_interval: float = 0.01
    tcp_connections: int = 32
    tcp_interval: float = 0.02
    connects_per_second: float = 100.0
    connect_timeout: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        total = self.udp_flows / self.udp_interval + self.tcp_connections / self.tcp_interval
        if total > _MOST_MESSAGES:
            raise InputError(
                f"{self.udp_flows} UDP flows and {self.tcp_connections} TCP connections make {total:.0f} "
                f"messages a second; {_MOST_MESSAGES} are the most that are timed well",
                fix="use fewer flows or longer intervals",
            )


@dataclass(frozen=True, slots=True)
class Phases:
    """How long the parts of a measurement last, in seconds."""

    baseline: float = 1.0
    settle_deadline: float = 30.0
    observe: float = 2.0


@dataclass(frozen=True, slots=True)
class UdpTrace:
    """One numbered UDP flow; per number, when it was sent and when its echo came (0: never).

    ``before`` and ``after`` name the members that carried it just before the fault and at the end.
    """

    flow: Flow
    before: frozenset[str]
    after: frozenset[str]
    sent_ns: tuple[int, ...]
    received_ns: tuple[int, ...]
    duplicates: int
    reordered: int


@dataclass(frozen=True, slots=True)
class TcpTrace:
    """One long-lived connection; ``echo_ns`` is shorter than ``sent_ns`` by what was not echoed.

    ``ended`` tells what ended it, or is empty.
    """

    flow: Flow
    before: frozenset[str]
    after: frozenset[str]
    sent_ns: tuple[int, ...]
    echo_ns: tuple[int, ...]
    ended: str


@dataclass(frozen=True, slots=True)
class FailoverMeasurement:
    """One fault. Times are Unix nanoseconds.

    ``fault_ns`` and ``injected_ns`` stand right before and right after the injection; ``settled_ns`` is when
    the caller said that the balancer had changed, 0 for not in time. ``latest_send_ms`` is by how much the
    sender came too late at worst: gaps shorter than that are not measured well.
    """

    faulted: frozenset[str]
    udp: tuple[UdpTrace, ...]
    tcp: tuple[TcpTrace, ...]
    attempts: tuple[Attempt, ...]
    started_ns: int
    fault_ns: int
    injected_ns: int
    settled_ns: int
    stopped_ns: int
    dropped_frames: int
    latest_send_ms: float


class _Taps:
    """The captures on the members, read for a while and then forgotten."""

    def __init__(self, taps: Sequence[Tap], flows: Sequence[Flow], stack: ExitStack) -> None:
        self._index = FlowIndex([flow.key for flow in flows])
        self._flows = flows
        self._taps = [(tap, stack.enter_context(Capture(tap.namespace, tap.nic))) for tap in taps]
        self._seen: dict[int, set[str]] = {}

    def read(self) -> None:
        """Note which flows crossed which members; called often enough, no ring overflows."""
        for tap, capture in self._taps:
            frames = capture.read()
            if len(frames):
                for place in set(self._index.match(headers(frames)).flow.tolist()):
                    if tap.serves(self._flows[place].pair):
                        self._seen.setdefault(place, set()).add(tap.name)

    def forget(self) -> None:
        """Begin a new time."""
        self.read()
        self._seen = {}

    def members(self) -> tuple[frozenset[str], ...]:
        """Per flow, the members it crossed since :meth:`forget`."""
        self.read()
        return tuple(frozenset(self._seen.get(place, ())) for place in range(len(self._flows)))

    def dropped(self) -> int:
        """Frames that were missed."""
        return sum(capture.dropped() for _, capture in self._taps)


async def _until(condition: Callable[[], bool], deadline: float) -> bool:
    """Wait until the condition holds, at most ``deadline`` seconds; whether it holds."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(_POLL)
    return True


def _lossless(udp: Datagrams, tcp: Connections, connector: Connector, since_ns: int, until_ns: int) -> str:
    """An empty string when nothing was lost, else a sentence on what was."""
    missing = udp.missing(since_ns, until_ns)
    if missing:
        place = next(iter(missing))
        return f"{sum(missing.values())} datagrams of {len(missing)} flows, such as {udp.flows[place]}"
    for place, flow in enumerate(tcp.flows):
        if tcp.ended[place]:
            return f"the connection {flow} ({tcp.ended[place]})"
        if len(tcp.echo_ns[place]) < sum(1 for at in tcp.sent_ns[place] if at < until_ns):
            return f"echoes on the connection {flow}"
    for attempt in connector.attempts:
        if attempt.outcome != "ok":
            return f"a new connection {attempt.pair} port {attempt.server_port} ({attempt.outcome})"
    return ""


class _Run:
    """The senders of one measurement."""

    def __init__(self, udp: Datagrams, tcp: Connections, connector: Connector, taps: _Taps, load: Load) -> None:
        self.udp, self.tcp, self.connector, self.taps = udp, tcp, connector, taps
        self._load = load
        self._tasks: list[asyncio.Task[float]] = []

    def start(self) -> None:
        """Start all senders, and the reader of the captures."""
        load = self._load
        work: list[tuple[float, Callable[[], None]]] = [
            (load.udp_interval, self.udp.send),
            (load.tcp_interval, self.tcp.send),
            (0.1, self.taps.read),
        ]
        if load.connects_per_second:
            work.append((1 / load.connects_per_second, self.connector.start))
        self._tasks = [asyncio.create_task(every(interval, action)) for interval, action in work]

    async def stop(self) -> float:
        """Stop the senders; returns by how many seconds they came too late at worst."""
        for task in self._tasks:
            task.cancel()
        tasks, self._tasks = self._tasks, []
        return max([0.0, *(await asyncio.gather(*tasks))])

    def running(self) -> bool:
        """Whether every receiver has got something."""
        answered = all(any(received) for received in self.udp.received_ns)
        attempted = bool(self.connector.attempts) or not self._load.connects_per_second
        return answered and all(self.tcp.echo_ns) and attempted

    async def require_lossless(self, since_ns: int) -> None:
        """Raise LabError unless all that was sent since then is answered (soon)."""
        until_ns = time.time_ns()

        def answered() -> bool:
            return not _lossless(self.udp, self.tcp, self.connector, since_ns, until_ns)

        if not await _until(answered, _CATCH_UP):
            lost = _lossless(self.udp, self.tcp, self.connector, since_ns, until_ns)
            raise LabError(
                f"loss before the fault, so the failover cannot be measured: {lost}",
                fix="run the symmetry check, or repeat when the computer is less busy",
            )


async def _settle(settled: Callable[[], Awaitable[bool]], deadline: float) -> int:
    """Unix nanoseconds when ``settled`` was true, or 0."""
    end = time.monotonic() + deadline
    while not await settled():
        if time.monotonic() >= end:
            return 0
        await asyncio.sleep(_POLL)
    return time.time_ns()


async def measure_failover(
    pairs: Sequence[Pair],
    taps: Sequence[Tap],
    faulted: Collection[str],
    inject: Callable[[], Awaitable[object]],
    settled: Callable[[], Awaitable[bool]],
    *,
    load: Load | None = None,
    phases: Phases | None = None,
) -> FailoverMeasurement:
    """Run traffic, inject a fault, and record what becomes of every flow.

    Args:
        pairs: Who talks to whom; the servers echo TCP and UDP on every port.
        taps: The network interfaces of all members, the one that fails included.
        faulted: Names of the taps whose member fails.
        inject: Makes the fault; called once. It must not block the event loop for long.
        settled: Whether the balancer has taken the member out; asked every few milliseconds.
        load: What is sent.
        phases: How long the parts last.

    Raises:
        DeadlineError: Not all receivers came to life.
        InputError: There is no pair.
        LabError: Something was lost before the fault, or a namespace or interface is missing.
    """
    if not pairs:
        raise InputError("no pair of machines is balanced, there is nothing to send")
    load, phases = load or Load(), phases or Phases()
    generator = random.Random(load.seed)  # noqa: S311 - ports of test traffic, not secrets
    with ExitStack() as stack:
        tcp = Connections(stack)
        await tcp.open(pairs, load.tcp_connections, generator, load.udp_flows, _CATCH_UP)
        udp = Datagrams(pairs, load.udp_flows, generator, 0, stack)
        connector = Connector(pairs, load.connect_timeout, generator)
        stack.callback(connector.cancel)
        observer = _Taps(taps, [*udp.flows, *tcp.flows], stack)
        run = _Run(udp, tcp, connector, observer, load)
        run.start()
        try:
            if not await _until(run.running, _CATCH_UP):
                silent = sum(1 for received in udp.received_ns if not any(received))
                raise DeadlineError(
                    f"traffic did not start within {_CATCH_UP:g} s: {silent} of {len(udp.flows)} UDP flows "
                    f"and {sum(1 for echoes in tcp.echo_ns if not echoes)} of {len(tcp.flows)} TCP "
                    "connections got no answer",
                    fix="run the symmetry check first",
                )
            observer.forget()
            started_ns = time.time_ns()
            await asyncio.sleep(phases.baseline)
            await run.require_lossless(started_ns)
            before = observer.members()
            fault_ns = time.time_ns()
            await inject()
            injected_ns = time.time_ns()
            settled_ns = await _settle(settled, phases.settle_deadline)
            # The first half lets the flows arrive where they belong, the second shows where that is.
            await asyncio.sleep(phases.observe / 2)
            observer.forget()
            await asyncio.sleep(phases.observe / 2)
            after = observer.members()
        finally:
            late = await run.stop()
        stopped_ns = time.time_ns()
        await connector.finish()
        # Answers that are still under way; what is lost for good does not keep us.
        await _until(lambda: not udp.missing(stopped_ns - 10**9 // 2, stopped_ns), 0.25)
        split = len(udp.flows)
        return FailoverMeasurement(
            faulted=frozenset(faulted),
            udp=tuple(
                UdpTrace(
                    flow,
                    before[place],
                    after[place],
                    tuple(udp.sent_ns[place]),
                    tuple(udp.received_ns[place]),
                    udp.duplicates[place],
                    udp.reordered[place],
                )
                for place, flow in enumerate(udp.flows)
            ),
            tcp=tuple(
                TcpTrace(
                    flow,
                    before[split + place],
                    after[split + place],
                    tuple(tcp.sent_ns[place]),
                    tuple(tcp.echo_ns[place]),
                    tcp.ended[place],
                )
                for place, flow in enumerate(tcp.flows)
            ),
            attempts=tuple(connector.attempts),
            started_ns=started_ns,
            fault_ns=fault_ns,
            injected_ns=injected_ns,
            settled_ns=settled_ns,
            stopped_ns=stopped_ns,
            dropped_frames=observer.dropped(),
            latest_send_ms=late * 1000,
        )
