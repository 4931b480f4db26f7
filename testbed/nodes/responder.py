"""The health responder of an appliance: TCP, HTTP and HTTPS probes on one port."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from testbed.nodes.certificate import server_context
from testbed.nodes.program import listening_families
from testbed.nodes.stream import StreamConnection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from testbed.nodes.http_server import Request

__all__ = ["HealthResponder"]

_TLS_HANDSHAKE = b"\x16"  # content type of a ClientHello's record (RFC 8446, section 5.1)
_FIRST_BYTE_SECONDS = 30.0


class HealthResponder:
    """Answers a path with 200 or 503, whatever ``healthy`` says at that moment, and other paths with 404.

    Args:
        name: Machine; the body of answers, and the name in the certificate.
        port: TCP port, on all addresses.
        ipv6: Whether also on those of IPv6.
        path: Request path.
        healthy: Asked for each request.
    """

    def __init__(self, name: str, port: int, path: str, healthy: Callable[[], bool], *, ipv6: bool = False) -> None:
        self._name = name
        self._path = path
        self._healthy = healthy
        families = listening_families(ipv6=ipv6)
        self._listeners = [socket.create_server(("", port), family=family, backlog=1024) for family in families]
        for each in self._listeners:
            each.setblocking(False)  # noqa: FBT003 - takes no keyword
        self._context: asyncio.Task[ssl.SSLContext] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Accept until cancelled."""
        try:
            async with asyncio.TaskGroup() as accepting:
                for each in self._listeners:
                    accepting.create_task(self._accept(each))
        finally:
            for each in self._listeners:
                each.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError:
                continue  # the client was gone before it was accepted
            task = asyncio.create_task(self._greet(accepted))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _greet(self, accepted: socket.socket) -> None:
        """Tell TLS from HTTP by the first byte, and leave the connection to a protocol."""
        try:
            async with asyncio.timeout(_FIRST_BYTE_SECONDS):
                await _readable(accepted)
            first = accepted.recv(1, socket.MSG_PEEK)
            context = await self._tls() if first == _TLS_HANDSHAKE else None
            if first:
                loop = asyncio.get_running_loop()
                await loop.connect_accepted_socket(
                    lambda: StreamConnection(self._answer, echo=False), accepted, ssl=context
                )
            else:
                accepted.close()  # a TCP probe: connected, and closed
        except OSError:  # reset, no byte in time, or a failed TLS handshake
            accepted.close()

    async def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = asyncio.create_task(asyncio.to_thread(server_context, self._name))
        return await asyncio.shield(self._context)

    def _answer(self, request: Request) -> tuple[int, bytes]:
        if request.path.partition("?")[0] != self._path:
            return 404, b"no such path\n"
        return (200 if self._healthy() else 503), f"{self._name}\n".encode()


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    waiting = loop.create_future()

    def wake() -> None:
        loop.remove_reader(connection)
        if not waiting.done():
            waiting.set_result(None)

    loop.add_reader(connection, wake)
    try:
        await waiting
    finally:
        loop.remove_reader(connection)
