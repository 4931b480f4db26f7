"""Links, addresses, routes, rules and neighbours of the namespace one is in, by netlink."""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from testbed.errors import LabError
from testbed.kernel.rtnetlink import CREATE, DUMP, EXCL, NESTED, REPLACE, Rtnetlink, attribute, nested, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

__all__ = ["Link", "Netlink", "RouteEntry", "RuleEntry"]

_LOOPBACK = 1  # a namespace's loopback always has index 1
_BLACKHOLE = 6  # RTN_BLACKHOLE
_UNICAST, _LOCAL = 1, 2  # RTN_*
_PERMANENT = 0x80  # NUD_PERMANENT
_ONLINK = 4  # RTNH_F_ONLINK
_STATIC = 4  # RTPROT_STATIC
_TO_TABLE = 1  # FR_ACT_TO_TBL
_SCOPE_LINK, _SCOPE_HOST, _SCOPE_NOWHERE = 253, 254, 255  # RT_SCOPE_*
_KINDS = {_UNICAST: "unicast", _LOCAL: "local", _BLACKHOLE: "blackhole"}
_UP = 1  # IFF_UP
_MAIN_TABLE = 254  # RT_TABLE_MAIN
_APPEND = 0x800  # NLM_F_APPEND
_NEWLINK, _GETLINK, _NEWLINKPROP = 16, 18, 108  # RTM_*; what removes is one more than what makes
_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _GETROUTE = 24, 26
_NEWNEIGH, _GETNEIGH = 28, 30
_NEWRULE, _GETRULE = 32, 34
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5  # linux/if_link.h
_IFLA_LINKINFO, _IFLA_IFALIAS = 18, 20
_IFLA_NET_NS_FD, _IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 28, 52, 53
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_MACVLAN_MODE, _MACVLAN_PRIVATE = 1, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2  # linux/if_addr.h
_NDA_DST, _NDA_LLADDR = 1, 2  # linux/neighbour.h
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15  # linux/rtnetlink.h
_FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 6, 10, 15, 16  # linux/fib_rules.h
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_IFA_F_NODAD = 2
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_NEIGHBOR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_ROUTE = struct.Struct("=8BI")  # struct rtmsg: family, lengths, tos, table, protocol, scope, type, flags
_RULE = struct.Struct("=8BI")  # struct fib_rule_hdr: family, lengths, tos, table, -, -, action, flags


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as it is now."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    altnames: tuple[str, ...]
    alias: str = ""


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A route that somebody set (not one the kernel made); its destination tells the IP version."""

    table: int
    destination: str
    kind: str
    gateway: str | None
    link: str | None


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """A policy rule on a packet mark, of IP version 4 or 6."""

    priority: int
    mark: int
    mask: int
    table: int
    version: int = 4


class Netlink:
    """A netlink socket in the namespace where it is made; it stays there.

    Every method raises :class:`~testbed.errors.LabError` with what was tried when the kernel refuses.
    """

    def __init__(self) -> None:
        self._socket = Rtnetlink()
        self._indexes: dict[str, int] = {"lo": _LOOPBACK}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _change(self, what: str, kind: int, flags: int, body: bytes, *, fine: int = 0) -> None:
        try:
            self._socket.request(kind, flags, body)
        except OSError as error:
            if error.errno == fine:
                return
            raise LabError(f"{what}: {error.strerror or error}") from error

    def _dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        try:
            return self._socket.get(kind, DUMP, body)
        except OSError as error:
            raise LabError(f"{what}: {error.strerror or error}") from error

    def _dump_families(self, what: str, kind: int, form: struct.Struct) -> Iterator[tuple[int, bytes]]:
        """(family, message) of IPv4 and of IPv6; a kernel without IPv6 answers with IPv4's once more."""
        for family in _FAMILIES:
            for each in self._dump(what, kind, bytes([family]) + bytes(form.size - 1)):
                if each[0] == family:
                    yield family, each

    def mark_loopback(self, alias: str) -> None:
        """Bring the loopback up and write an alias on it."""
        body = _LINK.pack(0, 0, _LOOPBACK, _UP, _UP) + attribute(_IFLA_IFALIAS, alias.encode())
        self._change("mark the loopback", _NEWLINK, 0, body)

    def loopback_mark(self) -> str:
        """The alias of the loopback, or an empty string."""
        try:
            (link,) = self._socket.get(_GETLINK, 0, _LINK.pack(0, 0, _LOOPBACK, 0, 0))
        except OSError as error:
            raise LabError(f"read the loopback: {error.strerror or error}") from error
        return dict(parse(link[_LINK.size :])).get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode()

    def index(self, name: str) -> int:
        """Index of a link by name."""
        if name not in self._indexes:
            kind = _IFLA_IFNAME if len(name) < 16 else _IFLA_ALT_IFNAME  # IFNAMSIZ
            try:
                (link,) = self._socket.get(_GETLINK, 0, bytes(_LINK.size) + attribute(kind, _text(name)))
            except OSError as error:
                raise LabError(f"there is no link {name!r}") from error
            self._indexes[name] = int(_LINK.unpack_from(link)[2])
        return self._indexes[name]

    # -- links ---------------------------------------------------------------------------------------

    def links(self) -> tuple[Link, ...]:
        """All links of the namespace."""
        found = []
        for link in self._dump("list links", _GETLINK, bytes(_LINK.size)):
            _, _, index, flags, _ = _LINK.unpack_from(link)
            values = dict(parse(link[_LINK.size :]))
            properties = parse(values.get(_IFLA_PROP_LIST, b""))
            altnames = tuple(data.rstrip(b"\0").decode() for kind, data in properties if kind == _IFLA_ALT_IFNAME)
            name = values[_IFLA_IFNAME].rstrip(b"\0").decode()
            mac = values.get(_IFLA_ADDRESS, b"").hex(":")
            alias = values.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace")
            found.append(Link(index, name, mac, _number(values[_IFLA_MTU]), bool(flags & _UP), altnames, alias))
        return tuple(found)

    def add_veth(self, name: str, mac: str, mtu: int, peer_namespace: Path, peer_name: str, peer_mac: str) -> None:
        """Make a veth pair, this end here and the other in a named namespace; both ends still down."""
        with _into(peer_namespace) as target:
            there = bytes(_LINK.size) + _ends(peer_name, peer_mac, mtu) + target
            data = nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER | NESTED, there))
            information = nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"veth"), data)
            body = bytes(_LINK.size) + _ends(name, mac, mtu) + information
            self._change(f"make veth {name!r}", _NEWLINK, CREATE | EXCL, body)

    def add_macvlan(self, name: str, parent: str, mac: str, namespace: Path) -> None:
        """Make a macvlan in a named namespace, on a link of this one; other macvlans of it stay out of its sight."""
        mode = nested(_IFLA_INFO_DATA, attribute(_MACVLAN_MODE, struct.pack("=I", _MACVLAN_PRIVATE)))
        with _into(namespace) as target:
            body = (
                bytes(_LINK.size)
                + attribute(_IFLA_IFNAME, _text(name))
                + attribute(_IFLA_ADDRESS, _mac(mac))
                + attribute(_IFLA_LINK, struct.pack("=I", self.index(parent)))
                + target
                + nested(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, b"macvlan"), mode)
            )
            self._change(f"make macvlan {name!r} on {parent!r}", _NEWLINK, CREATE | EXCL, body)

    def move(self, name: str, namespace: Path | str, new_name: str) -> None:
        """Move a link into another namespace, where it has another name."""
        with _into(namespace) as target:
            body = _LINK.pack(0, 0, self.index(name), 0, 0) + attribute(_IFLA_IFNAME, _text(new_name)) + target
            self._change(f"move link {name!r}", _NEWLINK, 0, body)
        self._indexes.pop(name, None)

    def set_alias(self, name: str, alias: str) -> None:
        """Write an alias on a link, or take it away."""
        body = _LINK.pack(0, 0, self.index(name), 0, 0) + attribute(_IFLA_IFALIAS, alias.encode())
        self._change(f"write on link {name!r}", _NEWLINK, 0, body)

    def add_altname(self, name: str, altname: str) -> None:
        """Give a link a second, longer name."""
        names = nested(_IFLA_PROP_LIST, attribute(_IFLA_ALT_IFNAME, _text(altname)))
        body = _LINK.pack(0, 0, self.index(name), 0, 0) + names
        self._change(f"name {name!r} {altname!r}", _NEWLINKPROP, CREATE | EXCL | _APPEND, body)

    def set_link(self, name: str, *, up: bool) -> None:
        """Bring a link up or down."""
        self._change(f"set link {name!r}", _NEWLINK, 0, _LINK.pack(0, 0, self.index(name), _UP * up, _UP))

    def delete_link(self, name: str) -> None:
        """Remove a link; of a veth pair both ends go. Gone already is fine: the kernel may be about it just now."""
        try:
            self._socket.request(_NEWLINK + 1, 0, bytes(_LINK.size) + attribute(_IFLA_IFNAME, _text(name)))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise LabError(f"remove link {name!r}: {error.strerror or error}") from error
        self._indexes.pop(name, None)

    # -- addresses and neighbours --------------------------------------------------------------------

    def addresses(self, names: Mapping[int, str]) -> tuple[tuple[str, str], ...]:
        """All addresses, as (link, address/length); ``names`` gives link names by index."""
        found = []
        for family, each in self._dump_families("list addresses", _GETADDR, _ADDRESS):
            _, length, _, _, index = _ADDRESS.unpack_from(each)
            values = dict(parse(each[_ADDRESS.size :]))
            local = values.get(_IFA_LOCAL) or values[_IFA_ADDRESS]
            found.append((names.get(index, "?"), f"{socket.inet_ntop(family, local)}/{length}"))
        return tuple(found)

    def address(self, action: str, link: str, address: str) -> None:
        """Add (``add``) or remove (``del``) an address; nobody is asked whether an IPv6 one is taken."""
        ip, _, length = address.partition("/")
        family, packed = _packed(ip)
        nodad = _IFA_F_NODAD if family == socket.AF_INET6 else 0
        body = _ADDRESS.pack(family, int(length), nodad, 0, self.index(link))
        body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
        kind, flags = _verb(action, _NEWADDR)
        self._change(f"{action} address {address} on {link!r}", kind, flags, body)

    def neighbors(self, names: Mapping[int, str]) -> tuple[tuple[str, str, str], ...]:
        """All permanent neighbours, as (link, address, MAC); ``names`` gives link names by index."""
        found = []
        for family, each in self._dump_families("list neighbours", _GETNEIGH, _NEIGHBOR):
            _, index, state, _, _ = _NEIGHBOR.unpack_from(each)
            values = dict(parse(each[_NEIGHBOR.size :]))
            if state == _PERMANENT:
                mac = values.get(_NDA_LLADDR, b"").hex(":")
                found.append((names.get(index, "?"), socket.inet_ntop(family, values[_NDA_DST]), mac))
        return tuple(found)

    def neighbor(self, action: str, link: str, address: str, mac: str) -> None:
        """Set (``replace``) or remove (``del``) a permanent neighbour."""
        family, packed = _packed(address)
        body = _NEIGHBOR.pack(family, self.index(link), _PERMANENT, 0, 0)
        body += attribute(_NDA_DST, packed) + attribute(_NDA_LLADDR, _mac(mac))
        kind, flags = _verb(action, _NEWNEIGH)
        self._change(f"{action} neighbour {address} on {link!r}", kind, flags, body)

    # -- routes and rules ----------------------------------------------------------------------------

    def routes(self, names: Mapping[int, str]) -> tuple[RouteEntry, ...]:
        """All routes that were set by hand (protocol ``static``); ``names`` gives link names by index."""
        found = []
        for family, each in self._dump_families("list routes", _GETROUTE, _ROUTE):
            _, length, _, _, _, protocol, _, kind, _ = _ROUTE.unpack_from(each)
            if protocol != _STATIC:
                continue
            values = dict(parse(each[_ROUTE.size :]))
            anywhere = bytes(4 if family == socket.AF_INET else 16)
            goes = kind != _BLACKHOLE  # an IPv6 blackhole names the loopback
            found.append(
                RouteEntry(
                    table=_number(values[_RTA_TABLE]),
                    destination=f"{socket.inet_ntop(family, values.get(_RTA_DST, anywhere))}/{length}",
                    kind=_KINDS.get(kind, "unicast"),
                    gateway=socket.inet_ntop(family, values[_RTA_GATEWAY]) if _RTA_GATEWAY in values else None,
                    link=names.get(_number(values[_RTA_OIF])) if goes and _RTA_OIF in values else None,
                )
            )
        return tuple(found)

    def default_links(self, names: Mapping[int, str]) -> tuple[str, ...]:
        """Links that a default route of the main table leads to, whoever set it."""
        found = []
        for each in self._dump("list routes", _GETROUTE, _ROUTE.pack(socket.AF_INET, *bytes(7), 0)):
            length, table = _ROUTE.unpack_from(each)[1], _ROUTE.unpack_from(each)[4]
            values = dict(parse(each[_ROUTE.size :]))
            if length == 0 and table == _MAIN_TABLE and _RTA_OIF in values:
                found.append(names.get(_number(values[_RTA_OIF]), "?"))
        return tuple(found)

    def route(self, action: str, entry: RouteEntry) -> None:
        """Add (``add``) or remove (``del``) a route; a gateway is taken as on-link."""
        ip, _, length = entry.destination.partition("/")
        family, packed = _packed(ip)
        kind, flags = _verb(action, _NEWROUTE)
        what = next(number for number, word in _KINDS.items() if word == entry.kind)
        direct = entry.link is not None and entry.gateway is None
        near = _SCOPE_HOST if entry.kind == "local" else _SCOPE_LINK
        scope = _SCOPE_NOWHERE if action == "del" else near if direct else 0
        onlink = _ONLINK if entry.gateway else 0
        body = _ROUTE.pack(family, int(length), 0, 0, 0, _STATIC, scope, what, onlink)
        body += attribute(_RTA_DST, packed) + attribute(_RTA_TABLE, struct.pack("=I", entry.table))
        if entry.link:
            body += attribute(_RTA_OIF, struct.pack("=I", self.index(entry.link)))
        if entry.gateway:
            body += attribute(_RTA_GATEWAY, _packed(entry.gateway)[1])
        # Gone already is fine: routes can go with an address or their link, and all of IPv6 when it is turned off.
        gone = errno.ESRCH if action == "del" else 0
        self._change(f"{action} route {entry.destination} in table {entry.table}", kind, flags, body, fine=gone)

    def rules(self) -> tuple[RuleEntry, ...]:
        """All rules on a mark."""
        found = []
        for family, each in self._dump_families("list rules", _GETRULE, _RULE):
            values = {kind: _number(data) for kind, data in parse(each[_RULE.size :]) if len(data) == 4}
            if _FRA_FWMARK in values:
                numbers = [values[kind] for kind in (_FRA_PRIORITY, _FRA_FWMARK, _FRA_FWMASK, _FRA_TABLE)]
                numbers.append(4 if family == socket.AF_INET else 6)
                found.append(RuleEntry(*numbers))
        return tuple(found)

    def rule(self, action: str, entry: RuleEntry) -> None:
        """Add (``add``) or remove (``del``) a rule on a mark."""
        numbers = {
            _FRA_PRIORITY: entry.priority,
            _FRA_FWMARK: entry.mark,
            _FRA_FWMASK: entry.mask,
            _FRA_TABLE: entry.table,
        }
        family = socket.AF_INET if entry.version == 4 else socket.AF_INET6
        body = _RULE.pack(family, 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
        body += b"".join(attribute(kind, struct.pack("=I", number)) for kind, number in numbers.items())
        kind, flags = _verb(action, _NEWRULE)
        self._change(f"{action} rule for mark {entry.mark:#x}", kind, flags, body)


def _verb(action: str, new: int) -> tuple[int, int]:
    """The message type and flags of ``add``, ``replace`` and ``del``; the removing type follows the making one."""
    flags = {"add": CREATE | EXCL, "replace": CREATE | REPLACE, "del": 0}[action]
    return (new + 1 if action == "del" else new), flags


@contextmanager
def _into(namespace: Path | str) -> Iterator[bytes]:
    """The attribute that puts a link into a namespace; good inside the block, which keeps the namespace open."""
    target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield attribute(_IFLA_NET_NS_FD, struct.pack("=I", target))
    finally:
        os.close(target)


def _ends(name: str, mac: str, mtu: int) -> bytes:
    return (
        attribute(_IFLA_IFNAME, _text(name))
        + attribute(_IFLA_ADDRESS, _mac(mac))
        + attribute(_IFLA_MTU, struct.pack("=I", mtu))
    )


def _packed(address: str) -> tuple[int, bytes]:
    """The family of an address, and the address as it is on the wire."""
    parsed = ip_address(address)
    return (socket.AF_INET if parsed.version == 4 else socket.AF_INET6), parsed.packed


def _text(name: str) -> bytes:
    return name.encode() + b"\0"


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _number(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])
