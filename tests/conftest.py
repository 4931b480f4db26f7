"""Fixtures for tests on the real kernel: labs that are removed afterwards, and a leak check round each test.

The conformance suite's labs run on the balancer that ``--balancer`` names. A module of it usually shares one lab
(``labs``), and each of its tests leaves the lab as it was; a test that changes more takes ``own_lab``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed.kernel import namespaces, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab, Timing

ROOT = Path(__file__).parents[1]
TOPOLOGIES = ROOT / "topologies"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which backend the conformance suite runs on, and how fast."""
    group = parser.getgroup("conformance")
    group.addoption("--balancer", choices=("nftables", "ipvs"), default="nftables", help="backend of its labs")
    group.addoption("--lab-time-scale", type=float, default=0.02, help="time scale of its labs (default 0.02)")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    config.addinivalue_line("markers", "fact(row, state): a fact of docs/azure-fidelity.md")
    config.addinivalue_line("markers", "ipvs: a trap of IPVS; not run for another backend")
    config.addinivalue_line("markers", "unbalanced: the balancer plays no part in it; run for nftables only")
    # Shells start what runs in the background with SIGINT ignored, which programs inherit; tests send it to some.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is about IPVS belongs to a run with IPVS only; what needs no balancer is proven once, without it."""
    alien = "unbalanced" if config.getoption("--balancer") == "ipvs" else "ipvs"
    left_out = [each for each in items if each.get_closest_marker(alien)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [each for each in items if not each.get_closest_marker(alien)]


def _present() -> set[str]:
    """Namespaces, labs and links of the machine."""
    folders = (Path("/run/netns"), Path("/run/testbed"), Path("/sys/class/net"))
    return {str(each) for folder in folders if folder.exists() for each in folder.iterdir()}


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test that brings up labs the machine has no namespace, lab or link that it had not before."""
    if request.path.is_relative_to(ROOT / "tests" / "unit"):
        yield
        return
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


@pytest.fixture(scope="session")
def balancer(request: pytest.FixtureRequest) -> str:
    """The backend that the conformance suite's labs use."""
    return str(request.config.getoption("--balancer"))


@pytest.fixture(scope="session")
def timing(request: pytest.FixtureRequest) -> Timing:
    """How fast the conformance suite's labs are, and how long its tests wait."""
    from labs import Timing

    scale = float(request.config.getoption("--lab-time-scale"))
    slowness = max(1.0, scale / 0.02)
    return Timing(scale, patience=20 * slowness, silence=0.4 * slowness)


@pytest.fixture(scope="session")
def quick_start(balancer: str) -> Iterator[None]:
    """With IPVS, in an emulated computer, the processes of labs are forked from one that has loaded what they need."""
    if balancer == "nftables":
        yield
        return
    from nursery import Nursery

    nursery = Nursery()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "start_module", nursery.start_module)
        yield
    nursery.close()


@pytest.fixture(scope="module")
def labs(
    tmp_path_factory: pytest.TempPathFactory, balancer: str, timing: Timing, quick_start: None
) -> Iterator[Callable[..., Lab]]:
    """Make labs for a whole module of the conformance suite; they are removed with it."""
    from labs import Lab

    del quick_start
    made: list[Lab] = []

    def make(document: dict[str, Any] | None = None, *, healthy: bool = True) -> Lab:
        name = f"c{os.getpid()}-{len(made)}"
        lab = Lab(name, tmp_path_factory.mktemp(name), balancer, timing)
        made.append(lab)
        if document is not None:
            lab.up(document, healthy=healthy)
        return lab

    yield make
    for each in made:
        each.down()


@pytest.fixture
def own_lab(labs: Callable[..., Lab]) -> Iterator[Callable[..., Lab]]:
    """Make labs for one test of the conformance suite; they are removed with it."""
    made: list[Lab] = []

    def make(document: dict[str, Any] | None = None, *, healthy: bool = True) -> Lab:
        made.append(labs())
        if document is not None:
            made[-1].up(document, healthy=healthy)
        return made[-1]

    yield make
    for each in made:
        each.down()
