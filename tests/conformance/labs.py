"""A running lab in a test's hands: up with a changed document, sockets in its machines, frames on its cables."""

from __future__ import annotations

import errno
import select
import socket
import struct
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import yaml

from testbed.deadline import wait_for
from testbed.kernel import conntrack, namespaces, nft
from testbed.lab import faults
from testbed.lab.down import down
from testbed.lab.explain import explain
from testbed.lab.fault_record import Kind
from testbed.lab.readiness import configure
from testbed.lab.state import State
from testbed.lab.status import MemberState, read_status, wait_until_healthy
from testbed.lab.up import load_plan_and_topology, up
from testbed.probes import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from testbed.lab.up import Outcome
    from testbed.plan.model import Plan

__all__ = ["Lab", "Packet", "Tap", "Timing"]

_OUTGOING = 4  # PACKET_OUTGOING
_ETH_P_ALL = 0x0003
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_FRAGMENT = 44  # IPv6 extension header
_SO_RCVBUFFORCE = 33
_PROTOCOLS = {socket.SOCK_STREAM: socket.IPPROTO_TCP, socket.SOCK_DGRAM: socket.IPPROTO_UDP}


@dataclass(frozen=True)
class Timing:
    """``scale`` is the labs' time scale; ``patience`` bounds every wait, ``silence`` is how long nothing must come.

    All in seconds of the test, chosen so that an emulated computer keeps up (``--lab-time-scale``).
    """

    scale: float
    patience: float
    silence: float


@dataclass(frozen=True)
class Packet:
    """An IP packet on a machine's network interface; ``sent``: by the machine. Ports are 0 where there are none."""

    machine: str
    sent: bool
    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    flags: int
    ttl: int
    fragment: int
    """Offset field with its flags, as on the wire (IPv4: bytes 6 and 7 of the header; IPv6: of its fragment header)."""
    raw: bytes
    """The whole packet, from its IP header on."""

    @property
    def flow(self) -> tuple[int, frozenset[tuple[str, int]]]:
        """The same for both directions of a flow."""
        ends = {(self.source, self.source_port), (self.destination, self.destination_port)}
        return self.protocol, frozenset(ends)


def _packet(machine: str, sent: bool, data: bytes) -> Packet | None:  # noqa: FBT001 - a column of a table
    kind = struct.unpack_from("!H", data, 12)[0] if len(data) >= 34 else 0
    if kind == _ETH_P_IP:
        header = (data[14] & 0x0F) * 4
        (fragment,) = struct.unpack_from("!H", data, 20)
        later = bool(fragment & 0x1FFF)
        ttl, protocol = data[22], data[23]
        ends = socket.inet_ntoa(data[26:30]), socket.inet_ntoa(data[30:34])
    elif kind == _ETH_P_IPV6 and len(data) >= 54:
        header, fragment, later = 40, 0, False
        protocol, ttl = data[20], data[21]
        if protocol == _FRAGMENT and len(data) >= 62:
            protocol, header = data[54], 48
            (fragment,) = struct.unpack_from("!H", data, 56)
            later = bool(fragment & 0xFFF8)
        ends = socket.inet_ntop(socket.AF_INET6, data[22:38]), socket.inet_ntop(socket.AF_INET6, data[38:54])
    else:
        return None
    ports = (0, 0)
    flags = 0
    if protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) and not later and len(data) >= 18 + header:
        ports = struct.unpack_from("!HH", data, 14 + header)
        flags = data[14 + header + 13] if protocol == socket.IPPROTO_TCP and len(data) > 27 + header else 0
    return Packet(
        machine,
        sent,
        *ends,
        protocol,
        *ports,
        flags,
        ttl,
        fragment,
        data[14:],
    )


class Tap:
    """Everything on the network interfaces of some machines, since it was opened."""

    def __init__(self, plan: Plan, machines: tuple[str, ...]) -> None:
        self._stack = ExitStack()
        self._sockets: list[tuple[str, socket.socket]] = []
        self._packets: list[Packet] = []
        for name in machines:
            machine = plan.machine(name)
            for each in machine.network_interfaces:
                with namespaces.entered(machine.namespace):
                    tap = self._stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
                tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 * 2**20)
                tap.settimeout(0)
                with namespaces.entered(machine.namespace):
                    tap.bind((each.name, _ETH_P_ALL))
                self._sockets.append((name, tap))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def packets(self) -> list[Packet]:
        """All packets so far, in order of arrival per network interface."""
        for name, tap in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    data, address = tap.recvfrom(65_535)
                    packet = _packet(name, address[2] == _OUTGOING, data)
                    if packet:
                        self._packets.append(packet)
        return self._packets

    def members_of(self, source: str, source_port: int, kind: socket.SocketKind | None = None) -> set[str]:
        """The machines that packets with this end, in either direction, came to; of one kind of socket or of any."""
        end = (source, source_port)
        packets = (each for each in self.packets() if not each.sent and end in each.flow[1])
        return {each.machine for each in packets if kind is None or each.protocol == _PROTOCOLS[kind]}


class Lab:
    """One lab; every method works on its present plan."""

    def __init__(self, name: str, folder: Path, balancer: str, timing: Timing) -> None:
        self.name = name
        self.timing = timing
        self.balancer = balancer
        self.document: dict[str, Any] = {}
        self._path = folder / f"{name}.yaml"

    def up(self, document: dict[str, Any], *, healthy: bool = True, **more: Any) -> Outcome:
        """Bring it up, or change it to this document; wait for its probes unless ``healthy`` is false.

        ``more`` is for :func:`testbed.lab.up.up`.
        """
        self.document = {"name": self.name, **document}
        self._path.write_text(yaml.safe_dump(self.document))
        outcome = up(self._path, lab=self.name, time_scale=self.timing.scale, **self._how(), **more)
        if any(machine.document and machine.document.configure for machine in outcome.plan.machines):
            configure(outcome.plan, load_plan_and_topology(State(self.name))[1], seconds=self.timing.patience)
        if healthy:
            wait_until_healthy(outcome.plan, seconds=self.timing.patience)
        return outcome

    def _how(self) -> dict[str, Any]:
        return {} if self.balancer == "nftables" else {"balancer": self.balancer}

    def down(self) -> None:
        """Remove it."""
        down(self.name)

    @property
    def plan(self) -> Plan:
        """As it stands."""
        return load_plan_and_topology(State(self.name))[0]

    # What the lab says of itself

    def member(self, machine: str, frontend: str | None = None) -> MemberState:
        """A member's state, of one of its frontends."""
        return next(
            each
            for each in read_status(self.plan).members
            if each.machine == machine and frontend in (None, each.frontend)
        )

    def wait_member(self, machine: str, *, healthy: bool, frontend: str | None = None) -> MemberState:
        """Wait until a member's probe says so and the data plane follows."""
        return wait_for(
            f"{machine} is {'up' if healthy else 'down'}",
            lambda: self.member(machine, frontend),
            lambda state: state.healthy is healthy,
            seconds=self.timing.patience,
            interval=0.02,
        )

    def events(self) -> tuple[events.Event, ...]:
        """The controller's events so far."""
        return events.read(State(self.name).directory)

    def explain(self, *args: Any, **kwargs: Any) -> Any:
        """As ``testbed explain``."""
        plan, topology = load_plan_and_topology(State(self.name))
        return explain(plan, topology, *args, **kwargs)

    # What is done to it

    def fault(self, machine: str, kind: str) -> None:
        """Inject a fault (:class:`testbed.lab.fault_record.Kind`)."""
        faults.inject(self.plan, machine, Kind(kind))

    def recover(self, machine: str) -> None:
        """Take the machine's faults away."""
        plan, topology = load_plan_and_topology(State(self.name))
        faults.recover(plan, topology, machine)

    def run(self, machine: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a machine's network namespace (or in ``fabric``)."""
        namespace = self.plan.fabric if machine == "fabric" else self.plan.machine(machine).namespace
        with namespaces.entered(namespace):
            return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60)

    def nft(self, machine: str, commands: str) -> None:
        """Run nftables commands in a machine's namespace, e.g. ``add table ip conformance``."""
        with namespaces.entered(self.plan.machine(machine).namespace):
            nft.run(commands)

    # Traffic

    def tap(self, *machines: str) -> Tap:
        """Capture on all network interfaces of the machines, both directions. Close it (a context manager)."""
        return Tap(self.plan, machines)

    def open(
        self, machine: str, kind: socket.SocketKind, port: int = 0, address: str = "", *, ipv6: bool = False
    ) -> socket.socket:
        """A socket in a machine's namespace, bound to a port (0: any), with the lab's patience as its timeout."""
        with namespaces.entered(self.plan.machine(machine).namespace):
            made = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, kind)
        made.settimeout(self.timing.patience)
        if port:  # without one the kernel would give two sockets that allow it the same port now and then
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port or address:
            made.bind((address, port))
        return made

    def open_raw(self, machine: str) -> socket.socket:
        """A socket in a machine's namespace that sends whole IPv4 packets."""
        with namespaces.entered(self.plan.machine(machine).namespace):
            return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    @contextmanager
    def tcp(
        self, machine: str, address: str, port: int = 80, *, source_port: int = 0, seconds: float | None = None
    ) -> Iterator[socket.socket]:
        """A TCP connection from a machine.

        Raises:
            OSError: It is refused, or there is no answer (``TimeoutError``).
        """
        with self.open(machine, socket.SOCK_STREAM, source_port, ipv6=":" in address) as connection:
            connection.settimeout(self.timing.patience if seconds is None else seconds)
            connection.connect((address, port))
            yield connection

    def echoes(self, connection: socket.socket, text: bytes = b"echo\n", *, seconds: float | None = None) -> bool:
        """Whether what is sent over a TCP connection to an echo machine comes back in time."""
        connection.settimeout(self.timing.silence if seconds is None else seconds)
        try:
            connection.sendall(text)
            received = b""
            while len(received) < len(text):
                data = connection.recv(65_535)
                if not data:
                    return False
                received += data
        except TimeoutError:
            return False
        return received == text

    def connects(self, machine: str, address: str, port: int = 80, *, source_port: int = 0) -> bool:
        """Whether a TCP connection is established; silence is false, a refusal raises."""
        try:
            with self.tcp(machine, address, port, source_port=source_port, seconds=self.timing.silence):
                return True
        except TimeoutError:
            return False
        except OSError as error:
            if error.errno == errno.EHOSTUNREACH:
                return False
            raise

    def asks(self, machine: str, address: str, port: int = 7, *, source_port: int = 0, text: bytes = b"ask") -> bool:
        """Whether one of a few UDP datagrams is answered by an echo machine; silence is false."""
        with self.open(machine, socket.SOCK_DGRAM, source_port, ipv6=":" in address) as asker:
            return self.answered(asker, address, port, text)

    def answered(self, asker: socket.socket, address: str, port: int = 7, text: bytes = b"ask") -> bool:
        """The same, for a UDP socket that is there."""
        deadline = time.monotonic() + self.timing.silence
        asker.settimeout(self.timing.silence / 4)
        while time.monotonic() < deadline:
            asker.sendto(text, (address, port))
            try:
                if asker.recvfrom(65_535)[0].startswith(text):
                    return True
            except TimeoutError:
                continue
        return False

    def owners(self, machine: str, address: str, ports: Iterable[int], port: int = 7) -> dict[int, str]:
        """Which pool member carries the UDP flow from each source port to an echo machine, both ways, seen there."""
        members = sorted({each.machine for rule in self.plan.rules for each in rule.members})
        source = self.plan.machine(machine).network_interfaces[0].address
        with self.tap(*members) as tap, ExitStack() as stack:
            waiting = {each: stack.enter_context(self.open(machine, socket.SOCK_DGRAM, each)) for each in ports}

            def ask() -> int:
                for asker in waiting.values():
                    asker.sendto(b"ask", (address, port))
                ready, _, _ = select.select(list(waiting.values()), [], [], self.timing.silence / 4)
                while ready:
                    for asker in ready:
                        asker.recv(64)
                        waiting.pop(asker.getsockname()[1], None)
                    if not waiting:
                        break
                    ready, _, _ = select.select(list(waiting.values()), [], [], self.timing.silence / 4)
                return len(waiting)

            self.wait("every flow is answered", ask, lambda left: left == 0)
            seen = {each: tap.members_of(source, each) for each in ports}
        assert all(len(each) == 1 for each in seen.values()), seen
        return {each: next(iter(found)) for each, found in seen.items()}

    def forget_flows(self) -> None:
        """What is sent from now on is a new flow to the balancer."""
        with namespaces.entered(self.plan.fabric):
            conntrack.flush()

    def wait(self, what: str, look: Callable[[], Any], accept: Callable[[Any], bool] = bool) -> Any:
        """Wait for a condition, as long as the timing has patience."""
        return wait_for(what, look, accept, seconds=self.timing.patience, interval=0.02)
