"""Runtimes: the protocol and its fake, logs for messages, and how an accelerator is found out."""

from __future__ import annotations

import stat
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testbed.access.transport import FakeTransport
from testbed.errors import LabError, MachineError
from testbed.plan.objects import Instance
from testbed.runtimes import accelerator
from testbed.runtimes.base import Place, Runtime, State, tail
from testbed.runtimes.fake import FakeRuntime
from testbed.runtimes.registry import RUNTIMES, runtime
from testbed.topology.runtimes import RUNTIME_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = Place("lab", Path("/nowhere"))


def operations() -> set[str]:
    return {name for name in vars(Runtime) if not name.startswith("_")}


@pytest.mark.parametrize("kind", RUNTIME_KINDS)
def test_each_kind_of_the_document_has_a_runtime(kind: str) -> None:
    """It knows every operation of the protocol, with the same parameters."""
    assert set(RUNTIMES) == set(RUNTIME_KINDS)
    assert len(operations()) > 10
    for name in operations():
        expected = list(signature(getattr(Runtime, name)).parameters)[1:]
        for made in (runtime(kind, PLACE), FakeRuntime()):
            assert list(signature(getattr(made, name)).parameters) == expected, name


def test_the_fake_fits_the_protocol() -> None:
    """It does what it is told, and remembers it."""
    fake: Runtime = FakeRuntime(failing={"broken"})
    good = Instance("lab-good", "good", "fake", "x", "{}")
    assert set(fake.start([good])) == {"good"}
    assert fake.states(["good", "other"], {}) == {"good": State("running"), "other": State("exited")}
    with pytest.raises(LabError, match="'broken'"):
        fake.start([Instance("lab-broken", "broken", "fake", "x", "{}")])
    fake.kill("good", None)
    assert not fake.states(["good"], {})["good"].well
    assert isinstance(fake.enter("good"), FakeTransport)


def test_the_tail_of_a_log() -> None:
    """The last lines that say something, indented."""
    text = "".join(f"line {number}\n\n" for number in range(100))
    assert tail(text, 2) == "    line 98\n    line 99"
    assert tail("") == ""


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program in QEMU's place, which a test writes, on a processor that has what KVM needs."""
    path = tmp_path / "qemu"
    flags = tmp_path / "cpuinfo"
    flags.write_text("flags\t\t: fpu vme svm avx\n")
    monkeypatch.setattr(accelerator, "_CPUINFO", flags)
    monkeypatch.setattr(accelerator, "QEMU", str(path))
    monkeypatch.setattr(Path, "exists", lambda _path: True)
    accelerator.why_no_kvm.cache_clear()
    yield path
    accelerator.why_no_kvm.cache_clear()


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_kvm_counts_when_a_guest_ran(qemu: Path) -> None:
    """The guest's own word, as an exit status, is the proof; a device file is none."""
    write(qemu, f"exit {0x2A << 1 | 1}")
    assert accelerator.processor("auto") == ("-accel", "kvm", "-cpu", "host")
    assert accelerator.processor("tcg")[1].startswith("tcg")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["echo 'qemu: failed to set MSR' >&2", "exit 1"], "failed to set MSR"),
        (["exit 0"], "QEMU ended with status 0"),
        (["exec sleep 30"], "did not end within"),
    ],
)
def test_otherwise_machines_are_emulated(
    qemu: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], reason: str
) -> None:
    """And who insists on KVM is told why not."""
    monkeypatch.setattr(accelerator, "_SECONDS", 0.5)
    write(qemu, *lines)
    assert accelerator.processor("auto")[1].startswith("tcg")
    with pytest.raises(MachineError, match=reason) as caught:
        accelerator.processor("kvm")
    assert "auto" in caught.value.fix


def test_kvm_without_vmx_and_svm_is_none(qemu: Path, tmp_path: Path) -> None:
    """There are paravirtual ones, which run the kernels made for them and no stock guest."""
    write(qemu, f"exit {0x2A << 1 | 1}")
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu vme avx\n")
    assert accelerator.processor("auto")[1].startswith("tcg")
    with pytest.raises(MachineError, match="neither VMX nor SVM"):
        accelerator.processor("kvm")
