"""The pump between streams here and a program elsewhere, with pipes at both ends."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from testbed.access.terminal import pump

if TYPE_CHECKING:
    from collections.abc import Iterator


class PipeEnd:
    """A far end of two pipes, which takes input slowly and answers it, like ``cat``."""

    def __init__(self) -> None:
        self.back, self.answer = os.pipe()
        self.taken = bytearray()
        self.ended = threading.Event()

    def fileno(self) -> int:
        return self.back

    def receive(self) -> tuple[int, bytes] | None:
        data = os.read(self.back, 1 << 16)
        return (2 if data.startswith(b"!") else 1, data) if data else None

    def send(self, data: bytes) -> None:
        self.taken += data
        while data:
            data = data[os.write(self.answer, data) :]  # waits until what we said is read

    def send_end(self) -> None:
        self.ended.set()
        os.close(self.answer)

    def resize(self, columns: int, rows: int) -> None:
        raise AssertionError(f"{columns} {rows}: there is no terminal")


@pytest.fixture
def far() -> Iterator[PipeEnd]:
    end = PipeEnd()
    yield end
    os.close(end.back)


def test_more_than_the_pipes_hold_goes_round(far: PipeEnd) -> None:
    """Input and output flow at the same time: a program that answers as it reads does not stall."""
    data = os.urandom(1 << 22)
    here, source = os.pipe()
    sink, there = os.pipe()
    came = bytearray()

    def write() -> None:
        with os.fdopen(source, "wb") as file:
            file.write(data)

    def read() -> None:
        with os.fdopen(sink, "rb") as file:
            came.extend(file.read())

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    pump(far, raw=False, streams=(here, there, there))
    os.close(there)
    os.close(here)
    for thread in threads:
        thread.join()
    assert bytes(came) == data
    assert far.ended.is_set()


def test_the_streams_stay_apart(far: PipeEnd) -> None:
    """Standard error arrives on standard error; the end of input is passed on."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out_read, out = os.pipe()
    err_read, err = os.pipe()
    os.write(far.answer, b"!bad")
    pump(far, raw=False, streams=(nothing, out, err))
    os.close(out)
    os.close(err)
    assert os.read(err_read, 99) == b"!bad"
    assert os.read(out_read, 99) == b""
    for each in (nothing, out_read, err_read):
        os.close(each)


def test_a_program_that_ends_first(far: PipeEnd) -> None:
    """Nobody waits for input that it will not read."""
    here, source = os.pipe()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.close(far.answer)
    pump(far, raw=False, streams=(here, nothing, nothing))
    assert not far.ended.is_set()
    for each in (here, source, nothing):
        os.close(each)


def test_a_reader_that_has_had_enough(far: PipeEnd) -> None:
    """As with ``| head``: the pump ends with the error that says so."""
    here, source = os.pipe()
    sink, there = os.pipe()
    os.close(sink)
    os.write(far.answer, b"text")
    with pytest.raises(BrokenPipeError):
        pump(far, raw=False, streams=(here, there, there))
    for each in (here, source, there, far.answer):
        os.close(each)
