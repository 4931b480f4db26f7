"""Which members carry each direction of each flow, seen on the members' own network interfaces.

Every flow is one packet from the client and the server's answer: a TCP SYN from a packet ring (the server's
kernel answers, the client's kernel, which knows nothing of it, resets), or a UDP datagram that the server
echoes. Nothing is sent twice: loss is loss. Datagrams leave through a raw IP socket and not through the
ring, so that the client's own connection tracking knows them; otherwise a client that runs an echo server
itself would take the answer for a new request and echo it for ever.
"""

from __future__ import annotations

import random
import select
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from testbed.errors import LabError
from testbed.kernel.namespaces import entered
from testbed.traffic.flows import Transport, spread
from testbed.traffic.frames import TCP_ACK, TCP_RST, TCP_SYN, FlowIndex, address_number, headers
from testbed.traffic.rings import Capture, Sender
from testbed.traffic.templates import flow_frames, tcp_syn, udp_datagram

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from testbed.traffic.flows import Flow, Pair, Tap

__all__ = ["FlowObservation", "Pace", "SymmetryMeasurement", "measure_symmetry"]

_WARM_UP_FLOWS = 4  # per pair and protocol; only the UDP ones are sent


@dataclass(frozen=True, slots=True)
class FlowObservation:
    """What the captures saw of one flow; ``forward`` and ``reverse`` name members.

    ``replied``: the server's answer reached the client, from the address the client had asked.
    ``reset``: a TCP RST from there reached the client.
    """

    flow: Flow
    forward: frozenset[str]
    reverse: frozenset[str]
    replied: bool
    reset: bool


@dataclass(frozen=True, slots=True)
class SymmetryMeasurement:
    """One set of flows. ``dropped_frames`` other than 0 means that a capture is incomplete."""

    observations: tuple[FlowObservation, ...]
    members: tuple[str, ...]
    dropped_frames: int
    seed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast flows are started and how long answers are awaited, in seconds.

    After each batch the sender waits until all is answered or nothing new came for ``pause``; in the end
    until nothing new came for ``quiet``, but no longer than ``deadline``.
    """

    batch: int = 128
    pause: float = 0.02
    quiet: float = 0.4
    deadline: float = 10.0


class _Observer:
    """All captures of one measurement, and what they have seen so far."""

    def __init__(self, flows: Sequence[Flow], taps: Sequence[Tap], stack: ExitStack) -> None:
        self._flows = flows
        self._index = FlowIndex([flow.key for flow in flows])
        numbers = {each: address_number(each) for each in {flow.pair.server_address for flow in flows}}
        self._servers = np.array([numbers[flow.pair.server_address] for flow in flows], dtype=np.int64)
        self._numbers = np.array([flow.number for flow in flows], dtype=np.int64)
        self.replied = np.zeros(len(flows), dtype=np.bool_)
        self.reset = np.zeros(len(flows), dtype=np.bool_)
        self._unknown = np.ones(len(flows), dtype=np.bool_)
        #: Destination and source MAC of the frames that a client's kernel sent to a server.
        self.ethernet: dict[Pair, bytes] = {}
        self._members = []
        for tap in taps:
            capture = stack.enter_context(Capture(tap.namespace, tap.nic))
            serves = np.array([tap.serves(flow.pair) for flow in flows], dtype=np.bool_)
            seen = np.zeros((2, len(flows)), dtype=np.bool_)
            self._members.append((tap.name, capture, serves, seen))
        nics = dict.fromkeys((flow.pair.client_namespace, flow.pair.client_nic) for flow in flows)
        self._clients = [stack.enter_context(Capture(namespace, nic)) for namespace, nic in nics]
        self._poll = select.poll()
        for client in self._clients:
            self._poll.register(client.fileno(), select.POLLIN)

    def read_members(self) -> None:
        """Note which members saw which flow, in which direction."""
        for _, capture, serves, seen in self._members:
            frames = capture.read()
            if len(frames):
                matches = self._index.match(headers(frames))
                seen[matches.forward.astype(np.intp), matches.flow] |= serves[matches.flow]

    def read_clients(self) -> None:
        """Note which flows were answered."""
        for capture in self._clients:
            frames = capture.read()
            if not len(frames):
                continue
            found = headers(frames)
            matches = self._index.match(found)
            row, flow = found.row[matches.place], matches.flow
            sent = matches.forward & frames.outgoing[row] & self._unknown[flow]
            for at, number in zip(row[sent], flow[sent], strict=True):
                self.ethernet.setdefault(self._flows[number].pair, frames.octets[at, :12].tobytes())
                self._unknown[number] = False
            back = ~matches.forward & ~frames.outgoing[row]
            back &= found.source[matches.place] == self._servers[flow]
            tcp = found.protocol[matches.place] == Transport.TCP
            flags = found.tcp_flags[matches.place]
            # A datagram's number stands behind four bytes of magic; the snapshot is longer than the offset.
            at = np.minimum(found.payload[matches.place] + 4, frames.octets.shape[1] - 4)
            number = np.zeros(len(row), dtype=np.int64)
            for step in range(4):
                number = number << 8 | frames.octets[row, at + step]
            answered = np.where(tcp, flags & ~8 == TCP_SYN | TCP_ACK, number == self._numbers[flow])
            self.replied[flow[back & answered]] = True
            self.reset[flow[back & (flags & TCP_RST != 0)]] = True

    def wait(self, flows: Sequence[int], quiet: float, until: float) -> bool:
        """Read until these flows are answered, nothing new came for ``quiet`` seconds, or ``until``."""
        wanted = np.array(flows, dtype=np.int64)
        before, since = -1, time.monotonic()
        while not self.replied[wanted].all():
            now = time.monotonic()
            count = int(self.replied.sum())
            if count != before:
                before, since = count, now
            limit = min(since + quiet, until) - now
            if limit <= 0:
                return False
            self._poll.poll(max(1, int(limit * 1000)))
            self.read_clients()
        return True

    def observation(self, place: int) -> FlowObservation:
        """The result for the flow at this place."""
        forward = frozenset(name for name, _, _, seen in self._members if seen[1, place])
        reverse = frozenset(name for name, _, _, seen in self._members if seen[0, place])
        return FlowObservation(self._flows[place], forward, reverse, bool(self.replied[place]), bool(self.reset[place]))

    def dropped(self) -> int:
        """Frames that any of the captures missed."""
        captures = [capture for _, capture, _, _ in self._members] + self._clients
        return sum(capture.dropped() for capture in captures)


class _Datagrams:
    """Sends the UDP flows through one raw IP socket per client namespace and IP version."""

    def __init__(self, flows: Sequence[Flow], stack: ExitStack) -> None:
        chosen = [flow for flow in flows if flow.protocol is Transport.UDP]
        self._packets: dict[int, bytes] = {}
        for version in (4, 6):
            mine = [flow for flow in chosen if flow.pair.version == version]
            frames = flow_frames(udp_datagram(version=version), mine) if mine else ()
            self._packets |= {flow.number: frame[14:].tobytes() for flow, frame in zip(mine, frames, strict=True)}
        self._sockets = {}
        for namespace, version in dict.fromkeys((flow.pair.client_namespace, flow.pair.version) for flow in chosen):
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            with entered(namespace):
                raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._sockets[namespace, version] = stack.enter_context(raw)

    def send(self, flow: Flow) -> None:
        """Send the flow's one datagram."""
        pair = flow.pair
        try:
            socket_ = self._sockets[pair.client_namespace, pair.version]
            socket_.sendto(self._packets[flow.number], (pair.server_address, 0))
        except OSError as error:
            problem = f"machine {pair.client_machine!r} cannot send to {pair.server_address}: {error.strerror}"
            raise LabError(problem, fix=f"look at: ip netns exec {pair.client_namespace} ip route") from error


def _warm_up(observer: _Observer, datagrams: _Datagrams, flows: Sequence[Flow], pace: Pace) -> None:
    """One exchange or more per pair: fills the neighbour caches on the way and shows the Ethernet headers."""
    for start in range(0, len(flows), pace.batch):
        batch = flows[start : start + pace.batch]
        for flow in batch:
            datagrams.send(flow)
        observer.wait([flow.number for flow in batch], pace.quiet, time.monotonic() + pace.deadline)
    observer.read_clients()
    for pair in dict.fromkeys(flow.pair for flow in flows):
        if pair not in observer.ethernet:
            raise LabError(
                f"nothing that {pair.client_machine!r} sends to {pair.server_address} leaves its network "
                f"interface {pair.client_nic!r}",
                fix=f"look at: ip netns exec {pair.client_namespace} ip route get {pair.server_address}",
            )


def _senders(flows: Sequence[Flow], ethernet: dict[Pair, bytes], stack: ExitStack) -> dict[str, Sender]:
    """A ring per client network interface and IP version, loaded with the SYNs of its flows in order."""
    groups: dict[str, list[Flow]] = {}
    for flow in flows:
        if flow.protocol is Transport.TCP:
            groups.setdefault(_nic(flow), []).append(flow)
    templates = {version: tcp_syn(version=version) for version in {flow.pair.version for flow in flows}}
    sequence = random.getrandbits(32)
    senders = {}
    for nic, group in groups.items():
        frames = flow_frames(templates[group[0].pair.version], group, sequence)
        frames[:, :12] = np.frombuffer(b"".join(ethernet[flow.pair] for flow in group), dtype=np.uint8).reshape(-1, 12)
        pair = group[0].pair
        senders[nic] = stack.enter_context(Sender(pair.client_namespace, pair.client_nic, frames))
    return senders


def _nic(flow: Flow) -> str:
    return f"{flow.pair.client_namespace}/{flow.pair.client_nic}/{flow.pair.version}"


def measure_symmetry(
    pairs: Sequence[Pair],
    taps: Sequence[Tap],
    *,
    count: int = 2000,
    seed: int | None = None,
    avoid_ports: Collection[int] = (),
    pace: Pace | None = None,
) -> SymmetryMeasurement:
    """Start ``count`` flows and record which members each direction of each flow crosses.

    Args:
        pairs: Who talks to whom; the servers answer TCP and UDP on every port.
        taps: The members' network interfaces.
        count: How many flows, half of them TCP.
        seed: Seeds the ports; None: a random one, which the result names.
        avoid_ports: Source ports to leave out, such as the probe's.
        pace: How fast, and how long to wait.

    Raises:
        InputError: There is no pair, or a client has too few ports for its flows.
        LabError: A namespace or interface is missing, or a client cannot send.
        MachineError: The rights for packet sockets are missing.
    """
    pace = pace or Pace()
    seed = random.getrandbits(32) if seed is None else seed
    total = count + 2 * len(pairs) * _WARM_UP_FLOWS
    everything = spread(pairs, total, seed, avoid_ports=avoid_ports)
    flows = everything[:count]
    warm_up = [flow for flow in everything[count:] if flow.protocol is Transport.UDP]
    started = time.monotonic()
    with ExitStack() as stack:
        observer = _Observer(everything, taps, stack)
        datagrams = _Datagrams(everything, stack)
        _warm_up(observer, datagrams, warm_up, pace)
        senders = _senders(flows, observer.ethernet, stack)
        for start in range(0, count, pace.batch):
            batch = flows[start : start + pace.batch]
            syns: dict[str, int] = {}
            for flow in batch:
                if flow.protocol is Transport.TCP:
                    syns[_nic(flow)] = syns.get(_nic(flow), 0) + 1
                else:
                    datagrams.send(flow)
            for nic, number in syns.items():
                senders[nic].send(number)
            # A trickle of late answers must not hold the batch for ever, so the wait has a limit of its own.
            observer.wait([flow.number for flow in batch], pace.pause, time.monotonic() + 10 * pace.pause)
            observer.read_members()
        observer.wait(range(count), pace.quiet, time.monotonic() + pace.deadline)
        observer.read_members()
        return SymmetryMeasurement(
            observations=tuple(observer.observation(number) for number in range(count)),
            members=tuple(dict.fromkeys(tap.name for tap in taps)),
            dropped_frames=observer.dropped(),
            seed=seed,
            seconds=time.monotonic() - started,
        )
