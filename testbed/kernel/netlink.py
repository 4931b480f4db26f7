"""Links, addresses, routes, rules and neighbours of the namespace one is in, by netlink (pyroute2)."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from testbed.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

__all__ = ["Link", "Netlink", "RouteEntry", "RuleEntry"]

_LOOPBACK = 1  # a namespace's loopback always has index 1
_BLACKHOLE = 6  # RTN_BLACKHOLE
_UNICAST = 1  # RTN_UNICAST
_PERMANENT = 0x80  # NUD_PERMANENT
_ONLINK = 4  # RTNH_F_ONLINK
_STATIC = 4  # RTPROT_STATIC


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as it is now."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    altnames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """An IPv4 route that somebody set (not one the kernel made)."""

    table: int
    destination: str
    kind: str
    gateway: str | None
    link: str | None


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """An IPv4 policy rule on a packet mark."""

    priority: int
    mark: int
    mask: int
    table: int


class Netlink:
    """A netlink socket in the namespace where it is made; it stays there.

    Every method raises :class:`~testbed.errors.LabError` with what was tried when the kernel refuses.
    """

    def __init__(self) -> None:
        self._route = IPRoute()
        self._indexes: dict[str, int] = {"lo": _LOOPBACK}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._route.close()

    def _call(self, what: str, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._route, method)(*args, **kwargs)
        except NetlinkError as error:
            raise LabError(f"{what}: {os.strerror(error.code)}") from error

    def mark_loopback(self, alias: str) -> None:
        """Bring the loopback up and write an alias on it."""
        self._call("mark the loopback", "link", "set", index=_LOOPBACK, state="up", IFLA_IFALIAS=alias)

    def loopback_mark(self) -> str:
        """The alias of the loopback, or an empty string."""
        (link,) = self._call("read the loopback", "link", "get", index=_LOOPBACK)
        return str(link.get_attr("IFLA_IFALIAS") or "")

    def index(self, name: str) -> int:
        """Index of a link by name."""
        if name not in self._indexes:
            try:
                (link,) = self._route.link("get", ifname=name)
            except NetlinkError as error:
                raise LabError(f"there is no link {name!r}") from error
            self._indexes[name] = int(link["index"])
        return self._indexes[name]

    # -- links ---------------------------------------------------------------------------------------

    def links(self) -> tuple[Link, ...]:
        """All links of the namespace."""
        found = []
        for link in self._call("list links", "get_links"):
            properties = link.get_attr("IFLA_PROP_LIST")
            altnames = properties.get_attrs("IFLA_ALT_IFNAME") if properties else []
            found.append(
                Link(
                    index=link["index"],
                    name=link.get_attr("IFLA_IFNAME"),
                    mac=link.get_attr("IFLA_ADDRESS") or "",
                    mtu=link.get_attr("IFLA_MTU"),
                    up=bool(link["flags"] & 1),
                    altnames=tuple(altnames),
                )
            )
        return tuple(found)

    def add_veth(self, name: str, mac: str, mtu: int, peer_namespace: Path, peer_name: str, peer_mac: str) -> None:
        """Make a veth pair, this end here and the other in a named namespace; both ends still down."""
        peer = os.open(peer_namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._call(
                f"make veth {name!r}",
                "link",
                "add",
                ifname=name,
                kind="veth",
                address=mac,
                mtu=mtu,
                peer={"ifname": peer_name, "address": peer_mac, "mtu": mtu, "net_ns_fd": peer},
            )
        finally:
            os.close(peer)

    def add_altname(self, name: str, altname: str) -> None:
        """Give a link a second, longer name."""
        self._call(f"name {name!r} {altname!r}", "link", "property_add", index=self.index(name), altname=altname)

    def set_link(self, name: str, *, up: bool) -> None:
        """Bring a link up or down."""
        self._call(f"set link {name!r}", "link", "set", index=self.index(name), state="up" if up else "down")

    def delete_link(self, name: str) -> None:
        """Remove a link; of a veth pair both ends go."""
        self._call(f"remove link {name!r}", "link", "del", index=self.index(name))
        del self._indexes[name]

    # -- addresses and neighbours --------------------------------------------------------------------

    def addresses(self, names: Mapping[int, str]) -> tuple[tuple[str, str], ...]:
        """All IPv4 addresses, as (link, address/length); ``names`` gives link names by index."""
        return tuple(
            (names.get(each["index"], "?"), f"{each.get_attr('IFA_LOCAL')}/{each['prefixlen']}")
            for each in self._call("list addresses", "get_addr", family=socket.AF_INET)
        )

    def address(self, action: str, link: str, address: str) -> None:
        """Add (``add``) or remove (``del``) an address."""
        ip, _, length = address.partition("/")
        what = f"{action} address {address} on {link!r}"
        self._call(what, "addr", action, index=self.index(link), address=ip, prefixlen=int(length))

    def neighbors(self, names: Mapping[int, str]) -> tuple[tuple[str, str, str], ...]:
        """All permanent IPv4 neighbours, as (link, address, MAC); ``names`` gives link names by index."""
        return tuple(
            (names.get(each["ifindex"], "?"), each.get_attr("NDA_DST"), each.get_attr("NDA_LLADDR"))
            for each in self._call("list neighbours", "get_neighbours", family=socket.AF_INET)
            if each["state"] == _PERMANENT
        )

    def neighbor(self, action: str, link: str, address: str, mac: str) -> None:
        """Set (``replace``) or remove (``del``) a permanent neighbour."""
        what = f"{action} neighbour {address} on {link!r}"
        self._call(what, "neigh", action, ifindex=self.index(link), dst=address, lladdr=mac, state=_PERMANENT)

    # -- routes and rules ----------------------------------------------------------------------------

    def routes(self, names: Mapping[int, str]) -> tuple[RouteEntry, ...]:
        """All IPv4 routes that were set by hand (protocol ``static``); ``names`` gives link names by index."""
        found = []
        for route in self._call("list routes", "get_routes", family=socket.AF_INET):
            if route["proto"] != _STATIC:
                continue
            link = route.get_attr("RTA_OIF")
            found.append(
                RouteEntry(
                    table=route.get_attr("RTA_TABLE"),
                    destination=f"{route.get_attr('RTA_DST') or '0.0.0.0'}/{route['dst_len']}",
                    kind="blackhole" if route["type"] == _BLACKHOLE else "unicast",
                    gateway=route.get_attr("RTA_GATEWAY"),
                    link=names.get(link) if link else None,
                )
            )
        return tuple(found)

    def route(self, action: str, entry: RouteEntry) -> None:
        """Add (``add``) or remove (``del``) a route; a gateway is taken as on-link."""
        message: dict[str, Any] = {
            "dst": entry.destination,
            "table": entry.table,
            "proto": _STATIC,
            "type": _BLACKHOLE if entry.kind == "blackhole" else _UNICAST,
        }
        if entry.link:
            message["oif"] = self.index(entry.link)
        if entry.gateway:
            message |= {"gateway": entry.gateway, "flags": _ONLINK}
        self._call(f"{action} route {entry.destination} in table {entry.table}", "route", action, **message)

    def rules(self) -> tuple[RuleEntry, ...]:
        """All IPv4 rules on a mark."""
        return tuple(
            RuleEntry(
                priority=rule.get_attr("FRA_PRIORITY"),
                mark=rule.get_attr("FRA_FWMARK"),
                mask=rule.get_attr("FRA_FWMASK"),
                table=rule.get_attr("FRA_TABLE"),
            )
            for rule in self._call("list rules", "get_rules", family=socket.AF_INET)
            if rule.get_attr("FRA_FWMARK") is not None
        )

    def rule(self, action: str, entry: RuleEntry) -> None:
        """Add (``add``) or remove (``del``) a rule on a mark."""
        self._call(
            f"{action} rule for mark {entry.mark:#x}",
            "rule",
            action,
            priority=entry.priority,
            fwmark=entry.mark,
            fwmask=entry.mask,
            table=entry.table,
        )
