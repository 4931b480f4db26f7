"""Changes to a lab that carries traffic (row 20)."""

from __future__ import annotations

import copy
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from documents import FIREWALL, FRONTEND, hub_spoke, machine, rule, user_route
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

WEB2 = "10.2.0.4"
FLOWS = 4


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    return labs(hub_spoke())


class Traffic:
    """TCP connections and UDP flows from web1 to web2, each in lockstep: one message, its answer, the next one.

    A datagram is sent again a few times when there is no answer, as TCP does for itself: a packet that is inside the
    fabric at the very moment when its rules are replaced can be lost. A flow that has lost its way stays silent.
    """

    def __init__(self, lab: Lab) -> None:
        self._patience = lab.timing.patience
        self._sockets: list[socket.socket] = []
        for kind, port in ((socket.SOCK_STREAM, 80), (socket.SOCK_DGRAM, 7)):
            for _ in range(FLOWS):
                each = lab.open("web1", kind)
                each.connect((WEB2, port))
                self._sockets.append(each)
        self.exchanges = 0
        self.lost: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._over.is_set() and not self.lost:
            number += 1
            text = f"{number:08}\n".encode()
            for each in self._sockets:
                if not self._exchange(each, text):
                    self.lost.append(f"{each.getsockname()} {each.type.name}: {number}")
            self.exchanges = number

    def _exchange(self, each: socket.socket, text: bytes) -> bool:
        datagrams = each.type == socket.SOCK_DGRAM
        # Short, because the TCP connections wait meanwhile, and the lab's idle timeout is some seconds only.
        each.settimeout(self._patience / (40 if datagrams else 2))
        for _ in range(6 if datagrams else 1):
            try:
                each.sendall(text)
                while not (received := each.recv(65_535)).startswith(text):
                    if not datagrams or not received:  # else a late answer to what was sent twice
                        return False
            except OSError:
                continue
            return True
        return False

    def go_on(self, lab: Lab) -> None:
        """Wait until some more has been exchanged."""
        there = self.exchanges + 5
        lab.wait("traffic goes on", lambda: (self.exchanges, self.lost), lambda now: bool(now[1]) or now[0] >= there)

    @contextmanager
    def running(self, lab: Lab) -> Iterator[None]:
        self._thread.start()
        try:
            self.go_on(lab)
            yield
            self.go_on(lab)
        finally:
            self._over.set()
            self._thread.join()
            for each in self._sockets:
                each.close()


def survives(lab: Lab, *documents: dict[str, Any]) -> None:
    """Bring the lab to each document in turn; no flow that runs meanwhile may be lost."""
    traffic = Traffic(lab)
    with traffic.running(lab):
        for document in documents:
            changed = lab.up(document).changes
            assert changed
            traffic.go_on(lab)
            assert traffic.lost == []


@fact(row=20)
def test_routes_come_and_go_under_traffic(lab: Lab) -> None:
    """Routes that are added, changed or removed disturb no flow that does not use them.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    more = hub_spoke()
    more["route_tables"][0]["routes"].append(user_route("more", "172.20.0.0/16", FRONTEND))
    other = copy.deepcopy(more)
    other["route_tables"][0]["routes"][1] = user_route("more", "172.20.0.0/16", kind="None")
    survives(lab, more, other, hub_spoke())


@fact(row=20)
def test_a_flow_keeps_its_way_when_a_more_specific_route_says_the_same(lab: Lab) -> None:
    """A flow whose route is replaced by another one to the same frontend goes on, and keeps its instance.

    Source: azure.md §5, "Virtual network traffic routing"
    """
    same = hub_spoke()
    same["route_tables"][0]["routes"].append(user_route("same", "10.2.0.0/16", FRONTEND))
    survives(lab, same, hub_spoke())


@fact(row=20)
def test_members_join_and_leave_under_traffic(lab: Lab) -> None:
    """A new pool member takes nothing of established flows, and when it leaves, flows of others go on.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    """
    survives(lab, hub_spoke(3), hub_spoke())


@fact(row=20)
def test_rules_and_probes_change_under_traffic(lab: Lab) -> None:
    """A second frontend with its rule, and other settings of a probe, disturb no flow.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    more = hub_spoke()
    (balancer,) = more["load_balancers"]
    frontend = {"name": "fe2", "subnet": "hub/lb", "private_ip_address": "10.0.2.5"}
    balancer["frontend_ip_configurations"].append(frontend)
    balancer["backend_address_pools"].append({"name": "others"})
    balancer["load_balancing_rules"].append(rule("second", "fe2", "others"))
    more["machines"].append(
        machine(
            "nva9", "hub/nva", "10.0.1.9", FIREWALL, enable_ip_forwarding=True, backend_address_pools=["ilb/others"]
        )
    )
    slower = hub_spoke(probe={"interval_in_seconds": 10, "probe_threshold": 3})
    survives(lab, more, slower, hub_spoke())


@fact(row=20)
def test_networks_and_machines_come_and_go_under_traffic(lab: Lab) -> None:
    """A new spoke with its machines disturbs no flow of the others, nor does its removal.

    Source: azure.md §5, "Virtual network peering"
    """
    more = hub_spoke()
    spoke = {"name": "workload", "address_prefix": "10.3.0.0/24", "route_table": "to-nva"}
    more["virtual_networks"].append({"name": "spoke3", "address_space": ["10.3.0.0/16"], "subnets": [spoke]})
    more["peerings"].append({"between": ["hub", "spoke3"], "allow_forwarded_traffic": True})
    more["machines"].append(machine("web3", "spoke3/workload", "10.3.0.4"))
    survives(lab, more, hub_spoke())


@fact(row=20, state="switchable")
def test_a_changed_route_can_take_its_time(lab: Lab) -> None:
    """After a route has changed, packets go their old way for some seconds, up to half a minute.

    Source: azure.md §5, "azure-networking-lab"
    Note: In the lab a change takes effect at once; `switches: {route_update_delay: 30}` makes it late.
    """
    seconds = 50
    changed = hub_spoke() | {"switches": {"route_update_delay": seconds}}
    changed["route_tables"][0]["routes"].append(user_route("nobody", "10.2.0.0/16", kind="None"))
    answers: list[bool] = []

    def say(line: str) -> None:
        if "route_update_delay" in line:
            answers.append(lab.asks("web1", WEB2))

    started = time.monotonic()
    lab.up(changed, say=say)
    assert time.monotonic() - started >= seconds * lab.timing.scale
    assert answers == [True]
    assert not lab.asks("web1", WEB2)
    lab.up(hub_spoke())
    assert lab.asks("web1", WEB2)
