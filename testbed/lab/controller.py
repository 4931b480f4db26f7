"""Start, stop and ask the probe controller of a lab (:mod:`testbed.probes.controller`)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from testbed.deadline import wait_for
from testbed.errors import LabError
from testbed.kernel import processes
from testbed.lab.state import Running
from testbed.probes import control
from testbed.probes.config import ControllerConfig

if TYPE_CHECKING:
    from testbed.lab.state import State
    from testbed.plan.model import Plan

__all__ = ["NAME", "ask", "start", "stop"]

#: Its name among the lab's processes; no machine may have it.
NAME = "controller"
_START_PATIENCE = 15.0
_LOG_TAIL = 2_000


def start(plan: Plan, state: State, digest: str) -> None:
    """Start the controller and wait until it answers.

    Raises:
        LabError: It ended at once; the message holds the end of its log.
    """
    config = ControllerConfig(plan.lab, plan.fabric, plan.time_scale, str(state.directory), plan.rules)
    state.write("controller.json", config.to_json())
    log = state / "controller.log"
    command, environment = processes.own_module("testbed.probes.controller")
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*command, "--config", str(state / "controller.json")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
    state.remember({NAME: Running(processes.identify(child.pid), NAME, digest)})

    def look() -> str:
        if child.poll() is not None:
            tail = log.read_text()[-_LOG_TAIL:]
            raise LabError(f"the probe controller of lab {plan.lab!r} ended at once:\n{tail}")
        try:
            control.request(state / "controller.sock", "ping", timeout=1.0)
        except LabError as error:
            return str(error)
        return ""

    wait_for(
        f"the probe controller of lab {plan.lab!r} answers",
        look,
        lambda problem: not problem,
        seconds=_START_PATIENCE,
    )
    child.returncode = 0  # it outlives this process on purpose


def stop(state: State) -> None:
    """End the controller; the data plane stays as it is."""
    running = state.running()
    if (entry := running.pop(NAME, None)) is not None:
        processes.end([entry.process])
        state.write_running(running)


def ask(state: State, operation: str) -> dict[str, Any] | None:
    """The controller's answer, or ``None`` when it is not alive."""
    if NAME not in state.running():
        return None
    try:
        answer: dict[str, Any] = control.request(state / "controller.sock", operation, timeout=2.0)
    except LabError:
        return None
    return answer
