"""The fabric's nftables rules, as text: which packets are balanced, how a member is chosen, what is rewritten.

A packet's way (table ``ip testbed``, all chains on prerouting unless named):

1. ``raw`` (-300): the sending interface gives the mark of its subnet's routing table; destinations whose
   effective route ends at a rule get the rule's balance mark and conntrack zone, those for the internet the
   internet's zone; everything else is only routed and not tracked, because a flow that is tracked on both of
   its legs would find its own mark on the second one and loop back to the appliance.
2. ``mangle`` (-150): balance marks go to their rule's chain, which leaves a member's mark on the packet, or
   drops it (no member: silence, never a reset).
3. Policy rules turn marks into routing tables (:mod:`testbed.plan.numbers`).
4. Table ``netdev testbed``: at the cable of a member without floating IP the destination is rewritten from
   the frontend to the member's own address, and the replies back, as Azure's virtual switch does on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from testbed.plan.network import ToRule
from testbed.plan.numbers import INTERNET_ZONE, TABLE_MASK, balance_mark, table_mark

if TYPE_CHECKING:
    from testbed.plan.model import NetworkInterface, Rule
    from testbed.plan.network import Interval, Network, SubnetView

Special = list[tuple["SubnetView", tuple["Interval", ...]]]

__all__ = ["PROBE_SOURCE", "InternetLink", "fabric_ruleset", "idle_seconds"]

#: Source of all health probes, and the platform's own address ("What is IP address 168.63.129.16?").
PROBE_SOURCE = "168.63.129.16"
#: Rewritten flows one member can have at a time; a full table drops new ones.
_REWRITTEN_FLOWS = 262_144


@dataclass(frozen=True, slots=True)
class InternetLink:
    """The cable to the internet machine, and the public address that what leaves is given.

    ``return_marks``: (mark of a sender's subnet, mark of the table that its replies use).
    """

    fabric_name: str
    source_address: str
    return_marks: tuple[tuple[int, int], ...]


def _block(head: str, lines: list[str]) -> list[str]:
    return [f"  {head} {{", *(f"    {line}" for line in lines), "  }"]


def _elements(elements: list[str]) -> list[str]:
    return [f"elements = {{ {', '.join(elements)} }}"] if elements else []


def idle_seconds(rule: Rule, time_scale: float) -> int:
    """A rule's idle timeout as the kernel takes it: whole seconds of the lab, at least one."""
    return max(1, round(rule.idle_timeout_in_minutes * 60 * time_scale))


def fabric_ruleset(
    network: Network,
    interfaces: tuple[NetworkInterface, ...],
    rules: tuple[Rule, ...],
    internet: InternetLink | None,
    time_scale: float,
) -> str:
    """The text that defines ``table ip testbed`` and ``table netdev testbed`` of a fabric."""
    subnets = {view.key: view for view in network.subnets}
    senders = [
        f'"{each.fabric_name}" : {table_mark(subnets[f"{each.virtual_network}/{each.subnet}"].number):#010x}'
        for each in interfaces
    ]
    special = [(view, intervals) for view in network.subnets if (intervals := network.intervals(view))]
    lines = ["table ip testbed {", *_block("map sender_table", ["type ifname : mark", *_elements(senders)])]
    for rule in rules:
        lines += _rule_objects(rule, time_scale)
    lines += _counters(rules)
    lines += _raw(special, internet)
    for view, intervals in special:
        lines += _subnet_chain(view, intervals)
    lines += _zones(rules, special)
    lines += _mangle(rules, internet)
    for rule in rules:
        lines += _rule_chain(rule)
    lines += _local(internet)
    rewriting = _rewriting(rules, time_scale)
    # An empty chain names the version, so that what is loaded can be told from what should be.
    version = blake2b("\n".join([*lines, *rewriting]).encode(), digest_size=6).hexdigest()
    return "\n".join([*lines, *_block(f"chain version_{version}", []), "}", *rewriting, ""])


def _rule_objects(rule: Rule, time_scale: float) -> list[str]:
    """The owner map and the eligible set, which change while the lab runs, and the idle timeout."""
    timeout = f"policy = {{ established : {idle_seconds(rule, time_scale)} }}"
    return [
        *_block(f"map owner_{rule.id}", [f"typeof symhash mod {rule.buckets} : meta mark", f"size {rule.buckets}"]),
        *_block(f"set eligible_{rule.id}", ["type mark", f"size {max(64, len(rule.members))}"]),
        *_block(f"ct timeout idle_{rule.id}", ["protocol tcp", "l3proto ip", timeout]),
    ]


def _counters(rules: tuple[Rule, ...]) -> list[str]:
    """Per member: flows given to it, packets steered to it."""
    if not rules:
        return []
    ids = sorted({member.id for rule in rules for member in rule.members})
    lines: list[str] = []
    for kind in ("flows", "packets"):
        for member in ids:
            lines += _block(f"counter {kind}_{member}", [])
        elements = _elements([f'{member} : "{kind}_{member}"' for member in ids])
        lines += _block(f"map {kind}", ["type mark : counter", *elements])
    return [*lines, *_block("chain steered", ["counter name meta mark map @packets"])]


def _raw(special: Special, internet: InternetLink | None) -> list[str]:
    rules = ["type filter hook prerouting priority raw; policy accept;"]
    if internet:
        rules.append(f'iifname "{internet.fabric_name}" ct zone set {INTERNET_ZONE} accept')
    rules += [
        "meta mark set iifname map @sender_table",
        'iifname != "lo" meta mark 0 drop comment "not a cable of this lab"',
        f"ip daddr {PROBE_SOURCE} notrack accept",
    ]
    if special:
        chains = [f"{table_mark(view.number):#010x} : goto subnet_{view.number}" for view, _ in special]
        rules.append(f"meta mark vmap {{ {', '.join(chains)} }}")
    rules.append("goto routed")
    return _block("chain classify", rules)


def _subnet_chain(view: SubnetView, intervals: tuple[Interval, ...]) -> list[str]:
    fates = [
        f"{each.first}-{each.last} : goto "
        + (f"zone_{each.target.rule.id}" if isinstance(each.target, ToRule) else "zone_internet")
        for each in intervals
    ]
    return _block(f"chain subnet_{view.number}", [f"ip daddr vmap {{ {', '.join(fates)} }}", "goto routed"])


def _balanced_prefixes(rule: Rule, special: Special) -> list[str]:
    """Subnets that send something through the rule's members."""
    return [
        view.address_prefix
        for view, intervals in special
        if any(each.target == ToRule(rule) and str(each.first) != rule.frontend_address for each in intervals)
    ]


def _zones(rules: tuple[Rule, ...], special: Special) -> list[str]:
    """Where tracked packets go.

    Answers that are not balanced on their way back belong to their rule's zone too, so that conntrack sees both
    directions and keeps the flow's member: those that carry the frontend as source, and those that an appliance
    delivers from elsewhere, because it had translated the source (to the internet, say).
    """
    lines = _block("chain zone_internet", [f"ct zone set {INTERNET_ZONE}"])
    for rule in rules:
        mark = f"meta mark set {balance_mark(rule.id):#010x}"
        lines += _block(f"chain zone_{rule.id}", [f"ct zone set {rule.id} {mark}"])
    answers = [
        f'"{member.fabric_name}" . {rule.frontend_address} : {rule.id}' for rule in rules for member in rule.members
    ]
    routed = [f"ct zone set iifname . ip saddr map {{ {', '.join(answers)} }} accept"] if answers else []
    for rule in rules:
        if rule.transit and (prefixes := ", ".join(_balanced_prefixes(rule, special))):
            links = ", ".join(f'"{member.fabric_name}"' for member in rule.members)
            delivered = f"ip daddr {{ {prefixes} }} ip saddr != {{ {prefixes} }}"
            routed.append(f"iifname {{ {links} }} {delivered} ct zone set {rule.id} accept")
    return [*lines, *_block("chain routed", [*routed, "notrack"])]


def _mangle(rules: tuple[Rule, ...], internet: InternetLink | None) -> list[str]:
    lines = ["type filter hook prerouting priority mangle; policy accept;"]
    if internet:
        marks = [f"{sender:#010x} : {back:#010x}" for sender, back in internet.return_marks]
        lines += [
            f'iifname "{internet.fabric_name}" ct direction reply ct mark != 0 meta mark set ct mark accept',
            f'iifname "{internet.fabric_name}" drop comment "nobody outside opens a flow"',
            f"ct zone {INTERNET_ZONE} ct state new ct mark set meta mark map {{ {', '.join(marks)} }}",
        ]
    if rules:
        chains = [f"{balance_mark(rule.id):#010x} : goto rule_{rule.id}" for rule in rules]
        lines.append(f"meta mark vmap {{ {', '.join(chains)} }}")
    return _block("chain balance", lines)


def _rule_chain(rule: Rule) -> list[str]:
    lines = ["ct state related ct mark != 0 meta mark set ct mark goto steered"]
    if len(rule.members) > 1:
        # Established TCP stays where it is, whatever the probes say. Azure promises it for more than one member.
        lines.append("tcp flags & (syn | ack) != syn ct mark != 0 meta mark set ct mark goto steered")
    lines += [
        f"ct mark @eligible_{rule.id} meta mark set ct mark goto steered",
        f"meta mark set symhash mod {rule.buckets} map @owner_{rule.id}",
        f'meta mark & {TABLE_MASK:#010x} != 0 drop comment "no member is eligible"',
        "ct mark set meta mark",
        f'meta l4proto tcp ct timeout set "idle_{rule.id}"',
        "counter name meta mark map @flows",
        "goto steered",
    ]
    return _block(f"chain rule_{rule.id}", lines)


def _local(internet: InternetLink | None) -> list[str]:
    """The fabric itself speaks to nobody but the probe responders; its address cannot be pinged, as in Azure."""
    received = [
        "type filter hook input priority filter; policy drop;",
        'iifname "lo" accept',
        f"ip daddr {PROBE_SOURCE} tcp flags & (syn | ack) != syn accept",
        f"ip daddr {PROBE_SOURCE} icmp type destination-unreachable accept",
    ]
    sent = [
        "type filter hook output priority raw; policy accept;",
        "icmp type != destination-unreachable drop",
        "icmp code != frag-needed drop",
        "notrack",
    ]
    lines = [*_block("chain received", received), *_block("chain sent", sent)]
    if internet:
        translate = f'oifname "{internet.fabric_name}" snat to {internet.source_address}'
        lines += _block("chain leave", ["type nat hook postrouting priority srcnat; policy accept;", translate])
    return lines


def _rewriting(rules: tuple[Rule, ...], time_scale: float) -> list[str]:
    """Destination rewriting per member, stateless but for a table of the flows it was done for."""
    lines = ["table netdev testbed {"]
    for rule in rules:
        if rule.enable_floating_ip:
            continue
        timeout = f"timeout {idle_seconds(rule, time_scale)}s"
        for member in rule.members:
            flows, hook = f"@frontend_{member.id}", f'device "{member.fabric_name}" priority filter; policy accept;'
            key = "ip saddr . meta l4proto . th sport . th dport : ip daddr"
            size = f"size {_REWRITTEN_FLOWS}"
            lines += _block(f"map frontend_{member.id}", [f"typeof {key}", size, "flags dynamic,timeout", timeout])
            there = f"ip daddr {rule.frontend_address} meta l4proto {{ tcp, udp }}"
            there += f" update {flows} {{ {key} }} ip daddr set {member.address}"  # noqa: S608 - nft, not SQL
            lines += _block(f"chain to_{member.id}", [f"type filter hook egress {hook}", there])
            back = f"ip saddr {member.address} ip saddr set ip daddr . meta l4proto . th dport . th sport map {flows}"
            lines += _block(f"chain from_{member.id}", [f"type filter hook ingress {hook}", back])
    return [*lines, "}"]
