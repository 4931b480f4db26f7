"""SSH, configure steps, readiness and diagnostics against OpenSSH's own server, over a cable of the lab's kind."""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import paramiko
import pytest
from conftest import inside
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from testbed.access.configure import run_steps
from testbed.access.diagnostics import collect
from testbed.access.keys import forget, lab_key
from testbed.access.login import Door
from testbed.access.reach import Reach, connect
from testbed.access.ready import Sources, conditions, pending
from testbed.access.secrets import Secrets
from testbed.access.ssh import SshTransport
from testbed.access.transport import Answer, FakeTransport, NamespaceTransport
from testbed.cli import push_verb, ssh_verb
from testbed.deadline import wait_for
from testbed.errors import DeadlineError, InputError, LabError
from testbed.kernel import namespaces, processes
from testbed.kernel.netlink import Netlink, RouteEntry
from testbed.nodes.certificate import server_context
from testbed.plan.ruleset.context import PROBE_SOURCE
from testbed.topology.model import Machine
from testbed.topology.runtimes import Ready, SshAccess

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

FABRIC_MAC, MACHINE_MAC = "12:34:56:78:9a:bc", "02:00:00:00:00:04"
ADDRESS = "10.0.1.4"
PASSWORD = "correct horse/battery+staple"  # noqa: S105 - of a server that lives as long as a test
NIC = {"subnet": "hub/nva", "private_ip_address": ADDRESS}
SSHD_CONFIG = """\
Port 22
HostKey {folder}/{host_key}
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM {pam}
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
{more}
"""


@dataclass
class Rig:
    """A fabric, a machine at the other end of a cable, and servers in the machine."""

    fabric: str
    machine: str
    folder: Path
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    listeners: list[socket.socket] = field(default_factory=list)

    @property
    def reach(self) -> Reach:
        return Reach("rig", "nva1", self.fabric, "c1", ADDRESS)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def door(self, secrets: Secrets | None = None, **access: Any) -> Door:
        ssh = SshAccess.model_validate({"username": "root", **access})
        return Door(self.reach, ssh, self.folder, self.state, secrets or Secrets({}))

    def ssh(self, secrets: Secrets | None = None, patience: float = 10, **access: Any) -> SshTransport:
        return SshTransport(self.door(secrets, **access), patience=patience)

    def sshd(
        self, host_key: str = "host_ed25519", more: str = "Subsystem sftp internal-sftp", *, log: str = ""
    ) -> None:
        """Start OpenSSH's server; the lab's key may log in."""
        path = self.folder / host_key
        if not path.exists():
            kind = host_key.rsplit("_", 1)[1]
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
        if not (self.folder / "authorized_keys").exists():
            (self.folder / "authorized_keys").write_text(lab_key(self.state).public + "\n")
        # Without PAM, sshd turns away an account that is locked, as root's is on some systems.
        locked = any(line.startswith("root:!") for line in Path("/etc/shadow").read_text().splitlines())
        config = self.folder / "sshd_config"
        text = SSHD_CONFIG.format(folder=self.folder, host_key=host_key, pam="yes" if locked else "no", more=more)
        config.write_text(text)
        with namespaces.entered(self.machine), (self.folder / (log or "sshd.log")).open("ab") as file:
            command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
            self.servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file))
        self.wait(22)

    def stop(self) -> None:
        """End all processes in the machine."""
        processes.end(processes.inside([namespaces.inode(self.machine)]))
        for each in self.servers:
            each.wait()
        self.servers.clear()

    def wait(self, port: int) -> None:
        """Until somebody listens."""
        open_port = conditions(Ready(tcp=port), sources(self))
        wait_for(f"port {port}", lambda: pending(open_port), lambda texts: not texts, seconds=10)

    def serve(self, port: int, talk: Callable[[socket.socket], None]) -> None:
        """A server in the machine that says what it likes to everybody."""
        with namespaces.entered(self.machine):
            listener = socket.create_server(("0.0.0.0", port))
        self.listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                talk(connection)

        threading.Thread(target=accept, daemon=True).start()


def sources(rig: Rig, **other: Any) -> Sources:
    return replace(Sources(rig.reach, lambda: "", lambda: "", FakeTransport), **other)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Two namespaces and a cable; nothing of them is left."""
    made = Rig(f"access-{os.getpid()}-f", f"access-{os.getpid()}-m", tmp_path)
    privilege_separation = Path("/run/sshd")  # sshd's own start script makes it
    fresh = not privilege_separation.exists()
    privilege_separation.mkdir(mode=0o755, exist_ok=True)
    for name in (made.fabric, made.machine):
        namespaces.create(name, "access")
    try:
        wire(made.fabric, "c1", made.machine)
        with namespaces.entered(made.fabric), Netlink() as netlink:
            netlink.address("add", "lo", f"{PROBE_SOURCE}/32")
        yield made
    finally:
        for listener in made.listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        made.stop()
        for name in (made.fabric, made.machine):
            namespaces.delete(name)
        if fresh:
            privilege_separation.rmdir()


def wire(fabric: str, device: str, machine: str) -> None:
    """A cable as a lab has it: no route in the fabric leads to the machine, but its neighbour is known."""
    with namespaces.entered(fabric), Netlink() as netlink:
        netlink.add_veth(device, FABRIC_MAC, 1500, namespaces.path(machine), "eth0", MACHINE_MAC)
        netlink.set_link(device, up=True)
        netlink.neighbor("replace", device, ADDRESS, MACHINE_MAC)
    with namespaces.entered(machine), Netlink() as netlink:
        netlink.set_link("eth0", up=True)
        netlink.address("add", "eth0", f"{ADDRESS}/24")
        netlink.neighbor("replace", "eth0", PROBE_SOURCE, FABRIC_MAC)
        netlink.route("add", RouteEntry(254, f"{PROBE_SOURCE}/32", "unicast", None, "eth0"))
    for namespace, link in ((fabric, device), (machine, "eth0")):
        # The kernel drops what is sent before it has noticed the carrier.
        show = partial(inside, namespace, "ip", "-json", "link", "show", link)
        wait_for(f"carrier on {link}", show, lambda text: '"operstate":"UP"' in text, seconds=10)


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


# Who is let in


def test_the_labs_key_is_not_let_in(rig: Rig) -> None:
    """The error says who came with what, what the server offers, and which line it lacks."""
    rig.sshd()
    (rig.folder / "authorized_keys").write_text("")
    with pytest.raises(LabError) as raised:
        rig.ssh().run("true", seconds=10)
    own = lab_key(rig.state)
    assert raised.value.message == (
        f"machine 'nva1' ({ADDRESS}) port 22: user 'root', with the lab's key {own.private}: "
        "not let in; the server offers publickey"
    )
    assert own.public in raised.value.fix


def test_nothing_of_the_persons_own_is_used(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key in ``~/.ssh`` that would open the machine does not, and ``~/.ssh/known_hosts`` stays as it is."""
    home = rig.folder / "home"
    (home / ".ssh").mkdir(parents=True)
    rig.sshd()
    own = lab_key(rig.folder / "other")
    own.private.rename(home / ".ssh/id_ed25519")
    (rig.folder / "authorized_keys").write_text(own.public)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(LabError, match="not let in"):
        rig.ssh().run("true", seconds=10)
    assert {path.name for path in (home / ".ssh").iterdir()} == {"id_ed25519"}
    assert (rig.state / "known_hosts").exists()


@pytest.mark.parametrize(
    "options",
    [("-t", "ed25519"), ("-t", "ecdsa"), ("-t", "rsa", "-b", "2048"), ("-t", "rsa", "-b", "2048", "-m", "PEM")],
    ids=" ".join,
)
def test_a_key_file(rig: Rig, options: tuple[str, ...]) -> None:
    """A file beside the document, of any type and format that OpenSSH makes."""
    subprocess.run(["ssh-keygen", "-q", *options, "-N", "", "-f", str(rig.folder / "user")], check=True)
    (rig.folder / "authorized_keys").write_text((rig.folder / "user.pub").read_text())
    rig.sshd()
    with rig.ssh(private_key_file="user") as ssh:
        assert ssh.run("echo in", seconds=10).out == "in\n"


def encrypted(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSWORD, "-f", str(path)], check=True)


def encrypted_pem(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", PASSWORD, "-f", str(path)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _path: None, "there is no file {path}"),
        (encrypted, "{path} is encrypted"),
        (encrypted_pem, "{path} is encrypted"),
        (lambda path: path.write_text("nonsense"), "{path} is not a private key that can be used"),
        (lambda path: path.write_text("ssh-ed25519 AAAA"), "{path} is not a private key that can be used"),
        (lambda path: path.write_bytes(b"\xff\xfe\xfd"), "{path} is not text"),
        (lambda path: path.mkdir(), "{path} cannot be read: is a directory"),
    ],
    ids=["missing", "encrypted", "encrypted-pem", "nonsense", "public-half", "binary", "folder"],
)
def test_a_key_file_that_cannot_be_used(rig: Rig, make: Callable[[Path], None], message: str) -> None:
    """The file is named before anybody is connected with."""
    path = rig.folder / "user"
    make(path)
    with pytest.raises(InputError) as raised:
        rig.ssh(private_key_file="user").run("true", seconds=10)
    assert raised.value.message == f"machine 'nva1': access.ssh: {message.format(path=path)}"
    assert raised.value.fix


class PasswordServer(paramiko.ServerInterface):
    """Lets root in with the password, and runs nothing."""

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        return AUTH_SUCCESSFUL if (username, password) == ("root", PASSWORD) else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del kind, chanid
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def answer() -> None:
            while channel.recv(1):
                pass  # until there is no more input, which also means that our consent has arrived
            channel.sendall(command)
            channel.send_exit_status(0)
            channel.close()

        threading.Thread(target=answer, daemon=True).start()
        return True


def password_server(rig: Rig, port: int) -> None:
    """A server that asks for a password. OpenSSH's would ask for one of this computer's accounts."""
    key = paramiko.ECDSAKey.generate()

    def talk(connection: socket.socket) -> None:
        session = paramiko.Transport(connection)
        session.add_server_key(key)
        session.start_server(server=PasswordServer())
        session.join()

    rig.serve(port, talk)


def test_a_password_of_the_environment(rig: Rig) -> None:
    """It lets in, from a port of the document, and what comes back is clean of it where it is shown."""
    password_server(rig, 2222)
    secrets = Secrets({"NVA_PASSWORD": PASSWORD})
    with rig.ssh(secrets, password_env="NVA_PASSWORD", port=2222) as ssh:  # noqa: S106 - a name
        assert ssh.run("show", seconds=10) == Answer(0, "show")
    assert secrets.redact(f"the password is {PASSWORD}") == "the password is ***"


def test_a_wrong_password(rig: Rig) -> None:
    """The error names the variable, and not what is in it."""
    password_server(rig, 2222)
    secrets = Secrets({"NVA_PASSWORD": "wrong-guess"})
    with pytest.raises(LabError) as raised:
        rig.ssh(secrets, password_env="NVA_PASSWORD", port=2222).run("true", seconds=10)  # noqa: S106 - a name
    assert "user 'root', with the password of NVA_PASSWORD: not let in; the server offers password" in str(raised.value)
    assert "wrong-guess" not in str(raised.value)


@pytest.mark.parametrize(("environment", "word"), [({}, "not set"), ({"NVA_PASSWORD": ""}, "empty")])
def test_a_password_that_is_not_there(rig: Rig, environment: dict[str, str], word: str) -> None:
    """The variable is named, with the machine that needs it."""
    with pytest.raises(InputError, match=rf"machine 'nva1': access.ssh: .* NVA_PASSWORD is {word}"):
        rig.ssh(Secrets(environment), password_env="NVA_PASSWORD").run("true", seconds=10)  # noqa: S106 - a name


def test_a_server_that_takes_no_passwords(rig: Rig) -> None:
    """What it takes is told."""
    rig.sshd()
    secrets = Secrets({"NVA_PASSWORD": PASSWORD})
    with pytest.raises(LabError, match="the password of NVA_PASSWORD: not let in; the server offers publickey"):
        rig.ssh(secrets, password_env="NVA_PASSWORD").run("true", seconds=10)  # noqa: S106 - a name


# Who answers


def fingerprint(path: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def test_a_host_key_that_has_changed(rig: Rig) -> None:
    """The first key is kept; another one is an error with both fingerprints, until the machine is forgotten."""
    rig.sshd()
    with rig.ssh() as ssh:
        ssh.run("true", seconds=10)
    rig.stop()
    rig.sshd("second_ed25519")
    with pytest.raises(LabError) as raised:
        rig.ssh().run("true", seconds=10)
    assert f"seen:     ssh-ed25519 {fingerprint(rig.folder / 'second_ed25519')}" in raised.value.message
    assert f"expected: ssh-ed25519 {fingerprint(rig.folder / 'host_ed25519')}" in raised.value.message
    assert f"line 1 of {rig.state / 'known_hosts'}" in raised.value.message
    forget(rig.state, "nva1")
    with rig.ssh() as ssh:
        assert ssh.run("true", seconds=10).status == 0


def test_a_host_key_that_is_not_in_the_file(rig: Rig) -> None:
    """The error has the key's type and fingerprint, and the line that would let it pass."""
    rig.sshd()
    (rig.folder / "hosts").write_text("")
    with pytest.raises(LabError) as raised:
        rig.ssh(host_key="known-hosts hosts").run("true", seconds=10)
    assert f"ssh-ed25519 {fingerprint(rig.folder / 'host_ed25519')}" in raised.value.message
    line = raised.value.fix.removeprefix("if it is the machine's, add this line: ")
    (rig.folder / "hosts").write_text(line)
    with rig.ssh(host_key="known-hosts hosts") as ssh:
        assert ssh.run("true", seconds=10).status == 0


def test_a_server_is_asked_for_the_key_that_is_known(rig: Rig) -> None:
    """A server with several host keys shows the one of the file, whatever would be chosen otherwise."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(rig.folder / "host_rsa")], check=True
    )
    rig.sshd(more=f"HostKey {rig.folder}/host_rsa")
    (rig.folder / "hosts").write_text(f"{ADDRESS} {(rig.folder / 'host_rsa.pub').read_text()}")
    with rig.ssh(host_key="known-hosts hosts") as ssh:
        assert ssh.run("true", seconds=10).status == 0


def test_openssh_understands_what_the_lab_keeps(rig: Rig) -> None:
    """The lab's key and its known hosts serve the ``ssh`` command as well."""
    rig.sshd()
    with rig.ssh() as ssh:
        ssh.run("true", seconds=10)
    with namespaces.entered(rig.fabric), Netlink() as netlink:
        netlink.route("add", RouteEntry(254, f"{ADDRESS}/32", "unicast", None, "c1"))
    options = ["-F", "none", "-i", str(lab_key(rig.state).private), "-b", PROBE_SOURCE, "-o", "HostKeyAlias=nva1"]
    options += ["-o", f"UserKnownHostsFile={rig.state / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"]
    assert inside(rig.fabric, "ssh", "-q", *options, f"root@{ADDRESS}", "echo", "in") == "in\n"


# Not a server of SSH


def greet(*data: bytes) -> Callable[[socket.socket], None]:
    """Say something, and wait for the other side to hang up."""

    def talk(connection: socket.socket) -> None:
        for each in data:
            connection.sendall(each)
        while connection.recv(4096):
            pass

    return talk


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


# Steps, readiness, diagnostics


def test_steps_and_diagnostics(rig: Rig) -> None:
    """A file and commands, with a secret that nobody sees, and what the machine says of itself."""
    rig.sshd()
    (rig.folder / "policy.j2").write_text("# for {{ machine.name }}\ntoken {{ env('TOKEN') }}\n")
    steps = [
        {"template": "policy.j2", "path": f"{rig.folder}/policy", "mode": "0600"},
        {"commands": [f"test $(stat -c %a {rig.folder}/policy) = 600", "echo {{ env('TOKEN') }}; exit 9"]},
    ]
    document = machine(configure=steps, diagnostics=[f"cat {rig.folder}/policy", "exit 4"])
    secrets = Secrets({"TOKEN": PASSWORD})
    said: list[str] = []
    with rig.ssh(secrets) as ssh:
        with pytest.raises(LabError) as raised:
            run_steps(
                document,
                {"machine": {"name": "nva1"}},
                ssh,
                secrets=secrets,
                folder=rig.folder,
                say=said.append,
                seconds=30,
            )
        text = collect(document, ssh, secrets, 10)
    assert (rig.folder / "policy").read_text() == f"# for nva1\ntoken {PASSWORD}\n"
    assert "step 2, command 'echo ***; exit 9': ended with exit status 9\n    ***" in raised.value.message
    assert text == (f"$ cat {rig.folder}/policy\n# for nva1\ntoken ***\n[exit status 0]\n\n$ exit 4\n[exit status 4]\n")
    assert PASSWORD not in f"{said}{raised.value}{text}"


def machine(**keys: Any) -> Machine:
    return Machine.model_validate({"name": "nva1", "network_interfaces": [NIC], **keys})


def test_diagnostics_of_a_machine_that_is_gone(rig: Rig) -> None:
    """They say why there are none."""
    text = collect(machine(diagnostics=["true"]), rig.ssh(), Secrets(), 10)
    assert text == f"$ true\n[not done: machine 'nva1' ({ADDRESS}) port 22: connection refused]\n"


def http(status: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        if b"GET /health?x=1 HTTP/1.1\r\n" in connection.recv(4096):
            connection.sendall(b"HTTP/1.1 " + status + b" whatever\r\n\r\n")

    return talk


def trickle(connection: socket.socket) -> None:
    connection.recv(4096)
    hung_up = select.poll()
    hung_up.register(connection, select.POLLIN)
    for _ in range(100):
        connection.sendall(b"H")
        if hung_up.poll(100):
            return


@pytest.mark.parametrize(
    ("talk", "seen"),
    [
        (http(b"200"), ""),
        (http(b"503"), "503"),
        (http(b"204"), "204"),
        (lambda connection: connection.sendall(b"hello\n"), "the answer is not HTTP"),
        (lambda connection: connection.recv(4096), "closed without an answer"),
        (trickle, "no answer within 2 s"),
        (greet(), "no answer within 2 s"),
    ],
    ids=["200", "503", "204", "not-http", "closes", "trickles", "silent"],
)
def test_ready_by_http(rig: Rig, talk: Callable[[socket.socket], None], seen: str) -> None:
    """Only 200 will do; everything else is told, within its time."""
    rig.serve(8080, talk)
    url = f"http://{ADDRESS}:8080/health?x=1"
    expected = [f"http {url}: {seen}"] if seen else []
    assert pending(conditions(Ready(http=url), sources(rig))) == expected


def test_ready_by_https(rig: Rig) -> None:
    """Any certificate will do, but it must be TLS."""
    context: ssl.SSLContext = server_context("nva1")

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    rig.serve(8443, talk)
    rig.serve(8080, http(b"200"))
    assert pending(conditions(Ready(http="https://:8443/"), sources(rig))) == []
    (text,) = pending(conditions(Ready(http="https://:8080/"), sources(rig)))
    assert text.startswith("http https://:8080/: TLS: ")


def test_ready_by_everything(rig: Rig) -> None:
    """A list of what is missing, which gets shorter as the machine comes up."""
    wanted = Ready(tcp=22, http="http://:8080/health?x=1", ssh=f"test -e {rig.folder}/done", log="ready")
    log: list[str] = ["booting"]
    all_of = conditions(wanted, sources(rig, ssh=rig.ssh, log=lambda: "\n".join(log)))
    command = f"ssh 'test -e {rig.folder}/done'"
    assert pending(all_of) == [
        "tcp 22: connection refused",
        "http http://:8080/health?x=1: connection refused",
        f"{command}: machine 'nva1' ({ADDRESS}) port 22: connection refused",
        "log /ready/: not seen (1 lines)",
    ]
    rig.sshd()
    rig.serve(8080, http(b"200"))
    assert pending(all_of) == [f"{command}: exit 1", "log /ready/: not seen (1 lines)"]
    (rig.folder / "done").touch()
    log.append("now ready")
    assert pending(all_of) == []


# A machine that is a namespace


def test_commands_in_a_namespace(rig: Rig) -> None:
    """Output, status and input as by SSH; what runs too long is ended with all it has started."""
    with NamespaceTransport(rig.machine) as transport:
        assert transport.run("cat; echo err >&2; exit 3", seconds=10, stdin=b"in") == Answer(3, "in", "err\n")
        assert f"inet {ADDRESS}/24" in transport.run("ip -4 address show eth0", seconds=10).out
        assert transport.run("kill -TERM $$", seconds=10).status == 143
        with pytest.raises(DeadlineError):
            transport.run("sleep 60 & sleep 60", seconds=0.3)
        assert processes.inside([namespaces.inode(rig.machine)]) == ()
        with pytest.raises(InputError, match="files are this computer's own"):
            transport.put(b"x", "/tmp/never", 0o644)


def test_a_command_is_not_in_the_process_list(rig: Rig) -> None:
    """It may hold a secret, and everybody can read the words of a process."""
    with NamespaceTransport(rig.machine) as transport:
        seen = transport.run(f": '{PASSWORD}'; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", seconds=30).out
    assert "pytest" in seen
    assert PASSWORD not in seen


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
