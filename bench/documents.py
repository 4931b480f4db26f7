"""Topology documents that the benchmarks bring up, as plain data; JSON is YAML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["hub_and_spokes", "many_machines", "many_probes", "write"]


def write(document: dict[str, Any], directory: Path) -> Path:
    """Write a document to a file named after it."""
    path = directory / f"{document['name']}.yaml"
    path.write_text(json.dumps(document, indent=1))
    return path


def many_machines(name: str, count: int) -> dict[str, Any]:
    """Idle namespaces, spread over two subnets in each of two peered virtual networks."""
    networks = [
        {
            "name": f"vnet{network}",
            "address_space": [f"10.{network}.0.0/16"],
            "subnets": [
                {"name": f"subnet{subnet}", "address_prefix": f"10.{network}.{subnet}.0/24"} for subnet in (1, 2)
            ],
        }
        for network in (1, 2)
    ]
    places = [(network, subnet) for network in (1, 2) for subnet in (1, 2)]
    machines = [
        {
            "name": f"h{index}",
            "network_interfaces": [
                {
                    "subnet": f"vnet{network}/subnet{subnet}",
                    "private_ip_address": f"10.{network}.{subnet}.{4 + index // len(places)}",
                }
            ],
        }
        for index in range(count)
        for network, subnet in [places[index % len(places)]]
    ]
    return {
        "name": name,
        "virtual_networks": networks,
        "peerings": [{"between": ["vnet1", "vnet2"]}],
        "machines": machines,
    }


def hub_and_spokes(name: str, appliances: int, next_hop: str, time_scale: float = 0.02) -> dict[str, Any]:
    """Two spokes with an idle machine each (``source``, ``sink``), and NVAs in the hub.

    ``next_hop`` is where the spokes' default route leads: 10.0.2.4 is the balancer, 10.0.1.4 the first NVA.
    """
    spokes = [("spoke1", "10.1.0", "source"), ("spoke2", "10.2.0", "sink")]
    return {
        "name": name,
        "time_scale": time_scale,
        "virtual_networks": [
            {
                "name": "hub",
                "address_space": ["10.0.0.0/16"],
                "subnets": [
                    {"name": "nva", "address_prefix": "10.0.1.0/24"},
                    {"name": "lb", "address_prefix": "10.0.2.0/24"},
                ],
            },
            *(
                {
                    "name": spoke,
                    "address_space": [f"{prefix}.0/16"],
                    "subnets": [{"name": "workload", "address_prefix": f"{prefix}.0/24", "route_table": "to-nva"}],
                }
                for spoke, prefix, _ in spokes
            ),
        ],
        "peerings": [{"between": ["hub", spoke], "allow_forwarded_traffic": True} for spoke, _, _ in spokes],
        "route_tables": [
            {
                "name": "to-nva",
                "routes": [
                    {
                        "name": "default",
                        "address_prefix": "0.0.0.0/0",
                        "next_hop_type": "VirtualAppliance",
                        "next_hop_ip_address": next_hop,
                    }
                ],
            }
        ],
        "load_balancers": [_balancer("lb", "hub/lb", [("10.0.2.4", False)])],
        "machines": [
            *(_appliance(f"nva{index}", "hub/nva", f"10.0.1.{3 + index}") for index in range(1, appliances + 1)),
            *(
                {
                    "name": machine,
                    "network_interfaces": [{"subnet": f"{spoke}/workload", "private_ip_address": f"{prefix}.4"}],
                }
                for spoke, prefix, machine in spokes
            ),
        ],
    }


def container_appliances(name: str, count: int) -> dict[str, Any]:
    """A hub and spokes whose appliances are containers of ``nft-firewall``."""
    document = hub_and_spokes(name, count, "10.0.2.4")
    for machine in document["machines"]:
        if machine["name"].startswith("nva"):
            machine["runtime"] = {
                "kind": "container",
                "build": "nft-firewall",
                "sysctls": {"net.ipv4.ip_forward": 1, "net.netfilter.nf_conntrack_tcp_loose": 0},
            }
    return document


def many_probes(name: str, members: int, rules: int) -> dict[str, Any]:
    """A pool whose members are probed once per rule: ``members`` x ``rules`` probes, at Azure's 5 s.

    Several HA Ports rules on one pool must be floating, each on a frontend of its own.
    """
    frontends = [(f"10.0.2.{4 + index}", True) for index in range(rules)]
    return {
        "name": name,
        "virtual_networks": [
            {
                "name": "hub",
                "address_space": ["10.0.0.0/16"],
                "subnets": [
                    {"name": "nva", "address_prefix": "10.0.1.0/24"},
                    {"name": "lb", "address_prefix": "10.0.2.0/24"},
                ],
            }
        ],
        "load_balancers": [_balancer("lb", "hub/lb", frontends)],
        "machines": [_appliance(f"nva{index}", "hub/nva", f"10.0.1.{4 + index}") for index in range(members)],
    }


def _appliance(name: str, subnet: str, address: str) -> dict[str, Any]:
    return {
        "name": name,
        "runtime": {"kind": "namespace", "program": "nft-firewall"},
        "network_interfaces": [
            {
                "subnet": subnet,
                "private_ip_address": address,
                "enable_ip_forwarding": True,
                "backend_address_pools": ["lb/nvas"],
            }
        ],
    }


def _balancer(name: str, subnet: str, frontends: list[tuple[str, bool]]) -> dict[str, Any]:
    """One HA Ports rule and one probe per frontend; each is (address, floating IP)."""
    return {
        "name": name,
        "frontend_ip_configurations": [
            {"name": f"fe{index}", "subnet": subnet, "private_ip_address": address}
            for index, (address, _) in enumerate(frontends)
        ],
        "backend_address_pools": [{"name": "nvas"}],
        "probes": [
            {
                "name": f"health{index}",
                "protocol": "Http",
                "port": 8080,
                "request_path": "/health",
                "interval_in_seconds": 5,
            }
            for index in range(len(frontends))
        ],
        "load_balancing_rules": [
            {
                "name": f"ha-ports{index}",
                "protocol": "All",
                "frontend_port": 0,
                "backend_port": 0,
                "frontend_ip_configuration": f"fe{index}",
                "backend_address_pool": "nvas",
                "probe": f"health{index}",
                "enable_floating_ip": floating,
            }
            for index, (_, floating) in enumerate(frontends)
        ],
    }
