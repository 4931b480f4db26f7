"""Just enough of an HTTP/1.1 server, without input and output of its own (RFC 9112)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HttpConversation", "Request", "speaks_http"]

_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT ")
_REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.([01])\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LONGEST_HEAD = 65_536


def speaks_http(first: bytes) -> bool | None:
    """Whether a stream that begins like this is HTTP; None: too short to tell."""
    if first.startswith(_METHODS):
        return True
    return None if any(method.startswith(first) for method in _METHODS) else False


@dataclass(frozen=True, slots=True)
class Request:
    """What an answer may depend on."""

    method: str
    path: str


class HttpConversation:
    """The server's side of one connection: bytes in, bytes out.

    Args:
        answer: Gives status and body for a request.

    ``ended`` becomes true when the connection is to be closed after what was returned last; input that still
    comes is to be thrown away.
    """

    def __init__(self, answer: Callable[[Request], tuple[int, bytes]]) -> None:
        self._answer = answer
        self._buffer = b""
        self._skip = 0  # bytes of a request's body that are still to come
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Take what came in; return what goes out."""
        if self.ended:
            return b""
        if self._skip:
            used = min(self._skip, len(data))
            self._skip -= used
            data = data[used:]
        self._buffer += data
        out = b""
        while not self.ended and (end := _HEAD_END.search(self._buffer)):
            head, self._buffer = self._buffer[: end.end()], self._buffer[end.end() :]
            out += self._reply(head)
            used = min(self._skip, len(self._buffer))
            self._skip -= used
            self._buffer = self._buffer[used:]
        if len(self._buffer) > _LONGEST_HEAD:
            self.ended = True
            out += _response(431, b"", head_only=False, keep=False)
        return out

    def _reply(self, head: bytes) -> bytes:
        line = _REQUEST_LINE.match(head)
        fields = dict(re.findall(rb"(?m)^([\w-]+):[ \t]*(.*?)[ \t]*\r?$", head.lower()))
        length = fields.get(b"content-length", b"0")
        if not line or not length.isdigit():
            self.ended = True
            return _response(400, b"", head_only=False, keep=False)
        status, body = self._answer(Request(line[1].decode(), line[2].decode("latin-1")))
        self._skip = int(length)
        # A chunked body is not parsed: the connection ends behind its answer.
        keep = line[3] == b"1" and fields.get(b"connection") != b"close" and b"transfer-encoding" not in fields
        self.ended = not keep
        interim = b"HTTP/1.1 100 Continue\r\n\r\n" if fields.get(b"expect") == b"100-continue" else b""
        return interim + _response(status, body, head_only=line[1] == b"HEAD", keep=keep)


def _response(status: int, body: bytes, *, head_only: bool, keep: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)
