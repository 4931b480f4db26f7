"""The way into a machine: SSH where the document gives it, else what the machine is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.lab.state import State
from testbed.runtimes.registry import runtime

if TYPE_CHECKING:
    from testbed.access.secrets import Secrets
    from testbed.access.transport import Transport
    from testbed.plan.model import Machine, Plan

__all__ = ["entrance"]


def entrance(plan: Plan, machine: Machine, secrets: Secrets | None = None) -> Transport:
    """A transport into a machine; made at once, and connected when it is first used.

    Args:
        plan: Of the lab.
        machine: One of the plan.
        secrets: What must not be seen in messages.

    Raises:
        InputError: There is no way in.
    """
    state = State(plan.lab)
    if machine.document and machine.document.access and machine.document.access.ssh:
        from testbed.access.secrets import Secrets
        from testbed.access.ssh import ssh_of

        return ssh_of(plan, machine.name, state.directory, secrets or Secrets())
    return runtime(machine.runtime, state.place).enter(machine.name)
