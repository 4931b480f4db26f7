"""``testbed fault``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "KINDS", "add_arguments", "run"]

HELP = "put a fault on a machine, or take all of its faults away"
EXAMPLE = """\
testbed fault hub-spoke nva1 probe-down
testbed fault hub-spoke nva1 --clear"""
KINDS = ("probe-down", "probe-silent", "forwarding-off", "cpu-hog", "crash", "link-down", "freeze", "reboot")


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of the machine")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("kind", metavar="KIND", nargs="?", choices=KINDS, help=", ".join(KINDS))
    what.add_argument("--clear", action="store_true", help="take all faults away and restart what was killed")
    what.add_argument("--list", action="store_true", help="list the faults that fit the machine")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.lab import faults, readiness
    from testbed.lab.fault_record import Kind, active
    from testbed.lab.state import State
    from testbed.lab.up import load_plan_and_topology

    if not arguments.list:
        need_rights()
    state = State(arguments.lab)
    plan, topology = load_plan_and_topology(state)
    machine = plan.machine(arguments.machine)
    if arguments.list:
        fitting = [each.value for each in faults.kinds(machine)]
        if arguments.json:
            print_json({"machine": machine.name, "kinds": fitting})
        else:
            print("\n".join(fitting))
        return 0
    if arguments.clear:
        faults.recover(plan, topology, machine.name)
    else:
        faults.inject(plan, machine.name, Kind(arguments.kind))
        if arguments.kind == Kind.REBOOT and machine.runtime != "container":  # its keeper does it
            readiness.configure(plan, topology, [machine])
    now = active(state).get(machine.name, [])
    if arguments.json:
        print_json({"machine": machine.name, "faults": now})
    else:
        print(f"{machine.name}: {', '.join(now) or 'no faults'}")
    return 0
