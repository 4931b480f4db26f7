"""Flows: ports, shares, keys."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import InputError
from testbed.plan.model import Member
from testbed.traffic.flows import RESERVED_SOURCE_PORTS, FlowKey, Pair, Tap, Transport, spread

PAIRS = tuple(
    Pair(f"web{n}", f"lab-web{n}", f"10.{n}.0.4", "eth0", "other", f"10.{3 - n}.0.4", n, both_directions=True)
    for n in (1, 2)
)


@given(st.integers(0, 400), st.integers(0, 2**32), st.sets(st.integers(1, 65535), max_size=50))
def test_flows_are_unique_and_fairly_dealt(count: int, seed: int, avoid: set[int]) -> None:
    """Keys are unique, forbidden source ports are not used, pairs and protocols get equal shares."""
    flows = spread(PAIRS, count, seed, avoid_ports=avoid - {20})
    assert [flow.number for flow in flows] == list(range(count))
    assert len({flow.key for flow in flows}) == count
    sources = {(flow.protocol, flow.pair.client_address, flow.client_port) for flow in flows}
    assert len(sources) == count
    assert not {flow.client_port for flow in flows} & (RESERVED_SOURCE_PORTS | avoid - {20})
    shares = Counter((flow.pair, flow.protocol) for flow in flows)
    assert max(shares.values(), default=0) - min(shares.values(), default=0) <= 1 or count < 4


def test_special_ports_are_always_there() -> None:
    """Both protocols have a flow from source port 20 and flows to well-known ports."""
    flows = spread(PAIRS, 200, 1)
    for protocol in Transport:
        mine = [flow for flow in flows if flow.protocol is protocol]
        assert [flow.client_port for flow in mine].count(20) == 1
        assert {53, 80, 443, 22, 65535} <= {flow.server_port for flow in mine}


def test_the_seed_decides_the_ports() -> None:
    """The same seed gives the same flows, another seed others."""
    assert spread(PAIRS, 100, 7) == spread(PAIRS, 100, 7)
    one, other = ({flow.key for flow in spread(PAIRS, 100, seed)} for seed in (7, 8))
    assert not one & other


def test_no_two_flows_are_each_others_answers() -> None:
    """Opposite flows of two machines never share both ports; this seed would draw two such flows."""
    flows = spread(PAIRS, 60_000, 7)
    tuples = {(f.protocol, f.pair.client_address, f.client_port, f.pair.server_address, f.server_port) for f in flows}
    reverse = {(p, server, server_port, client, port) for p, client, port, server, server_port in tuples}
    assert not tuples & reverse


def test_what_cannot_be_spread_is_an_error() -> None:
    """No pair, or more flows than a client has ports, is the user's mistake and says what to do."""
    with pytest.raises(InputError, match="no pair"):
        spread((), 10, 1)
    with pytest.raises(InputError, match=r"10\.1\.0\.4 has only 65532 source ports"):
        spread(PAIRS[:1], 2 * 65533, 1)


def test_key_and_words_of_a_flow() -> None:
    """The key leaves the server's address out; the words name both ends."""
    (flow, *_) = spread(PAIRS[:1], 1, 1)
    port = flow.server_port
    assert flow.key == FlowKey(Transport.TCP, "10.1.0.4", 20, port)
    assert str(flow) == f"tcp 10.1.0.4:20 -> 10.2.0.4:{port} (web1 -> other)"


def test_a_tap_serves_its_rules() -> None:
    """A tap made from a member serves the rules it is told, or all of them."""
    member = Member(3, "nva1", "eth1", "lab-nva1", "10.0.1.4", "f3", forwards=True)
    tap = Tap.of(member, [1])
    assert (tap.name, tap.namespace, tap.nic, tap.address) == ("nva1", "lab-nva1", "eth1", "10.0.1.4")
    assert tap.serves(PAIRS[0])
    assert not tap.serves(PAIRS[1])
    assert Tap.of(member).serves(PAIRS[1])
