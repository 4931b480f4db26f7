"""Effective routes follow Azure's rules."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from testbed.plan.routes import EffectiveRoute, effective_routes, winner
from testbed.topology.model import Topology


def topology(**changes: Any) -> Topology:
    document: dict[str, Any] = {
        "name": "t",
        "virtual_networks": [
            {
                "name": "hub",
                "address_space": ["10.0.0.0/16"],
                "subnets": [{"name": "a", "address_prefix": "10.0.1.0/24"}],
            },
            {
                "name": "spoke",
                "address_space": ["10.1.0.0/16", "192.168.0.0/16"],
                "subnets": [{"name": "w", "address_prefix": "10.1.0.0/24", "route_table": "rt"}],
            },
            {"name": "far", "address_space": ["172.16.5.0/24"]},
        ],
        "peerings": [{"between": ["hub", "spoke"]}, {"between": ["hub", "far"]}],
        "route_tables": [{"name": "rt", "routes": []}],
        "machines": [{"name": "m", "network_interfaces": [{"subnet": "hub/a", "private_ip_address": "10.0.1.4"}]}],
    }
    return Topology.model_validate(document | changes)


def routes(document: Topology, name: str) -> tuple[EffectiveRoute, ...]:
    network = next(each for each in document.virtual_networks if each.name == name)
    return effective_routes(document, network, network.subnets[0])


def user(*rows: tuple[str, str] | tuple[str, str, str]) -> dict[str, Any]:
    made = []
    for number, (prefix, kind, *hop) in enumerate(rows):
        made.append({"name": f"r{number}", "address_prefix": prefix, "next_hop_type": kind})
        if hop:
            made[-1]["next_hop_ip_address"] = hop[0]
    return {"route_tables": [{"name": "rt", "routes": made}]}


def active(rows: tuple[EffectiveRoute, ...]) -> dict[str, str]:
    return {str(each.address_prefix): each.next_hop_type for each in rows if each.state == "Active"}


def test_system_routes_of_a_spoke() -> None:
    """Own space is VnetLocal, the peer is VNetPeering, the world Internet, other reserved ranges None."""
    assert active(routes(topology(), "spoke")) == {
        "10.1.0.0/16": "VnetLocal",
        "192.168.0.0/16": "VnetLocal",  # exactly the reserved range: it flips
        "10.0.0.0/16": "VNetPeering",
        "0.0.0.0/0": "Internet",
        "100.64.0.0/10": "None",
        "172.16.0.0/12": "None",
        # 10.0.0.0/8 is not there: it holds a part of the virtual network
    }


def test_peering_is_not_transitive() -> None:
    """The spoke has no route to the hub's other peer."""
    assert "172.16.5.0/24" not in active(routes(topology(), "spoke"))
    assert active(routes(topology(), "hub"))["172.16.5.0/24"] == "VNetPeering"


def test_peering_without_access_gives_no_route() -> None:
    """allow_virtual_network_access false keeps the peer's space out of the routes."""
    closed = topology(peerings=[{"between": ["hub", "spoke"], "allow_virtual_network_access": False}])
    assert "10.0.0.0/16" not in active(routes(closed, "spoke"))


def test_user_route_overrides_on_the_same_prefix() -> None:
    """The system route with the same prefix turns Invalid and the user's one is Active."""
    found = routes(topology(**user(("0.0.0.0/0", "VirtualAppliance", "10.0.1.4"))), "spoke")
    assert [(each.source, each.state) for each in found if each.address_prefix == IPv4Network("0.0.0.0/0")] == [
        ("Default", "Invalid"),
        ("User", "Active"),
    ]


def test_longest_prefix_beats_source() -> None:
    """A system route with a longer prefix wins over a shorter user route."""
    found = routes(topology(**user(("10.0.0.0/8", "VirtualAppliance", "10.0.1.4"))), "spoke")
    chosen = winner(found, IPv4Address("10.0.1.4"))
    assert chosen is not None
    assert chosen.next_hop_type == "VNetPeering"
    other = winner(found, IPv4Address("10.9.0.1"))
    assert other is not None
    assert other.source == "User"


def test_user_route_captures_traffic_inside_the_virtual_network() -> None:
    """There is no connected route: a route for the own prefix takes same-subnet traffic, VnetLocal exempts."""
    rows = user(("10.1.0.0/16", "VirtualAppliance", "10.0.1.4"), ("10.1.0.0/24", "VnetLocal"))
    found = routes(topology(**rows), "spoke")
    inside, beside = winner(found, IPv4Address("10.1.0.9")), winner(found, IPv4Address("10.1.7.9"))
    assert inside is not None
    assert inside.next_hop_type == "VnetLocal"
    assert beside is not None
    assert beside.next_hop_type == "VirtualAppliance"


def test_json_has_azures_shape() -> None:
    """Prefixes and next hop addresses are lists, as in the effective route API."""
    found = routes(topology(**user(("0.0.0.0/0", "VirtualAppliance", "10.0.1.4"))), "spoke")[-1]
    assert found.to_json() == {
        "name": "r0",
        "source": "User",
        "state": "Active",
        "address_prefix": ["0.0.0.0/0"],
        "next_hop_type": "VirtualAppliance",
        "next_hop_ip_address": ["10.0.1.4"],
    }


@given(st.ip_addresses(v=4))
def test_every_address_has_a_winner(address: IPv4Address) -> None:
    """The default route is always there, so nothing is ever without a route."""
    found = routes(topology(), "spoke")
    chosen = winner(found, address)
    assert chosen is not None
    longer = [
        each
        for each in found
        if each.state == "Active"
        and address in each.address_prefix
        and each.address_prefix.prefixlen > chosen.address_prefix.prefixlen
    ]
    assert not longer


def with_gateway(*prefixes: str, **changes: Any) -> Topology:
    gateway = {
        "virtual_network_gateways": [{"name": "vpn", "subnet": "spoke/GatewaySubnet"}],
        "local_network_gateways": [
            {"name": "site", "virtual_network_gateway": "vpn", "local_network_address_space": list(prefixes)}
        ],
    }
    return topology(**gateway, **changes)


def states(document: Topology, prefix: str) -> list[tuple[str, str]]:
    rows = routes(document, "spoke")
    return [(each.source, each.state) for each in rows if each.address_prefix == IPv4Network(prefix)]


def test_user_beats_bgp_beats_system_on_one_prefix() -> None:
    """Of three routes with the same prefix the user's is Active."""
    told = with_gateway("172.16.0.0/12")
    assert states(told, "172.16.0.0/12") == [("Default", "Invalid"), ("VirtualNetworkGateway", "Active")]
    both = with_gateway("172.16.0.0/12", **user(("172.16.0.0/12", "None")))
    assert states(both, "172.16.0.0/12") == [
        ("Default", "Invalid"),
        ("VirtualNetworkGateway", "Invalid"),
        ("User", "Active"),
    ]


def test_bgp_inside_the_virtual_network_or_a_peer_is_not_used() -> None:
    """System routes of virtual networks and peers beat longer ones of a gateway."""
    told = with_gateway("172.16.0.0/12", "10.1.0.0/24", "10.0.7.0/24")
    assert states(told, "10.1.0.0/24") == states(told, "10.0.7.0/24") == [("VirtualNetworkGateway", "Invalid")]
    chosen = winner(routes(told, "spoke"), IPv4Address("10.1.0.9"))
    assert chosen is not None
    assert chosen.next_hop_type == "VnetLocal"


def test_propagation_can_be_disabled() -> None:
    """A route table without propagation has no route of a gateway, and says nothing of others."""
    table = {"name": "rt", "routes": [], "disable_bgp_route_propagation": True}
    assert states(with_gateway("172.16.0.0/12", route_tables=[table]), "172.16.0.0/12") == [("Default", "Active")]


def test_a_default_user_route_takes_the_reserved_ranges() -> None:
    """The system's None routes are gone when a user route says what to do with everything."""
    changed = topology(**user(("0.0.0.0/0", "VirtualAppliance", "10.0.1.4")))
    assert "None" not in active(routes(changed, "spoke")).values()
