"""What the machines of a lab say of themselves after a failed check: their ``diagnostics`` commands, and their logs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from testbed.access.diagnostics import collect
from testbed.access.secrets import Secrets
from testbed.errors import TestbedError
from testbed.lab.entrance import entrance
from testbed.lab.state import State

if TYPE_CHECKING:
    from testbed.plan.model import Machine, Plan

__all__ = ["diagnose"]

_SECONDS = 60.0


def diagnose(plan: Plan) -> dict[str, str]:
    """Run the diagnostics of every machine that has some; gives the texts by machine.

    They are also written to ``MACHINE.diagnostics`` in the lab's state directory. A machine that is not reached says
    so in its text.
    """
    given = [each for each in plan.machines if each.document and each.document.diagnostics]
    secrets = Secrets()
    with ThreadPoolExecutor(max(len(given), 1)) as pool:
        texts = list(pool.map(lambda machine: _one(plan, machine, secrets), given))
    found = {machine.name: text for machine, text in zip(given, texts, strict=True)}
    for name, text in found.items():
        State(plan.lab).write(f"{name}.diagnostics", text)
    return found


def _one(plan: Plan, machine: Machine, secrets: Secrets) -> str:
    if machine.document is None:
        return ""
    try:
        with entrance(plan, machine, secrets) as transport:
            return collect(machine.document, transport, secrets, _SECONDS)
    except TestbedError as error:
        return secrets.redact(f"[not reached: {error.message}]\n")
