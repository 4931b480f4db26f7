"""Containers wired by hand: a client on one side, a server on the other, and the image between them."""

from __future__ import annotations

import http.client
import socket
import subprocess
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import paramiko

from testbed.deadline import wait_for
from testbed.images import engine
from testbed.kernel.namespaces import adopt, create, delete, entered
from testbed.kernel.namespaces import path as mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.models.containers import Container

__all__ = [
    "BULK",
    "ROOT",
    "ROUTING",
    "Place",
    "Reply",
    "connect",
    "fetch",
    "logged",
    "namespace",
    "push",
    "run_image",
    "server",
    "ssh",
    "wait_for_health",
]

BULK = b"0123456789abcdef" * 65536
ROOT = Path(__file__).parents[2]
#: What the lab sets from outside, because a container cannot.
ROUTING = {"net.ipv4.ip_forward": "1", "net.netfilter.nf_conntrack_tcp_loose": "0"}


@dataclass(frozen=True)
class Place:
    """A network namespace, by its name."""

    name: str

    @property
    def net(self) -> str:
        """It, as ``nsenter`` wants to be told."""
        return f"--net={mount(self.name)}"

    def run(self, *command: str) -> str:
        """Run a command of this machine's in it."""
        words = ["nsenter", self.net, *command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@contextmanager
def namespace(name: str) -> Iterator[Place]:
    """A network namespace that goes with the block."""
    create(name, "images")
    try:
        yield Place(name)
    finally:
        delete(name)


@contextmanager
def run_image(reference: str, name: str, **options: Any) -> Iterator[tuple[Container, Place]]:
    """A container as the lab runs it: no network of the engine's, and two capabilities more than usual.

    Its namespace has a name, so that it outlives a container that ends while its cables are plugged in.
    """
    settings: dict[str, Any] = {"cap_add": ["NET_ADMIN", "NET_RAW"], "sysctls": ROUTING, "hostname": name}
    with closing(engine()) as client:
        container = client.containers.run(
            reference, detach=True, network_mode="none", name=name, **(settings | options)
        )
        try:
            container.reload()
            adopt(name, "images", container.attrs["State"]["Pid"])
            yield container, Place(name)
        finally:
            container.remove(force=True, v=True)
            delete(name)


def connect(one: Place, one_link: str, one_address: str, two: Place, two_link: str, two_address: str) -> None:
    """A cable: a veth pair, with an address at each end."""
    one.run("ip", "link", "add", one_link, "type", "veth", "peer", "name", two_link, "netns", two.name)
    for place, link, address in ((one, one_link, one_address), (two, two_link, two_address)):
        place.run("ip", "address", "add", address, "dev", link)
        place.run("ip", "link", "set", link, "up")


class _Mirror(BaseHTTPRequestHandler):
    """Says who asks; ``/bulk`` has more to say than a few packets hold."""

    def do_GET(self) -> None:
        body = BULK if self.path == "/bulk" else self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        """Say nothing."""


@contextmanager
def server(place: str, port: int = 80) -> Iterator[None]:
    """An HTTP server in a named namespace; its answer is the client's address as it sees it."""
    with entered(place):
        listener = ThreadingHTTPServer(("0.0.0.0", port), _Mirror)
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


class Reply(NamedTuple):
    """Of an HTTP server; status 0: there was none, and the body says why."""

    status: int
    body: str


def fetch(place: str, host: str, port: int = 80, path: str = "/", *, seconds: float = 1.0) -> Reply:
    """GET from inside a namespace."""
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        with entered(place):
            connection.connect()
        connection.request("GET", path)
        answer = connection.getresponse()
        return Reply(answer.status, answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        return Reply(0, str(error))
    finally:
        connection.close()


def wait_for_health(place: str, host: str, status: int = 200, *, port: int = 8080, seconds: float = 20) -> Reply:
    """Ask for the health until it is as wanted."""
    return wait_for(
        f"health of {host} is {status}",
        lambda: fetch(place, host, port, "/health"),
        lambda reply: reply.status == status,
        seconds=seconds,
        interval=0.05,
    )


@contextmanager
def ssh(place: str, host: str, key: Path) -> Iterator[paramiko.SSHClient]:
    """Log in as root with a key, from inside a namespace."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - it was made a second ago, by a test
    with entered(place):
        connection = socket.create_connection((host, 22), timeout=10)
    try:
        client.connect(
            host,
            username="root",
            key_filename=str(key),
            sock=connection,
            allow_agent=False,
            look_for_keys=False,
            timeout=10,
            banner_timeout=10,
            auth_timeout=10,
        )
        yield client
    finally:
        client.close()
        connection.close()


def push(shell: paramiko.SSHClient, target: str, content: str) -> None:
    """Write a file by SFTP."""
    with shell.open_sftp() as files, files.open(target, "w") as file:
        file.write(content)


def logged(container: Container) -> str:
    """What the container has said so far."""
    return container.logs().decode(errors="replace")
