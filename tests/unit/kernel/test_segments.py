"""TCP segments as octets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from testbed.kernel.segments import Segment

NUMBERS = st.integers(0, 2**32 - 1)
PORTS = st.integers(0, 65535)


def _ends(network: str) -> st.SearchStrategy[tuple[tuple[str, int], tuple[str, int]]]:
    end = st.tuples(st.ip_addresses(network=network).map(str), PORTS)
    return st.tuples(end, end)


@given(_ends("0.0.0.0/0") | _ends("fc00::/7"), NUMBERS, NUMBERS, st.integers(0, 255))
def test_segments_are_what_scapy_would_build(
    ends: tuple[tuple[str, int], tuple[str, int]], sequence: int, acknowledgement: int, flags: int
) -> None:
    """Header by header and checksum by checksum; and they are read back."""
    source, destination = ends
    made = Segment(*source, *destination, sequence, acknowledgement, flags)
    ip = (
        IPv6(src=source[0], dst=destination[0], hlim=64, nh=6)
        if ":" in source[0]
        else IP(src=source[0], dst=destination[0], id=0, flags="DF", ttl=64)
    )
    tcp = TCP(sport=source[1], dport=destination[1], seq=sequence, ack=acknowledgement, flags=flags, window=0)
    assert made.octets() == bytes(ip / tcp)
    assert Segment.read(made.octets()) == made


@given(st.binary(max_size=39))
def test_what_is_cut_off_is_nothing(octets: bytes) -> None:
    """Less than two whole headers is no segment."""
    assert Segment.read(octets) is None
