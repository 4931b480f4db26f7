"""``testbed schema``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "print the JSON Schema of the topology document, for editors"
EXAMPLE = "testbed schema > topology.schema.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to declare."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Print it; it is JSON with or without ``--json``."""
    from testbed.cli.output import print_json
    from testbed.topology.schema import json_schema

    del arguments
    print_json(json_schema())
    return 0
