"""What the doctor tries without root, and how it words what fails."""

from __future__ import annotations

import platform
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from testbed.doctor import attempts, examination
from testbed.doctor.examination import Check
from testbed.errors import LabError, MachineError

if TYPE_CHECKING:
    from pathlib import Path


def test_every_check_has_a_name_of_its_own_and_a_fix() -> None:
    """A report row can be found by its name, and each gap comes with something to do."""
    checks = [*examination._computer(), *examination._inside("nowhere"), *examination._programs()]
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert all(check.fix and check.needed_for for check in checks)


@pytest.mark.parametrize(
    ("error", "detail"),
    [(LabError("refused", fix="hidden"), "refused"), (FileNotFoundError(2, "gone"), "[Errno 2] gone")],
)
def test_a_failing_attempt_becomes_a_row(error: Exception, detail: str) -> None:
    """What an attempt raises is shown in the report with the check's fix."""

    def attempt() -> str:
        raise error

    row = examination._try(Check("thing", "work", attempt, "do this"))
    assert (row.available, row.detail, row.fix) == (False, detail, "do this")


def test_a_good_attempt_has_nothing_to_fix() -> None:
    """What works is shown with what was seen, and no fix."""
    row = examination._try(Check("thing", "work", lambda: "seen", "do this"))
    assert (row.available, row.detail, row.fix) == (True, "seen", "")


def test_a_mistake_of_the_doctor_is_not_hidden() -> None:
    """Only what a computer can lack becomes a row; a programming error gets out."""
    with pytest.raises(ZeroDivisionError):
        examination._try(Check("thing", "work", lambda: str(1 // 0), "do this"))


def test_old_kernels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels before 6.0 hash some address pairs by direction, and the report says which."""
    monkeypatch.setattr(platform, "release", lambda: "5.15.0-91-generic")
    with pytest.raises(MachineError, match=r"5\.15.*128 apart"):
        attempts.kernel_version()
    monkeypatch.setattr(platform, "release", lambda: "10.0.1")
    assert attempts.kernel_version() == "Linux 10.0.1"


def test_a_tool_that_is_not_there_is_not_found() -> None:
    """A program that no package has is reported as not installed."""
    with pytest.raises(MachineError, match="not installed"):
        attempts.tool("no-program-has-this-name")


def _engine(path: Path, answer: bytes) -> threading.Thread:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with server:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_docker_engine_that_answers_is_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's API version is read from its answer."""
    where = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{where}")
    thread = _engine(where, b"HTTP/1.0 200 OK\r\nApi-Version: 1.45\r\nContent-Length: 2\r\n\r\nOK")
    assert attempts.docker_engine() == f"API 1.45 at unix://{where}"
    thread.join()


@pytest.mark.parametrize("answer", [b"HTTP/1.0 503 Busy\r\n\r\n", b"not HTTP at all\r\n", b""])
def test_a_docker_engine_that_is_unwell_is_absent(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything but a proper 200 means there is no engine to use."""
    where = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{where}")
    thread = _engine(where, answer)
    with pytest.raises(MachineError, match="engine at"):
        attempts.docker_engine()
    thread.join()


def test_no_docker_socket_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a socket the engine is reported with the place that was tried."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(MachineError, match=r"none\.sock"):
        attempts.docker_engine()


def test_a_docker_engine_elsewhere_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces of this computer cannot hold containers of another one."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    with pytest.raises(MachineError, match="this computer"):
        attempts.docker_engine()
