"""The fabric's nftables rules, as text: which packets are balanced, how a member is chosen, what is rewritten.

A packet's way through table ``ip testbed``, all of it on prerouting:

1. ``classify`` (raw, -300): the cable it comes from leads to the chain of its subnet, or of its pool member. Its
   destination says its fate: balanced (the rule's mark and conntrack zone), for the internet (the internet's zone)
   or only routed (the mark of the subnet's routing table, not tracked).
2. ``balance`` (mangle, -150): a balanced packet gets the mark of a member, or is dropped (nobody is eligible:
   silence, never a reset).
3. Policy rules turn marks into routing tables (:mod:`testbed.plan.numbers`).

The destination of what is addressed to a frontend without floating IP is rewritten when the member is chosen, and
the source of the answers as soon as they come from the member's cable, before anything else looks at them: as
Azure's virtual switch does on the member's host. That is stateless but for a table of the flows it was done for.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.plan.network import Interval, ToRule
from testbed.plan.numbers import INTERNET_ZONE, MEMBER_MASK, TABLE_MASK, balance_mark, table_mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import NetworkInterface, Rule
    from testbed.plan.network import Network, SubnetView

__all__ = ["PROBE_SOURCE", "InternetLink", "fabric_ruleset", "idle_seconds"]

#: Source of all health probes, and the platform's own address ("What is IP address 168.63.129.16?").
PROBE_SOURCE = "168.63.129.16"
#: Rewritten flows one member can have at a time; a full table drops new ones.
_REWRITTEN_FLOWS = 262_144
#: A rewritten flow as its packets to the member show it, and the frontend it was addressed to.
_FLOW_KEY = "ip saddr . meta l4proto . th sport . th dport"
_FLOW = f"{_FLOW_KEY} : ip daddr"
#: The same flow as the member's answers show it.
_BACK = "ip daddr . meta l4proto . th dport . th sport"


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
    *,
    dhcp: bool = False,
) -> str:
    """The text that defines ``table ip testbed`` of a fabric; with ``dhcp`` it hears what asks for an address."""
    writer = _Writer(network, interfaces, rules, internet, time_scale, dhcp=dhcp)
    lines = writer.lines()
    # An empty chain names the version, so that what is loaded can be told from what should be.
    version = blake2b("\n".join(lines).encode(), digest_size=6).hexdigest()
    return "\n".join(["table ip testbed {", *lines, *_block(f"chain version_{version}", []), "}", ""])


class _Writer:
    """Writes one fabric's rules; every method returns the lines of some chains or sets."""

    def __init__(
        self,
        network: Network,
        interfaces: tuple[NetworkInterface, ...],
        rules: tuple[Rule, ...],
        internet: InternetLink | None,
        time_scale: float,
        *,
        dhcp: bool,
    ) -> None:
        self._interfaces, self._rules, self._internet = interfaces, rules, internet
        self._time_scale, self._dhcp = time_scale, dhcp
        self._subnets = {view.key: view for view in network.subnets}
        self._intervals = {view.key: network.intervals(view) for view in network.subnets}

    def lines(self) -> list[str]:
        lines: list[str] = []
        for rule in self._rules:
            lines += self._rule_objects(rule)
        lines += self._timeouts()
        lines += self._counters()
        lines += self._classify()
        for view in self._subnets.values():
            lines += self._subnet(view)
        for each in self._interfaces:
            if each.member_id:
                lines += self._member(each)
        lines += self._balance()
        for rule in self._rules:
            lines += self._rule_chain(rule)
        return [*lines, *self._local()]

    def _rule_objects(self, rule: Rule) -> list[str]:
        """The owner map and the eligible set, which change while the lab runs; and the rewritten flows.

        What cannot be changed in place is part of a name, see :mod:`testbed.plan.replacement`.
        """
        lines = _block(
            f"map {rule.owner_map}", [f"typeof symhash mod {rule.buckets} : meta mark", f"size {rule.buckets}"]
        )
        lines += _block(f"set eligible_{rule.id}", ["type mark", f"size {MEMBER_MASK}"])
        for member in rule.members if not rule.enable_floating_ip else ():
            flows = [f"typeof {_FLOW}", f"size {_REWRITTEN_FLOWS}", "flags dynamic,timeout"]
            lines += _block(f"map frontend_{member.id}", flows)
        return lines

    def _timeouts(self) -> list[str]:
        """How long an idle TCP connection keeps its member."""
        lines: list[str] = []
        for seconds in sorted({idle_seconds(rule, self._time_scale) for rule in self._rules}):
            policy = f"policy = {{ established : {seconds} }}"
            lines += _block(f"ct timeout idle_{seconds}", ["protocol tcp", "l3proto ip", policy])
        return lines

    def _counters(self) -> list[str]:
        """Per member: flows given to it, packets steered to it."""
        if not self._rules:
            return []
        ids = sorted({member.id for rule in self._rules for member in rule.members})
        lines: list[str] = []
        for kind in ("flows", "packets"):
            for member in ids:
                lines += _block(f"counter {kind}_{member}", [])
            elements = _elements([f'{member} : "{kind}_{member}"' for member in ids])
            lines += _block(f"map {kind}", ["type mark : counter", *elements])
        return lines

    def _classify(self) -> list[str]:
        senders = [f'"{each.fabric_name}" : goto {self._chain_of(each)}' for each in self._interfaces]
        if self._internet:
            senders.append(f'"{self._internet.fabric_name}" : goto from_internet')
        rules = [
            "type filter hook prerouting priority raw; policy accept;",
            *(["ip daddr 255.255.255.255 udp dport 67 notrack accept"] if self._dhcp else []),
            f"iifname vmap {{ {', '.join(senders)} }}",
            'iifname != "lo" drop comment "not a cable of this lab"',
        ]
        lines = _block("chain classify", rules)
        lines += _block("chain platform", ["notrack"])
        if self._internet:
            lines += _block("chain from_internet", [f"ct zone set {INTERNET_ZONE}"])
            lines += _block("chain zone_internet", [f"ct zone set {INTERNET_ZONE}"])
        for rule in self._rules:
            zone = [f"ct zone set {rule.id} meta mark set {balance_mark(rule.id):#010x}"]
            lines += _block(f"chain zone_{rule.id}", zone)
        return lines

    def _chain_of(self, interface: NetworkInterface) -> str:
        if interface.member_id:
            return f"member_{interface.member_id}"
        return f"subnet_{self._subnets[interface.subnet_key].number}"

    def _fates(self, view: SubnetView) -> list[str]:
        """The subnet's routing table, and where what is not only routed goes."""
        fates = [
            f"{each.first}-{each.last} : goto "
            + (f"zone_{each.target.rule.id}" if isinstance(each.target, ToRule) else "zone_internet")
            for each in _without(self._intervals[view.key], IPv4Address(PROBE_SOURCE))
        ]
        fates.append(f"{PROBE_SOURCE} : goto platform")
        return [f"meta mark set {table_mark(view.number):#010x}", f"ip daddr vmap {{ {', '.join(fates)} }}"]

    def _subnet(self, view: SubnetView) -> list[str]:
        senders = [each for each in self._interfaces if each.subnet_key == view.key and not each.member_id]
        return _block(f"chain subnet_{view.number}", [*self._fates(view), "notrack"]) if senders else []

    def _member(self, interface: NetworkInterface) -> list[str]:
        """What comes from a pool member; its answers to balanced flows are tracked.

        Answers that are not balanced on their way back belong to their rule's zone too, so that conntrack sees
        both directions and keeps the flow's member: those that carry the frontend as source, and those that an
        appliance delivers from elsewhere, because it had translated the source (to the internet, say).
        """
        rules = [rule for rule in self._rules if interface.member_id in {member.id for member in rule.members}]
        lines = [
            f"ip saddr {interface.address} ip saddr set {_BACK} map @frontend_{interface.member_id}"
            for rule in rules
            if not rule.enable_floating_ip
        ]
        lines += self._fates(self._subnets[interface.subnet_key])
        for rule in rules:
            lines.append(f"ip saddr {rule.frontend_address} ct zone set {rule.id} accept")
            if rule.transit and (prefixes := ", ".join(self._balanced_prefixes(rule))):
                delivered = f"ip daddr {{ {prefixes} }} ip saddr != {{ {prefixes} }}"
                lines.append(f"{delivered} ct zone set {rule.id} accept")
        return _block(f"chain member_{interface.member_id}", [*lines, "notrack"])

    def _balanced_prefixes(self, rule: Rule) -> list[str]:
        """Subnets that send something through the rule's members."""
        return [
            view.address_prefix
            for key, view in self._subnets.items()
            if any(
                each.target == ToRule(rule) and str(each.first) != rule.frontend_address
                for each in self._intervals[key]
            )
        ]

    def _balance(self) -> list[str]:
        lines = ["type filter hook prerouting priority mangle; policy accept;"]
        if self._rules:
            chains = [f"{balance_mark(rule.id):#010x} : goto rule_{rule.id}" for rule in self._rules]
            lines.append(f"meta mark vmap {{ {', '.join(chains)} }}")
        if internet := self._internet:
            marks = [f"{sender:#010x} : {back:#010x}" for sender, back in internet.return_marks]
            cable = f'iifname "{internet.fabric_name}"'
            lines += [
                f'ct zone {INTERNET_ZONE} ct state new {cable} drop comment "nobody outside opens a flow"',
                f"{cable} ct mark != 0 meta mark set ct mark accept",
                f"{cable} drop",
                f"ct zone {INTERNET_ZONE} ct state new ct mark set meta mark map {{ {', '.join(marks)} }}",
            ]
        return _block("chain balance", lines)

    def _rule_chain(self, rule: Rule) -> list[str]:
        lines = []
        if len(rule.members) > 1:
            # Established TCP stays where it is, whatever the probes say: Azure promises it if there is more than one.
            lines.append(f"tcp flags & (syn | ack) != syn ct mark != 0 meta mark set ct mark goto steered_{rule.id}")
        lines += [
            f"ct mark @eligible_{rule.id} meta mark set ct mark goto steered_{rule.id}",
            f"ct state related ct mark != 0 meta mark set ct mark goto steered_{rule.id}",
            f"meta mark set symhash mod {rule.buckets} map @{rule.owner_map}",
            f'meta mark & {TABLE_MASK:#010x} != 0 drop comment "no member is eligible"',
            "ct mark set meta mark",
            f'meta l4proto tcp ct timeout set "idle_{idle_seconds(rule, self._time_scale)}"',
            "counter name meta mark map @flows",
            f"goto steered_{rule.id}",
        ]
        steered = ["counter name meta mark map @packets"]
        rewriting: list[str] = []
        if not rule.enable_floating_ip and rule.members:
            chains = ", ".join(f"{member.id} : goto to_{member.id}" for member in rule.members)
            steered.append(
                f"ip daddr {rule.frontend_address} meta l4proto {{ tcp, udp }} meta mark vmap {{ {chains} }}"
            )
            for member in rule.members:
                flow = f"{_FLOW_KEY} timeout {idle_seconds(rule, self._time_scale)}s : ip daddr"
                there = f"update @frontend_{member.id} {{ {flow} }} ip daddr set {member.address}"  # noqa: S608
                rewriting += _block(f"chain to_{member.id}", [there])
        return [*_block(f"chain rule_{rule.id}", lines), *_block(f"chain steered_{rule.id}", steered), *rewriting]

    def _local(self) -> list[str]:
        """The fabric itself speaks to machines when it probes them or logs in; it cannot be pinged, as in Azure."""
        probed = ", ".join(f'"{each.fabric_name}" . {each.address}' for each in self._interfaces)
        received = [
            "type filter hook input priority filter; policy drop;",
            'iifname "lo" accept',
            *(["ip daddr 255.255.255.255 udp dport 67 accept"] if self._dhcp else []),
            # An answer that comes by another cable than the probe went is lost, as in Azure (machines with two NICs).
            f"ip daddr {PROBE_SOURCE} iifname . ip saddr != {{ {probed} }} drop" if probed else "drop",
            f"ip daddr {PROBE_SOURCE} tcp flags & (syn | ack) != syn accept",
            *([f"ip daddr {PROBE_SOURCE} udp dport 67 accept"] if self._dhcp else []),
            f"ip daddr {PROBE_SOURCE} icmp type destination-unreachable accept",
        ]
        sent = [
            "type filter hook output priority raw; policy accept;",
            "icmp type != destination-unreachable drop",
            "icmp code != frag-needed drop",
            "notrack",
        ]
        lines = [*_block("chain received", received), *_block("chain sent", sent)]
        if self._internet:
            translate = f'oifname "{self._internet.fabric_name}" snat to {self._internet.source_address}'
            hook = "type nat hook postrouting priority srcnat; policy accept;"
            lines += _block("chain leave", [hook, translate])
        return lines


def _without(intervals: tuple[Interval, ...], address: IPv4Address) -> Iterator[Interval]:
    """The intervals, less one address: elements of a map must not overlap."""
    for each in intervals:
        if not each.first <= address <= each.last:
            yield each
            continue
        if each.first < address:
            yield Interval(each.first, address - 1, each.target)
        if address < each.last:
            yield Interval(address + 1, each.last, each.target)
