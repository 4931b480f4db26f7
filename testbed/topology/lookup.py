"""What is where in a topology: by name, by address, and who is a member of what."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.topology.model import Topology, TransportProtocol
from testbed.topology.peering import Connections

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from testbed.topology.model import (
        FrontendIPConfiguration,
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
    """A network interface and where it is written."""

    location: Place
    machine: Machine
    interface: NetworkInterface

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
        self.interfaces = tuple(
            InterfacePlace(("machines", i, "network_interfaces", j), machine, interface)
            for i, machine in enumerate(topology.machines)
            for j, interface in enumerate(machine.network_interfaces)
        )
        self.frontends = tuple(
            FrontendPlace(("load_balancers", i, "frontend_ip_configurations", j), balancer, frontend)
            for i, balancer in enumerate(topology.load_balancers)
            for j, frontend in enumerate(balancer.frontend_ip_configurations)
        )
        self.frontend = {each.key: each for each in reversed(self.frontends)}
        self.rules = tuple(
            RulePlace(("load_balancers", i, "load_balancing_rules", j), balancer, rule)
            for i, balancer in enumerate(topology.load_balancers)
            for j, rule in enumerate(balancer.load_balancing_rules)
        )
        self._members: dict[str, list[InterfacePlace]] = defaultdict(list)
        for place in self.interfaces:
            for pool in dict.fromkeys(place.interface.backend_address_pools):
                self._members[pool].append(place)
        self._owners: dict[IPv4Address, list[InterfacePlace | FrontendPlace]] = defaultdict(list)
        for place in self.interfaces:
            self._owners[place.interface.private_ip_address].append(place)
        for front in self.frontends:
            if front.frontend.private_ip_address:
                self._owners[front.frontend.private_ip_address].append(front)
        self.connections = Connections(topology)

    def members(self, pool: str) -> tuple[InterfacePlace, ...]:
        """The network interfaces in ``load_balancer/backend_address_pool``."""
        return tuple(self._members.get(pool, ()))

    def reachable(self, network: str) -> frozenset[str]:
        """The virtual network itself and those directly peered with it; peering is not transitive."""
        return frozenset({network, *self.connections.neighbours(network)})

    def owners(self, address: IPv4Address) -> tuple[InterfacePlace | FrontendPlace, ...]:
        """The network interfaces and frontends that have an address, in any virtual network."""
        return tuple(self._owners.get(address, ()))
