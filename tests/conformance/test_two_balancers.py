"""Two load balancers decide independently: the sandwich, and source NAT as its remedy (row 11)."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
CLIENT, SERVER = "10.1.0.4", "10.2.0.4"
PORTS = range(22_001, 22_257)
_EMULATED = 4  # there, of so many ports only one


def ready(name: str) -> dict[str, Any]:
    """A ready topology, without its name."""
    document: dict[str, Any] = yaml.safe_load((TOPOLOGIES / f"{name}.yaml").read_text())
    return {key: value for key, value in document.items() if key != "name"}


@pytest.fixture(scope="module")
def sandwich(labs: Callable[..., Lab]) -> Lab:
    return labs(ready("sandwich"))


@pytest.fixture(scope="module")
def translated(labs: Callable[..., Lab]) -> Lab:
    return labs(ready("sandwich-snat"))


def udp_ways(lab: Lab) -> dict[int, tuple[frozenset[str], frozenset[str]]]:
    """Of UDP flows from the client: the appliances that got the request, and those that got the answer."""
    with lab.tap("nva1", "nva2") as tap, lab.tap("web1") as client, ExitStack() as stack:
        ports = PORTS if lab.timing.scale <= 0.02 else PORTS[::_EMULATED]
        for port in ports:
            stack.enter_context(lab.open("web1", socket.SOCK_DGRAM, port)).sendto(b"ask", (SERVER, 7))

        def answered() -> set[int]:
            return {each.destination_port for each in client.packets() if not each.sent and each.source == SERVER}

        lab.wait("every datagram is answered", answered, lambda found: found >= set(ports))
        ways: dict[int, tuple[frozenset[str], frozenset[str]]] = {}
        packets = tap.packets()
        for port in ports:
            there = {each.machine for each in packets if not each.sent and each.source_port == port}
            back = {each.machine for each in packets if each.sent and each.destination_port == port}
            ways[port] = frozenset(there), frozenset(back)
    return ways


def handshakes(lab: Lab, number: int) -> tuple[set[int], dict[int, set[str]]]:
    """TCP connections begun all at once: the source ports of those that came up, and who saw which."""
    with lab.tap("nva1", "nva2") as tap, ExitStack() as stack:
        waiting: dict[int, socket.socket] = {}
        for port in range(23_001, 23_001 + number):
            connection = stack.enter_context(lab.open("web1", socket.SOCK_STREAM, port))
            connection.settimeout(0)
            connection.connect_ex((SERVER, 80))
            waiting[port] = connection
        up: set[int] = set()
        while len(up) < number:
            left = [each for port, each in waiting.items() if port not in up]
            _, done, _ = select.select([], left, [], 2 * lab.timing.silence)
            if not done:
                break
            assert all(each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 for each in done)
            up |= {each.getsockname()[1] for each in done}
        return up, {port: tap.members_of(CLIENT, port) for port in waiting}


@fact(row=11)
def test_two_balancers_choose_independently(sandwich: Lab) -> None:
    """Between two load balancers, the answer reaches the appliance that had the request in about 1 of N flows only.

    Source: azure.md §1, "Deploy highly available NVAs" (architecture guide)
    Note: On IPVS the default scheduler hashes the source alone: all answers of one port go to one appliance.
    """
    ways = udp_ways(sandwich)
    assert all(len(there) == len(back) == 1 for there, back in ways.values())
    asymmetric = sum(there != back for there, back in ways.values())
    assert 0.25 < asymmetric / len(ways) < 0.75
    # Neither side's choice follows from the other's: all combinations come up.
    assert len(set(ways.values())) == (4 if sandwich.balancer == "nftables" else 2)


@fact(row=11)
def test_a_stateful_appliance_breaks_asymmetric_flows(sandwich: Lab) -> None:
    """Stateful appliances between two load balancers: TCP whose answer reaches another one is never established.

    Source: azure.md §9, "High availability ports overview"
    """
    up, seen = handshakes(sandwich, 48)
    assert up == {port for port, members in seen.items() if len(members) == 1}
    assert 0 < len(up) < len(seen)


@fact(row=11)
def test_source_nat_makes_the_sandwich_symmetric(translated: Lab) -> None:
    """Source NAT on the appliances brings the answers back to the one that asked: no flow is asymmetric any more.

    Source: azure.md §1, "Deploy highly available NVAs" (architecture guide)
    """
    ways = udp_ways(translated)
    assert all(there == back and len(there) == 1 for there, back in ways.values())
    assert {next(iter(there)) for there, _ in ways.values()} == {"nva1", "nva2"}
    up, seen = handshakes(translated, 24)
    assert up == set(seen)


@fact(row=11)
def test_the_server_sees_the_appliance_with_source_nat(translated: Lab) -> None:
    """The price of source NAT: the server sees the appliance's address on its side, not the client's.

    Source: azure.md §1, "Deploy highly available NVAs" (architecture guide)
    """
    with translated.tap("web2") as server:
        assert translated.asks("web1", SERVER)
        seen = {each.source for each in server.packets() if not each.sent and each.protocol == socket.IPPROTO_UDP}
    assert seen <= {"10.0.2.4", "10.0.2.5"}
    assert seen


@fact(row=11, balancer=False)
def test_each_side_of_an_appliance_is_probed(sandwich: Lab) -> None:
    """Appliances with one pool per side are probed on each side: one side can be down while the other is up.

    Source: azure.md §1, "Deploy highly available NVAs" (architecture guide)
    """
    lab = sandwich
    lab.nft(
        "nva1",
        """add table ip conformance
        add chain ip conformance received { type filter hook input priority 0; }
        add rule ip conformance received iifname eth1 tcp dport 8080 drop""",
    )
    try:
        lab.wait(
            "the inside of nva1 is down",
            lambda: [(each.load_balancer, each.healthy) for each in _members(lab) if each.machine == "nva1"],
            lambda states: states == [("outside-lb", True), ("inside-lb", False)],
        )
    finally:
        lab.nft("nva1", "delete table ip conformance")
    lab.wait("all is up", lambda: [each.healthy for each in _members(lab)], all)


def _members(lab: Lab) -> Any:
    from testbed.lab.status import read_status

    return read_status(lab.plan).members
