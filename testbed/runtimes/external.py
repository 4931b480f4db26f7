"""Machines outside: the lab wires them, and that is all it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.runtimes.base import State, no_way_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.access.transport import Transport
    from testbed.kernel.processes import Process
    from testbed.plan.objects import Instance
    from testbed.runtimes.base import Place

__all__ = ["ExternalRuntime"]


class ExternalRuntime:
    """Nothing of it runs here: there are no instances, and no faults but those on the wire."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def prepare(self, instances: Sequence[Instance]) -> None:
        """There is nothing to prepare; :mod:`testbed.lab.host_links` looks at the network interfaces."""

    def start(self, instances: Sequence[Instance]) -> dict[str, Process]:
        """There is nothing to start."""
        del instances
        return {}

    def stop(self, machine: str, process: Process | None) -> None:
        """There is nothing to stop."""

    def states(self, machines: Sequence[str], processes: dict[str, Process]) -> dict[str, State]:
        """Nobody here knows."""
        del processes
        return {name: State("running", "outside") for name in machines}

    def log(self, machine: str) -> str:
        """Its own affair."""
        del machine
        return ""

    def health(self, machine: str) -> str:
        """There is no such thing."""
        del machine
        return ""

    def enter(self, machine: str) -> Transport:
        """By SSH only."""
        raise no_way_in(machine, "outside")

    def kill(self, machine: str, process: Process | None) -> None:
        """Not possible from here."""

    def freeze(self, machine: str, process: Process | None) -> None:
        """Not possible from here; the wire is."""

    def thaw(self, machine: str, process: Process | None) -> None:
        """Not possible from here; the wire is."""

    def reboot(self, machine: str, process: Process | None) -> None:
        """Not possible from here."""

    def carrier(self, machine: str, *, up: bool) -> None:
        """Not possible from here."""
