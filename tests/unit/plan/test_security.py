"""Effective security rules, and the nftables rules that they become."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from testbed.plan import objects
from testbed.plan.compile import compile_plan, network_of
from testbed.plan.explain import way
from testbed.plan.numbers import Numbers
from testbed.plan.security import INBOUND, OUTBOUND, Blocked, Packet, Securities
from testbed.plan.security_ruleset import SECURITY_TABLE
from testbed.topology.model import Topology
from testbed.topology.security import SecurityRuleDirection, port_range

if TYPE_CHECKING:
    from testbed.plan.service_tags import Addresses

GOLDEN = Path(__file__).parent / "golden"
TOPOLOGIES = Path(__file__).parents[3] / "topologies"
TCP, UDP, ICMP, ESP = 6, 17, 1, 50


def rule(priority: int, access: str, direction: str = "Inbound", **more: Any) -> dict[str, Any]:
    base = {"name": f"r{priority}", "priority": priority, "access": access, "direction": direction, "protocol": "*"}
    return base | more


def document(nic: list[dict[str, Any]] | None, subnet: list[dict[str, Any]] | None = None, **more: Any) -> Topology:
    """One machine at 10.0.0.4 with these groups, a peer, and a network that is not one."""
    groups = [
        {"name": name, "security_rules": rules} for name, rules in (("n", nic), ("s", subnet)) if rules is not None
    ]
    part: dict[str, Any] = {"name": "a", "address_prefix": "10.0.0.0/24", "route_table": more.pop("table", None)}
    return Topology.model_validate(
        {
            "name": "x",
            "virtual_networks": [
                {
                    "name": "here",
                    "address_space": ["10.0.0.0/16"],
                    "subnets": [part | ({"network_security_group": "s"} if subnet is not None else {})],
                },
                {"name": "peer", "address_space": ["10.1.0.0/16"]},
                {"name": "closed", "address_space": ["10.2.0.0/16"]},
                {"name": "other", "address_space": ["10.3.0.0/16"]},
            ],
            "peerings": [
                {"between": ["here", "peer"]},
                {"between": ["closed", "here"], "allow_virtual_network_access": False},
            ],
            "route_tables": [
                {
                    "name": "t",
                    "routes": [{"name": "on-prem", "address_prefix": "192.168.0.0/24", "next_hop_type": "None"}],
                },
                {
                    "name": "all",
                    "routes": [{"name": "all", "address_prefix": "0.0.0.0/0", "next_hop_type": "Internet"}],
                },
            ],
            "network_security_groups": groups,
            "machines": [
                {
                    "name": "m",
                    "network_interfaces": [
                        {"subnet": "here/a", "private_ip_address": "10.0.0.4"}
                        | ({"network_security_group": "n"} if nic is not None else {})
                    ],
                }
            ],
            **more,
        }
    )


def securities(topology: Topology) -> Securities:
    return Securities(topology, compile_plan(topology, "x", Numbers(), "/run/testbed/x"))


def verdict(
    topology: Topology,
    source: str,
    destination: str = "10.0.0.4",
    protocol: int = TCP,
    ports: tuple[int | None, int | None] = (40000, 80),
    direction: SecurityRuleDirection = INBOUND,
) -> Blocked | None:
    security = securities(topology).of("m", "10.0.0.4")
    assert security is not None
    return security.verdict(direction, Packet(protocol, IPv4Address(source), IPv4Address(destination), *ports))


def test_the_text_is_as_expected() -> None:
    """One network interface with both groups; every kind of match."""
    topology = document(
        [
            rule(200, "Allow", protocol="Tcp", destination_port_ranges=["80", "443", "8000-8080"]),
            rule(100, "Deny", protocol="Icmp", source_address_prefix="Internet"),
            rule(150, "Deny", "Outbound", protocol="Esp", destination_address_prefix="10.9.0.1"),
        ],
        [
            rule(100, "Allow", source_address_prefix="AzureLoadBalancer", destination_port_range="8080"),
            rule(110, "Deny", source_address_prefixes=["10.0.0.0/8", "10.1.0.0/16"], source_port_range="1-1023"),
        ],
        time_scale=0.02,
    )
    plan = compile_plan(topology, "x", Numbers(), "/run/testbed/x")
    (text,) = [
        each.text for each in plan.objects if isinstance(each, objects.Ruleset) and each.tables == (SECURITY_TABLE,)
    ]
    golden = GOLDEN / "security-groups.nft"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text


def test_without_a_group_there_is_no_table() -> None:
    """A group that nobody uses filters nothing."""
    topology = document(None).model_copy(update={"network_security_groups": document([]).network_security_groups})
    plan = compile_plan(topology, "x", Numbers(), "/run/testbed/x")
    assert SECURITY_TABLE not in {
        table for each in plan.objects if isinstance(each, objects.Ruleset) for table in each.tables
    }
    assert securities(topology).all == ()


@pytest.mark.parametrize(
    ("source", "destination", "direction", "denied_by"),
    [
        ("10.0.7.7", "10.0.0.4", INBOUND, None),
        ("10.1.0.4", "10.0.0.4", INBOUND, None),
        ("168.63.129.16", "10.0.0.4", INBOUND, None),
        ("10.2.0.4", "10.0.0.4", INBOUND, "DenyAllInBound"),
        ("10.3.0.4", "10.0.0.4", INBOUND, "DenyAllInBound"),
        ("203.0.113.4", "10.0.0.4", INBOUND, "DenyAllInBound"),
        ("10.0.0.4", "10.1.0.4", OUTBOUND, None),
        ("10.0.0.4", "203.0.113.4", OUTBOUND, None),
        ("203.0.113.4", "203.0.113.5", OUTBOUND, None),
        ("203.0.113.4", "10.1.0.4", OUTBOUND, "DenyAllOutBound"),
    ],
)
def test_default_rules(source: str, destination: str, direction: SecurityRuleDirection, denied_by: str | None) -> None:
    """The virtual network, its peers with access and the platform come in, nothing else; these and more go out."""
    found = verdict(document([]), source, destination, direction=direction)
    assert (found.rule.name if found else None) == denied_by


@pytest.mark.parametrize(
    ("table", "widened"), [(None, ()), ("t", ("192.168.0.0/24",)), ("all", ("0.0.0.0/0",))], ids=["none", "one", "all"]
)
def test_user_routes_widen_the_tag(table: str | None, widened: tuple[str, ...]) -> None:
    """``VirtualNetwork`` holds the prefixes of the subnet's user-defined routes; a default route is everything."""
    security = securities(document([], table=table)).of("m", "10.0.0.4")
    assert security is not None
    tag = security.groups[0].rules_of(INBOUND)[0].source
    expected = {"10.0.0.0/16", "10.1.0.0/16", "168.63.129.16/32", *widened}
    assert set(map(str, tag.prefixes)) == ({"0.0.0.0/0"} if "0.0.0.0/0" in expected else expected)
    internet = security.groups[0].rules_of(OUTBOUND)[1].destination
    assert internet.nothing is (table == "all")
    assert (verdict(document([], table=table), "203.0.113.4") is None) is (table == "all")


def test_both_groups_have_to_allow() -> None:
    """Inbound meets the subnet's group first, outbound the network interface's own."""
    denying = rule(100, "Deny", destination_port_range="80"), rule(100, "Deny", "Outbound", destination_port_range="80")
    for nic, subnet, expected in (([], [*denying], "subnet"), ([*denying], [], "nic"), ([], [], None)):
        for direction, ends in ((INBOUND, ("10.0.0.5", "10.0.0.4")), (OUTBOUND, ("10.0.0.4", "10.0.0.5"))):
            found = verdict(document(nic, subnet), *ends, direction=direction)
            assert (found.group.association if found else None) == expected
    both = document([*denying], [*denying])
    found = verdict(both, "10.0.0.5")
    assert found is not None
    assert found.group.association == "subnet"
    found = verdict(both, "10.0.0.4", "10.0.0.5", direction=OUTBOUND)
    assert found is not None
    assert found.group.association == "nic"


def test_ports_are_those_of_tcp_and_udp() -> None:
    """A rule for every protocol that names ports says nothing of ICMP; one for a protocol only of that."""
    topology = document([rule(100, "Deny", destination_port_range="80"), rule(110, "Deny", protocol="Esp")])
    denied = [(TCP, 80), (UDP, 80), (TCP, 81), (ICMP, None), (ESP, None)]
    found = [verdict(topology, "10.0.0.5", protocol=protocol, ports=(None, port)) for protocol, port in denied]
    assert [each is not None for each in found] == [True, True, False, False, True]


def test_a_port_that_is_not_known_is_told() -> None:
    """Whether the rule denies depends on it; a rule before it that decides without ports does not."""
    found = verdict(document([rule(100, "Deny", destination_port_range="80")]), "10.0.0.5", ports=(None, None))
    assert found is not None
    assert not found.sure
    assert "give the ports" in found.why()
    rules = [rule(90 + 10, "Allow"), rule(110, "Deny", destination_port_range="80")]
    assert verdict(document(rules), "10.0.0.5", ports=(None, None)) is None


def test_a_way_is_told_where_it_ends() -> None:
    """The machine that does not let the packet in, with the rule; behind a rewriting frontend as the member sees it."""
    topology = Topology.model_validate(yaml.safe_load((TOPOLOGIES / "network-security-groups.yaml").read_text()))
    plan = compile_plan(topology, "x", Numbers(), "/run/testbed/x")
    destination = IPv4Address("10.2.0.4")
    hops = way(plan, network_of(topology, plan), plan.machine("guest").network_interfaces[0], destination)
    packet = Packet(TCP, IPv4Address("10.1.0.9"), destination, 40000, 80)
    found = [Securities(topology, plan).blocked(each, packet) for each in hops]
    assert found[0] is None
    assert found[1] is not None
    assert found[1].why() == (
        "DENIED: Inbound at web2 (10.2.0.4), rule 'no-guest' (200) of its subnet's network security group 'workloads'"
    )
    assert found[1].to_json()["association"] == "subnet"


def test_behind_a_rewriting_frontend_the_members_address_counts() -> None:
    """A rule that names the frontend fits nothing at the member."""
    data = yaml.safe_load((TOPOLOGIES / "all-ports-app.yaml").read_text())
    frontend = data["load_balancers"][0]["frontend_ip_configurations"][0]["private_ip_address"]
    rules = [rule(100, "Deny", destination_address_prefix=frontend)]
    for machine in data["machines"]:
        machine["network_interfaces"][0]["network_security_group"] = "g"
    client = next(each for each in data["machines"] if each["name"] == "client1")["network_interfaces"][0]
    packet = Packet(TCP, IPv4Address(client["private_ip_address"]), IPv4Address(frontend), 40000, 80)
    for denied, expected in ((rules, False), ([rule(100, "Deny", destination_port_range="80")], True)):
        topology = Topology.model_validate(
            data | {"network_security_groups": [{"name": "g", "security_rules": denied}]}
        )
        plan = compile_plan(topology, "x", Numbers(), "/run/testbed/x")
        source = plan.machine("client1").network_interfaces[0]
        (hop,) = way(plan, network_of(topology, plan), source, packet.destination)
        assert bool(Securities(topology, plan).blocked(hop, packet)) is expected


_PREFIXES = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)


@given(st.lists(_PREFIXES, min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_lists_of_prefixes_become_disjoint(prefixes: list[IPv4Network], address: int) -> None:
    """As nftables wants it, and they hold what they held."""
    topology = document([rule(100, "Allow", source_address_prefixes=[str(each) for each in prefixes])])
    security = securities(topology).of("m", "10.0.0.4")
    assert security is not None
    source: Addresses = security.groups[0].rules_of(INBOUND)[0].source
    for each in source.prefixes:
        assert not any(each.overlaps(other) for other in source.prefixes if other != each)
    for probe in (IPv4Address(address), *(each.network_address for each in prefixes)):
        assert (probe in source) == any(probe in each for each in prefixes)


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_port_ranges(first: int, last: int) -> None:
    """A port, a range that does not go backwards."""
    assert port_range(str(first)) == (first, first)
    if first <= last:
        assert port_range(f"{first}-{last}") == (first, last)
    else:
        with pytest.raises(ValueError, match="-"):
            port_range(f"{first}-{last}")
