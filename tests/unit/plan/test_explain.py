"""A packet's way, hop by hop."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml

from testbed.plan.compile import compile_plan, network_of
from testbed.plan.explain import Hop, way
from testbed.plan.numbers import Numbers
from testbed.topology.model import Topology

TOPOLOGIES = Path(__file__).parents[3] / "topologies"


def hops(document: dict[str, Any], sender: str, destination: str, chosen: int | None = None) -> list[Hop]:
    topology = Topology.model_validate(document)
    plan = compile_plan(topology, "x", Numbers(), "/run/testbed/x")
    source = plan.machine(sender).network_interfaces[0]
    return list(way(plan, network_of(topology, plan), source, IPv4Address(destination), lambda _rule: chosen))


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((TOPOLOGIES / f"{name}.yaml").read_text())
    return document


def test_transit_goes_on_from_the_member() -> None:
    """Spoke to spoke: the balancer, then the member that was chosen, then the machine."""
    found = hops(load("hub-spoke"), "web1", "10.2.0.4", chosen=2)
    assert [(each.sender, each.kind) for each in found] == [("web1", "balancer"), ("nva2", "delivered")]
    assert found[0].route is not None
    assert found[0].route.name == "default"
    assert [each.state for each in found[0].losers] == ["Invalid"]


def test_transit_without_a_live_flow_shows_the_first_member() -> None:
    """Any member would do; all of them stand in the same subnet."""
    assert [each.sender for each in hops(load("hub-spoke"), "web1", "203.0.113.4")] == ["web1", "nva1"]


def test_addressed_packets_end_at_the_member() -> None:
    """What is addressed to the frontend goes no further."""
    found = hops(load("all-ports-app"), "client1", compile_frontend("all-ports-app"))
    assert [each.kind for each in found] == ["balancer"]
    assert "rewritten" in found[0].detail


def compile_frontend(name: str) -> str:
    return str(load(name)["load_balancers"][0]["frontend_ip_configurations"][0]["private_ip_address"])


def test_a_packet_for_the_member_itself_ends_there() -> None:
    """A route leads what is for an appliance through the balancer: the appliance that it is for forwards nothing."""
    document = load("hub-spoke")
    document["route_tables"][0]["routes"][0]["address_prefix"] = "10.0.0.0/16"
    found = hops(document, "web1", "10.0.1.4")
    assert [(each.kind, each.receiver and each.receiver.machine) for each in found] == [("balancer", "nva1")]


def test_dropped_packets_say_why() -> None:
    """Reserved ranges end at a None route."""
    (hop,) = hops(load("hub-spoke"), "nva1", "192.168.1.1")
    assert (hop.kind, hop.detail) == ("dropped", "next hop type None")


def test_a_loop_is_found() -> None:
    """A route table on the appliances' own subnet sends what they forward back to the balancer."""
    document = load("hub-spoke")
    document["virtual_networks"][0]["subnets"][0]["route_table"] = "to-nva"
    document["route_tables"][0]["routes"][0]["address_prefix"] = "10.2.0.0/16"
    found = hops(document, "web1", "10.2.0.4")
    assert [each.loop for each in found] == [False, False, True]
    assert {each.kind for each in found} == {"balancer"}


def test_the_rule_for_the_port_is_named() -> None:
    """Of several rules of a frontend that for the port explains; what none covers is dropped, and it says so."""
    document = load("all-ports-app")
    (rule,) = document["load_balancers"][0]["load_balancing_rules"]
    rule |= {"name": "web", "protocol": "Tcp", "frontend_port": 80, "backend_port": 8080, "enable_floating_ip": False}
    topology = Topology.model_validate(document)
    plan = compile_plan(topology, "x", Numbers(), "/run/testbed/x")
    source = plan.machine("client1").network_interfaces[0]
    frontend = IPv4Address(compile_frontend("all-ports-app"))

    def explained(protocol: str, port: int) -> Hop:
        (hop,) = way(plan, network_of(topology, plan), source, frontend, lambda _rule: None, protocol, port)
        return hop

    assert explained("tcp", 80).kind == "balancer"
    assert "rewritten to the member's address and port 8080" in explained("tcp", 80).detail
    assert explained("udp", 80).kind == "dropped"
    assert "has no rule for udp port 80, only for tcp 80" in explained("udp", 80).detail
