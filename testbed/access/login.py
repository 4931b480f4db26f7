"""From a machine's address to a session on its SSH server: host key, then whoever logs in, each failure in words.

Nothing of the person's own is used: no agent, no ``~/.ssh``.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.access.host_keys import HostKey, KnownHosts
from testbed.access.keys import lab_key
from testbed.access.reach import connect
from testbed.errors import DeadlineError, InputError, LabError

if TYPE_CHECKING:
    from pathlib import Path

    import paramiko

    from testbed.access.reach import Reach
    from testbed.access.secrets import Secrets
    from testbed.topology.runtimes import SshAccess

__all__ = ["Door", "log_in"]

#: A machine that is gone, not only slow: after so many seconds the kernel gives the connection up.
_GONE_SECONDS = 30
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True, slots=True)
class Door:
    """Where a machine's SSH server is, and what opens it.

    ``folder`` is where the document is; the lab's key and known hosts are in ``state_directory``.
    """

    reach: Reach
    access: SshAccess
    folder: Path
    state_directory: Path
    secrets: Secrets

    @property
    def where(self) -> str:
        """Machine, address and port, in words."""
        return self.reach.port(self.access.port)


@dataclass(frozen=True, slots=True)
class _Proof:
    """What shows who we are, in words, and what to do when the server does not believe it."""

    words: str
    fix: str
    password: str | None = None
    key: paramiko.PKey | None = None


def log_in(door: Door, seconds: float) -> paramiko.Transport:
    """A session on the machine's server, in which the user is logged in.

    Raises:
        InputError: The password or the key is not there, or cannot be used.
        DeadlineError: The server takes too long.
        LabError: Not reached, not SSH, a wrong host key, or not let in.
    """
    import paramiko

    # Its complaints reach the user as our errors; on standard error they would be a second time.
    logger = logging.getLogger("paramiko")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False

    deadline = time.monotonic() + seconds
    proof = _proof(door)
    known = KnownHosts.of(door.reach, door.access, door.folder, door.state_directory)
    connection = connect(door.reach, door.access.port, seconds)
    try:
        _notice_when_gone(connection)
        session = paramiko.Transport(connection)
    except BaseException:
        connection.close()
        raise
    try:
        _prefer(session, known.kinds())
        _shake_hands(session, door.where, deadline, seconds)
        shown = session.get_remote_server_key()
        known.check(HostKey(shown.get_name(), shown.asbytes()))
        _authenticate(session, door, proof, max(0.1, deadline - time.monotonic()))
    except BaseException:
        session.close()
        connection.close()  # a session that was never started does not
        raise
    return session


def _notice_when_gone(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_SECONDS * 1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _GONE_SECONDS // 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)


def _prefer(session: paramiko.Transport, kinds: tuple[str, ...]) -> None:
    """Ask for a host key of a known type first; an RSA key signs in two ways that have names of their own."""
    options = session.get_security_options()
    wanted = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,)) if name in options.key_types]
    options.key_types = (*wanted, *(name for name in options.key_types if name not in wanted))


def _shake_hands(session: paramiko.Transport, where: str, deadline: float, seconds: float) -> None:
    """Agree on keys.

    Raises:
        DeadlineError: Nothing came of it in time.
        LabError: It failed.
    """
    import paramiko

    session.banner_timeout = seconds
    ended = threading.Event()
    session.start_client(event=ended)
    if not ended.wait(max(0.0, deadline - time.monotonic())):
        told = "no key exchange" if session.remote_version else "the port is open, but no SSH server answers"
        fix = "look at the server in the machine: is it overloaded, or is it not an SSH server?"
        raise DeadlineError(f"{where}: {told} within {seconds:g} s", fix=fix)
    if session.is_active():
        return
    error = session.get_exception()
    if not session.remote_version or session.remote_version == session.local_version:  # nothing, or an echo of ours
        raise LabError(
            f"{where}: the port answers, but not SSH",
            fix="correct the port in access.ssh, or start an SSH server there",
        ) from error
    if isinstance(error, paramiko.SSHException) and str(error):
        fix = "see the log of the server in the machine"
        raise LabError(f"{where}: {session.remote_version}: no agreement: {error}", fix=fix) from error
    fix = "see the log of the server in the machine; it may have had too many connections"
    raise LabError(f"{where}: the server hung up before anybody logged in", fix=fix) from error


def _proof(door: Door) -> _Proof:
    access, asked_by = door.access, f"machine {door.reach.machine!r}: access.ssh"
    if access.password_env is not None:
        password = door.secrets.env(access.password_env, asked_by)
        if not password:
            fix = f"set it: export {access.password_env}=..."
            raise InputError(f"{asked_by}: the environment variable {access.password_env} is empty", fix=fix)
        words = f"the password of {access.password_env}"
        return _Proof(words, f"correct username, or the value of {access.password_env}", password=password)
    if access.private_key_file is not None:
        path = door.folder / access.private_key_file
        door.secrets.file(path, asked_by)
        fix = f"put the public key of {path} into the user's authorized_keys in the machine"
        return _Proof(f"the key of {path}", fix, key=_private_key(path, asked_by))
    own = lab_key(door.state_directory)
    fix = f"put the lab's public key into the user's authorized_keys in the machine: {own.public}"
    return _Proof(f"the lab's key {own.private}", fix, key=_private_key(own.private, asked_by))


def _private_key(path: Path, asked_by: str) -> paramiko.PKey:
    import paramiko
    from cryptography.exceptions import UnsupportedAlgorithm
    from paramiko.pkey import UnknownKeyType

    try:
        return paramiko.PKey.from_path(path)
    except (TypeError, paramiko.PasswordRequiredException) as error:
        fix = f"make a copy without a passphrase and name that: ssh-keygen -p -N '' -f COPY-OF-{path.name}"
        raise InputError(f"{asked_by}: {path} is encrypted", fix=fix) from error
    except (ValueError, UnsupportedAlgorithm, paramiko.SSHException, UnknownKeyType) as error:
        fix = "name the private half of an RSA, ECDSA or Ed25519 pair, in OpenSSH's or PEM format"
        raise InputError(f"{asked_by}: {path} is not a private key that can be used", fix=fix) from error


def _authenticate(session: paramiko.Transport, door: Door, proof: _Proof, seconds: float) -> None:
    import paramiko

    session.auth_timeout = seconds
    username = door.access.username
    who = f"{door.where}: user {username!r}, with {proof.words}"
    try:
        if proof.key is not None:
            more = session.auth_publickey(username, proof.key)
        else:
            more = session.auth_password(username, proof.password or "")
    except paramiko.BadAuthenticationType as error:
        raise LabError(f"{who}: not let in; the server offers {_offer(error)}", fix=proof.fix) from error
    except paramiko.AuthenticationException as error:
        if "timeout" in str(error):
            fix = "see the log of the server in the machine"
            raise DeadlineError(f"{who}: no answer within {seconds:g} s", fix=fix) from error
        raise LabError(f"{who}: not let in; {_offered(session, username)}", fix=proof.fix) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        fix = "see the log of the server in the machine"
        what = f"not let in: {error}" if session.is_active() else "the server hung up"
        raise LabError(f"{who}: {what}", fix=fix) from error
    if more:
        fix = "let the server be content with one proof"
        raise LabError(f"{who}: that is not enough; the server also wants {' or '.join(more)}", fix=fix)


def _offer(error: paramiko.BadAuthenticationType) -> str:
    return ", ".join(error.allowed_types) or "nothing"


def _offered(session: paramiko.Transport, username: str) -> str:
    """What the server offers to this user; asked for by a try without any proof."""
    import paramiko

    try:
        session.auth_none(username)
    except paramiko.BadAuthenticationType as error:
        return f"the server offers {_offer(error)}"
    except (paramiko.SSHException, EOFError, OSError):
        return "the server hung up"
    return "the server would let this user in without any"
