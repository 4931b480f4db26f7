"""One TCP or TLS connection of a probe, over a non-blocking socket with exact control of source and mark."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connection", "PlainConnection", "ProbeTarget", "TlsConnection", "connect", "finish"]

_Answer = TypeVar("_Answer")
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
_CHUNK = 4096
_DER = 2  # _ssl.ENCODING_DER
_MOST_DRAINED = 1 << 20
#: Signature algorithms weaker than SHA-256 (MD2, MD5, SHA-1 with RSA, ECDSA, DSA), as DER object identifiers.
_WEAK_SIGNATURES = frozenset(
    bytes.fromhex(oid)
    for oid in (
        "2a864886f70d010102",
        "2a864886f70d010104",
        "2a864886f70d010105",
        "2a8648ce3d0401",
        "2a8648ce380403",
        "2b0e03021d",
        "2b0e03021b",
    )
)


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where a probe goes and as whom.

    ``mark`` is put on every packet (0: none); ``source`` is the address it comes from (None: the kernel
    chooses), and ``link`` the network interface that has it, for a link-local one.
    """

    address: str
    port: int
    mark: int = 0
    source: str | None = None
    link: str | None = None


class Connection(Protocol):
    """What an HTTP exchange needs."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""

    async def receive(self) -> bytes:
        """Some bytes; empty at the end."""


async def connect(target: ProbeTarget) -> socket.socket:
    """Complete a TCP handshake, in the network namespace of the calling thread.

    Raises:
        OSError: Refused, unreachable, or not permitted.
    """
    ipv6 = ":" in target.address
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if target.mark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, target.mark)
        if target.source is not None:
            # The port is chosen when the peer is known, so closed connections do not use up the ports.
            made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            link = socket.if_nametoindex(target.link) if target.link else 0
            made.bind((target.source, 0, 0, link) if ipv6 else (target.source, 0))
        await asyncio.get_running_loop().sock_connect(made, (target.address, target.port))
    except BaseException:
        made.close()
        raise
    return made


async def finish(connection: socket.socket, seconds: float) -> None:
    """Close in order: FIN, then read until the peer's FIN, because unread data would make it a reset."""
    loop = asyncio.get_running_loop()
    drained = 0
    try:
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(seconds):
            while drained < _MOST_DRAINED and (data := await loop.sock_recv(connection, _CHUNK)):
                drained += len(data)
    except OSError:  # the peer resets, or takes longer than we care; TimeoutError is one of these
        pass
    finally:
        connection.close()


class PlainConnection:
    """HTTP without TLS."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        """Some bytes; empty at the end."""
        return await self._loop.sock_recv(self._socket, _CHUNK)


@cache
def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a probe has no host name and trusts any issuer, as Azure's
    context.verify_mode = ssl.CERT_NONE
    return context


class TlsConnection:
    """HTTP over TLS: any certificate chain, but signed with SHA-256 or better; no SNI, no client certificate."""

    def __init__(self, connection: socket.socket) -> None:
        self._plain = PlainConnection(connection)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = _tls_context().wrap_bio(self._incoming, self._outgoing)

    async def handshake(self) -> str:
        """Agree on keys; return what is wrong with the certificate, or nothing.

        Raises:
            OSError: The connection or the handshake failed (``ssl.SSLError`` is one).
        """
        await self._drive(self._tls.do_handshake)
        weak = any(_weakly_signed(each) for each in _chain(self._tls))
        return "certificate signed with less than SHA-256" if weak else ""

    async def _drive(self, step: Callable[[], _Answer]) -> _Answer:
        """Repeat a step of the TLS machine, feeding it from the socket, until it is done."""
        while True:
            try:
                answer = step()
            except ssl.SSLWantReadError:
                await self._flush()
            else:
                await self._flush()
                return answer
            if data := await self._plain.receive():
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        self._tls.write(data)
        await self._flush()

    async def receive(self) -> bytes:
        """Some bytes; empty at the end."""
        try:
            return await self._drive(lambda: self._tls.read(_CHUNK))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._plain.send(data)


def _chain(tls: ssl.SSLObject) -> list[bytes]:
    """The certificates that the server sent, as DER; the server's own comes first."""
    if sys.version_info >= (3, 13):
        return tls.get_unverified_chain()
    # The same method, which older versions keep to themselves.
    sent = tls._sslobj.get_unverified_chain() or ()  # type: ignore[attr-defined] # noqa: SLF001
    return [each.public_bytes(_DER) for each in sent]


def _element(data: bytes, start: int) -> tuple[int, int]:
    """Where the contents of the DER element at ``start`` begin and end."""
    length = data[start + 1]
    begin = start + 2
    if length & 0x80:
        octets = length & 0x7F
        length = int.from_bytes(data[begin : begin + octets])
        begin += octets
    return begin, begin + length


def _weakly_signed(certificate: bytes) -> bool:
    """Whether the signature algorithm of a DER certificate is weak (RFC 5280, section 4.1)."""
    try:
        certificate_begin, _ = _element(certificate, 0)
        _, signed_end = _element(certificate, certificate_begin)
        algorithm_begin, _ = _element(certificate, signed_end)
        begin, end = _element(certificate, algorithm_begin)
    except IndexError:
        return True  # not a certificate
    return certificate[begin:end] in _WEAK_SIGNATURES
