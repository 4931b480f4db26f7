"""``testbed status``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.lab.status import LabStatus, MemberState

__all__ = ["EXAMPLE", "HELP", "add_arguments", "print_status", "run"]

HELP = "show machines, probe states, flows and packets of a lab"
EXAMPLE = "testbed status hub-spoke"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")


def run(arguments: argparse.Namespace) -> int:
    """Show it."""
    from testbed.cli.output import print_json
    from testbed.lab.state import State
    from testbed.lab.status import read_status
    from testbed.lab.up import load_plan

    status = read_status(load_plan(State(arguments.lab)))
    if arguments.json:
        print_json(status.to_json())
    else:
        print_status(status)
    return 0


def _health(member: MemberState) -> str:
    from testbed.cli.output import bad, good

    if member.healthy is None:
        return good("eligible") if member.eligible else "unknown"
    return good("up") if member.healthy else bad("down")


def print_status(status: LabStatus) -> None:
    """For people."""
    from testbed.cli.output import bad, good, print_table
    from testbed.lab.status import ago

    plan = status.plan
    alive = good("alive") if status.controller else bad("dead (the data plane goes on; 'testbed up' restarts it)")
    pid = f", pid {status.controller.pid}" if status.controller else ""
    print(f"lab {plan.lab}: time scale {plan.time_scale:g}, probe controller {alive}{pid}\n")
    rows = [
        (
            machine.name,
            machine.namespace,
            ", ".join(each.address for each in machine.network_interfaces),
            machine.program or "-",
            status.pids.get(machine.name, "-"),
            ", ".join(status.faults.get(machine.name, [])) or "-",
        )
        for machine in plan.machines
    ]
    print_table(("MACHINE", "NAMESPACE", "ADDRESSES", "PROGRAM", "PID", "FAULTS"), rows)
    for rule in plan.rules:
        members = [
            each
            for each in status.members
            if (each.load_balancer, each.frontend) == (rule.load_balancer, rule.frontend)
        ]
        floating = "on" if rule.enable_floating_ip else "off"
        print(f"\n{rule.key}: frontend {rule.frontend_address}, all ports, floating IP {floating}")
        print_table(
            ("MEMBER", "ADDRESS", "SINCE", "FLOWS", "PACKETS", "LAST PROBE", "STATE"),
            [
                (
                    each.machine,
                    each.address,
                    ago(each.since),
                    each.flows,
                    each.packets,
                    each.detail or "-",
                    _health(each),
                )
                for each in members
            ],
            indent="  ",
        )
