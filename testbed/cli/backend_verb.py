"""``testbed backend``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser
    from testbed.lab.backend import Backend

__all__ = ["EXAMPLE", "HELP", "STATES", "add_arguments", "run"]

HELP = "set the admin state of a pool member, or drain it"
EXAMPLE = """\
testbed backend hub-spoke nvas nva1 --admin-state Down
testbed backend hub-spoke nva-lb/nvas nva1/eth0 --drain --timeout 60
testbed backend hub-spoke nvas nva1 --admin-state None"""
STATES = ("None", "Up", "Down")
_TIMEOUT = 300.0


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("pool", metavar="POOL", help="load_balancer/pool, or its last part when that is unique")
    parser.add_argument("member", metavar="MEMBER", help="machine, or machine/eth1 when several of its are members")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--admin-state", choices=STATES, help="None: the probe decides; Up: whatever it says; Down: no new flows"
    )
    what.add_argument("--drain", action="store_true", help="set Down, and wait until no TCP flow is left")
    parser.add_argument("--timeout", type=float, default=_TIMEOUT, metavar="SECONDS", help="of --drain (default 300)")


def run(arguments: argparse.Namespace) -> int:
    """Do it; with no option, show the member."""
    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.lab import backend
    from testbed.lab.state import State
    from testbed.lab.up import load_plan

    need_rights()
    plan = load_plan(State(arguments.lab))
    pool, member = backend.find(plan, arguments.pool, arguments.member)
    if arguments.drain:
        say = _quiet if arguments.json else _tell
        now = backend.drain(plan, pool, member, seconds=arguments.timeout, say=say)
    elif arguments.admin_state:
        now = backend.set_admin_state(plan, pool, member, arguments.admin_state)
    else:
        now = backend.backend_address(plan, pool, member)
    if arguments.json:
        words = {"pool": now.pool, "member": now.member, "admin_state": now.admin_state, "flows": now.flows}
        print_json(words)
    elif not arguments.drain:
        _tell(now)
    return 0


def _tell(now: Backend) -> None:
    from testbed.cli.output import counted

    flows = counted(now.flows, "TCP flow") if now.flows else "no TCP flows"
    print(f"{now.member} of {now.pool}: admin state {now.admin_state}, {flows}", flush=True)


def _quiet(_now: Backend) -> None:
    """JSON is one document, at the end."""
