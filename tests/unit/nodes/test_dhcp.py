"""The platform's DHCP server: what each kind of message is answered."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from testbed.nodes.dhcp import Lease, answer

MAC = "00:0d:3a:00:00:01"
PRIMARY = Lease("nva1", MAC, "10.0.1.4/26", "10.0.1.1", 1500, ("0.0.0.0/0", "168.63.129.16/32"), "168.63.129.16")
SECOND = dataclasses.replace(PRIMARY, address="10.0.2.4/24", gateway="", routes=())


def message(kind: str, *options: Any, mac: str = MAC, flags: int = 0, ciaddr: str = "0.0.0.0") -> bytes:
    """What a client sends."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    head = BOOTP(op=1, xid=0x1234, flags=flags, chaddr=hardware, ciaddr=ciaddr)
    return bytes(head / DHCP(options=[("message-type", kind), *options, "end"]))


def told(request: bytes, lease: Lease = PRIMARY) -> tuple[Any, dict[str, Any], str]:
    """The answer's head, its options by name, and where it goes."""
    replied = answer(request, lease)
    assert replied is not None
    packet = BOOTP(replied[0])
    options = {option[0]: option[1] for option in packet[DHCP].options if isinstance(option, tuple)}
    return packet, options, replied[1]


def test_a_machine_is_offered_the_address_of_the_document() -> None:
    """For ever, with its mask and the MTU; the transaction is the client's."""
    packet, options, where = told(message("discover"))
    assert (packet.yiaddr, packet.xid, where) == ("10.0.1.4", 0x1234, "10.0.1.4")
    assert options["message-type"] == 2
    assert options["subnet_mask"] == "255.255.255.192"
    assert options["lease_time"] == 0xFFFFFFFF
    assert options["interface-mtu"] == 1500
    assert options["hostname"] == b"nva1"


def test_the_way_out_comes_with_the_primary_network_interface_only() -> None:
    """As in Azure: the default route and the platform's address by the first one, on-link routes by the others."""
    _, options, _ = told(message("discover"))
    assert options["router"] == "10.0.1.1"
    assert options["classless_static_routes"] == ["0.0.0.0/0:10.0.1.1", "168.63.129.16/32:10.0.1.1"]
    _, options, _ = told(message("discover"), SECOND)
    assert "router" not in options
    assert "classless_static_routes" not in options


@pytest.mark.parametrize(("requested", "kind"), [("10.0.1.4", 5), ("10.0.1.77", 6)])
def test_what_is_requested_is_given_or_refused(requested: str, kind: int) -> None:
    """Another address than its own is refused, to everybody's ears, so that the client starts again."""
    packet, options, where = told(message("request", ("requested_addr", requested)))
    assert options["message-type"] == kind
    assert (packet.yiaddr, where) == (("10.0.1.4", "10.0.1.4") if kind == 5 else ("0.0.0.0", "255.255.255.255"))


def test_a_renewal_and_a_question() -> None:
    """A client that has its address renews it, or only asks for the settings."""
    assert told(message("request", ciaddr="10.0.1.4"))[1]["message-type"] == 5
    packet, options, _ = told(message("inform", ciaddr="10.0.1.4"))
    assert options["message-type"] == 5
    assert (packet.yiaddr, packet.ciaddr) == ("0.0.0.0", "10.0.1.4")
    assert "lease_time" not in options


def test_a_client_without_an_address_may_ask_for_a_broadcast() -> None:
    """Its flag says that it cannot hear anything else yet."""
    assert told(message("discover", flags=0x8000))[2] == "255.255.255.255"


@pytest.mark.parametrize(
    "request_",
    [
        message("discover", mac="00:0d:3a:00:00:99"),
        message("request", ("server_id", "10.9.9.9"), ("requested_addr", "10.0.1.4")),
        message("release"),
        message("decline"),
        bytes(BOOTP(op=1, chaddr=bytes.fromhex(MAC.replace(":", "")))),
        b"",
    ],
    ids=["another-machine", "another-server", "release", "decline", "no-dhcp", "nothing"],
)
def test_what_is_not_for_this_server_is_not_answered(request_: bytes) -> None:
    """Neither a foreign network interface nor a client of another server gets a word."""
    assert answer(request_, PRIMARY) is None


@given(st.binary(max_size=600))
def test_any_bytes_are_survived(data: bytes) -> None:
    """What comes from a machine can be anything."""
    answer(data, PRIMARY)
