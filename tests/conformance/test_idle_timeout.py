"""The idle timeout of TCP flows, and what both ends hear of it (row 6)."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from documents import IDLE, hub_spoke, machine, rule
from facts import fact

from testbed.kernel import conntrack, namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab, Packet, Tap

QUIET, RESETTING, SINGLE = "10.0.2.10", "10.0.2.11", "10.0.2.12"
PORT, BACKEND_PORT = 5000, 6000
RST = 0x04


def document(**switches: bool) -> dict[str, Any]:
    """An NVA between web1 and ``server``, and three frontends with an application each; one sends no resets."""
    made = hub_spoke(1, enable_tcp_reset=True)
    made["switches"] = switches
    made["load_balancers"].append(
        {
            "name": "applb",
            "frontend_ip_configurations": [
                {"name": "quiet", "subnet": "hub/lb", "private_ip_address": QUIET},
                {"name": "resetting", "subnet": "hub/lb", "private_ip_address": RESETTING},
                {"name": "single", "subnet": "hub/lb", "private_ip_address": SINGLE},
            ],
            "backend_address_pools": [{"name": "quiet"}, {"name": "resetting"}, {"name": "single"}],
            "load_balancing_rules": [
                rule("quiet", "quiet", "quiet", probe=None),
                rule("resetting", "resetting", "resetting", probe=None, enable_tcp_reset=True),
                rule("single", "single", "single", probe=None, enable_tcp_reset=True)
                | {"protocol": "Tcp", "frontend_port": PORT, "backend_port": BACKEND_PORT},
            ],
        }
    )
    made["machines"] += [
        machine("app1", "hub/nva", "10.0.1.11", IDLE, backend_address_pools=["applb/quiet"]),
        machine("app2", "hub/nva", "10.0.1.12", IDLE, backend_address_pools=["applb/resetting"]),
        machine("app3", "hub/nva", "10.0.1.13", IDLE, backend_address_pools=["applb/single"]),
        machine("server", "spoke2/workload", "10.2.0.9", IDLE),
        machine("client", "hub/nva", "10.0.1.100", IDLE),
    ]
    return made


@dataclass
class Flow:
    """A TCP connection, both of its ends in the test's hands."""

    client: socket.socket
    server: socket.socket

    @property
    def port(self) -> int:
        """The client's."""
        return int(self.client.getsockname()[1])

    def works(self) -> bool:
        """Whether a byte crosses it, there and back."""
        try:
            self.client.sendall(b"x")
            if self.server.recv(1) != b"x":
                return False
            self.server.sendall(b"y")
            return self.client.recv(1) == b"y"
        except TimeoutError:
            return False


def flow(lab: Lab, stack: ExitStack, client: str, address: str, server: str, server_port: int = PORT) -> Flow:
    """Open one; it works, once."""
    listener = stack.enter_context(lab.open(server, socket.SOCK_STREAM, server_port))
    listener.listen()
    opened = stack.enter_context(lab.tcp(client, address, PORT))
    made = Flow(opened, stack.enter_context(listener.accept()[0]))
    listener.close()
    for each in (made.client, made.server):
        each.settimeout(lab.timing.patience)
    assert made.works()
    return made


def remembered(lab: Lab) -> set[int]:
    """Client ports of the TCP flows that the balancer knows."""
    with namespaces.entered(lab.plan.fabric):
        return {each.source_port for each in conntrack.entries() if each.state}


def ended(end: socket.socket, seconds: float) -> str:
    """What an end of a connection hears of its end in the next seconds."""
    end.settimeout(seconds)
    try:
        return "closed" if not end.recv(1) else "data"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "nothing"


def resets(packets: list[Packet], port: int) -> set[str]:
    """The machines that got a reset of the flow with this client port."""
    return {each.machine for each in packets if each.flags & RST and not each.sent and port in _ports(each)}


def _ports(packet: Packet) -> tuple[int, int]:
    return packet.source_port, packet.destination_port


@dataclass
class Silence:
    """A lab in which some flows were silent for longer than the idle timeout, and others not."""

    lab: Lab
    tap: Tap
    transit: Flow
    used: Flow
    quiet: Flow
    resetting: Flow
    datagrams: socket.socket
    ends: tuple[str, str]
    """What the ends of ``resetting`` heard."""
    single_ends: tuple[str, str]


@pytest.fixture(scope="module")
def after(labs: Callable[..., Lab]) -> Iterator[Silence]:
    """All flows share one long silence, so that the suite waits for it once."""
    lab = labs(document())
    with ExitStack() as stack:
        tap = stack.enter_context(lab.tap("web1", "server", "client", "app1", "app2", "nva1"))
        datagrams = stack.enter_context(lab.open("web1", socket.SOCK_DGRAM))
        assert lab.answered(datagrams, "10.2.0.4")
        transit = flow(lab, stack, "web1", "10.2.0.9", "server")
        used = flow(lab, stack, "web1", "10.2.0.9", "server")
        quiet = flow(lab, stack, "client", QUIET, "app1")
        resetting = flow(lab, stack, "client", RESETTING, "app2")
        single = flow(lab, stack, "client", SINGLE, "app3", BACKEND_PORT)
        silent = {each.port for each in (transit, quiet, resetting, single)}

        def look() -> set[int]:
            assert used.works()
            return silent & remembered(lab)

        lab.wait("the silent flows are forgotten", look, lambda left: not left)
        ends, single_ends = (
            (ended(each.client, lab.timing.patience), ended(each.server, lab.timing.patience))
            for each in (resetting, single)
        )
        yield Silence(lab, tap, transit, used, quiet, resetting, datagrams, ends, single_ends)


@fact(row=6)
def test_a_silent_flow_is_forgotten_and_dropped_silently(after: Silence) -> None:
    """After the idle timeout (4 minutes unless the rule says otherwise) a TCP flow is dropped, and nobody is told.

    Source: azure.md §6, "Load Balancer TCP reset and idle timeout"
    Note: What its ends send later is dropped too, in both directions; it is not balanced anew.
    """
    lab, quiet = after.lab, after.quiet
    before = len(after.tap.packets())
    quiet.client.sendall(b"late")
    assert ended(quiet.server, lab.timing.silence) == "nothing"
    quiet.server.sendall(b"late")
    assert ended(quiet.client, lab.timing.silence) == "nothing"
    late = [each for each in after.tap.packets()[before:] if quiet.port in _ports(each)]
    assert any(each.sent for each in late)
    assert not [each for each in late if not each.sent]
    assert resets(after.tap.packets(), quiet.port) == set()


@fact(row=6)
def test_a_flow_that_is_used_is_not_forgotten(after: Silence) -> None:
    """Every packet of a flow begins its idle timeout anew.

    Source: azure.md §6, "Load Balancer TCP reset and idle timeout"
    """
    assert after.used.works()


@fact(row=6)
def test_tcp_reset_tells_both_ends(after: Silence) -> None:
    """With `enable_tcp_reset`, both ends of an established flow get a reset at the idle timeout, and believe it.

    Source: azure.md §6, "Load Balancer TCP reset and idle timeout"
    Note: The edition of 2020 says that internal HA Ports rules send none, that of 2022 only with an appliance in the
    path; the lab follows the later one.
    """
    assert after.ends == ("reset", "reset")
    assert resets(after.tap.packets(), after.resetting.port) == {"client", "app2"}


@fact(row=6)
def test_tcp_reset_of_a_rule_for_a_single_port(after: Silence) -> None:
    """Rules for single ports send resets too; each end gets one at the addresses and ports that it knows.

    Source: azure.md §6, "Load Balancer TCP reset and idle timeout"
    """
    assert after.single_ends == ("reset", "reset")


@fact(row=6)
def test_no_reset_with_an_appliance_in_the_path(after: Silence) -> None:
    """An internal HA Ports rule with a network virtual appliance in the path sends no resets, though it may be told to.

    Source: azure.md §6, "Load Balancer TCP reset and idle timeout"
    """
    lab, transit = after.lab, after.transit
    transit.client.sendall(b"late")
    assert ended(transit.server, lab.timing.silence) == "nothing"
    assert ended(transit.client, lab.timing.silence) == "nothing"
    packets = [each for each in after.tap.packets() if transit.port in _ports(each)]
    assert resets(packets, transit.port) == set()
    assert not [each for each in packets if each.machine == "nva1" and each.raw.endswith(b"late")]


@fact(row=6)
def test_udp_has_no_idle_timeout(after: Silence) -> None:
    """The idle timeout is TCP's: after the same silence UDP goes on.

    Source: azure.md §6, "Load Balancer TCP reset and idle timeout"
    """
    assert after.lab.answered(after.datagrams, "10.2.0.4")


@fact(row=6, state="switchable")
def test_resets_through_an_appliance_where_the_switch_says_so(after: Silence) -> None:
    """Whether an HA Ports rule sends resets: no (2020); not with an appliance in the path (2022); the API accepts it.

    Source: azure.md §6, "Load Balancer TCP reset and idle timeout"
    Note: None with an appliance in the path; with `switches: {tcp_reset_on_ha_ports: true}` both ends get one, the
    server by way of the appliance.
    """
    lab = after.lab
    lab.up(document(tcp_reset_on_ha_ports=True))
    with ExitStack() as stack:
        tap = stack.enter_context(lab.tap("web1", "server", "nva1"))
        made = flow(lab, stack, "web1", "10.2.0.9", "server")
        assert ended(made.client, lab.timing.patience) == "reset"
        assert ended(made.server, lab.timing.patience) == "reset"
        assert resets(tap.packets(), made.port) == {"web1", "server", "nva1"}
