"""Start and stop the keeper of a lab's containers (:mod:`testbed.lab.keeper`)."""

from __future__ import annotations

import select
import subprocess
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.kernel import processes
from testbed.lab.state import Running

if TYPE_CHECKING:
    from testbed.lab.state import State
    from testbed.plan.model import Plan

__all__ = ["NAME", "start", "stop"]

#: Its name among the lab's processes; no machine may have it.
NAME = "keeper"
_PATIENCE = 30.0
_LOG_TAIL = 2_000


def start(plan: Plan, state: State, config: str) -> None:
    """Start the keeper and wait until it hears the engine.

    Raises:
        LabError: It ended at once; the message holds the end of its log.
    """
    log = state / "keeper.log"
    command, environment = processes.own_module("testbed.lab.keeper")
    with log.open("ab") as errors:
        child = subprocess.Popen(
            [*command, plan.lab],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/",
            start_new_session=True,
        )
    state.remember({NAME: Running(processes.identify(child.pid), NAME, config)})
    with child.stdout as output:  # type: ignore[union-attr] # it is a pipe
        ready, _, _ = select.select([output], [], [], _PATIENCE)
        if not ready or not output.readline():
            child.kill()
            child.wait()
            said = log.read_text(errors="replace")[-_LOG_TAIL:]
            raise LabError(f"the keeper of lab {plan.lab!r} does not start:\n{said}")
    child.returncode = 0  # it outlives this process on purpose


def stop(state: State) -> None:
    """End the keeper; containers stay as they are."""
    running = state.running()
    if (entry := running.pop(NAME, None)) is not None:
        processes.end([entry.process])
        state.write_running(running)
