"""``testbed down``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "remove a lab, whole or half made, with its state or without"
EXAMPLE = "testbed down hub-spoke"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("lab", metavar="LAB", nargs="?", help="name of the lab")
    which.add_argument("--all", action="store_true", help="every lab of the testbed on this machine")


def run(arguments: argparse.Namespace) -> int:
    """Remove it."""
    from testbed.cli.output import print_json
    from testbed.lab.down import all_labs, down

    names = all_labs() if arguments.all else (arguments.lab,)
    there = set(all_labs())
    removed = {name: [each.name for each in down(name)] for name in names if name in there}
    if arguments.json:
        print_json({"removed": removed})
        return 0
    for name in names:
        if name in removed:
            print(f"lab {name}: removed {len(removed[name])} namespaces and all in them")
        else:
            print(f"lab {name}: is not there")
    if not names:
        print("no labs")
    return 0
