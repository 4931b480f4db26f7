"""``testbed up``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.cli.words import seconds, time_scale

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser
    from testbed.lab.status import LabStatus, MemberState
    from testbed.plan.model import Plan

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "bring a lab up, or make one that is up what its document says now"
EXAMPLE = """\
testbed up topologies/hub-spoke.yaml --wait 60
testbed up topologies/hub-spoke.yaml --lab fast --time-scale 0.02 --wait 10"""


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("document", metavar="FILE", type=Path, help="topology document")
    parser.add_argument("--lab", metavar="NAME", help="name of the lab (default: the document's name)")
    parser.add_argument(
        "--time-scale",
        metavar="X",
        type=time_scale,
        help="factor for all of Azure's times (default: the document's)",
    )
    parser.add_argument(
        "--balancer",
        choices=("nftables", "ipvs"),
        help="what picks the member of a new flow (default: the document's)",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        help="wait until every machine is ready and every probe is up, at most so many seconds",
    )
    parser.add_argument("--rollback", action="store_true", help="remove the lab when it is not ready in time")
    parser.add_argument(
        "--take-interface",
        metavar="NIC",
        action="append",
        default=[],
        help="let an external machine have this network interface of the computer, although it carries an address "
        "or the default route: the computer may lose its network",
    )


def run(arguments: argparse.Namespace) -> int:
    """Bring it up; exit status 1 when it is not ready in the time that ``--wait`` gives it."""
    from testbed.cli.output import print_json
    from testbed.lab.up import summary, up
    from testbed.plan.describe import title

    outcome = up(
        arguments.document,
        lab=arguments.lab,
        time_scale=arguments.time_scale,
        balancer=arguments.balancer,
        taken=arguments.take_interface,
        say=_say,
    )
    plan = outcome.plan
    for warning in outcome.warnings:
        print(warning, file=sys.stderr)
    if not arguments.json:
        print(f"lab {plan.lab}: {summary(outcome.changes)}", flush=True)
    status = _finish(plan, arguments.wait, rollback=arguments.rollback)
    if arguments.json:
        changes = [f"{change.action} {title(change.object)}" for change in outcome.changes]
        print_json({"lab": plan.lab, "time_scale": plan.time_scale, "changes": len(changes), "applied": changes})
        return 0
    _print_summary(plan, status)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _finish(plan: Plan, patience: float | None, *, rollback: bool) -> LabStatus | None:
    """Configure the machines, and wait for them if that was asked for."""
    from testbed.errors import TestbedError
    from testbed.lab.down import down

    try:
        return _make_ready(plan, patience)
    except TestbedError as error:
        if rollback:
            down(plan.lab)
            error.fix = f"the lab was removed again (--rollback); {error.fix}".removesuffix("; ")
        else:
            stays = f"the lab stays up; look at it: testbed status {plan.lab}"
            error.fix = f"{stays}; {error.fix}" if error.fix else stays
        raise


def _make_ready(plan: Plan, patience: float | None) -> LabStatus | None:
    import time

    from testbed.errors import DeadlineError, VerdictError
    from testbed.lab import readiness
    from testbed.lab.state import State
    from testbed.lab.status import wait_until_healthy
    from testbed.lab.up import load_plan_and_topology

    said: set[str] = set()

    def say(waiting: list[MemberState]) -> None:
        for each in waiting:
            line = f"waiting for {each.machine} {each.address}: {each.detail or 'not probed yet'}"
            if line not in said:
                said.add(line)
                _say(line)

    configured = any(machine.document and machine.document.configure for machine in plan.machines)
    if patience is None and not configured:
        return None
    try:
        if configured:
            topology = load_plan_and_topology(State(plan.lab))[1]
            readiness.configure(plan, topology, seconds=patience, say=_say)
        if patience is None:
            return None
        deadline = time.monotonic() + patience
        readiness.wait_until_ready(plan, seconds=patience, say=_say)
        left = max(deadline - time.monotonic(), 0.0)
        try:
            return wait_until_healthy(plan, seconds=left, say=say if sys.stderr.isatty() else None)
        except DeadlineError as error:
            raise DeadlineError(error.message + _logs_of_unhealthy(plan), fix=error.fix) from error
    except DeadlineError as error:
        raise VerdictError(error.message, fix=error.fix) from error


def _logs_of_unhealthy(plan: Plan) -> str:
    """The last lines that containers and virtual machines said whose probes are not up."""
    from testbed.lab.readiness import last_words
    from testbed.lab.status import read_status

    names = dict.fromkeys(each.machine for each in read_status(plan).members if not each.healthy)
    machines = [plan.machine(name) for name in names]
    return "".join(
        f"\n{each.name}:{last_words(plan, each)}" for each in machines if each.runtime in ("container", "vm")
    )


def _print_summary(plan: Plan, status: LabStatus | None) -> None:
    """What is there now, and what to type next."""
    from testbed.cli.output import bad, counted, good

    machines = ", ".join(each.name for each in plan.machines)
    print(f"  time scale {plan.time_scale:g}, {counted(len(plan.machines), 'machine')}: {machines}")
    for rule in plan.rules:
        service = "" if rule.ha_ports else f" {rule.traffic}"
        place = f"{rule.load_balancer}/{rule.frontend} {rule.frontend_address}{service}"
        if status is None:
            members = ", ".join(each.machine for each in rule.members) or "no members"
        else:
            states = [each for each in status.members if each.rule == rule.key]
            words = (f"{each.machine} {good('up') if each.healthy else bad('down')}" for each in states)
            members = ", ".join(words) or "no members"
        print(f"  {place}: {members}")
    print(f"  next: testbed status {plan.lab}, testbed verify {plan.lab}, testbed down {plan.lab}")
