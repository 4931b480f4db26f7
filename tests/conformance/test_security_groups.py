"""Network security groups: what they let pass, whose rule decides, and what they remember (row 19)."""

from __future__ import annotations

import os
import random
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
from documents import ECHO, FRONTEND, IDLE, hub_spoke, machine, network, rule, user_route
from facts import fact

from testbed.access.reach import Reach, connect
from testbed.kernel import namespaces
from testbed.lab.security import security_rules
from testbed.lab.state import State
from testbed.lab.up import load_plan_and_topology
from testbed.plan.security import INBOUND, Packet, Securities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

Document = dict[str, Any]

CLIENT, SERVER, SILENT, OUTSIDE = "10.0.1.4", "10.0.2.4", "10.0.1.5", "203.0.113.4"
INTERNET = {"address_prefix": "203.0.113.0/24"}


def allow(priority: int, direction: str = "Inbound", protocol: str = "*", **more: Any) -> Document:
    access = more.pop("access", "Allow")
    base = {"name": f"r{priority}-{direction.lower()}", "priority": priority, "direction": direction}
    return base | {"access": access, "protocol": protocol, **more}


def deny(priority: int, direction: str = "Inbound", protocol: str = "*", **more: Any) -> Document:
    return allow(priority, direction, protocol, access="Deny", **more)


def guarded(document: Document, *, subnet: str = "", nic: str = "", group: str = "guard") -> Document:
    """The document with a group on a subnet (``network/subnet``) or on a machine's first network interface."""
    networks = [
        each
        | {
            "subnets": [
                part | ({"network_security_group": group} if f"{each['name']}/{part['name']}" == subnet else {})
                for part in each["subnets"]
            ]
        }
        for each in document["virtual_networks"]
    ]
    machines = []
    for each in document["machines"]:
        first, *others = each["network_interfaces"]
        own = {"network_security_group": group} if each["name"] == nic else {}
        machines.append(each | {"network_interfaces": [first | own, *others]})
    return document | {"virtual_networks": networks, "machines": machines}


def groups(**rules: list[Document]) -> Document:
    return {"network_security_groups": [{"name": name, "security_rules": each} for name, each in rules.items()]}


def flat() -> Document:
    """A client and a server in two subnets of one virtual network, one more machine, and the internet."""
    return {
        "virtual_networks": [network("net", "10.0.0.0/16", a="10.0.1.0/24", b="10.0.2.0/24")],
        "internet": INTERNET,
        "machines": [
            machine("client", "net/a", CLIENT),
            machine("server", "net/b", SERVER),
            machine("silent", "net/a", SILENT, IDLE),
        ],
    }


@pytest.fixture(scope="module")
def flat_lab(labs: Callable[..., Lab]) -> Lab:
    return labs(flat())


@pytest.fixture
def server_with(flat_lab: Lab) -> Iterator[Callable[..., None]]:
    """Give the server's network interface these rules; none: no group."""

    def change(*rules: Document) -> None:
        document = guarded(flat(), nic="server") | groups(guard=list(rules)) if rules else flat()
        flat_lab.up(document)

    yield change
    flat_lab.up(flat())


@pytest.fixture(scope="module")
def hub(labs: Callable[..., Lab]) -> Lab:
    return labs(hub_spoke() | {"internet": INTERNET})


@pytest.fixture
def hub_with(hub: Lab) -> Iterator[Callable[[Document], None]]:
    """Change the hub and spokes for one test."""

    def change(document: Document) -> None:
        hub.up(document | {"internet": INTERNET}, healthy=False)

    yield change
    hub.up(hub_spoke() | {"internet": INTERNET})


def pings(lab: Lab, machine: str, address: str) -> bool:
    """Whether an echo request is answered."""
    with namespaces.entered(lab.plan.machine(machine).namespace):
        asker = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with asker:
        asker.settimeout(lab.timing.silence)
        asker.connect((address, 0))
        number = os.getpid() & 0x7FFF
        asker.send(struct.pack("!BBHHH", 8, 0, 0xFFFF - (0x0800 + number), number, 0))
        try:
            while True:
                packet = asker.recv(2048)
                if struct.unpack_from("!BxxxH", packet, 20) == (0, number):
                    return True
        except TimeoutError:
            return False


@fact(row=19, balancer=False)
def test_the_first_rule_that_fits_decides(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """Rules are tried by priority, the lowest number first; the first that fits decides, whatever comes later.

    Source: azure.md §5, "Network security groups overview"
    """
    web = {"protocol": "Tcp", "destination_port_range": "80"}
    server_with(allow(100, **web), deny(200, protocol="Tcp"))
    assert flat_lab.connects("client", SERVER, 80)
    assert not flat_lab.connects("client", SERVER, 81)
    assert flat_lab.asks("client", SERVER)
    server_with(allow(300, **web), deny(200, protocol="Tcp"))
    assert not flat_lab.connects("client", SERVER, 80)


@fact(row=19, balancer=False)
def test_default_rules(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """A group without rules allows the virtual network both ways, and the way out to the internet.

    Source: azure.md §5, "Network security groups overview"
    """
    server_with(deny(4096, source_address_prefix="192.0.2.1"))
    assert flat_lab.connects("client", SERVER)
    assert flat_lab.connects("server", CLIENT)
    assert flat_lab.connects("server", OUTSIDE)


@fact(row=19, balancer=False)
def test_subnet_and_network_interface_both_have_to_allow(flat_lab: Lab) -> None:
    """A flow passes when the subnet's group and the network interface's both allow it, in both directions.

    Source: azure.md §5, "Network security groups overview"
    """
    ports = {"protocol": "Tcp", "destination_port_range": "81"}
    both = guarded(guarded(flat(), subnet="net/b", group="subnet"), nic="server", group="nic")
    others = {"protocol": "Tcp", "destination_port_range": "82"}
    try:
        flat_lab.up(
            both
            | groups(
                subnet=[deny(100, **ports), allow(110, **others), deny(100, "Outbound", **ports)],
                nic=[allow(100, **ports), deny(110, **others), deny(110, "Outbound", **others)],
            )
        )
        for here, there in (("client", SERVER), ("server", CLIENT)):
            assert [flat_lab.connects(here, there, port) for port in (80, 81, 82)] == [True, False, False]
    finally:
        flat_lab.up(flat())


@fact(row=19, balancer=False)
def test_answers_come_in_though_inbound_is_denied(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """Stateful: the answers to a flow that may go out come in whatever the inbound rules say. TCP, UDP and ICMP.

    Source: azure.md §5, "Network security groups overview"
    """
    server_with(deny(100))
    with flat_lab.tcp("server", CLIENT) as connection:
        assert flat_lab.echoes(connection)
    assert flat_lab.asks("server", CLIENT)
    assert pings(flat_lab, "server", CLIENT)
    assert not flat_lab.connects("client", SERVER)
    assert not flat_lab.asks("client", SERVER)
    assert not pings(flat_lab, "client", SERVER)


@fact(row=19, balancer=False)
def test_answers_go_out_though_outbound_is_denied(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """Stateful the other way round: answers to what may come in go out whatever the outbound rules say.

    Source: azure.md §5, "Network security groups overview"
    """
    server_with(deny(100, "Outbound"))
    with flat_lab.tcp("client", SERVER) as connection:
        assert flat_lab.echoes(connection)
    assert flat_lab.asks("client", SERVER)
    assert pings(flat_lab, "client", SERVER)
    assert not flat_lab.connects("server", CLIENT)
    assert not flat_lab.asks("server", CLIENT)
    assert not pings(flat_lab, "server", CLIENT)


@fact(row=19, balancer=False)
def test_a_change_of_rules_affects_new_flows_only(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """Flows that are there when a rule denies them go on, TCP and UDP; new ones do not pass.

    Source: azure.md §5, "Network security groups overview"
    """
    server_with(allow(200))
    with flat_lab.tcp("client", SERVER) as kept, flat_lab.open("client", socket.SOCK_DGRAM) as asker:
        assert flat_lab.echoes(kept)
        assert flat_lab.answered(asker, SERVER)
        server_with(deny(100), allow(200))
        assert flat_lab.echoes(kept)
        assert flat_lab.answered(asker, SERVER)
        assert not flat_lab.connects("client", SERVER)
        assert not flat_lab.asks("client", SERVER)
        server_with(allow(200))
        assert flat_lab.connects("client", SERVER)
        assert flat_lab.echoes(kept)


@fact(row=19, balancer=False)
def test_errors_of_known_flows_and_later_fragments_pass(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """What belongs to a flow passes with it: ICMP errors that quote it, and the later fragments of its datagrams.

    Source: azure.md §5, "Network security groups overview"
    Note: Azure's documents say nothing of either; without it no stateful filter works.
    """
    server_with(deny(100))
    with flat_lab.open("server", socket.SOCK_DGRAM) as asker:
        asker.connect((SILENT, 9))
        asker.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            asker.recv(1)
    assert flat_lab.asks("server", CLIENT, text=b"f" * 4000)
    assert not flat_lab.asks("client", SERVER, text=b"f" * 4000)


@fact(row=19, balancer=False)
def test_service_tags(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """`VirtualNetwork` is the virtual network's space, `Internet` what is outside of it.

    Source: azure.md §5, "Virtual network service tags"
    """
    server_with(deny(100, "Outbound", destination_address_prefix="Internet"))
    assert flat_lab.connects("server", CLIENT)
    assert not flat_lab.connects("server", OUTSIDE)
    server_with(deny(100, "Outbound", destination_address_prefix="VirtualNetwork"))
    assert not flat_lab.connects("server", CLIENT)
    assert flat_lab.connects("server", OUTSIDE)


@fact(row=19, balancer=False)
def test_a_default_route_widens_virtual_network_to_everything(flat_lab: Lab) -> None:
    """Prefixes of user-defined routes are part of `VirtualNetwork`: a route for 0.0.0.0/0 makes it everything.

    Source: azure.md §5, "Virtual network service tags"
    """
    document = guarded(flat(), nic="server") | groups(
        guard=[deny(100, "Outbound", destination_address_prefix="VirtualNetwork")]
    )
    routes = [user_route("default", "0.0.0.0/0", kind="Internet")]
    networks = [network("net", "10.0.0.0/16", a="10.0.1.0/24", b=("10.0.2.0/24", "out"))]
    try:
        flat_lab.up(document)
        assert flat_lab.connects("server", OUTSIDE)
        flat_lab.up(document | {"virtual_networks": networks, "route_tables": [{"name": "out", "routes": routes}]})
        assert not flat_lab.connects("server", OUTSIDE)
    finally:
        flat_lab.up(flat())


@fact(row=13, balancer=False)
def test_probes_are_subject_to_security_groups(hub: Lab, hub_with: Callable[[Document], None]) -> None:
    """A probe that a network security group denies fails: `AzureLoadBalancer` is 168.63.129.16, its source.

    Source: azure.md §5, "Network security groups overview"
    """
    blocked = deny(100, source_address_prefix="AzureLoadBalancer")
    hub_with(guarded(hub_spoke(), nic="nva1") | groups(guard=[blocked]))
    hub.wait_member("nva1", healthy=False)
    assert hub.member("nva2").healthy
    with hub.tap("nva1", "nva2") as tap, hub.tcp("web1", "10.2.0.4") as connection:
        assert hub.echoes(connection)
        assert tap.members_of("10.1.0.4", connection.getsockname()[1]) == {"nva2"}
    hub_with(guarded(hub_spoke(), nic="nva1") | groups(guard=[allow(100, source_address_prefix="AzureLoadBalancer")]))
    hub.wait_member("nva1", healthy=True)


@fact(row=19)
def test_transit_carries_the_spokes_addresses(hub: Lab, hub_with: Callable[[Document], None]) -> None:
    """At an appliance, transit packets match rules with the spokes' addresses; those to the internet need a rule.

    Source: azure.md §5, "Network security groups overview"
    """
    document = guarded(hub_spoke(), subnet="hub/nva")
    hub_with(document | groups(guard=[deny(4096, source_address_prefix="192.0.2.1")]))
    assert hub.connects("web1", "10.2.0.4")
    assert not hub.connects("web1", OUTSIDE)
    spokes = ["10.1.0.0/16", "10.2.0.0/16"]
    hub_with(
        document | groups(guard=[allow(100, source_address_prefixes=spokes, destination_address_prefix="Internet")])
    )
    assert hub.connects("web1", OUTSIDE)


@fact(row=19)
def test_a_flow_meets_an_appliance_twice(hub: Lab, hub_with: Callable[[Document], None]) -> None:
    """What an appliance may receive it may not yet send on: in and out are two flows, of the same five-tuple.

    Source: azure.md §5, "Network security groups overview"
    """
    document = guarded(hub_spoke(), subnet="hub/nva")
    hub_with(document | groups(guard=[deny(100, "Outbound", "Tcp", destination_port_range="81")]))
    with hub.tap("nva1", "nva2", "web2") as tap:
        assert not hub.connects("web1", "10.2.0.4", 81, source_port=40_081)
        seen = {(each.machine, each.sent) for each in tap.packets() if each.source_port == 40_081}
        assert {sent for _, sent in seen} == {False, True}
        assert "web2" not in {name for name, _ in seen}
    assert hub.connects("web1", "10.2.0.4", 80)


@fact(row=19)
def test_rules_see_the_members_address_not_the_frontends(own_lab: Callable[..., Lab]) -> None:
    """Behind a balancer that rewrites, inbound rules meet the member's address: the frontend's fits nothing.

    Source: azure.md §5, "Network security groups overview"
    """
    probes = allow(100, source_address_prefix="AzureLoadBalancer")
    app = hub_spoke(0) | {
        "machines": [
            machine("app1", "hub/nva", "10.0.1.4", ECHO, backend_address_pools=["ilb/nvas"]),
            machine("web1", "spoke1/workload", "10.1.0.4"),
        ],
        "virtual_networks": [
            network("hub", "10.0.0.0/16", nva="10.0.1.0/24", lb="10.0.2.0/24"),
            network("spoke1", "10.1.0.0/16", workload="10.1.0.0/24"),
        ],
        "peerings": [{"between": ["hub", "spoke1"]}],
        "route_tables": [],
    }
    app["load_balancers"][0]["load_balancing_rules"] = [rule(enable_floating_ip=False)]
    lab = own_lab()
    for address, passes in ((FRONTEND, False), ("10.0.1.4", True)):
        rules = [probes, allow(110, destination_address_prefix=address), deny(120)]
        lab.up(guarded(app, nic="app1") | groups(guard=rules))
        assert lab.connects("web1", FRONTEND) is passes


@fact(row=19, balancer=False)
def test_hits_are_counted(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """Effective security rules of a network interface: those of its groups and Azure's own, in order of priority.

    Source: azure.md §5, "Network security groups overview"
    Note: The lab also counts what each rule has decided, which Azure's list does not: flows allowed, packets denied.
    """
    server_with(deny(100, protocol="Udp"))
    assert flat_lab.connects("client", SERVER)
    assert not flat_lab.asks("client", SERVER)
    (found,) = security_rules(*load_plan_and_topology(State(flat_lab.name)), "server")
    hits = {(each.rule.direction.value, each.rule.priority): each.hits for each in found.rules}
    assert list(hits) == [("Inbound", 100), *[("Inbound", n) for n in (65000, 65001, 65500)]] + [
        ("Outbound", n) for n in (65000, 65001, 65500)
    ]
    assert hits["Inbound", 100] >= 1
    assert hits["Inbound", 65000] == 1
    assert hits["Outbound", 65000] == 0


@fact(row=19, state="differs", balancer=False)
def test_logins_of_the_lab_are_not_filtered(flat_lab: Lab, server_with: Callable[..., None]) -> None:
    """A group that denies everything locks out whoever logs in over the network.

    Source: azure.md §5, "Network security groups overview"
    Note: What the lab itself does in a machine (SSH, set-up steps, readiness) passes: it stands for the serial console.
    """
    server_with(deny(100), deny(100, "Outbound"))
    assert not flat_lab.connects("client", SERVER)
    with connect(Reach.of(flat_lab.plan, "server"), 80, flat_lab.timing.patience) as connection:
        assert flat_lab.echoes(connection)


@pytest.mark.unbalanced
@pytest.mark.parametrize("seed", range(3))
def test_the_kernel_decides_as_the_effective_rules_say(
    flat_lab: Lab, server_with: Callable[..., None], seed: int
) -> None:
    """Many rules at random: datagrams to a range of ports are answered exactly where no rule is said to deny them."""
    chance = random.Random(seed)  # noqa: S311 - a choice of examples
    ports = range(7000, 7024)
    rules = []
    for priority in chance.sample(range(100, 4096), 14):
        first, last = sorted(chance.choices(ports, k=2))
        keys: Document = {
            "source_address_prefix": chance.choice(["*", "VirtualNetwork", "Internet", "10.0.1.0/24", SILENT]),
            "destination_address_prefix": chance.choice(["*", SERVER, "10.0.0.0/8", "10.0.9.0/24"]),
        }
        if chance.random() < 0.8:
            keys["destination_port_range"] = f"{first}-{last}"
        access, protocol = chance.choice(["Allow", "Deny"]), chance.choice(["Udp", "Udp", "Tcp", "*"])
        rules.append(allow(priority, protocol=protocol, access=access, **keys))
    server_with(*rules)
    plan, topology = load_plan_and_topology(State(flat_lab.name))
    security = Securities(topology, plan).of("server", SERVER)
    assert security is not None
    ends = IPv4Address(CLIENT), IPv4Address(SERVER)
    said = {port for port in ports if not security.verdict(INBOUND, Packet(socket.IPPROTO_UDP, *ends, 40_000, port))}
    answered = set()
    with flat_lab.open("client", socket.SOCK_DGRAM) as asker:
        asker.settimeout(flat_lab.timing.silence)
        for port in ports:
            asker.sendto(b"ask", (SERVER, port))
        with suppress(TimeoutError):
            while True:
                answered.add(asker.recvfrom(2048)[1][1])
    assert answered == said
    assert 0 < len(said) < len(ports)
