"""Which virtual networks are joined, and which gateway they use."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from testbed.topology.model import Topology
from testbed.topology.peering import Connections, sides


def topology(hub: dict[str, Any] | None, spoke: dict[str, Any] | None, **more: Any) -> Topology:
    """Two virtual networks with these settings of their sides; None: no side."""
    return Topology.model_validate(
        {
            "name": "t",
            "virtual_networks": [
                {
                    "name": name,
                    "address_space": [space],
                    "virtual_network_peerings": []
                    if flags is None
                    else [{"name": "p", "remote_virtual_network": other, **flags}],
                }
                for name, other, space, flags in (
                    ("hub", "spoke", "10.0.0.0/16", hub),
                    ("spoke", "hub", "10.1.0.0/16", spoke),
                )
            ],
            "virtual_network_gateways": [{"name": "vpn", "subnet": "hub/GatewaySubnet"}],
            "local_network_gateways": [
                {"name": "site", "virtual_network_gateway": "vpn", "local_network_address_space": ["192.168.0.0/16"]}
            ],
            "machines": [{"name": "m", "network_interfaces": [{"subnet": "hub/a", "private_ip_address": "10.0.1.4"}]}],
            **more,
        }
    )


def test_the_short_form_is_two_sides() -> None:
    """An entry of ``peerings`` joins both, with the same settings on each side."""
    short = topology(None, None, peerings=[{"between": ["hub", "spoke"], "allow_forwarded_traffic": True}])
    assert [(each.virtual_network, each.allow_forwarded_traffic) for each in sides(short)] == [
        ("hub", True),
        ("spoke", True),
    ]
    assert Connections(short).neighbours("spoke") == ("hub",)


@pytest.mark.parametrize(
    ("hub", "spoke", "joined"),
    [
        ({}, {}, True),
        ({}, None, False),
        ({}, {"allow_virtual_network_access": False}, False),
        ({"allow_virtual_network_access": False}, {}, False),
    ],
)
def test_both_sides_are_needed(hub: dict[str, Any], spoke: dict[str, Any] | None, joined: bool) -> None:  # noqa: FBT001 - a table of cases
    """A peering joins when both sides are there and allow access."""
    found = Connections(topology(hub, spoke))
    assert (found.neighbours("hub"), found.neighbours("spoke")) == ((("spoke",), ("hub",)) if joined else ((), ()))


@pytest.mark.parametrize(
    ("transit", "use", "reached"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_a_peers_gateway_needs_both_flags(transit: bool, use: bool, reached: bool) -> None:  # noqa: FBT001 - a table of cases
    """What is on-premises is known to the hub, and to a spoke that uses and may use the hub's gateway."""
    found = Connections(topology({"allow_gateway_transit": transit}, {"use_remote_gateways": use}))
    site = (IPv4Network("192.168.0.0/16"),)
    assert found.on_premises_prefixes("hub") == site
    assert found.on_premises_prefixes("spoke") == (site if reached else ())
