"""The kernel's hash in Python: what ``testbed explain`` foretells."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.balancer.prediction import jhash, pair_bucket
from testbed.plan.model import Rule
from testbed.plan.ruleset.choice import HASH_SEED

RULE = Rule(1, "lb", "fe", "ha", "10.0.2.4", "hub", "lb/nvas", False, 4, 4096, (), None)  # noqa: FBT003
BY_ADDRESS = replace(RULE, load_distribution="SourceIP")
BY_PROTOCOL = replace(RULE, load_distribution="SourceIPProtocol")
ADDRESSES = st.ip_addresses(v=4).map(str)


@pytest.mark.parametrize(
    ("address", "bucket", "with_udp"), [("127.1.0.7", 36, 11), ("127.1.1.7", 31, 30), ("127.1.4.7", 60, 26)]
)
def test_the_hash_is_the_kernels(address: str, bucket: int, with_udp: int) -> None:
    """What ``jhash ip daddr mod 64``, without and with the protocol, gave on a kernel."""
    assert HASH_SEED == 0x7E57BED
    packed = IPv4Address(address).packed
    assert jhash(packed, HASH_SEED) * 64 >> 32 == bucket
    assert jhash(packed + bytes([17, 0, 0, 0]), HASH_SEED) * 64 >> 32 == with_udp


@given(ADDRESSES, ADDRESSES)
def test_directions_are_the_two_orders_of_a_pair(one: str, other: str) -> None:
    """The bucket of the way back is that of the way there, mirrored; ports and, for ``SourceIP``, protocol are out."""
    there, back = pair_bucket(BY_ADDRESS, 6, one, other), pair_bucket(BY_ADDRESS, 6, other, one)
    assert there is not None
    assert back is not None
    assert divmod(there, 64) == divmod(back, 64)[::-1]
    assert pair_bucket(BY_ADDRESS, 17, one, other) == there


def test_ports_cannot_be_foretold() -> None:
    """The five-tuple is hashed with a seed that only the kernel knows; the protocol matters where it is asked for."""
    assert pair_bucket(RULE, 6, "10.1.0.4", "10.2.0.4") is None
    assert pair_bucket(BY_PROTOCOL, 6, "10.1.0.4", "10.2.0.4") != pair_bucket(BY_PROTOCOL, 17, "10.1.0.4", "10.2.0.4")
