"""Every port of both protocols is balanced, and a flow keeps its member (row 1)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest
from documents import IDLE, hub_spoke
from facts import fact

from testbed.kernel import conntrack, namespaces
from testbed.plan.assembly import FABRIC_MAC
from testbed.traffic.flows import Flow, Pair, Transport
from testbed.traffic.frames import FlowIndex, headers
from testbed.traffic.rings import Capture, Sender
from testbed.traffic.templates import flow_frames, tcp_syn, udp_datagram

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab

_CLIENT_PORT = 40_000
_BATCH = 2_000


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    """Two members that only listen, and two machines that only send."""
    document = hub_spoke(probe={"protocol": "Tcp", "request_path": None})
    balancer = document["load_balancers"][0]
    balancer["probes"] = []
    del balancer["load_balancing_rules"][0]["probe"]
    for each in document["machines"]:
        each["runtime"] = IDLE
    return labs(document)


class _Members:
    """Sends one packet of each flow, and tells which of the members got it."""

    def __init__(self, lab: Lab, step: int) -> None:
        self._lab = lab
        self._ports = range(1, 65_536, step)
        there, back = self._flows("web1", "web2"), self._flows("web2", "web1")
        self._flows_of = {"web1": there, "web2": back}
        self._index = FlowIndex([flow.key for flow in there])
        self.count = len(there)

    def _flows(self, sender: str, receiver: str) -> list[Flow]:
        one, other = (self._lab.plan.machine(each) for each in (sender, receiver))
        nic = one.network_interfaces[0]
        ends = (sender, one.namespace, nic.address, nic.name, receiver, other.network_interfaces[0].address)
        pair = Pair(*ends, rule_id=0, both_directions=True)
        ports = [(_CLIENT_PORT, port) if sender == "web1" else (port, _CLIENT_PORT) for port in self._ports]
        return [
            Flow(number, pair, protocol, *each)
            for number, (protocol, each) in enumerate((kind, each) for kind in Transport for each in ports)
        ]

    def _frames(self, flows: list[Flow]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        mac = self._lab.plan.machine(flows[0].pair.client_machine).network_interfaces[0].mac
        ethernet = bytes.fromhex((FABRIC_MAC + mac).replace(":", ""))
        half = len(flows) // 2
        made = [flow_frames(tcp_syn(ethernet), flows[:half]), flow_frames(udp_datagram(ethernet), flows[half:])]
        width = max(each.shape[1] for each in made)
        return np.concatenate([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in made])

    def of(self, sender: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Per flow, the number of the one member that got the packet of this sender; 0: none, 3: both."""
        plan = self._lab.plan
        got = np.zeros(self.count, dtype=np.int64)
        with ExitStack() as stack:
            nics = [plan.machine(name).network_interfaces[0] for name in ("nva1", "nva2")]
            taps = [stack.enter_context(Capture(nic.namespace, nic.name)) for nic in nics]
            flows = self._flows_of[sender]
            pair = flows[0].pair
            ring = stack.enter_context(Sender(pair.client_namespace, pair.client_nic, self._frames(flows)))

            def look() -> int:
                for bit, tap in enumerate(taps, 1):
                    matches = self._index.match(headers(tap.read()))
                    mine = matches.flow[matches.forward == (sender == "web1")]
                    got[mine] |= bit
                return int(np.count_nonzero(got))

            while ring.left:
                ring.send(_BATCH)
                look()
            self._lab.wait("every packet came to a member", look, lambda seen: seen == self.count)
            assert [tap.dropped() for tap in taps] == [0, 0]
        return got


@fact(row=1)
def test_every_port_reaches_one_member_the_same_for_both_directions(lab: Lab) -> None:
    """Every port from 1 to 65535, of TCP and of UDP, reaches exactly one member, the same in both directions.

    Source: azure.md §1, "High availability ports overview"
    Note: 131,070 flows are sent, one per port and protocol; every 64th on an emulated computer.
    """
    members = _Members(lab, 1 if lab.timing.scale <= 0.02 else 64)
    there = members.of("web1")
    if lab.balancer == "nftables":  # no scheduler of IPVS gives both ends the same hash: there it is remembered
        with namespaces.entered(lab.plan.fabric):
            conntrack.flush()  # so that the way back is chosen anew, and not remembered
    back = members.of("web2")
    assert set(there.tolist()) <= {1, 2}
    assert (there == back).all()
    if lab.balancer == "nftables":  # IPVS's default hashes the source, which is the same for all of these
        share = np.count_nonzero(there == 1) / members.count
        assert 0.4 < share < 0.6


@fact(row=1)
def test_a_flow_keeps_its_member(lab: Lab) -> None:
    """The same five-tuple stays on the same member while the healthy set is unchanged.

    Source: azure.md §2, "Azure Load Balancer distribution modes"
    """
    members = _Members(lab, 64)
    assert (members.of("web1") == members.of("web1")).all()
