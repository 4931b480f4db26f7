"""Faults on purpose: put one on a machine, take all of them away.

==============  ==============================================================  =========
kind            what happens                                                    data path
==============  ==============================================================  =========
probe-down      the responder answers 503 to HTTP probes                        lives
probe-silent    probes get no answer at all                                     lives
crash           the program is killed; the machine forwards no more             dies
link-down       the machine's network interfaces are down                       dies
freeze          the program is stopped and nothing gets in or out               dies
==============  ==============================================================  =========
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING

from testbed.errors import InputError, LabError
from testbed.kernel import conntrack, namespaces, nft, processes, sysctl
from testbed.kernel.netlink import Netlink
from testbed.lab.apply import Applier
from testbed.lab.changes import difference
from testbed.lab.observe import observe
from testbed.lab.state import State
from testbed.nodes import faults as responder
from testbed.probes import events

if TYPE_CHECKING:
    from testbed.plan.model import Machine, Plan

__all__ = ["Kind", "active", "clear", "heal", "inject", "kinds"]

_FILE = "faults.json"
_FROZEN_TABLE = ("inet testbed_fault",)
_FROZEN = """\
table inet testbed_fault {
  chain in {
    type filter hook prerouting priority -450; policy drop;
  }
  chain out {
    type filter hook output priority -450; policy drop;
  }
}
"""


class Kind(StrEnum):
    """What can be done to a machine."""

    PROBE_DOWN = "probe-down"
    PROBE_SILENT = "probe-silent"
    CRASH = "crash"
    LINK_DOWN = "link-down"
    FREEZE = "freeze"

    @property
    def data_path_dies(self) -> bool:
        """Whether packets of established flows stop as well."""
        return self in (Kind.CRASH, Kind.LINK_DOWN, Kind.FREEZE)


def kinds(machine: Machine) -> tuple[Kind, ...]:
    """The faults that fit a machine."""
    if machine.program is None:
        return (Kind.LINK_DOWN, Kind.FREEZE)
    return tuple(Kind)


def active(state: State) -> dict[str, list[str]]:
    """Faults in force, by machine."""
    with suppress(FileNotFoundError, ValueError):
        found: dict[str, list[str]] = json.loads((state / _FILE).read_text())
        return found
    return {}


def _remember(state: State, machine: str, faults: list[str]) -> None:
    known = active(state)
    known[machine] = faults
    state.write(_FILE, json.dumps({name: each for name, each in known.items() if each}))


def inject(plan: Plan, machine_name: str, kind: Kind) -> None:
    """Put a fault on a machine.

    Raises:
        UnknownLabError: There is no such machine.
        InputError: The fault does not fit it.
    """
    machine = plan.machine(machine_name)
    if kind not in kinds(machine):
        fix = f"faults of {machine_name}: {', '.join(kinds(machine))}"
        raise InputError(f"machine {machine_name!r} has no fault {kind.value!r}", fix=fix)
    state = State(plan.lab)
    _remember(state, machine_name, sorted({*active(state).get(machine_name, []), kind.value}))
    events.append(state.directory, "fault", machine=machine_name, kind=kind.value, action="inject")
    match kind:
        case Kind.PROBE_DOWN:
            responder.probe_down(state / f"{machine.name}.sock")
        case Kind.PROBE_SILENT:
            responder.probe_silent(state / f"{machine.name}.sock")
        case Kind.CRASH:
            _crash(state, machine)
        case Kind.LINK_DOWN:
            with namespaces.entered(machine.namespace), Netlink() as netlink:
                for each in machine.network_interfaces:
                    netlink.set_link(each.name, up=False)
        case Kind.FREEZE:
            with namespaces.entered(machine.namespace):
                nft.run(nft.replacing(_FROZEN, _FROZEN_TABLE))
            _signal(state, machine_name, signal.SIGSTOP)


def _crash(state: State, machine: Machine) -> None:
    running = state.running()
    with namespaces.entered(machine.namespace):
        sysctl.write("net.ipv4.ip_forward", "0")  # first: what is killed must not outlive itself in the kernel
    if (entry := running.get(machine.name)) is not None:
        processes.end([entry.process])
    with namespaces.entered(machine.namespace):
        conntrack.flush()  # a machine that comes back remembers nothing


def _signal(state: State, machine: str, number: signal.Signals) -> None:
    if (entry := state.running().get(machine)) is not None:
        os.kill(entry.process.pid, number)


def clear(plan: Plan, machine_name: str) -> None:
    """Take all faults away from a machine; a killed program is started again."""
    machine = plan.machine(machine_name)
    state = State(plan.lab)
    with namespaces.entered(machine.namespace):
        nft.run(nft.replacing("", _FROZEN_TABLE))
    _signal(state, machine_name, signal.SIGCONT)
    if machine.program is not None:
        with suppress(LabError):  # dead: it starts without faults below
            responder.clear(state / f"{machine.name}.sock")
    heal(plan, machine)
    events.append(state.directory, "fault", machine=machine_name, action="clear")
    _remember(state, machine_name, [])


def heal(plan: Plan, machine: Machine) -> None:
    """Make a machine what the plan says: links, addresses, routes, program."""
    state = State(plan.lab)
    wanted = [each for each in plan.objects if each.namespace == machine.namespace]
    there = [each for each in observe(plan.lab, plan.fabric, wanted, state) if each.namespace == machine.namespace]
    with Applier(plan, state) as applier:
        applier.apply(difference(wanted, there))
