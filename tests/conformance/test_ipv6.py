"""IPv6 beside IPv4 (row 21): dual-stack network interfaces, rules of both versions, each by itself."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from documents import (
    APP_FRONTEND,
    FIREWALL,
    application,
    behind_a_router,
    dual_stack,
    hub_spoke,
    machine,
    rule,
    servers_behind_a_router,
    user_route,
)
from facts import fact

from testbed.lab import backend
from testbed.topology.loading import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from labs import Lab, Packet, Tap

_NVAS = ("nva1", "nva2")
#: ``web1`` and ``web2``, and ``behind`` a router with a small link, by IP version.
_WEB1 = {4: "10.1.0.4", 6: "fd00:0:1::4"}
_WEB2 = {4: "10.2.0.4", 6: "fd00:0:2::4"}
_BEHIND = "fd00:0:2:1::5"
#: Of applications that answer themselves.
_FRONTEND = "fd00:0:20:2::4"
_APPS = {"app1": "fd00:0:20:1::4", "app2": "fd00:0:20:1::5"}
_PROBES = "ip6 saddr fe80::1234:5678:9abc tcp dport 8080"
_LARGE = b"x" * 20_000
_ECHO_REQUEST, _ECHO_REPLY, _TOO_BIG = 128, 129, 2


def _document() -> dict[str, Any]:
    """The hub and two spokes in both versions; ``behind`` stands behind the router ``gw`` in the second spoke."""
    return dual_stack(behind_a_router(hub_spoke()))


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    lab = labs(_document())
    _small_link(lab, "fd00:0:2:1::/64")
    return lab


def _small_link(lab: Lab, prefix: str) -> None:
    """Make ``gw`` forward, and its far link one of MTU 1300."""
    lab.run("gw", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    way = (prefix, "via", "fe80::1234:5678:9abc", "dev", "eth1", "mtu", "1300")
    lab.run("gw", "ip", "-6", "route", "add", *way)


def _carriers(lab: Lab, version: int, count: int = 12) -> list[set[str]]:
    """Of some new TCP connections from ``web1`` to ``web2``, the members that either direction crossed."""
    ports = []
    with lab.tap(*_NVAS) as tap:
        for number in range(count):
            with lab.tcp("web1", _WEB2[version], 1000 + number) as connection:
                assert lab.echoes(connection, seconds=lab.timing.patience)
                ports.append(connection.getsockname()[1])
        return [tap.members_of(_WEB1[version], port) for port in ports]


@pytest.fixture
def silent_probe(lab: Lab) -> Iterator[None]:
    """``nva1`` lets no IPv6 probe in, and is down for it."""
    lab.run("nva1", "nft", "add table ip6 deaf; add chain ip6 deaf in { type filter hook input priority 0; }")
    lab.run("nva1", "nft", f"add rule ip6 deaf in {_PROBES} drop")
    lab.wait_member("nva1", healthy=False, frontend="fe-v6")
    yield
    lab.run("nva1", "nft", "delete table ip6 deaf")
    lab.wait_member("nva1", healthy=True, frontend="fe-v6")


@fact(row=21)
def test_flows_of_both_versions_are_symmetric(lab: Lab) -> None:
    """With one IPv4 and one IPv6 configuration on a network interface, flows of both versions are symmetric.

    Source: azure.md §1, "High availability ports overview" (the section on flow symmetry)
    """
    for version in (4, 6):
        carriers = _carriers(lab, version, 16)
        assert all(len(each) == 1 for each in carriers)
        assert set.union(*carriers) == set(_NVAS)


@fact(row=21)
@pytest.mark.parametrize("port", [1, 20, 22, 53, 443, 8080, 65535])
def test_an_ipv6_rule_covers_every_port(lab: Lab, port: int) -> None:
    """An HA Ports rule with an IPv6 frontend covers every TCP and UDP port, as one for IPv4 does (since March 2020).

    Source: azure.md §1, "High availability ports overview"
    """
    assert lab.connects("web1", _WEB2[6], port)
    assert lab.asks("web1", _WEB2[6], port)


@fact(row=21)
@pytest.mark.usefixtures("silent_probe")
def test_a_probe_of_ipv6_takes_the_member_out_of_the_ipv6_rule_only(lab: Lab) -> None:
    """Rules of the two versions are independent: a member that is down for IPv6 goes on with new flows of IPv4.

    Source: azure.md §1, "High availability ports overview" (the section on flow symmetry)
    """
    assert lab.member("nva1", "fe").healthy
    assert _carriers(lab, 6) == [{"nva2"}] * 12
    assert set.union(*_carriers(lab, 4)) == set(_NVAS)


@fact(row=21, balancer=False)
def test_probes_of_ipv6_come_from_the_router(lab: Lab) -> None:
    """Health probes of IPv6 members come from fe80::1234:5678:9abc, which is every machine's IPv6 router as well.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """

    def probes(tap: Tap) -> list[Packet]:
        got = [each for each in tap.packets() if not each.sent and each.destination == "fd00:0:0:1::4"]
        return [each for each in got if each.destination_port == 8080]

    with lab.tap("nva1") as tap:
        found = lab.wait("an IPv6 probe", lambda: probes(tap))
    assert {each.source for each in found} == {"fe80::1234:5678:9abc"}
    assert "via fe80::1234:5678:9abc" in lab.run("web1", "ip", "-6", "route", "show", "default").stdout


@fact(row=21)
def test_failover_of_ipv6(lab: Lab) -> None:
    """When a member goes down, established TCP stays with it and UDP moves to another one, in IPv6 as in IPv4.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    with lab.tap(*_NVAS) as tap:
        kept = [lab.open("web1", socket.SOCK_STREAM, ipv6=True) for _ in range(8)]
        asking = [lab.open("web1", socket.SOCK_DGRAM, ipv6=True) for _ in range(8)]
        try:
            for each in kept:
                each.connect((_WEB2[6], 80))
            ports = [each.getsockname()[1] for each in kept]
            assert all(lab.answered(each, _WEB2[6]) for each in asking)
            assert all(lab.echoes(each, seconds=lab.timing.patience) for each in kept)
            before = [tap.members_of(_WEB1[6], port) for port in ports]
            lab.fault("nva1", "probe-down")
            lab.wait_member("nva1", healthy=False, frontend="fe-v6")
            assert all(lab.echoes(each, seconds=lab.timing.patience) for each in kept)
            assert [tap.members_of(_WEB1[6], port) for port in ports] == before
            with lab.tap(*_NVAS) as after:
                assert all(lab.answered(each, _WEB2[6]) for each in asking)
                assert {name for each in asking for name in after.members_of(_WEB1[6], each.getsockname()[1])} == {
                    "nva2"
                }
        finally:
            lab.recover("nva1")
            for each in (*kept, *asking):
                each.close()
    for frontend in ("fe", "fe-v6"):
        lab.wait_member("nva1", healthy=True, frontend=frontend)


@fact(row=21)
def test_icmpv6_echo_crosses_the_members(lab: Lab) -> None:
    """ICMPv6 through an HA Ports rule works; the platform itself does not answer pings.

    Source: azure.md §1, "High availability ports overview"
    Note: Azure's documents disagree on ICMP; the switch is that of IPv4.
    """
    with lab.tap(*_NVAS) as tap:
        assert lab.run("web1", "ping", "-6", "-c", "3", "-i", "0.2", _WEB2[6], check=False).returncode == 0
        echoes = [
            each for each in tap.packets() if each.protocol == socket.IPPROTO_ICMPV6 and each.raw[40] in (128, 129)
        ]
    assert {each.raw[40] for each in echoes} == {_ECHO_REQUEST, _ECHO_REPLY}
    assert len({each.machine for each in echoes}) == 1
    router = lab.run("web1", "ping", "-6", "-c", "1", "-W", "1", "fe80::1234:5678:9abc%eth0", check=False)
    assert router.returncode != 0


def _too_big(packets: list[Packet]) -> set[tuple[str, frozenset[int]]]:
    """Machines that got "packet too big", and the ports of the packet it is about."""
    return {
        (each.machine, frozenset(struct.unpack_from("!HH", each.raw, 88)))
        for each in packets
        if not each.sent and each.protocol == socket.IPPROTO_ICMPV6 and each.raw[40] == _TOO_BIG
    }


@fact(row=21)
def test_packet_too_big_reaches_the_right_member(lab: Lab) -> None:
    """Path MTU discovery works: a "packet too big" goes by way of the member of the flow it is about.

    Source: azure.md §1, "High availability ports overview"
    Note: No document of Azure says it; an appliance that keeps state knows the flow on that member only.
    """
    for _ in range(6):
        lab.run("web1", "ip", "-6", "route", "flush", "cache")
        with lab.tap(*_NVAS, "web1") as tap, lab.tcp("web1", _BEHIND) as connection:
            own = connection.getsockname()[1]
            assert lab.echoes(connection, _LARGE, seconds=lab.timing.patience)
            carriers = tap.members_of(_WEB1[6], own) - {"web1"}
            told = {name for name, ports in _too_big(tap.packets()) if own in ports}
        assert len(carriers) == 1
        assert told == carriers | {"web1"}


@fact(row=21)
def test_packet_too_big_is_told_in_terms_of_the_member(own_lab: Callable[..., Lab]) -> None:
    """A "packet too big" that is for an IPv6 frontend reaches its member, and quotes the packet as the member sent it.

    Source: azure.md §4, "Multiple frontends for Azure Load Balancer"
    Note: No document says so; without it path MTU discovery fails.
    """
    lab = own_lab(dual_stack(servers_behind_a_router(floating=False)))
    _small_link(lab, "fd00:0:20:5::/64")
    for _ in range(6):
        with lab.tap(*_APPS) as tap, lab.tcp("behind", _FRONTEND) as connection:
            for name in _APPS:
                lab.run(name, "ip", "-6", "route", "flush", "cache")
            assert lab.echoes(connection, _LARGE, seconds=lab.timing.patience)
            own = connection.getsockname()[1]
            packets = tap.packets()
            (carrier,) = tap.members_of("fd00:0:20:5::5", own)
        quoted = {
            (each.machine, each.destination, socket.inet_ntop(socket.AF_INET6, each.raw[56:72]))
            for each in packets
            if any(own in ports for _, ports in _too_big([each]))
        }
        assert quoted == {(carrier, _APPS[carrier], _APPS[carrier])}


@fact(row=21)
def test_traffic_for_the_ipv6_frontend_itself_is_rewritten(own_lab: Callable[..., Lab]) -> None:
    """What is for an IPv6 frontend reaches a member at its own address, the port kept; answers come from the frontend.

    Source: azure.md §4, "Azure Load Balancer Floating IP configuration"
    """
    lab = own_lab(dual_stack(application(2)))
    with lab.tap("app1", "app2") as members, lab.tap("client") as client:
        for number in range(12):
            with lab.tcp("client", _FRONTEND, 7000 + number) as connection:
                assert lab.echoes(connection, _LARGE, seconds=lab.timing.patience)
            assert lab.asks("client", _FRONTEND, 7000 + number)
        got = [each for each in members.packets() if not each.sent and 7000 <= each.destination_port < 7012]
        answers = [each for each in client.packets() if not each.sent and 7000 <= each.source_port < 7012]
    assert {each.destination for each in got} == set(_APPS.values())
    assert {each.machine for each in got} == {"app1", "app2"}
    assert {each.source for each in answers} == {_FRONTEND}


@fact(row=21)
def test_ipv6_rules_for_single_ports_and_by_address(own_lab: Callable[..., Lab]) -> None:
    """IPv6 frontends take rules for single ports, backend ports of their own, and the other distribution modes.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    """
    rules = [
        rule("web", pool="apps", protocol="Tcp", frontend_port=80, backend_port=8080),
        rule("dns", pool="apps", protocol="Udp", frontend_port=53, backend_port=53, load_distribution="SourceIP"),
    ]
    lab = own_lab(dual_stack(application(2, rules=rules)))
    with lab.tap("app1", "app2") as members:
        with lab.tcp("client", _FRONTEND, 80) as connection:
            assert lab.echoes(connection, seconds=lab.timing.patience)
            own = connection.getsockname()[1]
        assert {each.destination_port for each in members.packets() if each.source_port == own} == {8080}
        assert not lab.connects("client", _FRONTEND, 81)
        (first,) = lab.explain("client", IPv6Address(_FRONTEND), "udp", None, 53)
        assert all(lab.asks("client", _FRONTEND, 53) for _ in range(6))
        assert {each.machine for each in members.packets() if each.destination_port == 53} == {first.predicted}


@fact(row=21, state="switchable")
def test_admin_state_of_an_ipv6_member(own_lab: Callable[..., Lab]) -> None:
    """An admin state is a pool's word on its member: Down of the IPv6 address lets the IPv4 one be.

    Source: azure.md §2, "Admin state overview"
    Note: Established TCP stays, or is reset with `switches: {admin_state_down: Reset}`, in IPv6 as in IPv4.
    """
    lab = own_lab(dual_stack(application(1)) | {"switches": {"admin_state_down": "Reset"}})
    with lab.tcp("client", _FRONTEND) as connection, lab.tcp("client", APP_FRONTEND) as other:
        assert lab.echoes(connection, seconds=lab.timing.patience)
        backend.set_admin_state(lab.plan, "ilb/apps-v6", "app1/eth0", "Down")
        connection.settimeout(lab.timing.patience)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert lab.echoes(other, seconds=lab.timing.patience)
    assert not lab.connects("client", _FRONTEND)
    backend.set_admin_state(lab.plan, "ilb/apps-v6", "app1/eth0", "None")
    lab.wait("the member gets flows again", lambda: lab.connects("client", _FRONTEND))


@fact(row=21, balancer=False)
def test_machines_of_a_subnet_talk_by_way_of_the_platform(lab: Lab) -> None:
    """Machines of one subnet reach each other by the platform in IPv6 too, so that a route can capture their traffic.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    assert "via fe80::1234:5678:9abc" in lab.run("web2", "ip", "-6", "route", "get", "fd00:0:2::9").stdout
    assert lab.run("web2", "ping", "-6", "-c", "1", "-W", "2", "fd00:0:2::9", check=False).returncode == 0


def _errors(document: dict[str, Any], folder: Path) -> str:
    path = folder / "document.yaml"
    path.write_text(yaml.safe_dump({"name": "lab"} | document))
    return "\n".join(str(each) for each in check(path)[1] if each.severity == "error")


@fact(row=21, balancer=False)
def test_ipv6_subnets_are_of_one_size(tmp_path: Path) -> None:
    """An IPv6 subnet is exactly a /64; its first four addresses are Azure's own.

    Source: azure.md §5, "Virtual Network FAQ"
    """
    document = dual_stack(hub_spoke())
    assert _errors(document, tmp_path) == ""
    document["virtual_networks"][1]["subnets"][0]["address_prefixes"][1] = "fd00:0:1::/60"
    document["machines"][-1]["network_interfaces"][0]["ip_configurations"][0]["private_ip_address"] = "fd00:0:2::3"
    assert "a subnet is a /64 in IPv6" in _errors(document, tmp_path)
    assert "fd00:0:2::3 is reserved" in _errors(document, tmp_path)


@fact(row=21, balancer=False)
def test_floating_ip_is_for_ipv4(tmp_path: Path) -> None:
    """Floating IP does not work for IPv6 on internal load balancers.

    Source: azure.md §4, "Azure Load Balancer Floating IP configuration"
    Note: The lab refuses such a document; what Azure's control plane says to it is not documented.
    """
    document = dual_stack(hub_spoke())
    document["load_balancers"][0]["load_balancing_rules"][0]["enable_floating_ip"] = True
    assert _errors(document, tmp_path) == ""
    document["load_balancers"][0]["load_balancing_rules"][1]["enable_floating_ip"] = True
    assert "floating IP does not work for IPv6" in _errors(document, tmp_path)


@fact(row=21, balancer=False)
def test_the_preview_had_no_ipv6(tmp_path: Path) -> None:
    """In the preview of 2017 HA Ports was not available for IPv6.

    Source: azure.md §1, "High availability ports overview" (2017)
    """
    document = dual_stack(hub_spoke()) | {"azure_behaviour": "2017-preview"}
    assert "HA Ports rules were for IPv4 only" in _errors(document, tmp_path)


@fact(row=18, balancer=False)
def test_transit_of_ipv6_is_dropped_before_the_guest(own_lab: Callable[..., Lab]) -> None:
    """A network interface without IP forwarding gets nothing in IPv6 either that is for others.

    Source: azure.md §5, "Create, change, or delete a network interface"
    Note: The lab counts what it drops per IP version; `testbed explain` names the interface and the count.
    """
    document = hub_spoke(1)
    document["route_tables"][0]["routes"].append(user_route("beyond", "10.9.0.0/24", "10.0.1.9"))
    document["machines"].append(machine("gate", "hub/nva", "10.0.1.9", FIREWALL))
    lab = own_lab(dual_stack(document))
    there = "fd00:0:9::4"
    asked = ("web1", IPv6Address(there), "udp", None, None)
    (first,) = lab.explain(*asked)
    with lab.tap("gate") as tap:
        assert not lab.asks("web1", there)
        assert not [each for each in tap.packets() if each.destination == there]
    (after,) = lab.explain(*asked)
    assert "gate does not forward" in after.hop.refusal.reason
    assert after.refused > first.refused == 0
