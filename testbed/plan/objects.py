"""The kernel objects of a lab, one frozen class each. Two plans are compared by comparing these."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Address",
    "Controller",
    "Instance",
    "Keeper",
    "KernelObject",
    "LinkUp",
    "Macvlan",
    "MovedLink",
    "Namespace",
    "Neighbor",
    "NoChecksumOffload",
    "Route",
    "RoutingRule",
    "Ruleset",
    "Sysctl",
    "Tap",
    "Veth",
    "VirtualService",
    "VirtualServices",
]


@dataclass(frozen=True, slots=True)
class Namespace:
    """A named network namespace (``ip netns``)."""

    namespace: str


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A ``net.*`` setting of one namespace."""

    namespace: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Veth:
    """A cable: a veth pair from the fabric (``namespace``, this end is up) to a machine (``peer_namespace``)."""

    namespace: str
    name: str
    altname: str
    mac: str
    mtu: int
    peer_namespace: str
    peer_name: str
    peer_mac: str


@dataclass(frozen=True, slots=True)
class Tap:
    """A tap device: the end of a virtual machine's cable, which QEMU opens."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Macvlan:
    """A macvlan device (mode ``private``) on a network interface of the computer, the way to a machine outside."""

    namespace: str
    name: str
    parent: str
    mac: str


@dataclass(frozen=True, slots=True)
class MovedLink:
    """A network interface of the computer, moved into the lab under another name; it goes back when it is removed."""

    namespace: str
    name: str
    interface: str


@dataclass(frozen=True, slots=True)
class NoChecksumOffload:
    """A link that gets packets with whole checksums, for stacks in user space behind it."""

    namespace: str
    link: str


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A machine's end of a cable is up."""

    namespace: str
    link: str


@dataclass(frozen=True, slots=True)
class Address:
    """An address with its prefix length on a link."""

    namespace: str
    link: str
    address: str


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A permanent neighbour: the fabric knows every network interface, it never asks by ARP."""

    namespace: str
    link: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Route:
    """A route. ``kind`` is ``unicast``, ``blackhole`` or ``local``; a gateway is always taken as on-link."""

    namespace: str
    table: int
    destination: str
    kind: str = "unicast"
    gateway: str | None = None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """A policy rule: packets of an IP version whose mark matches use a table."""

    namespace: str
    priority: int
    mark: int
    mask: int
    table: int
    version: int = 4


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A service of IPVS for packets with a mark; weights change while the lab runs and are not part of it."""

    mark: int
    scheduler: str
    flags: int
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VirtualServices:
    """All services of IPVS in one namespace, by mark; they are changed in place."""

    namespace: str
    services: tuple[VirtualService, ...]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """nftables tables of one namespace, replaced as a whole in one transaction.

    ``text`` defines exactly the ``tables`` (``family name``); element lists that change while the lab runs
    (owners and eligible members) are not part of it.
    """

    namespace: str
    tables: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Instance:
    """What runs as a machine or in it: a program of a namespace, a container, a virtual machine.

    ``runtime`` is the document's, ``kind`` says what of that runtime, ``config`` is its JSON configuration.
    A container brings the network namespace, which gets its name from here.
    """

    namespace: str
    machine: str
    runtime: str
    kind: str
    config: str

    @property
    def brings_namespace(self) -> bool:
        """Whether the namespace comes and goes with it."""
        return self.runtime == "container"


@dataclass(frozen=True, slots=True)
class Controller:
    """The probe controller of the lab; ``config`` is a digest of what it was started with."""

    namespace: str
    config: str


@dataclass(frozen=True, slots=True)
class Keeper:
    """The process that wires containers again when their engine has started them anew."""

    namespace: str
    config: str


KernelObject = (
    Namespace
    | Sysctl
    | Veth
    | Tap
    | Macvlan
    | MovedLink
    | NoChecksumOffload
    | LinkUp
    | Address
    | Neighbor
    | Route
    | RoutingRule
    | VirtualServices
    | Ruleset
    | Instance
    | Controller
    | Keeper
)
