"""The topology document: what a user writes, as frozen pydantic models.

Keys are spelled as in the Azure SDK for Python (``azure-mgmt-network``); what Azure has no word for
(``machines``, ``runtime``, ``time_scale``, ``internet``) is the testbed's own. Unknown keys are errors.
Checks that need more than one value live in :mod:`testbed.topology.rules`.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

__all__ = [
    "BackendAddressPool",
    "FrontendIPConfiguration",
    "Internet",
    "LoadBalancer",
    "LoadBalancingRule",
    "LoadDistribution",
    "Machine",
    "NamespaceRuntime",
    "NetworkInterface",
    "NextHopType",
    "NoHealthyBackendsBehavior",
    "Peering",
    "Probe",
    "ProbeProtocol",
    "Program",
    "Route",
    "RouteTable",
    "Sku",
    "Subnet",
    "Topology",
    "TransportProtocol",
    "VirtualNetwork",
]

#: Names become parts of namespace, interface and file names: lower case, digits and inner hyphens.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
#: A reference with one slash: ``virtual_network/subnet`` or ``load_balancer/backend_address_pool``.
Reference = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$", max_length=81)]
Port = Annotated[int, Field(ge=1, le=65535)]

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


class Document(BaseModel):
    """Base of all parts: frozen, and a key that is not in the model is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Sku(StrEnum):
    """``loadBalancers.sku.name``."""

    BASIC = "Basic"
    STANDARD = "Standard"
    GATEWAY = "Gateway"


class NextHopType(StrEnum):
    """``routes.nextHopType``."""

    VIRTUAL_NETWORK_GATEWAY = "VirtualNetworkGateway"
    VNET_LOCAL = "VnetLocal"
    INTERNET = "Internet"
    VIRTUAL_APPLIANCE = "VirtualAppliance"
    NONE = "None"


class TransportProtocol(StrEnum):
    """``loadBalancingRules.protocol``."""

    ALL = "All"
    TCP = "Tcp"
    UDP = "Udp"


class ProbeProtocol(StrEnum):
    """``probes.protocol``."""

    TCP = "Tcp"
    HTTP = "Http"
    HTTPS = "Https"


class LoadDistribution(StrEnum):
    """``loadBalancingRules.loadDistribution``: the fields of a packet that choose the member."""

    DEFAULT = "Default"
    SOURCE_IP = "SourceIP"
    SOURCE_IP_PROTOCOL = "SourceIPProtocol"


class NoHealthyBackendsBehavior(StrEnum):
    """``probes.noHealthyBackendsBehavior``: where new flows go when every member is down."""

    ALL_PROBED_DOWN = "AllProbedDown"
    ALL_PROBED_UP = "AllProbedUp"


class Program(StrEnum):
    """What runs in a machine of runtime ``namespace``."""

    ECHO = "echo"
    NFT_FIREWALL = "nft-firewall"


class Subnet(Document):
    """A subnet of a virtual network."""

    name: Name
    address_prefix: Prefix
    """CIDR, /8 to /29. Azure keeps the first four addresses and the last one."""
    route_table: Name | None = None
    """Name of the route table that the subnet's network interfaces obey."""


class VirtualNetwork(Document):
    """A virtual network (VNet)."""

    name: Name
    address_space: tuple[Prefix, ...] = Field(min_length=1)
    subnets: tuple[Subnet, ...] = ()


class Peering(Document):
    """A peering between two virtual networks, both of its sides."""

    between: tuple[Name, Name]
    allow_virtual_network_access: bool = True
    allow_forwarded_traffic: bool = False
    """Whether traffic that did not start in the peer may come from it (hub-and-spoke needs it)."""


class Route(Document):
    """A user-defined route (UDR)."""

    name: Name
    address_prefix: Prefix
    next_hop_type: NextHopType
    next_hop_ip_address: Address | None = None
    """Only with ``VirtualAppliance``: a network interface or an internal frontend."""


class RouteTable(Document):
    """A route table; any number of subnets may use it."""

    name: Name
    routes: tuple[Route, ...] = ()


class FrontendIPConfiguration(Document):
    """An internal frontend of a load balancer."""

    name: Name
    subnet: Reference | None = None
    """``virtual_network/subnet`` the address is taken from."""
    private_ip_address: Address | None = None
    public_ip_address: str | None = None
    """Accepted so that a public frontend is refused with a clear message."""


class BackendAddressPool(Document):
    """A backend address pool; members join it from their network interfaces."""

    name: Name


class Probe(Document):
    """A health probe. Times are Azure's, in seconds, before ``time_scale``."""

    name: Name
    protocol: ProbeProtocol
    port: Port
    request_path: str | None = None
    """Path of the GET; required for Http and Https, forbidden for Tcp."""
    interval_in_seconds: Annotated[int, Field(ge=5, le=2147483646)] = 15
    probe_threshold: Annotated[int, Field(ge=1, le=100)] = 1
    """Consecutive results that change the state, both ways."""
    number_of_probes: int | None = None
    """Accepted and ignored, as Azure does (a warning says so)."""
    no_healthy_backends_behavior: NoHealthyBackendsBehavior = NoHealthyBackendsBehavior.ALL_PROBED_DOWN


class LoadBalancingRule(Document):
    """A load-balancing rule; ``All`` with both ports 0 is an HA Ports rule."""

    name: Name
    protocol: TransportProtocol
    frontend_port: Annotated[int, Field(ge=0, le=65534)]
    backend_port: Annotated[int, Field(ge=0, le=65535)] = 0
    frontend_ip_configuration: Name
    backend_address_pool: Name
    probe: Name | None = None
    enable_floating_ip: bool = False
    """Direct server return: packets reach the member with the frontend as their destination."""
    load_distribution: LoadDistribution = LoadDistribution.DEFAULT
    idle_timeout_in_minutes: Annotated[int, Field(ge=4, le=100)] = 4
    enable_tcp_reset: bool = False


class LoadBalancer(Document):
    """A load balancer with its frontends, pools, probes and rules."""

    name: Name
    sku: Sku = Sku.STANDARD
    frontend_ip_configurations: tuple[FrontendIPConfiguration, ...] = ()
    backend_address_pools: tuple[BackendAddressPool, ...] = ()
    probes: tuple[Probe, ...] = ()
    load_balancing_rules: tuple[LoadBalancingRule, ...] = ()


class NetworkInterface(Document):
    """A network interface (NIC) of a machine; the first one is the primary."""

    subnet: Reference
    private_ip_address: Address
    enable_ip_forwarding: bool = False
    backend_address_pools: tuple[Reference, ...] = ()
    """``load_balancer/backend_address_pool`` the network interface is a member of."""


class NamespaceRuntime(Document):
    """A machine that is a plain network namespace, with an optional program in it."""

    kind: Literal["namespace"] = "namespace"
    program: Program | None = None
    """``echo`` answers TCP, UDP and HTTP on every port; ``nft-firewall`` is a stateful NVA."""
    probe_port: Port = 8080
    """Where ``nft-firewall`` answers probes (TCP, HTTP and HTTPS on the same port)."""
    probe_path: str = "/health"
    standby_of: Address | None = None
    """``nft-firewall`` only: answer 503 while the appliance at this address answers 200."""
    loopback_addresses: tuple[Address, ...] = ()
    """Addresses the machine owns on its loopback, e.g. the frontend when floating IP is on."""


class Machine(Document):
    """A machine: a runtime and one or more network interfaces."""

    name: Name
    runtime: NamespaceRuntime = NamespaceRuntime()
    network_interfaces: tuple[NetworkInterface, ...] = Field(min_length=1, max_length=8)


class Internet(Document):
    """The world outside: a machine ``internet`` that owns the first usable address of the prefix."""

    address_prefix: Prefix


class Topology(Document):
    """A hub-and-spoke topology."""

    name: Name
    time_scale: Annotated[float, Field(gt=0, le=100)] = 1
    """Multiplies every timer of the lab; 0.02 turns a 5 s probe interval into 100 ms."""
    virtual_networks: tuple[VirtualNetwork, ...] = Field(min_length=1)
    peerings: tuple[Peering, ...] = ()
    route_tables: tuple[RouteTable, ...] = ()
    load_balancers: tuple[LoadBalancer, ...] = ()
    machines: tuple[Machine, ...] = Field(min_length=1)
    internet: Internet | None = None
