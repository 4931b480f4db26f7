"""``testbed list``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "list the labs on this machine, also half-made ones"
EXAMPLE = "testbed list"


@dataclass(frozen=True, slots=True)
class _Row:
    """A lab; without a document its state is lost, and ``down`` is all that can be done to it."""

    lab: str
    namespaces: int
    controller: bool
    time_scale: float | None
    document: str | None


def add_arguments(parser: Parser) -> None:
    """Nothing to declare."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """List them."""
    from testbed.cli.output import bad, good, print_json, print_table, weak
    from testbed.cli.rights import need_rights
    from testbed.lab.down import all_labs

    need_rights()
    rows = [_row(name) for name in all_labs()]
    if arguments.json:
        print_json({"labs": [asdict(each) for each in rows]})
        return 0
    if not rows:
        print("no labs; bring one up: testbed up FILE")
    table = [
        (
            each.lab,
            each.namespaces,
            good("alive") if each.controller else bad("dead"),
            f"{each.time_scale:g}" if each.time_scale else "?",
            each.document or f"its state is lost; remove it: testbed down {each.lab}",
        )
        for each in rows
    ]
    print_table(("LAB", "NAMESPACES", "CONTROLLER", "TIME SCALE", "DOCUMENT"), table)
    if rows:
        print(weak(f"\nmore about one: testbed status {rows[0].lab}"))
    return 0


def _row(name: str) -> _Row:
    from testbed.errors import LabError
    from testbed.kernel import namespaces
    from testbed.lab import controller
    from testbed.lab.state import State

    state = State(name)
    try:
        record = state.record()
    except LabError:  # damaged: as good as lost
        record = None
    return _Row(
        lab=name,
        namespaces=len(namespaces.owned(name)),
        controller=controller.ask(state, "ping") is not None,
        time_scale=record.time_scale if record else None,
        document=record.document if record else None,
    )
