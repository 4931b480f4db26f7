"""Network security groups: parts of the topology document, and what their texts mean.

Azure's API takes an address prefix in three forms (CIDR, a service tag, ``*``) and ports in three (one, a range,
``*``). :func:`address_prefix` and :func:`port_range` read them, for the checks and for the plan.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network
from typing import Annotated

from pydantic import BeforeValidator, Field

from testbed.topology.document import Document
from testbed.topology.words import Name

__all__ = [
    "ANY",
    "NetworkSecurityGroup",
    "SecurityRule",
    "SecurityRuleAccess",
    "SecurityRuleDirection",
    "SecurityRuleProtocol",
    "ServiceTag",
    "address_prefix",
    "port_range",
    "port_words",
]

#: Every address, every port, every protocol.
ANY = "*"
_LAST_PORT = 65535
#: One port or a range; in YAML a single port looks like a number.
PortRange = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]


class SecurityRuleProtocol(StrEnum):
    """``securityRules.protocol``."""

    ANY = "*"
    TCP = "Tcp"
    UDP = "Udp"
    ICMP = "Icmp"
    ESP = "Esp"
    AH = "Ah"


class SecurityRuleDirection(StrEnum):
    """``securityRules.direction``, as the network interface sees it."""

    INBOUND = "Inbound"
    OUTBOUND = "Outbound"


class SecurityRuleAccess(StrEnum):
    """``securityRules.access``."""

    ALLOW = "Allow"
    DENY = "Deny"


class ServiceTag(StrEnum):
    """The service tags that mean something in a lab."""

    VIRTUAL_NETWORK = "VirtualNetwork"
    AZURE_LOAD_BALANCER = "AzureLoadBalancer"
    INTERNET = "Internet"


class SecurityRule(Document):
    """A security rule. Of a direction's rules the first that fits decides, in order of priority."""

    name: Name
    """Unique in its network security group."""
    priority: Annotated[int, Field(ge=100, le=4096)]
    """The lowest number comes first; unique among the rules of its direction."""
    direction: SecurityRuleDirection
    """``Inbound``: what the network interface receives; ``Outbound``: what it sends."""
    access: SecurityRuleAccess
    """What becomes of the flow."""
    protocol: SecurityRuleProtocol
    """``*`` is every protocol; ports of a rule for ``*`` are those of TCP and UDP."""
    source_address_prefix: str | None = None
    """A prefix, an address, a service tag (``VirtualNetwork``, ``AzureLoadBalancer``, ``Internet``), or ``*``."""
    source_address_prefixes: tuple[str, ...] = ()
    """Prefixes and addresses, instead of ``source_address_prefix``; with neither of the two: every address."""
    source_port_range: PortRange | None = None
    """A port, a range as ``1024-65535``, or ``*``."""
    source_port_ranges: tuple[PortRange, ...] = ()
    """Ports and ranges, instead of ``source_port_range``; with neither of the two: every port."""
    destination_address_prefix: str | None = None
    """As ``source_address_prefix``. Behind a balancer that rewrites, it is the member's address that counts."""
    destination_address_prefixes: tuple[str, ...] = ()
    """As ``source_address_prefixes``."""
    destination_port_range: PortRange | None = None
    """As ``source_port_range``."""
    destination_port_ranges: tuple[PortRange, ...] = ()
    """As ``source_port_ranges``."""


class NetworkSecurityGroup(Document):
    """A network security group (NSG), for any number of subnets and network interfaces."""

    name: Name
    """Unique in the document; subnets and network interfaces name it."""
    security_rules: tuple[SecurityRule, ...] = ()
    """Before Azure's default rules (65000, 65001 and 65500), which are always there."""


def address_prefix(text: str) -> IPv4Network | ServiceTag | None:
    """What an address prefix of a rule names; ``None`` is every address.

    Raises:
        ValueError: It is neither a prefix, nor an address, nor a service tag of the lab, nor ``*``.
    """
    if text == ANY:
        return None
    if text in set(ServiceTag):
        return ServiceTag(text)
    _, slash, length = text.partition("/")
    if slash and not length.isdecimal():  # a netmask written out, which Azure does not take
        raise ValueError(text)
    return IPv4Network(text)


def port_range(text: str) -> tuple[int, int]:
    """The first and the last port of a range.

    Raises:
        ValueError: It is not a port, two ports with a hyphen, or ``*``.
    """
    if text == ANY:
        return 0, _LAST_PORT
    first, hyphen, last = text.partition("-")
    if not (first.isascii() and first.isdecimal() and (not hyphen or (last.isascii() and last.isdecimal()))):
        raise ValueError(text)
    low, high = int(first), int(last or first)
    if not low <= high <= _LAST_PORT:
        raise ValueError(text)
    return low, high


def port_words(ranges: tuple[tuple[int, int], ...]) -> list[str]:
    """The other way round: each as :func:`port_range` reads it."""
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
