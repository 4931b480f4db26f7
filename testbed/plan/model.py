"""What a compiled lab is: machines, network interfaces, balancing rules, and the kernel objects behind them.

All frozen and plain, so a plan can be compared and printed.
Times are Azure's, in seconds, before ``time_scale``; ``scaled()`` gives the lab's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from testbed.errors import UnknownLabError

if TYPE_CHECKING:
    from testbed.plan.objects import KernelObject
    from testbed.topology import model

__all__ = [
    "Cable",
    "IPv6Configuration",
    "Machine",
    "Member",
    "NetworkInterface",
    "Plan",
    "Probe",
    "Rule",
    "ip_versions",
]


@dataclass(frozen=True, slots=True)
class IPv6Configuration:
    """The IPv6 address of a network interface, and the pools it is in; ``member_id`` as the network interface's."""

    address: str
    prefix_length: int
    backend_address_pools: tuple[str, ...]
    member_id: int


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """One network interface of a machine.

    ``name`` in ``namespace`` is what the guest sees (``eth0``); ``fabric_name`` is the other end of the
    cable, in the fabric. Both ends carry the same frames.
    """

    machine: str
    name: str
    namespace: str
    fabric_name: str
    address: str
    prefix_length: int
    mac: str
    virtual_network: str
    subnet: str
    enable_ip_forwarding: bool
    backend_address_pools: tuple[str, ...]
    member_id: int
    """Low 16 bits of the packet mark that steers to this network interface; 0: it is in no pool."""
    on_premises: tuple[str, ...] = ()
    """The prefixes behind it, when it is the cable of a place outside Azure into its gateway."""
    ipv6: IPv6Configuration | None = None
    """Its IPv6 address, if it has one: a pool member of its own."""

    def of_version(self, version: int) -> NetworkInterface | None:
        """The network interface as packets of one IP version know it; None when it has no such address."""
        if version == 4:
            return self
        if self.ipv6 is None:
            return None
        further = self.ipv6
        return replace(
            self,
            address=further.address,
            prefix_length=further.prefix_length,
            backend_address_pools=further.backend_address_pools,
            member_id=further.member_id,
        )

    @property
    def versions(self) -> tuple[NetworkInterface, ...]:
        """It in each IP version that it has an address of."""
        return tuple(each for version in (4, 6) if (each := self.of_version(version)))

    @property
    def gateway(self) -> str:
        """The address its subnet's router has in Azure: the first one."""
        return str(ip_network(f"{self.address}/{self.prefix_length}", strict=False)[1])

    @property
    def subnet_key(self) -> str:
        """``virtual_network/subnet``."""
        return f"{self.virtual_network}/{self.subnet}"


def ip_versions(interfaces: tuple[NetworkInterface, ...]) -> tuple[int, ...]:
    """The IP versions that a lab with these network interfaces has: 4, and perhaps 6."""
    return (4, 6) if any(each.ipv6 for each in interfaces) else (4,)


@dataclass(frozen=True, slots=True)
class Cable:
    """A network interface as the fabric meets it: the fabric's end of its cable, and the MAC addresses of both ends."""

    virtual_network: str
    address: str
    link: str
    mac: str
    fabric_mac: str


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine; its first network interface is the primary."""

    name: str
    namespace: str
    runtime: str
    program: str | None
    """Of a namespace; None: it is idle, or another runtime."""
    standby: bool
    """Whether its probe is meant to fail while another machine is active."""
    network_interfaces: tuple[NetworkInterface, ...]
    summary: str = ""
    """What it is made of, in a few words."""
    document: model.Machine | None = None
    """What the document says of it; None for the internet and for places behind a gateway."""

    @property
    def runs(self) -> bool:
        """Whether something runs as it or in it, that can die."""
        return self.runtime in ("container", "vm") or self.program is not None


@dataclass(frozen=True, slots=True)
class Probe:
    """A health probe as the controller runs it; times in seconds, before ``time_scale``."""

    name: str
    protocol: str
    port: int
    request_path: str | None
    interval_in_seconds: float
    probe_threshold: int
    no_healthy_backends_behavior: str
    fixed_timeout_in_seconds: float | None = None
    hold_down: bool = True
    """Whether a member that flaps is kept out for longer."""

    @property
    def timeout_in_seconds(self) -> float:
        """An answer later than this is a failure: min(interval, 30 s), unless a switch fixes it."""
        return self.fixed_timeout_in_seconds or min(self.interval_in_seconds, 30.0)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a backend address pool."""

    id: int
    machine: str
    network_interface: str
    namespace: str
    address: str
    fabric_name: str
    forwards: bool
    admin_state: str = "None"
    """The document's, for the rule's pool."""

    @property
    def key(self) -> str:
        """``machine/eth0``."""
        return f"{self.machine}/{self.network_interface}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One load-balancing rule: what it covers of a frontend address, and the pool behind it.

    ``id`` is the rule's conntrack zone and names its nftables objects (``rule_1``, ``eligible_1``).
    ``protocol`` is ``All`` with both ports 0 (HA Ports), ``Tcp`` or ``Udp`` with a port each.
    """

    id: int
    load_balancer: str
    frontend: str
    name: str
    frontend_address: str
    virtual_network: str
    backend_address_pool: str
    enable_floating_ip: bool
    idle_timeout_in_minutes: int
    buckets: int
    members: tuple[Member, ...]
    probe: Probe | None
    protocol: str = "All"
    frontend_port: int = 0
    backend_port: int = 0
    load_distribution: str = "Default"
    reset_when_idle: bool = False
    """Whether flows to the frontend are reset at their idle timeout."""
    reset_transit_when_idle: bool = False
    """The same for flows that members forward."""
    reset_when_down: bool = False
    """Whether admin state Down resets the member's flows at once."""
    drain_period_in_seconds: int | None = None
    """After which it does so later."""
    flows_end_alone: bool = False
    """Whether established TCP ends when the pool's only member is down."""
    reaches: tuple[str, ...] = ()
    """Virtual networks that its flows come from and go to."""

    @property
    def resets(self) -> bool:
        """Whether the lab may ever have to reset a flow of it."""
        return self.reset_when_idle or self.reset_when_down or self.drain_period_in_seconds is not None

    @property
    def key(self) -> str:
        """``load_balancer/frontend/rule``; seeds the preference table."""
        return f"{self.load_balancer}/{self.frontend}/{self.name}"

    @property
    def version(self) -> int:
        """The IP version of its frontend, and so of its flows and members: 4 or 6."""
        return 6 if ":" in self.frontend_address else 4

    @property
    def owner_map(self) -> str:
        """Name of the nftables map from hash bucket to owner."""
        return f"owner_{self.id}_{self.buckets}" + ("" if self.hashes_ports else "_pairs")

    @property
    def hashes_ports(self) -> bool:
        """Whether ports choose the member too (``Default``), or addresses alone, perhaps with the protocol."""
        return self.load_distribution == "Default"

    @property
    def ha_ports(self) -> bool:
        """Whether it covers every port of every protocol."""
        return self.protocol == "All"

    @property
    def rewritten_port(self) -> int | None:
        """The port that packets for the frontend get; None: they keep theirs."""
        return self.backend_port if self.backend_port != self.frontend_port else None

    @property
    def traffic(self) -> str:
        """What it covers, in words: ``all ports``, ``tcp port 80``."""
        if self.ha_ports:
            return "all ports"
        there = f" to {self.backend_port}" if self.rewritten_port else ""
        return f"{self.protocol.lower()} port {self.frontend_port}{there}"

    @property
    def transit(self) -> bool:
        """Whether the members forward (NVAs) rather than answer (application servers)."""
        return any(member.forwards for member in self.members)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a lab is made of. ``objects`` stand in order of creation."""

    lab: str
    time_scale: float
    fabric: str
    machines: tuple[Machine, ...]
    rules: tuple[Rule, ...]
    ids: tuple[tuple[str, int], ...]
    objects: tuple[KernelObject, ...]
    folder: str = "."
    """Of the document: files are named relative to it."""
    balancer: str = "nftables"
    """The backend: ``nftables`` or ``ipvs``."""
    scheduler: str = "mh"
    """Of IPVS."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that the lab has: 4, and perhaps 6."""
        return ip_versions(self.interfaces)

    @property
    def interfaces(self) -> tuple[NetworkInterface, ...]:
        """The network interfaces of all machines."""
        return tuple(each for machine in self.machines for each in machine.network_interfaces)

    def scaled(self, seconds: float) -> float:
        """Azure's seconds as the lab's seconds."""
        return seconds * self.time_scale

    def machine(self, name: str) -> Machine:
        """The machine of this name.

        Raises:
            UnknownLabError: There is none.
        """
        for machine in self.machines:
            if machine.name == name:
                return machine
        names = ", ".join(machine.name for machine in self.machines)
        raise UnknownLabError(f"lab {self.lab!r} has no machine {name!r}", fix=f"machines: {names}")
