"""``testbed schema``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "print the JSON Schema of documents, for editors"
EXAMPLE = "testbed schema > topology.schema.json"


def add_arguments(parser: Parser) -> None:
    """Nothing to declare."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Print it; it is JSON with or without ``--json``."""
    from testbed.cli.output import print_json
    from testbed.topology.schema import json_schema

    del arguments
    print_json(json_schema())
    return 0
