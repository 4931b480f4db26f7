"""One probe on the wire: TCP, HTTP or HTTPS, as Azure's load balancer sends them.

TCP: handshake, then an orderly close; no data. HTTP: a GET over HTTP/1.1, only status 200 is a success, so
redirects are failures. HTTPS: the same in TLS. The timeout covers the whole exchange, also of a peer that
trickles. ("Azure Load Balancer health probes".)
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from typing import TYPE_CHECKING

from testbed.probes.connection import PlainConnection, TlsConnection, connect, finish
from testbed.probes.health import ProbeResult, ResultKind

if TYPE_CHECKING:
    import socket

    from testbed.probes.connection import Connection, ProbeTarget

__all__ = ["Prober"]

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: [^\r\n]*)?\r?\n")
_LONGEST_STATUS_LINE = 4096
_Verdict = tuple[ResultKind, str]


class Prober:
    """Sends probes from the network namespace its thread is in.

    Connections are closed in the background, so that a slow close does not delay a result; ``close`` cuts
    off what is left.
    """

    def __init__(self) -> None:
        self._closing: set[asyncio.Task[None]] = set()

    async def probe(
        self,
        target: ProbeTarget,
        protocol: str,
        seconds: float,
        request_path: str | None = None,
        *,
        late: float = 0.0,
    ) -> ProbeResult:
        """Send one probe.

        Args:
            target: Address, port, mark and source.
            protocol: ``Tcp``, ``Http`` or ``Https``.
            seconds: Timeout of the whole exchange.
            request_path: Path of the GET.
            late: Seconds of the timeout that are over already, because the probe was due before now.
        """
        started = time.monotonic()
        opened: list[socket.socket] = []
        try:
            async with asyncio.timeout(seconds - late):
                opened.append(await connect(target))
                kind, detail = await _exchange(opened[0], target, protocol, request_path or "/")
        except TimeoutError:
            kind, detail = ResultKind.TIMEOUT, f"timeout after {_words(seconds)}"
        except OSError as error:
            kind, detail = _failure(error)
        finally:
            for connection in opened:
                self._finish(connection, seconds)
        return ProbeResult(kind, detail, time.monotonic() - started)

    def _finish(self, connection: socket.socket, seconds: float) -> None:
        def done(task: asyncio.Task[None]) -> None:
            self._closing.discard(task)
            connection.close()  # also when the task was cancelled before it began

        task = asyncio.create_task(finish(connection, seconds))
        self._closing.add(task)
        task.add_done_callback(done)

    async def close(self) -> None:
        """Cut off what is still being closed."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)


def _words(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def _failure(error: OSError) -> _Verdict:
    if isinstance(error, ConnectionRefusedError):
        return ResultKind.REFUSED, "connection refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return ResultKind.REFUSED, "connection reset"
    if isinstance(error, ssl.SSLError):
        return ResultKind.INVALID_ANSWER, f"TLS: {error.args[-1]}"
    return ResultKind.UNREACHABLE, os.strerror(error.errno or 0).lower()


async def _exchange(connection: socket.socket, target: ProbeTarget, protocol: str, path: str) -> _Verdict:
    if protocol == "Tcp":
        return ResultKind.SUCCESS, "connected"
    if protocol == "Http":
        return await _get(PlainConnection(connection), target, path)
    tls = TlsConnection(connection)
    if wrong := await tls.handshake():
        return ResultKind.INVALID_ANSWER, wrong
    return await _get(tls, target, path)


async def _get(connection: Connection, target: ProbeTarget, path: str) -> _Verdict:
    """GET, and judge by the status line alone."""
    host = f"[{target.address}]" if ":" in target.address else target.address
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Load Balancer Agent\r\nConnection: close\r\n\r\n"
    await connection.send(request.encode())
    received = b""
    while b"\n" not in received and len(received) < _LONGEST_STATUS_LINE:
        data = await connection.receive()
        if not data:
            break
        received += data
    if not received:
        return ResultKind.INVALID_ANSWER, "closed without an answer"
    found = _STATUS_LINE.match(received)
    if not found:
        return ResultKind.INVALID_ANSWER, "the answer is not HTTP"
    status = int(found[1])
    return (ResultKind.SUCCESS if status == 200 else ResultKind.WRONG_STATUS), f"HTTP {status}"
