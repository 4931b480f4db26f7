"""When a machine is ready: each condition of the document as a check that says what is still missing.

A check looks once and takes its time at most; waiting is the caller's
(:func:`testbed.deadline.wait_for` with :func:`pending`).
"""

from __future__ import annotations

import re
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from testbed.access.reach import cause, open_socket
from testbed.errors import InputError, LabError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from testbed.access.reach import Reach
    from testbed.access.transport import Transport
    from testbed.topology.runtimes import Ready

__all__ = ["Condition", "Sources", "conditions", "pending"]

_CONNECTION_SECONDS = 2.0
_COMMAND_SECONDS = 10.0
_LONGEST_STATUS_LINE = 4096
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)[ \r\n]")


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing to wait for: what it is called, and a look at it: what was seen instead, or nothing when it is so."""

    name: str
    look: Callable[[], str]

    def pending(self) -> str:
        """What is still waited for and what was seen last, e.g. ``tcp 22: connection refused``; empty when it is so."""
        seen = self.look()
        return f"{self.name}: {seen}" if seen else ""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a machine's state can be seen.

    ``log`` gives all that it has said; ``health`` the engine's word for a container's health (empty: it has no health
    check); ``ssh`` a way in, made when it is asked for, and closed by whoever asked.
    """

    reach: Reach
    log: Callable[[], str]
    health: Callable[[], str]
    ssh: Callable[[], Transport]


def conditions(ready: Ready, sources: Sources) -> tuple[Condition, ...]:
    """All conditions of a machine.

    Raises:
        InputError: The URL is not one of the machine's primary network interface, or the expression is none.
    """
    found = []
    if ready.tcp is not None:
        found.append(_tcp(ready.tcp, sources.reach))
    if ready.http is not None:
        found.append(_http(ready.http, sources.reach))
    if ready.ssh is not None:
        found.append(_ssh(ready.ssh, sources.ssh))
    if ready.log is not None:
        found.append(_log(ready.log, sources.log))
    if ready.container_health:
        found.append(_health(sources.health))
    return tuple(found)


def pending(all_of: Iterable[Condition]) -> list[str]:
    """What is still waited for; empty when everything is so.

    Raises:
        InputError: Something that no waiting brings: a password or a key is not there.
    """
    return [text for each in all_of if (text := each.pending())]


def _tcp(port: int, reach: Reach) -> Condition:
    def look() -> str:
        try:
            open_socket(reach, port, _CONNECTION_SECONDS).close()
        except OSError as error:
            return cause(error, _CONNECTION_SECONDS)
        except LabError as error:
            return error.message
        return ""

    return Condition(f"tcp {port}", look)


def _http(url: str, reach: Reach) -> Condition:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (KeyError, ValueError) as error:
        fix = f"write a URL such as http://{reach.address}:8080/health"
        raise InputError(f"machine {reach.machine!r}: {url!r} is not a URL of HTTP or HTTPS", fix=fix) from error
    if parts.hostname not in (None, reach.address):
        raise InputError(
            f"machine {reach.machine!r}: ready.http asks {parts.hostname}, which is not its primary network interface",
            fix=f"write {reach.address}, where the machine answers the platform's address",
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = f"GET {target} HTTP/1.1\r\nHost: {reach.address}:{port}\r\nConnection: close\r\n\r\n".encode()

    def look() -> str:
        try:
            return _get(reach, port, request, tls=parts.scheme == "https")
        except ssl.SSLError as error:
            return f"TLS: {error.reason or error}"
        except OSError as error:
            return cause(error, _CONNECTION_SECONDS)
        except LabError as error:
            return error.message

    return Condition(f"http {url}", look)


def _get(reach: Reach, port: int, request: bytes, *, tls: bool) -> str:
    """The status of an answer other than 200, or what there is instead of one; all of it within its time."""
    deadline = time.monotonic() + _CONNECTION_SECONDS
    with open_socket(reach, port, _CONNECTION_SECONDS) as plain:
        connection: socket.socket = plain
        if tls:
            connection = _any_certificate().wrap_socket(plain)
        with connection:
            connection.sendall(request)
            received = b""
            while b"\n" not in received and len(received) < _LONGEST_STATUS_LINE:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(_LONGEST_STATUS_LINE)
                if not data:
                    break
                received += data
    found = _STATUS_LINE.match(received)
    if found:
        status = int(found[1])
        return "" if status == 200 else str(status)
    return "the answer is not HTTP" if received else "closed without an answer"


def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a machine of a lab has no name that anybody could vouch for
    context.verify_mode = ssl.CERT_NONE
    return context


def _ssh(command: str, way_in: Callable[[], Transport]) -> Condition:
    def look() -> str:
        try:
            with way_in() as transport:
                status = transport.run(command, seconds=_COMMAND_SECONDS).status
        except LabError as error:
            return error.message
        return f"exit {status}" if status else ""

    return Condition(f"ssh {command!r}", look)


def _log(expression: str, log: Callable[[], str]) -> Condition:
    try:
        wanted = re.compile(expression, re.MULTILINE)
    except re.error as error:
        fix = "see the syntax of Python's re"
        raise InputError(f"{expression!r} is not a regular expression: {error}", fix=fix) from error

    def look() -> str:
        try:
            text = log()
        except LabError as error:
            return error.message
        return "" if wanted.search(text) else f"not seen ({len(text.splitlines())} lines)"

    return Condition(f"log /{expression}/", look)


def _health(health: Callable[[], str]) -> Condition:
    def look() -> str:
        try:
            word = health()
        except LabError as error:
            return error.message
        return "" if word == "healthy" else word or "the image has no HEALTHCHECK"

    return Condition("container health", look)
