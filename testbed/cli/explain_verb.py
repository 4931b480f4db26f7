"""``testbed explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.cli.words import address, port

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser
    from testbed.lab.explain import ExplainedHop

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "tell a packet's way hop by hop: the route that wins and why, the member"
EXAMPLE = """\
testbed explain hub-spoke --from web1 --to 10.2.0.4
testbed explain hub-spoke --from web1 --to 10.2.0.4 --protocol tcp --source-port 40000 --destination-port 443"""


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("--from", dest="sender", metavar="MACHINE", required=True, help="machine that sends")
    parser.add_argument("--to", metavar="IP", type=address, required=True, help="destination address")
    protocols = ("tcp", "udp")
    parser.add_argument(
        "--protocol", metavar="NAME", choices=protocols, default="tcp", help="tcp or udp (default: tcp)"
    )
    parser.add_argument("--source-port", metavar="PORT", type=port, help="with both ports a live flow is looked up")
    parser.add_argument(
        "--destination-port", metavar="PORT", type=port, help="chooses between rules of a frontend; see --source-port"
    )


def run(arguments: argparse.Namespace) -> int:
    """Explain."""
    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.lab.explain import explain
    from testbed.lab.state import State
    from testbed.lab.up import load_plan_and_topology

    need_rights()
    plan, topology = load_plan_and_topology(State(arguments.lab))
    flow = (arguments.protocol, arguments.source_port, arguments.destination_port)
    hops = explain(plan, topology, arguments.sender, arguments.to, *flow)
    if arguments.json:
        print_json({"lab": plan.lab, "hops": [_to_json(each) for each in hops]})
        return 0
    if not hops:
        print(f"{arguments.sender} is outside the virtual networks: no effective route decides what it sends")
    for number, each in enumerate(hops, 1):
        _print_hop(number, each)
    return 0


def _to_json(explained: ExplainedHop) -> dict[str, Any]:
    hop = explained.hop
    return {
        "sender": hop.sender,
        "sender_address": hop.sender_address,
        "route": hop.route.to_json() if hop.route else None,
        "losing_routes": [each.to_json() for each in hop.losers],
        "kind": hop.kind,
        "detail": hop.detail,
        "loop": hop.loop,
        "refusal": hop.refusal.reason if hop.refusal else None,
        "refused_packets": explained.refused,
        "frontend_ip_configuration": hop.rule.frontend if hop.rule else None,
        "load_balancing_rule": hop.rule.name if hop.rule else None,
        "member": explained.member,
        "predicted": explained.predicted,
        "candidates": list(explained.candidates),
        "blocked": explained.blocked.to_json() if explained.blocked else None,
    }


def _print_hop(number: int, explained: ExplainedHop) -> None:
    hop = explained.hop
    print(f"{number}. {hop.sender} ({hop.sender_address}) sends")
    if hop.route:
        print(f"   route: {hop.route.why()}")
    for each in hop.losers:
        why = "overridden" if each.state == "Invalid" else "its prefix is shorter"
        print(f"     not: {each.why()} ({why})")
    print(f"   {hop.kind}: {hop.detail}")
    if hop.rule:
        if explained.member:
            print(f"   member: {explained.member} (this flow is live)")
        elif explained.predicted:
            print(f"   member: {explained.predicted} (what a new flow gets: its addresses choose)")
        else:
            names = ", ".join(explained.candidates) or "nobody: the packet is dropped"
            print(f"   candidates: {names} (the flow's hash chooses; no such flow is live)")
    if explained.blocked:
        print(f"   {explained.blocked.why()}")
    if hop.refusal:
        print(f"   DROPPED: {hop.refusal.reason}; {explained.refused} packets so far")
    if hop.loop:
        print("   LOOP: the packet has come back to a subnet it left before; it goes round until its TTL ends")
