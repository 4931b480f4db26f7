"""``testbed down``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "remove a lab, whole or half made, with its state or without"
EXAMPLE = """\
testbed down hub-spoke
testbed down --all"""


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("lab", metavar="LAB", nargs="?", help="name of the lab")
    which.add_argument("--all", action="store_true", help="every lab of the testbed on this machine")


def run(arguments: argparse.Namespace) -> int:
    """Remove it. A lab that is not there is no error: afterwards it is gone, which is what was asked for."""
    from testbed.cli.output import counted, print_json
    from testbed.cli.rights import need_rights
    from testbed.lab.down import all_labs, down
    from testbed.lab.state import check_lab_name

    if not arguments.all:
        check_lab_name(arguments.lab)
    need_rights()
    there = all_labs()
    if arguments.all or arguments.lab not in there:
        there = all_labs(ask_engine=True)
    names = there if arguments.all else (arguments.lab,)
    removed = {name: [each.name for each in down(name)] for name in names if name in there}
    if arguments.json:
        print_json({"removed": removed})
        return 0
    for name in names:
        if name in removed:
            print(f"lab {name}: removed, {counted(len(removed[name]), 'namespace')} and all in them")
        else:
            print(f"lab {name}: is not there, nothing to remove (labs on this machine: {', '.join(there) or 'none'})")
    if not names:
        print("no labs")
    return 0
