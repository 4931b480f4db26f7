"""``testbed verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "prove with real traffic that flows are symmetric and spread, and measure a failover"
EXAMPLE = "testbed verify hub-spoke symmetry distribution failover --fault crash --machine nva1"
_CHECKS = ("symmetry", "distribution", "failover")
_FAULTS = ("crash", "freeze", "link-down", "probe-down", "probe-silent")


def count(text: str) -> int:
    """A number of flows, for argparse."""
    import argparse

    if not text.isdigit() or not 0 < int(text) <= 60_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number of flows (1-60000)")
    return int(text)


def check(text: str) -> str:
    """The name of a check, for argparse."""
    import argparse

    if text not in _CHECKS:
        raise argparse.ArgumentTypeError(f"there is no check {text!r}; there are {', '.join(_CHECKS)}")
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("checks", metavar="CHECK", nargs="*", type=check, help=f"{', '.join(_CHECKS)}; default: all")
    parser.add_argument("--flows", metavar="N", type=count, default=2000, help="flows of a symmetry check (2000)")
    parser.add_argument("--seed", metavar="N", type=int, help="repeat the ports of an earlier run")
    parser.add_argument("--fault", choices=_FAULTS, default="crash", help="fault for failover (crash)")
    parser.add_argument("--machine", metavar="MACHINE", help="member to fail; default: one that carries flows")


def run(arguments: argparse.Namespace) -> int:
    """Run the checks; exit status 1 when one does not pass."""
    import sys

    from testbed.cli.output import bad, good, print_json, weak
    from testbed.lab.faults import Kind
    from testbed.lab.state import State
    from testbed.lab.up import load_plan_and_topology
    from testbed.lab.verification import Options, verify

    plan, topology = load_plan_and_topology(State(arguments.lab))
    options = Options(arguments.flows, arguments.seed, Kind(arguments.fault), arguments.machine)

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(weak(text), file=sys.stderr)

    reports = verify(plan, topology, arguments.checks or _CHECKS, options, say)
    passed = all(each.check.verdict == "pass" for each in reports)
    if arguments.json:
        answer = {"lab": plan.lab, "verdict": "pass" if passed else "fail", "checks": [r.to_json() for r in reports]}
        print_json(answer)
        return 0 if passed else 1
    for each in reports:
        print(f"[{each.phase}] {each.check.summary()}")
        for reason in each.check.reasons:
            print(f"    {bad('because')} {reason}")
    print(good("PASS") if passed else bad("FAIL"))
    return 0 if passed else 1
