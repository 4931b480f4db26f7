"""``testbed events``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "print what happened in a lab, as JSON lines"
EXAMPLE = "testbed events hub-spoke --follow"


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C, or until the lab is gone")


def run(arguments: argparse.Namespace) -> int:
    """Print them; they are JSON with or without ``--json``."""
    from testbed.lab.state import State
    from testbed.probes import events

    state = State(arguments.lab)
    state.need_record()
    source = events.follow(state.directory) if arguments.follow else events.read(state.directory)
    try:
        for each in source:
            print(each.to_json(), flush=True)
    except KeyboardInterrupt:  # the usual end of --follow: no word of it among the lines
        return 130
    return 0
