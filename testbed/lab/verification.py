"""Run the checks of ``testbed verify`` on a lab that is up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.balancer.nftables import preference_table
from testbed.balancer.prediction import pair_bucket
from testbed.errors import InputError, LabError
from testbed.lab import faults
from testbed.lab.fault_record import Kind
from testbed.lab.pairs import balanced_pairs, looping_pairs
from testbed.lab.state import State
from testbed.lab.status import read_status, wait_until_healthy
from testbed.plan.compile import network_of
from testbed.probes.events import read
from testbed.traffic.failover import Load, Phases, measure_failover
from testbed.traffic.flows import Tap
from testbed.traffic.symmetry import measure_symmetry
from testbed.verify.check import NotMeasured
from testbed.verify.distribution import judge_distribution
from testbed.verify.failover import Expectation, judge_failover
from testbed.verify.symmetry import count_per_member, judge_symmetry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from testbed.lab.status import LabStatus
    from testbed.plan.model import Plan, Rule
    from testbed.probes.events import Event
    from testbed.topology.model import Topology
    from testbed.traffic.failover import FailoverMeasurement
    from testbed.traffic.flows import Pair
    from testbed.traffic.symmetry import SymmetryMeasurement
    from testbed.verify.check import Check

__all__ = ["CHECKS", "Options", "Report", "verify"]

CHECKS = ("symmetry", "distribution", "failover")
_SETTLE_SLACK = 5.0  # seconds a busy machine may add to the time a probe takes
#: Seconds a machine may take to start, which no time scale makes shorter.
_STARTS = {"namespace": 0.0, "container": 30.0, "vm": 180.0, "external": 0.0}
_RECOVERY = 60.0  # seconds for the member to come back, before time_scale, and at least _SETTLE_SLACK


@dataclass(frozen=True, slots=True)
class Options:
    """What ``verify`` can be told. ``machine`` None: a member that carries flows now."""

    flows: int = 2000
    seed: int | None = None
    fault: Kind = Kind.CRASH
    machine: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A check, and when it was made: ``steady``, ``fault`` (one is in force) or ``recovered``."""

    phase: str
    check: Check

    def to_json(self) -> dict[str, object]:
        """The check with its phase."""
        return {**self.check.to_json(), "phase": self.phase}


class _Verification:
    """One run of checks, with what all of them need."""

    def __init__(self, plan: Plan, topology: Topology, options: Options) -> None:
        self.plan, self.topology, self.options = plan, topology, options
        networks = [network_of(topology, plan, version) for version in plan.versions]
        self.pairs: tuple[Pair, ...] = tuple(pair for each in networks for pair in balanced_pairs(plan, each))
        self.loops = tuple(loop for each in networks for loop in looping_pairs(plan, each))
        if not self.pairs:
            raise InputError(
                f"nothing in lab {plan.lab!r} talks through an HA Ports rule",
                fix="give two machines on both sides of it 'runtime: {kind: namespace, program: echo}'",
            )
        used = {pair.rule_id for pair in self.pairs}
        self.rules = tuple(rule for rule in plan.rules if rule.id in used)
        serves: dict[int, set[int]] = {}
        members = {}
        used |= {pair.answers_rule_id for pair in self.pairs}
        for rule in (rule for rule in plan.rules if rule.id in used):
            for member in rule.members:
                members[member.id] = member
                serves.setdefault(member.id, set()).add(rule.id)
        self.taps = tuple(Tap.of(member, serves[number]) for number, member in members.items())
        self.probe_ports = {rule.probe.port for rule in plan.rules if rule.probe}

    def measure(self) -> SymmetryMeasurement:
        options = self.options
        return measure_symmetry(
            self.pairs, self.taps, count=options.flows, seed=options.seed, avoid_ports=self.probe_ports
        )

    def distribution(self, measured: SymmetryMeasurement) -> list[Check]:
        status = read_status(self.plan)
        checks: list[Check] = []
        for rule in self.rules:
            names = {member.id: member.machine for member in rule.members}
            shares = dict.fromkeys(names.values(), 0.0)
            for number, share in _shares(rule, _eligible(status, rule), measured).items():
                shares[names[number]] = share
            counts = count_per_member(measured, rule.id)
            checks.append(judge_distribution(rule.key, {name: counts.get(name, 0) for name in shares}, shares))
        return checks

    def victim(self) -> str:
        """A member whose loss will be noticed: an eligible one that carries flows."""
        if self.options.machine is not None:
            machine = self.plan.machine(self.options.machine).name
            names = [member.machine for rule in self.rules for member in rule.members]
            if machine not in names:
                raise InputError(f"machine {machine!r} is in no pool that carries traffic", fix=", ".join(names))
            return machine
        status = read_status(self.plan)
        for rule in self.rules:
            eligible = _eligible(status, rule)
            for member in rule.members:
                if member.id in eligible:
                    return member.machine
        raise InputError(f"no member in lab {self.plan.lab!r} is eligible", fix=f"testbed status {self.plan.lab}")

    def failover(self, machine: str) -> Check:
        plan, kind = self.plan, self.options.fault
        state = State(plan.lab)
        names = {rule.key for rule in self.rules if machine in {member.machine for member in rule.members}}

        async def inject() -> None:
            await asyncio.to_thread(faults.inject, plan, machine, kind)

        injected_after = len(read(state.directory))

        async def settled() -> bool:
            changed = [each for each in read(state.directory)[injected_after:] if each.event == "update"]
            return names <= {each.fields["rule"] for each in changed if machine not in each.fields["eligible"]}

        bound = self._detection_bound(machine)
        # Flows are told apart by the members of its own rules; where a way crosses two balancers, others see them too.
        rules = {rule.id for rule in self.rules if machine in {member.machine for member in rule.members}}
        pairs = [pair for pair in self.pairs if pair.rule_id in rules]
        phases = Phases(settle_deadline=bound + _SETTLE_SLACK, observe=2.0)
        measured = asyncio.run(
            measure_failover(
                pairs, self.taps, [machine], inject, settled, load=Load(seed=self.options.seed), phases=phases
            )
        )
        return self._judge(measured, machine, bound, injected_after)

    def _detection_bound(self, machine: str) -> float:
        """By when the probes must have noticed, in the lab's seconds: threshold intervals, and one timeout."""
        bounds = [
            rule.probe.probe_threshold * rule.probe.interval_in_seconds + rule.probe.timeout_in_seconds
            for rule in self.rules
            if rule.probe and machine in {member.machine for member in rule.members}
        ]
        return self.plan.scaled(max(bounds, default=0.0))

    def _judge(self, measured: FailoverMeasurement, machine: str, bound: float, after: int) -> Check:
        happened = read(State(self.plan.lab).directory)[after:]
        detected = [
            each
            for each in happened
            if each.event == "health" and each.fields["machine"] == machine and not each.fields["healthy"]
        ]
        programmed = [each for each in happened if each.event == "update" and machine not in each.fields["eligible"]]
        kind = self.options.fault
        rules = [rule for rule in self.rules if machine in {member.machine for member in rule.members}]
        eligible = _eligible_names(read_status(self.plan))
        expected = Expectation(
            detection_bound_ms=bound * 1000,
            slack_ms=max(500.0, bound * 100),
            data_path_dies=kind.data_path_dies,
            # A server that is killed has a kernel that resets its connections; an appliance just falls silent.
            member_resets=kind is Kind.CRASH and not any(rule.transit for rule in rules),
            udp_moves=bool(eligible - {machine}),
        )
        return judge_failover(
            measured,
            detected_at=_when_all(rules, detected),
            programmed_at=_when_all(rules, programmed),
            expected=expected,
        )

    def recover(self, machine: str) -> None:
        faults.recover(self.plan, self.topology, machine)
        starts = _STARTS[self.plan.machine(machine).runtime]
        patience = max(_SETTLE_SLACK, self.plan.scaled(_RECOVERY)) + _SETTLE_SLACK + starts
        wait_until_healthy(self.plan, seconds=patience)


def _when_all(rules: Sequence[Rule], happened: Sequence[Event]) -> float | None:
    """When the last of the rules had its first such event: each is probed by itself. None: one of them never had."""
    first: dict[str, float] = {}
    for each in happened:
        first.setdefault(each.fields["rule"], each.time)
    times = [first.get(rule.key) for rule in rules if rule.probe]
    known = [each for each in times if each is not None]
    return max(known) if known and len(known) == len(times) else None


def _shares(rule: Rule, eligible: set[int], measured: SymmetryMeasurement) -> dict[int, float]:
    """What each member should get of the flows: its buckets' part, or exactly what their addresses choose."""
    table = preference_table(rule)
    if rule.hashes_ports:
        return table.shares(eligible)
    owners = table.owners(eligible)
    shares: dict[int, float] = {}
    for flow in (each.flow for each in measured.observations if each.flow.pair.rule_id == rule.id):
        bucket = pair_bucket(rule, flow.protocol, flow.pair.client_address, flow.pair.server_address)
        if bucket is not None and (owner := int(owners[bucket])):
            shares[owner] = shares.get(owner, 0.0) + 1
    return shares


def _eligible(status: LabStatus, rule: Rule) -> set[int]:
    mine = {member.id for member in rule.members}
    return {each.id for each in status.members if each.rule == rule.key and each.eligible and each.id in mine}


def _eligible_names(status: LabStatus) -> set[str]:
    return {each.machine for each in status.members if each.eligible}


def verify(
    plan: Plan,
    topology: Topology,
    checks: Sequence[str] = CHECKS,
    options: Options | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> list[Report]:
    """Run checks in their natural order and return all reports.

    Failover puts a fault on one member and takes it away again; with symmetry asked for as well, that is
    checked three times: before, while the fault is in force, and after recovery.

    Args:
        plan: Of the lab.
        topology: The document it was compiled from.
        checks: Some of :data:`CHECKS`.
        options: How many flows, which fault, on whom.
        say: Is told what is going on.

    Raises:
        InputError: There is nothing to check, or no such check.
        LabError: Something was wrong before the check began.
    """
    wanted = set(checks)
    run = _Verification(plan, topology, options or Options())
    reports: list[Report] = []

    def symmetry(phase: str) -> None:
        say(f"symmetry ({phase}): {run.options.flows} flows between {len(run.pairs)} pairs")
        measured = run.measure()
        if "symmetry" in wanted:
            reports.append(Report(phase, judge_symmetry(measured, loops=run.loops)))
        if "distribution" in wanted and phase == "steady":
            reports.extend(Report(phase, each) for each in run.distribution(measured))

    if wanted & {"symmetry", "distribution"}:
        symmetry("steady")
    if "failover" in wanted:
        machine = run.victim()
        say(f"failover: {run.options.fault.value} on {machine}")
        try:
            reports.append(Report("fault", run.failover(machine)))
            if "symmetry" in wanted and len(_eligible_names(read_status(plan))) > 0:
                symmetry("fault")
        except LabError as error:  # loss before the fault, say, when flows are lost all the time
            if all(each.check.verdict == "pass" for each in reports):
                raise
            reports.append(Report("fault", NotMeasured("failover", (error.message,))))
            return reports
        finally:
            say(f"clearing the fault on {machine}")
            run.recover(machine)
        if "symmetry" in wanted:
            symmetry("recovered")
    return reports
