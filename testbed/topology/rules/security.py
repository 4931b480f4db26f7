"""Network security groups: what rules may say ("Network security groups overview")."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

from testbed.topology.security import ANY, SecurityRuleProtocol, ServiceTag, address_prefix, port_range
from testbed.topology.wording import closest, one_of, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.nodes import Location
    from testbed.topology.security import SecurityRule

__all__ = ["group_references", "one_rule_per_priority", "security_rule_addresses", "security_rule_ports"]

_TAGS = tuple(each.value for each in ServiceTag)
_WITH_PORTS = (SecurityRuleProtocol.ANY, SecurityRuleProtocol.TCP, SecurityRuleProtocol.UDP)


def _rules(draft: Draft) -> Iterator[tuple[Location, SecurityRule]]:
    for i, group in enumerate(draft.topology.network_security_groups):
        for j, rule in enumerate(group.security_rules):
            yield ("network_security_groups", i, "security_rules", j), rule


def _texts(rule: SecurityRule, key: str) -> Iterator[tuple[Location, str]]:
    """What is written under ``key`` and under its plural, and where."""
    single = getattr(rule, key)
    if single is not None:
        yield (key,), single
    plural = f"{key}{'es' if key.endswith('prefix') else 's'}"
    for i, text in enumerate(getattr(rule, plural)):
        yield (plural, i), text


def group_references(draft: Draft) -> Iterator[Finding]:
    """The network security groups of subnets and network interfaces exist."""
    names = tuple(each.name for each in draft.topology.network_security_groups)
    users = [(place.location, place.subnet.network_security_group) for place in draft.lookup.subnets]
    users += [(place.location, place.interface.network_security_group) for place in draft.lookup.interfaces]
    for location, name in users:
        if name and name not in names and not draft.lost(name, kind="network_security_groups"):
            fix = suggestion(name, names, "network_security_groups")
            there = (*location, "network_security_group")
            yield draft.error(there, f"there is no network security group {name!r}", fix=fix)


def one_rule_per_priority(draft: Draft) -> Iterator[Finding]:
    """Two rules of a direction have different priorities: one of them has to come first."""
    for i, group in enumerate(draft.topology.network_security_groups):
        first: dict[tuple[str, int], str] = {}
        for j, rule in enumerate(group.security_rules):
            key = (rule.direction.value, rule.priority)
            if key in first:
                location = ("network_security_groups", i, "security_rules", j, "priority")
                message = f"priority {rule.priority} is already that of the {key[0]} rule {first[key]!r}"
                yield draft.error(location, message, fix="give each rule of a direction its own, from 100 to 4096")
            first.setdefault(key, rule.name)


def _both(draft: Draft, location: Location, rule: SecurityRule, key: str) -> Iterator[Finding]:
    plural = f"{key}{'es' if key.endswith('prefix') else 's'}"
    if getattr(rule, key) is not None and getattr(rule, plural):
        yield draft.error((*location, plural), f"{key} and {plural} are both given", fix="keep one of the two")


def security_rule_ports(draft: Draft) -> Iterator[Finding]:
    """Ports are one port, a range or ``*``, and only TCP and UDP have any."""
    for location, rule in _rules(draft):
        for key in ("source_port_range", "destination_port_range"):
            yield from _both(draft, location, rule, key)
            for where, text in _texts(rule, key):
                there = (*location, *where)
                try:
                    port_range(text)
                except ValueError:
                    message = f"{text[:60]!r} is not a port range"
                    fix = "write a port, a range or '*', e.g. 443, 1024-65535; several go into the plural key"
                    yield draft.error(there, message, fix=fix)
                    continue
                if text != ANY and rule.protocol not in _WITH_PORTS:
                    message = f"protocol {rule.protocol.value} has no ports"
                    yield draft.error(there, message, fix="remove the ports, or set protocol: Tcp or Udp")


def security_rule_addresses(draft: Draft) -> Iterator[Finding]:
    """Addresses are prefixes, or one service tag that the lab knows."""
    for location, rule in _rules(draft):
        for key in ("source_address_prefix", "destination_address_prefix"):
            yield from _both(draft, location, rule, key)
            for where, text in _texts(rule, key):
                there = (*location, *where)
                try:
                    meant = address_prefix(text)
                except ValueError:
                    message, fix = _wrong(text)
                    yield draft.error(there, message, fix=fix)
                    continue
                if len(where) > 1 and (meant is None or isinstance(meant, ServiceTag)):
                    message = f"{text!r} stands in a list"
                    yield draft.error(there, message, fix=f"a list takes prefixes only; write {key}: {text!r}")


def _wrong(text: str) -> tuple[str, str]:
    """A message and a fix for what is no address prefix."""
    if ":" in text:
        return f"{text[:60]!r} is no IPv4 prefix: IPv6 is not modelled", "use IPv4 prefixes"
    if text and text[0].isalpha():
        near = closest(text, _TAGS)
        fix = f"did you mean {near!r}?" if near else f"use {one_of(_TAGS)}, or prefixes"
        return f"{text[:60]!r} is not a service tag of the lab", fix
    try:
        interface = IPv4Interface(text)
    except ValueError:
        fix = f"write a prefix, an address, a service tag ({one_of(_TAGS)}) or '*'"
        return f"{text[:60]!r} is not an address prefix", fix
    return f"{text!r} is not the start of a prefix", f"write {interface.network}"
