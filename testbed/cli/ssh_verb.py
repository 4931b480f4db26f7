"""``testbed ssh``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "log in to a machine by SSH, or run a command there; its exit status is passed on"
EXAMPLE = """\
testbed ssh hub-spoke-vm nva1
testbed ssh hub-spoke-vm nva1 -- nft list ruleset"""

_AS_LONG_AS_IT_TAKES = 7 * 24 * 3600.0


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of a machine that has access.ssh in the document")
    parser.add_argument(
        "command",
        metavar="CMD",
        nargs="*",
        default=[],
        help="a command line for the machine's shell, after --; as with ssh, its words are put together with spaces",
    )
    parser.usage = "testbed ssh [-h] [--json] LAB MACHINE [-- CMD ...]"
    parser.rest = ("command", 2)


def run(arguments: argparse.Namespace) -> int:
    """Connect. With ``--json`` the output of the command is captured and printed with the exit status."""
    from testbed.access.secrets import Secrets
    from testbed.access.ssh import ssh_of
    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.errors import InputError
    from testbed.lab.state import State
    from testbed.lab.up import load_plan_and_topology

    command = " ".join(arguments.command)
    if arguments.json and not command:
        fix = f"testbed ssh --json {arguments.lab} {arguments.machine} -- CMD ..."
        raise InputError("with --json there must be a command to run", fix=fix)
    need_rights()
    state, secrets = State(arguments.lab), Secrets()
    plan, _ = load_plan_and_topology(state)
    with secrets.guarded(), ssh_of(plan, arguments.machine, state.directory, secrets) as transport:
        if not arguments.json:
            return transport.shell(command or None)
        done = transport.run(command, seconds=_AS_LONG_AS_IT_TAKES)
    print_json({"machine": arguments.machine, "status": done.status, "stdout": done.out, "stderr": done.err})
    return done.status
