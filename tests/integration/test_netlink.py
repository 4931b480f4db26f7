"""What is made by netlink is there, reads back the same, and goes again."""

from __future__ import annotations

import os
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

import pytest

from testbed.errors import LabError
from testbed.kernel import namespaces
from testbed.kernel.netlink import Link, Netlink, RouteEntry, RuleEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE, THERE = "12:34:56:78:9a:bc", "02:00:00:00:00:01"
ROUTES = (
    RouteEntry(101, "0.0.0.0/0", "unicast", "10.1.0.4", "c1"),
    RouteEntry(101, "10.0.0.0/8", "blackhole", None, None),
    RouteEntry(101, "10.9.0.4/32", "unicast", None, "c1"),
    RouteEntry(101, "::/0", "unicast", "fd00::4", "c1"),
    RouteEntry(101, "fd00::/48", "blackhole", None, None),
    RouteEntry(101, "fd00::9/128", "unicast", None, "c1"),
)
RULE = RuleEntry(101, 0x10000, 0xFFFF0000, 101)
RULES = (RULE, RuleEntry(101, 0x10000, 0xFFFF0000, 101, 6))
ADDRESSES = (("c1", "10.1.0.1/24"), ("c1", "fe80::1234:5678:9abc/64"))


@pytest.fixture
def pair() -> Iterator[tuple[str, str]]:
    """Two namespaces of nobody's lab."""
    names = (f"netlink-{os.getpid()}-a", f"netlink-{os.getpid()}-b")
    for name in names:
        namespaces.create(name, "netlink")
    yield names
    for name in names:
        namespaces.delete(name)


def _made(mac: str) -> tuple[str, str]:
    """The address that the kernel makes of a MAC by itself (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    made = b"\xfe\x80" + bytes(6) + bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:])
    return "c1", f"{IPv6Address(made)}/64"


def test_what_is_made_reads_back_and_goes(pair: tuple[str, str]) -> None:
    """A cable with its names; in both IP versions an address, a neighbour, routes of each kind and a rule."""
    with namespaces.entered(pair[0]), Netlink() as netlink:
        netlink.add_veth("c1", HERE, 1400, namespaces.path(pair[1]), "eth0", THERE)
        netlink.add_altname("c1", "a-name-longer-than-the-kernel-takes")
        netlink.set_link("c1", up=True)
        for each in ADDRESSES:
            netlink.address("add", *each)
        for address in ("10.1.0.4", "fd00::4"):
            netlink.neighbor("replace", "c1", address, HERE)
            netlink.neighbor("replace", "c1", address, THERE)
        for route in ROUTES:
            netlink.route("add", route)
        for rule in RULES:
            netlink.rule("add", rule)

        loopback, cable = netlink.links()
        names = {loopback.index: "lo", cable.index: "c1"}
        assert cable == Link(cable.index, "c1", HERE, 1400, True, ("a-name-longer-than-the-kernel-takes",))  # noqa: FBT003
        assert netlink.index("c1") == cable.index
        loop = {("lo", "127.0.0.1/8"), ("lo", "::1/128")}
        assert set(netlink.addresses(names)) - loop - {_made(HERE)} == set(ADDRESSES)
        assert netlink.neighbors(names) == (("c1", "10.1.0.4", THERE), ("c1", "fd00::4", THERE))
        assert set(netlink.routes(names)) == set(ROUTES)
        assert netlink.rules() == RULES
        with namespaces.entered(pair[1]), Netlink() as other:
            (far,) = (link for link in other.links() if link.name == "eth0")
        assert (far.mac, far.mtu, far.up) == (THERE, 1400, False)

        for rule in RULES:
            netlink.rule("del", rule)
        for route in reversed(ROUTES):
            netlink.route("del", route)
        for address in ("10.1.0.4", "fd00::4"):
            netlink.neighbor("del", "c1", address, THERE)
        for each in ADDRESSES:
            netlink.address("del", *each)
        assert not set(netlink.addresses(names)) & set(ADDRESSES)
        assert (netlink.rules(), netlink.routes(names), netlink.neighbors(names)) == ((), (), ())
        netlink.delete_link("c1")
        assert [link.name for link in netlink.links()] == ["lo"]


def test_a_refusal_names_what_was_tried(pair: tuple[str, str]) -> None:
    """An error tells the object and the kernel's reason."""
    with namespaces.entered(pair[0]), Netlink() as netlink:
        with pytest.raises(LabError, match="no link 'c1'"):
            netlink.index("c1")
        netlink.rule("add", RULE)
        with pytest.raises(LabError, match="add rule for mark 0x10000: File exists"):
            netlink.rule("add", RULE)
        netlink.route("add", ROUTES[1])
        with pytest.raises(LabError, match=r"add route 10\.0\.0\.0/8 in table 101: File exists"):
            netlink.route("add", ROUTES[1])


def test_many_links_are_all_listed(pair: tuple[str, str]) -> None:
    """A listing that comes in several parts is whole."""
    with namespaces.entered(pair[0]), Netlink() as netlink:
        for number in range(60):
            netlink.add_veth(f"c{number}", HERE, 1500, namespaces.path(pair[1]), f"eth{number}", THERE)
        assert len(netlink.links()) == 61
