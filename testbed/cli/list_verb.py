"""``testbed list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "list the labs on this machine"
EXAMPLE = "testbed list"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to declare."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """List them."""
    from testbed.cli.output import print_json, print_table
    from testbed.kernel import namespaces
    from testbed.lab import controller
    from testbed.lab.down import all_labs
    from testbed.lab.state import State

    rows = []
    for name in all_labs():
        state = State(name)
        record = state.record()
        rows.append(
            {
                "lab": name,
                "namespaces": len(namespaces.owned(name)),
                "controller": controller.ask(state, "ping") is not None,
                "time_scale": record.time_scale if record else None,
                "document": record.document if record else None,
            }
        )
    if arguments.json:
        print_json({"labs": rows})
        return 0
    if not rows:
        print("no labs; bring one up: testbed up FILE")
    print_table(
        ("LAB", "NAMESPACES", "CONTROLLER", "TIME SCALE", "DOCUMENT"),
        [
            (
                each["lab"],
                each["namespaces"],
                "alive" if each["controller"] else "dead",
                each["time_scale"] or "?",
                each["document"] or "state is lost",
            )
            for each in rows
        ],
    )
    return 0
