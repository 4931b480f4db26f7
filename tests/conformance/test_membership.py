"""Which flows move when members leave, come back and join (row 4)."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from documents import hub_spoke
from facts import fact

from testbed.balancer.nftables import preference_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

CLIENT, SERVER = "10.1.0.4", "10.2.0.4"
PORTS = range(21_001, 21_065)


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(hub_spoke(3))


@contextmanager
def down(lab: Lab, machine: str) -> Iterator[None]:
    """Its probe fails; its data path goes on."""
    try:
        lab.fault(machine, "probe-down")
        lab.wait_member(machine, healthy=False)
        yield
    finally:
        lab.recover(machine)
        lab.wait_member(machine, healthy=True)


def fresh(lab: Lab) -> dict[int, str]:
    """The owners of flows that the balancer has never seen, or has forgotten."""
    lab.forget_flows()
    return lab.owners("web1", SERVER, PORTS)


def moved(before: dict[int, str], after: dict[int, str]) -> set[int]:
    return {port for port in before if before[port] != after[port]}


def of(owners: dict[int, str], machine: str) -> set[int]:
    return {port for port, owner in owners.items() if owner == machine}


@fact(row=4)
def test_a_member_that_leaves_moves_its_own_flows_only(lab: Lab) -> None:
    """When an instance is down, new flows of its share go to the others, spread over all of them.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    Note: Azure says no more than that the distribution is computed anew. The lab moves exactly the share of the
    instance that left; on IPVS its scheduler decides, and what holds is that the instance gets nothing.
    """
    before = fresh(lab)
    assert set(before.values()) == {"nva1", "nva2", "nva3"}
    with down(lab, "nva2"):
        after = fresh(lab)
        assert set(after.values()) == {"nva1", "nva3"}
        if lab.balancer == "nftables":
            assert moved(before, after) == of(before, "nva2")
            assert {after[port] for port in of(before, "nva2")} == {"nva1", "nva3"}


@fact(row=4)
def test_a_member_that_recovers_gets_exactly_its_old_share(lab: Lab) -> None:
    """An instance that is healthy again gets new flows again.

    Source: azure.md §3, "Azure Load Balancer health probes"
    Note: In the lab those of exactly its old share; on IPVS, of a share that its scheduler chooses.
    """
    before = fresh(lab)
    with down(lab, "nva2"):
        assert "nva2" not in fresh(lab).values()
    after = fresh(lab)
    assert set(after.values()) == {"nva1", "nva2", "nva3"}
    if lab.balancer == "nftables":
        assert after == before


@fact(row=4)
def test_the_preference_table_predicts_what_moves(lab: Lab) -> None:
    """Same healthy set, same distribution: a flow's five-tuple keeps its instance as long as the set is unchanged.

    Source: azure.md §2, "Azure Load Balancer components"
    Note: In the lab the table of preferences says for every set of healthy instances who gets which part of the
    hash; what the kernel is given at a change is exactly the difference. On IPVS its scheduler replaces the table.
    """
    assert fresh(lab) == fresh(lab) or lab.balancer == "ipvs"
    if lab.balancer == "ipvs":
        return
    (rule,) = lab.plan.rules
    table = preference_table(rule)
    everybody = {each.id for each in rule.members}
    left = {each.id for each in rule.members if each.machine != "nva3"}
    wanted = int((table.owners(everybody) != table.owners(left)).sum())
    before = len(lab.events())
    with down(lab, "nva3"):
        pass
    changes = [each.fields for each in lab.events()[before:] if each.event == "update"]
    assert [(each["eligible"], each["moved"]) for each in changes] == [
        (["nva1", "nva2"], wanted),
        (["nva1", "nva2", "nva3"], wanted),
    ]


@fact(row=4)
def test_established_flows_stay_when_members_come_and_go(lab: Lab) -> None:
    """Established flows are not touched when other instances leave, recover or join.

    Source: azure.md §2, "Azure Load Balancer components"
    """
    lab.forget_flows()
    with lab.tap("nva1", "nva2", "nva3") as tap, ExitStack() as stack:
        kept = {}
        for _ in range(12):
            connection = stack.enter_context(lab.tcp("web1", SERVER))
            kept[connection.getsockname()[1]] = connection
        datagrams = lab.owners("web1", SERVER, PORTS)

        def check() -> None:
            assert all(lab.echoes(each, seconds=lab.timing.patience) for each in kept.values())
            assert all(len(tap.members_of(CLIENT, port)) == 1 for port in kept)

        check()
        with down(lab, "nva2"):
            check()
            during = lab.owners("web1", SERVER, PORTS)
            assert moved(datagrams, during) == of(datagrams, "nva2")
        check()
        assert lab.owners("web1", SERVER, PORTS) == during  # nobody is moved back
        lab.up(hub_spoke(4))
        try:
            check()
            assert lab.owners("web1", SERVER, PORTS) == during
        finally:
            lab.up(hub_spoke(3))
        check()
        assert lab.owners("web1", SERVER, PORTS) == during


@fact(row=4)
def test_a_member_that_joins_takes_only_what_comes_to_it(lab: Lab) -> None:
    """An instance that is added to the pool gets its share of new flows.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    Note: Azure says that a new connection of a known client may land elsewhere. In the lab flows move to the new
    instance only, never between the old ones; on IPVS its scheduler decides.
    """
    before = fresh(lab)
    lab.up(hub_spoke(4))
    try:
        after = fresh(lab)
        assert set(after.values()) == {"nva1", "nva2", "nva3", "nva4"}
        if lab.balancer == "nftables":
            assert moved(before, after) == of(after, "nva4")
    finally:
        lab.up(hub_spoke(3))
    if lab.balancer == "nftables":
        assert fresh(lab) == before


@fact(row=4)
def test_a_member_that_is_removed_gets_nothing_new(lab: Lab) -> None:
    """An instance that is removed from the pool gets no new flows, and its UDP flows move.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    """
    smaller = hub_spoke(3)
    smaller["machines"][2]["network_interfaces"][0]["backend_address_pools"] = []
    lab.forget_flows()
    before = lab.owners("web1", SERVER, PORTS)
    lab.up(smaller)
    try:
        with lab.tap("nva3") as removed:
            after = lab.owners("web1", SERVER, PORTS)
            assert set(after.values()) == {"nva1", "nva2"}
            assert not [each for each in removed.packets() if each.protocol == socket.IPPROTO_UDP]
            if lab.balancer == "nftables":
                assert moved(before, after) == of(before, "nva3")
    finally:
        lab.up(hub_spoke(3))
