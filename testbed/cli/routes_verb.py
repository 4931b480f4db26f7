"""``testbed routes``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "show a machine's effective routes in Azure's terms"
EXAMPLE = "testbed routes hub-spoke web1"


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of the machine")


def run(arguments: argparse.Namespace) -> int:
    """Show them."""
    from testbed.cli.output import print_json, print_table
    from testbed.lab.state import State
    from testbed.lab.up import load_plan_and_topology
    from testbed.plan.compile import network_of

    plan, topology = load_plan_and_topology(State(arguments.lab))
    networks = {version: network_of(topology, plan, version) for version in plan.versions}
    tables = [
        (own, network.subnet(own.virtual_network, own.subnet).routes if own.subnet else ())
        for interface in plan.machine(arguments.machine).network_interfaces
        for version, network in networks.items()
        if (own := interface.of_version(version))
    ]
    if arguments.json:
        answer = [
            {
                "network_interface": interface.name,
                "subnet": interface.subnet_key,
                "value": [r.to_json() for r in routes],
            }
            for interface, routes in tables
        ]
        print_json({"lab": plan.lab, "machine": arguments.machine, "effective_routes": answer})
        return 0
    for interface, routes in tables:
        if not interface.subnet:
            print(f"{interface.name} {interface.address}: outside the virtual networks, no effective routes")
            continue
        print(f"{interface.name} {interface.address}, subnet {interface.subnet_key}")
        print_table(
            ("SOURCE", "STATE", "ADDRESS PREFIX", "NEXT HOP TYPE", "NEXT HOP IP", "NAME"),
            [
                (r.source, r.state, r.address_prefix, r.next_hop_type, r.next_hop_ip_address or "", r.name or "")
                for r in routes
            ],
            indent="  ",
        )
    return 0
