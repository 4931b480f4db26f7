"""Running commands in a machine and putting files there, whatever the machine is made of.

One protocol; SSH is in :mod:`testbed.access.ssh`. The fake is for tests, of users too: it runs nothing and
remembers everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from testbed.errors import DeadlineError, InputError
from testbed.kernel import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Answer", "FakeTransport", "NamespaceTransport", "Transport"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A command that has ended: exit status as shells tell it (128 + signal), and what it said."""

    status: int
    out: str = ""
    err: str = ""


class Transport(Protocol):
    """A way into one machine. Not to be used by two threads at once."""

    def run(self, command: str, *, seconds: float, stdin: bytes | None = None) -> Answer:
        """Run a line of shell in the machine, and wait for its end.

        Output that is not UTF-8 comes with marks in it.

        Raises:
            DeadlineError: It did not end in time.
            LabError: The machine was not reached, or the way to it broke.
            InputError: The document or the environment lacks what it takes to get in.
        """

    def put(self, data: bytes, path: str, mode: int) -> None:
        """Make or replace a file in the machine, whole or not at all.

        Raises:
            LabError: The machine was not reached, or refuses.
            InputError: This kind of machine takes no files, or the environment lacks what it takes to get in.
        """

    def close(self) -> None:
        """Let go of the machine; doing it twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NamespaceTransport(Transport):
    """A machine that is a network namespace of this computer."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def run(self, command: str, *, seconds: float, stdin: bytes | None = None) -> Answer:
        """As :meth:`Transport.run`. The line is handed over in memory: it may hold a secret, and ``ps`` shows words."""
        script = os.memfd_create("command", os.MFD_CLOEXEC)
        try:
            os.write(script, command.encode())
            shell = ["sh", f"/dev/fd/{script}"]
            with namespaces.entered(self._namespace):
                child = subprocess.Popen(
                    shell,
                    stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(script,),
                    start_new_session=True,  # what it starts in turn is ended with it
                )
        finally:
            os.close(script)
        try:
            out, err = child.communicate(stdin, seconds)
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"a command in {self._namespace} did not end within {seconds:g} s") from error
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
        status = child.returncode if child.returncode >= 0 else 128 - child.returncode
        return Answer(status, out.decode(errors="replace"), err.decode(errors="replace"))

    def put(self, data: bytes, path: str, mode: int) -> None:
        """Refused: what would be written is this computer's own.

        Raises:
            InputError: Always.
        """
        del data, mode
        raise InputError(
            f"{path}: {self._namespace} is a network namespace, and its files are this computer's own",
            fix="leave the file out, or make the machine a container",
        )

    def close(self) -> None:
        """There is nothing to let go of."""


@dataclass
class FakeTransport(Transport):
    """Runs nothing. Commands and files are remembered; ``answer`` says what a command ends with."""

    answer: Callable[[str], Answer] = lambda _command: Answer(0)
    commands: list[str] = field(default_factory=list)
    inputs: list[bytes | None] = field(default_factory=list)
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    closed: bool = False

    def run(self, command: str, *, seconds: float, stdin: bytes | None = None) -> Answer:
        """Remember it; ``answer`` may raise instead of answering."""
        del seconds
        self.commands.append(command)
        self.inputs.append(stdin)
        return self.answer(command)

    def put(self, data: bytes, path: str, mode: int) -> None:
        """Remember it."""
        self.files[path] = (data, mode)

    def close(self) -> None:
        """Remember it."""
        self.closed = True
