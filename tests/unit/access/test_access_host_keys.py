"""Keys: the lab's own pair, and which host keys a machine may show."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import threading
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from testbed.access.host_keys import HostKey, KnownHosts
from testbed.access.keys import forget, lab_key
from testbed.access.reach import Reach
from testbed.errors import InputError, LabError
from testbed.topology.runtimes import SshAccess

if TYPE_CHECKING:
    from pathlib import Path

REACH = Reach("lab", "nva1", "lab-fabric", "nva1-eth0", "10.0.1.4")
RED = HostKey("ssh-ed25519", b"\x00\x00\x00\x0bssh-ed25519red")
BLUE = HostKey("ssh-ed25519", b"\x00\x00\x00\x0bssh-ed25519blue")
RSA = HostKey("ssh-rsa", b"\x00\x00\x00\x07ssh-rsa")


def known(folder: Path, *, host_key: str = "accept-new", port: int = 22, machine: str = "nva1") -> KnownHosts:
    access = SshAccess(username="root", port=port, host_key=host_key)
    reach = Reach("lab", machine, "lab-fabric", f"{machine}-eth0", "10.0.1.4")
    return KnownHosts.of(reach, access, folder, folder)


def test_the_first_key_is_remembered(tmp_path: Path) -> None:
    """It is written under the machine's name, in OpenSSH's format, and is right from then on."""
    known(tmp_path).check(RED)
    assert (tmp_path / "known_hosts").read_text() == f"nva1 ssh-ed25519 {b64encode(RED.blob).decode()}\n"
    known(tmp_path).check(RED)
    assert len((tmp_path / "known_hosts").read_text().splitlines()) == 1
    assert known(tmp_path).kinds() == ("ssh-ed25519",)


def test_another_key_later_is_an_error(tmp_path: Path) -> None:
    """The error shows both keys, where the old one is recorded, and what to do."""
    known(tmp_path, machine="nva2").check(BLUE)
    known(tmp_path).check(RED)
    with pytest.raises(LabError) as raised:
        known(tmp_path).check(BLUE)
    recorded = f"line 2 of {tmp_path / 'known_hosts'}"
    assert raised.value.message == (
        "machine 'nva1' (10.0.1.4) port 22 shows another host key than expected\n"
        f"  seen:     ssh-ed25519 {BLUE.fingerprint}\n"
        f"  expected: ssh-ed25519 {RED.fingerprint} ({recorded})"
    )
    assert f"remove {recorded}" in raised.value.fix


def test_a_key_of_another_type_later_is_an_error(tmp_path: Path) -> None:
    """A server cannot hide a change behind a key of another type."""
    known(tmp_path).check(RED)
    with pytest.raises(LabError, match="another host key"):
        known(tmp_path).check(RSA)


def test_a_forgotten_machine_may_show_a_new_key(tmp_path: Path) -> None:
    """Only that machine's line goes."""
    forget(tmp_path, "nva1")  # nothing to forget yet
    known(tmp_path).check(RED)
    known(tmp_path, machine="nva10").check(RED)
    forget(tmp_path, "nva1")
    known(tmp_path).check(BLUE)
    with pytest.raises(LabError, match="another host key"):
        known(tmp_path, machine="nva10").check(BLUE)


def test_many_at_once_remember_all(tmp_path: Path) -> None:
    """Machines that are met at the same time do not overwrite each other's lines."""
    names = [f"nva{number}" for number in range(16)]
    threads = [threading.Thread(target=known(tmp_path, machine=name).check, args=(RED,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "known_hosts").read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(names)


@pytest.mark.parametrize(
    ("names", "port", "right"),
    [
        ("nva1", 22, True),
        ("10.0.1.4", 22, True),
        ("other,10.0.1.4", 22, True),
        ("10.0.1.*", 22, True),
        ("10.0.1.?", 22, True),
        ("NVA1", 22, True),
        ("*,!nva1", 22, True),  # the pattern still means the address
        ("nva?,!nva1", 22, False),
        ("10.0.1.40", 22, False),
        ("10.0.1", 22, False),
        ("10x0.1.4", 22, False),
        ("[10.0.1.4]:2222", 2222, True),
        ("[10.0.1.4]:2222", 22, False),
        ("10.0.1.4", 2222, False),
        ("|1|", 22, False),
        ("|1|x|y", 22, False),
    ],
)
def test_which_lines_of_a_file_mean_the_machine(tmp_path: Path, names: str, port: int, right: bool) -> None:  # noqa: FBT001
    """Its name, or its address (with another port than 22 in brackets), with OpenSSH's patterns."""
    (tmp_path / "hosts").write_text(f"# mine\n\n{RED.line(names)} a comment\n")
    hosts = known(tmp_path, host_key="known-hosts hosts", port=port)
    if right:
        hosts.check(RED)
    else:
        with pytest.raises(LabError, match="is not in"):
            hosts.check(RED)


def test_hashed_names_are_understood(tmp_path: Path) -> None:
    """What ``ssh-keygen -H`` makes of a file is the same file."""
    file = tmp_path / "hosts"
    real = lab_key(tmp_path).public.split()
    file.write_text(f"10.0.1.4 {real[0]} {real[1]}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert file.read_text().startswith("|1|")
    hosts = known(tmp_path, host_key="known-hosts hosts")
    assert hosts.kinds() == ("ssh-ed25519",)
    with pytest.raises(LabError, match="another host key"):
        hosts.check(RED)


def test_an_unknown_key_says_which_it_is(tmp_path: Path) -> None:
    """With a file of known hosts nothing is learnt: the error names the key, and the line to add."""
    (tmp_path / "hosts").write_text("damaged\nnva1 ssh-ed25519 no-base64!\n")
    with pytest.raises(LabError) as raised:
        known(tmp_path, host_key="known-hosts hosts").check(RED)
    assert f"not in {tmp_path / 'hosts'}: ssh-ed25519 {RED.fingerprint}" in raised.value.message
    assert raised.value.fix.endswith(RED.line("nva1"))
    assert (tmp_path / "hosts").read_text().count("\n") == 2


def test_a_revoked_key_is_refused(tmp_path: Path) -> None:
    """Even when another line knows it; a line for a certificate authority says nothing of host keys."""
    lines = [RED.line("nva1"), f"@revoked {RED.line('*')}", f"@cert-authority {BLUE.line('nva1')}"]
    (tmp_path / "hosts").write_text("\n".join(lines))
    hosts = known(tmp_path, host_key="known-hosts hosts")
    with pytest.raises(LabError, match=f"revokes: ssh-ed25519 {re.escape(RED.fingerprint)}"):
        hosts.check(RED)
    with pytest.raises(LabError, match="another host key"):
        hosts.check(BLUE)


def test_a_missing_file_of_known_hosts(tmp_path: Path) -> None:
    """It is named, with the machine that wants it."""
    with pytest.raises(InputError, match=r"machine 'nva1' .* there is no file of known hosts .*/hosts"):
        known(tmp_path, host_key="known-hosts hosts")


def test_the_lab_key_is_one_of_openssh(tmp_path: Path) -> None:
    """OpenSSH reads the private key, its mode is 0600, and both halves fit."""
    made = lab_key(tmp_path / "lab")
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(made.private)], check=True, capture_output=True, text=True)
    assert made.public.split()[:2] == derived.stdout.split()[:2]
    assert made.public_file.read_text() == f"{made.public}\n"
    assert made.public.endswith(" testbed-lab")
    assert lab_key(tmp_path / "lab") == made
    assert {path.name for path in (tmp_path / "lab").iterdir()} == {"id_ed25519", "id_ed25519.pub"}


def test_a_fingerprint_is_that_of_openssh(tmp_path: Path) -> None:
    """``ssh-keygen -l`` shows the same."""
    made = lab_key(tmp_path)
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(made.public_file)], check=True, capture_output=True, text=True
    )
    (tmp_path / "hosts").write_text(f"nva1 {made.public}\n")
    with pytest.raises(LabError) as raised:
        known(tmp_path, host_key="known-hosts hosts").check(RED)
    assert shown.stdout.split()[1] in raised.value.message


def test_many_at_once_get_one_lab_key(tmp_path: Path) -> None:
    """However many processes ask first, there is one key."""
    program = (
        "import sys, pathlib; from testbed.access.keys import lab_key; print(lab_key(pathlib.Path(sys.argv[1])).public)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert answers == {lab_key(tmp_path).public}


def test_a_lost_public_half_is_made_anew(tmp_path: Path) -> None:
    """From the private one."""
    made = lab_key(tmp_path)
    made.public_file.unlink()
    assert lab_key(tmp_path) == made
    assert made.public_file.exists()


def test_a_damaged_lab_key(tmp_path: Path) -> None:
    """It is not replaced behind the back of the machines that let it in."""
    made = lab_key(tmp_path)
    made.private.write_text("nonsense")
    with pytest.raises(LabError, match="is not the key that the lab made"):
        lab_key(tmp_path)
