"""Flows whose destination is rewritten from a frontend to a member: what is kept of them, so that answers find back.

IPv4: a map per member, from the flow to the frontend. nft 1.0.6 cannot fill a map by a key longer than 16 bytes, so for
IPv6 it is a set per member and rule: the rule has one frontend.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from testbed.plan.ruleset.context import idle_seconds
from testbed.plan.ruleset.text import block
from testbed.plan.ruleset.versions import QUOTED

if TYPE_CHECKING:
    from testbed.plan.model import Member, Rule
    from testbed.plan.ruleset.context import Fabric

__all__ = ["TOO_BIG", "give_back", "rewritten_flows", "take_over", "tell"]

#: Rewritten flows one member can have at a time; a full table drops new ones.
_REWRITTEN_FLOWS = 524_288
#: A rewritten flow as its packets to the member show it, and as the member's answers do.
_FLOW = "ip saddr . meta l4proto . th sport . th dport"
_FLOW_BACK = "ip daddr . meta l4proto . th dport . th sport"
#: Type and code of the message that path MTU discovery waits for, by IP version: RFC 1191 and RFC 8201.
TOO_BIG = {4: (3, 4), 6: (2, 0)}


def _set(rule: Rule, member: int) -> str:
    return f"frontend_{rule.id}_{member}"


def rewritten_flows(fabric: Fabric) -> list[str]:
    """What holds the flows of members; the rules that rewrite for one have their backend ports apart."""
    rewriting = [rule for rule in fabric.rules if not rule.enable_floating_ip]
    if fabric.version == 4:
        ids = sorted({member.id for rule in rewriting for member in rule.members})
        named = [("map", f"frontend_{each}", " : ip daddr") for each in ids]
    else:
        named = [("set", _set(rule, member.id), "") for rule in rewriting for member in rule.members]
    lines: list[str] = []
    for kind, name, value in named:
        lines += block(
            f"{kind} {name}", [f"typeof {_FLOW}{value}", f"size {_REWRITTEN_FLOWS}", "flags dynamic,timeout"]
        )
    return lines


def take_over(fabric: Fabric, rule: Rule, member: Member) -> str:
    """Remember the flow, and give the packet the member's address.

    Longer than the balancer remembers it, so that what its member sends too late is known, and dropped.
    """
    flow = f"{_FLOW} timeout {2 * idle_seconds(rule, fabric.time_scale)}s"
    if rule.version == 6:
        return f"update @{_set(rule, member.id)} {{ {flow} }} ip daddr set {member.address}"  # noqa: S608
    return f"update @frontend_{member.id} {{ {flow} : ip daddr }} ip daddr set {member.address}"  # noqa: S608


def give_back(rules: list[Rule], member: int) -> list[str]:
    """Give an answer from the member's own address that of the frontend; one of ``rules`` has the flow."""
    if rules[0].version == 4:
        return [f"ip saddr set {_FLOW_BACK} map @frontend_{member}"]
    return [f"{_FLOW_BACK} @{_set(rule, member)} ip saddr set {rule.frontend_address}" for rule in rules]


def tell(rule: Rule, member: Member) -> list[str]:
    """Give "too big" about an answer to the member that sent it: what is quoted has its own address and port again.

    nft corrects no checksum for bits that it has no name for, so that of the message is made right by a detour: type
    and code take up the difference of the quoted words, which nft corrects, and are put back as bits, which it does
    not. The quoted IPv4 header's own checksum stays as it was; hosts do not look at it.
    """
    quoted = QUOTED[rule.version]
    new, old = ip_address(member.address).packed, ip_address(rule.frontend_address).packed
    lines = [f"{quoted.source} set 0x{new.hex()}"]
    if rule.rewritten_port:
        lines.append(f"{quoted.source_port} set {rule.rewritten_port:#06x}")
        new += struct.pack("!H", rule.rewritten_port)
        old += struct.pack("!H", rule.frontend_port)
    head = int.from_bytes(bytes(TOO_BIG[rule.version]), "big")
    detour = (head + _sum(new) - _sum(old)) % 0xFFFF
    lines.append(f"icmp type set {detour >> 8} icmp code set {detour & 0xFF} @th,0,16 set {head:#06x}")
    return [*lines, f"ip daddr set {member.address}"]


def _sum(words: bytes) -> int:
    """The sum of 16-bit words, as checksums have it but for the carry."""
    return sum(struct.unpack(f"!{len(words) // 2}H", words))
