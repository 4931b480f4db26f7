"""The fabric's rules in the words of the other IP version.

They are written once, in IPv4's words: what they say of a packet's addresses, of messages about it and of fragments is
the same in IPv6 under another name. What has no counterpart is written by the part that needs it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from testbed.plan.ruleset.context import Fabric

__all__ = ["LINK_LOCAL", "QUOTED", "in_words_of", "neighbours"]


class _Quoted(NamedTuple):
    """Fields of the packet that an ICMP error quotes, as nft finds them: in bits from the ICMP header on."""

    protocol: str
    source: str
    source_port: str
    destination_port: str


#: By IP version; of IPv4, a header without options.
QUOTED = {
    4: _Quoted("@th,136,8", "@th,160,32", "@th,224,16", "@th,240,16"),
    6: _Quoted("@th,112,8", "@th,128,128", "@th,384,16", "@th,400,16"),
}

#: What never leaves a cable: neighbour discovery, the platform's address, groups.
LINK_LOCAL = "ip6 daddr { fe80::/10, ff00::/8 }"
_IPV6_WORDS = (
    (re.compile(r"\bip (saddr|daddr|dscp)\b"), r"ip6 \1"),
    (re.compile(r"\bl3proto ip\b"), "l3proto ip6"),
    (re.compile(r"\bl4proto icmp\b"), "l4proto ipv6-icmp"),
    (re.compile(r"\bicmp (type|code|id)\b"), r"icmpv6 \1"),
    (re.compile(r"\btype \{ destination-unreachable, "), "type { destination-unreachable, packet-too-big, "),
    (re.compile(r"\bip frag-off & 0x3fff != 0"), "exthdr frag exists"),
)


def in_words_of(version: int, lines: list[str]) -> list[str]:
    """Lines of rules that are written for IPv4, for an IP version."""
    if version == 4:
        return lines
    translated = []
    for each in lines:
        line = each
        for words, others in _IPV6_WORDS:
            line = words.sub(others, line)
        translated.append(line)
    return translated


def neighbours(fabric: Fabric, verdict: str) -> list[str]:
    """A rule for what never leaves a cable, before others judge addresses; IPv4 has ARP, which they do not see."""
    return [f"{LINK_LOCAL} {verdict}"] if fabric.version == 6 else []
