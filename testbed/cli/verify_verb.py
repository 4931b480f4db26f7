"""``testbed verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.cli.words import flow_count, number

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["CHECKS", "EXAMPLE", "FAULTS", "HELP", "add_arguments", "run"]

HELP = "prove with real traffic that flows are symmetric and spread; measure a failover"
EXAMPLE = """\
testbed verify hub-spoke
testbed verify hub-spoke failover --fault probe-down --machine nva1"""
#: As the lab names them; a test compares. What would tell them is too slow to import for --help.
CHECKS = ("symmetry", "distribution", "failover")
FAULTS = ("probe-down", "probe-silent", "forwarding-off", "cpu-hog", "crash", "link-down", "freeze", "reboot")


def check(text: str) -> str:
    """The name of a check, for argparse, which cannot join choices and an empty list."""
    import argparse

    if text not in CHECKS:
        raise argparse.ArgumentTypeError(f"there is no check {text!r}; there are {', '.join(CHECKS)}")
    return text


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument(
        "checks", metavar="CHECK", nargs="*", default=[], type=check, help=f"any of {', '.join(CHECKS)} (default: all)"
    )
    parser.add_argument(
        "--flows", metavar="N", type=flow_count, default=2000, help="flows of each symmetry check (default: 2000)"
    )
    parser.add_argument("--seed", metavar="N", type=number, help="take the ports of an earlier run again")
    parser.add_argument(
        "--fault",
        metavar="KIND",
        choices=FAULTS,
        default="crash",
        help=f"fault for failover: {', '.join(FAULTS)} (default: crash)",
    )
    parser.add_argument("--machine", metavar="MACHINE", help="member to fail (default: one that carries flows)")
    parser.intermixed = True


def run(arguments: argparse.Namespace) -> int:
    """Run the checks; exit status 1 when one does not pass."""
    import sys

    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.cli.verdicts import print_verdicts
    from testbed.lab.diagnosis import diagnose
    from testbed.lab.fault_record import Kind
    from testbed.lab.state import State
    from testbed.lab.up import load_plan_and_topology
    from testbed.lab.verification import Options, verify

    need_rights()
    plan, topology = load_plan_and_topology(State(arguments.lab))
    options = Options(arguments.flows, arguments.seed, Kind(arguments.fault), arguments.machine)

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"{text} …", file=sys.stderr)

    reports = verify(plan, topology, arguments.checks or CHECKS, options, say)
    passed = all(each.check.verdict == "pass" for each in reports)
    diagnostics = {} if passed else diagnose(plan)
    if arguments.json:
        checks = [each.to_json() for each in reports]
        verdict = "pass" if passed else "fail"
        document = {"lab": plan.lab, "time_scale": plan.time_scale, "verdict": verdict, "checks": checks}
        print_json({**document, "diagnostics": diagnostics} if diagnostics else document)
    else:
        print_verdicts(plan, reports, fault=arguments.fault)
        for name, text in diagnostics.items():
            print(f"diagnostics of {name}:")
            print("".join(f"  {line}\n" for line in text.splitlines()), end="")
    return 0 if passed else 1
