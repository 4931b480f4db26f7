"""From started to ready: the configure steps of each machine, and then all that its document waits for.

What was configured is remembered with the process it was done to, in ``MACHINE.configured``: a machine that starts
anew is configured again, one whose steps have not changed is left alone.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.access.configure import digest, run_steps
from testbed.access.reach import Reach
from testbed.access.ready import Sources, conditions, pending
from testbed.access.secrets import Secrets
from testbed.access.templates import facts
from testbed.deadline import wait_for
from testbed.errors import DeadlineError, LabError
from testbed.lab.entrance import entrance
from testbed.lab.state import State
from testbed.runtimes.base import tail
from testbed.runtimes.registry import runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from testbed.access.ready import Condition
    from testbed.plan.model import Machine, Plan
    from testbed.topology.model import Topology

__all__ = ["configure", "wait_until_ready"]

_PATIENCE = 180.0
_AT_ONCE = 16
_INTERVAL = 0.1
_ANSWERS = 10.0  # seconds for one attempt to get an answer


def _quiet(_line: str) -> None:
    """Nobody listens."""


def configure(
    plan: Plan,
    topology: Topology,
    machines: Sequence[Machine] = (),
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = _quiet,
) -> None:
    """Run the steps of machines that were not configured since they started, side by side.

    Args:
        plan: Of the lab.
        topology: The document it was compiled from.
        machines: All of the plan when not given.
        seconds: For each machine, from now: until it answers and all its steps are done; three minutes if not given.
        say: Is told of each step, in a line.

    Raises:
        InputError: A template or a secret is missing.
        LabError: A machine does not answer, or a step fails.
    """
    given = [each for each in machines or plan.machines if each.document and each.document.configure]
    if not given:
        return
    secrets = Secrets()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        patience = _PATIENCE if seconds is None else seconds
        for done in [pool.submit(_configure, plan, topology, each, secrets, patience, say) for each in given]:
            done.result()


def _configure(
    plan: Plan,
    topology: Topology,
    machine: Machine,
    secrets: Secrets,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    state = State(plan.lab)
    process = state.running().get(machine.name)
    document = machine.document
    if document is None:
        return
    known = facts(plan, topology, machine.name)
    mark = f"{digest(document, known, Path(plan.folder))} {process.process if process else ''}"
    name = f"{machine.name}.configured"
    if (state / name).exists() and (state / name).read_text() == mark:
        return
    deadline = time.monotonic() + seconds
    with entrance(plan, machine, secrets) as transport:

        def knock() -> str:
            _need_alive(plan, machine)
            try:
                transport.run("true", seconds=_ANSWERS)
            except LabError as error:
                return error.message
            return ""

        try:
            wait_for(
                f"machine {machine.name!r} answers, to be configured",
                knock,
                lambda problem: not problem,
                seconds=seconds,
                interval=_INTERVAL,
                describe=str,
            )
        except DeadlineError as error:
            raise DeadlineError(error.message + last_words(plan, machine)) from error
        left = max(deadline - time.monotonic(), 1.0)
        run_steps(document, known, transport, secrets=secrets, folder=Path(plan.folder), say=say, seconds=left)
    state.write(name, mark)


def _need_alive(plan: Plan, machine: Machine) -> None:
    """Stop waiting for a machine that has ended."""
    state = State(plan.lab)
    if machine.runs and machine.name not in state.running():
        how = runtime(machine.runtime, state.place).states([machine.name], {})[machine.name]
        raise LabError(f"machine {machine.name!r} has ended: {how}{last_words(plan, machine)}")


def last_words(plan: Plan, machine: Machine) -> str:
    """The last lines of a machine's log or serial console, to be put behind a message."""
    said = tail(runtime(machine.runtime, State(plan.lab).place).log(machine.name))
    return f"\n  the last lines of its log:\n{said}" if said else "\n  it has said nothing"


def _conditions(plan: Plan, machine: Machine) -> tuple[Condition, ...]:
    if machine.document is None or machine.document.ready is None:
        return ()
    made_of = runtime(machine.runtime, State(plan.lab).place)
    sources = Sources(
        reach=Reach.of(plan, machine.name),
        log=lambda: made_of.log(machine.name),
        health=lambda: made_of.health(machine.name),
        ssh=lambda: entrance(plan, machine),
    )
    return conditions(machine.document.ready, sources)


def wait_until_ready(plan: Plan, *, seconds: float, say: Callable[[str], None] = _quiet) -> None:
    """Wait for what the document says about its machines.

    Args:
        plan: Of the lab.
        seconds: How long to wait at most.
        say: Is told what a machine still waits for, in a line, whenever that changes.

    Raises:
        DeadlineError: Not in time; the message names each machine, what it waits for, and the end of its log.
        LabError: A machine has ended meanwhile.
    """
    waiting = {each.name: conditions for each in plan.machines if (conditions := _conditions(plan, each))}
    if not waiting:
        return
    last: dict[str, str] = {}

    def look_at(name: str) -> list[str]:
        _need_alive(plan, plan.machine(name))
        return pending(waiting[name])

    def look() -> dict[str, str]:
        found = dict(zip(waiting, pool.map(look_at, list(waiting)), strict=True))
        for name, missing in found.items():
            line = f"{name}: waits for {'; '.join(missing)}" if missing else f"{name}: ready"
            if last.get(name) != line:
                last[name] = line
                say(line)
            if not missing:
                del waiting[name]
        return {name: "; ".join(missing) for name, missing in found.items() if missing}

    def describe(left: dict[str, str]) -> str:
        return "".join(f"\n{name}: {text}{last_words(plan, plan.machine(name))}" for name, text in left.items())

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        wait_for(
            f"every machine of lab {plan.lab!r} is ready",
            look,
            lambda left: not left,
            seconds=seconds,
            interval=_INTERVAL,
            describe=describe,
        )
