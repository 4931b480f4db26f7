"""Processes of a lab that outlive the command which starts them: the probe controller and the keeper."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from testbed.deadline import wait_for
from testbed.errors import LabError
from testbed.kernel import processes
from testbed.lab.state import Running

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.kernel.processes import Process
    from testbed.lab.state import State

__all__ = ["start", "stop"]

_PATIENCE = 120.0  # on an emulated computer Python itself takes long to start; who has ended is found at once
_LOG_TAIL = 2_000


def start(state: State, name: str, module: str, *words: str, config: str, problem: Callable[[Process], str]) -> None:
    """Start a module of the testbed, remember it as ``name``, and wait until it works.

    Args:
        state: Of the lab; what the process says goes to ``NAME.log`` there.
        name: What it is remembered by; no machine may have it.
        module: Whose ``__main__`` it runs.
        words: Its arguments.
        config: Told apart from another one by this.
        problem: Why it does not work yet; empty when it does.

    Raises:
        LabError: It ended at once; the message holds the end of its log.
        DeadlineError: It does not begin to work.
    """
    log = state / f"{name}.log"
    with log.open("ab") as output:
        child = processes.start_module(module, *words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    process = processes.identify(child.pid)
    state.remember({name: Running(process, name, config)})

    def look() -> str:
        if child.poll() is not None:
            said = log.read_text(errors="replace")[-_LOG_TAIL:]
            raise LabError(f"the {name} of lab {state.lab!r} ended at once:\n{said}")
        return problem(process)

    wait_for(f"the {name} of lab {state.lab!r} works", look, lambda found: not found, seconds=_PATIENCE, describe=str)
    child.returncode = 0  # it outlives this process on purpose


def stop(state: State, name: str) -> None:
    """End it; what it looks after stays as it is."""
    running = state.running()
    if (entry := running.pop(name, None)) is not None:
        processes.end([entry.process])
        state.write_running(running)
