"""The topology document: what a user writes, as frozen pydantic models.

Keys are spelled as in the Azure SDK for Python (``azure-mgmt-network``); what Azure has no word for
(``machines``, ``runtime``, ``time_scale``, ``internet``) is the testbed's own. Unknown keys are errors.
What machines are made of is in :mod:`testbed.topology.runtimes`, filters are in :mod:`testbed.topology.security`.
Checks that need more than one value live in :mod:`testbed.topology.rules`.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from testbed.topology.connections import LocalNetworkGateway, Peering, VirtualNetworkGateway, VirtualNetworkPeering
from testbed.topology.document import Document
from testbed.topology.runtimes import Access, ConfigureStep, NamespaceRuntime, Ready, Runtime
from testbed.topology.security import NetworkSecurityGroup
from testbed.topology.switches import Switches
from testbed.topology.words import (
    Address,
    AnyAddress,
    AnyPrefix,
    MemberReference,
    Name,
    Port,
    Prefix,
    Reference,
    SubnetName,
)

__all__ = [
    "AdminState",
    "AzureBehaviour",
    "BackendAddressPool",
    "Balancer",
    "FrontendIPConfiguration",
    "IPConfiguration",
    "Internet",
    "LoadBalancer",
    "LoadBalancerBackendAddress",
    "LoadBalancingRule",
    "LoadDistribution",
    "LocalNetworkGateway",
    "Machine",
    "NetworkInterface",
    "NextHopType",
    "NoHealthyBackendsBehavior",
    "Peering",
    "Probe",
    "ProbeProtocol",
    "Route",
    "RouteTable",
    "Scheduler",
    "Sku",
    "Subnet",
    "Topology",
    "TransportProtocol",
    "VirtualNetwork",
    "VirtualNetworkGateway",
    "VirtualNetworkPeering",
]


class AzureBehaviour(StrEnum):
    """Which edition of the overview of HA Ports is in force."""

    PREVIEW_2017 = "2017-preview"
    CURRENT = "current"


class Balancer(StrEnum):
    """What picks the member of a new flow."""

    NFTABLES = "nftables"
    IPVS = "ipvs"


class Scheduler(StrEnum):
    """How IPVS picks (``ipvsadm --scheduler``)."""

    RR = "rr"
    WRR = "wrr"
    LC = "lc"
    WLC = "wlc"
    MH = "mh"
    SH = "sh"
    FO = "fo"


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


class AdminState(StrEnum):
    """``loadBalancerBackendAddresses.adminState``: an operator's word on a member, above the probe's."""

    NONE = "None"
    UP = "Up"
    DOWN = "Down"


def _subnet_error(message: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("address", "{message}", {"message": message, "fix": fix})


class Subnet(Document):
    """A subnet of a virtual network."""

    name: SubnetName
    """Unique in its virtual network; ``GatewaySubnet`` is the one for a gateway."""
    address_prefix: Prefix | None = None
    """CIDR, /8 to /29. Azure keeps the first four addresses and the last one."""
    address_prefixes: tuple[AnyPrefix, ...] = ()
    """Instead of ``address_prefix``: the IPv4 prefix, and an IPv6 one, which is a /64."""
    route_table: Name | None = None
    """Name of the route table that the subnet's network interfaces obey."""
    network_security_group: Name | None = None
    """Filters what the subnet's network interfaces send and receive."""

    @model_validator(mode="after")
    def _one_of_each_version(self) -> Self:
        """Whether :attr:`ipv4` and :attr:`ipv6` have one answer each."""
        versions = sorted(each.version for each in self.address_prefixes)
        if self.address_prefix is not None and versions:
            raise _subnet_error("there are address_prefix and address_prefixes", "give one of the two")
        if self.address_prefix is None and versions not in ([4], [4, 6]):
            fix = "give address_prefix: PREFIX, or address_prefixes: [IPV4 PREFIX, IPV6 PREFIX]"
            what = "two prefixes of one IP version" if versions.count(4) > 1 or versions.count(6) > 1 else None
            raise _subnet_error(f"a subnet has {what or 'no IPv4 prefix'}", fix)
        return self

    @property
    def ipv4(self) -> IPv4Network:
        """Its IPv4 prefix; each subnet has one."""
        return self.address_prefix or next(each for each in self.address_prefixes if isinstance(each, IPv4Network))

    @property
    def ipv6(self) -> IPv6Network | None:
        """Its IPv6 prefix, if it has one."""
        return next((each for each in self.address_prefixes if isinstance(each, IPv6Network)), None)


class VirtualNetwork(Document):
    """A virtual network (VNet)."""

    name: Name
    """Unique in the document."""
    address_space: tuple[AnyPrefix, ...] = Field(min_length=1)
    """Prefixes in CIDR notation, IPv4 or IPv6; those of peered virtual networks do not overlap."""
    subnets: tuple[Subnet, ...] = ()
    """Disjoint parts of the address space."""
    virtual_network_peerings: tuple[VirtualNetworkPeering, ...] = ()
    """This virtual network's sides of its peerings; ``peerings`` of the document are a short form of both sides."""


class Route(Document):
    """A user-defined route (UDR)."""

    name: Name
    """Unique in its route table."""
    address_prefix: AnyPrefix
    """Destinations, in CIDR notation. The longest prefix wins; on equal ones this beats system routes."""
    next_hop_type: NextHopType
    """``VirtualNetworkGateway`` needs one, of the virtual network or of a peer; ``None`` drops."""
    next_hop_ip_address: AnyAddress | None = None
    """Only with ``VirtualAppliance``: a network interface or an internal frontend, of the prefix's IP version."""


class RouteTable(Document):
    """A route table; any number of subnets may use it."""

    name: Name
    """Unique in the document; subnets name it."""
    routes: tuple[Route, ...] = ()
    """At most one for a prefix."""
    disable_bgp_route_propagation: bool = False
    """Whether its subnets do without the routes of virtual network gateways."""


class FrontendIPConfiguration(Document):
    """An internal frontend of a load balancer."""

    name: Name
    """Unique in its load balancer."""
    subnet: Reference | None = None
    """``virtual_network/subnet`` the address is taken from."""
    private_ip_address: AnyAddress | None = None
    """Static, IPv4 or IPv6; nothing else in the virtual network has it."""
    public_ip_address: str | None = None
    """Accepted so that a public frontend is refused with a clear message."""


class LoadBalancerBackendAddress(Document):
    """What an operator says of a member of a pool."""

    machine: MemberReference
    """A member: a machine, or ``machine/eth1`` when several of its network interfaces are members."""
    admin_state: AdminState = AdminState.NONE
    """``None``: the probe decides; ``Up``: new flows whatever it says; ``Down``: no new flows."""


class BackendAddressPool(Document):
    """A backend address pool; members join it from their network interfaces."""

    name: Name
    """Unique in its load balancer."""
    load_balancer_backend_addresses: tuple[LoadBalancerBackendAddress, ...] = ()
    """Admin states to begin with, for rules that have a probe."""
    drain_period_in_seconds: Annotated[int, Field(ge=1, le=86400)] | None = None
    """How long after admin state ``Down`` the member's TCP flows are reset; never when not given."""


class Probe(Document):
    """A health probe. Times are Azure's, in seconds, before ``time_scale``."""

    name: Name
    """Unique in its load balancer; rules name it."""
    protocol: ProbeProtocol
    """An Http or Https answer other than 200 takes a member down at once."""
    port: Port
    """On the member; not 19, 21, 25, 70, 110, 119, 143, 220 or 993 for Http and Https."""
    request_path: str | None = None
    """Path of the GET; required for Http and Https, forbidden for Tcp."""
    interval_in_seconds: Annotated[int, Field(ge=5, le=2147483646)] = 15
    """From one probe to the next; an answer later than this (at most 30 s) is a failure."""
    probe_threshold: Annotated[int, Field(ge=1, le=100)] = 1
    """Consecutive results that change the state, both ways."""
    number_of_probes: int | None = None
    """Ignored, as Azure does (a warning says so), unless the switch ``number_of_probes`` says otherwise."""
    no_healthy_backends_behavior: NoHealthyBackendsBehavior = NoHealthyBackendsBehavior.ALL_PROBED_DOWN
    """When every member is down: new flows go nowhere, or to all of them."""


class LoadBalancingRule(Document):
    """A load-balancing rule; ``All`` with both ports 0 is an HA Ports rule."""

    name: Name
    """Unique in its load balancer."""
    protocol: TransportProtocol
    """``Tcp`` and ``Udp`` cover one port."""
    frontend_port: Annotated[int, Field(ge=0, le=65534)]
    """0 stands for every port."""
    backend_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0 with frontend port 0: every port is kept."""
    frontend_ip_configuration: Name
    """Name of a frontend of this load balancer."""
    backend_address_pool: Name
    """Name of a pool of this load balancer."""
    probe: Name | None = None
    """Name of a probe of this load balancer; without one every member counts as healthy."""
    enable_floating_ip: bool = False
    """Direct server return: packets reach the member with the frontend as their destination."""
    load_distribution: LoadDistribution = LoadDistribution.DEFAULT
    """What chooses the member: ``Default`` addresses, ports and protocol; the others no ports, or addresses only."""
    idle_timeout_in_minutes: Annotated[int, Field(ge=4, le=100)] = 4
    """TCP flows that were silent for longer are forgotten, and dropped without a word from then on."""
    enable_tcp_reset: bool = False
    """Both ends of a flow that is forgotten get a reset; not with an appliance in the path, but for a switch."""


class LoadBalancer(Document):
    """A load balancer with its frontends, pools, probes and rules."""

    name: Name
    """Unique in the document."""
    sku: Sku = Sku.STANDARD
    """HA Ports needs ``Standard``."""
    frontend_ip_configurations: tuple[FrontendIPConfiguration, ...] = ()
    """Each holds at most one HA Ports rule, and rules for single ports."""
    backend_address_pools: tuple[BackendAddressPool, ...] = ()
    """Members join them from their network interfaces."""
    probes: tuple[Probe, ...] = ()
    """How the health of members is measured."""
    load_balancing_rules: tuple[LoadBalancingRule, ...] = ()
    """Which frontend leads to which pool."""


class IPConfiguration(Document):
    """A further address of a network interface, a pool member of its own."""

    name: Name
    """Of your choice."""
    private_ip_address: AnyAddress
    """Static, IPv6; not one of the first four of the subnet's IPv6 prefix."""
    backend_address_pools: tuple[Reference, ...] = ()
    """``load_balancer/backend_address_pool`` the address is a member of; their rules have IPv6 frontends."""


class NetworkInterface(Document):
    """A network interface (NIC) of a machine; the first one is the primary."""

    subnet: Reference
    """``virtual_network/subnet``."""
    private_ip_address: Address
    """Static, IPv4; not one of the five that Azure keeps in the subnet."""
    enable_ip_forwarding: bool = False
    """Whether it may receive and send packets of others; an appliance needs it."""
    backend_address_pools: tuple[Reference, ...] = ()
    """``load_balancer/backend_address_pool`` the network interface is a member of, with its IPv4 address."""
    network_security_group: Name | None = None
    """Its own, beside the subnet's: both have to allow a flow."""
    ip_configurations: tuple[IPConfiguration, ...] = ()
    """For dual stack: one, with the network interface's IPv6 address."""


class Machine(Document):
    """A machine: a runtime and one or more network interfaces."""

    name: Name
    """Unique in the document; its namespace is ``<lab>-<name>``. A few names are the lab's own, e.g. ``fabric``."""
    runtime: Runtime = NamespaceRuntime()
    """What the machine is made of; an idle namespace when not given."""
    network_interfaces: tuple[NetworkInterface, ...] = Field(min_length=1, max_length=8)
    """``eth0``, ``eth1``, … in this order."""
    access: Access | None = None
    """How the lab talks to it; containers and namespaces need none."""
    configure: tuple[ConfigureStep, ...] = ()
    """What is done to it after each start, when it answers; also when a namespace's or container's links come back."""
    ready: Ready | None = None
    """What ``up --wait`` waits for, beside the probes."""
    diagnostics: tuple[str, ...] = ()
    """Commands whose output is collected when a check fails."""


class Internet(Document):
    """The world outside: a machine ``internet`` that owns the first usable address of the prefix."""

    address_prefix: Prefix
    """/29 or larger, outside all virtual networks."""


class Topology(Document):
    """A hub-and-spoke topology."""

    name: Name
    """Name of the lab, and prefix of its namespaces."""
    time_scale: Annotated[float, Field(ge=0.001, le=100)] = 1
    """Multiplies every timer of the lab; 0.02 turns a 5 s probe interval into 100 ms."""
    azure_behaviour: AzureBehaviour = AzureBehaviour.CURRENT
    """The limits of HA Ports rules: those of the preview of 2017, or of today."""
    balancer: Balancer = Balancer.NFTABLES
    """The backend; ``docs/balancers.md`` says where they differ. ``testbed up --balancer`` goes before it."""
    scheduler: Scheduler = Scheduler.MH
    """Only with ``ipvs``: which member a new TCP or UDP flow gets."""
    switches: Switches = Switches()
    """Decisions where Azure's own documents differ."""
    virtual_networks: tuple[VirtualNetwork, ...] = Field(min_length=1)
    """With their subnets."""
    peerings: tuple[Peering, ...] = ()
    """Which virtual networks reach each other; for settings that differ per side see ``virtual_network_peerings``."""
    virtual_network_gateways: tuple[VirtualNetworkGateway, ...] = ()
    """At most one in a virtual network."""
    local_network_gateways: tuple[LocalNetworkGateway, ...] = ()
    """Places outside Azure, behind a gateway."""
    route_tables: tuple[RouteTable, ...] = ()
    """User-defined routes; subnets name them."""
    network_security_groups: tuple[NetworkSecurityGroup, ...] = ()
    """Filters; subnets and network interfaces name them. Where none applies, everything may pass."""
    load_balancers: tuple[LoadBalancer, ...] = ()
    """Internal load balancers."""
    machines: tuple[Machine, ...] = Field(min_length=1)
    """Everything that has a network interface."""
    internet: Internet | None = None
    """Left out: what leaves for the internet is dropped."""
