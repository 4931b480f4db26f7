"""``testbed exec``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "run a command in a machine; its exit status is passed on"
EXAMPLE = "testbed exec hub-spoke web1 -- curl -s http://10.2.0.4:8443/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of the machine, or 'fabric'")
    parser.add_argument("command", metavar="CMD", nargs="+", help="the command, after --")


def run(arguments: argparse.Namespace) -> int:
    """Run it. With ``--json`` the output is captured and printed with the exit status."""
    import subprocess

    from testbed.cli.output import print_json
    from testbed.errors import InputError
    from testbed.kernel import namespaces
    from testbed.lab.state import State
    from testbed.lab.up import load_plan

    plan = load_plan(State(arguments.lab))
    namespace = plan.fabric if arguments.machine == "fabric" else plan.machine(arguments.machine).namespace
    with namespaces.entered(namespace):  # the child is born in the namespace of this thread
        try:
            done = subprocess.run(arguments.command, check=False, capture_output=arguments.json, text=True)
        except FileNotFoundError as error:
            raise InputError(f"there is no command {arguments.command[0]!r}", fix="check its name and PATH") from error
        except PermissionError as error:
            raise InputError(f"{arguments.command[0]!r} cannot be executed", fix="check its mode") from error
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode  # as shells tell signals
    if arguments.json:
        print_json({"machine": arguments.machine, "status": status, "stdout": done.stdout, "stderr": done.stderr})
    return status
