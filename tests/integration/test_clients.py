"""Real programs through the appliances: curl, iperf3, ssh and scp, on odd ports."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import testbed

from testbed.deadline import wait_for
from testbed.kernel import namespaces, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def background(lab: Callable[..., str]) -> Iterator[Callable[..., None]]:
    """Run servers in machines; they are ended with the test, and before the lab."""
    del lab
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, machine: str, port: int, *command: str) -> None:
        namespace = f"{name}-{machine}"
        with namespaces.entered(namespace):
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_for(
            f"{command[0]} listens on {port}",
            lambda: testbed("exec", name, machine, "--", "ss", "-Hltn", "sport", "=", f":{port}").out,
            seconds=10,
        )

    yield start
    for each in started:
        processes.end([processes.identify(each.pid)])
        each.wait()


def test_curl_on_many_ports(lab: Callable[..., str]) -> None:
    """The echo machine answers HTTP with its name on every port, the well-known ones included."""
    name = lab("hub-spoke")
    for port in (1, 22, 80, 443, 8080, 31337, 65535):
        out = testbed("exec", name, "web1", "--", "curl", "-sf", "-m", "5", f"http://10.2.0.4:{port}/any").out
        assert out == "web2\n"
    out = testbed("exec", name, "web1", "--", "curl", "-sf", "-m", "5", "http://203.0.113.4:4711/").out
    assert out == "internet\n"


def test_the_internet_sees_no_private_address(
    lab: Callable[..., str], background: Callable[..., None], tmp_path: Path
) -> None:
    """What leaves is source-translated: the server outside sees the public address."""
    name = lab("hub-spoke")
    seen = tmp_path / "seen"
    script = (
        "import socket; s = socket.create_server(('0.0.0.0', 4444)); c, a = s.accept(); "
        f"open({str(seen)!r}, 'w').write(a[0]); c.sendall(b'seen'); c.close()"
    )
    background(name, "internet", 4444, "python3", "-c", script)
    try:
        fetch = "import socket; print(socket.create_connection(('203.0.113.4', 4444), 5).recv(9).decode())"
        assert testbed("exec", name, "web1", "--", "python3", "-c", fetch).out == "seen\n"
        assert seen.read_text() == "203.0.113.1"
    finally:
        seen.unlink(missing_ok=True)


def test_nobody_outside_opens_a_connection(lab: Callable[..., str]) -> None:
    """The internet machine cannot reach private addresses, nor the frontend."""
    name = lab("hub-spoke")
    for address in ("10.1.0.4", "10.0.2.4", "10.0.1.4"):
        done = testbed("exec", name, "internet", "--", "curl", "-s", "-m", "1", f"http://{address}/", check=False)
        assert done.status == 28  # curl: timed out; dropped and not refused


def test_iperf3_tcp_and_udp(lab: Callable[..., str], background: Callable[..., None]) -> None:
    """Parallel streams in both directions, and UDP without loss at a low rate, on a port of our own."""
    name = lab("hub-spoke")
    background(name, "web2", 47001, "iperf3", "-s", "-p", "47001")
    base = ("exec", name, "web1", "--", "iperf3", "-c", "10.2.0.4", "-p", "47001", "-t", "1", "-J")
    for extra in (("-P", "4"), ("-P", "4", "-R")):
        report = testbed(*base, *extra).out
        assert '"sum_received"' in report
    assert '"lost_packets":\t0' in testbed(*base, "-u", "-b", "5M").out


def test_ssh_and_scp_of_a_large_file(lab: Callable[..., str], background: Callable[..., None], tmp_path: Path) -> None:
    """A key login and a 32 MB copy through a stateful NVA arrive whole."""
    name = lab("hub-spoke")
    keys, host_key = tmp_path / "user", tmp_path / "host"
    for each in (keys, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(each)], check=True)
    server = [sys.executable, str(Path(__file__).with_name("ssh_server.py")), "2222", str(host_key), str(keys)]
    background(name, "web2", 2222, *server)
    payload, copy = tmp_path / "payload", tmp_path / "copy"
    payload.write_bytes(os.urandom(1 << 20) * 32)
    trust = ["-q", "-i", keys, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    testbed("exec", name, "web1", "--", "scp", "-O", *trust, "-P", "2222", payload, f"root@10.2.0.4:{copy}")
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(payload.read_bytes()).digest()
    out = testbed("exec", name, "web1", "--", "ssh", *trust, "-p", "2222", "root@10.2.0.4", "echo", "hello").out
    assert out == "hello\n"


@pytest.mark.parametrize("topology", ["all-ports-app", "all-ports-app-dsr"])
def test_every_port_of_the_frontend(lab: Callable[..., str], topology: str) -> None:
    """Clients reach the application at the frontend's address on any port, and see only that address."""
    name = lab(topology)
    status = testbed("status", name, "--json").json
    members = {each["machine"] for each in status["load_balancers"][0]["members"]}
    client = next(each["name"] for each in status["machines"] if each["name"] not in members)
    frontend = frontend_address(name, client)
    answers = set()
    for port in (1, 53, 80, 443, 12345, *range(20000, 20016), 65535):
        out = testbed("exec", name, client, "--", "curl", "-sf", "-m", "5", f"http://{frontend}:{port}/").out
        answers.add(out.strip())
    assert answers == members
    ask = (
        "import socket, sys\n"
        "for n in range(64):\n"
        "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n"
        f"    s.connect(({frontend!r}, 30000 + n)); s.send(b'%d' % n); assert s.recv(9) == b'%d' % n\n"
    )
    testbed("exec", name, client, "--", "python3", "-c", ask)  # connect(): only answers from the frontend count


def frontend_address(name: str, client: str) -> str:
    """The frontend's address, from the document the lab was made of."""
    from testbed.lab.state import State
    from testbed.lab.up import load_plan

    del client
    return load_plan(State(name)).rules[0].frontend_address


def test_traffic_goes_on_during_a_planned_change(lab: Callable[..., str]) -> None:
    """A download that runs while another member joins and leaves the eligible ones is not disturbed."""
    name = lab("hub-spoke")
    result: list[int] = []

    def download() -> None:
        script = (
            "import socket; s = socket.create_connection(('10.2.0.4', 5555), 5)\n"
            "for n in range(400):\n"
            "    s.sendall(b'x' * 8000); got = 0\n"
            "    while got < 8000: got += len(s.recv(8000 - got))\n"
        )
        result.append(testbed("exec", name, "web1", "--", "python3", "-c", script, check=False).status)

    thread = threading.Thread(target=download)
    thread.start()
    for _ in range(3):
        testbed("fault", name, "nva1", "probe-down")
        testbed("fault", name, "nva1", "--clear")
        testbed("fault", name, "nva2", "probe-down")
        testbed("fault", name, "nva2", "--clear")
    thread.join()
    assert result == [0]
