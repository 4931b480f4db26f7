"""What all parts of a fabric's rules are written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testbed.plan.replacement import BALANCER_TABLES

if TYPE_CHECKING:
    from testbed.plan.model import NetworkInterface, Rule
    from testbed.plan.network import Interval, Network, SubnetView
    from testbed.topology.switches import Switches

__all__ = ["PROBE_SOURCE", "PROBE_SOURCE_IPV6", "Fabric", "InternetLink", "idle_seconds"]

#: Source of all health probes, and the platform's own address ("What is IP address 168.63.129.16?").
PROBE_SOURCE = "168.63.129.16"
#: The same for IPv6 ("Azure Load Balancer health probes"): a link-local address, which is every guest's router as well.
PROBE_SOURCE_IPV6 = "fe80::1234:5678:9abc"


@dataclass(frozen=True, slots=True)
class InternetLink:
    """The cable to the internet machine, and the public address that what leaves is given.

    ``return_marks``: (mark of a sender's subnet, mark of the table that its replies use).
    """

    fabric_name: str
    source_address: str
    return_marks: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Fabric:
    """A lab as its fabric's rules for one IP version see it; with ``dhcp`` they let in what asks for an address.

    ``interfaces``, ``rules`` and ``network`` are those of the version; the internet is IPv4 only.
    """

    network: Network
    interfaces: tuple[NetworkInterface, ...]
    rules: tuple[Rule, ...]
    internet: InternetLink | None
    time_scale: float
    switches: Switches
    dhcp: bool = False
    balancer: str = "nftables"
    frontends: tuple[tuple[Rule, ...], ...] = field(init=False)
    """The rules of each frontend."""
    subnets: dict[str, SubnetView] = field(init=False)
    """By ``virtual_network/subnet``."""
    intervals: dict[str, tuple[Interval, ...]] = field(init=False)
    """Of each subnet, what is balanced or leaves."""

    def __post_init__(self) -> None:
        rules: dict[tuple[str, str], list[Rule]] = {}
        for rule in self.rules:
            rules.setdefault((rule.load_balancer, rule.frontend), []).append(rule)
        object.__setattr__(self, "frontends", tuple(map(tuple, rules.values())))
        object.__setattr__(self, "subnets", {view.key: view for view in self.network.subnets})
        object.__setattr__(self, "intervals", {view.key: self.network.intervals(view) for view in self.network.subnets})

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return self.network.version

    @property
    def table(self) -> str:
        """Family and name of the table that holds the rules."""
        return BALANCER_TABLES[self.version]


def idle_seconds(rule: Rule, time_scale: float) -> int:
    """A rule's idle timeout as the kernel takes it: whole seconds of the lab, at least one."""
    return max(1, round(rule.idle_timeout_in_minutes * 60 * time_scale))
