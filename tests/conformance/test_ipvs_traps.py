"""What goes wrong when IPVS is put beside connection tracking, one test per trap. Only with ``--balancer ipvs``.

None of it is Azure's; ``docs/balancers.md`` tells the traps and what the rules do about them.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, closing
from functools import partial
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from documents import FIREWALL, FRONTEND, hub_spoke, machine, rule, user_route

from testbed.kernel import conntrack, ipvs, namespaces, nft
from testbed.topology.model import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab, Packet

pytestmark = pytest.mark.ipvs

WEB1, WEB2 = "10.1.0.4", "10.2.0.4"
NVAS = ("nva1", "nva2")


def document(scheduler: str = "rr") -> dict[str, Any]:
    """Round robin by default: it ignores the flow, so symmetry does not come from a hash."""
    return hub_spoke() | {"scheduler": scheduler}


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(document())


def carriers(packets: list[Packet], address: str, port: int) -> list[set[str]]:
    """Members that a flow's packets came to, from its opener and back to it."""
    end = (address, port)
    there = {each.machine for each in packets if not each.sent and (each.source, each.source_port) == end}
    back = {each.machine for each in packets if not each.sent and (each.destination, each.destination_port) == end}
    return [there, back]


def connections(lab: Lab) -> list[str]:
    """Protocols of all that IPVS remembers."""
    with namespaces.entered(lab.plan.fabric):
        return [line.split()[0] for line in Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines()[1:]]


def services(lab: Lab) -> tuple[ipvs.Service, ...]:
    with namespaces.entered(lab.plan.fabric), closing(ipvs.Ipvs()) as door:
        return door.services()


def weights(lab: Lab) -> list[list[int]]:
    """Per service, the weights of its destinations, sorted."""
    with namespaces.entered(lab.plan.fabric), closing(ipvs.Ipvs()) as door:
        return [sorted(door.weights(each.mark).values()) for each in door.services()]


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return int(~(total + (total >> 16)) & 0xFFFF)


def ip_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 7, 0, 64, protocol, 0)
    return head[:10] + struct.pack("!H", checksum(head + addresses)) + addresses


def frag_needed(lab: Lab, machine: str, destination: str, cited: bytes) -> None:
    """An ICMP error of a machine: what it was sent is too large for a way behind it."""
    icmp = struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + cited
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    with namespaces.entered(lab.plan.machine(machine).namespace):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with raw:
        raw.sendto(icmp, (destination, 0))


def errors(packets: list[Packet], machine: str) -> list[Packet]:
    return [each for each in packets if each.protocol == 1 and not each.sent and each.machine == machine]


@pytest.fixture
def deaf_web2(lab: Lab) -> Iterator[None]:
    """The machine web2 sends nothing by UDP."""
    table = "table ip deaf {\n chain out {\n  type filter hook output priority raw\n  meta l4proto udp drop\n }\n}\n"
    namespace = lab.plan.machine("web2").namespace
    with namespaces.entered(namespace):
        nft.run(table)
    yield
    with namespaces.entered(namespace):
        nft.run("delete table ip deaf")


@pytest.mark.parametrize("scheduler", [each.value for each in Scheduler])
def test_whatever_the_scheduler_both_directions_cross_one_member(lab: Lab, scheduler: str) -> None:
    """The member is conntrack's to remember: flows opened from either side are symmetric with each scheduler."""
    lab.up(document(scheduler))
    seen: set[str] = set()
    with lab.tap(*NVAS) as tap, ExitStack() as stack:
        flows = []
        for opener, address, target in (("web1", WEB1, WEB2), ("web2", WEB2, WEB1)):
            for _ in range(4):
                connection = stack.enter_context(lab.tcp(opener, target))
                assert lab.echoes(connection, seconds=lab.timing.patience)
                asker = stack.enter_context(lab.open(opener, socket.SOCK_DGRAM))
                assert lab.answered(asker, target)
                flows += [(address, each.getsockname()[1]) for each in (connection, asker)]
        packets = tap.packets()
        for flow in flows:
            there, back = carriers(packets, *flow)
            assert len(there) == 1
            assert there == back
            seen |= there
    expected = {"nva1"} if scheduler == "fo" else set(NVAS)
    assert seen == expected or scheduler in ("mh", "sh")  # a hash may choose so
    lab.up(document())


def test_an_icmp_error_about_an_answer_arrives_once(lab: Lab) -> None:
    """IPVS meets a client's error about an answer again on its way out of the appliance: no loop, no black hole."""
    with lab.tap(*NVAS, "web2") as tap, lab.tcp("web1", WEB2) as connection:
        port = connection.getsockname()[1]
        assert lab.echoes(connection, seconds=lab.timing.patience)
        assert "TCP" in connections(lab)
        answer = next(each for each in tap.packets() if each.machine == "web2" and each.sent and each.protocol == 6)
        assert answer.destination_port == port
        frag_needed(lab, "web1", WEB2, answer.raw[:28])
        lab.wait("the error is at web2", lambda: errors(tap.packets(), "web2"))
        assert lab.echoes(connection, seconds=lab.timing.patience)
        (member,) = tap.members_of(WEB1, port) - {"web2"}
        assert [len(errors(tap.packets(), each)) for each in (member, "web2")] == [1, 1]


def test_an_icmp_error_about_a_question_arrives_once(lab: Lab) -> None:
    """The same from the server's side."""
    with lab.tap(*NVAS, "web1") as tap, lab.tcp("web1", WEB2) as connection:
        port = connection.getsockname()[1]
        assert lab.echoes(connection, seconds=lab.timing.patience)
        question = next(each for each in tap.packets() if each.machine == "web1" and each.sent and each.protocol == 6)
        frag_needed(lab, "web2", WEB1, question.raw[:28])
        lab.wait("the error is at web1", lambda: errors(tap.packets(), "web1"))
        (member,) = tap.members_of(WEB1, port) - {"web1"}
        assert [len(errors(tap.packets(), each)) for each in (member, "web1")] == [1, 1]


def test_what_ipvs_forgets_conntrack_keeps(lab: Lab) -> None:
    """An expiring entry of IPVS takes a conntrack entry with it that looks like it: none does, and flows stay."""
    with lab.tap(*NVAS) as tap, lab.tcp("web1", WEB2) as connection:
        port = connection.getsockname()[1]
        assert lab.echoes(connection, seconds=lab.timing.patience)
        before = tap.members_of(WEB1, port)
        assert "TCP" in connections(lab)
        with namespaces.entered(lab.plan.fabric), closing(ipvs.Ipvs()) as door:
            door.converge([], {})  # entries whose destination goes expire at once
        lab.wait("IPVS has forgotten", lambda: connections(lab), lambda known: "TCP" not in known)
        assert lab.echoes(connection, seconds=lab.timing.patience)
        assert tap.members_of(WEB1, port) == before
    assert len(lab.up(lab.document).changes) > 0
    assert [len(each.destinations) for each in services(lab)] == [2, 2]


def test_a_flow_of_one_direction_stays(lab: Lab, deaf_web2: None) -> None:
    """Datagrams that nobody answers (syslog) do not change their member, whatever IPVS's timers do."""
    del deaf_web2
    with lab.tap(*NVAS) as tap, lab.open("web1", socket.SOCK_DGRAM) as sender:
        sender.connect((WEB2, 514))
        port = sender.getsockname()[1]

        def arrived() -> int:
            return len([each for each in tap.packets() if each.source_port == port and not each.sent])

        for number in range(12):
            sender.send(b"log")
            lab.wait("the datagram is at a member", arrived, partial(eq, number + 1))
        assert len(tap.members_of(WEB1, port)) == 1


def test_datagrams_leave_nothing_in_ipvs(lab: Lab) -> None:
    """UDP services choose for one packet (``-o``): nothing is remembered that a later packet could meet."""
    for _ in range(4):
        assert lab.asks("web1", WEB2)
    assert "UDP" not in connections(lab)
    assert [bool(each.flags & ipvs.ONE_PACKET) for each in services(lab)] == [False, True]


def test_equal_ports_opened_from_the_other_side(lab: Lab) -> None:
    """UDP from port 500 to 500, and, when conntrack has forgotten it, the other way round: not taken for an answer."""
    assert lab.asks("web1", WEB2, 500, source_port=500)
    for place in (lab.plan.fabric, *(lab.plan.machine(each).namespace for each in (*NVAS, "web1", "web2"))):
        with namespaces.entered(place):
            conntrack.flush()
    assert lab.asks("web2", WEB1, 500, source_port=500)


def test_client_port_20(lab: Lab) -> None:
    """IPVS takes nothing from port 20, it holds it for FTP data: nftables picks, and only members that are up."""
    with lab.tap(*NVAS) as tap:
        with lab.tcp("web1", WEB2, source_port=20) as connection:
            assert lab.echoes(connection, seconds=lab.timing.patience)
        assert lab.asks("web1", WEB2, source_port=20)
        for kind in (6, 17):
            packets = [each for each in tap.packets() if each.protocol == kind]
            there, back = carriers(packets, WEB1, 20)
            assert len(there) == 1
            assert there == back


def test_ping_is_not_asked_of_ipvs(lab: Lab) -> None:
    """An echo request with IPVS's mark would end in the fabric: nftables picks for all that is not TCP or UDP."""
    with lab.tap(*NVAS) as tap:
        lab.run("web1", "ping", "-c", "1", "-W", str(lab.timing.patience), WEB2)
        members = {each.machine for each in tap.packets() if each.protocol == 1}
        assert len(members) == 1


def test_a_half_open_connection_moves(lab: Lab) -> None:
    """A SYN that a dead member got is tried again at another one, and IPVS drops none because it knew the flow."""
    lab.up(document("fo"))
    with lab.tap(*NVAS, "web1") as tap:
        lab.fault("nva1", "freeze")
        try:
            with lab.tcp("web1", WEB2) as connection:
                port = connection.getsockname()[1]
                assert lab.echoes(connection, seconds=lab.timing.patience)
            syns = [each for each in tap.packets() if each.source_port == port and each.flags & 0x12 == 0x02]
            sent = [each for each in syns if each.sent and each.machine == "web1"]
            at = [each.machine for each in syns if not each.sent]
            assert at == sorted(at)
            assert set(at) == set(NVAS)
            assert len(at) == len(sent)
            assert weights(lab) == [[0, 1], [0, 1]]
        finally:
            lab.recover("nva1")
    lab.wait_member("nva1", healthy=True)
    assert weights(lab) == [[1, 2], [1, 2]]
    lab.up(document())


def test_nobody_refuses_for_ipvs(lab: Lab) -> None:
    """What IPVS has nobody for ends silently: no reset and no ICMP error come from the fabric itself."""
    with namespaces.entered(lab.plan.fabric), closing(ipvs.Ipvs()) as door:
        door.converge([], {})
    try:
        with lab.tap("web1") as tap:
            assert not lab.connects("web1", WEB2)
            assert not lab.asks("web1", WEB2)
            assert [each for each in tap.packets() if not each.sent] == []
        with namespaces.entered(lab.plan.fabric):
            (guard,) = [line for line in nft.run("list chain ip testbed guard").splitlines() if "counter" in line]
        assert "packets 0 " not in guard
    finally:
        lab.up(lab.document)
    assert lab.connects("web1", WEB2)


def test_flows_live_through_a_change_of_the_balancer(lab: Lab) -> None:
    """Both backends read the same conntrack marks, so ``up --balancer`` changes them under established flows."""
    with lab.tap(*NVAS) as tap, ExitStack() as stack:
        opened = [stack.enter_context(lab.tcp("web1", WEB2)) for _ in range(4)]
        ports = [each.getsockname()[1] for each in opened]
        assert all(lab.echoes(each, seconds=lab.timing.patience) for each in opened)
        before = [tap.members_of(WEB1, port) for port in ports]
        try:
            for balancer in ("nftables", "ipvs"):
                lab.balancer = balancer
                lab.document["balancer"] = balancer
                lab.up(lab.document)
                assert lab.plan.balancer == balancer
                assert bool(services(lab)) is (balancer == "ipvs")
                assert all(lab.echoes(each, seconds=lab.timing.patience) for each in opened)
                assert lab.connects("web1", WEB2)
        finally:
            lab.balancer = "ipvs"
        assert [tap.members_of(WEB1, port) for port in ports] == before
    lab.up(document())


def test_a_first_packet_to_the_frontend_is_rewritten(lab: Lab) -> None:
    """Without floating IP the destination becomes the member's, also of the packet that IPVS has sent out again."""
    with lab.tap(*NVAS) as tap:
        for number in range(4):
            assert lab.connects("web1", FRONTEND, 8080, source_port=30_000 + number)
            (first, *_) = [each for each in tap.packets() if each.source_port == 30_000 + number and not each.sent]
            assert first.destination == {"nva1": "10.0.1.4", "nva2": "10.0.1.5"}[first.machine]


def test_up_again_changes_nothing(lab: Lab) -> None:
    """What is there is read from IPVS and found to be what is planned."""
    assert lab.up(document()).changes == ()


def two_frontends() -> dict[str, Any]:
    """What web1 and web2 say to each other goes through a member of each of two pools, one after the other."""
    made = hub_spoke(2)
    hub, _, spoke2 = made["virtual_networks"]
    hub["subnets"][0]["route_table"] = "from-first"
    hub["subnets"].append({"name": "second", "address_prefix": "10.0.3.0/24", "route_table": "from-second"})
    spoke2["subnets"][0]["route_table"] = "to-second"
    made["route_tables"] += [
        {"name": "from-first", "routes": [user_route("on", "10.2.0.0/16", "10.0.2.5")]},
        {"name": "from-second", "routes": [user_route("on", "10.1.0.0/16", FRONTEND)]},
        {"name": "to-second", "routes": [user_route("default", "0.0.0.0/0", "10.0.2.5")]},
    ]
    (balancer,) = made["load_balancers"]
    balancer["frontend_ip_configurations"].append(
        {"name": "second", "subnet": "hub/lb", "private_ip_address": "10.0.2.5"}
    )
    balancer["backend_address_pools"].append({"name": "second"})
    balancer["load_balancing_rules"].append(rule("second", "second", "second"))
    joined = {"enable_ip_forwarding": True, "backend_address_pools": ["ilb/second"]}
    made["machines"] += [
        machine(f"nva{3 + each}", "hub/second", f"10.0.3.{4 + each}", FIREWALL, **joined) for each in (0, 1)
    ]
    return made | {"scheduler": "rr"}


def test_the_same_flow_at_two_frontends(own_lab: Callable[..., Lab]) -> None:
    """The second rule does not find what IPVS remembers of the first: else the flow would go round in a loop."""
    lab = own_lab(two_frontends())
    names = ("nva1", "nva2", "nva3", "nva4")
    with lab.tap(*names) as tap:
        for number in range(6):
            opener, target = (("web1", WEB2), ("web2", WEB1))[number % 2]
            address = WEB1 if opener == "web1" else WEB2
            with lab.tcp(opener, target) as connection:
                assert lab.echoes(connection, seconds=lab.timing.patience)
                there, back = carriers(tap.packets(), address, connection.getsockname()[1])
                assert there == back
                assert len(there & {"nva1", "nva2"}) == len(there & {"nva3", "nva4"}) == 1
