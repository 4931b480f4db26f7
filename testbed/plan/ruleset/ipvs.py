"""The rules round IPVS: what is asked, how its answer comes back, and what never gets to it.

A first packet leaves its rule's chain with a mark that a policy rule takes for local; IPVS (on input) picks a member
and sends the packet out again; on output its cable tells which one, and conntrack's mark keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.plan.numbers import IPVS_MASK
from testbed.plan.ruleset.context import idle_seconds
from testbed.plan.ruleset.interfaces import closed_to
from testbed.plan.ruleset.text import block
from testbed.plan.virtual_services import asks, flow_address, service_marks

if TYPE_CHECKING:
    from testbed.plan.model import Rule
    from testbed.plan.ruleset.context import Fabric

__all__ = ["RECEIVED", "answers", "question", "ways_to_ask"]

#: Lets marked packets pass the filter on input; IPVS comes after it.
RECEIVED = f"meta mark & {IPVS_MASK:#010x} != 0 accept"


def question(rule: Rule) -> list[str]:
    """Lines of a rule's chain that hand a new flow to IPVS; all that they leave over is picked by nftables.

    IPVS takes no packets from port 20 (it holds them for FTP data), and no resets as the first of a flow; and what
    conntrack does not know could not be told its member.
    """
    if not asks(rule):
        return []
    known = "ct state established,new"
    return [
        f"{known} udp sport != 20 goto ask_{rule.id}",
        f"{known} tcp sport != 20 tcp flags & rst == 0 goto ask_{rule.id}",
    ]


def ways_to_ask(fabric: Fabric, rule: Rule) -> list[str]:
    """The chain that dresses a packet for IPVS."""
    if not asks(rule):
        return []
    tcp, udp = service_marks(rule)
    pool = {each.virtual_network for each in fabric.interfaces if each.member_id in {one.id for one in rule.members}}
    lines = [
        *(line for name in sorted(pool) for line in closed_to(fabric, name)),
        f'meta l4proto tcp ct timeout set "idle_{idle_seconds(rule, fabric.time_scale)}"',
        f"meta mark set {tcp:#010x}",
        f"meta l4proto udp meta mark set {udp:#010x}",
        # IPVS would drop the first packet of a flow that it knows with another member: so it gets a new name.
        f"ct mark != 0 ip daddr set {flow_address(rule, again=True)} accept",
        f"ip daddr set {flow_address(rule)} accept",
    ]
    return block(f"chain ask_{rule.id}", lines)


def answers(fabric: Fabric) -> list[str]:
    """What IPVS sends out, and what it refuses: that ends silently, and never at the fabric's own ears."""
    rules = [rule for rule in fabric.rules if asks(rule)]
    if not rules:
        return []
    marks = [f"{mark:#010x} : goto chosen_{rule.id}" for rule in rules for mark in service_marks(rule)]
    hook = "type filter hook output priority mangle; policy accept;"
    lines = block("chain chosen", [hook, f"meta mark vmap {{ {', '.join(marks)} }}"])
    for rule in rules:
        cables = ", ".join(f'"{member.fabric_name}" : {member.id}' for member in rule.members)
        undressed = [
            "ct direction original ip daddr set ct original ip daddr",
            "ct direction reply ip daddr set ct reply ip daddr",
        ]
        chosen = [
            *undressed,
            f"ct mark set oifname map {{ {cables} }}",
            "meta mark set ct mark",
            "counter name meta mark map @flows",
            f"goto steered_{rule.id}",
        ]
        lines += block(f"chain chosen_{rule.id}", chosen)
    hook = "type filter hook input priority 200; policy accept;"
    drop = f'meta mark & {IPVS_MASK:#010x} != 0 counter drop comment "IPVS has nobody for it"'
    return [*lines, *block("chain guard", [hook, drop])]
