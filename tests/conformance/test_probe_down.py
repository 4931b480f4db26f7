"""What happens to new and established flows when members go down and come back (row 3)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from documents import hub_spoke
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(hub_spoke())


@fact(row=3)
def test_established_tcp_stays_with_a_member_that_went_down(lab: Lab) -> None:
    """One instance down: established TCP stays on it, new TCP goes to the others, UDP moves; nobody gets a reset.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    with lab.tap("nva1", "nva2") as tap, lab.open("web1", socket.SOCK_DGRAM) as asker:
        ports = []
        kept = []
        for _ in range(12):
            connection = lab.open("web1", socket.SOCK_STREAM)
            connection.connect(("10.2.0.4", 80))
            kept.append(connection)
            ports.append(connection.getsockname()[1])
        assert lab.answered(asker, "10.2.0.4")
        assert all(lab.echoes(each) for each in kept)
        before = [tap.members_of("10.1.0.4", port) for port in ports]
        assert {frozenset(each) for each in before} == {frozenset({"nva1"}), frozenset({"nva2"})}
        lab.fault("nva1", "probe-down")
        try:
            lab.wait_member("nva1", healthy=False)
            assert all(lab.echoes(each) for each in kept)
            assert [tap.members_of("10.1.0.4", port) for port in ports] == before
        finally:
            lab.recover("nva1")
        for each in kept:
            each.close()
    lab.wait_member("nva1", healthy=True)
