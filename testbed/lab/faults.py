"""Faults on purpose: put one on a machine, take all of them away.

==============  ==============================================================  =========
kind            what happens                                                    data path
==============  ==============================================================  =========
probe-down      HTTP probes get 503, or probes are refused                      lives
probe-silent    probes get no answer at all                                     lives
forwarding-off  what is not for the machine itself is lost                      dies
cpu-hog         its processors are busy with something else                     lives
crash           it loses its power                                              dies
link-down       its network interfaces are down                                 dies
freeze          it is stopped and nothing gets in or out                        dies
reboot          it is reset, and comes back by itself                           dies
==============  ==============================================================  =========

What concerns packets is done on the machine's wire, before the machine sees them, and so for every kind of machine
in the same way: an nftables table on the ingress of its network interfaces, written anew from the faults in force.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from testbed.errors import InputError, LabError
from testbed.kernel import namespaces, nft
from testbed.kernel.netlink import Netlink
from testbed.lab import controller, hogs, readiness
from testbed.lab.fault_record import Kind, active, remember
from testbed.lab.healing import heal
from testbed.lab.state import State, locked
from testbed.nodes import faults as responder
from testbed.plan.ruleset.context import PROBE_SOURCE, PROBE_SOURCE_IPV6
from testbed.probes import events
from testbed.runtimes.registry import runtime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from testbed.kernel.processes import Process
    from testbed.plan.model import Machine, Plan
    from testbed.runtimes.base import Runtime
    from testbed.topology.model import Topology

__all__ = ["clear", "inject", "kinds", "recover", "unplug", "wire_rules", "write_wire"]

_WIRE_TABLE = ("netdev testbed_fault",)


_ON_THE_WIRE = (Kind.PROBE_DOWN, Kind.PROBE_SILENT, Kind.FORWARDING_OFF, Kind.LINK_DOWN, Kind.FREEZE)


def kinds(machine: Machine) -> tuple[Kind, ...]:
    """The faults that fit a machine."""
    wire = [kind for kind in _ON_THE_WIRE if _probed(machine) or not kind.value.startswith("probe")]
    if machine.runs:
        wire += [Kind.CRASH, Kind.REBOOT]
    if machine.runtime != "external" and (machine.runtime != "vm" or hogs.reachable(machine)):
        wire.append(Kind.CPU_HOG)
    return tuple(kind for kind in Kind if kind in wire)


def _probed(machine: Machine) -> bool:
    """Whether there are probes to answer: of a program's own faults, or of the pools it is in."""
    return machine.program is not None or any(
        own.backend_address_pools for each in machine.network_interfaces for own in each.versions
    )


def wire_rules(machine: Machine, faults: Iterable[str], probe_ports: Iterable[int]) -> str:
    """The nftables text that makes the faults on a machine's wire; empty when none of them is there. Pure.

    Args:
        machine: Of the plan.
        faults: All that are in force on it.
        probe_ports: TCP ports that health probes ask of it.
    """
    given = set(faults)
    ports = f"tcp dport {{ {', '.join(map(str, sorted(set(probe_ports))))} }}"
    probes = [f"ip saddr {PROBE_SOURCE} {ports}"]
    own = {
        version: [each for nic in machine.network_interfaces if (each := nic.of_version(version))] for version in (4, 6)
    }
    others = [f"ip daddr != {{ {', '.join(each.address for each in own[4])} }} drop"]
    if own[6]:
        probes.append(f"ip6 saddr {PROBE_SOURCE_IPV6} {ports}")
        others.append(f"ip6 daddr != {{ {', '.join(each.address for each in own[6])}, fe80::/10, ff00::/8 }} drop")
    rules = {
        Kind.FREEZE: ["drop"],
        Kind.PROBE_SILENT: [f"{each} drop" for each in probes],
        Kind.PROBE_DOWN: [f"{each} reject with tcp reset" for each in probes],
        Kind.FORWARDING_OFF: others,
    }
    if machine.program is not None:  # its responder answers 503, or not at all
        del rules[Kind.PROBE_DOWN], rules[Kind.PROBE_SILENT]
    chosen = [rule for kind, lines in rules.items() if kind in given for rule in lines]
    if not chosen:
        return ""
    lines = [f"table {_WIRE_TABLE[0]} {{"]
    for each in machine.network_interfaces:
        hook = f'type filter hook ingress device "{each.name}" priority -100; policy accept;'
        lines += [f"  chain {each.name}_in {{", f"    {hook}", *(f"    {rule}" for rule in chosen), "  }"]
    return "\n".join([*lines, "}", ""])


def _probe_ports(plan: Plan, machine: Machine) -> tuple[int, ...]:
    """Ports that are probed on a machine."""
    return tuple(
        rule.probe.port
        for rule in plan.rules
        if rule.probe and machine.name in {member.machine for member in rule.members}
    )


def write_wire(plan: Plan, machine: Machine, faults: Iterable[str]) -> None:
    """Make the machine's wire what these faults say."""
    with namespaces.entered(machine.namespace):
        nft.run(nft.replacing(wire_rules(machine, faults, _probe_ports(plan, machine)), _WIRE_TABLE))


def _parts(plan: Plan, machine: Machine) -> tuple[State, Runtime, Process | None]:
    state = State(plan.lab)
    entry = state.running().get(machine.name)
    return state, runtime(machine.runtime, state.place), entry.process if entry else None


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
    state, made_of, process = _parts(plan, machine)
    faults = {*active(state).get(machine_name, []), kind.value}
    remember(state, machine_name, faults - {Kind.REBOOT.value})  # that is over when it is done
    events.append(state.directory, "fault", machine=machine_name, kind=kind.value, action="inject")
    if kind in _ON_THE_WIRE:
        write_wire(plan, machine, faults)
    if machine.program and kind in (Kind.PROBE_DOWN, Kind.PROBE_SILENT):
        switch = responder.probe_down if kind is Kind.PROBE_DOWN else responder.probe_silent
        switch(state / f"{machine.name}.sock")
    match kind:
        case Kind.CRASH:
            if machine.runtime == "container":
                unplug(machine)  # first: what it has in the kernel must not outlive it; its keeper is a moment late
            made_of.kill(machine.name, process)
            controller.ask(state, "stopped", machine=machine.name, stopped=True)
        case Kind.REBOOT:
            _reboot(plan, machine, made_of, process)
        case Kind.LINK_DOWN:
            unplug(machine)
            made_of.carrier(machine.name, up=False)
        case Kind.FREEZE:
            made_of.freeze(machine.name, process)
        case Kind.CPU_HOG:
            hogs.start(plan, machine)


def _reboot(plan: Plan, machine: Machine, made_of: Runtime, process: Process | None) -> None:
    """Reset it. A container's keeper wires it again; a program is started here, and a virtual machine starts itself."""
    state = State(plan.lab)
    (state / f"{machine.name}.configured").unlink(missing_ok=True)
    made_of.reboot(machine.name, process)
    if machine.runtime == "namespace":
        with locked(plan.lab):
            heal(plan, machine)


def unplug(machine: Machine) -> None:
    """Bring a machine's ends of its cables down; what is there no more needs none."""
    with suppress(LabError), namespaces.entered(machine.namespace), Netlink() as netlink:
        for each in machine.network_interfaces:
            netlink.set_link(each.name, up=False)


def recover(plan: Plan, topology: Topology, machine_name: str) -> None:
    """Take all faults away from a machine; what was killed is started again, and set up as its document says.

    Raises:
        LabError: It could not be made what it was.
    """
    with locked(plan.lab):
        clear(plan, machine_name)
    readiness.configure(plan, topology, [plan.machine(machine_name)])


def clear(plan: Plan, machine_name: str) -> None:
    """As :func:`recover`, without the set-up, for a caller that holds the lab's lock.

    Raises:
        LabError: It could not be made what it was.
    """
    machine = plan.machine(machine_name)
    state, made_of, process = _parts(plan, machine)
    faults = active(state).get(machine_name, [])
    if namespaces.exists(machine.namespace):
        write_wire(plan, machine, ())
    if Kind.LINK_DOWN in faults and machine.runtime in ("namespace", "container"):
        # Its routes went with its links, those that its steps had made as well.
        (state / f"{machine.name}.configured").unlink(missing_ok=True)
    if process is not None:
        if Kind.FREEZE in faults:
            made_of.thaw(machine.name, process)
        if Kind.LINK_DOWN in faults:
            made_of.carrier(machine.name, up=True)
        if Kind.CPU_HOG in faults:
            hogs.stop(plan, machine)
    if machine.program is not None:
        with suppress(LabError):  # dead: it starts without faults below
            responder.clear(state / f"{machine.name}.sock")
    heal(plan, machine)
    events.append(state.directory, "fault", machine=machine_name, action="clear")
    remember(state, machine_name, [])
    controller.ask(state, "stopped", machine=machine_name, stopped=False)
