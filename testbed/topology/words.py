"""The words of a document that are more than text: names, references, ports, addresses, prefixes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

__all__ = [
    "GATEWAY_SUBNET",
    "Address",
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
_ADDRESS_PATTERN = rf"^{_OCTET}(\.{_OCTET}){{3}}$"
_PREFIX_PATTERN = rf"^{_OCTET}(\.{_OCTET}){{3}}/(3[0-2]|[12]?[0-9])$"


def _refused(text: object, what: str, fix: str) -> PydanticCustomError:
    context = {"message": f"{str(text)[:60]!r} is not {what}", "fix": fix}
    return PydanticCustomError("address", "{message}", context)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Interface(text)
    except ValueError:
        return False
    return True


def _address(value: object) -> object:
    """Text only: ``ipaddress`` also takes numbers and bytes, which nobody means in a document."""
    if isinstance(value, IPv4Address):
        return value
    if isinstance(value, str):
        if _is_ipv6(value):
            raise _refused(value, "an IPv4 address: IPv6 is not modelled", "use an IPv4 address")
        try:
            return IPv4Address(value)
        except ValueError:
            pass
    raise _refused(value, "an IPv4 address", "write four numbers from 0 to 255, e.g. 10.0.1.4")


def _prefix(value: object) -> object:
    if isinstance(value, IPv4Network):
        return value
    if isinstance(value, str):
        if _is_ipv6(value):
            raise _refused(value, "an IPv4 prefix: IPv6 is not modelled", "use an IPv4 prefix")
        address, slash, length = value.partition("/")
        if slash and length.isdecimal():
            try:
                interface = IPv4Interface(value)
            except ValueError:
                pass
            else:
                if interface.ip == interface.network.network_address:
                    return interface.network
                raise _refused(value, "the start of a prefix", f"write {interface.network}")
        elif not slash and _is_address(address):
            raise _refused(value, "a prefix", f"give its length, e.g. {address}/32 for this address alone")
    raise _refused(value, "an IPv4 prefix", "write an address, a slash and a length, e.g. 10.0.0.0/16")


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


#: An address, written as text.
Address = Annotated[
    IPv4Address, BeforeValidator(_address), WithJsonSchema({"type": "string", "pattern": _ADDRESS_PATTERN})
]
#: A prefix in CIDR notation; its host bits are zero.
Prefix = Annotated[
    IPv4Network, BeforeValidator(_prefix), WithJsonSchema({"type": "string", "pattern": _PREFIX_PATTERN})
]
