"""Patched frames are what scapy would have built."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from testbed.traffic.flows import Pair, Transport, spread
from testbed.traffic.templates import UDP_MAGIC, Template, flow_frames, icmp_echo, patch, tcp_syn, udp_datagram

if TYPE_CHECKING:
    from collections.abc import Callable

ETHERNET = bytes.fromhex("123456789abc020000000001")


def rebuilt(frame: bytes) -> bytes:
    """The frame as scapy builds it when it has to compute every checksum and length itself."""
    packet = Ether(frame)
    for layer in (IP, IPv6, TCP, UDP, ICMP):
        if layer in packet:
            for name in ("chksum", "len", "plen"):
                if name in packet[layer].fields:
                    del packet[layer].fields[name]
    return bytes(packet)


def columns(template: Template) -> st.SearchStrategy[dict[str, list[int]]]:
    """A few rows of values for all fields of a template, with the edges among them."""
    return st.integers(1, 8).flatmap(
        lambda count: st.fixed_dictionaries(
            {
                name: st.lists(
                    st.sampled_from([0, 1, 256**size - 1]) | st.integers(0, 256**size - 1),
                    min_size=count,
                    max_size=count,
                )
                for name, (_, size, _, _) in template.fields.items()
            }
        )
    )


@pytest.mark.parametrize(
    "build", [tcp_syn, udp_datagram, icmp_echo, partial(tcp_syn, version=6), partial(udp_datagram, version=6)]
)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_patched_frame_equals_scapys(build: Callable[[bytes], Template], data: st.DataObject) -> None:
    """Whatever is patched, scapy computes the same checksums for it."""
    template = build(ETHERNET)
    for frame in patch(template, data.draw(columns(template))):
        assert rebuilt(frame.tobytes()) == frame.tobytes()


def test_udp_checksum_zero_is_written_as_ones() -> None:
    """Among all 65,536 numbers one makes the sum 0; it goes out as 0xFFFF, since 0 means no checksum."""
    frames = patch(udp_datagram(ETHERNET), {"number": range(65536)})
    sums = frames[:, 40].astype(int) << 8 | frames[:, 41]
    assert (sums != 0).all()
    (ones,) = np.flatnonzero(sums == 0xFFFF)
    assert rebuilt(frames[ones].tobytes()) == frames[ones].tobytes()


def test_flows_become_frames_that_say_who_they_are() -> None:
    """Addresses, ports and the flow's number stand where a receiver looks for them."""
    pair = Pair("a", "lab-a", "10.1.0.4", "eth0", "b", "10.2.0.4", 1, both_directions=True)
    flows = spread([pair], 3000, 1)
    tcp = [flow for flow in flows if flow.protocol is Transport.TCP]
    udp = [flow for flow in flows if flow.protocol is Transport.UDP]
    for frame, flow in zip(flow_frames(tcp_syn(ETHERNET), tcp, 2**32 - 1), tcp, strict=True):
        packet = Ether(frame.tobytes())
        assert (packet[IP].src, packet[IP].dst) == ("10.1.0.4", "10.2.0.4")
        assert (packet[TCP].sport, packet[TCP].dport) == (flow.client_port, flow.server_port)
        assert packet[TCP].seq == (2**32 - 1 + flow.number) % 2**32
        assert packet[TCP].flags == "S"
        assert dict(packet[TCP].options)["MSS"] == 1460
    frame = flow_frames(udp_datagram(ETHERNET), udp)[5].tobytes()
    assert frame[:12] == ETHERNET
    assert Ether(frame)[Raw].load[:8] == UDP_MAGIC + udp[5].number.to_bytes(4, "big")
