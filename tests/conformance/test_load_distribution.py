"""What of a packet chooses the member (row 2)."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
from documents import IDLE, hub_spoke, machine
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab

_PEERS = {f"peer{number}": f"10.2.0.{20 + number}" for number in range(6)}
_ADDRESSES = {"web1": "10.1.0.4", **_PEERS}
_NVAS = ("nva1", "nva2")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def _document(mode: str) -> dict[str, Any]:
    """A hub and two spokes, with more machines in the second one."""
    document = hub_spoke(load_distribution=mode)
    document["machines"] += [machine(name, "spoke2/workload", address, IDLE) for name, address in _PEERS.items()]
    return document


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(_document("Default"))


def _predicted(lab: Lab, sender: str, receiver: str, protocol: str) -> str | None:
    """The member that ``testbed explain`` names for a flow that is not there yet."""
    predicted: str | None = lab.explain(sender, IPv4Address(_ADDRESSES[receiver]), protocol, None, None)[0].predicted
    return predicted


def _carriers(lab: Lab, sender: str, receiver: str, protocol: str, flows: int = 2) -> set[str]:
    """The members that carry new flows of two machines, with their answers (a reset, or "port unreachable").

    Each call captures for itself, and no flow is known before: the kernel gives the port of one flow to a later one.
    """
    lab.forget_flows()
    ends = []
    with lab.tap(*_NVAS) as tap:
        for _ in range(flows):
            opened = lab.open(sender, _KINDS[protocol], address=_ADDRESSES[sender])
            with opened, suppress(ConnectionRefusedError):
                ends.append((_ADDRESSES[sender], opened.getsockname()[1]))
                opened.connect((_ADDRESSES[receiver], 4000))
                opened.send(b"hello")
        return set().union(*(lab.wait("the flow came to a member", partial(tap.members_of, *end)) for end in ends))


@fact(row=2)
def test_default_spreads_the_flows_of_two_machines(lab: Lab) -> None:
    """``Default`` hashes the five-tuple: flows between the same two machines go to several members.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    """
    lab.up(_document("Default"))
    assert _carriers(lab, "web1", "peer0", "udp", flows=40) == set(_NVAS)


@fact(row=2)
def test_source_ip_keeps_all_flows_of_two_machines_together(lab: Lab) -> None:
    """``SourceIP`` hashes the two addresses: all flows between two machines, in either direction, go to one member.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    Note: The hash is not Azure's; ``testbed explain`` tells the member beforehand.
    """
    lab.up(_document("SourceIP"))
    chosen: list[str] = []
    for peer in _PEERS:
        carriers: set[str] = set()
        for protocol in _KINDS:
            for ends in (("web1", peer), (peer, "web1")):
                carriers |= _carriers(lab, *ends, protocol)
                assert carriers == {_predicted(lab, *ends, protocol)}
        chosen += carriers
    assert set(chosen) == set(_NVAS)


@fact(row=2)
def test_source_ip_protocol_tells_tcp_and_udp_apart(lab: Lab) -> None:
    """``SourceIPProtocol`` hashes addresses and protocol: TCP and UDP between two machines may have two members.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    """
    lab.up(_document("SourceIPProtocol"))
    apart = 0
    for peer in _PEERS:
        carriers = {}
        for protocol in _KINDS:
            there, back = (_carriers(lab, *ends, protocol) for ends in (("web1", peer), (peer, "web1")))
            assert there == back == {_predicted(lab, "web1", peer, protocol)}
            carriers[protocol] = there
        apart += carriers["tcp"] != carriers["udp"]
    assert 0 < apart < len(_PEERS)


@fact(row=2)
def test_changing_the_mode_moves_no_established_flow(lab: Lab) -> None:
    """Changing the mode causes no downtime: established flows keep their member, new ones obey the new mode.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    """
    lab.up(_document("Default"))
    with lab.tap(*_NVAS) as tap:
        connections = [lab.open("web1", socket.SOCK_STREAM) for _ in range(8)]
        askers = [lab.open("web1", socket.SOCK_DGRAM) for _ in range(8)]
        for each in connections:
            each.connect(("10.2.0.4", 80))
        for mode in ("SourceIP", "SourceIPProtocol", "Default"):
            assert all(lab.echoes(each) for each in connections)
            assert all(lab.answered(each, "10.2.0.4") for each in askers)
            lab.up(_document(mode))
        assert all(lab.echoes(each) for each in connections)
        assert all(lab.answered(each, "10.2.0.4") for each in askers)
        carriers = [tap.members_of("10.1.0.4", each.getsockname()[1], each.type) for each in (*connections, *askers)]
        for each in (*connections, *askers):
            each.close()
    assert {len(each) for each in carriers} == {1}


@fact(row=2)
def test_source_ip_moves_only_the_pairs_of_a_member_that_went_down(lab: Lab) -> None:
    """When the healthy set changes, new flows are distributed again: those of the member that went down.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    Note: Azure does not say how many others move. Here none does, and after recovery all are back.
    """
    lab.up(_document("SourceIP"))
    before = {peer: _predicted(lab, "web1", peer, "udp") for peer in _PEERS}
    lab.fault("nva1", "probe-down")
    try:
        lab.wait_member("nva1", healthy=False)
        for peer in _PEERS:
            assert _carriers(lab, "web1", peer, "udp", flows=1) == {"nva2"}
    finally:
        lab.recover("nva1")
    lab.wait_member("nva1", healthy=True)
    after = {peer: _carriers(lab, "web1", peer, "udp", flows=1) for peer in _PEERS}
    assert after == {peer: {member} for peer, member in before.items()}
