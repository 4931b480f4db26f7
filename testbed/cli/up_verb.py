"""``testbed up``."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "bring a lab up, or make one that is up what its document says now"
EXAMPLE = "testbed up topologies/hub-spoke.yaml --wait 60"


def positive(text: str) -> float:
    """A number above zero, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("document", metavar="FILE", type=Path, help="the topology document")
    parser.add_argument("--lab", metavar="NAME", help="name of the lab (default: the document's name)")
    parser.add_argument(
        "--time-scale", metavar="X", type=positive, help="multiply all of Azure's times by this, e.g. 0.02"
    )
    parser.add_argument(
        "--wait", metavar="SECONDS", type=positive, help="wait until every probe is up, this long at most"
    )


def run(arguments: argparse.Namespace) -> int:
    """Bring it up."""
    from testbed.cli.output import print_json
    from testbed.lab.status import wait_until_healthy
    from testbed.lab.up import summary, up

    outcome = up(arguments.document, lab=arguments.lab, time_scale=arguments.time_scale)
    plan = outcome.plan
    if arguments.wait is not None:
        wait_until_healthy(plan, seconds=arguments.wait)
    if arguments.json:
        changes = [f"{change.action} {change.object}" for change in outcome.changes]
        print_json({"lab": plan.lab, "changes": len(changes), "applied": changes})
        return 0
    print(f"lab {plan.lab}: {summary(outcome.changes)}")
    return 0
