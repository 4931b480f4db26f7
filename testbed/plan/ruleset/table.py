"""The fabric's nftables rules, as text: which packets are balanced, how a member is chosen, what is rewritten.

A packet's way through table ``ip testbed``, all of it on prerouting:

0. What came in fragments is one packet again from -400 on (conntrack puts it together), and is cut again when it
   leaves. Before that, with ``fragments: Drop``, a bit of the mark remembers it until the packet's fate is known.
1. ``classify`` (raw, -300): the cable it comes from leads to the chain of its subnet, or of its pool member. Its
   destination says its fate: balanced (the rule's mark and conntrack zone; of several rules on a frontend, the one
   for its protocol and port before the one for all), for the internet (the internet's zone)
   or only routed (the mark of the subnet's routing table, not tracked).
2. ``balance`` (mangle, -150): a balanced packet gets the mark of a member, or is dropped (nobody is eligible:
   silence, never a reset).
3. Policy rules turn marks into routing tables (:mod:`testbed.plan.numbers`).

Before and after that, :mod:`testbed.plan.ruleset.interfaces` drops what Azure's hosts would not let through.

The destination of what is addressed to a frontend without floating IP is rewritten when the member is chosen, and
the source of the answers as soon as they come from the member's cable, before anything else looks at them: as
Azure's virtual switch does on the member's host. That is stateless but for a table of the flows it was done for.

A lab with IPv6 has ``table ip6 testbed`` beside it, with the same rules for its IPv6 addresses and frontends. Numbers
(marks, zones, routing tables) mean the same in both.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from testbed.plan.ruleset import ipvs
from testbed.plan.ruleset.balance import balance, counters, rule_chains, rule_objects, timeouts
from testbed.plan.ruleset.classify import classify, fragments, from_member, from_subnet, frontend
from testbed.plan.ruleset.interfaces import interfaces
from testbed.plan.ruleset.local import local
from testbed.plan.ruleset.rewriting import rewritten_flows
from testbed.plan.ruleset.text import block
from testbed.plan.ruleset.versions import in_words_of

if TYPE_CHECKING:
    from testbed.plan.ruleset.context import Fabric

__all__ = ["fabric_ruleset"]


def fabric_ruleset(fabric: Fabric) -> str:
    """The text that defines ``table ip testbed`` of a fabric, or ``table ip6 testbed``."""
    lines: list[str] = []
    for rule in fabric.rules:
        lines += rule_objects(fabric, rule)
    lines += rewritten_flows(fabric)
    lines += timeouts(fabric)
    lines += counters(fabric)
    lines += fragments(fabric)
    lines += classify(fabric)
    for rules in fabric.frontends:
        lines += frontend(fabric, rules)
    for view in fabric.subnets.values():
        lines += from_subnet(fabric, view)
    for each in fabric.interfaces:
        if each.member_id:
            lines += from_member(fabric, each)
    lines += balance(fabric)
    for rule in fabric.rules:
        lines += rule_chains(fabric, rule)
    lines += ipvs.answers(fabric) if fabric.balancer == "ipvs" else []
    lines += interfaces(fabric)
    lines += local(fabric)
    lines = in_words_of(fabric.version, lines)
    # An empty chain names the version, so that what is loaded can be told from what should be.
    version = blake2b("\n".join(lines).encode(), digest_size=6).hexdigest()
    return "\n".join([f"table {fabric.table} {{", *lines, *block(f"chain version_{version}", []), "}", ""])
