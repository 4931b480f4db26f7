"""What a network interface without ``enable_ip_forwarding`` sends and gets (row 18)."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
from documents import FIREWALL, hub_spoke, machine, network, rule, user_route
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab

ALIEN = "10.9.9.9"
FLOATING = "10.0.2.5"


def document() -> dict[str, Any]:
    """``client`` reaches ``server`` by ``gate``, an appliance whose network interface does not forward."""
    made = hub_spoke(1)
    made["virtual_networks"] = [
        network("hub", "10.0.0.0/16", nva="10.0.1.0/24", lb="10.0.2.0/24", apps="10.0.3.0/24"),
        network("spoke", "10.1.0.0/16", workload=("10.1.0.0/24", "to-gate"), servers="10.1.1.0/24"),
    ]
    made["peerings"] = [{"between": ["hub", "spoke"], "allow_forwarded_traffic": True}]
    made["route_tables"] = [{"name": "to-gate", "routes": [user_route("servers", "10.1.1.0/24", "10.0.1.9")]}]
    (balancer,) = made["load_balancers"]
    balancer["frontend_ip_configurations"].append({"name": "dsr", "subnet": "hub/lb", "private_ip_address": FLOATING})
    balancer["backend_address_pools"].append({"name": "apps"})
    balancer["probes"].append({"name": "alive", "protocol": "Tcp", "port": 80, "interval_in_seconds": 5})
    balancer["load_balancing_rules"].append(rule("dsr", "dsr", "apps", probe="alive", enable_floating_ip=True))
    app = {"kind": "namespace", "program": "echo", "loopback_addresses": [FLOATING, ALIEN]}
    made["machines"] = [
        made["machines"][0],
        machine("gate", "hub/nva", "10.0.1.9", FIREWALL),
        machine("app", "hub/apps", "10.0.3.4", app, backend_address_pools=["ilb/apps"]),
        machine("client", "spoke/workload", "10.1.0.4"),
        machine("server", "spoke/servers", "10.1.1.4"),
    ]
    return made


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(document())


@fact(row=18, balancer=False)
def test_transit_is_dropped_before_the_guest(lab: Lab) -> None:
    """A network interface without IP forwarding gets nothing that is for others, although its guest would forward.

    Source: azure.md §5, "Create, change, or delete a network interface"
    Note: The lab counts what it drops; `testbed explain` names the interface and the count.
    """
    (first,) = lab.explain("client", IPv4Address("10.1.1.4"), "udp", None, None)
    with lab.tap("gate", "server") as tap:
        assert not lab.asks("client", "10.1.1.4")
        assert not [each for each in tap.packets() if each.source == "10.1.0.4"]
    (after,) = lab.explain("client", IPv4Address("10.1.1.4"), "udp", None, None)
    assert "gate does not forward" in after.hop.refusal.reason
    assert after.refused > first.refused
    assert lab.connects("client", "10.0.1.9", 8080)  # what is for its own address arrives


@fact(row=18, balancer=False)
def test_a_foreign_source_does_not_leave(lab: Lab) -> None:
    """A network interface without IP forwarding sends from its own address only.

    Source: azure.md §5, "Create, change, or delete a network interface"
    """
    lab.run("server", "ip", "address", "add", f"{ALIEN}/32", "dev", "lo")
    with lab.tap("server", "app") as tap, lab.open("server", socket.SOCK_DGRAM, 4000, ALIEN) as alien:
        alien.sendto(b"from another", ("10.0.3.4", 7))
        lab.wait("it is sent", lambda: [each for each in tap.packets() if each.sent and each.source == ALIEN])
        assert lab.asks("server", "10.0.3.4")  # the same way, later, from its own address
        assert not [each for each in tap.packets() if each.machine == "app" and each.source == ALIEN]


@fact(row=18)
def test_a_floating_frontend_is_an_own_address(lab: Lab) -> None:
    """With floating IP a member gets and sends packets with the frontend's address, without IP forwarding.

    Source: azure.md §3, "Azure Load Balancer Floating IP configuration"
    Note: Of the addresses on a guest's loopback only frontends of its pools count.
    """
    assert lab.asks("client", FLOATING)
    with lab.tap("app", "client") as tap, lab.open("app", socket.SOCK_DGRAM, 4000, ALIEN) as alien:
        alien.sendto(b"from another", ("10.1.0.4", 7))
        lab.wait("it is sent", lambda: [each for each in tap.packets() if each.sent and each.source == ALIEN])
        assert lab.asks("app", "10.1.0.4")
        assert not [each for each in tap.packets() if each.machine == "client" and each.source == ALIEN]


@fact(row=18)
def test_a_member_without_forwarding_stays_healthy_and_loses_its_share(own_lab: Callable[..., Lab]) -> None:
    """A pool member whose network interface does not forward answers its probe, gets its share of flows, and loses it.

    Source: azure.md §9, "Create, change, or delete a network interface"
    """
    made = hub_spoke(2)
    del made["machines"][1]["network_interfaces"][0]["enable_ip_forwarding"]
    lab = own_lab(made)
    answers = (lab.asks("web1", "10.2.0.4", source_port=port) for port in range(30000, 30040))
    assert True in answers  # looks no further than it must
    assert False in answers
    assert lab.member("nva2").healthy
