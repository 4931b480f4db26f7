"""The protocol of runtimes: what life cycle, faults and status of a lab ask of whatever a machine is made of.

A runtime serves one lab. Wiring is not its business: network interfaces, addresses and routes are kernel objects of
the plan. A container is the exception that it brings its network namespace, so it names it when it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from testbed.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.access.transport import Transport
    from testbed.kernel.processes import Process
    from testbed.plan.objects import Instance

__all__ = ["DISKS", "Place", "Runtime", "State", "no_way_in", "tail"]

#: Of virtual machines. They may grow to gigabytes, so they are not with the other state, which is in memory.
DISKS = Path("/var/tmp/testbed")


@dataclass(frozen=True, slots=True)
class Place:
    """The lab a runtime works for, and the lab's state directory."""

    lab: str
    directory: Path

    def namespace(self, machine: str) -> str:
        """The network namespace of a machine."""
        return f"{self.lab}-{machine}"

    def log(self, machine: str) -> Path:
        """What a machine's process writes."""
        return self.directory / f"{machine}.log"


@dataclass(frozen=True, slots=True)
class State:
    """How a machine is: ``running``, ``paused``, ``exited``, ``gone`` or ``unknown``; and why, if there is more."""

    word: str
    detail: str = ""

    @property
    def well(self) -> bool:
        """Whether it runs."""
        return self.word == "running"

    def __str__(self) -> str:
        return f"{self.word} ({self.detail})" if self.detail else self.word


class Runtime(Protocol):
    """One kind of machine. Machines are named; ``process`` is what :meth:`start` gave for one, None when it is gone."""

    def prepare(self, instances: Sequence[Instance]) -> None:
        """Make sure of all that can fail before the lab is touched: images, files, what the computer can do.

        Raises:
            InputError: The document names something that is not there.
            MachineError: This computer lacks something.
        """

    def start(self, instances: Sequence[Instance]) -> dict[str, Process]:
        """Start all of them, together; one that ran before starts again with what it had on its disk.

        Raises:
            LabError: One does not start; the message holds what it said.
        """

    def stop(self, machine: str, process: Process | None) -> None:
        """End it and remove what it had."""

    def states(self, machines: Sequence[str], processes: dict[str, Process]) -> dict[str, State]:
        """How the machines are now."""

    def log(self, machine: str) -> str:
        """What it has said so far, to its log or serial console."""

    def health(self, machine: str) -> str:
        """The word of a container engine's health check; empty when there is no such thing."""

    def enter(self, machine: str) -> Transport:
        """A way to run commands in it without a network.

        Raises:
            InputError: There is none; SSH is.
        """

    def kill(self, machine: str, process: Process | None) -> None:
        """Take its power away."""

    def freeze(self, machine: str, process: Process | None) -> None:
        """Stop its processors."""

    def thaw(self, machine: str, process: Process | None) -> None:
        """Let them go on."""

    def reboot(self, machine: str, process: Process | None) -> None:
        """Restart it, as its reset button does. Whoever started it is told of a new process by :meth:`start` only."""

    def carrier(self, machine: str, *, up: bool) -> None:
        """Tell a guest with a kernel of its own that its cables are in or out; others see it themselves."""


def tail(text: str, lines: int = 20) -> str:
    """The last lines of a log, indented, for a message."""
    last = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(f"    {line}" for line in last)


def no_way_in(machine: str, what: str) -> InputError:
    """For runtimes that cannot be entered."""
    return InputError(f"{machine!r} is {what}: it can be entered by SSH only", fix="add 'access: {ssh: {username: …}}'")
