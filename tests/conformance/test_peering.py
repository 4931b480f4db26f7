"""What passes between virtual networks, and between them and what is outside Azure (row 17)."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from documents import FIREWALL, hub_spoke, machine, network, user_route
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
NVA = "10.0.1.4"
WEB1, WEB2, ONPREM = "10.1.0.4", "10.2.0.4", "192.168.0.4"
ALIEN = "10.9.9.9"


def side(remote: str, **flags: bool) -> dict[str, Any]:
    return {"name": f"to-{remote}", "remote_virtual_network": remote, **flags}


def document(**sides: list[dict[str, Any]]) -> dict[str, Any]:
    """A hub with an appliance and a gateway, and two spokes that send each other's space to the appliance.

    ``sides``: the sides of peerings of each virtual network, instead of ordinary ones.
    """
    forwarded = {"allow_forwarded_traffic": True}
    wanted = {
        "hub": [side("spoke1", allow_gateway_transit=True), side("spoke2")],
        "spoke1": [side("hub", use_remote_gateways=True, **forwarded)],
        "spoke2": [side("hub", **forwarded)],
        **sides,
    }
    networks = [
        network("hub", "10.0.0.0/16", GatewaySubnet=("10.0.0.0/27", "gateway"), nva="10.0.1.0/24"),
        network("spoke1", "10.1.0.0/16", workload=("10.1.0.0/24", "to-nva")),
        network("spoke2", "10.2.0.0/16", workload=("10.2.0.0/24", "to-nva")),
    ]
    spokes = [user_route("spoke1", "10.1.0.0/16", NVA), user_route("spoke2", "10.2.0.0/16", NVA)]
    return {
        "virtual_networks": [each | {"virtual_network_peerings": wanted[each["name"]]} for each in networks],
        "route_tables": [{"name": "to-nva", "routes": spokes}, {"name": "gateway", "routes": []}],
        "virtual_network_gateways": [{"name": "vpn", "subnet": "hub/GatewaySubnet"}],
        "local_network_gateways": [
            {
                "name": "onprem",
                "virtual_network_gateway": "vpn",
                "local_network_address_space": ["192.168.0.0/16"],
            }
        ],
        "machines": [
            machine("nva", "hub/nva", NVA, FIREWALL, enable_ip_forwarding=True),
            machine("web1", "spoke1/workload", WEB1),
            machine("web2", "spoke2/workload", WEB2),
        ],
    }


@pytest.fixture(scope="module")
def shared(labs: Callable[..., Lab]) -> Lab:
    return labs(document())


@pytest.fixture
def change(shared: Lab) -> Iterator[Callable[..., Lab]]:
    """Gives virtual networks other sides of their peerings, and other keys of the document."""

    def to(more: dict[str, Any] | None = None, **sides: list[dict[str, Any]]) -> Lab:
        shared.up(document(**sides) | (more or {}))
        return shared

    yield to
    shared.up(document())


def direct() -> dict[str, Any]:
    """No user routes."""
    return {"route_tables": [{"name": name, "routes": []} for name in ("to-nva", "gateway")]}


@fact(row=17, balancer=False)
def test_peering_is_not_transitive(change: Callable[..., Lab]) -> None:
    """Two virtual networks that are peered with a third one do not reach each other by that.

    Source: azure.md §5, "Virtual network peering"
    """
    lab = change(direct())
    assert lab.connects("web1", NVA, 8080)
    assert lab.connects("web2", NVA, 8080)
    assert not lab.asks("web1", WEB2)


@fact(row=17, balancer=False)
def test_a_peering_with_one_side_carries_nothing(change: Callable[..., Lab]) -> None:
    """Each virtual network has a side of its own; with one of them only, the peering is Initiated and nothing passes.

    Source: azure.md §5, "Create, change, or delete a virtual network peering"
    """
    lab = change(direct(), spoke2=[])
    assert not lab.connects("web2", NVA, 8080)
    assert lab.connects("web1", NVA, 8080)


@fact(row=17, balancer=False)
def test_access_can_be_refused(change: Callable[..., Lab]) -> None:
    """Without `allow_virtual_network_access` the two virtual networks do not reach each other.

    Source: azure.md §5, "Create, change, or delete a virtual network peering"
    Note: One side that refuses is enough; Azure's documents do not tell the sides apart.
    """
    lab = change(
        direct(), hub=[side("spoke1"), side("spoke2", allow_virtual_network_access=False)], spoke1=[side("hub")]
    )
    assert not lab.connects("web2", NVA, 8080)
    assert lab.connects("web1", NVA, 8080)


@fact(row=17, state="switchable", balancer=False)
def test_forwarded_traffic_needs_a_flag(change: Callable[..., Lab]) -> None:
    """Without `allow_forwarded_traffic` a virtual network gets only what starts in the peer, nothing forwarded there.

    Source: azure.md §5, "Create, change, or delete a virtual network peering"
    Note: Users saw it pass anyway: `switches: {allow_forwarded_traffic: Permissive}`. The flag of the side where the
    packet comes in counts.
    """
    assert change().asks("web1", WEB2)
    lab = change(spoke2=[side("hub")])
    with lab.tap("nva", "web2") as tap:
        assert not lab.asks("web1", WEB2)
        assert {each.machine for each in tap.packets() if each.destination == WEB2 and not each.sent} == {"nva"}
    last = lab.explain("web1", IPv4Address(WEB2), "udp", None, None)[-1]
    assert "does not allow forwarded traffic" in last.hop.refusal.reason
    assert last.refused > 0
    assert lab.asks("nva", WEB2)  # what starts in the hub
    change({"switches": {"allow_forwarded_traffic": "Permissive"}}, spoke2=[side("hub")])
    assert lab.asks("web1", WEB2)


@fact(row=17)
def test_the_flag_holds_for_what_goes_to_a_frontend(own_lab: Callable[..., Lab]) -> None:
    """What is forwarded in a peer does not come to the members of a pool either, if its way leads to their frontend.

    Source: azure.md §5, "Create, change, or delete a virtual network peering"
    """
    made = hub_spoke(1)
    made["machines"][1]["network_interfaces"][0]["enable_ip_forwarding"] = True
    made["peerings"][0]["allow_forwarded_traffic"] = False
    lab = own_lab(made)
    lab.run("web1", "ip", "address", "add", f"{ALIEN}/32", "dev", "lo")
    with (
        lab.tap("nva1") as tap,
        lab.open("web1", socket.SOCK_DGRAM, 4000, ALIEN) as forwarded,
        lab.open("web1", socket.SOCK_DGRAM, 4001, WEB1) as own,
    ):

        def arrives(sender: socket.socket) -> None:
            end = sender.getsockname()
            sender.sendto(b"there", (WEB2, 7))
            lab.wait(
                "it comes to the member", lambda: end in {(each.source, each.source_port) for each in tap.packets()}
            )

        forwarded.sendto(b"there", (WEB2, 7))
        arrives(own)  # the same way, later
        assert not [each for each in tap.packets() if each.source == ALIEN]
        made["peerings"][0]["allow_forwarded_traffic"] = True
        lab.up(made)
        arrives(forwarded)


@fact(row=17, balancer=False)
def test_a_spoke_uses_the_hubs_gateway_when_both_sides_say_so(change: Callable[..., Lab]) -> None:
    """With `use_remote_gateways`, and `allow_gateway_transit` on the hub's side, a spoke uses the hub's gateway.

    Source: azure.md §5, "Configure VPN gateway transit for virtual network peering"
    Note: A spoke that does not use the gateway has no route back, so it cannot be reached either.
    """
    lab = change(direct(), spoke1=[side("hub", use_remote_gateways=True)])
    assert lab.asks("web1", ONPREM)
    assert lab.asks("onprem", WEB1)  # needs no allow_forwarded_traffic
    assert not lab.asks("web2", ONPREM)
    assert not lab.asks("onprem", WEB2)


@fact(row=17, balancer=False)
def test_the_gateway_subnets_table_decides_about_what_comes_in(change: Callable[..., Lab]) -> None:
    """User routes on the GatewaySubnet send what comes from on-premises to an appliance first.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    tables = document()["route_tables"]
    tables[0]["routes"].append(user_route("onprem", "192.168.0.0/16", NVA))
    tables[1]["routes"].append(user_route("spoke1", "10.1.0.0/16", NVA))
    lab = change({"route_tables": tables})
    with lab.tap("nva") as tap:
        assert lab.asks("onprem", WEB1, source_port=30001)
        assert lab.asks("web1", ONPREM, source_port=30002)
        ends = {(each.source, each.destination) for each in tap.packets() if not each.sent}
    assert {(ONPREM, WEB1), (WEB1, ONPREM)} <= ends


@fact(row=17)
def test_two_hubs_with_a_balancer_each(own_lab: Callable[..., Lab]) -> None:
    """A route may lead to a frontend in a globally peered hub; a flow crosses one appliance of each hub, both ways.

    Source: azure.md §5, "Azure Load Balancer SKUs"
    Note: `testbed verify` on the ready topology `two-hubs` shows it for thousands of flows.
    """
    made = yaml.safe_load((TOPOLOGIES / "two-hubs.yaml").read_text())
    made.pop("name")
    lab = own_lab(made)
    first, second = {"nva1a", "nva1b"}, {"nva2a", "nva2b"}
    with lab.tap(*first, *second) as tap:
        for port in range(30000, 30008):
            assert lab.asks("web1", "10.101.0.4", source_port=port)
        for port in range(30000, 30008):
            there = {each.machine for each in tap.packets() if each.source_port == port and not each.sent}
            back = {each.machine for each in tap.packets() if each.destination_port == port and not each.sent}
            assert there == back
            assert (len(there & first), len(there & second)) == (1, 1)
