"""The program ``dhcp``: the platform's DHCP server, in the fabric, for machines with a kernel of their own.

As Azure's: each network interface is offered the one address that the document gives it, for ever; the way out, and the
host routes to the platform's addresses, come with the primary network interface only ("What is IP address
168.63.129.16?", "Add network interfaces to or remove from virtual machines"). RFC 2131, 2132, 3442.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any

from testbed.nodes.program import until_terminated

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lease", "answer", "run"]

_SERVER_PORT, _CLIENT_PORT = 67, 68
_BROADCAST_FLAG = 0x8000
_FOR_EVER = 0xFFFFFFFF
_REPLY = 2
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK, _INFORM = 1, 2, 3, 5, 6, 8
_LONGEST = 2048
_IP_PKTINFO = 8  # linux/in.h
_PKTINFO = struct.Struct("=i4s4s")  # struct in_pktinfo: interface index, local address, header's destination


@dataclass(frozen=True, slots=True)
class Lease:
    """What one network interface is told.

    ``address`` has its prefix length; ``gateway`` is empty for all but the primary network interface, which also gets
    the ``routes`` by it. ``server`` is the platform's address, ``mtu`` in bytes.
    """

    machine: str
    mac: str
    address: str
    gateway: str
    mtu: int
    routes: tuple[str, ...]
    server: str


def _options(lease: Lease) -> list[Any]:
    options: list[Any] = [
        ("subnet_mask", str(IPv4Interface(lease.address).netmask)),
        ("interface-mtu", lease.mtu),
        ("hostname", lease.machine.encode()),
    ]
    if lease.gateway:
        options.append(("router", lease.gateway))
        options.append(("classless_static_routes", [f"{route}:{lease.gateway}" for route in lease.routes]))
    return options


def answer(request: bytes, lease: Lease) -> tuple[bytes, str] | None:
    """The answer to one message of a client, and the address it goes to; None when there is none to give. Pure."""
    from scapy.layers.dhcp import BOOTP, DHCP

    try:
        asked = BOOTP(request)
    except Exception:  # noqa: BLE001 - scapy has no common error for what it cannot read
        return None
    if DHCP not in asked or asked.chaddr[:6] != bytes.fromhex(lease.mac.replace(":", "")):
        return None
    said = {option[0]: option[1] for option in asked[DHCP].options if isinstance(option, tuple)}
    kind = said.get("message-type")
    if kind not in (_DISCOVER, _REQUEST, _INFORM) or said.get("server_id", lease.server) != lease.server:
        return None  # not for a server, or for another one
    own = str(IPv4Interface(lease.address).ip)
    refused = kind == _REQUEST and said.get("requested_addr", asked.ciaddr) != own
    reply = _NAK if refused else _OFFER if kind == _DISCOVER else _ACK
    options: list[Any] = [("message-type", reply), ("server_id", lease.server)]
    if not refused:
        options += _options(lease) if kind == _INFORM else [("lease_time", _FOR_EVER), *_options(lease)]
    message = BOOTP(
        op=_REPLY,
        xid=asked.xid,
        flags=asked.flags,
        ciaddr=asked.ciaddr if kind == _INFORM else "0.0.0.0",
        yiaddr="0.0.0.0" if refused or kind == _INFORM else own,
        siaddr=lease.server,
        chaddr=asked.chaddr,
    ) / DHCP(options=[*options, "end"])
    everybody = refused or bool(int(asked.flags) & _BROADCAST_FLAG)
    return bytes(message), "255.255.255.255" if everybody else own


async def run(config: str, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM. ``config`` has the leases by the name of the fabric's end of the cable.

    Raises:
        OSError: The port is taken.
    """
    given: dict[str, dict[str, Any]] = json.loads(config)["leases"]
    leases = {link: Lease(**(lease | {"routes": tuple(lease["routes"])})) for link, lease in given.items()}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        server.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        server.bind(("", _SERVER_PORT))
        asyncio.get_running_loop().add_reader(server.fileno(), _serve, server, leases)
        ready()
        await until_terminated()
        asyncio.get_running_loop().remove_reader(server.fileno())


def _serve(server: socket.socket, leases: dict[str, Lease]) -> None:
    """Answer one message by the cable it came from; the neighbour is known, so nobody is asked by ARP."""
    with suppress(OSError):  # a cable that is being replaced
        request, ancillary, _, _ = server.recvmsg(_LONGEST, socket.CMSG_SPACE(_PKTINFO.size))
        for level, kind, data in ancillary:
            if level != socket.IPPROTO_IP or kind != _IP_PKTINFO:
                continue
            index, _, _ = _PKTINFO.unpack(data)
            lease = leases.get(socket.if_indextoname(index))
            if lease is not None and (reply := answer(request, lease)) is not None:
                way = _PKTINFO.pack(index, socket.inet_aton(lease.server), bytes(4))
                server.sendmsg([reply[0]], [(level, kind, way)], 0, (reply[1], _CLIENT_PORT))
