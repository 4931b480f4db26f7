"""What the doctor tries without root, and how it words what fails."""

from __future__ import annotations

import platform

import pytest

from testbed.doctor import attempts, examination
from testbed.doctor.examination import Check
from testbed.errors import LabError, MachineError


def test_every_check_has_a_name_of_its_own_and_a_fix() -> None:
    """A report row can be found by its name, and each gap comes with something to do."""
    checks = [
        *examination._computer(),
        *examination._inside("nowhere"),
        *examination._programs(),
        *examination._runtimes(),
    ]
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


def test_a_stopped_engine_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says where it was looked for, what stops working without it, and how to start it."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    (check, *_) = examination._runtimes()
    row = examination._try(check)
    assert (row.available, row.required, row.needed_for) == (False, False, "containers")
    assert "/nowhere/docker.sock" in row.detail
    assert "make docker" in row.fix
