"""Several frontends and rules on one load balancer (row 8)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from documents import APP_FRONTEND, application, hub_spoke, machine, rule
from facts import fact

from testbed.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab

_SECOND = "10.20.2.5"
_APP1 = "10.20.1.4"


def _port_rule(name: str, protocol: str, port: int, backend_port: int = 0, **more: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "pool": "apps",
        "protocol": protocol,
        "frontend_port": port,
        "backend_port": backend_port or port,
    }
    return rule(name, **keys | more)


def _floating() -> dict[str, Any]:
    """Two frontends with a floating HA Ports rule each, for one pool; TCP port 443 of the first has a rule and pool."""
    document = application(1, floating=True)
    balancer = document["load_balancers"][0]
    balancer["frontend_ip_configurations"].append(
        {"name": "fe2", "subnet": "net/lb", "private_ip_address": _SECOND},
    )
    balancer["backend_address_pools"].append({"name": "special"})
    balancer["load_balancing_rules"] += [
        rule("ha2", "fe2", "apps", enable_floating_ip=True),
        _port_rule("https", "Tcp", 443, pool="special", enable_floating_ip=True),
        _port_rule("dns", "Udp", 53, enable_floating_ip=True),
    ]
    document["machines"] += [machine("special", "net/app", "10.20.1.9", backend_address_pools=["ilb/special"])]
    for each in document["machines"]:
        if each["runtime"].get("program"):
            each["runtime"] = {**each["runtime"], "loopback_addresses": [APP_FRONTEND, _SECOND]}
    return document


@pytest.fixture(scope="module")
def floating(labs: Callable[..., Lab]) -> Lab:
    return labs(_floating())


@pytest.fixture(scope="module")
def ports(labs: Callable[..., Lab]) -> Lab:
    """Rules for single ports only; two of them cross over."""
    rules = [
        _port_rule("web", "Tcp", 80, 8080),
        _port_rule("back", "Tcp", 8080, 80),
        _port_rule("dns", "Udp", 53, 5353),
        _port_rule("same", "Udp", 7000),
    ]
    return labs(application(1, rules=rules))


def _got(lab: Lab, member: str, protocol: socket.SocketKind, address: str, port: int) -> tuple[str, int] | None:
    """Ask once; the destination that the member got, if it did and its answer came back."""
    with lab.tap(member) as tap:
        if protocol == socket.SOCK_DGRAM:
            with lab.open("client", protocol) as asker:
                answered = lab.answered(asker, address, port)
                own = asker.getsockname()[1]
        else:
            with lab.open("client", protocol) as connection:
                own, answered = 0, True
                connection.settimeout(lab.timing.silence)
                try:
                    connection.connect((address, port))
                except TimeoutError:
                    answered = False
                own = connection.getsockname()[1]
                assert not answered or lab.echoes(connection)
        got = {(each.destination, each.destination_port) for each in tap.packets() if each.source_port == own}
    assert len(got) <= 1
    assert answered == bool(got)
    return got.pop() if got else None


_TCP, _UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@fact(row=8)
def test_each_frontend_has_its_own_floating_rule(floating: Lab) -> None:
    """One load balancer may have several frontends with one floating HA Ports rule each, for the same pool.

    Source: azure.md §1, "High availability ports overview"
    """
    for address in (APP_FRONTEND, _SECOND):
        for kind in (_TCP, _UDP):
            assert _got(floating, "app1", kind, address, 8000) == (address, 8000)


@fact(row=8)
def test_the_rule_for_a_port_comes_before_ha_ports(floating: Lab) -> None:
    """A rule for one port beside an HA Ports rule on a frontend takes that port, and that protocol, from it.

    Source: azure.md §1, "High availability ports overview"
    Note: Allowed where both have floating IP. That the more specific rule wins is an inference.
    """
    assert _got(floating, "special", _TCP, APP_FRONTEND, 443) == (APP_FRONTEND, 443)
    assert _got(floating, "app1", _UDP, APP_FRONTEND, 443) == (APP_FRONTEND, 443)
    assert _got(floating, "app1", _TCP, _SECOND, 443) == (_SECOND, 443)
    assert _got(floating, "app1", _UDP, APP_FRONTEND, 53) == (APP_FRONTEND, 53)


@fact(row=8)
def test_a_tcp_rule_does_not_carry_udp(ports: Lab) -> None:
    """A rule on TCP does not carry UDP, nor other ports: what no rule covers gets no answer at all.

    Source: azure.md §1, "Azure Load Balancer components"
    """
    assert _got(ports, "app1", _UDP, APP_FRONTEND, 80) is None
    assert _got(ports, "app1", _TCP, APP_FRONTEND, 53) is None
    assert _got(ports, "app1", _TCP, APP_FRONTEND, 81) is None


@fact(row=8)
def test_a_rule_translates_the_port(ports: Lab) -> None:
    """A rule without floating IP leads its frontend port to its backend port; the client sees the frontend's.

    Source: azure.md §4, "Multiple frontends for Azure Load Balancer"
    """
    assert _got(ports, "app1", _TCP, APP_FRONTEND, 80) == (_APP1, 8080)
    assert _got(ports, "app1", _TCP, APP_FRONTEND, 8080) == (_APP1, 80)
    assert _got(ports, "app1", _UDP, APP_FRONTEND, 53) == (_APP1, 5353)
    assert _got(ports, "app1", _UDP, APP_FRONTEND, 7000) == (_APP1, 7000)
    # And what does not come through the frontend is left alone.
    assert _got(ports, "app1", _TCP, _APP1, 8080) == (_APP1, 8080)
    assert _got(ports, "app1", _UDP, _APP1, 5353) == (_APP1, 5353)


@fact(row=8)
def test_a_rule_for_a_port_in_transit(own_lab: Callable[..., Lab]) -> None:
    """A route to a frontend that has rules for single ports only carries these ports.

    Source: azure.md §5, "Virtual network traffic routing"
    Note: No document says what Azure does; the lab matches protocol and destination port, and drops the rest;
        also the answers, where a route leads them to the frontend as well.
    """
    document = hub_spoke(1, protocol="Udp", frontend_port=7000, backend_port=7000)
    lab = own_lab(document)
    with lab.tap("nva1") as tap, lab.open("web1", _UDP) as asker:
        own = asker.getsockname()[1]
        for port in (7001, 7000):
            asker.sendto(b"ask", ("10.2.0.4", port))
            own = asker.getsockname()[1]
        lab.wait("the appliance got it", lambda: tap.members_of("10.1.0.4", own))
        assert {each.destination_port for each in tap.packets() if each.source_port == own} == {7000}


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (
            [_port_rule("a", "Tcp", 80, 8080), _port_rule("b", "Tcp", 81, 8080)],
            "RulesUseSameBackendPortProtocolAndPool",
        ),
        ([_port_rule("a", "Tcp", 80), _port_rule("b", "Tcp", 80, 81)], "already has the rule"),
        ([rule("ha", pool="apps"), _port_rule("b", "Tcp", 80)], "not both have floating IP"),
        ([rule("ha", pool="apps"), rule("b", pool="apps")], "RulesUseSameBackendPortProtocolAndPool"),
        ([_port_rule("a", "Tcp", 80, 81, enable_floating_ip=True)], "with floating IP the port is kept"),
    ],
)
@fact(row=8, balancer=False)
def test_rules_that_cannot_stand_together(labs: Callable[..., Lab], rules: list[dict[str, Any]], words: str) -> None:
    """Rules must lead to different backend ports of a pool; HA Ports stands beside others with floating IP only.

    Source: azure.md §8, "Common deployment errors"
    """
    with pytest.raises(DocumentError, match=words):
        labs().up(application(1, rules=rules))
