"""Commands and files in a container, by its engine."""

from __future__ import annotations

import io
import os
import socket
import struct
import tarfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from testbed.access.terminal import FarEnd, arrivals, pump
from testbed.access.transport import Answer, Transport
from testbed.errors import DeadlineError, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from docker.models.containers import Container

__all__ = ["EngineTransport"]


class EngineTransport(Transport):
    """A container; what runs in it has the container's own rights."""

    def __init__(self, machine: str, container: Container) -> None:
        self._machine = machine
        self._container = container

    @property
    def _api(self) -> Any:
        return self._container.client.api  # type: ignore[union-attr] # it came from a client

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """What the engine refuses, as an error of ours."""
        import docker

        try:
            yield
        except (docker.errors.DockerException, OSError) as error:
            said = str(getattr(error, "explanation", None) or error).strip()
            raise LabError(f"run a command in container {self._machine!r}: {said}") from error

    def run(self, command: str, *, seconds: float, stdin: bytes | None = None) -> Answer:
        """As ``docker exec CONTAINER sh -s``; the line goes in by standard input, where ``ps`` does not show it."""
        words = ["sh", "-c", command] if stdin is not None else ["sh", "-s"]
        given = stdin if stdin is not None else command.encode() + b"\n"
        return self._collect(words, given, seconds)

    def capture(self, words: Sequence[str]) -> Answer:
        """Run a command as it is, without a shell, for as long as it takes, and give what it prints."""
        return self._collect(words, b"", threading.TIMEOUT_MAX)

    def _collect(self, words: Sequence[str], given: bytes, seconds: float) -> Answer:
        with self._refusals():
            made, end = self._begin(words, terminal=False)
            late = threading.Event()

            def cut() -> None:
                late.set()
                end.close()

            timer = threading.Timer(seconds, cut)
            timer.daemon = True
            timer.start()
            try:
                end.send(given)
                end.send_end()
                said = _collected(end)
            finally:
                timer.cancel()
                end.close()
            if late.is_set():
                raise DeadlineError(f"a command in {self._machine} did not end within {seconds:g} s")
            return Answer(int(self._api.exec_inspect(made)["ExitCode"]), *said)

    def attach(self, words: Sequence[str]) -> int:
        """Run a command as it is with this process's terminal, or pipes; returns its exit status. Main thread only."""
        terminal = os.isatty(0) and os.isatty(1)
        with self._refusals():
            made, end = self._begin(words, terminal=terminal)
            if terminal:
                end.resize(*os.get_terminal_size(0))
            try:
                pump(end, raw=terminal)
            finally:
                end.close()
            return int(self._api.exec_inspect(made)["ExitCode"])

    def _begin(self, words: Sequence[str], *, terminal: bool) -> tuple[str, _ExecEnd]:
        environment = {"TERM": os.environ.get("TERM", "vt100")} if terminal else None
        made = self._api.exec_create(self._container.id, list(words), stdin=True, tty=terminal, environment=environment)
        stream = self._api.exec_start(made["Id"], tty=terminal, socket=True)
        return made["Id"], _ExecEnd(self._api, made["Id"], stream, framed=not terminal)

    def put(self, data: bytes, path: str, mode: int) -> None:
        """As ``docker cp``."""
        import docker

        target = PurePosixPath("/", path)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(target.name)
            entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
        try:
            self._container.put_archive(str(target.parent), archive.getvalue())
        except docker.errors.NotFound as error:
            fix = f"make the folder first: a step with commands: ['mkdir -p {target.parent}']"
            raise LabError(f"{self._machine}: there is no folder {target.parent} for {target.name}", fix=fix) from error
        except docker.errors.DockerException as error:
            raise LabError(f"put {target} into container {self._machine!r}: {error}") from error

    def close(self) -> None:
        """Every command has a connection of its own."""


_HEAD = struct.Struct(">BxxxI")  # of a frame: stream and length


class _ExecEnd(FarEnd):
    """A command in a container. Without a terminal its two streams come in frames on one socket."""

    def __init__(self, api: Any, number: str, stream: Any, *, framed: bool) -> None:
        self._api, self._number, self._stream = api, number, stream
        self._socket: socket.socket = stream._sock  # noqa: SLF001 - the SDK's own way to its socket
        self._framed = framed
        self._frame = b""

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno()

    def receive(self) -> tuple[int, bytes] | None:
        """The next piece of a stream. Never reads beyond a frame, so that what is left keeps the socket readable."""
        try:
            came = self._socket.recv(self._missing(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0, b""
        except OSError:
            came = b""
        if not came:
            return None
        if not self._framed:
            return 1, came
        self._frame += came
        if self._missing():
            return 0, b""
        stream, frame, self._frame = self._frame[0], self._frame[_HEAD.size :], b""
        return stream, frame

    def _missing(self) -> int:
        """How many bytes end the present frame, or its head."""
        if not self._framed:
            return 1 << 16
        if len(self._frame) < _HEAD.size:
            return _HEAD.size - len(self._frame)
        return _HEAD.size + int(_HEAD.unpack_from(self._frame)[1]) - len(self._frame)

    def send(self, data: bytes) -> None:
        """Its standard input."""
        self._socket.sendall(data)

    def send_end(self) -> None:
        """The end of its standard input."""
        with suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_WR)

    def resize(self, columns: int, rows: int) -> None:
        """The size of its terminal."""
        self._api.exec_resize(self._number, height=rows, width=columns)

    def close(self) -> None:
        """Hang up; whoever waits for it sees the end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._stream.close()


def _collected(end: _ExecEnd) -> tuple[str, str]:
    said = {1: bytearray(), 2: bytearray()}
    for stream, data in arrivals(end):
        if stream in said:
            said[stream] += data
    return said[1].decode(errors="replace"), said[2].decode(errors="replace")
