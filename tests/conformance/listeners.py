"""Servers in a machine that do with each probe what a test says: answer, late or wrongly, reset, or say nothing."""

from __future__ import annotations

import selectors
import socket
import ssl
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from labs import Lab

__all__ = ["Act", "Listener", "server_tls"]

_AT_ONCE = b"\x01\0\0\0\0\0\0\0"  # SO_LINGER of 0 s: a close is a reset


@dataclass(frozen=True)
class Act:
    """What is done with a connection; without a status nothing is said until the peer is gone."""

    status: int | None = 200
    delay: float = 0.0
    reset: bool = False
    headers: str = ""


class Listener:
    """A server on a port of a machine. ``act`` is given the request and its number, from 0.

    Without ``act`` it reads until the peer closes, as a service that a TCP probe knocks at.
    """

    def __init__(
        self,
        lab: Lab,
        machine: str,
        port: int,
        act: Callable[[str, int], Act] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        address: str = "",
    ) -> None:
        self._socket = lab.open(machine, socket.SOCK_STREAM, port, address)
        self._act, self._tls = act, tls
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        #: Requests (of TCP: what was sent) in the order in which they were complete, and who sent them.
        self.requests: list[str] = []
        self.peers: list[str] = []

    def __enter__(self) -> Self:
        self._socket.listen(64)
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()
        self._socket.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._socket.settimeout(0.05)
        while not self._stop.is_set():
            with suppress(TimeoutError):
                connection, peer = self._socket.accept()
                self._start(self._serve, connection, peer[0])

    def _serve(self, plain: socket.socket, peer: str) -> None:
        with ExitStack() as stack, suppress(OSError):
            stack.callback(plain.close)
            plain.settimeout(5)
            connection = plain
            if self._tls:
                connection = stack.enter_context(self._tls.wrap_socket(plain, server_side=True))
            received = b""
            while not (self._act and b"\r\n\r\n" in received):
                data = connection.recv(4096)
                received += data
                if not data:
                    break
            with self._lock:
                number = len(self.requests)
                self.requests.append(received.decode())
                self.peers.append(peer)
            if self._act and received:
                self._answer(connection, self._act(received.decode(), number))

    def _answer(self, connection: socket.socket, act: Act) -> None:
        if act.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            return
        if act.status is None:
            with selectors.DefaultSelector() as selector:
                selector.register(connection, selectors.EVENT_READ)
                while not self._stop.is_set() and not selector.select(0.05):
                    pass
            return
        deadline = time.monotonic() + act.delay
        while (left := deadline - time.monotonic()) > 0 and not self._stop.wait(left):
            pass
        connection.sendall(f"HTTP/1.1 {act.status} x\r\n{act.headers}Content-Length: 0\r\n\r\n".encode())


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder, timeout=60)


def server_tls(
    folder: Path, digest: str = "sha256", issuer_digest: str = "sha256", *, days: int = 30, client: bool = False
) -> ssl.SSLContext:
    """A TLS server with a fresh certificate and its issuer's, which nobody trusts.

    Args:
        folder: For the files.
        digest: Of the signature of the server's own certificate. (By openssl: Python's library signs no SHA-1.)
        issuer_digest: Of the issuer's.
        days: How long the server's own is valid.
        client: Whether it wants a certificate of its client.
    """
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout")
    issued = ("-CA", "issuer.pem", "-CAkey", "issuer.key", "-CAcreateserial", "-days", str(days))
    _openssl(
        folder, "req", "-x509", *key, "issuer.key", f"-{issuer_digest}", "-subj", "/CN=issuer", "-out", "issuer.pem"
    )
    _openssl(folder, "req", *key, "own.key", "-subj", "/CN=someone-else", "-out", "own.csr")
    _openssl(folder, "x509", "-req", "-in", "own.csr", *issued, f"-{digest}", "-out", "own.pem")
    (folder / "chain.pem").write_text((folder / "own.pem").read_text() + (folder / "issuer.pem").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(folder / "chain.pem", folder / "own.key")
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "issuer.pem")
    return context
