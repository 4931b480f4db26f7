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
from testbed.nodes.program import raise_descriptor_limit, read_config, until_terminated
from testbed.nodes.stream import StreamConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.nodes.http_server import Request

__all__ = ["EchoConfig", "run"]

_PORT = 7  # the echo service of RFC 862
_BACKLOG = 65_535
_TABLE = "ip testbed"
_RULES = f"""\
table {_TABLE}
delete table {_TABLE}
table {_TABLE} {{
  chain to_echo {{
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto {{ tcp, udp }} socket wildcard 0 accept comment "a service of this machine"
    meta l4proto {{ tcp, udp }} socket wildcard 1 accept
    meta l4proto {{ tcp, udp }} redirect to :{_PORT}
  }}
  chain no_loops {{
    type filter hook input priority filter; policy accept;
    udp dport {_PORT} ip dscp {REPLY_DSCP} drop comment "an echo is not echoed"
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class EchoConfig:
    """``machine`` is what HTTP answers with; ``control`` the control socket.

    Faults concern what comes from ``probe_source`` only, because every port may be a probe's.
    """

    machine: str
    control: str | None = None
    probe_source: str = "168.63.129.16"


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
        listener = socket.create_server(("", _PORT), backlog=_BACKLOG)
        datagrams = DatagramEcho(_PORT)
    except OSError as error:
        raise LabError(f"machine {own.machine!r}: port {_PORT} cannot be had: {error}") from error
    async with FaultSwitch(own.control, f"ip saddr {own.probe_source}") as switch:
        server = await loop.create_server(partial(_EchoConnection, own, switch), sock=listener, backlog=_BACKLOG)
        loop.add_reader(datagrams.fileno(), datagrams.serve)
        nft.run(_RULES)
        ready()
        await until_terminated()
        loop.remove_reader(datagrams.fileno())
        datagrams.close()
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
        self._peer = peer[0] if peer else ""
        super().connection_made(transport)

    def _status_and_body(self, _request: Request) -> tuple[int, bytes]:
        failing = self._switch.fault is ResponderFault.PROBE_DOWN and self._peer == self._config.probe_source
        return (503 if failing else 200), f"{self._config.machine}\n".encode()
