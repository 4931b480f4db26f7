"""SSH as a way into a machine: commands, files, and a terminal.

A connection is made when it is first needed, and again when it was lost: a machine may restart in between.
"""

from __future__ import annotations

import os
import secrets as randomness
import stat
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

from testbed.access.channel import ChannelEnd
from testbed.access.login import Door, log_in
from testbed.access.reach import Reach
from testbed.access.terminal import arrivals, pump
from testbed.access.transport import Answer, Transport
from testbed.errors import DeadlineError, InputError, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import paramiko

    from testbed.access.secrets import Secrets
    from testbed.plan.model import Plan

__all__ = ["SshTransport", "ssh_of"]

#: For connecting and for whatever else is no command of the user's, in seconds.
_PATIENCE = 30.0
#: Slower than this a file is not going anywhere, in bytes per second.
_SLOWEST = 1 << 18
#: What ``ssh`` says when there is no exit status, because a signal ended the command.
_NO_STATUS = 255
_CHUNK = 1 << 15


def ssh_of(plan: Plan, machine: str, state_directory: Path, secrets: Secrets) -> SshTransport:
    """The way into a machine of a plan by SSH; nothing is connected yet.

    Raises:
        UnknownLabError: There is no such machine.
        InputError: The document gives it no ``access.ssh``.
    """
    document = plan.machine(machine).document
    access = document.access.ssh if document is not None and document.access is not None else None
    if access is None:
        raise InputError(
            f"machine {machine!r} has no access.ssh in the document",
            fix=f"add it, or go in without SSH: testbed exec {plan.lab} {machine} -- CMD ...",
        )
    return SshTransport(Door(Reach.of(plan, machine), access, Path(plan.folder), state_directory, secrets))


class SshTransport(Transport):
    """A machine by SSH.

    Args:
        door: Where its server is, and what opens it.
        patience: For connecting, in seconds; a command's own time bounds it too.
    """

    def __init__(self, door: Door, *, patience: float = _PATIENCE) -> None:
        self._door = door
        self._patience = patience
        self._session: paramiko.Transport | None = None

    def _connected(self, seconds: float) -> paramiko.Transport:
        if self._session is None or not self._session.is_active():
            self.close()
            self._session = log_in(self._door, seconds)
        return self._session

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def run(self, command: str, *, seconds: float, stdin: bytes | None = None) -> Answer:
        """As :meth:`Transport.run`; status 255 when a signal ended the command.

        A command that takes too long loses its connection; a server does not end it for that.
        """
        started = time.monotonic()
        session = self._connected(min(seconds, self._patience))
        said = {1: bytearray(), 2: bytearray()}
        left = max(0.1, seconds - (time.monotonic() - started))
        with (
            self._bounded(left, f"the command did not end within {seconds:g} s"),
            session.open_session(timeout=left) as channel,
            ChannelEnd(channel) as end,
        ):
            channel.exec_command(command)
            threading.Thread(target=_feed, args=(end, stdin or b""), daemon=True).start()
            for stream, data in arrivals(end):
                said[stream] += data
            status = self._status(session, channel)
        out, err = (bytes(said[stream]).decode(errors="replace") for stream in (1, 2))
        return Answer(status, out, err)

    def shell(self, command: str | None = None) -> int:
        """Connect this process's terminal, or pipes, with a login shell or a command; returns its exit status.

        A shell gets a terminal when standard input is one. Main thread only.

        Raises:
            LabError: The machine was not reached, or the way to it broke.
            InputError: The document or the environment lacks what it takes to get in.
        """
        session = self._connected(self._patience)
        terminal = command is None and os.isatty(0)
        with self._bounded(self._patience, f"no shell within {self._patience:g} s"):
            channel = session.open_session(timeout=self._patience)
            if terminal:
                columns, rows = os.get_terminal_size(0)
                channel.get_pty(os.environ.get("TERM", "vt100"), columns, rows)
            if command is None:
                channel.invoke_shell()
            else:
                channel.exec_command(command)
        with channel, ChannelEnd(channel) as end:
            pump(end, raw=terminal)
            return self._status(session, channel)

    def put(self, data: bytes, path: str, mode: int) -> None:
        """As :meth:`Transport.put`, by SFTP: written beside ``path`` under another name, then renamed."""
        import paramiko

        session = self._connected(self._patience)
        seconds = self._patience + len(data) / _SLOWEST
        with self._bounded(seconds, f"{path} was not written within {seconds:g} s"):
            try:
                client = paramiko.SFTPClient.from_transport(session)
            except (paramiko.SSHException, EOFError) as error:
                fix = "install openssh-sftp-server in the machine and let sshd_config name it"
                raise LabError(f"{self._door.where}: the server knows no SFTP", fix=fix) from error
            with cast("paramiko.SFTPClient", client) as sftp:
                try:
                    _replace(sftp, data, path, mode)
                except OSError as error:
                    if not session.is_active():
                        raise
                    raise self._refused(sftp, path, error) from error

    def _refused(self, sftp: paramiko.SFTPClient, path: str, error: OSError) -> LabError:
        machine, folder = f"machine {self._door.reach.machine!r}", str(PurePosixPath(path).parent)
        if _kind(sftp, path) == stat.S_IFDIR:
            return LabError(f"{machine}: {path} is a folder", fix=f"name the file in it, e.g. {path}/FILE")
        if _kind(sftp, folder) != stat.S_IFDIR:
            return LabError(f"{machine}: there is no folder {folder}", fix=f"make it first: mkdir -p {folder}")
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        fix = f"see whether user {self._door.access.username!r} may write to {folder}, and whether the disk is full"
        return LabError(f"{machine}: {path} cannot be written: {reason}", fix=fix)

    def _status(self, session: paramiko.Transport, channel: paramiko.Channel) -> int:
        status = channel.recv_exit_status()
        if status >= 0:
            return status
        if not session.is_active():
            raise self._lost()
        return _NO_STATUS

    def _lost(self) -> LabError:
        return LabError(f"{self._door.where}: the connection broke", fix="see whether the machine has gone down")

    @contextmanager
    def _bounded(self, seconds: float, words: str) -> Iterator[None]:
        """When the time is up, the connection is cut, which ends every wait on it.

        Raises:
            DeadlineError: That happened.
            LabError: The connection broke.
        """
        import paramiko

        session, over = self._session, threading.Event()

        def cut() -> None:
            over.set()
            if session is not None:
                session.close()

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (LabError, paramiko.SSHException, EOFError, OSError) as error:
            if over.is_set():
                reach = self._door.reach
                fix = f"see what keeps the machine: testbed ssh {reach.lab} {reach.machine}"
                raise DeadlineError(f"{self._door.where}: {words}", fix=fix) from error
            if isinstance(error, LabError):
                raise
            if session is not None and session.is_active():
                fix = "see the log of the server in the machine"
                raise LabError(f"{self._door.where}: the server refuses: {error}", fix=fix) from error
            raise self._lost() from error
        finally:
            timer.cancel()


def _feed(end: ChannelEnd, data: bytes) -> None:
    with suppress(OSError):  # the command reads no more
        end.send(data)
        end.send_end()


def _kind(sftp: paramiko.SFTPClient, path: str) -> int:
    """What kind of file is there; 0 for none."""
    try:
        return stat.S_IFMT(sftp.stat(path).st_mode or 0)
    except OSError:
        return 0


def _replace(sftp: paramiko.SFTPClient, data: bytes, path: str, mode: int) -> None:
    temporary = f"{path}.{randomness.token_hex(4)}.new"
    file = sftp.open(temporary, "wx")
    try:
        with file:
            file.chmod(0o600)  # before there is anything in it to read
            file.set_pipelined(True)
            for start in range(0, len(data), _CHUNK):
                file.write(data[start : start + _CHUNK])
        _confirm(sftp, temporary, len(data))
        sftp.chmod(temporary, mode)
        sftp.posix_rename(temporary, path)
    except BaseException:
        with suppress(OSError, EOFError):
            sftp.remove(temporary)
        raise


def _confirm(sftp: paramiko.SFTPClient, path: str, size: int) -> None:
    """A server that cannot write says so too late to be heard."""
    arrived = sftp.stat(path).st_size
    if arrived != size:
        raise OSError(f"only {arrived} of {size} bytes arrived")
