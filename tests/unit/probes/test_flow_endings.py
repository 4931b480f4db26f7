"""Which ends a flow has, and whom a reset goes to."""

from __future__ import annotations

from dataclasses import replace

from testbed.kernel.conntrack import Entry, TcpState
from testbed.plan.model import Cable, Member, Rule
from testbed.probes.flows import ending

MEMBER = Member(1, "nva1", "eth0", "", "10.0.1.4", "nva1-eth0", forwards=True)
RULE = Rule(
    id=1,
    load_balancer="lb",
    frontend="fe",
    name="ha",
    frontend_address="10.0.2.4",
    virtual_network="hub",
    backend_address_pool="lb/nvas",
    enable_floating_ip=False,
    idle_timeout_in_minutes=4,
    buckets=4096,
    members=(MEMBER,),
    probe=None,
    reaches=("hub", "spoke"),
)


def _cable(address: str, network: str = "spoke") -> Cable:
    return Cable(network, address, f"link-{network}-{address}", "00:0d:3a:00:00:01", "12:34:56:78:9a:bc")


CLIENT, SERVER, NVA = _cable("10.1.0.4"), _cable("10.1.0.9"), _cable("10.0.1.4", "hub")
FOREIGN = _cable("10.1.0.4", "elsewhere")
CABLES = (FOREIGN, CLIENT, SERVER, NVA)


def _flow(destination: str) -> Entry:
    return Entry(6, "10.1.0.4", destination, 40000, 80, 1, 1, TcpState.ESTABLISHED)


def test_a_flow_to_the_frontend() -> None:
    """The member sees the flow at its own address, and is asked and reset itself; the client sees the frontend."""
    made = ending(RULE, MEMBER, _flow("10.0.2.4"), CABLES)
    assert (made.client.own, made.client.peer) == (("10.1.0.4", 40000), ("10.0.2.4", 80))
    assert (made.backend.own, made.backend.peer) == (("10.0.1.4", 80), ("10.1.0.4", 40000))
    assert (made.client.asked, made.client.reset) == (CLIENT, CLIENT)
    assert (made.backend.asked, made.backend.reset) == (NVA, NVA)


def test_a_flow_to_the_frontend_with_floating_ip() -> None:
    """The member owns the frontend's address."""
    made = ending(replace(RULE, enable_floating_ip=True), MEMBER, _flow("10.0.2.4"), CABLES)
    assert made.backend.own == ("10.0.2.4", 80)


def test_a_flow_whose_port_is_rewritten() -> None:
    """The member sees the backend port, the client the frontend's."""
    rule = replace(RULE, protocol="Tcp", frontend_port=80, backend_port=8080)
    made = ending(rule, MEMBER, _flow("10.0.2.4"), CABLES)
    assert made.backend.own == ("10.0.1.4", 8080)
    assert made.client.peer == ("10.0.2.4", 80)


def test_a_flow_through_an_appliance() -> None:
    """The server is asked where it is; its reset takes the way of the flow, through the appliance."""
    made = ending(RULE, MEMBER, _flow("10.1.0.9"), CABLES)
    assert made.backend.own == ("10.1.0.9", 80)
    assert (made.backend.asked, made.backend.reset) == (SERVER, NVA)


def test_a_server_outside_the_lab() -> None:
    """It cannot be asked; its reset still goes to the appliance."""
    made = ending(RULE, MEMBER, _flow("203.0.113.9"), CABLES)
    assert (made.backend.asked, made.backend.reset) == (None, NVA)
