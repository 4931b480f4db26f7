"""One channel of an SSH connection as the far end of the pump."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    import paramiko

__all__ = ["ChannelEnd"]

_CHUNK = 1 << 15


class _Bell(threading.Event):
    """What a channel's two buffers ring when something has come, as a file descriptor.

    The channel's own file descriptor can stay silent for ever when both streams are busy: one is marked empty while
    the other one fills. This one is silenced before both are looked at, and by nobody else.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open = threading.Lock()
        self._number = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._number

    def set(self) -> None:
        with self._open:
            if self._number >= 0:
                os.eventfd_write(self._number, 1)

    def clear(self) -> None:
        """A buffer is empty; the other one may not be."""

    def silence(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._number)

    def close(self) -> None:
        with self._open:
            os.close(self._number)
            self._number = -1


class ChannelEnd:
    """A channel as the pump takes it (:class:`testbed.access.terminal.FarEnd`); from then on it is nobody else's."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._bell = _Bell()
        channel.in_buffer.set_event(self._bell)
        channel.in_stderr_buffer.set_event(self._bell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bell.close()

    def fileno(self) -> int:
        """Ready when something has come, or the end."""
        return self._bell.fileno()

    def receive(self) -> tuple[int, bytes] | None:
        """What has come, never waiting; ``None`` at the end."""
        self._bell.silence()
        ended = self._channel.eof_received or self._channel.closed  # seen first: all data came before it
        if self._channel.recv_ready():
            came = 1, self._channel.recv(_CHUNK)
        elif self._channel.recv_stderr_ready():
            came = 2, self._channel.recv_stderr(_CHUNK)
        else:
            return None if ended else (1, b"")
        self._bell.set()  # there may be more
        return came

    def send(self, data: bytes) -> None:
        """All of it; waits while the program does not read."""
        with _closed_is_an_os_error():
            self._channel.sendall(data)

    def send_end(self) -> None:
        """No more input."""
        with _closed_is_an_os_error():
            self._channel.shutdown_write()

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size."""
        with suppress(OSError), _closed_is_an_os_error():  # it has just ended: no terminal to resize
            self._channel.resize_pty(columns, rows)


@contextmanager
def _closed_is_an_os_error() -> Iterator[None]:
    import paramiko

    try:
        yield
    except (paramiko.SSHException, EOFError) as error:
        raise BrokenPipeError(str(error)) from error
