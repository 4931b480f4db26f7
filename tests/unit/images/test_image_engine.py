"""When there is no engine, or it cannot do what is asked: each case has its own words."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from testbed.errors import InputError, LabError, MachineError
from testbed.images import build_all, engine, ensure, root, virtual_machine
from testbed.images.engine import address
from testbed.images.recipes import CONTAINERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A socket's path where nobody listens, as ``DOCKER_HOST``."""
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_no_socket(host: Path) -> None:
    """A socket that is not there is said to be missing, with its path."""
    with pytest.raises(MachineError, match=f"does not answer at unix://{host}: there is no such socket") as caught:
        engine()
    assert caught.value.fix == "start it, or unset DOCKER_HOST"


def test_nobody_listens(host: Path) -> None:
    """A socket that an engine left behind is told from a missing one."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(host))
    with pytest.raises(MachineError, match="the socket is there, and nobody listens"):
        engine()


def test_no_permission(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may not use the socket is told about sudo and the group."""

    def refuse(self: socket.socket, where: str) -> None:
        del self, where
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(MachineError, match=f"at unix://{host}: permission denied") as caught:
        engine()
    assert "sudo" in caught.value.fix
    assert "usermod -aG docker" in caught.value.fix


def test_the_default_engine_is_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``DOCKER_HOST`` it is Docker's own socket, and the fix is the make target that starts it."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert address() == "unix:///var/run/docker.sock"

    def refuse(self: socket.socket, where: str) -> None:
        del self, where
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(MachineError) as caught:
        engine()
    assert "make docker" in caught.value.fix


def test_an_engine_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is no socket is named too."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(MachineError, match=r"does not answer at tcp://127\.0\.0\.1:1: "):
        engine()


def test_a_wrong_name_needs_no_engine(host: Path, tmp_path: Path) -> None:
    """What the user wrote is checked before the engine is asked."""
    del host
    with pytest.raises(InputError, match="there is no image 'nosuch'"):
        build_all(["nosuch"])
    with pytest.raises(InputError, match="there is no folder 'nosuch'"):
        ensure("nosuch", tmp_path)


class FakeImages:
    """The engine's images."""

    def __init__(self, present: set[str]) -> None:
        self.present = present

    def get(self, reference: str) -> object:
        from docker.errors import ImageNotFound

        if reference not in self.present:
            raise ImageNotFound(reference)
        return object()


class FakeEngine:
    """An engine that has some images, and answers a build with the given events."""

    def __init__(self, *present: str, events: tuple[dict[str, str], ...] = ()) -> None:
        self.images = FakeImages(set(present))
        self.api = self
        self.events = events
        self.asked: dict[str, Any] = {}

    def build(self, **asked: Any) -> tuple[dict[str, str], ...]:
        self.asked = asked
        self.images.present.add(asked["tag"])
        return self.events


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder."""
    path = tmp_path / "own"
    path.mkdir()
    (path / "Dockerfile").write_text("FROM scratch\n")
    return path


def test_an_image_that_is_there_is_not_built(own: Path) -> None:
    """The second call asks the engine one question."""
    fake = FakeEngine()
    first = ensure(own.name, own.parent, client=fake)  # type: ignore[arg-type] # a fake
    assert fake.asked["tag"] == first
    fake.asked = {}
    assert ensure(own.name, own.parent, client=fake) == first  # type: ignore[arg-type] # a fake
    assert fake.asked == {}


def test_a_proxy_is_handed_on(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build reaches the archive as this computer does."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    fake = FakeEngine()
    ensure(own.name, own.parent, client=fake)  # type: ignore[arg-type] # a fake
    assert fake.asked["buildargs"]["HTTP_PROXY"] == "http://proxy.example:3128"
    assert fake.asked["network_mode"] == "host"


def test_a_failed_build_shows_the_end_of_its_log(own: Path) -> None:
    """The error has the engine's reason, the last twenty lines, and a command to try."""
    events = ({"stream": "".join(f"line {number}\n" for number in range(50))}, {"error": "it returned 100"})
    with pytest.raises(LabError, match="cannot be built: it returned 100") as caught:
        ensure(own.name, own.parent, client=FakeEngine(events=events))  # type: ignore[arg-type] # a fake
    assert "line 49" in caught.value.message
    assert "line 30" in caught.value.message
    assert "line 29" not in caught.value.message
    assert f"docker build --network host {own}" in caught.value.fix


@pytest.fixture
def nothing_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry answers."""
    monkeypatch.setattr(root, "_pull", lambda: "no such host")


@pytest.mark.usefixtures("nothing_pulled")
def test_neither_registry_nor_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Debian can be neither pulled nor made, the fix names the package that makes it."""
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(MachineError, match="neither mmdebstrap nor debootstrap") as caught:
        root.ensure_root(FakeEngine(), lambda _line: None)  # type: ignore[arg-type] # a fake
    assert caught.value.fix == "apt-get install mmdebstrap debian-archive-keyring"


@pytest.mark.usefixtures("nothing_pulled")
def test_a_tool_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last lines of the tool are in the error."""
    monkeypatch.setattr(root, "_mmdebstrap", lambda _archive: ["sh", "-c", "echo no key for the archive; exit 7"])
    monkeypatch.setattr("shutil.which", lambda name: name)
    with pytest.raises(LabError, match=r"sh fails with status 7; its last lines:\n    no key for the archive"):
        root.ensure_root(FakeEngine(), lambda _line: None)  # type: ignore[arg-type] # a fake


@pytest.mark.parametrize("reference", [root.PULLED, root.MADE])
def test_debian_is_there_already(reference: str) -> None:
    """Neither pulled nor made again."""
    assert root.ensure_root(FakeEngine(reference), lambda _line: None) == reference  # type: ignore[arg-type] # a fake


def test_debian_is_cleaned_of_what_the_slim_image_lacks(tmp_path: Path) -> None:
    """Manuals, locales and package lists go, licences stay."""
    for name in ("usr/share/man/man1/ls.1", "usr/share/doc/dash/copyright", "usr/share/doc/dash/more/README", "bin/ls"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "usr/share/doc/dash/changelog").touch()
    (tmp_path / "usr/share/doc/other").mkdir()
    root._clean(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["bin/ls", "usr/share/doc/dash/copyright"]
    assert not (tmp_path / "usr/share/doc/other").exists()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Replaces the script that builds the virtual machine's image."""

    def write(text: str) -> None:
        monkeypatch.setattr(virtual_machine, "CONTAINERS", tmp_path)
        path = tmp_path / "vm-firewall" / "build"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return write


def test_the_machine_lacks_a_tool(script: Callable[[str], None]) -> None:
    """What the script misses is an error of the machine, with its fix."""
    script("echo there is no mmdebstrap; echo fix: apt-get install mmdebstrap; exit 3")
    with pytest.raises(MachineError, match="there is no mmdebstrap") as caught:
        virtual_machine.vm_firewall()
    assert caught.value.fix == "apt-get install mmdebstrap"


def test_the_script_fails(script: Callable[[str], None]) -> None:
    """Its last lines are in the error."""
    script("echo about to fail; exit 1")
    with pytest.raises(LabError, match=r"fails with status 1:\n    about to fail"):
        virtual_machine.vm_firewall()


def test_the_real_script_says_what_it_lacks() -> None:
    """Without its tools it ends with the status and the words that are expected of it."""
    command = ["/bin/bash", str(CONTAINERS / "vm-firewall" / "build")]
    done = subprocess.run(command, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "fix: apt-get install" in done.stderr
