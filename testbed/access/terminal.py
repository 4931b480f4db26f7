"""The pump between this process's terminal (or pipes) and a program in a machine.

What is at the far end fits :class:`FarEnd`: a channel of SSH, or the socket on which an engine runs a command.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import threading
import tty
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FarEnd", "arrivals", "pump"]

_CHUNK = 1 << 16


class FarEnd(Protocol):
    """A program elsewhere, with its three streams."""

    def fileno(self) -> int:
        """What can be polled for reading: ready when :meth:`receive` has something, or the end."""

    def receive(self) -> tuple[int, bytes] | None:
        """A stream (1: standard output, 2: standard error) and what came on it, or nothing, or ``None`` at the end.

        Never waits.
        """

    def send(self, data: bytes) -> None:
        """Give it input, all of it; may wait, and is called by a thread of its own.

        Raises:
            OSError: It takes no more.
        """

    def send_end(self) -> None:
        """There is no more input."""

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has this size now."""


def arrivals(far: FarEnd, wake: int | None = None) -> Iterator[tuple[int, bytes]]:
    """What comes from the far end, stream by stream as in :meth:`FarEnd.receive`, until its end.

    Each time the file descriptor ``wake`` is ready for reading, ``(0, b"")`` comes.
    """
    ready = select.poll()
    ready.register(far.fileno(), select.POLLIN)
    if wake is not None:
        ready.register(wake, select.POLLIN)
    while True:
        awake = {number for number, _ in ready.poll()}
        if wake in awake:
            yield 0, b""
        if awake == {wake}:
            continue
        came = far.receive()
        if came is None:
            return
        if came[1]:
            yield came


def pump(far: FarEnd, *, raw: bool, streams: tuple[int, int, int] = (0, 1, 2)) -> None:
    """Connect this process's streams with the far end's until the far end has no more to say.

    Args:
        far: The program.
        raw: ``streams[0]`` is a terminal that the program takes over: every key is its own, it learns the size and
            each change of it, and the terminal is as before afterwards. Main thread only.
        streams: File descriptors of standard input, output and error here.

    Raises:
        BrokenPipeError: Who reads our output has had enough.
    """
    with ExitStack() as stack:
        wake = None
        if raw:
            stack.enter_context(_raw(streams[0]))
            wake = stack.enter_context(_size_changes())
        stack.enter_context(_feeding(far, streams[0]))
        for stream, data in arrivals(far, wake):
            if stream:
                _write(streams[stream], data)
            elif wake is not None:
                os.read(wake, _CHUNK)
                far.resize(*os.get_terminal_size(streams[0]))


def _write(stream: int, data: bytes) -> None:
    while data:
        data = data[os.write(stream, data) :]


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal, termios.TCSADRAIN)  # what was typed ahead is not lost
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _size_changes() -> Iterator[int]:
    """A file descriptor that can be read when the terminal has another size."""
    here, there = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: os.write(there, b"s"))
    try:
        yield here
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(here)
        os.close(there)


@contextmanager
def _feeding(far: FarEnd, source: int) -> Iterator[None]:
    """A thread hands over what is read: the far end may wait for us to read before it reads itself."""
    over, end = os.pipe2(os.O_CLOEXEC)
    thread = threading.Thread(target=_feed, args=(far, source, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(end)
        thread.join(timeout=1)  # longer only while the far end takes nothing; the thread ends with it
        if not thread.is_alive():
            os.close(over)


def _feed(far: FarEnd, source: int, over: int) -> None:
    ready = select.poll()
    ready.register(source, select.POLLIN)
    ready.register(over, select.POLLIN)
    try:
        while over not in {number for number, _ in ready.poll()}:
            data = os.read(source, _CHUNK)
            if not data:
                far.send_end()
                return
            far.send(data)
    except OSError:
        return  # the far end takes no more, or our terminal is gone
