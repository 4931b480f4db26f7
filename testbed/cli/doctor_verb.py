"""``testbed doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "try what this machine can do; say how to mend what it cannot"
EXAMPLE = "testbed doctor"


def add_arguments(parser: Parser) -> None:
    """Nothing to declare."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Examine it; exit status 3 when something that is needed is missing."""
    from testbed.cli.output import print_json
    from testbed.doctor import examine

    report = examine()
    if arguments.json:
        print_json(report.to_json())
    else:
        print(report.to_text())
    return 3 if report.missing_required else 0
