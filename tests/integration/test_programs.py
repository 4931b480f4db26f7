"""The programs of namespace machines, started by the launcher in a small network: client, firewall, servers.

client 10.1.0.2 ── 10.1.0.1 firewall 10.2.0.1 ── 10.2.0.2 server (echo; also owns 10.9.9.9)
203.0.113.1 ── 203.0.113.2 outside (echo)
10.3.0.1 ── 10.3.0.2 standby (firewall)
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import inside

from testbed.errors import LabError
from testbed.kernel import nft
from testbed.kernel.namespaces import entered
from testbed.kernel.processes import Process
from testbed.nodes import faults
from testbed.nodes.fault_switch import ResponderFault
from testbed.nodes.launcher import Launched, ProgramSpec, launch
from testbed.probes.connection import ProbeTarget
from testbed.probes.probers import Prober

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testbed.probes.health import ProbeResult

SERVER, OUTSIDE, LOOPBACK, FIREWALL, STANDBY = "10.2.0.2", "203.0.113.2", "10.9.9.9", "10.1.0.1", "10.3.0.2"
HEARTBEAT = 0.05


@dataclass(frozen=True)
class Net:
    """The namespaces by role, where logs and sockets are, and the programs."""

    prefix: str
    directory: Path
    programs: dict[str, Launched]

    def ns(self, role: str) -> str:
        """The namespace of a role."""
        return f"{self.prefix}-{role}"

    def control(self, role: str) -> str:
        """The control socket of a program."""
        return str(self.directory / f"{role}.sock")

    def spec(self, role: str, kind: str, **config: object) -> ProgramSpec:
        """What starts a program."""
        text = json.dumps({"machine": role, "control": self.control(role), **config})
        return ProgramSpec(self.ns(role), role, kind, text, str(self.directory / f"{role}.log"))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _cable(net: Net, role: str, inner: str, outer: str, length: int = 24) -> None:
    link = f"to-{role}"
    inside(net.ns("firewall"), "ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", net.ns(role))
    inside(net.ns("firewall"), "ip", "addr", "add", f"{inner}/{length}", "dev", link)
    inside(net.ns("firewall"), "ip", "link", "set", link, "up")
    inside(net.ns(role), "ip", "addr", "add", f"{outer}/{length}", "dev", "eth0")
    inside(net.ns(role), "ip", "link", "set", "eth0", "up")
    inside(net.ns(role), "ip", "route", "add", "default", "via", inner)


def _end(program: Launched, number: signal.Signals = signal.SIGKILL) -> None:
    """End a program and wait until it is gone (it is nobody's child, or init's)."""
    if not Process(program.pid, program.start_time).alive():
        return
    descriptor = os.pidfd_open(program.pid)
    try:
        signal.pidfd_send_signal(descriptor, number)
        os.set_blocking(descriptor, False)
        _until(lambda: _gone(program), f"{program} has ended")
    finally:
        os.close(descriptor)


def _gone(program: Launched) -> bool:
    if not Process(program.pid, program.start_time).alive():
        return True
    return Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _until(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        pause.wait(0.005)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """The network with all its programs."""
    made = Net(f"pg{os.getpid()}", tmp_path_factory.mktemp("programs"), {})
    roles = ("client", "firewall", "server", "outside", "standby")
    try:
        for role in roles:
            _ip("netns", "add", made.ns(role))
            inside(made.ns(role), "ip", "link", "set", "lo", "up")
        _cable(made, "client", FIREWALL, "10.1.0.2")
        _cable(made, "server", "10.2.0.1", SERVER)
        _cable(made, "outside", "203.0.113.1", OUTSIDE)
        _cable(made, "standby", "10.3.0.1", STANDBY)
        inside(made.ns("server"), "ip", "addr", "add", f"{LOOPBACK}/32", "dev", "lo")
        inside(made.ns("firewall"), "ip", "route", "add", LOOPBACK, "via", SERVER)
        started = launch(
            (
                made.spec("firewall", "nft-firewall", trusted_prefixes=["10.0.0.0/8"]),
                made.spec("server", "echo", probe_source="10.1.0.2"),
                made.spec("outside", "echo"),
                made.spec("standby", "nft-firewall", standby_of="10.3.0.1", heartbeat_seconds=HEARTBEAT),
            )
        )
        made.programs.update({each.machine: each for each in started})
        yield made
    finally:
        for program in made.programs.values():
            _end(program)
        for role in roles:
            subprocess.run(["ip", "netns", "del", made.ns(role)], check=False, capture_output=True)


def _curl(net: Net, *words: str) -> str:
    return inside(net.ns("client"), "curl", "-sS", "--max-time", "10", *words)


def _tcp(net: Net, address: str, port: int) -> socket.socket:
    with entered(net.ns("client")):
        return socket.create_connection((address, port), timeout=10)


def _udp(net: Net, address: str, port: int, role: str = "client") -> socket.socket:
    with entered(net.ns(role)):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(5)
    made.connect((address, port))
    return made


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part, f"ended after {len(data)} of {size} bytes"
        data += part
    return data


def _probe(net: Net, protocol: str, path: str = "/health", *, address: str = FIREWALL) -> ProbeResult:
    async def scenario() -> ProbeResult:
        prober = Prober()
        try:
            return await prober.probe(ProbeTarget(address, 8080), protocol, 0.5, path)
        finally:
            await prober.close()

    with entered(net.ns("client" if address == FIREWALL else "firewall")):
        return asyncio.run(scenario())


# --- echo


@pytest.mark.parametrize("port", [1, 7, 22, 80, 443, 5201, 33333, 65535])
def test_echo_answers_tcp_on_every_port(net: Net, port: int) -> None:
    """Bytes come back on any port, and the connection ends in order after the client's end."""
    with _tcp(net, SERVER, port) as connection:
        connection.sendall(b"hello \x00\xff")
        assert _exactly(connection, 8) == b"hello \x00\xff"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


@pytest.mark.parametrize("port", [1, 7, 53, 123, 4789, 65535])
@pytest.mark.parametrize("address", [SERVER, LOOPBACK])
def test_echo_answers_udp_from_the_address_asked(net: Net, address: str, port: int) -> None:
    """A datagram comes back from the address and port it was sent to, also for an address on the loopback."""
    with _udp(net, address, port) as connection:  # connected: an answer from elsewhere would not be delivered
        for payload in (b"x", b"", b"y" * 1400, b"z" * 60_000):
            connection.send(payload)
            assert connection.recv(65_535) == payload


def test_echo_answers_tcp_at_its_loopback_address(net: Net) -> None:
    """The frontend's address on the machine's loopback is served too."""
    assert _curl(net, f"http://{LOOPBACK}:8081/") == "server\n"


def test_echo_speaks_http_with_the_machines_name(net: Net) -> None:
    """Any path and method gets 200 and the machine's name; HEAD gets no body."""
    assert _curl(net, f"http://{SERVER}:12345/any/path?x=1") == "server\n"
    assert _curl(net, "-X", "OPTIONS", f"http://{SERVER}/") == "server\n"
    head = _curl(net, "-I", f"http://{SERVER}:81/")
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert "Content-Length: 7\n" in head


def test_echo_takes_bodies(net: Net, tmp_path: Path) -> None:
    """Posts of a few megabytes are swallowed, with a length, chunked, and several on one connection."""
    body = tmp_path / "body"
    body.write_bytes(os.urandom(3_000_000))
    post = ("--data-binary", f"@{body}", f"http://{SERVER}:99/")
    assert _curl(net, *post) == "server\n"
    assert _curl(net, "-H", "Transfer-Encoding: chunked", *post) == "server\n"
    assert _curl(net, f"http://{SERVER}:99/", *post) == "server\nserver\n"


def test_echo_does_not_wait_for_ever_on_a_word_that_could_be_http(net: Net) -> None:
    """`GE` and nothing more is echoed after a moment, and so is `POSTER` at once."""
    for word in (b"GE", b"POSTER", b"P"):
        with _tcp(net, SERVER, 1000) as connection:
            connection.sendall(word)
            assert _exactly(connection, len(word)) == word


def test_echo_holds_back_when_the_client_does_not_read(net: Net) -> None:
    """Unread echoes stop the stream instead of filling memory, and nothing is lost when reading begins."""
    sent = 0
    block = os.urandom(65_536)
    with _tcp(net, SERVER, 2000) as connection:
        connection.sendall(block)
        sent += len(block)
        connection.settimeout(0.5)
        try:
            while sent < 100_000_000:
                sent += connection.send(block[sent % len(block) :])
        except TimeoutError:
            pass
        assert sent < 100_000_000
        connection.settimeout(10)
        received = 0
        while received < sent:
            data = connection.recv(1 << 20)
            at = received % len(block)
            assert (block * (len(data) // len(block) + 2))[at : at + len(data)] == data
            received += len(data)


def test_echo_carries_thousands_of_flows(net: Net) -> None:
    """2,000 TCP connections at once and 2,000 UDP flows from different ports are all answered."""
    connections = [_tcp(net, SERVER, 3000 + n % 500) for n in range(2000)]
    try:
        for n, connection in enumerate(connections):
            connection.sendall(b"%d" % n)
        for n, connection in enumerate(connections):
            assert _exactly(connection, len(str(n))) == b"%d" % n
    finally:
        for connection in connections:
            connection.close()
    flows = [_udp(net, SERVER, 3000 + n % 500) for n in range(2000)]
    try:
        for n, flow in enumerate(flows):
            flow.send(b"%d" % n)
        for n, flow in enumerate(flows):
            assert flow.recv(100) == b"%d" % n
    finally:
        for flow in flows:
            flow.close()


def test_echo_survives_resets_and_unreachable_peers(net: Net) -> None:
    """After 500 aborted connections and 500 datagrams whose sender is gone, it answers as before."""
    for _ in range(500):
        with _tcp(net, SERVER, 4000) as connection:
            connection.sendall(b"bye")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with _udp(net, SERVER, 4000) as flow:
            flow.send(b"bye")  # the answer meets a closed port: an ICMP error comes back
    assert _curl(net, f"http://{SERVER}:4000/") == "server\n"
    with _udp(net, SERVER, 4000) as flow:
        flow.send(b"still there")
        assert flow.recv(100) == b"still there"


def test_a_service_of_the_machine_keeps_its_port(net: Net) -> None:
    """Real TCP and UDP services beside echo get their own traffic; the other ports are still echoed."""
    with entered(net.ns("server")):
        own_tcp = socket.create_server((SERVER, 8888))
        own_udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own_udp.bind(("0.0.0.0", 8888))
    with own_tcp, own_udp, _tcp(net, SERVER, 8888) as client, _udp(net, SERVER, 8888) as flow:
        own_tcp.settimeout(5)
        accepted, peer = own_tcp.accept()
        with accepted:
            assert peer == client.getsockname()
        own_udp.settimeout(5)
        flow.send(b"mine")
        assert own_udp.recv(100) == b"mine"
        with _tcp(net, SERVER, 8889) as other:
            other.sendall(b"echo")
            assert _exactly(other, 4) == b"echo"


def test_the_machine_can_be_a_client_too(net: Net) -> None:
    """Answers to what the machine itself asks are not redirected into echo."""
    with _udp(net, OUTSIDE, 53, role="server") as flow:
        flow.send(b"question")
        assert flow.recv(100) == b"question"


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def _send_raw(net: Net, role: str, source: str, destination: str, protocol: int, payload: bytes) -> None:
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + addresses
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    with entered(net.ns(role)):
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with sender:
        sender.sendto(header + payload, (destination, 0))


def _counted(net: Net, role: str) -> int:
    with entered(net.ns(role)):
        listed = nft.list_table("list table ip counting")
    expressions = next(each["rule"]["expr"] for each in listed if "rule" in each)
    packets: int = next(part["counter"]["packets"] for part in expressions if "counter" in part)
    return packets


def _count(net: Net, role: str, match: str) -> None:
    chain = f"chain c {{\n type filter hook prerouting priority -400; policy accept;\n {match} counter\n }}"
    with entered(net.ns(role)):
        nft.run(f"table ip counting\ndelete table ip counting\ntable ip counting {{\n {chain}\n}}\n")


def test_two_echo_machines_do_not_echo_each_other(net: Net) -> None:
    """A datagram with another echo machine as its forged sender is answered once, not for ever."""
    _count(net, "outside", f"ip saddr {SERVER} udp sport 6000")
    payload = b"ping-pong"
    datagram = struct.pack("!HHHH", 5000, 6000, 8 + len(payload), 0) + payload
    _send_raw(net, "firewall", OUTSIDE, SERVER, socket.IPPROTO_UDP, datagram)
    _until(lambda: _counted(net, "outside") > 0, "the echo arrives at the forged sender")
    with _udp(net, SERVER, 6001) as flow:  # a few more turns of both machines
        for _ in range(50):
            flow.send(b"x")
            flow.recv(10)
    assert _counted(net, "outside") == 1


def test_probe_faults_of_echo_concern_the_probe_source_only(net: Net) -> None:
    """`probe-down` turns the answer for the probe source into 503, `probe-silent` drops its packets."""
    control = net.control("server")
    status = ("-o", "/dev/null", "-w", "%{http_code}", f"http://{SERVER}:80/")
    try:
        faults.probe_down(control)
        assert _curl(net, *status) == "503"
        with _udp(net, SERVER, 80, role="firewall") as flow:
            flow.send(b"not a probe")
            assert flow.recv(100) == b"not a probe"
        faults.probe_silent(control)
        assert faults.current(control) is ResponderFault.PROBE_SILENT
        with pytest.raises(TimeoutError), entered(net.ns("client")):
            socket.create_connection((SERVER, 80), timeout=0.3)
    finally:
        faults.clear(control)
    assert _curl(net, *status) == "200"


# --- nft-firewall


def test_the_firewall_forwards_new_flows(net: Net) -> None:
    """TCP between trusted networks goes through unchanged; the far side sees the client's address."""
    with entered(net.ns("server")):
        own = socket.create_server((SERVER, 9100))
    with own, _tcp(net, SERVER, 9100):
        own.settimeout(5)
        accepted, peer = own.accept()
        accepted.close()
    assert peer[0] == "10.1.0.2"


def test_the_firewall_forwards_ping(net: Net) -> None:
    """An echo request goes through and its reply comes back."""
    with entered(net.ns("client")):
        pinger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with pinger:
        pinger.settimeout(5)
        head = struct.pack("!BBHHH", 8, 0, 0, 77, 1)
        pinger.sendto(head[:2] + struct.pack("!H", _checksum(head)) + head[4:], (SERVER, 0))
        answer, peer = pinger.recvfrom(100)
    assert peer[0] == SERVER
    assert answer[20:22] == b"\0\0"
    assert answer[24:28] == head[4:]


def test_the_firewall_reaches_itself(net: Net) -> None:
    """Loopback traffic of the appliance is left alone, also to addresses outside the trusted space."""
    for address in ("127.0.0.1", FIREWALL, "203.0.113.1"):
        url = f"http://{address}:8080/health"
        assert inside(net.ns("firewall"), "curl", "-sS", "--max-time", "2", url) == "firewall\n"


def test_the_firewall_masquerades_what_leaves(net: Net) -> None:
    """Outside the trusted space the firewall's own address is seen."""
    with entered(net.ns("outside")):
        own = socket.create_server((OUTSIDE, 9100))
    with own, _tcp(net, OUTSIDE, 9100):
        own.settimeout(5)
        accepted, peer = own.accept()
        accepted.close()
    assert peer[0] == "203.0.113.1"


def _segment(source_port: int, flags: int) -> bytes:
    """A TCP header with a right checksum, from 10.1.0.2 to the server's port 9000."""
    head = struct.pack("!HHIIBBHHH", source_port, 9000, 1, 1, 0x50, flags, 1000, 0, 0)
    pseudo = socket.inet_aton("10.1.0.2") + socket.inet_aton(SERVER) + struct.pack("!BBH", 0, 6, len(head))
    return head[:16] + struct.pack("!H", _checksum(pseudo + head)) + head[18:]


@pytest.mark.parametrize(("name", "flags"), [("ACK", 0x10), ("PSH ACK", 0x18), ("SYN ACK", 0x12), ("FIN ACK", 0x11)])
def test_the_firewall_drops_tcp_it_did_not_see_begin(net: Net, name: str, flags: int) -> None:
    """Segments from the middle of an unknown connection do not reach the server; a first SYN does."""
    _count(net, "server", "tcp dport 9000")
    _send_raw(net, "client", "10.1.0.2", SERVER, socket.IPPROTO_TCP, _segment(7000 + flags, flags))
    assert _curl(net, f"http://{SERVER}:9001/") == "server\n"  # what was sent before has arrived or was dropped
    assert _counted(net, "server") == 0, name
    _send_raw(net, "client", "10.1.0.2", SERVER, socket.IPPROTO_TCP, _segment(7000 + flags, 0x02))
    _until(lambda: _counted(net, "server") > 0, "the SYN arrives")


def test_the_firewall_drops_other_protocols(net: Net) -> None:
    """A protocol that is neither TCP, UDP nor ping is not forwarded."""
    _count(net, "server", "ip protocol 253")
    _send_raw(net, "client", "10.1.0.2", SERVER, 253, b"experiment")
    assert _curl(net, f"http://{SERVER}:9001/") == "server\n"
    assert _counted(net, "server") == 0


def test_the_firewall_answers_probes(net: Net) -> None:
    """TCP, HTTP and HTTPS probes on one port; 200 on the path, 404 elsewhere."""
    assert _probe(net, "Tcp").detail == "connected"
    assert _probe(net, "Http").detail == "HTTP 200"
    assert _probe(net, "Http", "/other").detail == "HTTP 404"
    _until(lambda: _probe(net, "Https").detail == "HTTP 200", "the certificate is made")
    assert _probe(net, "Https", "/other").detail == "HTTP 404"
    assert _curl(net, f"http://{FIREWALL}:8080/health?x") == "firewall\n"


def test_the_certificate_names_the_machine(net: Net) -> None:
    """The certificate is self-signed, new, and for the machine's name."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _tcp(net, FIREWALL, 8080) as plain, context.wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der
    assert b"firewall" in der


def test_bad_clients_do_not_harm_the_responder(net: Net) -> None:
    """Garbage, half a request, half a TLS handshake, resets and silence leave it answering."""
    held = []
    for data in (
        b"\x16",
        b"\x16\x03\x01\x02\x00",
        b"nonsense\r\n\r\n",
        b"GET /heal",
        b"\0" * 70_000,
        b"",
        b"GET / HTTP/1.1",
    ):
        connection = _tcp(net, FIREWALL, 8080)
        connection.sendall(data)
        held.append(connection)
    for _ in range(200):
        with _tcp(net, FIREWALL, 8080) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert _probe(net, "Http").detail == "HTTP 200"
    for connection in held:
        connection.close()


def test_the_firewalls_responder_can_fail_and_recover(net: Net) -> None:
    """`probe-down` answers 503 and still accepts TCP; `probe-silent` times out; forwarding goes on meanwhile."""
    control = net.control("firewall")
    try:
        faults.probe_down(control)
        assert _probe(net, "Http").detail == "HTTP 503"
        assert _probe(net, "Tcp").detail == "connected"
        faults.probe_silent(control)
        for protocol in ("Tcp", "Http", "Https"):
            assert _probe(net, protocol).detail == "timeout after 500 ms"
        assert _curl(net, f"http://{SERVER}:8080/") == "server\n"
        assert faults.current(control) is ResponderFault.PROBE_SILENT
    finally:
        faults.clear(control)
    assert _probe(net, "Http").detail == "HTTP 200"


def _standby(net: Net) -> str:
    return _probe(net, "Http", address=STANDBY).detail


def test_the_standby_takes_over_and_gives_back(net: Net) -> None:
    """The standby answers 503 while the active one is well, 200 while it fails, and 503 again afterwards."""
    control = net.control("firewall")
    _until(lambda: _standby(net) == "HTTP 503", "is passive")
    try:
        for fail in (faults.probe_down, faults.probe_silent):
            fail(control)
            _until(lambda: _standby(net) == "HTTP 200", f"takes over after {fail.__name__}")
            faults.clear(control)
            _until(lambda: _standby(net) == "HTTP 503", "gives back")
    finally:
        faults.clear(control)


def test_the_standby_takes_over_from_a_dead_one(net: Net) -> None:
    """When the active program is killed the standby takes over; the restarted one gets its place back."""
    _end(net.programs["firewall"])
    _until(lambda: _standby(net) == "HTTP 200", "takes over")
    assert _curl(net, f"http://{SERVER}:8080/") == "server\n"  # the kernel goes on filtering
    (again,) = launch((net.spec("firewall", "nft-firewall", trusted_prefixes=["10.0.0.0/8"]),))
    net.programs["firewall"] = again
    _until(lambda: _standby(net) == "HTTP 503", "gives back")


# --- launcher


def test_programs_are_daemons_of_their_own(net: Net) -> None:
    """A program has its name, its session, its namespace, and no descriptor of who started it."""
    program = net.programs["server"]
    proc = Path(f"/proc/{program.pid}")
    assert (proc / "comm").read_text().strip() == "tb-echo"
    assert os.getsid(program.pid) == program.pid
    assert (proc / "ns/net").stat().st_ino == Path("/run/netns", net.ns("server")).stat().st_ino
    assert Process(program.pid, program.start_time).alive()
    files = {os.readlink(each) for each in (proc / "fd").iterdir()}  # noqa: PTH115 - "socket:[1]" is not a path
    assert {name for name in files if name.startswith("/")} == {"/dev/null", str(net.directory / "server.log")}
    assert not [name for name in files if name.startswith("pipe:")]


def test_a_program_ends_on_sigterm_and_starts_again(net: Net) -> None:
    """SIGTERM ends a program and removes its control socket; a new one takes over with the fault forgotten."""
    faults.probe_silent(net.control("outside"))
    _end(net.programs["outside"], signal.SIGTERM)
    assert not Path(net.control("outside")).exists()
    assert "Traceback" not in (net.directory / "outside.log").read_text()
    (net.programs["outside"],) = launch((net.spec("outside", "echo"),))
    assert faults.current(net.control("outside")) is ResponderFault.NONE
    with entered(net.ns("outside")):
        assert set(nft.run("list tables").splitlines()) - {"table ip counting"} == {"table ip testbed"}
    assert _curl(net, f"http://{OUTSIDE}:80/") == "outside\n"


def _running(name: str) -> set[str]:
    pids = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True).stdout
    return set(pids.split())


def test_a_failed_start_ends_the_others(net: Net) -> None:
    """One program whose port is taken: the error names the machine and quotes its log; none is left running."""
    before = _running(net.ns("client")), _running(net.ns("server"))
    specs = (net.spec("client", "echo"), net.spec("server", "echo"))
    with pytest.raises(LabError, match=r"machine 'server' did not start: echo: .*port 7 cannot be had"):
        launch(specs)
    assert (_running(net.ns("client")), _running(net.ns("server"))) == before
    inside(net.ns("client"), "nft", "add table ip testbed; delete table ip testbed")
    assert faults.current(net.control("server")) is ResponderFault.NONE  # the one that runs is as it was


@pytest.mark.parametrize(
    ("kind", "namespace", "config", "words"),
    [
        ("teapot", "client", "{}", "unknown program 'teapot'"),
        ("echo", "nowhere", '{"machine": "x"}', "is gone"),
        ("echo", "client", "[]", "configuration cannot be used"),
        ("echo", "client", '{"machine": "x", "colour": "red"}', "unexpected keyword argument 'colour'"),
        ("nft-firewall", "client", '{"machine": "x", "trusted_prefixes": ["ten"]}', "nftables refuses"),
    ],
)
def test_a_program_that_cannot_start_says_why(net: Net, kind: str, namespace: str, config: str, words: str) -> None:
    """Wrong kinds, namespaces and configurations end in an error with the reason, not with a traceback."""
    spec = ProgramSpec(net.ns(namespace), "m", kind, config, str(net.directory / "m.log"))
    with pytest.raises(LabError, match="machine 'm' did not start") as caught:
        launch((spec,))
    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert not _running(net.ns("client"))


def test_launching_nothing_is_nothing() -> None:
    """No programs, no process."""
    assert launch(()) == ()


def test_a_launcher_that_is_stopped_leaves_nothing(net: Net) -> None:
    """SIGTERM in the middle of a start ends the programs that were forked already."""
    Path(net.control("client")).unlink(missing_ok=True)
    fifo = net.directory / "waits.log"
    os.mkfifo(fifo)  # opening it to write blocks: this program never gets ready
    specs = [net.spec("client", "echo"), net.spec("client", "echo")]
    texts = [asdict(specs[0]), asdict(specs[1]) | {"log": str(fifo)}]
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed.nodes.launcher"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    with process:
        assert process.stdin
        process.stdin.write(json.dumps(texts).encode())
        process.stdin.close()
        _until(lambda: Path(net.control("client")).exists(), "the first program is ready")
        process.terminate()
        assert process.wait(5) == 1
    assert not _running(net.ns("client"))
    inside(net.ns("client"), "nft", "add table ip testbed; delete table ip testbed")


def test_a_launcher_that_nobody_listens_to_leaves_nothing(net: Net) -> None:
    """When the command that started it was killed, the launcher ends what it has started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed.nodes.launcher"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdin
        assert process.stdout
        process.stdout.close()
        process.stdin.write(json.dumps([asdict(net.spec("client", "echo"))]).encode())
        process.stdin.close()
        assert process.wait(10) != 0
    assert not _running(net.ns("client"))
    inside(net.ns("client"), "nft", "add table ip testbed; delete table ip testbed")
