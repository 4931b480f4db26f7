"""Where a packet comes from, and its fate: balanced, for the internet, or only routed."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.plan.network import Interval, ToRule
from testbed.plan.numbers import INTERNET_ZONE, balance_mark, table_mark
from testbed.plan.ruleset.context import PROBE_SOURCE
from testbed.plan.ruleset.rewriting import give_back
from testbed.plan.ruleset.text import block
from testbed.plan.ruleset.versions import neighbours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import NetworkInterface, Rule
    from testbed.plan.network import SubnetView
    from testbed.plan.ruleset.context import Fabric

__all__ = ["classify", "from_member", "from_subnet"]


def classify(fabric: Fabric) -> list[str]:
    """The hook that tells cables apart, and the chains of the fates."""
    senders = [f'"{each.fabric_name}" : goto {_chain_of(fabric, each)}' for each in fabric.interfaces]
    if fabric.internet:
        senders.append(f'"{fabric.internet.fabric_name}" : goto from_internet')
    rules = [
        "type filter hook prerouting priority raw; policy accept;",
        *(["ip daddr 255.255.255.255 udp dport 67 notrack accept"] if fabric.dhcp else []),
        *neighbours(fabric, "notrack accept"),
        f"iifname vmap {{ {', '.join(senders)} }}",
        'iifname != "lo" drop comment "not a cable of this lab"',
    ]
    lines = block("chain classify", rules)
    lines += block("chain platform", ["notrack"])
    if fabric.internet:
        lines += block("chain from_internet", [f"ct zone set {INTERNET_ZONE}"])
        lines += block("chain zone_internet", [f"ct zone set {INTERNET_ZONE}"])
    for rule in fabric.rules:
        zone = [f"ct zone set {rule.id} meta mark set {balance_mark(rule.id):#010x}"]
        lines += block(f"chain zone_{rule.id}", zone)
    return lines


def _chain_of(fabric: Fabric, interface: NetworkInterface) -> str:
    if interface.member_id:
        return f"member_{interface.member_id}"
    return f"subnet_{fabric.subnets[interface.subnet_key].number}"


def _fates(fabric: Fabric, view: SubnetView) -> list[str]:
    """The subnet's routing table, and where what is not only routed goes."""
    fates = [
        f"{each.first}-{each.last} : goto "
        + (f"zone_{each.target.rule.id}" if isinstance(each.target, ToRule) else "zone_internet")
        for each in _without(fabric.intervals[view.key], IPv4Address(PROBE_SOURCE))
    ]
    if fabric.version == 4:  # the platform of IPv6 is link-local
        fates.append(f"{PROBE_SOURCE} : goto platform")
    told_apart = [f"ip daddr vmap {{ {', '.join(fates)} }}"] if fates else []
    return [f"meta mark set {table_mark(view.number):#010x}", *told_apart]


def from_subnet(fabric: Fabric, view: SubnetView) -> list[str]:
    """What comes from network interfaces of a subnet that are in no pool."""
    senders = [each for each in fabric.interfaces if each.subnet_key == view.key and not each.member_id]
    return block(f"chain subnet_{view.number}", [*_fates(fabric, view), "notrack"]) if senders else []


def from_member(fabric: Fabric, interface: NetworkInterface) -> list[str]:
    """What comes from a pool member; its answers to balanced flows are tracked.

    Answers that are not balanced on their way back belong to their rule's zone too, so that conntrack sees
    both directions and keeps the flow's member: those that carry the frontend as source, and those that an
    appliance delivers from elsewhere, because it had translated the source (to the internet, say).
    """
    rules = [rule for rule in fabric.rules if interface.member_id in {member.id for member in rule.members}]
    lines = [
        f"ip saddr {interface.address} {give_back(rule, interface.member_id)}"
        for rule in rules
        if not rule.enable_floating_ip
    ]
    lines += _fates(fabric, fabric.subnets[interface.subnet_key])
    for rule in rules:
        lines.append(f"ip saddr {rule.frontend_address} ct zone set {rule.id} accept")
        if rule.transit and (prefixes := ", ".join(_balanced_prefixes(fabric, rule))):
            delivered = f"ip daddr {{ {prefixes} }} ip saddr != {{ {prefixes} }}"
            lines.append(f"{delivered} ct zone set {rule.id} accept")
    return block(f"chain member_{interface.member_id}", [*lines, "notrack"])


def _balanced_prefixes(fabric: Fabric, rule: Rule) -> list[str]:
    """Subnets that send something through the rule's members."""
    return [
        view.address_prefix
        for key, view in fabric.subnets.items()
        if any(
            each.target == ToRule(rule) and str(each.first) != rule.frontend_address for each in fabric.intervals[key]
        )
    ]


def _without(intervals: tuple[Interval, ...], address: IPv4Address) -> Iterator[Interval]:
    """The intervals, less one address: elements of a map must not overlap."""
    for each in intervals:
        if each.first.version != address.version or not int(each.first) <= int(address) <= int(each.last):
            yield each
            continue
        if each.first != address:
            yield Interval(each.first, address - 1, each.target)
        if each.last != address:
            yield Interval(address + 1, each.last, each.target)
