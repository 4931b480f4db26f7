"""Pools of every size: active and passive, one member, none, a hundred (row 12)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from documents import APP_FRONTEND, FIREWALL, IDLE, application, hub_spoke
from facts import fact

from testbed.kernel import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab, Timing

_MOST_INTERFACES = 8


def _carriers(lab: Lab, flows: int = 16) -> set[str]:
    """Who carries new flows from ``web1`` to ``web2``; all of them are answered."""
    with lab.tap("nva1", "nva2") as tap:
        assert all(lab.asks("web1", "10.2.0.4") for _ in range(flows))
        return {each.machine for each in tap.packets() if each.destination == "10.2.0.4" and not each.sent}


@fact(row=12)
def test_active_and_passive(own_lab: Callable[..., Lab]) -> None:
    """Active-passive: the passive appliance fails its probe, so all flows go to the active one, until that fails.

    Source: azure.md §6, "Deploy highly available network virtual appliances"
    """
    document = hub_spoke()
    document["machines"][1]["runtime"] = {**FIREWALL, "standby_of": "10.0.1.4"}
    lab = own_lab(document)
    assert not lab.member("nva2").eligible
    assert _carriers(lab) == {"nva1"}
    lab.fault("nva1", "probe-down")
    lab.wait_member("nva1", healthy=False)
    lab.wait_member("nva2", healthy=True)
    assert _carriers(lab) == {"nva2"}
    lab.recover("nva1")
    lab.wait_member("nva1", healthy=True)
    lab.wait_member("nva2", healthy=False)
    assert _carriers(lab) == {"nva1"}


@fact(row=12)
def test_one_member(own_lab: Callable[..., Lab]) -> None:
    """A pool of one member: it gets every flow, and when it is down new ones get no answer at all.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    lab = own_lab(application(1))
    assert lab.connects("client", APP_FRONTEND)
    assert all(lab.asks("client", APP_FRONTEND, port) for port in (7, 53, 65_535))
    lab.fault("app1", "probe-down")
    lab.wait_member("app1", healthy=False)
    assert not lab.connects("client", APP_FRONTEND)
    assert not lab.asks("client", APP_FRONTEND)
    lab.recover("app1")
    lab.wait_member("app1", healthy=True)
    assert lab.connects("client", APP_FRONTEND)


@fact(row=12)
def test_no_member(own_lab: Callable[..., Lab]) -> None:
    """An empty pool: the frontend gives no answer, not even a reset; members may join later.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    lab = own_lab(application(0))
    assert not lab.connects("client", APP_FRONTEND)
    assert not lab.asks("client", APP_FRONTEND)
    assert lab.up(application(0)).changes == ()
    lab.up(application(2))
    assert lab.connects("client", APP_FRONTEND)


def _many(members: int) -> dict[str, Any]:
    """Idle servers with eight network interfaces each, all of them members, and no probe."""
    document = application(0)
    balancer = document["load_balancers"][0]
    balancer["probes"] = []
    del balancer["load_balancing_rules"][0]["probe"]
    interfaces = [
        {"subnet": "net/app", "private_ip_address": f"10.20.1.{4 + number}", "backend_address_pools": ["ilb/apps"]}
        for number in range(members)
    ]
    document["machines"] += [
        {
            "name": f"many{first // _MOST_INTERFACES}",
            "runtime": IDLE,
            "network_interfaces": interfaces[first : first + _MOST_INTERFACES],
        }
        for first in range(0, members, _MOST_INTERFACES)
    ]
    return document


def _ask(namespace: str, flows: int) -> set[int]:
    """Send a datagram to the frontend from each of so many ports."""
    ports: set[int] = set()
    with namespaces.entered(namespace):
        while len(ports) < flows:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.sendto(b"ask", (APP_FRONTEND, 9))
                ports.add(asker.getsockname()[1])
    return ports


@fact(row=12)
def test_a_hundred_members(own_lab: Callable[..., Lab], timing: Timing) -> None:
    """A pool of 100 members: each of them gets flows, and each flow one member (Azure allows 5,000).

    Source: azure.md §6, "Azure subscription and service limits"
    Note: 100 network interfaces of 13 machines; on an emulated computer 24 of three.
    """
    members = 100 if timing.scale <= 0.02 else 24
    lab = own_lab(_many(members))
    flows = 30 * members
    with lab.tap(*(each.name for each in lab.plan.machines if each.name != "client")) as tap:
        ports = _ask(lab.plan.machine("client").namespace, flows)

        def seen() -> set[tuple[int, str]]:
            return {(each.source_port, each.destination) for each in tap.packets() if each.source_port in ports}

        lab.wait("every flow came to a member", lambda: len(seen()), lambda count: count >= flows)
        assert len(seen()) == flows
        assert {address for _, address in seen()} == {f"10.20.1.{4 + number}" for number in range(members)}
