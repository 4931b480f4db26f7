"""What happens to new and established flows when members go down and come back (row 3)."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from documents import hub_spoke
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

CLIENT, SERVER = "10.1.0.4", "10.2.0.4"
PORTS = range(20_001, 20_025)
RESET = 0x04


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(hub_spoke())


@pytest.fixture(scope="module")
def probed_up(labs: Callable[..., Lab]) -> Lab:
    return labs(hub_spoke(probe={"no_healthy_backends_behavior": "AllProbedUp"}))


@pytest.fixture(scope="module")
def single(labs: Callable[..., Lab]) -> Lab:
    return labs(hub_spoke(1))


@contextmanager
def down(lab: Lab, *machines: str) -> Iterator[None]:
    """The probes of these members fail; their data path goes on."""
    try:
        for each in machines:
            lab.fault(each, "probe-down")
        for each in machines:
            lab.wait_member(each, healthy=False)
        yield
    finally:
        for each in machines:
            lab.recover(each)
        for each in machines:
            lab.wait_member(each, healthy=True)


def connections(lab: Lab, stack: ExitStack, number: int) -> dict[int, socket.socket]:
    """TCP connections to the server that have been used, by their source port."""
    made = {}
    for _ in range(number):
        connection = stack.enter_context(lab.tcp("web1", SERVER))
        made[connection.getsockname()[1]] = connection
    assert all(lab.echoes(each, seconds=lab.timing.patience) for each in made.values())
    return made


@fact(row=3)
def test_established_tcp_stays_with_a_member_that_went_down(lab: Lab) -> None:
    """One instance down: its established TCP connections stay on it and go on, and nobody gets a reset.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    with lab.tap("nva1", "nva2") as tap, lab.tap("web1") as client, ExitStack() as stack:
        kept = connections(lab, stack, 12)
        before = {port: tap.members_of(CLIENT, port) for port in kept}
        assert {frozenset(each) for each in before.values()} == {frozenset({"nva1"}), frozenset({"nva2"})}
        with down(lab, "nva1"):
            assert all(lab.echoes(each) for each in kept.values())
            assert {port: tap.members_of(CLIENT, port) for port in kept} == before
            assert not any(each.flags & RESET for each in client.packets() if each.protocol == socket.IPPROTO_TCP)


@fact(row=3)
def test_new_tcp_goes_to_the_members_that_are_left(lab: Lab) -> None:
    """One instance down: new TCP connections go to the healthy ones, and all of them are established.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    with lab.tap("nva1", "nva2") as tap, down(lab, "nva1"), ExitStack() as stack:
        made = connections(lab, stack, 12)
        assert {frozenset(tap.members_of(CLIENT, port)) for port in made} == {frozenset({"nva2"})}


@fact(row=3)
def test_udp_moves_to_a_healthy_member(lab: Lab) -> None:
    """One instance down: its UDP flows move to a healthy one and go on there.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    before = lab.owners("web1", SERVER, PORTS)
    assert set(before.values()) == {"nva1", "nva2"}
    with down(lab, "nva1"):
        assert set(lab.owners("web1", SERVER, PORTS).values()) == {"nva2"}


@fact(row=3)
def test_all_down_new_flows_get_silence(lab: Lab) -> None:
    """All instances down: new flows get no answer at all, neither a reset nor an ICMP error.

    Source: azure.md §3, "Load Balancer health probes" (2018)
    """
    with down(lab, "nva1", "nva2"), lab.tap("web1") as client:
        assert not lab.connects("web1", SERVER)
        assert not lab.asks("web1", SERVER)
        assert [each for each in client.packets() if not each.sent] == []


@fact(row=3)
def test_all_down_established_tcp_goes_on_and_udp_ends(lab: Lab) -> None:
    """All of several instances down: established TCP connections continue on their instances, UDP flows end.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    with ExitStack() as stack, lab.open("web1", socket.SOCK_DGRAM) as asker:
        kept = connections(lab, stack, 8)
        assert lab.answered(asker, SERVER)
        with down(lab, "nva1", "nva2"):
            assert all(lab.echoes(each) for each in kept.values())
            assert not lab.answered(asker, SERVER)
        assert lab.answered(asker, SERVER)


@fact(row=3)
def test_all_down_in_a_pool_of_one_ends_tcp(single: Lab) -> None:
    """The only instance of a pool down: its established TCP connections end, in silence.

    Source: azure.md §3, "Azure Load Balancer health probes"
    Note: Azure promises that TCP continues for pools with more than one instance, and says nothing of others; the
    lab takes that by its word.
    """
    with ExitStack() as stack, single.tap("web1") as client:
        (port, connection) = next(iter(connections(single, stack, 1).items()))
        with down(single, "nva1"):
            before = len(client.packets())
            assert not single.echoes(connection)
            assert not [each for each in client.packets()[before:] if not each.sent and each.destination_port == port]


@fact(row=3)
def test_all_probed_up_sends_new_flows_to_all_members(probed_up: Lab) -> None:
    """`noHealthyBackendsBehavior: AllProbedUp`: when all instances are down, new flows go to all of them.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    lab = probed_up
    with ExitStack() as stack:
        kept = connections(lab, stack, 4)
        with down(lab, "nva1", "nva2"), lab.tap("nva1", "nva2") as tap:
            assert set(lab.owners("web1", SERVER, PORTS).values()) == {"nva1", "nva2"}
            made = connections(lab, stack, 12)
            assert set().union(*(tap.members_of(CLIENT, port) for port in made)) == {"nva1", "nva2"}
            assert all(lab.echoes(each) for each in kept.values())


@fact(row=3)
def test_all_probed_up_needs_all_members_down(probed_up: Lab) -> None:
    """`AllProbedUp` is about the case that all are down: with one instance healthy, the others get nothing new.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    with down(probed_up, "nva1"):
        assert set(probed_up.owners("web1", SERVER, PORTS).values()) == {"nva2"}
