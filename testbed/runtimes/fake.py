"""A runtime without machines, for tests of what uses one: it remembers what it was asked, and fails when told to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testbed.access.transport import FakeTransport
from testbed.errors import LabError
from testbed.kernel import processes
from testbed.runtimes.base import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.access.transport import Transport
    from testbed.kernel.processes import Process
    from testbed.plan.objects import Instance

__all__ = ["FakeRuntime"]


@dataclass
class FakeRuntime:
    """Fits :class:`testbed.runtimes.base.Runtime`. The process it gives for a machine is the caller's own.

    ``failing`` are machines that do not start; ``done`` is what was asked, in order, as (what, machine).
    """

    failing: set[str] = field(default_factory=set)
    logs: dict[str, str] = field(default_factory=dict)
    done: list[tuple[str, str]] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    transports: dict[str, FakeTransport] = field(default_factory=dict)

    def prepare(self, instances: Sequence[Instance]) -> None:
        """Remember."""
        self.done += [("prepare", each.machine) for each in instances]

    def start(self, instances: Sequence[Instance]) -> dict[str, Process]:
        """All run, unless one is to fail: then none does."""
        self.done += [("start", each.machine) for each in instances]
        for each in instances:
            if each.machine in self.failing:
                raise LabError(f"{each.machine!r} does not start, as it was told")
        self.running |= {each.machine for each in instances}
        return {each.machine: processes.identify(os.getpid()) for each in instances}

    def stop(self, machine: str, process: Process | None) -> None:
        """Runs no more."""
        del process
        self._end("stop", machine)

    def states(self, machines: Sequence[str], processes: dict[str, Process]) -> dict[str, State]:
        """By what was started and ended."""
        del processes
        return {name: State("running" if name in self.running else "exited") for name in machines}

    def log(self, machine: str) -> str:
        """What the test has put there."""
        return self.logs.get(machine, "")

    def health(self, machine: str) -> str:
        """There is no such thing."""
        del machine
        return ""

    def enter(self, machine: str) -> Transport:
        """A fake as well."""
        return self.transports.setdefault(machine, FakeTransport())

    def kill(self, machine: str, process: Process | None) -> None:
        """Runs no more."""
        del process
        self._end("kill", machine)

    def _end(self, what: str, machine: str) -> None:
        self.done.append((what, machine))
        self.running.discard(machine)

    def freeze(self, machine: str, process: Process | None) -> None:
        """Remember."""
        del process
        self.done.append(("freeze", machine))

    def thaw(self, machine: str, process: Process | None) -> None:
        """Remember."""
        del process
        self.done.append(("thaw", machine))

    def reboot(self, machine: str, process: Process | None) -> None:
        """Remember."""
        del process
        self.done.append(("reboot", machine))

    def carrier(self, machine: str, *, up: bool) -> None:
        """Remember."""
        self.done.append(("cable in" if up else "cable out", machine))
