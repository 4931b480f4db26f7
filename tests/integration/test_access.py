"""Ports, commands and files over SSH, against OpenSSH's own server and against what is none."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from access_rig import ADDRESS, Rig, cabled, greet, wire

from testbed.access.reach import connect
from testbed.access.transport import Answer
from testbed.errors import DeadlineError, LabError
from testbed.kernel import namespaces
from testbed.kernel.netlink import Netlink
from testbed.plan.ruleset.context import PROBE_SOURCE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with cabled(tmp_path) as made:
        yield made


# Reaching a port


def test_a_connection_comes_from_the_platforms_address(rig: Rig) -> None:
    """The machine sees 168.63.129.16, and needs no other route back."""
    rig.serve(7, lambda connection: connection.sendall(connection.getpeername()[0].encode()))
    with connect(rig.reach, 7, 5) as connection:
        assert connection.recv(99).decode() == PROBE_SOURCE


def test_the_same_address_on_two_cables(rig: Rig) -> None:
    """Virtual networks that are not peered may overlap: the cable says which machine is meant."""
    other = f"{rig.machine}2"
    namespaces.create(other, "access")
    try:
        wire(rig.fabric, "c2", other)
        rig.serve(7, lambda connection: connection.sendall(b"one"))
        Rig(rig.fabric, other, rig.folder, listeners=rig.listeners).serve(
            7, lambda connection: connection.sendall(b"two")
        )
        for device, expected in (("c1", b"one"), ("c2", b"two"), ("c1", b"one")):
            with connect(replace(rig.reach, device=device), 7, 5) as connection:
                assert connection.recv(9) == expected
    finally:
        namespaces.delete(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, rf"machine 'nva1' \({ADDRESS}\) port 9: connection refused"),
        ({"address": "10.0.1.77"}, "port 9: no answer within 0.3 s"),
        ({"device": "c9"}, "port 9: no such device"),
        ({"fabric": "access-nowhere"}, "network namespace 'access-nowhere' is gone"),
    ],
    ids=["refused", "silent", "no-cable", "no-fabric"],
)
def test_why_a_port_is_not_reached(rig: Rig, changes: dict[str, str], message: str) -> None:
    """The error names machine, address, port and the exact cause, and has something to try."""
    with namespaces.entered(rig.fabric), Netlink() as netlink:
        netlink.neighbor("replace", "c1", "10.0.1.77", "02:00:00:00:00:77")  # nobody's: frames vanish
    with pytest.raises(LabError, match=message) as raised:
        connect(replace(rig.reach, **changes), 9, 0.3)
    assert raised.value.fix


# Commands


def test_commands_over_ssh(rig: Rig) -> None:
    """Output of both streams, exit status, input, signals: as in a shell of one's own."""
    rig.sshd()
    with rig.ssh() as ssh:
        assert ssh.run("echo out; echo err >&2; exit 3", seconds=10) == Answer(3, "out\n", "err\n")
        assert ssh.run("cat", seconds=10, stdin=b"in\n") == Answer(0, "in\n")
        assert ssh.run("cat", seconds=10).out == ""  # no input is the end of input
        assert ssh.run("kill -KILL $$", seconds=10).status == 255
        assert ssh.run("printf '\\377'", seconds=10).out == "\N{REPLACEMENT CHARACTER}"
        assert ssh.run("echo $SSH_CONNECTION", seconds=10).out.split()[0] == PROBE_SOURCE


def test_much_on_both_streams(rig: Rig) -> None:
    """Megabytes on standard output and standard error, and as much input, do not stall each other."""
    rig.sshd()
    data = os.urandom(3 << 20).hex().encode()
    with rig.ssh() as ssh:
        answer = ssh.run("tee /dev/stderr", seconds=60, stdin=data)
    assert answer == Answer(0, data.decode(), data.decode())


def test_a_command_that_takes_too_long(rig: Rig) -> None:
    """It is given up in time, and the machine can be entered again."""
    rig.sshd()
    with rig.ssh() as ssh:
        assert ssh.run("true", seconds=10).status == 0
        with pytest.raises(DeadlineError, match=r"the command did not end within 0\.3 s"):
            ssh.run("exec sleep 60", seconds=0.3)
        assert ssh.run("echo back", seconds=10).out == "back\n"


def test_a_connection_that_breaks(rig: Rig) -> None:
    """A machine that goes down in the middle of a command is told from a command that fails; later it is back."""
    rig.sshd()
    with rig.ssh() as ssh:
        with pytest.raises(LabError, match=rf"{ADDRESS}\) port 22: the connection broke"):
            ssh.run("kill -KILL $PPID; exec sleep 60", seconds=10)
        rig.stop()
        with pytest.raises(LabError, match="connection refused"):
            ssh.run("true", seconds=10)
        rig.sshd()
        assert ssh.run("true", seconds=10).status == 0


# Not a server of SSH


def echo(connection: socket.socket) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)


@pytest.mark.parametrize(
    ("talk", "kind", "message"),
    [
        (
            lambda connection: connection.sendall(b"220 mail.example ESMTP\r\n"),
            LabError,
            "the port answers, but not SSH",
        ),
        (greet(b"\x16\x03\x01\xff\xfe\x00" * 99 + b"\n"), LabError, "the port answers, but not SSH"),
        (greet(b"hello\r\n" * 200), LabError, "the port answers, but not SSH"),
        (lambda _connection: None, LabError, "the port answers, but not SSH"),
        (echo, LabError, "the port answers, but not SSH"),
        (greet(), DeadlineError, "the port is open, but no SSH server answers within 0.5 s"),
        (greet(b"x"), DeadlineError, "the port is open, but no SSH server answers within 0.5 s"),
        (greet(b"SSH-2.0-stuck\r\n"), DeadlineError, "no key exchange within 0.5 s"),
        (greet(b"SSH-1.5-old\r\n"), LabError, "SSH-1.5-old: no agreement"),
        (greet(b"SSH-2.0-odd\r\n", bytes(999)), LabError, "SSH-2.0-odd: no agreement"),
        (lambda connection: connection.sendall(b"SSH-2.0-shy\r\n"), LabError, "the server hung up before anybody"),
    ],
    ids=["mail", "binary", "talkative", "closes", "echo", "silent", "one-byte", "stuck", "old", "odd", "shy"],
)
def test_a_port_that_is_not_ssh(
    rig: Rig,
    capfd: pytest.CaptureFixture[str],
    talk: Callable[[socket.socket], None],
    kind: type[LabError],
    message: str,
) -> None:
    """Each has its words, nothing else is printed, and no thread dies of it."""
    rig.serve(22, talk)
    with pytest.raises(LabError) as raised:
        rig.ssh(patience=0.5).run("true", seconds=10)
    assert type(raised.value) is kind
    assert message in raised.value.message
    assert raised.value.fix
    assert capfd.readouterr() == ("", "")


# Files


def test_a_file_is_put_whole(rig: Rig) -> None:
    """Contents and mode are as wanted, an old file is replaced and not written over, and nothing is left beside it."""
    rig.sshd()
    folder = rig.folder / "there"
    folder.mkdir()
    data = os.urandom(5 << 20)
    with rig.ssh() as ssh:
        ssh.put(data, str(folder / "file"), 0o640)
        with (folder / "file").open("rb") as old:
            ssh.put(b"new", str(folder / "file"), 0o4755)
            assert old.read() == data
    assert (folder / "file").read_bytes() == b"new"
    assert oct((folder / "file").stat().st_mode & 0o7777) == oct(0o4755)
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{folder}/missing/file", "machine 'nva1': there is no folder {folder}/missing"),
        ("{folder}/there", "machine 'nva1': {folder}/there is a folder"),
        ("/proc/file", "machine 'nva1': /proc/file cannot be written: no such file or directory"),
    ],
)
def test_a_file_that_cannot_be_put(rig: Rig, path: str, message: str) -> None:
    """The error names the folder, and nothing is left behind."""
    rig.sshd()
    (rig.folder / "there").mkdir()
    before = set(rig.folder.iterdir())
    with rig.ssh() as ssh, pytest.raises(LabError) as raised:
        ssh.put(b"x", path.format(folder=rig.folder), 0o644)
    assert raised.value.message == message.format(folder=rig.folder)
    assert raised.value.fix
    assert set(rig.folder.iterdir()) == before


@pytest.mark.parametrize("more", ["", "Subsystem sftp /nowhere/sftp-server"], ids=["none", "broken"])
def test_a_server_without_sftp(rig: Rig, more: str) -> None:
    """What is missing in the machine is told."""
    rig.sshd(more=more)
    with rig.ssh() as ssh:
        with pytest.raises(LabError, match="the server knows no SFTP"):
            ssh.put(b"x", "/tmp/never", 0o644)
        assert ssh.run("true", seconds=10).status == 0
