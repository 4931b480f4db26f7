"""Control sockets: JSON lines over a Unix stream socket, one answer per request; server and client.

Unix sockets are found by their path, whatever network namespace the two sides are in.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from testbed.errors import LabError, TestbedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ControlServer", "listen", "request"]

_PATH_LIMIT = 107  # sun_path holds 108 bytes, one of them is the end
_LINE_LIMIT = 65_536
_GONE = {errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR}


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the path that fits into a socket address: through the open directory if it must be."""
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def listen(path: Path | str) -> socket.socket:
    """A listening socket at the path, for its owner only; one that a crash left there is replaced.

    Raises:
        LabError: The socket cannot be made there.
    """
    where = Path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before it is bound: Linux gives the file this mode
        where.unlink(missing_ok=True)
        with _short(where) as name:
            listener.bind(name)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise LabError(f"control socket {where} cannot be made: {error}") from error
    return listener


class ControlServer:
    """Answers requests on a listening socket, in the running loop, until it is closed.

    Args:
        listener: From :func:`listen`.
        answer: Is given ``op`` and the whole request. What it raises as a
            :class:`~testbed.errors.TestbedError`, and every request that is not understood, becomes
            ``{"error": …}``.
    """

    def __init__(self, listener: socket.socket, answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._listener = listener
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()

    async def start(self) -> Self:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(self._converse, sock=self._listener, limit=_LINE_LIMIT)
        return self

    async def close(self) -> None:
        """Stop answering, and hang up on whoever is connected."""
        if self._server:
            self._server.close()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict) or not isinstance(asked.get("op"), str):
                return {"error": 'a request is an object with an "op"'}
            return self._answer(asked["op"], asked)
        except TestbedError as error:
            return {"error": str(error)}
        except (ValueError, RecursionError) as error:
            return {"error": f"not JSON: {error}"}

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._conversations.add(task)
            task.add_done_callback(self._conversations.discard)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._reply(line)).encode() + b"\n")
                await writer.drain()
        except ValueError:  # longer than any request is
            writer.write(b'{"error": "the request is too long"}\n')
            with suppress(OSError):  # closing with unread data would take the answer away
                while await reader.read(_LINE_LIMIT):
                    pass
        except OSError:
            pass  # the asker went away
        finally:
            writer.close()


def request(path: Path | str, op: str, timeout: float = 5.0, **fields: object) -> dict[str, Any]:
    """Ask once and return the answer.

    Args:
        path: The control socket.
        op: What is asked, e.g. ``status``.
        timeout: Seconds for the whole exchange.
        fields: Further parts of the request.

    Raises:
        LabError: Nobody answers, or the answer is an error.
    """
    where = Path(path)
    deadline = time.monotonic() + timeout
    received = b""
    try:
        with _short(where) as name, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(name)
            connection.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
            while not received.endswith(b"\n"):
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                data = connection.recv(_LINE_LIMIT)
                if not data:
                    break
                received += data
        answer: dict[str, Any] = json.loads(received)
    except OSError as error:
        cause = "nothing listens there" if error.errno in _GONE else str(error)
        raise LabError(f"nobody answers at {where}: {cause}", fix="run 'testbed up' again") from error
    except ValueError as error:
        raise LabError(f"{where} gives no answer to {op!r}", fix="run 'testbed up' again") from error
    if "error" in answer:
        raise LabError(f"{where} refuses {op!r}: {answer['error']}")
    return answer
