"""``testbed plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "show the kernel objects that 'up' would make"
EXAMPLE = "testbed plan topologies/hub-spoke.yaml"


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("document", metavar="FILE", type=Path, help="topology document")
    parser.add_argument("--lab", metavar="NAME", help="name of the lab (default: the document's name)")


def run(arguments: argparse.Namespace) -> int:
    """Show them."""
    from dataclasses import asdict

    from testbed.cli.output import print_json, weak
    from testbed.lab.state import ROOT, check_lab_name
    from testbed.plan.compile import compile_plan
    from testbed.plan.describe import describe
    from testbed.plan.numbers import Numbers
    from testbed.topology.loading import load

    topology = load(arguments.document).topology
    lab = arguments.lab or topology.name
    check_lab_name(lab)
    plan = compile_plan(topology, lab, Numbers(), str(ROOT / lab))
    if arguments.json:
        objects = [{"kind": type(each).__name__, **asdict(each)} for each in plan.objects]
        print_json({"lab": lab, "time_scale": plan.time_scale, "objects": objects})
        return 0
    namespace = ""
    for each in plan.objects:
        if each.namespace != namespace:
            namespace = each.namespace
            print(weak(f"# in {namespace}"))
        print(describe(each))
    print(weak(f"# {len(plan.objects)} objects"))
    return 0
