"""Documents that nobody has thought of: virtual networks, peerings, routes, balancers, groups and IPv6 by chance."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import yaml

from testbed.topology.loading import check_text

if TYPE_CHECKING:
    from random import Random

__all__ = ["draw"]

Document = dict[str, Any]
_FIREWALL = {"kind": "namespace", "program": "nft-firewall", "source_nat": "none"}
_ECHO = {"kind": "namespace", "program": "echo"}
_HEALTH = {"name": "health", "protocol": "Http", "port": 8080, "request_path": "/health", "interval_in_seconds": 5}


def draw(random: Random) -> Document:
    """A document that the testbed accepts, another one at each call; the same for the same state of ``random``."""
    while True:
        document = _Draft(random).document
        if check_text(yaml.safe_dump({"name": "drawn"} | document), "drawn")[0]:
            return document


def _ipv6(text: str) -> str:
    """The twin of an IPv4 address or prefix: 10.A.B.C is fd00:0:A:B::C."""
    address, _, length = text.partition("/")
    _, network, subnet, number = address.split(".")
    longer = {"0": "/0", "16": "/48", "24": "/64", "32": "/128"}.get(length, "")
    return "::/0" if length == "0" else f"fd00:0:{network}:{subnet}::{number}{longer}"


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
        for network, subnet in self._subnets():
            if self._chance(0.6):
                self._route(network, subnet)
        if self._chance(0.4):
            self._add_ipv6()
        elif self._chance(0.7):
            self._add_groups()

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _network(self, number: int) -> Document:
        subnets = range(self._random.randint(1, 3))
        return {
            "name": f"v{number}",
            "address_space": [f"10.{number}.0.0/16"],
            "subnets": [{"name": f"s{each}", "address_prefix": f"10.{number}.{each}.0/24"} for each in subnets],
            "virtual_network_peerings": [],
        }

    def _subnets(self) -> list[tuple[int, Document]]:
        networks = enumerate(self.document["virtual_networks"])
        return [(number, subnet) for number, network in networks for subnet in network["subnets"]]

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
        for network, subnet in self._subnets():
            for each in range(self._random.randint(1, 2)):
                number = subnet["name"][1:]
                address = f"10.{network}.{number}.{10 + each}"
                appliance = self._chance(0.35)
                interface: Document = {"subnet": f"v{network}/{subnet['name']}", "private_ip_address": address}
                interface |= {"enable_ip_forwarding": appliance and self._chance(0.9)}
                runtime = _FIREWALL if appliance else _ECHO
                machine = {"name": f"m{network}{number}{each}", "runtime": runtime, "network_interfaces": [interface]}
                self.document["machines"].append(machine)
                if appliance:
                    self._appliances.append((network, address))

    def _balance(self, network: int) -> None:
        members = {address for place, address in self._appliances if place == network}
        if not members or not self._chance(0.8):
            return
        frontend = {"name": "fe", "subnet": f"v{network}/s0", "private_ip_address": f"10.{network}.0.100"}
        rule: Document = {
            "name": "ha-ports",
            "protocol": "All",
            "frontend_port": 0,
            "backend_port": 0,
            "probe": "health",
        }
        rule |= {"frontend_ip_configuration": "fe", "backend_address_pool": "pool"}
        rule |= {"enable_floating_ip": self._chance(0.3)}
        rule |= {"load_distribution": self._random.choice(["Default", "Default", "SourceIP", "SourceIPProtocol"])}
        dns: Document = {"name": "dns", "protocol": "Udp", "frontend_port": 53}
        rules = [rule]
        if self._chance(0.3):
            beside = rule["enable_floating_ip"]
            rules = [*([rule] if beside else []), rule | dns | {"backend_port": 53 if beside else 5353}]
        self.document["load_balancers"].append(
            {
                "name": f"lb{network}",
                "frontend_ip_configurations": [frontend],
                "backend_address_pools": [{"name": "pool"}],
                "probes": [_HEALTH],
                "load_balancing_rules": rules,
            }
        )
        self._frontends.append((network, str(frontend["private_ip_address"])))
        for machine in self.document["machines"]:
            (interface,) = machine["network_interfaces"]
            if interface["private_ip_address"] in members:
                interface["backend_address_pools"] = [f"lb{network}/pool"]

    def _add_gateway(self) -> None:
        first, *others = self.document["virtual_networks"]
        first["subnets"].append({"name": "GatewaySubnet", "address_prefix": "10.0.250.0/27"})
        self.document["virtual_network_gateways"] = [{"name": "vpn", "subnet": "v0/GatewaySubnet"}]
        self.document["local_network_gateways"] = [
            {"name": "onprem", "virtual_network_gateway": "vpn", "local_network_address_space": ["192.168.0.0/16"]}
        ]
        for peering in first["virtual_network_peerings"]:
            peering["allow_gateway_transit"] = True
        for peering in (each for network in others for each in network["virtual_network_peerings"]):
            if peering["remote_virtual_network"] == "v0" and self._chance(0.7):
                peering["use_remote_gateways"] = True

    def _route(self, network: int, subnet: Document) -> None:
        number = self._random.randrange(self._count)
        near = [address for place, address in self._frontends if (network, place) in self._peers]
        hops = [address for place, address in self._appliances if (network, place) in self._peers]
        prefixes = ["0.0.0.0/0", "10.0.0.0/8", "203.0.113.0/24", subnet["address_prefix"], f"10.{number}.0.0/16"]
        prefixes += [f"10.{number}.{each}.0/24" for each in range(3)] + [f"10.{number}.0.10/32"]
        if subnet["name"] == "GatewaySubnet":
            prefixes = prefixes[4:]
        routes: list[Document] = []
        for prefix in self._random.sample(prefixes, self._random.randint(1, 4)):
            route: Document = {"name": f"r{len(routes)}", "address_prefix": prefix}
            hop = self._random.choice([near, near, hops, []])
            if hop:
                route |= {"next_hop_type": "VirtualAppliance", "next_hop_ip_address": self._random.choice(hop)}
            else:
                route |= {"next_hop_type": self._random.choice(["None", "Internet", "VnetLocal"])}
            routes.append(route)
        name = f"of-v{network}-{subnet['name']}"
        table = {"name": name, "routes": routes, "disable_bgp_route_propagation": self._chance(0.3)}
        self.document["route_tables"].append(table)
        subnet["route_table"] = name

    def _add_groups(self) -> None:
        groups = self.document["network_security_groups"] = []
        for network, subnet in self._subnets():
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
            groups.append({"name": f"of-v{network}-{subnet['name']}", "security_rules": rules})
            subnet["network_security_group"] = groups[-1]["name"]

    def _add_ipv6(self) -> None:
        """Twins of what there is, but for a few machines and for floating rules, which IPv6 has none of."""
        for network in self.document["virtual_networks"]:
            network["address_space"].append(_ipv6(network["address_space"][0]))
        for _, subnet in self._subnets():
            if subnet["name"] != "GatewaySubnet":
                prefix = subnet.pop("address_prefix")
                subnet["address_prefixes"] = [prefix, _ipv6(prefix)]
        twins = set()
        for balancer in self.document["load_balancers"]:
            if balancer["load_balancing_rules"][0]["enable_floating_ip"]:
                continue
            twins.add(balancer["name"])
            for key in ("frontend_ip_configurations", "backend_address_pools", "probes", "load_balancing_rules"):
                balancer[key] = balancer[key] + [_twin(each) for each in balancer[key]]
        for machine in self.document["machines"]:
            (interface,) = machine["network_interfaces"]
            if self._chance(0.85):
                own: Document = {"name": "v6", "private_ip_address": _ipv6(interface["private_ip_address"])}
                pools = [each for each in interface.get("backend_address_pools", ()) if each.split("/")[0] in twins]
                interface["ip_configurations"] = [own | {"backend_address_pools": [f"{each}-v6" for each in pools]}]
        for table in self.document["route_tables"]:
            mapped = [
                each for each in table["routes"] if each["address_prefix"] not in ("10.0.0.0/8", "203.0.113.0/24")
            ]
            table["routes"] = table["routes"] + [_twin(each) for each in mapped]


_IPV4_ONLY = ("10.0.0.0/8", "203.0.113.0/24")
_NAMES = ("name", "frontend_ip_configuration", "backend_address_pool", "probe")
_ADDRESSES = ("private_ip_address", "address_prefix", "next_hop_ip_address")


def _twin(part: Document) -> Document:
    twin = part | {key: f"{part[key]}-v6" for key in _NAMES if key in part}
    return twin | {key: _ipv6(part[key]) for key in _ADDRESSES if key in part}
