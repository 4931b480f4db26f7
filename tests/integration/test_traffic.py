"""The rings, the symmetry measurement and the failover measurement on a small router built here."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import select
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from conftest import inside

from testbed.deadline import wait_for
from testbed.errors import InputError, LabError
from testbed.kernel.namespaces import entered
from testbed.traffic.failover import FailoverMeasurement, Load, Phases, _until, measure_failover
from testbed.traffic.flows import Pair, Tap, Transport, spread
from testbed.traffic.frames import FlowIndex, headers
from testbed.traffic.rings import Capture, Sender
from testbed.traffic.streams import Datagrams
from testbed.traffic.symmetry import measure_symmetry
from testbed.traffic.templates import flow_frames, udp_datagram
from testbed.verify.failover import Expectation, OldTcp, judge_failover
from testbed.verify.symmetry import judge_symmetry

if TYPE_CHECKING:
    from collections.abc import Iterator

ECHO = """
import asyncio
class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, address): self.transport.sendto(data, address)
async def stream(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, local_addr=("0.0.0.0", 7))
    server = await asyncio.start_server(stream, "0.0.0.0", 7, backlog=1000)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
REDIRECT = """table ip echo {
  chain prerouting {
    type nat hook prerouting priority -100
    meta l4proto { tcp, udp } redirect to :7
  }
}
"""
MASQUERADE = """table ip outside {
  chain postrouting {
    type nat hook postrouting priority 100
    ip daddr 10.2.0.0/16 masquerade
  }
}
"""
#: 10.5.0.1 is answered with its own address, 10.5.0.2 forgets to translate the answers back.
FRONTEND = """table ip frontend {
  chain early {
    type filter hook prerouting priority -300
    iifname { n1, n2 } notrack
    ip daddr 10.5.0.2 ip daddr set 10.2.0.2 notrack
  }
  chain prerouting {
    type nat hook prerouting priority -100
    ip daddr 10.5.0.1 dnat to 10.2.0.2
  }
}
"""
#: To a station that does not exist: captured, but nobody's to forward or to echo.
ETHERNET = bytes.fromhex("020000000099020000000001")
CLIENT, SERVER, NVA1, NVA2 = "10.1.0.2", "10.2.0.2", "10.9.1.2", "10.9.2.2"
OTHER = "10.1.0.3"  # the client's second address


def run(*words: str, text: str | None = None) -> str:
    """Standard output of a command that must succeed."""
    return subprocess.run(words, check=True, capture_output=True, text=True, input=text).stdout


@dataclass(frozen=True)
class Rig:
    """client, server, n1 and n2, each on a cable to the router r, which picks the member by rules."""

    prefix: str

    def name(self, machine: str) -> str:
        """Namespace of a machine."""
        return f"{self.prefix}-{machine}"

    def inside(self, machine: str, *words: str, text: str | None = None) -> str:
        """Run a command in a machine."""
        return inside(self.name(machine), *words, text=text)

    def steer(self, member: str, *selector: str) -> None:
        """Send the packets that the selector of a routing rule fits to a member; later calls win."""
        rules = json.loads(self.inside("r", "ip", "-j", "rule"))
        priority = min(rule["priority"] for rule in rules if rule["priority"]) - 1
        words = ("priority", str(priority), *selector, "lookup", {"n1": "1", "n2": "2"}[member])
        self.inside("r", "ip", "rule", "add", *words)

    def reset(self) -> None:
        """The symmetric state: UDP crosses n1 and TCP crosses n2, both ways, and both forward."""
        for rule in json.loads(self.inside("r", "ip", "-j", "rule")):
            if 0 < rule["priority"] < 32766:
                self.inside("r", "ip", "rule", "del", "priority", str(rule["priority"]))
        for table, (machine, address) in enumerate((("n1", NVA1), ("n2", NVA2)), start=1):
            way = ("default", "via", address, "dev", machine, "table", str(table))
            self.inside("r", "ip", "route", "replace", *way)
            self.inside(machine, "ip", "link", "set", "eth0", "up")
            gateway = address.rsplit(".", 1)[0] + ".1"
            self.inside(machine, "ip", "route", "replace", "default", "via", gateway)
            self.forwarding(machine, on=True)
        for cable in ("client", "server"):
            self.steer("n1", "iif", cable, "ipproto", "17")
            self.steer("n2", "iif", cable, "ipproto", "6")
        # A link that comes up again passes packets some time later: the kernel tells of carriers once a second.
        wait_for("both members are reached", self.reachable, seconds=20)

    def reachable(self) -> bool:
        """Whether both members reach the server, and it them: their links carry and their gateways answer."""
        try:
            for machine in ("n1", "n2"):
                with entered(self.name(machine)):
                    socket.create_connection((SERVER, 4000), timeout=0.3).close()
        except OSError:
            return False
        return True

    def forwarding(self, machine: str, *, on: bool) -> None:
        """Whether a machine forwards; if not, it drops without a word."""
        self.inside(machine, "sysctl", "-qw", f"net.ipv4.ip_forward={on:d}")

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Both machines begin."""
        names = (self.name("client"), self.name("server"))
        return (
            Pair("client", names[0], CLIENT, "eth0", "server", SERVER, 1, both_directions=True),
            Pair("server", names[1], SERVER, "eth0", "client", CLIENT, 1, both_directions=True),
        )

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Both members."""
        return (
            Tap("n1", self.name("n1"), "eth0", NVA1, frozenset({1})),
            Tap("n2", self.name("n2"), "eth0", NVA2, frozenset({1})),
        )


@pytest.fixture(scope="module")
def built() -> Iterator[Rig]:
    """Build the rig once, and remove it."""
    rig = Rig(f"tt{os.getpid()}")
    machines = {"client": CLIENT, "server": SERVER, "n1": NVA1, "n2": NVA2}
    with ExitStack() as stack:
        for machine in ("r", *machines):
            run("ip", "netns", "add", rig.name(machine))
            stack.callback(run, "ip", "netns", "del", rig.name(machine))
            rig.inside(machine, "ip", "link", "set", "lo", "up")
            for key in ("ip_forward=1", "conf.all.rp_filter=0", "conf.all.send_redirects=0"):
                rig.inside(machine, "sysctl", "-qw", f"net.ipv4.{key}")
            for key in ("rp_filter=0", "send_redirects=0"):
                rig.inside(machine, "sysctl", "-qw", f"net.ipv4.conf.default.{key}")
        for machine, address in machines.items():
            gateway = address.rsplit(".", 1)[0] + ".1"
            ends = ("name", machine, "type", "veth", "peer", "name", "eth0", "netns", rig.name(machine))
            rig.inside("r", "ip", "link", "add", *ends)
            rig.inside("r", "ip", "address", "add", f"{gateway}/24", "dev", machine)
            rig.inside("r", "ip", "link", "set", machine, "up")
            rig.inside(machine, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            rig.inside(machine, "ip", "link", "set", "eth0", "up")
            rig.inside(machine, "ip", "route", "add", "default", "via", gateway)
        rig.inside("client", "ip", "address", "add", f"{OTHER}/24", "dev", "eth0")
        for machine in ("client", "server"):
            rig.inside(machine, "nft", "-f", "-", text=REDIRECT)
            with entered(rig.name(machine)):
                words = [sys.executable, "-c", ECHO]
                echo = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            stack.callback(echo.kill)
            assert echo.stdout is not None
            assert echo.stdout.readline() == "ready\n"
        yield rig


@pytest.fixture
def rig(built: Rig) -> Rig:
    """The rig in its symmetric state."""
    built.reset()
    return built


def test_capture_sees_every_frame_of_the_sender(rig: Rig) -> None:
    """5,000 frames from the ring arrive at the other end of the cable, in order, byte for byte."""
    flows = [flow for flow in spread(rig.pairs[:1], 10_000, 1) if flow.protocol is Transport.UDP]
    frames = flow_frames(udp_datagram(ETHERNET), flows)
    with (
        Capture(rig.name("r"), "client", frames=8192) as capture,
        Sender(rig.name("client"), "eth0", frames) as sender,
    ):
        assert sender.send(1000) == 1000
        assert sender.send(9999) == 4000
        assert sender.left == 0
        got = capture.read()
        assert capture.dropped() == 0
    incoming = np.flatnonzero(~got.outgoing)
    assert len(incoming) == 5000
    assert np.array_equal(got.octets[incoming, : frames.shape[1]], frames)
    assert (got.lengths[incoming] == frames.shape[1]).all()
    assert (np.diff(got.times_ns[incoming]) >= 0).all()
    matches = FlowIndex([flow.key for flow in flows]).match(headers(got))
    assert set(matches.flow[matches.forward].tolist()) == set(range(5000))


def test_capture_counts_what_did_not_fit(rig: Rig) -> None:
    """A ring that is too small says how many frames are missing, and its slots serve again after a read."""
    flows = [flow for flow in spread(rig.pairs[:1], 2000, 1) if flow.protocol is Transport.UDP]
    frames = flow_frames(udp_datagram(ETHERNET), flows)
    with (
        Capture(rig.name("r"), "client", frames=16) as capture,
        Sender(rig.name("client"), "eth0", frames) as sender,
    ):
        sender.send(1000)
        stored = len(capture.read())
        assert 16 <= stored < 1000
        assert stored + capture.dropped() >= 1000
        assert len(capture.read()) == 0


def test_slots_serve_again_after_a_read(rig: Rig) -> None:
    """A small ring that is read in time loses nothing, also where the frames go round its end."""
    flows = [flow for flow in spread(rig.pairs[:1], 4000, 1) if flow.protocol is Transport.UDP]
    frames = flow_frames(udp_datagram(ETHERNET), flows)
    with (
        Capture(rig.name("r"), "client", frames=256) as capture,
        Sender(rig.name("client"), "eth0", frames) as sender,
    ):
        parts = []
        while sender.send(150):
            parts.append(capture.read())
        assert capture.dropped() == 0
    incoming = [part.octets[~part.outgoing][:, : frames.shape[1]] for part in parts]
    assert np.array_equal(np.concatenate(incoming), frames)


def test_no_answer_is_echoed_back(rig: Rig) -> None:
    """Clients with echo servers of their own take answers as answers: afterwards the cables are silent."""
    with Capture(rig.name("r"), "client") as capture:
        measure_symmetry(rig.pairs, rig.taps, count=200)
        assert len(capture.read())
        poll = select.poll()
        poll.register(capture.fileno(), select.POLLIN)
        assert not poll.poll(200)


def test_rings_name_what_is_missing(rig: Rig) -> None:
    """A namespace or network interface that does not exist, or an empty sender, is an error that names it."""
    with pytest.raises(LabError, match="eth7"):
        Capture(rig.name("n1"), "eth7")
    with pytest.raises(LabError, match="nowhere"):
        Capture("nowhere", "eth0")
    with pytest.raises(InputError, match="eth0"):
        Sender(rig.name("n1"), "eth0", np.empty((0, 60), dtype=np.uint8))


def test_symmetric_routing_is_seen_as_symmetric(rig: Rig) -> None:
    """2,000 flows from both ends: each crosses one member both ways, and each is answered."""
    measured = measure_symmetry(rig.pairs, rig.taps, count=2000, seed=5)
    assert measured.dropped_frames == 0
    assert len(measured.observations) == 2000
    for seen in measured.observations:
        member = frozenset({"n1" if seen.flow.protocol is Transport.UDP else "n2"})
        assert (seen.forward, seen.reverse, seen.replied, seen.reset) == (member, member, True, False), seen
    result = judge_symmetry(measured)
    assert (result.verdict, result.symmetric, result.per_member) == ("pass", 2000, {"n1": 1000, "n2": 1000})


def test_forward_by_one_member_and_back_by_the_other_is_seen(rig: Rig) -> None:
    """Answers that take the other member are seen there, although every client gets its answer."""
    rig.steer("n2", "iif", "server", "ipproto", "17")
    measured = measure_symmetry(rig.pairs[:1], rig.taps, count=400)
    for seen in measured.observations:
        assert seen.replied
        udp = seen.flow.protocol is Transport.UDP
        assert seen.forward == frozenset({"n1" if udp else "n2"})
        assert seen.reverse == frozenset({"n2"})
    result = judge_symmetry(measured)
    assert (result.verdict, result.symmetric, result.asymmetric, result.lost) == ("fail", 200, 200, 0)


def test_what_a_member_swallows_is_lost(rig: Rig) -> None:
    """A member that forwards nothing loses its flows, and only those; the measurement still ends in time."""
    rig.forwarding("n1", on=False)
    result = judge_symmetry(measure_symmetry(rig.pairs, rig.taps, count=400))
    assert (result.verdict, result.symmetric, result.asymmetric, result.lost) == ("fail", 200, 0, 200)
    assert result.seconds < 5


@contextmanager
def filtering(rig: Rig, machine: str, rule: str) -> Iterator[None]:
    """A rule for what a machine forwards."""
    chain = f"chain forward {{\n type filter hook forward priority 0\n {rule}\n }}\n"
    rig.inside(machine, "nft", "-f", "-", text=f"table ip filtering {{\n {chain} }}\n")
    try:
        yield
    finally:
        rig.inside(machine, "nft", "delete", "table", "ip", "filtering")


def test_a_reset_is_not_an_answer(rig: Rig) -> None:
    """A member that refuses connections in the server's name loses them, and the examples say how."""
    with filtering(rig, "n2", "meta l4proto tcp reject with tcp reset"):
        result = judge_symmetry(measure_symmetry(rig.pairs[:1], rig.taps, count=400))
    assert (result.symmetric, result.asymmetric, result.lost) == (200, 0, 200)
    assert result.examples[0].endswith(": lost, forward at n2, reverse at n2, reset")


def test_a_member_whose_link_is_down_can_be_tapped(rig: Rig) -> None:
    """While a link is down its capture sees nothing and disturbs nothing."""
    rig.inside("n1", "ip", "link", "set", "eth0", "down")
    result = judge_symmetry(measure_symmetry(rig.pairs, rig.taps, count=400))
    assert (result.symmetric, result.lost, result.per_member) == (200, 200, {"n1": 0, "n2": 200})
    assert result.reasons == ("200 of 400 flows got no answer",)


def test_flows_of_another_rule_do_not_count_at_a_tap(rig: Rig) -> None:
    """A member of another rule that forwards the flows on their way is no party to their symmetry."""
    taps = (rig.taps[0], Tap("n2", rig.name("n2"), "eth0", NVA2, frozenset({2})))
    measured = measure_symmetry(rig.pairs, taps, count=100)
    assert judge_symmetry(measured).per_member == {"n1": 50, "n2": 0}
    assert all(seen.replied for seen in measured.observations)


def test_a_member_that_translates_the_source_is_seen_both_ways(rig: Rig) -> None:
    """Behind source NAT only the leg to the client carries the flow's key, and that is enough."""
    rig.inside("n1", "nft", "-f", "-", text=MASQUERADE)
    try:
        measured = measure_symmetry(rig.pairs[:1], rig.taps, count=400)
    finally:
        rig.inside("n1", "nft", "delete", "table", "ip", "outside")
    result = judge_symmetry(measured)
    assert (result.verdict, result.per_member) == ("pass", {"n1": 200, "n2": 200}), result.examples


def test_members_that_answer_for_a_frontend_are_seen(rig: Rig) -> None:
    """When the router rewrites the destination, the member's own address in the frames does not matter."""
    rig.inside("r", "nft", "-f", "-", text=FRONTEND)
    try:
        pair = dataclasses.replace(rig.pairs[0], server_address="10.5.0.1")
        tap = Tap("app", rig.name("server"), "eth0", SERVER)
        result = judge_symmetry(measure_symmetry([pair], [tap], count=400))
        assert (result.verdict, result.per_member) == ("pass", {"app": 400}), result.examples
        # Answers from the member's own address are answers to nobody.
        direct = dataclasses.replace(pair, server_address="10.5.0.2")
        result = judge_symmetry(measure_symmetry([direct], [tap], count=100))
        assert (result.verdict, result.lost) == ("fail", 100)
    finally:
        rig.inside("r", "nft", "delete", "table", "ip", "frontend")


def test_a_client_that_cannot_send_is_an_error(rig: Rig) -> None:
    """A client without a way to the server is a broken set-up, not a lost flow."""
    pair = Pair("n1", rig.name("n1"), NVA1, "lo", "server", SERVER, 1, both_directions=True)
    with pytest.raises(LabError, match="'lo'"):
        measure_symmetry([pair], rig.taps, count=10)


class Untidy(asyncio.DatagramProtocol):
    """Echoes datagrams 1 and 2 in the wrong order, 3 twice, 4 never, 5 with another number."""

    def __init__(self) -> None:
        self.held: bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Answer by the number in the last four bytes."""
        number = int.from_bytes(data[4:], "big")
        answers = {1: [], 2: [data, self.held], 3: [data, data], 4: [], 5: [data[:4] + b"\xff" * 4]}
        self.held = data
        for answer in answers.get(number, [data]):
            self.transport.sendto(answer, address)


def test_untidy_answers_are_told_apart(rig: Rig) -> None:
    """Reordered, repeated, missing and foreign answers are counted as what they are."""

    async def exchange() -> Datagrams:
        loop = asyncio.get_running_loop()
        with entered(rig.name("n1")):
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        transport, _ = await loop.create_datagram_endpoint(Untidy, sock=server)
        pair = Pair("n1", rig.name("n1"), "127.0.0.1", "lo", "n1", "127.0.0.1", 1, both_directions=True)
        ports = random.Random()  # noqa: S311 - replaced below
        ports.randint = lambda *_: server.getsockname()[1]  # type: ignore[method-assign]
        with ExitStack() as stack:
            stack.callback(transport.close)
            datagrams = Datagrams([pair], 1, ports, 0, stack)
            for _ in range(7):
                datagrams.send()
            assert await _until(lambda: bool(datagrams.received_ns[0][6]), 2)
        return datagrams

    datagrams = asyncio.run(exchange())
    (sent,), (received,) = datagrams.sent_ns, datagrams.received_ns
    assert [bool(at) for at in received] == [True, True, True, True, False, False, True]
    assert all(at >= since for at, since in zip(received, sent, strict=True) if at)
    assert (datagrams.reordered, datagrams.duplicates) == ([1], [1])
    assert datagrams.missing(sent[0], sent[6]) == {0: 2}
    assert datagrams.missing(sent[0], sent[4]) == {}


LOAD = Load(udp_flows=16, udp_interval=0.01, tcp_connections=8, tcp_interval=0.02, connects_per_second=50)


@dataclass
class Fault:
    """n1 stops forwarding; some time later the router sends its flows, or only UDP, to n2."""

    rig: Rig
    udp_only: bool = False
    begun: float = 0.0
    programmed: float = 0.0

    async def inject(self) -> None:
        """Stop the forwarding."""
        self.begun = time.time()
        await asyncio.to_thread(self.rig.forwarding, "n1", on=False)

    async def settled(self) -> bool:
        """Whether the router has changed; it does so 0.2 s after the fault."""
        if not self.programmed and time.time() - self.begun > 0.2:
            selector = ("ipproto", "17") if self.udp_only else ()
            for cable in ("client", "server"):
                await asyncio.to_thread(self.rig.steer, "n2", "iif", cable, *selector)
            self.programmed = time.time()
        return bool(self.programmed)

    def measure(self) -> FailoverMeasurement:
        """The first address's flows cross n1, the second's cross n2; then n1 fails."""
        for address, member in ((CLIENT, "n1"), (OTHER, "n2")):
            self.rig.steer(member, "iif", "client", "from", address)
            self.rig.steer(member, "iif", "server", "to", address)
        first = self.rig.pairs[0]
        pairs = (first, dataclasses.replace(first, client_address=OTHER))
        phases = Phases(baseline=0.5, observe=1.6)
        return asyncio.run(
            measure_failover(pairs, self.rig.taps, {"n1"}, self.inject, self.settled, load=LOAD, phases=phases)
        )


def test_failover_is_measured_packet_by_packet(rig: Rig) -> None:
    """Half of the flows cross the member that fails: they lose what was sent meanwhile, the others nothing."""
    fault = Fault(rig)
    measured = fault.measure()
    expected = Expectation(detection_bound_ms=400)
    result = judge_failover(measured, detected_at=fault.begun + 0.2, programmed_at=fault.programmed, expected=expected)
    assert result.verdict == "pass", result.reasons
    assert (result.udp_on_member, result.udp_moved, result.udp_lost_elsewhere) == (8, 8, 0)
    assert result.old_tcp == result.old_tcp_elsewhere == OldTcp(4, 0, 0)
    # 8 flows lose one datagram every 10 ms for 0.2 s and the time the change takes.
    assert 8 * 15 <= result.udp_lost_packets <= 8 * (result.first_good_max_ms or 0) / 10 + 16
    assert result.first_good_ms is not None
    assert result.programmed_ms is not None
    assert 200 <= result.first_good_ms <= result.programmed_ms + 100
    assert 200 <= result.udp_gap_ms <= result.programmed_ms + 150
    assert result.new_flows > 50
    assert 0 < result.new_flows_lost < 50
    assert measured.dropped_frames == 0
    late = judge_failover(measured, detected_at=None, programmed_at=fault.programmed, expected=expected)
    assert late.reasons == ("the probe never noticed the fault",)


def test_flows_that_are_not_moved_fail_the_check(rig: Rig) -> None:
    """When only UDP is moved, old connections fall silent and new ones are lost, and the verdict says both."""
    fault = Fault(rig, udp_only=True)
    measured = fault.measure()
    result = judge_failover(
        measured,
        detected_at=fault.begun + 0.2,
        programmed_at=fault.programmed,
        expected=Expectation(detection_bound_ms=400),
    )
    assert result.verdict == "fail"
    assert result.old_tcp == OldTcp(0, 0, 4)
    assert result.old_tcp_elsewhere == OldTcp(4, 0, 0)
    assert result.new_flows_lost_after_programmed > 10
    assert result.udp_moved == 8
    assert len(result.reasons) == 2


def test_loss_before_the_fault_is_an_error(rig: Rig) -> None:
    """When a flow does not work to begin with, no fault is injected."""
    fault = Fault(rig)
    rig.forwarding("n1", on=False)
    with pytest.raises(LabError, match="before the fault"):
        fault.measure()
    assert not fault.begun
    rig.reset()
    with (
        filtering(rig, "n1", "meta l4proto udp numgen random mod 20 0 drop"),
        pytest.raises(LabError, match=r"before the fault.* datagrams of \d+ flows, such as udp 10\.1\.0\.2:"),
    ):
        fault.measure()
    assert not fault.begun
