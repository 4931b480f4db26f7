"""Connection tracking of the namespace the thread is in: read it, forget it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Entry", "entries", "flush"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tracked flow: the tuple of its first packet, its mark and its zone."""

    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    mark: int
    zone: int


def entries(version: int = 4) -> Iterator[Entry]:
    """All tracked TCP and UDP flows of an IP version."""
    from pyroute2 import Conntrack

    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with Conntrack(nfgen_family=family) as conntrack:
        for message in conntrack.dump():
            original = message.get_attr("CTA_TUPLE_ORIG")
            ports = original.get_attr("CTA_TUPLE_PROTO")
            address = original.get_attr("CTA_TUPLE_IP")
            if ports.get_attr("CTA_PROTO_SRC_PORT") is None:
                continue
            yield Entry(
                protocol=ports.get_attr("CTA_PROTO_NUM"),
                source=address.get_attr(f"CTA_IP_V{version}_SRC"),
                destination=address.get_attr(f"CTA_IP_V{version}_DST"),
                source_port=ports.get_attr("CTA_PROTO_SRC_PORT"),
                destination_port=ports.get_attr("CTA_PROTO_DST_PORT"),
                mark=message.get_attr("CTA_MARK") or 0,
                zone=message.get_attr("CTA_ZONE") or 0,
            )


def flush() -> None:
    """Forget all flows."""
    from pyroute2 import Conntrack

    with Conntrack() as conntrack:
        conntrack.flush()
