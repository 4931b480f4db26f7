"""TCP connections that are answered: HTTP requests with an answer, and everything else with itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from testbed.nodes.http_server import HttpConversation, speaks_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.nodes.http_server import Request

__all__ = ["StreamConnection"]

_UNDECIDED_SECONDS = 0.1
_LINGER_SECONDS = 5.0


class StreamConnection(asyncio.Protocol):
    """One accepted connection.

    Args:
        answer: Status and body for an HTTP request.
        echo: Send back what is not HTTP; otherwise everything is taken as HTTP.
    """

    def __init__(self, answer: Callable[[Request], tuple[int, bytes]], *, echo: bool) -> None:
        self._answer = answer
        self._transport: asyncio.Transport
        self._http: HttpConversation | None = None if echo else HttpConversation(answer)
        self._undecided = echo
        self._first = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - streams have no other
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._undecided:
            self._decide(data)
        elif self._http:
            self._converse(self._http, data)
        else:
            self._transport.write(data)

    def _decide(self, data: bytes) -> None:
        """HTTP or not: by the first word, or when nothing more comes for a moment after its first letters."""
        self._first += data
        verdict = speaks_http(self._first)
        if verdict is None:
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(_UNDECIDED_SECONDS, self._settle, False)  # noqa: FBT003
        else:
            self._settle(verdict)

    def _settle(self, http: bool) -> None:  # noqa: FBT001 - a timer's callback takes no keywords
        self._cancel_timer()
        self._undecided = False
        first, self._first = self._first, b""
        if http:
            self._http = HttpConversation(self._answer)
        if not self._transport.is_closing():
            self.data_received(first)

    def _converse(self, http: HttpConversation, data: bytes) -> None:
        ended = http.ended
        out = http.feed(data)
        if out:
            self._transport.write(out)
        if http.ended and not ended:
            # What the client still sends must be read, or closing would reset the connection under our answer.
            if self._transport.can_write_eof():
                self._transport.write_eof()
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(_LINGER_SECONDS, self._transport.abort)
            else:
                self._transport.close()

    def eof_received(self) -> bool:
        """Called by the loop; the connection closes when all is sent."""
        if self._undecided and self._first:
            self._settle(False)  # noqa: FBT003
        return False

    def pause_writing(self) -> None:
        """Called by the loop when the client does not read: then it is not read from either."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the loop when the client reads again."""
        self._transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by the loop."""
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
