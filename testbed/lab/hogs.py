"""The fault ``cpu-hog``: busy loops in a machine, one for each processor and one more. They end after ten minutes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.lab.entrance import entrance
from testbed.lab.state import State

if TYPE_CHECKING:
    from testbed.plan.model import Machine, Plan

__all__ = ["reachable", "start", "stop"]

_SECONDS = 600
_PATIENCE = 20.0
#: Prints the numbers of the loops' processes; `timeout` makes them end whatever becomes of the lab.
_START = f"""\
count=$(nproc 2>/dev/null || echo 1)
while [ "$count" -ge 0 ]; do
    count=$((count - 1))
    timeout {_SECONDS} sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &
    echo $!
done
"""


def reachable(machine: Machine) -> bool:
    """Whether commands can be run in a machine that has a kernel of its own."""
    return bool(machine.document and machine.document.access and machine.document.access.ssh)


def start(plan: Plan, machine: Machine) -> None:
    """Start the loops.

    Raises:
        LabError: The machine lets nobody in, or has no shell.
    """
    with entrance(plan, machine) as transport:
        answer = transport.run(_START, seconds=_PATIENCE)
    if answer.status or not answer.out.split():
        raise LabError(
            f"cpu-hog on {machine.name!r}: {answer.err.strip() or 'no shell'}", fix="it takes sh and timeout"
        )
    State(plan.lab).write(f"{machine.name}.hogs", " ".join(answer.out.split()))


def stop(plan: Plan, machine: Machine) -> None:
    """End the loops; those of a machine that has ended since are gone with it."""
    file = State(plan.lab) / f"{machine.name}.hogs"
    with suppress(FileNotFoundError, LabError):
        numbers = file.read_text()
        file.unlink()
        with entrance(plan, machine) as transport:
            transport.run(f"kill {numbers}", seconds=_PATIENCE)
