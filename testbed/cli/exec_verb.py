"""``testbed exec``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from testbed.cli.parser import Parser
    from testbed.plan.model import Plan

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "run a command in a machine; its exit status is passed on"
EXAMPLE = """\
testbed exec hub-spoke web1 -- curl -s http://10.2.0.4:8443/
testbed exec hub-spoke fabric -- nft list ruleset"""


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of the machine, or 'fabric'")
    parser.add_argument("command", metavar="CMD", nargs="*", default=[], help="the command and its arguments, after --")
    parser.usage = "testbed exec [-h] [--json] LAB MACHINE -- CMD ..."
    parser.rest = ("command", 2)


def run(arguments: argparse.Namespace) -> int:
    """Run it. With ``--json`` the output is captured and printed with the exit status."""
    from testbed.cli.children import run_child
    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.errors import InputError
    from testbed.lab.state import State
    from testbed.lab.up import load_plan

    if not arguments.command:
        raise InputError(
            "there is no command to run", fix=f"testbed exec {arguments.lab} {arguments.machine} -- CMD ..."
        )
    need_rights()
    plan = load_plan(State(arguments.lab))
    if arguments.machine != "fabric" and plan.machine(arguments.machine).runtime != "namespace":
        return _enter(plan, arguments)
    namespace = plan.fabric if arguments.machine == "fabric" else plan.machine(arguments.machine).namespace
    with _readable_errors(arguments.command[0]):
        if not arguments.json:
            return _become(arguments.command, namespace)
        done = run_child(arguments.command, namespace, capture=True)
    print_json({"machine": arguments.machine, "status": done.status, "stdout": done.out, "stderr": done.err})
    return done.status


def _enter(plan: Plan, arguments: argparse.Namespace) -> int:
    """In a container by its engine; other machines have no way in but SSH."""
    from testbed.cli.output import print_json
    from testbed.errors import InputError
    from testbed.lab.state import State
    from testbed.runtimes.engine_exec import EngineTransport
    from testbed.runtimes.registry import runtime

    machine = plan.machine(arguments.machine)
    if machine.runtime != "container":
        raise InputError(
            f"{machine.name!r} has a kernel of its own: commands run in it by SSH",
            fix=f"testbed ssh {plan.lab} {machine.name} -- CMD ...",
        )
    transport = runtime(machine.runtime, State(plan.lab).place).enter(machine.name)
    if not isinstance(transport, EngineTransport):
        raise TypeError(transport)
    if not arguments.json:
        return transport.attach(arguments.command)
    done = transport.capture(arguments.command)
    print_json({"machine": machine.name, "status": done.status, "stdout": done.out, "stderr": done.err})
    return done.status


@contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    from testbed.errors import InputError

    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no command {name!r}", fix="check its name and PATH") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{name!r} cannot be run: {reason}", fix="check its mode and its first line") from error


def _become(command: list[str], namespace: str) -> int:
    """Turn this process into the command: signals, terminal and exit status are the command's own."""
    import os
    import signal
    import sys

    from testbed.kernel import namespaces

    sys.stdout.flush()
    with namespaces.entered(namespace):  # left again only when there is no such command
        before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a command would inherit that
        try:
            os.execvp(command[0], command)  # noqa: S606 - an argument list, and no shell
        finally:
            signal.signal(signal.SIGPIPE, before)
