"""Real sockets inside clients' namespaces: numbered UDP flows, long-lived TCP connections, new connections.

All of it runs on the event loop of the caller. Times are Unix nanoseconds, so that they compare with the
events of other processes; arrival times of datagrams are the kernel's.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from testbed.errors import LabError
from testbed.kernel.namespaces import entered
from testbed.traffic.flows import Flow, Transport, draw_server_port

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from testbed.traffic.flows import Pair

__all__ = ["Attempt", "AttemptOutcome", "Connections", "Connector", "Datagrams", "every"]

AttemptOutcome = Literal["ok", "timeout", "reset", "error"]

_SO_TIMESTAMPNS = 35
_IP_BIND_ADDRESS_NO_PORT = 24
_MESSAGE = struct.Struct("!II")  # flow, number
_TIMESPEC = struct.Struct("@ll")


async def every(interval: float, action: Callable[[], None]) -> float:
    """Call ``action`` at a constant rate until cancelled, never twice to catch up.

    Returns:
        By how many seconds the latest call came too late: the resolution that was really reached.
    """
    loop = asyncio.get_running_loop()
    due = loop.time()
    latest = 0.0
    try:
        while True:
            action()
            due += interval
            late = loop.time() - due
            latest = max(latest, late)
            due += max(0, int(late / interval)) * interval
            await asyncio.sleep(max(0.0, due - loop.time()))
    except asyncio.CancelledError:
        return latest


def _open(pair: Pair, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket in the client's namespace, bound to the client's address."""
    with entered(pair.client_namespace):
        opened = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        # The port is chosen at connect, when the kernel knows the whole tuple.
        opened.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        opened.bind((pair.client_address, 0))
    except OSError as error:
        opened.close()
        problem = f"machine {pair.client_machine!r} cannot use its address {pair.client_address}"
        raise LabError(f"{problem}: {error.strerror}") from error
    return opened


class Datagrams:
    """Numbered UDP flows; ``sent_ns`` and ``received_ns`` hold one entry per number, 0 for never."""

    def __init__(
        self, pairs: Sequence[Pair], count: int, generator: random.Random, first: int, stack: ExitStack
    ) -> None:
        self.flows: list[Flow] = []
        self._sockets: list[socket.socket] = []
        for number in range(count):
            pair = pairs[number % len(pairs)]
            opened = stack.enter_context(_open(pair, socket.SOCK_DGRAM))
            opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            port = draw_server_port(generator, pair)
            try:
                opened.connect((pair.server_address, port))
            except OSError as error:
                problem = f"machine {pair.client_machine!r} has no route to {pair.server_address}"
                raise LabError(f"{problem}: {error.strerror}") from error
            self._sockets.append(opened)
            self.flows.append(Flow(first + number, pair, Transport.UDP, opened.getsockname()[1], port))
        self.sent_ns: list[list[int]] = [[] for _ in self.flows]
        self.received_ns: list[list[int]] = [[] for _ in self.flows]
        self.duplicates = [0] * count
        self.reordered = [0] * count
        self._highest = [-1] * count
        loop = asyncio.get_running_loop()
        for place, opened in enumerate(self._sockets):
            loop.add_reader(opened, self._receive, place)
            stack.callback(loop.remove_reader, opened)

    def send(self) -> None:
        """Send the next number of every flow; what the kernel refuses counts as sent and is lost."""
        for place, opened in enumerate(self._sockets):
            sent = self.sent_ns[place]
            message = _MESSAGE.pack(place, len(sent))
            sent.append(time.time_ns())
            self.received_ns[place].append(0)
            try:
                opened.send(message)
            except OSError:  # an ICMP error of an earlier datagram, no buffer, no route
                continue

    def _receive(self, place: int) -> None:
        try:
            data, ancillary, _, _ = self._sockets[place].recvmsg(64, 64)
        except OSError:  # an ICMP error: the number it belongs to stays unanswered
            return
        if len(data) != _MESSAGE.size:
            return
        flow, number = _MESSAGE.unpack(data)
        received = self.received_ns[place]
        if flow != place or number >= len(received):
            return
        if received[number]:
            self.duplicates[place] += 1
            return
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2]) if ancillary else divmod(time.time_ns(), 10**9)
        received[number] = seconds * 10**9 + nanoseconds
        if number < self._highest[place]:
            self.reordered[place] += 1
        self._highest[place] = max(number, self._highest[place])

    def missing(self, since_ns: int, until_ns: int) -> dict[int, int]:
        """Per flow, how many datagrams of that time were not answered (flows without loss left out)."""
        result = {}
        for place, sent in enumerate(self.sent_ns):
            received = self.received_ns[place]
            lost = sum(1 for number, at in enumerate(sent) if since_ns <= at < until_ns and not received[number])
            if lost:
                result[place] = lost
        return result


class Connections:
    """Long-lived TCP connections to an echo server; ``echo_ns`` holds the arrival of each number's echo.

    ``ended`` tells what ended a connection (``ECONNRESET`` …, ``FIN``), or is empty.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.flows: list[Flow] = []
        self._sockets: list[socket.socket] = []
        self._rest: list[bytes] = []
        self._bytes: list[int] = []
        self.sent_ns: list[list[int]] = []
        self.echo_ns: list[list[int]] = []
        self.ended: list[str] = []

    async def open(self, pairs: Sequence[Pair], count: int, generator: random.Random, first: int, limit: float) -> None:
        """Open ``count`` connections, dealt over the pairs, to random ports.

        Raises:
            LabError: One could not be opened within ``limit`` seconds.
        """
        loop = asyncio.get_running_loop()
        for number in range(count):
            pair = pairs[number % len(pairs)]
            opened = self._stack.enter_context(_open(pair, socket.SOCK_STREAM))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            port = draw_server_port(generator, pair)
            try:
                async with asyncio.timeout(limit):
                    await loop.sock_connect(opened, (pair.server_address, port))
            except OSError as error:  # TimeoutError is one
                problem = f"no TCP connection from {pair.client_machine!r} to {pair.server_address}:{port}"
                raise LabError(
                    f"{problem} before the fault: {error.strerror or f'no answer in {limit:g} s'}",
                    fix="run the symmetry check first; it tells which flows do not work",
                ) from error
            self._sockets.append(opened)
            self.flows.append(Flow(first + number, pair, Transport.TCP, opened.getsockname()[1], port))
        self._rest = [b""] * count
        self._bytes = [0] * count
        self.sent_ns = [[] for _ in range(count)]
        self.echo_ns = [[] for _ in range(count)]
        self.ended = [""] * count
        for place, opened in enumerate(self._sockets):
            loop.add_reader(opened, self._receive, place)
            self._stack.callback(loop.remove_reader, opened)

    def send(self) -> None:
        """Send the next number on every connection that lives and has room."""
        for place, opened in enumerate(self._sockets):
            if self.ended[place]:
                continue
            data = self._rest[place]
            if not data:  # else a full buffer took only a part of the last number
                data = _MESSAGE.pack(place, len(self.sent_ns[place]))
            try:
                taken = opened.send(data)
            except BlockingIOError:
                continue
            except OSError as error:
                self._end(place, error)
                continue
            if not self._rest[place]:
                self.sent_ns[place].append(time.time_ns())
            self._rest[place] = data[taken:]

    def _receive(self, place: int) -> None:
        try:
            data = self._sockets[place].recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(place, error)
            return
        if not data:
            self._end(place, None)
            return
        now = time.time_ns()
        whole = self._bytes[place] // _MESSAGE.size
        self._bytes[place] += len(data)
        self.echo_ns[place].extend([now] * (self._bytes[place] // _MESSAGE.size - whole))

    def _end(self, place: int, error: OSError | None) -> None:
        asyncio.get_running_loop().remove_reader(self._sockets[place])
        name = (error.strerror or str(error)) if error else "closed by the other end"
        self.ended[place] = self.ended[place] or name


@dataclass(frozen=True, slots=True)
class Attempt:
    """One new connection: opened, one message echoed, closed. ``seconds`` is what it took, or its limit."""

    started_ns: int
    pair: Pair
    server_port: int
    outcome: AttemptOutcome
    seconds: float


class Connector:
    """Tries a new TCP connection at every call of :meth:`start`."""

    def __init__(self, pairs: Sequence[Pair], timeout: float, generator: random.Random) -> None:
        self._pairs = pairs
        self._timeout = timeout
        self._generator = generator
        self._running: set[asyncio.Task[None]] = set()
        self.attempts: list[Attempt] = []
        self._started = 0

    def start(self) -> None:
        """Begin the next attempt; the pairs take turns."""
        pair = self._pairs[self._started % len(self._pairs)]
        self._started += 1
        task = asyncio.create_task(self._attempt(pair, draw_server_port(self._generator, pair)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _attempt(self, pair: Pair, port: int) -> None:
        started_ns, started = time.time_ns(), time.monotonic()
        outcome: AttemptOutcome = "ok"
        try:
            with _open(pair, socket.SOCK_STREAM) as opened:
                async with asyncio.timeout(self._timeout):
                    await self._exchange(opened, (pair.server_address, port))
        except TimeoutError:
            outcome = "timeout"
        except ConnectionError:
            outcome = "reset"
        except (OSError, LabError):
            outcome = "error"
        seconds = time.monotonic() - started
        # A lost SYN is sent again after one second; if the timer here comes late, the answer must not count.
        if outcome == "ok" and seconds >= self._timeout:
            outcome = "timeout"
        self.attempts.append(Attempt(started_ns, pair, port, outcome, seconds))

    async def _exchange(self, opened: socket.socket, server: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(opened, server)
        message = _MESSAGE.pack(0, server[1])
        await loop.sock_sendall(opened, message)
        echoed = b""
        while len(echoed) < len(message):
            data = await loop.sock_recv(opened, len(message))
            if not data:
                raise ConnectionResetError("closed before the echo came")
            echoed += data

    async def finish(self) -> None:
        """Wait for the attempts that are under way; each ends by its own limit."""
        if self._running:
            await asyncio.wait(self._running)

    def cancel(self) -> None:
        """Stop the attempts that are under way."""
        for task in self._running:
            task.cancel()
