"""Network security groups as nftables rules: table ``netdev testbed_nsg`` of the fabric, as text. Pure.

The rules hang at the fabric's end of a network interface's cable: what comes in there is what the machine sends
(``Outbound``), what goes out there is what it receives (``Inbound``). So they see a packet as the machine does: after a
balancer has rewritten its destination, and whatever the machine is made of.

The network interface has its flow records in sets of its own, so a five-tuple that crosses the fabric twice, to an
appliance and from it, is two flows. Keys are written as the machine's own packets show them; what it receives is
looked up with the ends swapped. A record lives as long as packets of its flow come by. A bare SYN is always a new flow,
and an echo reply belongs to a request that went the other way.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from testbed.plan.numbers import LOGIN_MARK
from testbed.plan.ruleset.context import PROBE_SOURCE
from testbed.plan.ruleset.text import block
from testbed.topology.security import SecurityRuleDirection, SecurityRuleProtocol, port_words

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Network

    from testbed.plan.security import EffectiveGroup, EffectiveRule, InterfaceSecurity
    from testbed.plan.service_tags import Addresses

__all__ = ["SECURITY_TABLE", "counter_name", "security_ruleset"]

SECURITY_TABLE = "netdev testbed_nsg"
#: Azure forgets a flow that was silent for four minutes.
_IDLE_SECONDS = 240
#: Flows that one network interface can have at a time; a full table lets no new one in.
_FLOWS = 262_144
_OTHERS = 4096
_PROTOCOLS = {
    SecurityRuleProtocol.TCP: "tcp",
    SecurityRuleProtocol.UDP: "udp",
    SecurityRuleProtocol.ICMP: "icmp",
    SecurityRuleProtocol.ESP: "esp",
    SecurityRuleProtocol.AH: "ah",
}
#: Both addresses and the four bytes behind a header without options: what an ICMP error quotes.
_START = "@nh,96,96"
_QUOTED = "@th,160,96"


def _keys(source: str, destination: str, sport: str, dport: str) -> dict[str, str]:
    return {
        "flows": f"ip {source} . ip {destination} . meta l4proto . th {sport} . th {dport}",
        "echoes_out": f"ip {source} . ip {destination} . icmp id",
        "echoes_in": f"ip {source} . ip {destination} . icmp id",
        "others": f"ip {source} . ip {destination} . meta l4proto",
        "fragments": f"ip {source} . ip {destination} . ip protocol . ip id",
    }


_AS_SENT = _keys("saddr", "daddr", "sport", "dport")
_AS_RECEIVED = _keys("daddr", "saddr", "dport", "sport")


def counter_name(number: int, group: EffectiveGroup, rule: EffectiveRule) -> str:
    """Counts what a rule of a network interface decides: flows that it allows, packets that it denies."""
    return f"{group.association}_{_word(rule.direction)}_{number}_{rule.priority}"


def _word(direction: SecurityRuleDirection) -> str:
    return "out" if direction == SecurityRuleDirection.OUTBOUND else "in"


def security_ruleset(
    securities: tuple[InterfaceSecurity, ...], numbers: Mapping[tuple[str, str], int], time_scale: float
) -> str:
    """The text that defines the table.

    Args:
        securities: What each network interface with a group obeys.
        numbers: Of network interfaces, by machine and name; they name the objects.
        time_scale: Multiplies the idle time of flow records.
    """
    timeout = f"{max(1, round(_IDLE_SECONDS * time_scale))}s"
    lines: list[str] = []
    for each in securities:
        number = numbers[each.interface.machine, each.interface.name]
        lines += _records(number)
        for direction in (SecurityRuleDirection.OUTBOUND, SecurityRuleDirection.INBOUND):
            groups = each.groups_of(direction)
            for group in groups:
                for rule in group.rules_of(direction):
                    lines += block(f"counter {counter_name(number, group, rule)}", [])
                lines += _group(number, group, direction)
            lines += _way(each, number, direction, timeout)
    version = blake2b("\n".join(lines).encode(), digest_size=6).hexdigest()
    return "\n".join([f"table {SECURITY_TABLE} {{", *lines, *block(f"chain version_{version}", []), "}", ""])


def _records(number: int) -> list[str]:
    """The flows of a network interface, and the last packets of each that an ICMP error may quote."""
    kinds = [(name, key, _FLOWS if name == "flows" else _OTHERS) for name, key in _AS_SENT.items()]
    kinds += [("sent", _START, _FLOWS), ("received", _START, _FLOWS)]
    lines: list[str] = []
    for name, key, size in kinds:
        lines += block(f"set {name}_{number}", [f"typeof {key}", f"size {size}", "flags dynamic,timeout"])
    return lines


def _way(security: InterfaceSecurity, number: int, direction: SecurityRuleDirection, timeout: str) -> list[str]:
    """What a packet of one direction meets: the records of known flows, else the groups, which make a record."""
    out = direction == SecurityRuleDirection.OUTBOUND
    word = _word(direction)
    keys = _AS_SENT if out else _AS_RECEIVED
    mine, others = ("sent", "received") if out else ("received", "sent")

    def update(kind: str) -> str:
        return f"update @{kind}_{number} {{ {keys[kind]} timeout {timeout} }}"

    def known(kind: str) -> str:
        return f"{keys[kind]} @{kind}_{number} {update(kind)} goto pass_{word}_{number}"

    hook = "ingress" if out else "egress"
    # The platform's DHCP is not filtered; nor are logins, which a lab has and Azure has not.
    platform = (
        [f"ip daddr {{ 255.255.255.255, {PROBE_SOURCE} }} udp dport 67 accept"]
        if out
        else [f"ip saddr {PROBE_SOURCE} udp sport 67 accept", f"meta mark {LOGIN_MARK:#010x} goto record_in_{number}"]
    )
    later = "ip frag-off & 0x1fff != 0"
    errors = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
    looked_up = [
        f'type filter hook {hook} device "{security.interface.fabric_name}" priority filter; policy accept;',
        "meta protocol != ip accept",
        *platform,
        f"{later} {keys['fragments']} @fragments_{number} accept",
        f'{later} drop comment "its first fragment did not pass"',
        f"tcp flags & (syn | ack) == syn goto new_{word}_{number}",
        known("flows"),
        f"icmp type echo-request {known(f'echoes_{word}')}",
        f"icmp type echo-reply {known('echoes_in' if out else 'echoes_out')}",
        f"{errors} {_QUOTED} @{others}_{number} accept",
        f"meta l4proto != {{ tcp, udp, icmp }} {known('others')}",
        f"goto new_{word}_{number}",
    ]
    judged = [f"jump {group.association}_{word}_{number}" for group in security.groups_of(direction)]
    recorded = [
        f"meta l4proto {{ tcp, udp }} {update('flows')} goto pass_{word}_{number}",
        f"icmp type echo-request {update(f'echoes_{word}')} goto pass_{word}_{number}",
        f"icmp type != echo-request goto pass_{word}_{number}",
        f"meta l4proto != {{ tcp, udp, icmp }} {update('others')} goto pass_{word}_{number}",
        'drop comment "no room for another flow"',
    ]
    passed = [
        f"update @{mine}_{number} {{ {_START} timeout {timeout} }}",
        f"ip frag-off & 0x2000 != 0 {update('fragments')}",
        "accept",
    ]
    return [
        *block(f"chain pass_{word}_{number}", passed),
        *block(f"chain record_{word}_{number}", recorded),
        *block(f"chain new_{word}_{number}", [*judged, f"goto record_{word}_{number}"]),
        *block(f"chain {'sends' if out else 'receives'}_{number}", looked_up),
    ]


def _group(number: int, group: EffectiveGroup, direction: SecurityRuleDirection) -> list[str]:
    """The rules of a group: the first that fits returns, which allows, or drops."""
    rules = []
    for rule in group.rules_of(direction):
        if rule.source.nothing or rule.destination.nothing:
            continue
        words = [*_match("saddr", rule.source), *_match("daddr", rule.destination), *_ports(rule)]
        verdict = "return" if rule.allows else "drop"
        words.append(f'counter name "{counter_name(number, group, rule)}" {verdict} comment "{group.name}/{rule.name}"')
        rules.append(" ".join(words))
    return block(f"chain {group.association}_{_word(direction)}_{number}", rules)


def _match(field: str, addresses: Addresses) -> list[str]:
    if addresses.everything:
        return []
    return [f"ip {field} {'!= ' if addresses.outside else ''}{{ {_list(addresses.prefixes)} }}"]


def _list(prefixes: tuple[IPv4Network, ...]) -> str:
    return ", ".join(str(each) for each in prefixes)


def _ports(rule: EffectiveRule) -> list[str]:
    words = []
    if rule.protocol != SecurityRuleProtocol.ANY:
        words.append(f"meta l4proto {_PROTOCOLS[rule.protocol]}")
    elif rule.source_ports or rule.destination_ports:
        words.append("meta l4proto { tcp, udp }")
    for field, ports in (("sport", rule.source_ports), ("dport", rule.destination_ports)):
        if ports:
            words.append(f"th {field} {{ {', '.join(port_words(ports))} }}")
    return words
