"""``testbed ssh`` and ``testbed push``, and what a person sees of them on a terminal."""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from access_rig import ADDRESS, PASSWORD, Rig, cabled, greet, machine, password_server

from testbed.access.keys import lab_key
from testbed.access.secrets import Secrets
from testbed.cli import push_verb, ssh_verb
from testbed.deadline import wait_for
from testbed.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with cabled(tmp_path) as made:
        yield made


# The command line


@pytest.fixture
def lab(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """The rig as a lab ``rig`` that the command line finds."""
    nic = SimpleNamespace(fabric_name="c1", address=ADDRESS)
    ssh = machine(access={"ssh": {"username": "root"}})

    def find(name: str) -> SimpleNamespace:
        document = ssh if name == "nva1" else machine()
        return SimpleNamespace(name=name, network_interfaces=(nic,), document=document)

    plan = SimpleNamespace(lab="rig", fabric=rig.fabric, folder=str(rig.folder), machine=find)
    monkeypatch.setattr("testbed.lab.up.load_plan_and_topology", lambda _state: (plan, None))
    monkeypatch.setattr("testbed.lab.state.ROOT", rig.folder / "run")
    (rig.folder / "authorized_keys").write_text(lab_key(rig.folder / "run/rig").public)
    rig.sshd()
    return rig


def verb(module: Any, *, json: bool = False, **words: Any) -> int:
    arguments = argparse.Namespace(lab="rig", json=json, **{"machine": "nva1", **words})
    return int(module.run(arguments))


def test_ssh_verb(lab: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    """Words are put together for the machine's shell; streams stay apart and the status is passed on."""
    assert verb(ssh_verb, command=["echo", "out;", "echo", "err", ">&2;", "exit", "7"]) == 7
    assert capfd.readouterr() == ("out\n", "err\n")
    assert verb(ssh_verb, command=["echo out; exit 8"], json=True) == 8
    assert (
        capfd.readouterr().out == '{\n  "machine": "nva1",\n  "status": 8,\n  "stdout": "out\\n",\n  "stderr": ""\n}\n'
    )
    with pytest.raises(InputError, match="there must be a command"):
        verb(ssh_verb, command=[], json=True)
    with pytest.raises(InputError, match=r"machine 'web1' has no access\.ssh") as raised:
        verb(ssh_verb, machine="web1", command=["true"])
    assert "testbed exec rig web1" in raised.value.fix
    del lab


def test_push_verb(lab: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    """The file keeps its mode; a folder with a slash keeps its name."""
    source, there = lab.folder / "check.sh", lab.folder / "there"
    source.write_text("#!/bin/sh\n")
    source.chmod(0o750)
    there.mkdir()
    assert verb(push_verb, what=f"{source}:{there}/") == 0
    assert (there / "check.sh").read_text() == "#!/bin/sh\n"
    assert (there / "check.sh").stat().st_mode & 0o777 == 0o750
    assert capfd.readouterr().out == f"nva1: {there}/check.sh, 10 bytes\n"
    assert verb(push_verb, what=f"{source}:{there}/other", json=True) == 0
    assert '"mode": "0750"' in capfd.readouterr().out
    for wrong in ("file", "file:", ":/there"):
        with pytest.raises(InputError, match="is not FILE:PATH"):
            verb(push_verb, what=wrong)
    with pytest.raises(InputError, match="missing cannot be read: no such file"):
        verb(push_verb, what="missing:/there")


# A terminal

SHELL = """
import sys
from pathlib import Path
from testbed.access.login import Door
from testbed.access.reach import Reach
from testbed.access.secrets import Secrets
from testbed.access.ssh import SshTransport
from testbed.errors import TestbedError
from testbed.topology.runtimes import SshAccess
door = Door(Reach(*sys.argv[1:6]), SshAccess(username="root"), Path("."), Path(sys.argv[6]), Secrets())
try:
    with SshTransport(door) as transport:
        status = transport.shell(*sys.argv[7:])
except TestbedError as error:
    raise SystemExit(error.message)
raise SystemExit(status)
"""


def shell(rig: Rig, *command: str) -> list[str]:
    reach = rig.reach
    words = [reach.lab, reach.machine, reach.fabric, reach.device, reach.address, str(rig.state), *command]
    return [sys.executable, "-c", SHELL, *words]


class Screen:
    """What a terminal shows, read as it comes."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.text = ""

    def until(self, expression: str) -> None:
        """Wait for a text, and forget all up to its end."""

        def look() -> re.Match[str] | None:
            while select.select([self._terminal], [], [], 0)[0]:
                try:
                    self.text += os.read(self._terminal, 4096).decode(errors="replace")
                except OSError:  # the program has closed it
                    break
            return re.search(expression, self.text)

        found = wait_for(expression, look, seconds=20, describe=lambda _found: repr(self.text))
        assert found is not None
        self.text = self.text[found.end() :]


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_a_terminal(rig: Rig) -> None:
    """The shell knows the terminal's size and its changes, gets every key, and leaves all as it was."""
    rig.sshd()
    here, there = pty.openpty()
    resize(here, 33, 111)
    before = termios.tcgetattr(there)
    command = ["setsid", "--ctty", *shell(rig)]  # a terminal of its own, which tells it of changes
    process = subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, env={**os.environ, "TERM": "xterm-16color"}
    )
    try:
        screen = Screen(here)
        os.write(here, b"stty size; tty; echo term=$TERM\n")
        screen.until(r"33 111\s+/dev/pts/\d+\s+term=xterm-16color\s")
        assert termios.tcgetattr(there)[3] & (termios.ECHO | termios.ICANON | termios.ISIG) == 0
        resize(here, 44, 122)
        os.write(here, b"until test \"$(stty size)\" = '44 122'; do :; done; stty size\n")
        screen.until(r"\s44 122\s")
        os.write(here, b"PS1='rea''dy> '; echo now; cat\n")
        screen.until(r"\nnow\s")
        os.write(here, b"\x03")  # Ctrl-C is the far program's own
        screen.until(r"\^C[^>]*ready> ")
        os.write(here, b"echo status=$?\n")
        screen.until(r"\sstatus=130\s")
        os.write(here, b"exit 7\n")
        assert process.wait(timeout=20) == 7
        assert termios.tcgetattr(there) == before
    finally:
        process.kill()
        process.wait()
        os.close(here)
        os.close(there)


def test_pipes_instead_of_a_terminal(rig: Rig) -> None:
    """Input is read to its end, output goes on as it is, and a reader that has had enough ends it."""
    rig.sshd()
    data = os.urandom(2 << 20)
    done = subprocess.run(
        shell(rig, "cat; echo err >&2; exit 5"), input=data, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, data, b"err\n")
    done = subprocess.run(shell(rig), input=b"tty; exit 6\n", capture_output=True, check=False, timeout=60)
    assert done.returncode == 6
    assert b"not a tty" in done.stdout
    endless = subprocess.Popen(
        shell(rig, "yes"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert endless.stdout is not None
    assert endless.stdout.read(4) == b"y\ny\n"
    endless.stdout.close()
    assert endless.wait(timeout=20) != 0


def test_errors_are_told_once(rig: Rig) -> None:
    """On standard error stands our message, and nothing of the library's own."""
    rig.serve(22, greet(b"hello\r\n" * 200))
    done = subprocess.run(shell(rig), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert done.stderr.decode() == f"machine 'nva1' ({ADDRESS}) port 22: the port answers, but not SSH\n"


def test_waiting_takes_no_processor_time(rig: Rig) -> None:
    """While a command is silent, nobody asks again and again."""
    rig.sshd()
    with rig.ssh() as ssh:
        ssh.run("true", seconds=10)
        before = time.process_time()
        assert ssh.run("echo x; sleep 1", seconds=10).out == "x\n"
    assert time.process_time() - before < 0.3


def test_a_password_is_in_nobodys_words(rig: Rig) -> None:
    """While a session is open, no process of this computer shows the password."""
    password_server(rig, 22)
    secrets = Secrets({"NVA_PASSWORD": PASSWORD})
    with rig.ssh(secrets, password_env="NVA_PASSWORD") as ssh:  # noqa: S106 - a name
        ssh.run("show", seconds=10)
        words = b"".join(read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
    assert b"pytest" in words
    assert PASSWORD.encode() not in words.replace(b"\0", b" ")


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
