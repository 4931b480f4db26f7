"""Flows in the middle of which the balancer comes, or comes again; resets; and the verb that speaks of members."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from conftest import testbed

from testbed.kernel import conntrack, namespaces
from testbed.kernel.segments import ACK, RST, SYN, Segment, SegmentSocket
from testbed.lab import backend
from testbed.lab.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

SERVER = "10.2.0.4"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Two NVAs; spoke2's way back is another frontend, with a pool of its own."""
    from documents import hub_spoke, rule, user_route

    made = hub_spoke()
    balancer = made["load_balancers"][0]
    balancer["frontend_ip_configurations"].append(
        {"name": "back", "subnet": "hub/lb", "private_ip_address": "10.0.2.5"}
    )
    balancer["backend_address_pools"].append({"name": "backs"})
    floating: dict[str, Any] = {"enable_floating_ip": True}
    balancer["load_balancing_rules"] = [rule(**floating), rule("back", "back", "backs", **floating)]
    made["route_tables"].append({"name": "back", "routes": [user_route("default", "0.0.0.0/0", "10.0.2.5")]})
    made["virtual_networks"][2]["subnets"][0]["route_table"] = "back"
    for each in made["machines"][:2]:
        each["network_interfaces"][0]["backend_address_pools"].append("ilb/backs")
    return made


@pytest.fixture
def lab(own_lab: Callable[..., Lab]) -> Lab:
    from documents import hub_spoke

    return own_lab(hub_spoke())


def test_a_flow_that_comes_back_by_another_balancer(own_lab: Callable[..., Lab], document: dict[str, Any]) -> None:
    """The way back begins with a SYN-ACK, and goes on: where both balancers choose the same NVA, the flow works."""
    lab = own_lab(document)
    ports = []
    with lab.tap("nva1", "nva2") as tap:
        for _ in range(16):
            connection = lab.open("web1", socket.SOCK_STREAM)
            connection.settimeout(0)
            connection.connect_ex((SERVER, 80))
            ports.append((connection.getsockname()[1], connection))
        lab.wait(
            "all flows are at their members",
            lambda: [tap.members_of("10.1.0.4", port) for port, _ in ports],
            lambda found: all(found) and {1, 2} <= {len(each) for each in found},
        )
        straight = [each for port, each in ports if len(tap.members_of("10.1.0.4", port)) == 1]
        works = 0
        for each in straight:
            each.settimeout(lab.timing.patience)
            works += lab.echoes(each, b"x" * 100_000, seconds=lab.timing.patience)
        assert works == len(straight)
        for _, each in ports:
            each.close()


def test_flows_go_on_while_the_rules_are_replaced(lab: Lab) -> None:
    """A table that is loaded anew, and a controller that is killed, cost no established flow anything."""
    with ExitStack() as stack:
        flows = [stack.enter_context(lab.tcp("web1", SERVER)) for _ in range(8)]
        assert all(lab.echoes(each) for each in flows)
        changed = lab.document | {"switches": {"fragments": "Forward", "tcp_reset_on_ha_ports": True}}
        changed["load_balancers"][0]["load_balancing_rules"][0]["enable_tcp_reset"] = True
        lab.up(changed)
        assert all(lab.echoes(each) for each in flows)


def test_an_admin_state_outlives_its_controller(lab: Lab) -> None:
    """A controller that takes over knows what an operator said, and how healthy the member is."""
    backend.set_admin_state(lab.plan, "ilb/nvas", "nva1/eth0", "Down")
    status = read_status(lab.plan)
    assert status.controller is not None
    os.kill(status.controller.pid, signal.SIGKILL)
    lab.wait("the controller is dead", lambda: read_status(lab.plan).controller is None)
    assert not lab.member("nva1").eligible
    lab.up(lab.document)
    after = lab.member("nva1")
    assert (after.admin_state, after.eligible, after.healthy) == ("Down", False, True)


def test_the_verb_backend(lab: Lab) -> None:
    """It shows, sets and drains a member, in words and as JSON."""
    name = lab.name
    assert testbed("backend", name, "nvas", "nva1", "--json").json == {
        "pool": "ilb/nvas",
        "member": "nva1/eth0",
        "admin_state": "None",
        "flows": 0,
    }
    assert testbed("backend", name, "ilb/nvas", "nva1/eth0", "--admin-state", "Up").out == (
        "nva1/eth0 of ilb/nvas: admin state Up, no TCP flows\n"
    )
    assert "up, admin state Up" in testbed("status", name).out
    backend.set_admin_state(lab.plan, "ilb/nvas", "nva2/eth0", "Down")
    with lab.tcp("web1", SERVER) as connection:
        assert lab.echoes(connection)
        late = testbed("backend", name, "nvas", "nva1", "--drain", "--timeout", "0.3", check=False)
        assert late.status == 1
        assert late.out == "nva1/eth0 of ilb/nvas: admin state Down, 1 TCP flow\n"
        assert "is not drained after 0.3 s: TCP flows left: 1" in late.err
    done = testbed("backend", name, "nvas", "nva1", "--drain", "--timeout", lab.timing.patience)
    assert done.out.splitlines()[-1] == "nva1/eth0 of ilb/nvas: admin state Down, no TCP flows"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nva", "nva1"), "no rule of lab"),
        (("nvas", "web1"), "pool 'ilb/nvas' has no member 'web1'"),
    ],
)
def test_words_that_name_nobody(lab: Lab, words: tuple[str, str], message: str) -> None:
    """Unknown pools and members are the user's mistake, told with what there is."""
    done = testbed("backend", lab.name, *words, "--admin-state", "Up", check=False)
    assert done.status == 2
    assert message in done.err
    assert "fix: " in done.err


@pytest.fixture
def space() -> Iterator[str]:
    """A namespace in which connection tracking works."""
    name = f"t{os.getpid()}-flows"
    namespaces.create(name, "test")
    with namespaces.entered(name):
        from testbed.kernel import nft

        nft.run("table ip t { chain c { type filter hook output priority 0; ct state new accept; }; }")
    yield name
    namespaces.delete(name)


def test_entries_of_connection_tracking(space: str) -> None:
    """Flows are listed with mark and state, and forgotten one by one or all; that is no ending."""
    with namespaces.entered(space), conntrack_endings() as endings, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as one, socket.create_connection(("127.0.0.1", port)):
            found = {each.source_port: each for each in conntrack.entries() if each.destination_port == port}
            mine = found[one.getsockname()[1]]
            assert len(found) == 2
            assert (mine.lives, mine.state, mine.mark) == (True, conntrack.TcpState.ESTABLISHED, 0)
            assert list(conntrack.entries(mark=7)) == []
            conntrack.forget(mine)
            conntrack.forget(mine)  # gone already is fine
            assert mine.source_port not in {each.source_port for each in conntrack.entries()}
            conntrack.flush()
            assert [each for each in conntrack.entries() if each.destination_port == port] == []
            assert endings.read() == []


class conntrack_endings:  # noqa: N801 - a context manager
    """Endings that are closed."""

    def __enter__(self) -> conntrack.Endings:
        self._endings = conntrack.Endings()
        return self._endings

    def __exit__(self, *_: object) -> None:
        self._endings.close()


def test_segments_on_a_cable(lab: Lab) -> None:
    """A SYN into an established connection is answered with its numbers, and a reset with these ends it."""
    with lab.tcp("web1", SERVER) as connection:
        assert lab.echoes(connection)
        port = connection.getsockname()[1]
        interface = lab.plan.machine("web1").network_interfaces[0]
        cable = (interface.fabric_name, interface.mac, "12:34:56:78:9a:bc")
        with namespaces.entered(lab.plan.fabric):
            wire = SegmentSocket()
        try:
            wire.send(*cable, Segment(SERVER, 80, "10.1.0.4", port, 1, 0, RST))
            wire.watch([(port, 80)])
            wire.send(*cable, Segment(SERVER, 80, "10.1.0.4", port, 1, 0, SYN))
            heard: list[Segment] = lab.wait("an answer", wire.read)
            assert heard[0].flags == ACK
            assert lab.echoes(connection)  # the stray reset has done nothing
            wire.read()
            wire.send(*cable, Segment(SERVER, 80, "10.1.0.4", port, heard[0].acknowledgement + 5, 0, RST))
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        finally:
            wire.close()
