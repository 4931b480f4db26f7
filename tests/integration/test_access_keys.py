"""Who is let in over SSH, with which key or password, and who may answer."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from access_rig import ADDRESS, PASSWORD, Rig, cabled, password_server
from conftest import inside

from testbed.access.keys import forget, lab_key
from testbed.access.secrets import Secrets
from testbed.access.transport import Answer
from testbed.errors import InputError, LabError
from testbed.kernel import namespaces
from testbed.kernel.netlink import Netlink, RouteEntry
from testbed.plan.ruleset.context import PROBE_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with cabled(tmp_path) as made:
        yield made


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
