"""Documents that nobody has thought of: virtual networks, peerings, routes, balancers, groups and IPv6 by chance."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import yaml
from documents import ECHO, FIREWALL, Document, dual_stack, health, machine, network, rule, user_route

from testbed.topology.loading import check_text

if TYPE_CHECKING:
    from random import Random

__all__ = ["draw"]

_FIREWALL = {**FIREWALL, "source_nat": "none"}


def draw(random: Random) -> Document:
    """A document that the testbed accepts, another one at each call; the same for the same state of ``random``."""
    while True:
        document = _Draft(random).document
        if check_text(yaml.safe_dump({"name": "drawn"} | document), "drawn")[0]:
            return document


class _Draft:
    """One attempt. Networks are v0 … (10.0.0.0/16 …), subnets s0 … (10.0.0.0/24 …), machines m000 … (10.0.0.10 …)."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._count = random.randint(2, 4)
        self._peers = {(each, each) for each in range(self._count)}
        self._appliances: list[tuple[int, str]] = []
        self._frontends: list[tuple[int, str]] = []
        self.document: Document = {
            "virtual_networks": [self._network(each) for each in range(self._count)],
            "route_tables": [],
            "load_balancers": [],
            "machines": [],
            "internet": {"address_prefix": "203.0.113.0/24"},
        }
        self._peer()
        self._populate()
        for each in range(self._count):
            self._balance(each)
        if self._chance(0.3):
            self._add_gateway()
        for place, subnet in self._subnets():
            if self._chance(0.6):
                self._route(place, subnet)
        if self._chance(0.4):
            self._add_ipv6()
        elif self._chance(0.7):
            self._add_groups()

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _network(self, number: int) -> Document:
        subnets = range(self._random.randint(1, 3))
        made = network(
            f"v{number}", f"10.{number}.0.0/16", **{f"s{each}": f"10.{number}.{each}.0/24" for each in subnets}
        )
        return made | {"virtual_network_peerings": []}

    def _subnets(self) -> list[tuple[int, Document]]:
        networks = enumerate(self.document["virtual_networks"])
        return [(place, subnet) for place, each in networks for subnet in each["subnets"]]

    def _peer(self) -> None:
        for pair in combinations(range(self._count), 2):
            if not self._chance(0.8):
                continue
            for one, other in (pair, pair[::-1]):
                self._peers.add((one, other))
                peering: Document = {"name": f"to-v{other}", "remote_virtual_network": f"v{other}"}
                peering |= {"allow_forwarded_traffic": self._chance(0.8)}
                peering |= {"allow_virtual_network_access": self._chance(0.9)}
                self.document["virtual_networks"][one]["virtual_network_peerings"].append(peering)

    def _populate(self) -> None:
        for place, subnet in self._subnets():
            for each in range(self._random.randint(1, 2)):
                number = subnet["name"][1:]
                address = f"10.{place}.{number}.{10 + each}"
                appliance = self._chance(0.35)
                made = machine(
                    f"m{place}{number}{each}",
                    f"v{place}/{subnet['name']}",
                    address,
                    _FIREWALL if appliance else ECHO,
                    enable_ip_forwarding=appliance and self._chance(0.9),
                )
                self.document["machines"].append(made)
                if appliance:
                    self._appliances.append((place, address))

    def _balance(self, place: int) -> None:
        members = {address for where, address in self._appliances if where == place}
        if not members or not self._chance(0.8):
            return
        frontend = {"name": "fe", "subnet": f"v{place}/s0", "private_ip_address": f"10.{place}.0.100"}
        ha_ports = rule(
            "ha-ports",
            pool="pool",
            enable_floating_ip=self._chance(0.3),
            load_distribution=self._random.choice(["Default", "Default", "SourceIP", "SourceIPProtocol"]),
        )
        dns: Document = {"name": "dns", "protocol": "Udp", "frontend_port": 53}
        rules = [ha_ports]
        if self._chance(0.3):
            beside = ha_ports["enable_floating_ip"]
            rules = [*([ha_ports] if beside else []), ha_ports | dns | {"backend_port": 53 if beside else 5353}]
        self.document["load_balancers"].append(
            {
                "name": f"lb{place}",
                "frontend_ip_configurations": [frontend],
                "backend_address_pools": [{"name": "pool"}],
                "probes": [health()],
                "load_balancing_rules": rules,
            }
        )
        self._frontends.append((place, str(frontend["private_ip_address"])))
        for each in self.document["machines"]:
            (interface,) = each["network_interfaces"]
            if interface["private_ip_address"] in members:
                interface["backend_address_pools"] = [f"lb{place}/pool"]

    def _add_gateway(self) -> None:
        first, *others = self.document["virtual_networks"]
        first["subnets"].append({"name": "GatewaySubnet", "address_prefix": "10.0.250.0/27"})
        self.document["virtual_network_gateways"] = [{"name": "vpn", "subnet": "v0/GatewaySubnet"}]
        self.document["local_network_gateways"] = [
            {"name": "onprem", "virtual_network_gateway": "vpn", "local_network_address_space": ["192.168.0.0/16"]}
        ]
        for peering in first["virtual_network_peerings"]:
            peering["allow_gateway_transit"] = True
        for peering in (each for other in others for each in other["virtual_network_peerings"]):
            if peering["remote_virtual_network"] == "v0" and self._chance(0.7):
                peering["use_remote_gateways"] = True

    def _route(self, place: int, subnet: Document) -> None:
        number = self._random.randrange(self._count)
        near = [address for where, address in self._frontends if (place, where) in self._peers]
        hops = [address for where, address in self._appliances if (place, where) in self._peers]
        prefixes = ["0.0.0.0/0", "10.0.0.0/8", "203.0.113.0/24", subnet["address_prefix"], f"10.{number}.0.0/16"]
        prefixes += [f"10.{number}.{each}.0/24" for each in range(3)] + [f"10.{number}.0.10/32"]
        if subnet["name"] == "GatewaySubnet":
            prefixes = prefixes[4:]
        routes: list[Document] = []
        for prefix in self._random.sample(prefixes, self._random.randint(1, 4)):
            name = f"r{len(routes)}"
            if hops_there := self._random.choice([near, near, hops, []]):
                routes.append(user_route(name, prefix, self._random.choice(hops_there)))
            else:
                routes.append(user_route(name, prefix, kind=self._random.choice(["None", "Internet", "VnetLocal"])))
        name = f"of-v{place}-{subnet['name']}"
        table = {"name": name, "routes": routes, "disable_bgp_route_propagation": self._chance(0.3)}
        self.document["route_tables"].append(table)
        subnet["route_table"] = name

    def _add_groups(self) -> None:
        groups = self.document["network_security_groups"] = []
        for place, subnet in self._subnets():
            if subnet["name"] == "GatewaySubnet" or not self._chance(0.3):
                continue
            names = ["*", "VirtualNetwork", "Internet", *(f"10.{each}.0.0/16" for each in range(self._count))]
            rules = [
                {
                    "name": f"rule{each}",
                    "priority": 100 + each,
                    "direction": self._random.choice(["Inbound", "Outbound"]),
                    "access": self._random.choice(["Allow", "Deny"]),
                    "protocol": self._random.choice(["Udp", "Tcp", "*"]),
                    "source_address_prefix": self._random.choice(names),
                    "source_port_range": "*",
                    "destination_address_prefix": self._random.choice(names),
                    "destination_port_range": self._random.choice(["*", "53", "40000-49999"]),
                }
                for each in range(self._random.randint(1, 3))
            ]
            groups.append({"name": f"of-v{place}-{subnet['name']}", "security_rules": rules})
            subnet["network_security_group"] = groups[-1]["name"]

    def _add_ipv6(self) -> None:
        """For all but a few machines."""
        dual_stack(self.document)
        for each in self.document["machines"]:
            (interface,) = each["network_interfaces"]
            if not self._chance(0.85):
                del interface["ip_configurations"]
