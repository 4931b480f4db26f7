"""The program ``echo``: a machine that answers TCP, UDP and HTTP on every port.

There is one TCP listener and one UDP socket; the machine's own nftables redirects every port to them on which
no other socket of the machine waits, so a real service can be started beside it at any time.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.kernel import nft, sysctl
from testbed.nodes.datagrams import REPLY_DSCP, DatagramEcho
from testbed.nodes.fault_switch import FaultSwitch, ResponderFault
from testbed.nodes.program import listening_families, raise_descriptor_limit, read_config, until_terminated
from testbed.nodes.stream import StreamConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.nodes.http_server import Request

__all__ = ["EchoConfig", "run"]

_PORT = 7  # the echo service of RFC 862
_BACKLOG = 65_535
_RULES = """\
table {family} testbed
delete table {family} testbed
table {family} testbed {{
  chain to_echo {{
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto {{ tcp, udp }} socket wildcard 0 accept comment "a service of this machine"
    meta l4proto {{ tcp, udp }} socket wildcard 1 accept
    meta l4proto {{ tcp, udp }} redirect to :{port}
  }}
  chain no_loops {{
    type filter hook input priority filter; policy accept;
    udp dport {port} {family} dscp {reply} drop comment "an echo is not echoed"
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class EchoConfig:
    """``machine`` is what HTTP answers with; ``control`` the control socket.

    Faults concern what comes from ``probe_source`` only, because every port may be a probe's. ``ipv6_probe_source``
    is the same for IPv6; None: IPv4 only.
    """

    machine: str
    control: str | None = None
    probe_source: str = "168.63.129.16"
    ipv6_probe_source: str | None = None


async def run(config: str, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM.

    Raises:
        LabError: The port is taken, or nftables refuses.
    """
    own = read_config(EchoConfig, config)
    raise_descriptor_limit()
    for key in ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"):
        with suppress(LabError):  # a smaller backlog serves as well, only not as many at once
            sysctl.write(key, str(_BACKLOG))
    loop = asyncio.get_running_loop()
    try:  # the port first of all: who has it is the machine's echo, and the control socket is its own
        families = listening_families(ipv6=own.ipv6_probe_source is not None)
        listeners = [socket.create_server(("", _PORT), family=family, backlog=_BACKLOG) for family in families]
        datagrams = [DatagramEcho(_PORT, family) for family in families]
    except OSError as error:
        raise LabError(f"machine {own.machine!r}: port {_PORT} cannot be had: {error}") from error
    probes = [f"ip saddr {own.probe_source}"]
    probes += [f"ip6 saddr {own.ipv6_probe_source}"] if own.ipv6_probe_source else []
    async with FaultSwitch(own.control, *probes) as switch:
        connection = partial(_EchoConnection, own, switch)
        servers = [await loop.create_server(connection, sock=each, backlog=_BACKLOG) for each in listeners]
        for each in datagrams:
            loop.add_reader(each.fileno(), each.serve)
        for name in ("ip", "ip6")[: len(families)]:
            nft.run(_RULES.format(family=name, port=_PORT, reply=REPLY_DSCP))
        ready()
        await until_terminated()
        for each in datagrams:
            loop.remove_reader(each.fileno())
            each.close()
        for server in servers:
            server.close()


class _EchoConnection(StreamConnection):
    """Knows its peer, because a fault is for probes only."""

    def __init__(self, config: EchoConfig, switch: FaultSwitch) -> None:
        super().__init__(self._status_and_body, echo=True)
        self._config = config
        self._switch = switch
        self._peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._peer = peer[0].partition("%")[0] if peer else ""  # a link-local one has its link behind it
        super().connection_made(transport)

    def _status_and_body(self, _request: Request) -> tuple[int, bytes]:
        sources = (self._config.probe_source, self._config.ipv6_probe_source)
        failing = self._switch.fault is ResponderFault.PROBE_DOWN and self._peer in sources
        return (503 if failing else 200), f"{self._config.machine}\n".encode()
