"""Every container image does what its README says: real packets through real containers."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from image_rig import (
    BULK,
    ROOT,
    Place,
    connect,
    fetch,
    logged,
    namespace,
    push,
    run_image,
    server,
    ssh,
    wait_for_health,
)

from testbed.deadline import wait_for
from testbed.images import build_all, engine, ensure, names
from testbed.kernel.namespaces import entered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from docker.models.containers import Container

CLIENT, SERVER, OUTSIDE = "10.1.0.4", "10.2.0.4", "203.0.113.4"
NEAR, FAR = "10.1.0.1", "10.2.0.1"
FRR_CAPABILITIES = ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"]
OWN = f"ti{os.getpid()}"


@dataclass(frozen=True)
class Rig:
    """Client, container and server in a row."""

    client: str
    server: str
    container: Container
    place: Place


@contextmanager
def between(image: str, **options: Any) -> Iterator[Rig]:
    """Run an image with two legs, a client behind the one and a server behind the other."""
    environment = {"NICS": "2"} | options.pop("environment", {})
    reference = ensure(image, ROOT / "topologies", print)
    with (
        namespace(f"{OWN}-client") as client,
        namespace(f"{OWN}-server") as far,
        run_image(reference, f"{OWN}-{image}", environment=environment, **options) as (container, place),
    ):
        connect(client, "eth0", f"{CLIENT}/24", place, "eth0", f"{NEAR}/24")
        connect(far, "eth0", f"{SERVER}/24", place, "eth1", f"{FAR}/24")
        client.run("ip", "route", "add", "default", "via", NEAR)
        far.run("ip", "route", "add", "default", "via", FAR)
        far.run("ip", "address", "add", f"{OUTSIDE}/32", "dev", "lo")
        place.run("ip", "route", "add", f"{OUTSIDE}/32", "via", SERVER)
        with server(client.name), server(far.name):
            yield Rig(client.name, far.name, container, place)


def inside(container: Container, *command: str) -> str:
    """Run a command in the container."""
    status, output = container.exec_run(list(command))
    assert isinstance(output, bytes)
    assert status == 0, output
    return output.decode()


def arrives(rig: Rig, packet: bytes) -> bool:
    """Whether a packet that the client sends gets to the server; a datagram behind it tells when to stop waiting."""
    from scapy.layers.inet import IP, UDP

    with entered(rig.server):
        capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    with entered(rig.client):
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with capture, sender:
        capture.settimeout(5)
        capture.bind(("eth0", 0x0800))
        for each in (packet, bytes(IP(src=CLIENT, dst=SERVER) / UDP(sport=9, dport=9) / b"the end")):
            sender.sendto(each, (SERVER, 0))
        found = False
        while True:
            frame = capture.recv(2048)
            if b"the end" in frame:
                return found
            found |= b"the packet" in frame


def datagram_arrives(rig: Rig, payload: bytes, port: int = 5000) -> bool:
    """Whether a datagram gets from the client to the server."""
    with entered(rig.server):
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with entered(rig.client):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind((SERVER, port))
        receiver.settimeout(1)
        sender.sendto(payload, (SERVER, port))
        try:
            return receiver.recv(100) == payload
        except TimeoutError:
            return False


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key pair; the public half is ``key.pub``."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path


def test_every_image_is_small_and_built_once() -> None:
    """All images are there after one call, none is bigger than a fifth of a gigabyte, and a second call builds none."""
    images = build_all((), print)
    assert [each.name for each in images] == [*names(), "vm-firewall"]
    assert all(each.size < 200e6 for each in images), images
    assert not any(each.built for each in build_all())


def test_two_builders_do_not_get_into_each_others_way(tmp_path: Path) -> None:
    """Threads that want the same image at once get it, and one of them builds it."""
    folder = tmp_path / "testbed-test-twice"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"ARG BASE\nFROM $BASE\nRUN echo {OWN}\n")
    said: list[str] = []
    references: list[str] = []

    def build() -> None:
        references.append(ensure(str(folder), tmp_path, said.append))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    client = engine()
    try:
        assert len(references) == 4
        assert len(set(references)) == 1
        assert len([line for line in said if "building" in line]) == 1
    finally:
        client.images.remove(references[0])
        client.close()


def test_base_ends_when_a_service_does(key: Path) -> None:
    """SSH with a key works, copies files, and the container ends with a message when its responder is killed."""
    mount = {f"{key}.pub": {"bind": "/run/testbed/authorized_keys", "mode": "ro"}}
    with between("base", volumes=mount) as rig:
        wait_for_health(rig.client, NEAR)
        with ssh(rig.client, NEAR, key) as shell:
            _, out, _ = shell.exec_command("uname -n; cat /run/pushed")
            push(shell, "/run/pushed", "content\n")
            assert out.read().decode() == f"{OWN}-base\n"
            _, out, _ = shell.exec_command("cat /run/pushed")
            assert out.read().decode() == "content\n"
        inside(rig.container, "pkill", "-KILL", "-f", "health-responder")
        assert rig.container.wait(timeout=10)["StatusCode"] == 137
        assert "20-health ended with status 137" in logged(rig.container)


def test_base_stops_at_once() -> None:
    """SIGTERM ends a container at once, with status 0, also while it still waits for its network."""
    reference = ensure("base", ROOT / "topologies")
    with run_image(reference, f"{OWN}-stop") as (container, _):
        wait_for("it waits", lambda: "waiting for eth0" in logged(container), seconds=10)
        container.kill("SIGTERM")
        assert container.wait(timeout=5)["StatusCode"] == 0


def test_base_refuses_other_keys(key: Path, tmp_path: Path) -> None:
    """A key that is not on the list does not get in, and there are no passwords."""
    import paramiko

    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    mount = {f"{key}.pub": {"bind": "/run/testbed/authorized_keys", "mode": "ro"}}
    with between("base", volumes=mount) as rig:
        wait_for_health(rig.client, NEAR)
        with pytest.raises(paramiko.AuthenticationException), ssh(rig.client, NEAR, other):
            pass


def test_health_talks_http() -> None:
    """Only its path is answered with the health; connections that say nothing do not hold up others."""
    with between("base", environment={"HEALTH_PORT": "8081", "HEALTH_PATH": "/alive"}) as rig:
        wait_for("it listens", lambda: fetch(rig.client, NEAR, 8081, "/alive").status == 200, seconds=20)
        with entered(rig.client):
            idle = [socket.create_connection((NEAR, 8081)) for _ in range(20)]
        assert fetch(rig.client, NEAR, 8081, "/alive?from=lb").status == 200
        assert fetch(rig.client, NEAR, 8081, "/health").status == 404
        assert fetch(rig.client, NEAR, 8080, "/alive").status == 0
        idle[0].sendall(b"nonsense\r\n\r\n")
        assert idle[0].recv(100).startswith(b"HTTP/1.1 400 ")
        for each in idle:
            each.close()
        inside(rig.container, "sh", "-c", "printf '#!/bin/sh\\necho tired; exit 1' >/etc/health.d/own")
        inside(rig.container, "chmod", "+x", "/etc/health.d/own")
        reply = wait_for(
            "own check", lambda: fetch(rig.client, NEAR, 8081, "/alive"), lambda r: r.status == 503, seconds=5
        )
        assert reply.body == "own: tired\n"


def test_nft_firewall_follows_its_policy() -> None:
    """What is denied does not pass, in the order of the lines; all else does, and what leaves gets another address."""
    policy = f"deny tcp {SERVER} 81 ; deny udp any 5001; allow any from 10.0.0.0/8"
    with between("nft-firewall", environment={"POLICY": policy}) as rig, server(rig.server, 81), server(rig.server, 82):
        wait_for_health(rig.client, NEAR)
        assert fetch(rig.client, SERVER, 80).body == CLIENT
        assert fetch(rig.client, SERVER, 81).status == 0
        assert fetch(rig.client, SERVER, 82).body == CLIENT
        assert fetch(rig.server, CLIENT, 80).body == SERVER
        assert fetch(rig.client, OUTSIDE, 80).body == FAR
        assert datagram_arrives(rig, b"five thousand", 5000)
        assert not datagram_arrives(rig, b"denied", 5001)


def test_nft_firewall_is_stateful() -> None:
    """A TCP packet of a flow whose start it has not seen is dropped, a SYN is not."""
    from scapy.layers.inet import IP, TCP

    with between("nft-firewall") as rig:
        wait_for_health(rig.client, NEAR)
        head = IP(src=CLIENT, dst=SERVER)
        assert not arrives(rig, bytes(head / TCP(sport=999, dport=999, flags="A", seq=5, ack=7) / b"the packet"))
        assert not arrives(rig, bytes(head / TCP(sport=998, dport=999, flags="SA", seq=5, ack=7) / b"the packet"))
        assert arrives(rig, bytes(head / TCP(sport=997, dport=999, flags="S", seq=5) / b"the packet"))


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (
            lambda rig: rig.place.run("sysctl", "-qw", "net.ipv4.ip_forward=0"),
            "50-firewall.check: IPv4 forwarding is off",
        ),
        (
            lambda rig: rig.place.run("nft", "flush", "ruleset"),
            "50-firewall.check: no rules in chain ip firewall forward",
        ),
        (
            lambda rig: rig.place.run("nft", "flush", "chain", "ip", "firewall", "forward"),
            "50-firewall.check: no rules in chain ip firewall forward",
        ),
        (
            lambda rig: inside(rig.container, "sh", "-c", "mkdir -p /run/fault && touch /run/fault/probe-down"),
            "fault: /run/fault/probe-down",
        ),
    ],
    ids=["forwarding-off", "no-rules", "empty-chain", "probe-down"],
)
def test_nft_firewall_reports_its_data_path(breaks: Callable[[Rig], object], reason: str) -> None:
    """The probe is answered 503 as soon as packets cannot pass, or the fault is switched on; it says why."""
    with between("nft-firewall") as rig:
        wait_for_health(rig.client, NEAR)
        breaks(rig)
        assert fetch(rig.client, NEAR, 8080, "/health") == (503, f"{reason}\n")


def test_nft_firewall_ends_when_its_policy_is_wrong() -> None:
    """A policy that cannot be read ends the container, and its log quotes the line."""
    with between("nft-firewall", environment={"POLICY": "allow any; permit tcp"}) as rig:
        assert rig.container.wait(timeout=20)["StatusCode"] == 1
        assert "policy: ' permit tcp': starts with neither allow nor deny" in logged(rig.container)


def test_snat_gateway_gives_every_flow_its_own_address() -> None:
    """The server sees the gateway's address of the leg that the flow leaves by, in both directions."""
    with between("snat-gateway") as rig:
        wait_for_health(rig.client, NEAR)
        assert fetch(rig.client, SERVER).body == FAR
        assert fetch(rig.server, CLIENT).body == NEAR
        assert fetch(rig.client, OUTSIDE).body == FAR


def test_shallow_probe_lies() -> None:
    """Its probe is answered 200, and nothing gets through, even with its forwarding turned off."""
    with between("shallow-probe") as rig:
        wait_for_health(rig.client, NEAR)
        assert fetch(rig.client, SERVER).status == 0
        assert not datagram_arrives(rig, b"lost")
        rig.place.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        assert fetch(rig.client, NEAR, 8080, "/health").status == 200


def test_suricata_ips_blocks_a_signature() -> None:
    """A request with the test string is dropped and logged, over TCP and UDP; one without it passes."""
    with between("suricata-ips") as rig:
        wait_for_health(rig.client, NEAR)
        assert fetch(rig.client, SERVER, path="/harmless").body == CLIENT
        assert fetch(rig.client, SERVER, path="/testbed-attack-string").status == 0
        assert fetch(rig.client, SERVER, path="/bulk", seconds=10).body == BULK.decode()
        assert fetch(rig.client, OUTSIDE).body == FAR
        assert datagram_arrives(rig, b"harmless")
        assert not datagram_arrives(rig, b"a testbed-attack-string in a datagram", 5001)
        for words in ("TESTBED attack string over TCP", "TESTBED attack string over UDP"):
            wait_for(f"log: {words}", lambda words=words: words in logged(rig.container), seconds=5)  # type: ignore[misc] # bound


def test_suricata_ips_blocks_all_without_suricata() -> None:
    """While Suricata stands still no packet passes, and the probe tells; when it is killed the container ends."""
    with between("suricata-ips") as rig:
        wait_for_health(rig.client, NEAR)
        assert fetch(rig.client, SERVER).status == 200
        inside(rig.container, "pkill", "-STOP", "-x", "Suricata-Main")
        assert fetch(rig.client, SERVER).status == 0
        assert "packets wait in queue 0" in wait_for_health(rig.client, NEAR, 503).body
        inside(rig.container, "pkill", "-CONT", "-x", "Suricata-Main")
        wait_for_health(rig.client, NEAR)
        wait_for("it goes on", lambda: fetch(rig.client, SERVER).status == 200, seconds=10)
        inside(rig.container, "pkill", "-KILL", "-x", "Suricata-Main")
        assert rig.container.wait(timeout=10)["StatusCode"] == 137
        assert "50-suricata ended with status 137" in logged(rig.container)


def test_frr_router_learns_routes() -> None:
    """A neighbour's route gets into the kernel and is used; it goes, and the probe fails, with the neighbour."""
    announced = "198.51.100.0/24"
    first = {"ASN": "65001", "NEIGHBOR": "10.3.0.4", "NEIGHBOR_ASN": "65002", "BGP_TIMERS": "1 3"}
    first |= {"STATIC_ROUTES": f"192.0.2.0/24 {SERVER}", "NICS": "3"}
    second = {"ASN": "65002", "NEIGHBOR": "10.3.0.1", "NEIGHBOR_ASN": "65001", "NETWORKS": announced}
    reference = ensure("frr-router", ROOT / "topologies", print)
    with (
        between("frr-router", cap_add=FRR_CAPABILITIES, environment=first) as rig,
        run_image(reference, f"{OWN}-neighbour", cap_add=FRR_CAPABILITIES, environment=second) as (neighbour, place),
    ):
        connect(place, "eth0", "10.3.0.4/24", rig.place, "eth2", "10.3.0.1/24")
        place.run("ip", "route", "add", "10.1.0.0/16", "via", "10.3.0.1")
        place.run("ip", "address", "add", "198.51.100.4/32", "dev", "lo")

        def routes() -> str:
            return rig.place.run("ip", "route")

        wait_for_health(rig.client, NEAR)
        wait_for("the routes", routes, lambda text: f"{announced} " in text and "192.0.2.0/24 " in text, seconds=15)
        assert fetch(rig.client, "198.51.100.4", 8080, "/health").status == 200
        neighbour.kill("SIGKILL")
        assert "neighbor 10.3.0.4 is " in wait_for_health(rig.client, NEAR, 503).body
        wait_for("the route is withdrawn", routes, lambda text: f"{announced} " not in text, seconds=15)


def test_frr_router_says_what_it_lacks() -> None:
    """Without the capability that FRR asks for the container ends, and its log names the words for the document."""
    with between("frr-router") as rig:
        assert rig.container.wait(timeout=20)["StatusCode"] == 1
        assert "capabilities: [NET_ADMIN, NET_RAW, SYS_ADMIN]" in logged(rig.container)


def test_endpoint_serves() -> None:
    """It answers HTTP with its name, measures with iperf3, and has the clients for both."""
    reference = ensure("endpoint", ROOT / "topologies", print)
    with (
        run_image(reference, f"{OWN}-one") as (one, one_place),
        run_image(reference, f"{OWN}-two") as (_, two_place),
        namespace(f"{OWN}-look") as looker,
    ):
        connect(one_place, "eth0", "10.1.0.4/24", two_place, "eth0", "10.1.0.5/24")
        connect(looker, "eth0", "10.3.0.4/24", one_place, "eth1", "10.3.0.1/24")
        wait_for_health(looker.name, "10.3.0.1")
        curl = ("curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "http://10.1.0.5/any")
        assert inside(one, *curl) == f"{OWN}-two\n"
        assert '"bits_per_second"' in inside(one, "iperf3", "--client", "10.1.0.5", "--time", "1", "--json")
        assert "OpenSSH" in inside(one, "sh", "-c", "ssh -V 2>&1")
