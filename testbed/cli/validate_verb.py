"""``testbed validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "check documents; all mistakes at once, each with line, cause and fix"
EXAMPLE = "testbed validate topologies/hub-spoke.yaml topologies/active-passive.yaml"


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("documents", metavar="FILE", nargs="+", type=Path, help="topology document")


def run(arguments: argparse.Namespace) -> int:
    """Check them."""
    from testbed.cli.output import bad, counted, good, print_json
    from testbed.topology.loading import check

    findings = {path: check(path)[1] for path in arguments.documents}
    wrong = any(each.severity == "error" for found in findings.values() for each in found)
    if arguments.json:
        print_json(
            {
                "valid": not wrong,
                "findings": [each.to_json() for found in findings.values() for each in found],
            }
        )
        return 2 if wrong else 0
    for path, found in findings.items():
        for each in found:
            print(each)
        errors = sum(each.severity == "error" for each in found)
        warnings = len(found) - errors
        verdict = bad(counted(errors, "error")) if errors else good("valid")
        print(f"{path}: {verdict}" + (f", {counted(warnings, 'warning')}" if warnings else ""))
    return 2 if wrong else 0
