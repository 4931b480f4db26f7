"""Admin states of pool members, and draining them (row 5)."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from documents import APP_FRONTEND, application, hub_spoke, rule
from facts import fact

from testbed.errors import VerdictError
from testbed.lab import backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

FLOWS = 12


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    """Two frontends with a pool each, and the same NVAs in both."""
    document = hub_spoke()
    balancer = document["load_balancers"][0]
    balancer["frontend_ip_configurations"].append({"name": "fe2", "subnet": "hub/lb", "private_ip_address": "10.0.2.5"})
    balancer["backend_address_pools"].append({"name": "others"})
    balancer["load_balancing_rules"] = [
        rule(enable_floating_ip=True),
        rule("ha2", "fe2", "others", enable_floating_ip=True),
    ]
    for each in document["machines"][:2]:
        each["network_interfaces"][0]["backend_address_pools"].append("ilb/others")
    return labs(document)


@contextmanager
def admin_state(lab: Lab, machine: str, state: str, pool: str = "ilb/nvas") -> Iterator[None]:
    """In one pool, and no longer than the block."""
    backend.set_admin_state(lab.plan, pool, f"{machine}/eth0", state)
    try:
        yield
    finally:
        backend.set_admin_state(lab.plan, pool, f"{machine}/eth0", "None")


def connections(lab: Lab, stack: ExitStack, count: int = FLOWS) -> list[socket.socket]:
    """Established, from web1 to web2."""
    made = [stack.enter_context(lab.tcp("web1", "10.2.0.4")) for _ in range(count)]
    assert all(lab.echoes(each) for each in made)
    return made


def carriers(lab: Lab, made: list[socket.socket]) -> list[set[str]]:
    """Which NVAs each connection crosses now."""
    with lab.tap("nva1", "nva2") as tap:
        assert all(lab.echoes(each) for each in made)
        return [tap.members_of("10.1.0.4", each.getsockname()[1]) for each in made]


@fact(row=5)
def test_down_keeps_established_tcp_and_moves_udp(lab: Lab) -> None:
    """Admin state Down: no new flows though the probe is up, established TCP persists, UDP moves to another member.

    Source: azure.md §2, "Admin state overview"
    """
    with ExitStack() as stack:
        old = connections(lab, stack)
        before = carriers(lab, old)
        assert {"nva1"} in before
        askers = [stack.enter_context(lab.open("web1", socket.SOCK_DGRAM)) for _ in range(FLOWS)]
        assert all(lab.answered(each, "10.2.0.4") for each in askers)
        with admin_state(lab, "nva1", "Down"):
            state = lab.member("nva1", "fe")
            assert (state.healthy, state.eligible, state.admin_state) == (True, False, "Down")
            assert carriers(lab, old) == before
            assert set().union(*carriers(lab, connections(lab, stack))) == {"nva2"}
            with lab.tap("nva1", "nva2") as tap:
                assert all(lab.answered(each, "10.2.0.4") for each in askers)
                ports = [each.getsockname()[1] for each in askers]
                seen = [tap.members_of("10.1.0.4", port, socket.SOCK_DGRAM) for port in ports]
                assert all(each == {"nva2"} for each in seen)
        assert lab.member("nva1", "fe").eligible


@fact(row=5)
def test_up_is_eligible_whatever_the_probe_says(lab: Lab) -> None:
    """Admin state Up: always eligible, the probe is ignored; None: the probe decides.

    Source: azure.md §2, "Admin state overview"
    """
    with admin_state(lab, "nva1", "Up"):
        lab.fault("nva1", "probe-down")
        try:
            assert lab.wait_member("nva1", healthy=False, frontend="fe").eligible
            with ExitStack() as stack:
                assert {"nva1"} in carriers(lab, connections(lab, stack))
            backend.set_admin_state(lab.plan, "ilb/nvas", "nva1/eth0", "None")
            assert not lab.member("nva1", "fe").eligible
        finally:
            lab.recover("nva1")
    lab.wait_member("nva1", healthy=True)


@fact(row=5)
def test_other_pools_with_the_same_member_go_on(lab: Lab) -> None:
    """An admin state counts for every rule of its pool, and not for other pools with the same instance.

    Source: azure.md §2, "Admin state overview"
    """
    with admin_state(lab, "nva1", "Down"):
        assert not lab.member("nva1", "fe").eligible
        other = lab.member("nva1", "fe2")
        assert (other.eligible, other.admin_state) == (True, "None")


@fact(row=5)
def test_draining_counts_the_flows_that_are_left(lab: Lab) -> None:
    """With Down a member drains: its TCP flows go on until they end by themselves.

    Source: azure.md §2, "Admin state overview"
    Note: `testbed backend LAB POOL MEMBER --drain` sets Down and tells how many flows are left.
    """
    try:
        with ExitStack() as stack:
            old = connections(lab, stack)
            mine = [each for each, at in zip(old, carriers(lab, old), strict=True) if at == {"nva1"}]
            assert mine
            with pytest.raises(VerdictError, match=f"left: {len(mine)}"):
                backend.drain(lab.plan, "ilb/nvas", "nva1/eth0", seconds=0.1)
            assert lab.member("nva1", "fe").admin_state == "Down"
        said: list[int] = []
        done = backend.drain(
            lab.plan,
            "ilb/nvas",
            "nva1/eth0",
            seconds=lab.timing.patience,
            say=lambda now: said.append(now.flows),
        )
        assert done.flows == 0
        assert said[-1] == 0
    finally:
        backend.set_admin_state(lab.plan, "ilb/nvas", "nva1/eth0", "None")


@fact(row=5)
def test_down_with_nobody_else_left(lab: Lab) -> None:
    """A member whose admin state is Down gets no new flows, even when no other one is healthy.

    Source: azure.md §2, "Admin state overview"
    """
    with admin_state(lab, "nva1", "Down"), admin_state(lab, "nva2", "Down"):
        assert not lab.connects("web1", "10.2.0.4")
    assert lab.connects("web1", "10.2.0.4")


@pytest.fixture(scope="module")
def app(labs: Callable[..., Lab]) -> Lab:
    """A server behind a frontend, its floating IP off; each test makes of it what it needs."""
    return labs(application(1))


@fact(row=5)
def test_the_drain_period_ends_with_a_reset(app: Lab) -> None:
    """`drain_period_in_seconds` of a pool: so long after Down, the flows that are left are reset at both ends.

    Source: azure.md §8, "Microsoft.Network REST API"
    Note: Counted from the moment the admin state is set; a member that leaves the pool is not drained.
    """
    app.up(application(1, drain_period_in_seconds=60))
    with app.tcp("client", APP_FRONTEND) as connection, app.tap("app1", "client") as tap:
        assert app.echoes(connection)
        with admin_state(app, "app1", "Down", "ilb/apps"):
            assert app.echoes(connection)
            assert_reset(app, connection)
            app.wait(
                "both ends get a reset",
                lambda: {each.machine for each in tap.packets() if each.flags & 4 and not each.sent},
                lambda seen: seen == {"app1", "client"},
            )
        assert "ESTAB" not in app.run("app1", "ss", "-Htn").stdout


@fact(row=5, state="switchable")
def test_down_resets_established_tcp_where_the_switch_says_so(app: Lab) -> None:
    """The API's text says that Down resets existing connections; the overview says that they persist.

    Source: azure.md §2, "Admin state overview"
    Note: They persist; `switches: {admin_state_down: Reset}` does what the API's text says.
    """
    document = application(1)
    document["switches"] = {"admin_state_down": "Reset"}
    app.up(document)
    with app.tcp("client", APP_FRONTEND) as connection:
        assert app.echoes(connection)
        with admin_state(app, "app1", "Down", "ilb/apps"):
            assert_reset(app, connection)


@fact(row=5)
def test_admin_states_of_the_document_and_of_the_command(app: Lab) -> None:
    """Admin states are set per backend address of a pool, and can be changed at any time.

    Source: azure.md §2, "Admin state overview"
    Note: The document's state counts again when the document changes it; until then the command's stays, also when
    the controller starts anew.
    """
    document = application(1, load_balancer_backend_addresses=[{"machine": "app1", "admin_state": "Down"}])
    app.up(document)
    assert not app.connects("client", APP_FRONTEND)
    backend.set_admin_state(app.plan, "ilb/apps", "app1/eth0", "None")
    with app.tcp("client", APP_FRONTEND) as connection:
        backend.set_admin_state(app.plan, "ilb/apps", "app1/eth0", "Down")
        # the only member of its pool, and its flow goes on: that is promised for Down, whatever else is up
        assert app.echoes(connection)
    document["load_balancers"][0]["probes"][0]["interval_in_seconds"] = 6
    app.up(document)
    assert app.member("app1").admin_state == "Down"
    document["load_balancers"][0]["backend_address_pools"][0]["load_balancer_backend_addresses"] = []
    app.up(document)
    assert app.member("app1").admin_state == "None"
    assert app.connects("client", APP_FRONTEND)


def assert_reset(lab: Lab, connection: socket.socket) -> None:
    """The connection ends with a reset, in time."""
    connection.settimeout(lab.timing.patience)
    with pytest.raises(ConnectionResetError) as ended:
        connection.recv(1)
    assert ended.value.errno == errno.ECONNRESET
