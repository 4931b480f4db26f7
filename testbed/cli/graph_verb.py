"""``testbed graph``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "draw a document's virtual networks, peerings, routes and balancers"
EXAMPLE = "testbed graph topologies/hub-spoke.yaml --format svg > hub-spoke.svg"


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("document", metavar="FILE", type=Path, help="topology document")
    formats = ("svg", "mermaid", "dot")
    parser.add_argument(
        "--format", metavar="FORMAT", choices=formats, default="mermaid", help="svg, mermaid or dot (default: mermaid)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Draw it."""
    from testbed.cli.output import print_json
    from testbed.graph import render
    from testbed.topology.loading import load

    picture = render(load(arguments.document).topology, arguments.format)
    if arguments.json:
        print_json({"format": arguments.format, "graph": picture})
    else:
        print(picture)
    return 0
