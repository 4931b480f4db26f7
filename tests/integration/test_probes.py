"""Real probes over a real cable: two namespaces, a veth between them, servers that behave well and badly."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from conftest import inside

from testbed.kernel import nft
from testbed.kernel.namespaces import entered
from testbed.probes.connection import ProbeTarget
from testbed.probes.health import ProbeResult, ResultKind
from testbed.probes.probers import Prober

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SERVER = "10.99.0.2"
SOURCE = "168.63.129.16"
MARK = 5
LIMIT = 0.4


@dataclass(frozen=True)
class Wire:
    """Namespaces of the two ends; only packets with the mark find the way to the server."""

    client: str
    server: str


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A cable whose client end owns the probe source address."""
    made = Wire(f"pw{os.getpid()}-a", f"pw{os.getpid()}-b")
    try:
        for name in (made.client, made.server):
            _ip("netns", "add", name)
            inside(name, "ip", "link", "set", "lo", "up")
        inside(made.client, "ip", "link", "add", "v0", "type", "veth", "peer", "v0", "netns", made.server)
        for name in (made.client, made.server):
            inside(name, "ip", "link", "set", "v0", "up")
        inside(made.client, "ip", "addr", "add", f"{SOURCE}/32", "dev", "lo")
        inside(made.client, "ip", "route", "add", "default", "dev", "v0", "table", "105")
        inside(made.client, "ip", "rule", "add", "fwmark", f"{MARK}/0xffff", "lookup", "105")
        inside(made.server, "ip", "addr", "add", f"{SERVER}/24", "dev", "v0")
        inside(made.server, "ip", "route", "add", "default", "dev", "v0")
        yield made
    finally:
        for name in (made.client, made.server):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _probe(
    wire: Wire,
    protocol: str,
    handler: Handler | None,
    *,
    tls: ssl.SSLContext | None = None,
    port: int | None = None,
    mark: int = MARK,
) -> ProbeResult:
    """One probe against a server in the other namespace; without a handler nothing listens."""
    handled: list[asyncio.Task[None] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(asyncio.current_task())
        assert handler
        try:
            await handler(reader, writer)
        finally:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

    async def scenario() -> ProbeResult:
        with entered(wire.server):
            listener = socket.create_server((SERVER, 0))
        chosen = port or listener.getsockname()[1]
        prober = Prober()
        server = None
        try:
            if handler is None:
                listener.close()
            else:
                server = await asyncio.start_server(handle, sock=listener, ssl=tls)
            target = ProbeTarget(SERVER, chosen, mark, SOURCE)
            return await prober.probe(target, protocol, LIMIT, "/health")
        finally:
            await _until_closed(prober)
            if server:
                server.close()
            async with asyncio.timeout(5):
                await asyncio.gather(*(task for task in handled if task), return_exceptions=True)

    with entered(wire.client):
        return asyncio.run(scenario())


async def _until_closed(prober: Prober) -> None:
    """Let the orderly close end, so that the server's side sees it."""
    async with asyncio.timeout(5):
        await asyncio.gather(*prober._closing)
    await prober.close()


def _answering(answer: bytes, seen: list[bytes] | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return handle


def test_tcp_probe_is_a_handshake_and_an_orderly_close(wire: Wire) -> None:
    """The server sees a connection from 168.63.129.16, no data, and an end, not a reset, even when it sent a banner."""
    seen: list[object] = []

    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-test\r\n")
        seen.append(writer.get_extra_info("peername")[0])
        try:
            seen.append(await reader.read())
        except ConnectionResetError:
            seen.append("reset")
        writer.close()

    result = _probe(wire, "Tcp", banner)
    assert result.kind is ResultKind.SUCCESS
    assert seen == [SOURCE, b""]


def test_http_200_is_a_success(wire: Wire) -> None:
    """A GET of the request path, with the address as host; 200 is a success."""
    seen: list[bytes] = []
    result = _probe(wire, "Http", _answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", seen))
    assert (result.kind, result.detail) == (ResultKind.SUCCESS, "HTTP 200")
    assert seen[0].startswith(b"GET /health HTTP/1.1\r\n")
    assert f"\r\nHost: {SERVER}\r\n".encode() in seen[0]


@pytest.mark.parametrize("status", [204, 301, 302, 404, 503])
def test_other_statuses_are_failures(wire: Wire, status: int) -> None:
    """Everything but 200 fails; a redirect is not followed."""
    head = f"HTTP/1.1 {status} X\r\nLocation: http://{SERVER}/\r\n\r\n"
    result = _probe(wire, "Http", _answering(head.encode()))
    assert (result.kind, result.detail) == (ResultKind.WRONG_STATUS, f"HTTP {status}")


@pytest.mark.parametrize("protocol", ["Tcp", "Http", "Https"])
def test_a_closed_port_refuses(wire: Wire, protocol: str) -> None:
    """A reset is told as such, and at once."""
    result = _probe(wire, protocol, None)
    assert (result.kind, result.detail) == (ResultKind.REFUSED, "connection refused")
    assert result.duration < LIMIT


@pytest.mark.parametrize("protocol", ["Tcp", "Http", "Https"])
def test_a_silent_drop_times_out(wire: Wire, protocol: str) -> None:
    """When packets vanish the probe ends at its timeout, neither earlier nor much later."""
    with entered(wire.server):
        nft.run(
            "table ip t {\n chain c {\n type filter hook input priority 0; policy accept;\n tcp dport 999 drop\n }\n}"
        )
    try:
        result = _probe(wire, protocol, None, port=999)
    finally:
        with entered(wire.server):
            nft.run("delete table ip t")
    assert (result.kind, result.detail) == (ResultKind.TIMEOUT, "timeout after 400 ms")
    assert LIMIT <= result.duration < LIMIT + 0.3


def test_the_mark_chooses_the_way(wire: Wire) -> None:
    """Without the member's mark the packet finds no route: the mark really is on the socket."""
    result = _probe(wire, "Tcp", _answering(b""), mark=0)
    assert (result.kind, result.detail) == (ResultKind.UNREACHABLE, "network is unreachable")


def test_an_answer_just_before_the_limit_counts(wire: Wire) -> None:
    """A server that takes half the time is healthy."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(LIMIT / 2)
        writer.write(b"HTTP/1.0 200\r\n\r\n")
        writer.close()

    result = _probe(wire, "Http", slow)
    assert result.kind is ResultKind.SUCCESS
    assert result.duration >= LIMIT / 2


def test_an_answer_in_small_pieces_counts(wire: Wire) -> None:
    """A status line that comes byte by byte, in time, is read."""

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.close()

    assert _probe(wire, "Http", trickle).detail == "HTTP 200"


def test_the_timeout_covers_the_whole_exchange(wire: Wire) -> None:
    """A server that keeps sending bytes without end of line does not stretch the timeout."""

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            writer.close()

    started = time.monotonic()
    assert _probe(wire, "Http", endless).kind is ResultKind.TIMEOUT
    assert time.monotonic() - started < 5 * LIMIT


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n", "the answer is not HTTP"),
        (b"\x00" * 100_000, "the answer is not HTTP"),
        (b"HTTP/1.1 200" + b" " * 100_000, "the answer is not HTTP"),
        (b"HTTP/1.1 200", "the answer is not HTTP"),
    ],
)
def test_garbage_is_no_answer(wire: Wire, answer: bytes, detail: str) -> None:
    """What is not HTTP is a failure of its own kind, however much of it comes."""
    result = _probe(wire, "Http", _answering(answer))
    assert (result.kind, result.detail) == (ResultKind.INVALID_ANSWER, detail)


def test_a_huge_body_does_no_harm(wire: Wire) -> None:
    """The status line decides; ten megabytes behind it are not waited for."""
    result = _probe(wire, "Http", _answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000))
    assert result.kind is ResultKind.SUCCESS


def test_a_reset_after_the_request_is_told(wire: Wire) -> None:
    """A server that aborts the connection gives `connection reset`."""

    async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    result = _probe(wire, "Http", abort)
    assert (result.kind, result.detail) == (ResultKind.REFUSED, "connection reset")


def _server_tls(directory: Path, digest: str) -> ssl.SSLContext:
    key, certificate = directory / "k.pem", directory / "c.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", f"-{digest}", "-subj", "/CN=someone-else"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(certificate, key)
    return context


def test_https_takes_any_name_and_issuer(wire: Wire, tmp_path: Path) -> None:
    """A self-signed certificate for another name is fine."""
    result = _probe(wire, "Https", _answering(b"HTTP/1.1 200 OK\r\n\r\n"), tls=_server_tls(tmp_path, "sha256"))
    assert (result.kind, result.detail) == (ResultKind.SUCCESS, "HTTP 200")


def test_https_sees_the_status(wire: Wire, tmp_path: Path) -> None:
    """A 503 inside TLS is a 503."""
    result = _probe(wire, "Https", _answering(b"HTTP/1.1 503 No\r\n\r\n"), tls=_server_tls(tmp_path, "sha256"))
    assert (result.kind, result.detail) == (ResultKind.WRONG_STATUS, "HTTP 503")


def test_https_refuses_a_weak_signature(wire: Wire, tmp_path: Path) -> None:
    """A certificate signed with SHA-1 fails the probe."""
    result = _probe(wire, "Https", _answering(b"HTTP/1.1 200 OK\r\n\r\n"), tls=_server_tls(tmp_path, "sha1"))
    assert (result.kind, result.detail) == (ResultKind.INVALID_ANSWER, "certificate signed with less than SHA-256")


def test_https_to_a_plain_server_fails(wire: Wire) -> None:
    """A server that speaks no TLS is an invalid answer."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    result = _probe(wire, "Https", plain)
    assert result.kind in (ResultKind.INVALID_ANSWER, ResultKind.REFUSED)
    assert result.detail.startswith(("TLS: ", "connection reset"))
