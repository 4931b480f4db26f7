"""Small topology documents, as dictionaries that a test changes before it brings them up."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

__all__ = [
    "APP_FRONTEND",
    "ECHO",
    "FIREWALL",
    "FRONTEND",
    "IDLE",
    "Document",
    "application",
    "behind_a_router",
    "dual_stack",
    "health",
    "hub_spoke",
    "machine",
    "network",
    "rule",
    "servers_behind_a_router",
    "user_route",
]

Document = dict[str, Any]

#: A machine that answers every TCP and UDP port (HTTP: with its name).
ECHO = {"kind": "namespace", "program": "echo"}
#: An appliance: forwards, stateful, answers probes on port 8080.
FIREWALL = {"kind": "namespace", "program": "nft-firewall"}
#: A machine that a test speaks from itself.
IDLE = {"kind": "namespace"}
#: Of the balancer of :func:`hub_spoke`.
FRONTEND = "10.0.2.4"
#: Of the balancer of :func:`application`.
APP_FRONTEND = "10.20.2.4"


def machine(name: str, subnet: str, address: str, runtime: Document | None = None, **nic: Any) -> Document:
    """A machine with one network interface; further keys are the network interface's."""
    interface = {"subnet": subnet, "private_ip_address": address, **nic}
    return {"name": name, "runtime": runtime or ECHO, "network_interfaces": [interface]}


def network(name: str, space: str, **subnets: str | tuple[str, str]) -> Document:
    """A virtual network; each subnet is a prefix, or a prefix and the name of its route table."""
    made = []
    for each, value in subnets.items():
        prefix, table = value if isinstance(value, tuple) else (value, None)
        made.append({"name": each, "address_prefix": prefix} | ({"route_table": table} if table else {}))
    return {"name": name, "address_space": [space], "subnets": made}


def user_route(name: str, prefix: str, hop: str | None = None, kind: str = "VirtualAppliance") -> Document:
    """A user-defined route; to an appliance when there is a next hop address."""
    made = {"name": name, "address_prefix": prefix, "next_hop_type": kind}
    return made | ({"next_hop_ip_address": hop} if hop else {})


def rule(name: str = "ha", frontend: str = "fe", pool: str = "nvas", **more: Any) -> Document:
    """An HA Ports rule."""
    return {
        "name": name,
        "protocol": "All",
        "frontend_port": 0,
        "backend_port": 0,
        "frontend_ip_configuration": frontend,
        "backend_address_pool": pool,
        "probe": "health",
        **more,
    }


def health(**more: Any) -> Document:
    """The probe that rules name, of appliances; further keys are put in place of its own."""
    own = {"name": "health", "protocol": "Http", "port": 8080, "request_path": "/health", "interval_in_seconds": 5}
    return own | more


def hub_spoke(members: int = 2, *, probe: Document | None = None, **rule_keys: Any) -> Document:
    """A hub with NVAs ``nva1`` … behind one HA Ports rule, and the spokes of ``web1`` and ``web2``.

    Both spokes send everything to the frontend. The NVAs are 10.0.1.4 …, ``web1`` is 10.1.0.4, ``web2`` 10.2.0.4.
    """
    nvas = [
        machine(
            f"nva{number + 1}",
            "hub/nva",
            f"10.0.1.{4 + number}",
            FIREWALL,
            enable_ip_forwarding=True,
            backend_address_pools=["ilb/nvas"],
        )
        for number in range(members)
    ]
    return {
        "virtual_networks": [
            network("hub", "10.0.0.0/16", nva="10.0.1.0/24", lb="10.0.2.0/24"),
            network("spoke1", "10.1.0.0/16", workload=("10.1.0.0/24", "to-nva")),
            network("spoke2", "10.2.0.0/16", workload=("10.2.0.0/24", "to-nva")),
        ],
        "peerings": [
            {"between": ["hub", "spoke1"], "allow_forwarded_traffic": True},
            {"between": ["hub", "spoke2"], "allow_forwarded_traffic": True},
        ],
        "route_tables": [{"name": "to-nva", "routes": [user_route("default", "0.0.0.0/0", FRONTEND)]}],
        "load_balancers": [
            {
                "name": "ilb",
                "frontend_ip_configurations": [{"name": "fe", "subnet": "hub/lb", "private_ip_address": FRONTEND}],
                "backend_address_pools": [{"name": "nvas"}],
                "probes": [health(**(probe or {}))],
                "load_balancing_rules": [rule(**rule_keys)],
            }
        ],
        "machines": [
            *nvas,
            machine("web1", "spoke1/workload", "10.1.0.4"),
            machine("web2", "spoke2/workload", "10.2.0.4"),
        ],
    }


def dual_stack(document: Document) -> Document:
    """The same with IPv6 beside IPv4: 10.A.B.C is fd00:0:A:B::C as well, and rules, pools and probes are ``…-v6``.

    Left out is what IPv6 does not have, or no such twin: gateways, floating rules, routes to other prefixes.
    """
    for each in document["virtual_networks"]:
        each["address_space"] = [*each["address_space"], _ipv6(each["address_space"][0])]
        for subnet in each["subnets"]:
            if subnet["name"] != "GatewaySubnet":
                prefix = subnet.pop("address_prefix")
                subnet["address_prefixes"] = [prefix, _ipv6(prefix)]
    for table in document.get("route_tables", ()):
        table["routes"] = table["routes"] + [_twin(each) for each in table["routes"] if _has_twin(each)]
    balancers = [each for each in document["load_balancers"] if not _floats(each)]
    for balancer in balancers:
        for key in ("frontend_ip_configurations", "backend_address_pools", "probes", "load_balancing_rules"):
            balancer[key] = balancer[key] + [_twin(each) for each in balancer[key]]
    known = {each["name"] for each in balancers}
    for each in document["machines"]:
        for interface in each["network_interfaces"]:
            pools = [pool for pool in interface.get("backend_address_pools", ()) if pool.partition("/")[0] in known]
            own: Document = {"name": "v6", "private_ip_address": _ipv6(interface["private_ip_address"])}
            interface["ip_configurations"] = [own | {"backend_address_pools": [f"{pool}-v6" for pool in pools]}]
    return document


_NAMES = ("name", "frontend_ip_configuration", "backend_address_pool", "probe")
_ADDRESSES = ("private_ip_address", "address_prefix", "next_hop_ip_address")
#: Lengths of prefixes, and those of their twins.
_LENGTHS = {"": "", "0": "/0", "16": "/48", "24": "/64", "32": "/128"}


def _floats(balancer: Document) -> bool:
    return any(each.get("enable_floating_ip") for each in balancer["load_balancing_rules"])


def _has_twin(route: Document) -> bool:
    address, _, length = route["address_prefix"].partition("/")
    return length in _LENGTHS and (length == "0" or address.startswith("10."))


def _twin(part: Document) -> Document:
    twin = part | {key: f"{part[key]}-v6" for key in _NAMES if key in part}
    return twin | {key: _ipv6(part[key]) for key in _ADDRESSES if key in part}


def _ipv6(text: str) -> str:
    """The twin of an IPv4 address or prefix."""
    address, _, length = text.partition("/")
    _, network, subnet, number = address.split(".")
    twin = IPv6Address(f"fd00:0:{network}:{subnet}::{number}") if length != "0" else "::"
    return f"{twin}{_LENGTHS[length]}"


def application(
    members: int = 2, *, rules: list[Document] | None = None, floating: bool = False, **pool: Any
) -> Document:
    """Servers ``app1`` … (10.20.1.4 …) that answer themselves for a frontend, and the machine ``client`` (10.20.3.4).

    The rule is an HA Ports rule, if no others are given; with ``floating`` it, and the servers, have floating IP.
    Further keys are the pool's.
    """
    owned = {"loopback_addresses": [APP_FRONTEND]} if floating else {}
    servers = [
        machine(
            f"app{number + 1}",
            "net/app",
            f"10.20.1.{4 + number}",
            {**ECHO, **owned},
            backend_address_pools=["ilb/apps"],
        )
        for number in range(members)
    ]
    return {
        "virtual_networks": [
            network("net", "10.20.0.0/16", app="10.20.1.0/24", lb="10.20.2.0/24", clients="10.20.3.0/24")
        ],
        "load_balancers": [
            {
                "name": "ilb",
                "frontend_ip_configurations": [{"name": "fe", "subnet": "net/lb", "private_ip_address": APP_FRONTEND}],
                "backend_address_pools": [{"name": "apps", **pool}],
                "probes": [health(port=9000)],
                "load_balancing_rules": rules or [rule(pool="apps", enable_floating_ip=floating)],
            }
        ],
        "machines": [*servers, machine("client", "net/clients", "10.20.3.4", IDLE)],
    }


def servers_behind_a_router(*, floating: bool, **covers: Any) -> Document:
    """Servers ``app1`` and ``app2``; their answers to the client ``behind`` (10.20.5.5) go by the router ``gw``."""
    document = application(2, floating=floating, rules=[rule(pool="apps", enable_floating_ip=floating, **covers)])
    (net,) = document["virtual_networks"]
    net["subnets"][0]["route_table"] = "to-gw"
    net["subnets"].append({"name": "inner", "address_prefix": "10.20.5.0/24"})
    document["route_tables"] = [{"name": "to-gw", "routes": [user_route("inner", "10.20.5.0/24", "10.20.3.9")]}]
    router = machine("gw", "net/clients", "10.20.3.9", IDLE, enable_ip_forwarding=True)
    router["network_interfaces"].append(
        {"subnet": "net/inner", "private_ip_address": "10.20.5.4", "enable_ip_forwarding": True}
    )
    document["machines"] += [router, machine("behind", "net/inner", "10.20.5.5", IDLE)]
    return document


def behind_a_router(document: Document) -> Document:
    """A hub and spokes with ``behind`` (10.2.1.5), which the second spoke reaches through the router ``gw``.

    ``gw`` has eth0 (10.2.0.9) in the spoke's own subnet and eth1 (10.2.1.4) in that of ``behind``.
    """
    spoke2, hub = document["virtual_networks"][2], document["virtual_networks"][0]
    spoke2["subnets"].append({"name": "inner", "address_prefix": "10.2.1.0/24", "route_table": "to-gw"})
    hub["subnets"][0]["route_table"] = "to-inner"
    document["route_tables"] += [
        {"name": "to-inner", "routes": [user_route("inner", "10.2.1.0/24", "10.2.0.9")]},
        {"name": "to-gw", "routes": [user_route("default", "0.0.0.0/0", "10.2.1.4")]},
    ]
    router = machine("gw", "spoke2/workload", "10.2.0.9", IDLE, enable_ip_forwarding=True)
    router["network_interfaces"].append(
        {"subnet": "spoke2/inner", "private_ip_address": "10.2.1.4", "enable_ip_forwarding": True}
    )
    document["machines"] += [router, machine("behind", "spoke2/inner", "10.2.1.5")]
    return document
