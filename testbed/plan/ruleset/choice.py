"""What of a packet chooses the member, as nftables computes it.

``Default`` hashes the five-tuple with ``symhash``, which is the same for both directions. The other modes leave the
ports out, which symhash cannot: each end is hashed by itself, with a seed that is known, and a map of pairs holds the
owner. It says the same of (a, b) and (b, a), which makes the choice the same for both directions.
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.plan.model import Rule

__all__ = ["HASH_SEED", "flow_hash", "hash_type", "pair_side"]

#: Of the hashes of single ends; fixed, so that the member of a flow can be told beforehand.
HASH_SEED = 0x7E57BED


def pair_side(rule: Rule) -> int:
    """How many values the hash of one end has, in modes without ports; the pairs of them are the rule's buckets."""
    return isqrt(rule.buckets)


def flow_hash(rule: Rule) -> str:
    """The expression that gives a packet's bucket: a number, or a pair of numbers."""
    if rule.hashes_ports:
        return f"symhash mod {rule.buckets}"
    more = " . meta l4proto" if rule.load_distribution == "SourceIPProtocol" else ""
    ends = (f"jhash ip {end}{more} mod {pair_side(rule)} seed {HASH_SEED:#x}" for end in ("saddr", "daddr"))
    return " . ".join(ends)


def hash_type(rule: Rule) -> str:
    """The type of :func:`flow_hash` in the declaration of a map; nft 1.0.6 cannot list one that names jhash."""
    if rule.hashes_ports:
        return f"symhash mod {rule.buckets}"
    return f"symhash mod {pair_side(rule)} . symhash mod {pair_side(rule)}"
