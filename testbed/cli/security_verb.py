"""``testbed security``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser
    from testbed.lab.security import RuleCount
    from testbed.plan.service_tags import Addresses

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "show a machine's effective security rules in Azure's terms, and what they have decided"
EXAMPLE = "testbed security network-security-groups web2"

_HEAD = ("DIRECTION", "GROUP", "OF", "PRIORITY", "NAME", "ACCESS", "PROTOCOL", "SOURCE", "DESTINATION", "HITS")


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of the machine")


def run(arguments: argparse.Namespace) -> int:
    """Show them."""
    from testbed.cli.output import print_json, print_table
    from testbed.cli.rights import need_rights
    from testbed.lab.security import security_rules
    from testbed.lab.state import State
    from testbed.lab.up import load_plan_and_topology

    need_rights()
    plan, topology = load_plan_and_topology(State(arguments.lab))
    interfaces = security_rules(plan, topology, arguments.machine)
    if arguments.json:
        answer = [
            {
                "network_interface": each.interface.name,
                "subnet": each.interface.subnet_key,
                "value": [_to_json(rule) for rule in each.rules],
            }
            for each in interfaces
        ]
        print_json({"lab": plan.lab, "machine": arguments.machine, "effective_security_rules": answer})
        return 0
    for each in interfaces:
        where = f"{each.interface.name} {each.interface.address}"
        if not each.rules:
            print(f"{where}: no network security group, everything may pass")
            continue
        print(f"{where}, subnet {each.interface.subnet_key}; hits: flows allowed, packets denied")
        print_table(_HEAD, [_row(rule) for rule in each.rules], indent="  ")
        for word, prefixes in _tags(each.rules).items():
            print(f"  {word} here: {prefixes}")
    return 0


def _row(counted: RuleCount) -> tuple[object, ...]:
    rule = counted.rule
    return (
        rule.direction.value,
        counted.group.name,
        counted.group.association,
        rule.priority,
        rule.name,
        rule.access,
        rule.protocol.value,
        _side(rule.source, rule.source_ports),
        _side(rule.destination, rule.destination_ports),
        counted.hits,
    )


def _side(addresses: Addresses, ports: tuple[tuple[int, int], ...]) -> str:
    from testbed.topology.security import port_words

    return ",".join(addresses.words) + (f" port {','.join(port_words(ports))}" if ports else "")


def _tags(rules: tuple[RuleCount, ...]) -> dict[str, str]:
    """What the service tag ``VirtualNetwork`` stands for here."""
    sides = [side for each in rules for side in (each.rule.source, each.rule.destination)]
    return {side.words[0]: _expanded(side) for side in sides if side.words == ("VirtualNetwork",)}


def _expanded(addresses: Addresses) -> str:
    return ("all but " if addresses.outside else "") + ", ".join(map(str, addresses.prefixes))


def _to_json(counted: RuleCount) -> dict[str, Any]:
    from testbed.topology.security import port_words

    rule = counted.rule
    return {
        "network_security_group": counted.group.name,
        "association": counted.group.association,
        "name": rule.name,
        "priority": rule.priority,
        "direction": rule.direction.value,
        "access": rule.access,
        "protocol": rule.protocol.value,
        "source_address_prefixes": list(rule.source.words),
        "expanded_source_address_prefix": _expanded(rule.source),
        "source_port_ranges": port_words(rule.source_ports) or ["*"],
        "destination_address_prefixes": list(rule.destination.words),
        "expanded_destination_address_prefix": _expanded(rule.destination),
        "destination_port_ranges": port_words(rule.destination_ports) or ["*"],
        "hits": counted.hits,
    }
