"""Packets in the middle of a TCP flow that the balancer does not know: it has forgotten the flow, or never met it.

They are dropped without a word, as Azure drops what comes after the idle timeout; a flow is not balanced anew. One
kind of flow the balancer meets in the middle: with another frontend on the way there (two load balancers, one on each
side), the first packet of the way back is a SYN-ACK. That begins a flow too, and a set remembers it, because
connection tracking takes no notice of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.plan.ruleset.text import block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from testbed.plan.model import Rule

__all__ = ["stranger_objects", "strangers", "unbalanced_strangers"]

_FLOW = "ip saddr . ip daddr . tcp sport . tcp dport"
_MOST = 65_536
#: What connection tracking would take for a new flow, and what it makes nothing of.
_MIDDLES = ("tcp flags & (syn | ack) != syn ct state new", "tcp flags & (fin | rst) != 0 ct state invalid")


def stranger_objects(rule: Rule, seconds: int) -> list[str]:
    """Flows whose first packet was a SYN-ACK; they are forgotten as others are."""
    lines = [f"typeof {_FLOW}", f"size {_MOST}", "flags dynamic,timeout", f"timeout {seconds}s"]
    return block(f"set halves_{rule.id}", lines)


def strangers(rule: Rule) -> list[str]:
    """In a rule's chain, behind what flows of a known member take: unknown middles are dropped."""
    return [
        f"tcp flags & (syn | ack) == syn | ack ct state invalid update @halves_{rule.id} {{ {_FLOW} }}",
        *(f"{middle} {_FLOW} != @halves_{rule.id} drop" for middle in _MIDDLES),
    ]


def unbalanced_strangers(rules: Iterable[Rule]) -> list[str]:
    """The same for what belongs to a rule's zone and is only delivered: answers of members."""
    zones = ", ".join(str(rule.id) for rule in rules)
    return [f"ct zone {{ {zones} }} {middle} drop" for middle in _MIDDLES]
