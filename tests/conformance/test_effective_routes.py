"""Which route a packet takes, by the effective routes of its sender's subnet (row 16)."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
from documents import FIREWALL, FRONTEND, hub_spoke, machine, network, user_route
from facts import fact

from testbed.lab.state import State
from testbed.lab.up import load_plan_and_topology
from testbed.lab.verification import Options, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

    Routes = Callable[..., Lab]

NVA = "10.0.1.4"
ONPREM = "192.168.0.4"
NEIGHBOUR = "10.0.3.5"


def document(*routes: dict[str, Any], propagate: bool = True) -> dict[str, Any]:
    """Subnet ``clients`` with ``one`` and ``two``, an appliance, a gateway; a virtual network with the same space.

    What the routes of ``clients`` send to the appliance it forwards: its own subnet has no route table.
    """
    table = {"name": "table", "routes": list(routes), "disable_bgp_route_propagation": not propagate}
    subnets: dict[str, Any] = {
        "GatewaySubnet": "10.0.0.0/27",
        "nva": "10.0.1.0/24",
        "clients": ("10.0.3.0/24", "table"),
    }
    return {
        "virtual_networks": [
            network("hub", "10.0.0.0/16", **subnets),
            network("twin", "10.0.0.0/16", clients="10.0.3.0/24"),
        ],
        "route_tables": [table],
        "virtual_network_gateways": [{"name": "vpn", "subnet": "hub/GatewaySubnet"}],
        "local_network_gateways": [
            {
                "name": "onprem",
                "virtual_network_gateway": "vpn",
                "local_network_address_space": ["192.168.0.0/16", "10.0.3.0/24"],
            }
        ],
        "machines": [
            machine("nva", "hub/nva", NVA, FIREWALL, enable_ip_forwarding=True),
            machine("one", "hub/clients", "10.0.3.4"),
            machine("two", "hub/clients", NEIGHBOUR),
            machine("twin", "twin/clients", NEIGHBOUR),
        ],
        "internet": {"address_prefix": "203.0.113.0/24"},
    }


@pytest.fixture(scope="module")
def shared(labs: Callable[..., Lab]) -> Lab:
    return labs(document())


@pytest.fixture
def routes(shared: Lab) -> Iterator[Routes]:
    """Gives ``clients`` other routes; afterwards it has none."""

    def change(*rows: dict[str, Any], propagate: bool = True) -> Lab:
        shared.up(document(*rows, propagate=propagate))
        return shared

    yield change
    shared.up(document())


def way(lab: Lab, sender: str, destination: str) -> str | None:
    """Whom an answered datagram crossed: ``direct``, ``nva``; None when there is no answer."""
    with lab.tap("nva") as tap:
        if not lab.asks(sender, destination):
            return None
        return "nva" if any(each.destination == destination for each in tap.packets()) else "direct"


def winner(lab: Lab, destination: str) -> str:
    """The route that ``testbed explain`` names for what ``one`` sends."""
    hop = lab.explain("one", IPv4Address(destination), "udp", None, None)[0].hop
    return f"{hop.route.source} {hop.route.address_prefix} {hop.route.next_hop_type}"


@fact(row=16, balancer=False)
def test_the_longest_prefix_wins_whatever_its_source(routes: Routes) -> None:
    """The route with the longest prefix is used, whatever its source: a system route can beat a shorter user route.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    lab = routes(user_route("wide", "10.0.0.0/8", NVA))
    assert winner(lab, NEIGHBOUR) == "Default 10.0.0.0/16 VnetLocal"
    assert way(lab, "one", NEIGHBOUR) == "direct"
    routes(user_route("wide", "10.0.0.0/8", NVA), user_route("host", f"{NEIGHBOUR}/32", NVA))
    assert way(lab, "one", NEIGHBOUR) == "nva"


@fact(row=16, balancer=False)
def test_user_beats_bgp_beats_system(routes: Routes) -> None:
    """On equal prefixes a user route beats a gateway's (BGP) one, and that one a system route; losers are Invalid.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    lab = routes()
    assert winner(lab, ONPREM) == "VirtualNetworkGateway 192.168.0.0/16 VirtualNetworkGateway"
    assert way(lab, "one", ONPREM) == "direct"
    routes(user_route("onprem", "192.168.0.0/16", NVA))
    assert winner(lab, ONPREM) == "User 192.168.0.0/16 VirtualAppliance"
    assert way(lab, "one", ONPREM) == "nva"
    losers = lab.explain("one", IPv4Address(ONPREM), "udp", None, None)[0].hop.losers
    states = {(each.source, each.state) for each in losers if each.address_prefix.prefixlen == 16}
    assert states == {("Default", "Invalid"), ("VirtualNetworkGateway", "Invalid")}


@fact(row=16, balancer=False)
def test_the_virtual_networks_own_route_beats_longer_ones_of_bgp(routes: Routes) -> None:
    """System routes of the virtual network and its peers are used even when a BGP route is more specific.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    lab = routes()  # on-premises says that it has 10.0.3.0/24
    assert winner(lab, NEIGHBOUR) == "Default 10.0.0.0/16 VnetLocal"
    assert way(lab, "one", NEIGHBOUR) == "direct"


@fact(row=16, balancer=False)
def test_a_route_for_the_own_prefix_captures_traffic_inside_the_subnet(routes: Routes) -> None:
    """There is no route for the own subnet: a user route for the virtual network takes what neighbours send each other.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    lab = routes(user_route("inside", "10.0.0.0/16", NVA))
    assert way(lab, "one", NEIGHBOUR) == "nva"


@fact(row=16, balancer=False)
def test_a_vnetlocal_route_exempts_the_own_subnet(routes: Routes) -> None:
    """A user route with next hop VnetLocal for the own subnet lets neighbours speak directly again.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    own = user_route("own", "10.0.3.0/24", kind="VnetLocal")
    lab = routes(user_route("inside", "10.0.0.0/16", NVA), own)
    assert way(lab, "one", NEIGHBOUR) == "direct"


@fact(row=16, balancer=False)
def test_none_drops(routes: Routes) -> None:
    """A route with next hop None drops, and nobody is told.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    lab = routes(user_route("nobody", f"{NEIGHBOUR}/32", kind="None"))
    with lab.tap("one", "two") as tap:
        assert not lab.asks("one", NEIGHBOUR)
        assert not [each for each in tap.packets() if not each.sent]


@fact(row=16, balancer=False)
def test_propagation_of_gateway_routes_can_be_disabled(routes: Routes) -> None:
    """A route table with BGP route propagation disabled keeps the gateway's routes from its subnets.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    lab = routes(propagate=False)
    assert winner(lab, ONPREM) == "Default 192.168.0.0/16 None"
    assert way(lab, "one", ONPREM) is None
    assert lab.asks("nva", ONPREM) is True  # another subnet, without the table
    routes(user_route("onprem", "192.168.0.0/16", kind="VirtualNetworkGateway"), propagate=False)
    assert way(lab, "one", ONPREM) == "direct"


@fact(row=16, balancer=False)
def test_a_default_user_route_takes_the_reserved_ranges_too(routes: Routes) -> None:
    """With a user route for 0.0.0.0/0 the system's None routes for reserved ranges are gone: it takes them as well.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    lab = routes(user_route("default", "0.0.0.0/0", NVA), propagate=False)
    assert winner(lab, ONPREM) == "User 0.0.0.0/0 VirtualAppliance"
    assert way(lab, "one", ONPREM) == "nva"


@fact(row=16, balancer=False)
def test_unpeered_networks_may_have_the_same_addresses(routes: Routes) -> None:
    """Virtual networks that are not peered may overlap: each reaches its own machine with an address.

    Source: azure.md §5, "Virtual network peering"
    """
    lab = routes()
    with lab.tap("two", "twin") as tap:
        assert lab.asks("one", NEIGHBOUR)
        assert not lab.asks("twin", "10.0.3.4")
        assert {each.machine for each in tap.packets() if not each.sent} == {"two"}


@fact(row=16)
def test_an_appliances_own_table_counts_for_what_it_forwards(own_lab: Callable[..., Lab]) -> None:
    """Each hop is routed by its sender's subnet: an appliance whose subnet routes to its own frontend makes a loop.

    Source: azure.md §5, "Virtual network traffic routing"
    Note: The TTL ends it; `testbed validate`, `explain` and `verify` say so.
    """
    made = hub_spoke(1)
    made["route_tables"].append({"name": "back", "routes": [user_route("web2", "10.2.0.0/16", FRONTEND)]})
    made["virtual_networks"][0]["subnets"][0]["route_table"] = "back"
    lab = own_lab()
    outcome = lab.up(made)
    assert any("a loop until the TTL ends" in each.message for each in outcome.warnings)
    with lab.tap("nva1") as tap:
        assert not lab.asks("web1", "10.2.0.4", source_port=30000)
        lifetimes = [each.ttl for each in tap.packets() if not each.sent and each.source_port == 30000]
    assert lifetimes[0] > lifetimes[1] > lifetimes[2]
    assert min(lifetimes) <= 2
    assert lab.explain("web1", IPv4Address("10.2.0.4"), "udp", None, None)[-1].hop.loop
    plan, topology = load_plan_and_topology(State(lab.name))
    (report,) = verify(plan, topology, ["symmetry"], Options(flows=8))
    assert any(each.startswith("loop: what web1 sends to web2") for each in report.check.reasons)
