"""Fixtures for tests on the real kernel: labs that are removed afterwards, and a leak check round each test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed.kernel import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
TOPOLOGIES = ROOT / "topologies"


def _present() -> set[str]:
    """Namespaces, labs and links of the machine."""
    folders = (Path("/run/netns"), Path("/run/testbed"), Path("/sys/class/net"))
    return {str(each) for folder in folders if folder.exists() for each in folder.iterdir()}


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """After each test the machine has no namespace, lab or link that it had not before."""
    before = _present()
    yield
    assert _present() - before == set()


def inside(namespace: str, *command: str, text: str | None = None) -> str:
    """Run a command in a namespace and return what it prints.

    Not by ``ip netns exec`` or ``ip -n``: these want the root to be a mount point, which it is not in a chroot.
    """
    with namespaces.entered(namespace):
        done = subprocess.run(command, check=True, capture_output=True, text=True, input=text)
    return done.stdout


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def testbed(*words: object, timeout: float = 120, check: bool = True) -> Done:
    """Run the command line in a process of its own, as a user does."""
    command = [sys.executable, "-m", "testbed", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False)
    if check:
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return Done(done.returncode, done.stdout, done.stderr)


testbed.__test__ = False  # type: ignore[attr-defined] # the name is the product's


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Bring up labs of ready topologies (or other files) under names of their own; they go with the test."""
    names: list[str] = []

    def bring_up(document: str | Path, *, time_scale: float = 0.02, wait: float = 30, name: str = "") -> str:
        path = TOPOLOGIES / f"{document}.yaml" if isinstance(document, str) else document
        own = name or f"t{os.getpid()}-{len(names)}"
        names.append(own)
        testbed("up", path, "--lab", own, "--time-scale", time_scale, "--wait", wait)
        return own

    del request
    yield bring_up
    for each in names:
        testbed("down", each)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A document with two NVAs and one client, small enough to fail it at each of its steps."""
    path = tmp_path / "small.yaml"
    path.write_text((TOPOLOGIES / "hub-spoke.yaml").read_text())
    return path
