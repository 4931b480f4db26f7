"""What members and clients see with and without floating IP (row 7); a member that asks its own frontend (row 9)."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import pytest
from documents import APP_FRONTEND, application, hub_spoke
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab, Packet, Tap

_CLIENT = "10.20.3.4"
_MEMBERS = {"app1": "10.20.1.4", "app2": "10.20.1.5"}
_PORTS = (80, 443, 60_001)
_TCP = socket.IPPROTO_TCP


@pytest.fixture(scope="module")
def off(labs: Callable[..., Lab]) -> Lab:
    return labs(application())


@pytest.fixture(scope="module")
def on(labs: Callable[..., Lab]) -> Lab:
    return labs(application(floating=True))


def _exchange(lab: Lab) -> list[Packet]:
    """What the members and the client see of TCP and UDP to the frontend; all of it is answered."""
    with lab.tap(*_MEMBERS, "client") as tap:
        for port in _PORTS:
            with lab.tcp("client", APP_FRONTEND, port) as connection:
                assert lab.echoes(connection)
            assert lab.asks("client", APP_FRONTEND, port)
        return [each for each in tap.packets() if each.protocol in (_TCP, socket.IPPROTO_UDP)]


def _toward(packets: list[Packet], port: int) -> set[tuple[str, str, str]]:
    """Machine, source and destination of what members received at a port from others than probes."""
    mine = [each for each in packets if each.machine in _MEMBERS and not each.sent and each.destination_port == port]
    return {(each.machine, each.source, each.destination) for each in mine}


def _ports_of(packets: list[Packet], machine: str, *, sent: bool, protocol: int) -> set[int]:
    """The client's ports in what one machine sent to, or got from, the frontend's services."""
    return {
        each.source_port if each.destination_port in _PORTS else each.destination_port
        for each in packets
        if each.machine == machine and each.sent is sent and each.protocol == protocol
        if each.destination_port in _PORTS or each.source_port in _PORTS
    }


@fact(row=7)
def test_without_floating_ip_the_destination_is_the_member(off: Lab) -> None:
    """Floating IP off: a member sees its own address as the destination; port, client address and port are kept.

    Source: azure.md §4, "Azure Load Balancer Floating IP configuration"
    """
    packets = _exchange(off)
    for port in _PORTS:
        seen = _toward(packets, port)
        assert seen
        assert seen <= {(name, _CLIENT, address) for name, address in _MEMBERS.items()}
    for protocol in (_TCP, socket.IPPROTO_UDP):
        sent = _ports_of(packets, "client", sent=True, protocol=protocol)
        assert sent == set().union(*(_ports_of(packets, name, sent=False, protocol=protocol) for name in _MEMBERS))


@fact(row=7)
def test_without_floating_ip_answers_come_from_the_frontend(off: Lab) -> None:
    """Floating IP off: a member answers from its own address, and the client sees the frontend as the source.

    Source: azure.md §4, "Multiple frontends for Azure Load Balancer"
    """
    packets = _exchange(off)
    answers = [each for each in packets if each.source_port in _PORTS]
    assert {each.source for each in answers if each.machine == "client"} == {APP_FRONTEND}
    assert {each.source for each in answers if each.machine != "client"} <= set(_MEMBERS.values())


@fact(row=7)
def test_with_floating_ip_the_destination_is_the_frontend(on: Lab) -> None:
    """Floating IP on: a member sees the frontend as the destination and answers from it; it must own the address.

    Source: azure.md §4, "Azure Load Balancer Floating IP configuration"
    """
    packets = _exchange(on)
    for port in _PORTS:
        seen = _toward(packets, port)
        assert seen
        assert seen <= {(name, _CLIENT, APP_FRONTEND) for name in _MEMBERS}
    answers = [each for each in packets if each.source_port in _PORTS]
    assert {each.source for each in answers} == {APP_FRONTEND}
    assert {each.destination for each in answers} == {_CLIENT}


@fact(row=7, balancer=False)
def test_probes_go_to_the_network_interface(off: Lab, on: Lab) -> None:
    """Probes go to the address of the network interface, never to the frontend, floating IP or not.

    Source: azure.md §3, "Multiple frontends for Azure Load Balancer"
    """
    for lab in (off, on):
        with lab.tap(*_MEMBERS) as tap:

            def probed(tap: Tap = tap) -> set[tuple[str, str]]:
                probes = [each for each in tap.packets() if each.source == "168.63.129.16"]
                return {(each.machine, each.destination) for each in probes}

            lab.wait("both members were probed", probed, lambda seen: {each[0] for each in seen} == set(_MEMBERS))
            assert probed() == set(_MEMBERS.items())


@fact(row=7)
def test_transit_is_unchanged_with_and_without_floating_ip(own_lab: Callable[..., Lab]) -> None:
    """In transit (a route's next hop is the frontend) no address is changed, floating IP or not.

    Source: azure.md §4, "Virtual network traffic routing"
    Note: No document says it in words; templates of appliance vendors use both.
    """
    lab = own_lab()
    for floating in (False, True):
        lab.up(hub_spoke(enable_floating_ip=floating))
        with lab.tap("nva1", "nva2", "web2") as tap:
            with lab.tcp("web1", "10.2.0.4", 8000) as connection:
                assert lab.echoes(connection)
                port = connection.getsockname()[1]
            forward = [each for each in tap.packets() if each.source_port == port]
        ends = {(each.source, each.destination, each.destination_port) for each in forward}
        assert ends == {("10.1.0.4", "10.2.0.4", 8000)}
        assert len({each.machine for each in forward}) == 2


@fact(row=9)
def test_a_member_reaches_its_frontend_unless_it_is_picked_itself(off: Lab) -> None:
    """A member's connection to its own frontend fails when the hash picks that member, and works otherwise.

    Source: azure.md §6, "Troubleshoot Azure Load Balancer backend traffic responses"
    """
    with off.tap(*_MEMBERS) as tap:
        opened = {}
        for _ in range(24):
            each = off.open("app1", socket.SOCK_STREAM)
            each.settimeout(0)
            each.connect_ex((APP_FRONTEND, 80))
            opened[each.getsockname()[1]] = each

        def picked() -> dict[int, str]:
            """Where each connection's first packet came to."""
            syns = [each for each in tap.packets() if not each.sent and each.flags == 2 and each.destination_port == 80]
            return {each.source_port: each.machine for each in syns if each.source_port in opened}

        off.wait("every connection was given to a member", picked, lambda found: len(found) == len(opened))
        members = picked()
        others = [opened[port] for port, member in members.items() if member == "app2"]
        own = [opened[port] for port, member in members.items() if member == "app1"]

        def answered(connections: list[socket.socket]) -> int:
            return len(select.select([], connections, [], off.timing.silence)[1])

        off.wait("all others are established", lambda: answered(others), lambda count: count == len(others))
        assert {each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for each in others} == {0}
        assert answered(own) == 0
        assert set(members.values()) == set(_MEMBERS)
        for each in opened.values():
            each.close()
