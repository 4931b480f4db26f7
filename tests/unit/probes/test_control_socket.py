"""Control sockets: JSON lines both ways, malformed requests, long paths."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from testbed.errors import InputError, LabError
from testbed.probes import control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _answer(op: str, asked: dict[str, Any]) -> dict[str, Any]:
    if op == "fail":
        raise InputError("no such thing", fix="try another")
    return {"op": op, "echo": asked.get("text")}


def _start(path: Path) -> tuple[threading.Thread, asyncio.AbstractEventLoop]:
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await control.ControlServer(control.listen(path), _answer).start()
        loop.call_soon(ready.set)
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            await server.close()

    task = loop.create_task(serve())
    loop_stop = threading.Thread(target=lambda: loop.run_until_complete(task))
    loop_stop.start()
    assert ready.wait(5)
    loop_stop.task = task  # type: ignore[attr-defined]
    return loop_stop, loop


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A served control socket."""
    where = tmp_path / "c.sock"
    thread, loop = _start(where)
    yield where
    loop.call_soon_threadsafe(thread.task.cancel)  # type: ignore[attr-defined]
    thread.join(5)
    loop.close()


def _raw(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(4096):
            received += data
        return received


def test_a_request_is_answered(path: Path) -> None:
    """The client gets the server's answer to its op and fields."""
    assert control.request(path, "say", text="hello") == {"op": "say", "echo": "hello"}


def test_an_error_of_the_server_reaches_the_asker(path: Path) -> None:
    """What the server raises on purpose becomes a LabError at the client, with the words."""
    with pytest.raises(LabError, match="no such thing"):
        control.request(path, "fail")


@pytest.mark.parametrize(
    "line", [b"nonsense", b"[1]", b"{}", b'{"op": 1}', b"\xff\xfe", b"", b"[" * 60_000, b'"' + b"x" * 200_000]
)
def test_malformed_requests_do_no_harm(path: Path, line: bytes) -> None:
    """Each malformed line gets an error, and the server goes on answering."""
    assert "error" in json.loads(_raw(path, line + b"\n").splitlines()[0])
    assert control.request(path, "say")["op"] == "say"


def test_several_requests_share_a_connection(path: Path) -> None:
    """Lines are answered one by one, in order, also after a bad one."""
    lines = _raw(path, b'{"op": "a"}\nbad\n{"op": "b"}\n').splitlines()
    assert [json.loads(line).get("op") for line in lines] == ["a", None, "b"]


def test_only_the_owner_may_ask(path: Path) -> None:
    """The socket's file has no rights for group and others."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nobody_there_is_said(tmp_path: Path) -> None:
    """A missing socket and one whose server has gone raise LabError naming the path."""
    dead = tmp_path / "dead.sock"
    with pytest.raises(LabError, match=r"dead\.sock"):
        control.request(dead, "ping")
    control.listen(dead).close()
    with pytest.raises(LabError, match="nothing listens"):
        control.request(dead, "ping")


def test_a_silent_server_runs_into_the_deadline(tmp_path: Path) -> None:
    """A server that accepts and never answers costs the asker its timeout, no more."""
    where = tmp_path / "mute.sock"
    with control.listen(where), pytest.raises(LabError, match="timed out"):
        control.request(where, "ping", timeout=0.1)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """The file that a crashed server left does not stand in the way of the next."""
    where = tmp_path / "s.sock"
    control.listen(where).close()
    control.listen(where).close()


def test_long_paths_work(tmp_path: Path) -> None:
    """Paths longer than a socket address are reached all the same."""
    where = tmp_path.joinpath("d" * 90, "e" * 90)
    where.mkdir(parents=True)
    thread, loop = _start(where / "c.sock")
    try:
        assert control.request(where / "c.sock", "say")["op"] == "say"
    finally:
        loop.call_soon_threadsafe(thread.task.cancel)  # type: ignore[attr-defined]
        thread.join(5)
        loop.close()


def test_a_name_that_can_never_fit_is_refused(tmp_path: Path) -> None:
    """A file name of 200 bytes is refused with its path, not with a traceback."""
    with pytest.raises(LabError, match="cannot be made"):
        control.listen(tmp_path / ("n" * 200))
