"""What a lab is doing now: machines, members and their health, the controller."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from testbed.deadline import wait_for
from testbed.kernel import namespaces
from testbed.lab import controller, fault_record
from testbed.lab.state import State
from testbed.probes.status import ControllerStatus
from testbed.runtimes.base import State as MachineState
from testbed.runtimes.registry import runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.kernel.processes import Process
    from testbed.plan.model import Member, Plan, Rule

__all__ = ["LabStatus", "MemberState", "read_status", "wait_until_healthy"]


@dataclass(frozen=True, slots=True)
class MemberState:
    """A pool member. ``healthy`` is None while nothing is known; ``since`` is unix time, if it is known."""

    load_balancer: str
    frontend: str
    frontend_address: str
    id: int
    machine: str
    address: str
    healthy: bool | None
    eligible: bool
    since: float | None
    detail: str
    flows: int
    packets: int
    rule: str
    """``load_balancer/frontend/rule``."""
    admin_state: str = "None"
    held_until: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Flat, with Azure's name for the address."""
        return {
            "machine": self.machine,
            "private_ip_address": self.address,
            "frontend_ip_configuration": self.frontend,
            "load_balancing_rule": self.rule.rpartition("/")[2],
            "healthy": self.healthy,
            "eligible": self.eligible,
            "since": self.since,
            "detail": self.detail,
            "flows": self.flows,
            "packets": self.packets,
            "admin_state": self.admin_state,
            "held_until": self.held_until,
        }


@dataclass(frozen=True, slots=True)
class LabStatus:
    """One look at a lab. ``controller`` is None when the probe controller is dead: the data plane goes on."""

    plan: Plan
    controller: ControllerStatus | None
    members: tuple[MemberState, ...]
    pids: dict[str, int]
    faults: dict[str, list[str]]
    machines: dict[str, MachineState]

    @property
    def kept(self) -> bool:
        """Whether the lab has containers, which need a keeper."""
        return any(machine.runtime == "container" for machine in self.plan.machines)

    def to_json(self) -> dict[str, Any]:
        """As ``testbed status --json`` prints it."""
        balancers = dict.fromkeys(each.load_balancer for each in self.members)
        return {
            "lab": self.plan.lab,
            "time_scale": self.plan.time_scale,
            "balancer": self.plan.balancer,
            "controller": {
                "alive": self.controller is not None,
                "pid": self.controller.pid if self.controller else None,
                "started": self.controller.started if self.controller else None,
            },
            "keeper": {"needed": self.kept, "pid": self.pids.get("keeper")},
            "machines": [
                {
                    "name": machine.name,
                    "namespace": machine.namespace,
                    "runtime": machine.runtime,
                    "program": machine.program,
                    "made_of": machine.summary,
                    "state": self.machines[machine.name].word,
                    "detail": self.machines[machine.name].detail,
                    "pid": self.pids.get(machine.name),
                    "faults": self.faults.get(machine.name, []),
                    "network_interfaces": [
                        {"name": each.name, "private_ip_address": each.address, "subnet": each.subnet_key}
                        | ({"private_ipv6_address": each.ipv6.address} if each.ipv6 else {})
                        for each in machine.network_interfaces
                    ],
                }
                for machine in self.plan.machines
            ],
            "load_balancers": [
                {
                    "name": name,
                    "members": [each.to_json() for each in self.members if each.load_balancer == name],
                }
                for name in balancers
            ],
        }


def read_status(plan: Plan) -> LabStatus:
    """Look at a lab once."""
    state = State(plan.lab)
    answer = controller.ask(state, "status")
    status = ControllerStatus.from_json(answer) if answer else None
    members = _from_controller(plan, status) if status else _from_kernel(plan)
    running = {name: each.process for name, each in state.running().items()}
    pids = {name: each.pid for name, each in running.items()}
    return LabStatus(plan, status, members, pids, fault_record.active(state), _machines(plan, state, running))


def _machines(plan: Plan, state: State, running: dict[str, Process]) -> dict[str, MachineState]:
    """How each machine is, as its runtime says; idle namespaces are, and that is all."""
    found = {machine.name: MachineState("idle") for machine in plan.machines}
    for kind in dict.fromkeys(machine.runtime for machine in plan.machines):
        names = [each.name for each in plan.machines if each.runtime == kind and (each.runs or kind == "external")]
        if names:
            found |= runtime(kind, state.place).states(names, running)
    return found


def _from_controller(plan: Plan, status: ControllerStatus) -> tuple[MemberState, ...]:
    rules = {rule.id: rule for rule in plan.rules}
    return tuple(
        MemberState(
            rules[each.id].load_balancer,
            rules[each.id].frontend,
            rules[each.id].frontend_address,
            member.id,
            member.machine,
            member.address,
            member.healthy,
            member.eligible,
            member.since,
            member.detail,
            member.flows,
            member.packets,
            rules[each.id].key,
            member.admin_state,
            member.held_until,
        )
        for each in status.rules
        if each.id in rules
        for member in each.members
    )


def _from_kernel(plan: Plan) -> tuple[MemberState, ...]:
    """Without the controller the kernel still knows who is eligible, and counts."""
    from testbed.balancer.nftables import NftablesBackend

    if not plan.rules or not namespaces.exists(plan.fabric):
        return ()
    with namespaces.entered(plan.fabric), closing(NftablesBackend(plan.rules)) as backend:
        eligible, counters = backend.eligible(), backend.counters()

    def state(rule: Rule, member: Member) -> MemberState:
        return MemberState(
            rule.load_balancer,
            rule.frontend,
            rule.frontend_address,
            member.id,
            member.machine,
            member.address,
            None,
            member.id in eligible[rule.id],
            None,
            "the controller is dead",
            counters[member.id].flows,
            counters[member.id].packets,
            rule.key,
        )

    return tuple(state(rule, member) for rule in plan.rules for member in rule.members)


def wait_until_healthy(
    plan: Plan, *, seconds: float, say: Callable[[list[MemberState]], None] | None = None
) -> LabStatus:
    """Wait until every probe is up; a standby appliance only has to have been probed.

    Args:
        plan: Of the lab.
        seconds: How long to wait at most.
        say: Is told after each look which members are still waited for.

    Raises:
        DeadlineError: Not in time; the message names the members that are not up, and why.
    """
    standbys = {machine.name for machine in plan.machines if machine.standby}

    def waiting(status: LabStatus) -> list[MemberState]:
        probed = {member.id for rule in plan.rules if rule.probe for member in rule.members}
        return [
            each
            for each in status.members
            if each.id in probed and (each.healthy is None if each.machine in standbys else not each.healthy)
        ]

    def describe(status: LabStatus) -> str:
        if status.controller is None:
            return "the probe controller is dead"
        return "; ".join(
            f"{each.machine} {each.address}: {each.detail or 'not probed yet'}" for each in waiting(status)
        )

    def accept(status: LabStatus) -> bool:
        left = waiting(status)
        if say is not None:
            say(left)
        return not plan.rules or (status.controller is not None and not left)

    return wait_for(
        f"every probe of lab {plan.lab!r} is up",
        lambda: read_status(plan),
        accept,
        seconds=seconds,
        interval=0.02,
        describe=describe,
    )


def ago(since: float | None) -> str:
    """How long ago a unix time was, for people."""
    if since is None:
        return "?"
    seconds = max(0.0, time.time() - since)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
