"""Where a packet comes from, and its fate: balanced, for the internet, or only routed."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.plan.network import Interval, ToRule
from testbed.plan.numbers import FRAGMENT, INTERNET_ZONE, TABLE_MASK, balance_mark, table_mark
from testbed.plan.ruleset.context import PROBE_SOURCE
from testbed.plan.ruleset.rewriting import give_back
from testbed.plan.ruleset.text import block
from testbed.plan.ruleset.versions import QUOTED, neighbours
from testbed.topology.switches import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import NetworkInterface, Rule
    from testbed.plan.network import SubnetView
    from testbed.plan.ruleset.context import Fabric

__all__ = ["classify", "fragments", "from_member", "from_subnet", "frontend"]

#: ICMP messages that carry the head of the packet they are about.
_ERRORS = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
_PROTOCOL_NUMBERS = {"Tcp": 6, "Udp": 17}


def fragments(fabric: Fabric) -> list[str]:
    """Remember what came in fragments: afterwards it does not show."""
    if not _drops_fragments(fabric):
        return []
    remembered = f"ip frag-off & 0x3fff != 0 meta mark set {FRAGMENT:#010x}"
    return block("chain fragments", ["type filter hook prerouting priority -450; policy accept;", remembered])


def _drops_fragments(fabric: Fabric) -> bool:
    return fabric.switches.fragments is Transport.DROP and bool(fabric.rules)


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
        forget = [f"meta mark set meta mark & {TABLE_MASK:#010x}"] if _drops_fragments(fabric) else []
        lines += block("chain zone_internet", [*forget, f"ct zone set {INTERNET_ZONE}"])
    return lines


def frontend(fabric: Fabric, rules: tuple[Rule, ...]) -> list[str]:
    """What is balanced by a frontend's rules: each has its zone, and the most specific one counts."""
    lines: list[str] = []
    for rule in rules:
        zone = [f"ct zone set {rule.id} meta mark set {balance_mark(rule.id):#010x}"]
        if _drops_fragments(fabric):
            zone.insert(0, f'meta mark & {FRAGMENT:#010x} != 0 drop comment "fragments are not balanced"')
        lines += block(f"chain zone_{rule.id}", zone)
    ports = [rule for rule in rules if not rule.ha_ports]
    if not ports:
        return lines
    fates = [f"{rule.protocol.lower()} . {rule.frontend_port} : goto zone_{rule.id}" for rule in ports]
    choice = [f"meta l4proto . th dport vmap {{ {', '.join(fates)} }}"]
    quoted = QUOTED[fabric.version]
    for rule in ports:
        inner = f"{_ERRORS} {quoted.protocol} {_PROTOCOL_NUMBERS[rule.protocol]}"
        ports_there = (quoted.source_port, quoted.destination_port)
        choice += [f"{inner} {port} {rule.frontend_port} goto zone_{rule.id}" for port in ports_there]
    rest = [f"goto zone_{rule.id}" for rule in rules if rule.ha_ports]
    choice += rest or ['drop comment "no rule for this port"']
    return [*lines, *block(f"chain {_chain_of_rules(rules)}", choice)]


def _chain_of_rules(rules: tuple[Rule, ...]) -> str:
    """Where packets for a frontend, or through it, go."""
    if len(rules) == 1 and rules[0].ha_ports:
        return f"zone_{rules[0].id}"
    return f"ports_{rules[0].id}"


def _chain_of(fabric: Fabric, interface: NetworkInterface) -> str:
    if interface.member_id:
        return f"member_{interface.member_id}"
    return f"subnet_{fabric.subnets[interface.subnet_key].number}"


def _fates(fabric: Fabric, view: SubnetView) -> list[str]:
    """The subnet's routing table, and where what is not only routed goes."""
    fates = [
        f"{each.first}-{each.last} : goto "
        + (_chain_of_rules(each.target.rules) if isinstance(each.target, ToRule) else "zone_internet")
        for each in _without(fabric.intervals[view.key], IPv4Address(PROBE_SOURCE))
    ]
    if fabric.version == 4:  # the platform of IPv6 is link-local
        fates.append(f"{PROBE_SOURCE} : goto platform")
    kept = f"meta mark & {FRAGMENT:#010x} | " if _drops_fragments(fabric) else ""
    told_apart = [f"ip daddr vmap {{ {', '.join(fates)} }}"] if fates else []
    return [f"meta mark set {kept}{table_mark(view.number):#010x}", *told_apart]


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
    rules.sort(key=lambda rule: rule.ha_ports)  # the most specific one first
    lines, back = [], []
    rewriting = [rule for rule in rules if not rule.enable_floating_ip]
    if rewriting:
        lines = [f"ip saddr {interface.address} jump back_{interface.member_id}"]
        back = [*give_back(rewriting, interface.member_id), *_ports_back(rewriting)]
        back = block(f"chain back_{interface.member_id}", back)
    lines += _fates(fabric, fabric.subnets[interface.subnet_key])
    for rule in rules:
        answers = "" if rule.ha_ports else f"{rule.protocol.lower()} sport {rule.frontend_port} "
        lines.append(f"ip saddr {rule.frontend_address} {answers}ct zone set {rule.id} accept")
        if rule.transit and (prefixes := ", ".join(_balanced_prefixes(fabric, rule))):
            delivered = f"ip daddr {{ {prefixes} }} ip saddr != {{ {prefixes} }}"
            lines.append(f"{delivered} {answers}ct zone set {rule.id} accept")
    return [*back, *block(f"chain member_{interface.member_id}", [*lines, "notrack"])]


def _ports_back(rules: list[Rule]) -> list[str]:
    """Answers of rewritten flows get the frontend's port; their source is the frontend by now."""
    lines = []
    for rule in rules:
        if rule.rewritten_port:
            port = f"{rule.protocol.lower()} sport"
            answers = f"ip saddr {rule.frontend_address} {port} {rule.rewritten_port}"
            lines.append(f"{answers} {port} set {rule.frontend_port} return")
    return lines


def _balanced_prefixes(fabric: Fabric, rule: Rule) -> list[str]:
    """Subnets that send something through the rule's members."""
    return [
        view.address_prefix
        for key, view in fabric.subnets.items()
        if any(
            isinstance(each.target, ToRule) and rule in each.target.rules and str(each.first) != rule.frontend_address
            for each in fabric.intervals[key]
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
