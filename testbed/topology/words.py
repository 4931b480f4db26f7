"""The words of a document that are more than text: names, references, ports, addresses, prefixes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

__all__ = [
    "GATEWAY_SUBNET",
    "Address",
    "AnyAddress",
    "AnyPrefix",
    "Mac",
    "MemberReference",
    "Memory",
    "Name",
    "Port",
    "Prefix",
    "Reference",
    "SubnetName",
]

#: Names become parts of namespace, interface and file names: lower case, digits and inner hyphens.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
#: Azure's name for the subnet of a virtual network gateway, the one name with capitals.
GATEWAY_SUBNET = "GatewaySubnet"
SubnetName = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?|GatewaySubnet)$", max_length=40)
]
#: A reference with one slash: ``virtual_network/subnet`` or ``load_balancer/backend_address_pool``.
Reference = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/([a-z0-9-]+|GatewaySubnet)$", max_length=81)]
#: A member of a pool: a machine, or one of its network interfaces (``machine/eth1``).
MemberReference = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(/eth[0-7])?$", max_length=45)
]
Port = Annotated[int, Field(ge=1, le=65535)]
#: An amount of memory: a whole number of mebibytes or gibibytes.
Memory = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}[MG]$")]
#: An Ethernet address of one network interface.
Mac = Annotated[str, StringConstraints(pattern=r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$")]

_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
_IPV4_PREFIX = rf"{_IPV4}/(3[0-2]|[12]?[0-9])"
_IPV6 = r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*"
_IPV6_PREFIX = rf"{_IPV6}/(12[0-8]|1[01][0-9]|[1-9]?[0-9])"
#: Where a document can name IPv6 addresses, for whoever wrote one elsewhere.
_ELSEWHERE = "use an IPv4 one; IPv6 is for address spaces, subnets, ip_configurations, frontends and routes"


def _refused(text: object, what: str, fix: str) -> PydanticCustomError:
    context = {"message": f"{str(text)[:60]!r} is not {what}", "fix": fix}
    return PydanticCustomError("address", "{message}", context)


def _parsed(value: str) -> IPv4Address | IPv6Address | None:
    """Text only: ``ipaddress`` also takes numbers and bytes, which nobody means in a document."""
    try:
        address = ip_address(value)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and (address.scope_id or address.ipv4_mapped) else address


def _any_address(value: object) -> object:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    address = _parsed(value) if isinstance(value, str) else None
    if address is None:
        raise _refused(value, "an address", "write an address such as 10.0.1.4 or fd00:0:0:1::4")
    return address


def _address(value: object) -> object:
    if isinstance(value, IPv4Address):
        return value
    address = _parsed(value) if isinstance(value, str) else None
    if isinstance(address, IPv4Address):
        return address
    if address is not None:
        raise _refused(value, "an IPv4 address", _ELSEWHERE)
    raise _refused(value, "an IPv4 address", "write four numbers from 0 to 255, e.g. 10.0.1.4")


def _any_prefix(value: object) -> object:
    return _read_prefix(value, "a prefix", "10.0.0.0/16 or fd00::/48")


def _prefix(value: object) -> object:
    prefix = _read_prefix(value, "an IPv4 prefix", "10.0.0.0/16")
    if isinstance(prefix, IPv6Network):
        raise _refused(value, "an IPv4 prefix", _ELSEWHERE)
    return prefix


def _read_prefix(value: object, what: str, example: str) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if isinstance(value, str):
        address, slash, length = value.partition("/")
        parsed = _parsed(address)
        if parsed and slash and length.isdecimal() and int(length) <= parsed.max_prefixlen:
            network = ip_interface(f"{parsed}/{int(length)}").network
            if parsed == network.network_address:
                return network
            raise _refused(value, "the start of a prefix", f"write {network}")
        if parsed and not slash:
            fix = f"give its length, e.g. {address}/{parsed.max_prefixlen} for this address alone"
            raise _refused(value, "a prefix", fix)
    raise _refused(value, what, f"write an address, a slash and a length, e.g. {example}")


def _schema(*patterns: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(patterns)})$"})


#: An IPv4 address, written as text.
Address = Annotated[IPv4Address, BeforeValidator(_address), _schema(_IPV4)]
#: An IPv4 prefix in CIDR notation; its host bits are zero.
Prefix = Annotated[IPv4Network, BeforeValidator(_prefix), _schema(_IPV4_PREFIX)]
#: An address of either version.
AnyAddress = Annotated[IPv4Address | IPv6Address, BeforeValidator(_any_address), _schema(_IPV4, _IPV6)]
#: A prefix of either version.
AnyPrefix = Annotated[IPv4Network | IPv6Network, BeforeValidator(_any_prefix), _schema(_IPV4_PREFIX, _IPV6_PREFIX)]
