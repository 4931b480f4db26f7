"""``testbed status``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser
    from testbed.lab.status import LabStatus, MemberState
    from testbed.plan.model import Machine, Rule

__all__ = ["EXAMPLE", "HELP", "add_arguments", "print_status", "run"]

HELP = "show a lab's machines, probe states, flows and packets"
EXAMPLE = "testbed status hub-spoke"


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.lab.state import State
    from testbed.lab.status import read_status
    from testbed.lab.up import load_plan

    need_rights()
    status = read_status(load_plan(State(arguments.lab)))
    if arguments.json:
        print_json(status.to_json())
    else:
        print_status(status)
    return 0


def print_status(status: LabStatus) -> None:
    """For people."""
    from testbed.cli.output import bad, good, print_table
    from testbed.kernel import namespaces

    plan = status.plan
    if not plan.rules:
        controller = "not needed: there are no load-balancing rules"
    elif status.controller:
        controller = f"{good('alive')}, pid {status.controller.pid}"
    else:
        controller = f"{bad('dead')} (the data plane stays as it was; 'testbed up' starts it again)"
    balancer = "" if plan.balancer == "nftables" else f", balancer {plan.balancer} ({plan.scheduler})"
    print(f"lab {plan.lab}, time scale {plan.time_scale:g}{balancer}, probe controller {controller}")
    if status.kept and "keeper" not in status.pids:
        print(f"{bad('keeper dead')}: a container that restarts stays without cables; 'testbed up' starts the keeper")
    if not namespaces.exists(plan.fabric):
        print(f"{bad('namespace gone')}: {plan.fabric}; 'testbed up' makes it again")
    print()
    rows = [_machine_row(machine, status) for machine in plan.machines]
    print_table(("MACHINE", "NAMESPACE", "ADDRESSES", "MADE OF", "STATE", "PID", "FAULTS"), rows)
    for rule in plan.rules:
        _print_rule(rule, status)


def _machine_row(machine: Machine, status: LabStatus) -> tuple[str, ...]:
    from testbed.cli.output import bad
    from testbed.kernel import namespaces

    gone = "" if namespaces.exists(machine.namespace) else f" {bad('gone')}"
    pid, state = status.pids.get(machine.name), status.machines[machine.name]
    return (
        machine.name,
        machine.namespace + gone,
        ", ".join(own.address for each in machine.network_interfaces for own in each.versions),
        machine.summary,
        state.word if state.word in ("running", "idle") else bad(str(state)),
        str(pid) if pid else "-",
        bad(", ".join(status.faults.get(machine.name, []))) or "-",
    )


def _print_rule(rule: Rule, status: LabStatus) -> None:
    from testbed.cli.output import counted, print_table
    from testbed.lab.status import ago

    members = [each for each in status.members if each.rule == rule.key]
    floating = ", floating IP" if rule.enable_floating_ip else ""
    floating += "" if rule.hashes_ports else f", by {rule.load_distribution}"
    eligible = sum(each.eligible for each in members)
    print(
        f"\n{rule.key}: frontend {rule.frontend_address}, {rule.traffic}{floating}; "
        f"{eligible} of {counted(len(rule.members), 'member')} can get flows"
    )
    rows = [
        (
            each.machine,
            each.address,
            _health(each),
            f"{ago(each.since)} ago" if each.since is not None else "-",
            each.flows,
            each.packets,
            each.detail or "-",
        )
        for each in members
    ]
    print_table(("MEMBER", "ADDRESS", "PROBE", "SINCE", "FLOWS", "PACKETS", "LAST PROBE"), rows, indent="  ")


def _health(member: MemberState) -> str:
    from testbed.cli.output import bad, good

    # None: nothing probes, or nothing has yet
    word = {None: "unknown", True: good("up"), False: bad("down")}[member.healthy]
    return word if member.admin_state == "None" else f"{word}, admin state {member.admin_state}"
