"""Start and ask the probe controller of a lab (:mod:`testbed.probes.controller`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.errors import LabError
from testbed.lab import daemons, fault_record
from testbed.plan.cables import cables
from testbed.probes import control
from testbed.probes.config import ControllerConfig

if TYPE_CHECKING:
    from testbed.kernel.processes import Process
    from testbed.lab.state import State
    from testbed.plan.model import Plan

__all__ = ["NAME", "ask", "start"]

#: Its name among the lab's processes; no machine may have it.
NAME = "controller"


def start(plan: Plan, state: State, digest: str) -> None:
    """Start the controller and wait until it answers.

    Raises:
        LabError: It ended at once; the message holds the end of its log.
    """
    crashed = (name for name, kinds in fault_record.active(state).items() if fault_record.Kind.CRASH in kinds)
    config = ControllerConfig(
        plan.lab,
        plan.fabric,
        plan.time_scale,
        str(state.directory),
        plan.rules,
        cables=cables(plan.rules, plan.machines),
        stopped=tuple(crashed),
        backend=plan.balancer,
        scheduler=plan.scheduler,
    )
    state.write("controller.json", config.to_json())

    def problem(_process: Process) -> str:
        try:
            control.request(state / "controller.sock", "ping", timeout=1.0)
        except LabError as error:
            return str(error)
        return ""

    words = ("--config", str(state / "controller.json"))
    daemons.start(state, NAME, "testbed.probes.controller", *words, config=digest, problem=problem)


def ask(state: State, operation: str, **fields: object) -> dict[str, Any] | None:
    """The controller's answer, or ``None`` when it is not alive."""
    if NAME not in state.running():
        return None
    try:
        answer: dict[str, Any] = control.request(state / "controller.sock", operation, timeout=2.0, **fields)
    except LabError:
        return None
    return answer
