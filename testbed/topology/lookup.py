"""What is where in a topology: by name, by address, and who is a member of what."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from testbed.topology.model import Topology, TransportProtocol
from testbed.topology.peering import Connections

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address

    from testbed.topology.model import (
        FrontendIPConfiguration,
        IPConfiguration,
        LoadBalancer,
        LoadBalancingRule,
        Machine,
        NetworkInterface,
        Subnet,
        VirtualNetwork,
    )

__all__ = ["FrontendPlace", "InterfacePlace", "Lookup", "RulePlace", "SubnetPlace", "network_name"]

Place = tuple[str | int, ...]


def network_name(reference: str) -> str:
    """The virtual network in ``virtual_network/subnet``."""
    return reference.partition("/")[0]


@dataclass(frozen=True, slots=True)
class SubnetPlace:
    """A subnet and where it is written."""

    location: Place
    network: VirtualNetwork
    subnet: Subnet

    @property
    def key(self) -> str:
        """``virtual_network/subnet``."""
        return f"{self.network.name}/{self.subnet.name}"


@dataclass(frozen=True, slots=True)
class InterfacePlace:
    """A network interface and where it is written; or one of its further IP configurations."""

    location: Place
    machine: Machine
    interface: NetworkInterface
    configuration: IPConfiguration | None = None
    """None: the network interface's own address."""

    @property
    def address(self) -> IPv4Address | IPv6Address:
        """Of the configuration, or the network interface's own."""
        return (self.configuration or self.interface).private_ip_address

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools that this address is a member of."""
        return (self.configuration or self.interface).backend_address_pools

    @property
    def all_pools(self) -> tuple[str, ...]:
        """The pools of all addresses of the network interface."""
        further = (pool for each in self.interface.ip_configurations for pool in each.backend_address_pools)
        return (*self.interface.backend_address_pools, *further)

    @property
    def network(self) -> str:
        """Name of its virtual network."""
        return network_name(self.interface.subnet)


@dataclass(frozen=True, slots=True)
class FrontendPlace:
    """A frontend and where it is written."""

    location: Place
    balancer: LoadBalancer
    frontend: FrontendIPConfiguration

    @property
    def network(self) -> str:
        """Name of its virtual network, empty when it has none."""
        return network_name(self.frontend.subnet or "")

    @property
    def key(self) -> str:
        """``load_balancer/frontend``."""
        return f"{self.balancer.name}/{self.frontend.name}"


@dataclass(frozen=True, slots=True)
class RulePlace:
    """A load-balancing rule and where it is written."""

    location: Place
    balancer: LoadBalancer
    rule: LoadBalancingRule

    @property
    def ha_ports(self) -> bool:
        """Whether it is an HA Ports rule, its ports right or wrong."""
        return self.rule.protocol == TransportProtocol.ALL

    @property
    def pool(self) -> str:
        """``load_balancer/backend_address_pool``."""
        return f"{self.balancer.name}/{self.rule.backend_address_pool}"

    @property
    def frontend(self) -> str:
        """``load_balancer/frontend``."""
        return f"{self.balancer.name}/{self.rule.frontend_ip_configuration}"


class Lookup:
    """Made once from a topology. Of things with the same name, the first one counts."""

    def __init__(self, topology: Topology) -> None:
        self.networks: dict[str, VirtualNetwork] = {}
        for each in topology.virtual_networks:
            self.networks.setdefault(each.name, each)
        self.subnets = tuple(
            SubnetPlace(("virtual_networks", i, "subnets", j), network, subnet)
            for i, network in enumerate(topology.virtual_networks)
            for j, subnet in enumerate(network.subnets)
        )
        self.subnet = {each.key: each for each in reversed(self.subnets)}
        #: Each network interface once; :attr:`configurations` has each of their addresses.
        self.interfaces = tuple(
            InterfacePlace(("machines", i, "network_interfaces", j), machine, interface)
            for i, machine in enumerate(topology.machines)
            for j, interface in enumerate(machine.network_interfaces)
        )
        self.configurations = tuple(
            each
            for place in self.interfaces
            for each in (
                place,
                *(
                    InterfacePlace((*place.location, "ip_configurations", k), place.machine, place.interface, further)
                    for k, further in enumerate(place.interface.ip_configurations)
                ),
            )
        )
        self.frontends = tuple(
            FrontendPlace(("load_balancers", i, "frontend_ip_configurations", j), balancer, frontend)
            for i, balancer in enumerate(topology.load_balancers)
            for j, frontend in enumerate(balancer.frontend_ip_configurations)
        )
        self.frontend = {each.key: each for each in reversed(self.frontends)}
        self._balancers = topology.load_balancers
        self.rules = tuple(
            RulePlace(("load_balancers", i, "load_balancing_rules", j), balancer, rule)
            for i, balancer in enumerate(topology.load_balancers)
            for j, rule in enumerate(balancer.load_balancing_rules)
        )
        self._members: dict[str, list[InterfacePlace]] = defaultdict(list)
        for place in self.configurations:
            for pool in dict.fromkeys(place.pools):
                self._members[pool].append(place)
        self._owners: dict[IPv4Address | IPv6Address, list[InterfacePlace | FrontendPlace]] = defaultdict(list)
        for place in self.configurations:
            self._owners[place.address].append(place)
        for front in self.frontends:
            if front.frontend.private_ip_address:
                self._owners[front.frontend.private_ip_address].append(front)
        self.connections = Connections(topology)

    def members(self, pool: str) -> tuple[InterfacePlace, ...]:
        """The addresses of network interfaces in ``load_balancer/backend_address_pool``."""
        return tuple(self._members.get(pool, ()))

    def reachable(self, network: str) -> frozenset[str]:
        """The virtual network itself and those directly peered with it; peering is not transitive."""
        return frozenset(self.connections.reachable(network))

    def rule_pairs(self) -> Iterator[tuple[RulePlace, RulePlace]]:
        """Every two rules of one load balancer, in the order of the document."""
        for balancer in self._balancers:
            yield from combinations([each for each in self.rules if each.balancer is balancer], 2)

    def version(self, rule: RulePlace) -> int:
        """The IP version of a rule's frontend: 6, or 4."""
        front = self.frontend.get(rule.frontend)
        address = front.frontend.private_ip_address if front else None
        return address.version if address else 4

    def owners(self, address: IPv4Address | IPv6Address) -> tuple[InterfacePlace | FrontendPlace, ...]:
        """The network interfaces and frontends that have an address, in any virtual network."""
        return tuple(self._owners.get(address, ()))
