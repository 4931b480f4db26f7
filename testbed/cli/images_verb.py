"""``testbed images``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "build the images of containers and virtual machines that are missing; list them"
EXAMPLE = """\
testbed images
testbed images nft-firewall vm-firewall"""


def add_arguments(parser: Parser) -> None:
    """Names, all images without."""
    parser.add_argument("image", nargs="*", metavar="NAME", help="a folder in containers/ (default: all of them)")


def run(arguments: argparse.Namespace) -> int:
    """Build them; what takes a while is told on standard error."""
    import sys
    from dataclasses import asdict

    from testbed.cli.output import print_json, print_table, weak
    from testbed.images import build_all

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    images = build_all(arguments.image, say)
    if arguments.json:
        print_json({"images": [asdict(each) for each in images]})
        return 0
    table = [(each.name, each.reference, f"{each.size / 1e6:.0f} MB", "built" if each.built else "") for each in images]
    print_table(("IMAGE", "REFERENCE", "SIZE", ""), table)
    print(weak("\nin a document: runtime: {kind: container, build: IMAGE}"))
    return 0
