"""Make one machine of a lab that is up what the plan says, and leave everything else as it is, faults of others too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.lab.apply import Applier
from testbed.lab.changes import difference
from testbed.lab.observe import observe
from testbed.lab.state import State
from testbed.plan import objects

if TYPE_CHECKING:
    from testbed.lab.changes import Change
    from testbed.plan.model import Machine, Plan
    from testbed.plan.objects import KernelObject

__all__ = ["heal"]


def _belongs(thing: KernelObject, plan: Plan, machine: Machine) -> bool:
    """Whether a machine consists of it: what is in its namespace, its cables, and what hangs on them in the fabric."""
    if thing.namespace == machine.namespace:
        return True
    if thing.namespace != plan.fabric:
        return False
    cables = {each.fabric_name for each in machine.network_interfaces}
    match thing:
        case objects.Sysctl():
            return any(f".{name}." in thing.key for name in cables)
        case objects.Veth():
            return thing.name in cables
        case objects.Ruleset():  # before Linux 6.16 the chain of a cable's device goes with it
            return any(f'device "{name}"' in thing.text for name in cables)
    return getattr(thing, "link", None) in cables


def heal(plan: Plan, machine: Machine, *, start: bool = True) -> tuple[Change, ...]:
    """Bring back its links, addresses, routes and what runs in it; returns what had to be done.

    The caller holds the lab's lock. With ``start`` false nothing is started that does not run.

    Raises:
        LabError: A step failed.
    """
    state = State(plan.lab)
    wanted = [each for each in plan.objects if _belongs(each, plan, machine)]
    there = [each for each in observe(plan.lab, plan.fabric, plan.objects, state) if _belongs(each, plan, machine)]
    changes = difference(wanted, there)
    if not start:
        changes = tuple(each for each in changes if not isinstance(each.object, objects.Instance))
    with Applier(plan, state) as applier:
        applier.apply(changes)
    return changes
