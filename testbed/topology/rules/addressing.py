"""Address spaces, subnets, and who has which address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from testbed.topology.lookup import FrontendPlace, InterfacePlace
from testbed.topology.peering import sides

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.nodes import Location

__all__ = [
    "addresses_in_subnets",
    "addresses_taken_once",
    "internet_prefix",
    "peered_spaces",
    "spaces",
    "subnet_prefixes",
]

_LARGEST, _SMALLEST = 8, 29
#: Ranges that no virtual network may have ("Virtual Network FAQ"), and what they are.
_FORBIDDEN = {
    IPv4Network("168.63.129.16/32"): "Azure's platform address, where health probes come from",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("255.255.255.255/32"): "broadcast",
}

Prefixes = list[tuple[IPv4Network, "Location"]]


def _overlaps(prefixes: Prefixes) -> Iterator[tuple[tuple[IPv4Network, Location], tuple[IPv4Network, Location]]]:
    """Each prefix that overlaps an earlier one (in the order of the document), with that one."""
    ordered = sorted(prefixes, key=lambda each: (each[0].network_address, each[0].prefixlen))
    holder: tuple[IPv4Network, Location] | None = None
    for each in ordered:
        if holder and each[0].overlaps(holder[0]):
            later, earlier = sorted((each, holder), key=prefixes.index, reverse=True)
            yield later, earlier
        else:  # what is sorted later and overlaps something lies inside the widest one that started before it
            holder = each


def _forbidden(prefix: IPv4Network) -> str | None:
    for each, what in _FORBIDDEN.items():
        if each.overlaps(prefix):
            return f"{prefix} overlaps {str(each).removesuffix('/32')} ({what})"
    return None


def spaces(draft: Draft) -> Iterator[Finding]:
    """Prefixes of one virtual network do not overlap, and stay off what Azure needs itself."""
    for i, network in enumerate(draft.topology.virtual_networks):
        here: Location = ("virtual_networks", i, "address_space")
        prefixes: Prefixes = [(prefix, (*here, j)) for j, prefix in enumerate(network.address_space)]
        for prefix, location in prefixes:
            if problem := _forbidden(prefix):
                yield draft.error(location, problem, fix="use a private range, such as 10.0.0.0/16")
        for (prefix, location), (other, _) in _overlaps(prefixes):
            message = f"{prefix} overlaps {other} of the same virtual network"
            yield draft.error(location, message, fix="remove one of them, or make them disjoint")


def subnet_prefixes(draft: Draft) -> Iterator[Finding]:
    """Subnets lie inside the address space, do not overlap, and have a size that Azure allows."""
    for i, network in enumerate(draft.topology.virtual_networks):
        here: Location = ("virtual_networks", i, "subnets")
        prefixes: Prefixes = []
        for j, subnet in enumerate(network.subnets):
            prefix, location = subnet.address_prefix, (*here, j, "address_prefix")
            prefixes.append((prefix, location))
            if not _LARGEST <= prefix.prefixlen <= _SMALLEST:
                message = f"{prefix}: a subnet is a /{_LARGEST} to a /{_SMALLEST}"
                yield draft.error(location, message, fix="Azure keeps five addresses; choose a /29 or larger, up to /8")
            whole = not draft.damaged(("virtual_networks", i, "address_space"))
            if whole and not any(prefix.subnet_of(each) for each in network.address_space):
                space = ", ".join(map(str, network.address_space))
                message = f"{prefix} is not inside the address space of {network.name} ({space})"
                yield draft.error(location, message, fix="move the subnet, or add its range to address_space")
        for (prefix, location), (other, there) in _overlaps(prefixes):
            name = network.subnets[int(there[3])].name
            message = f"{prefix} overlaps {other} of subnet {name!r}"
            yield draft.error(location, message, fix="make the subnets disjoint")


def peered_spaces(draft: Draft) -> Iterator[Finding]:
    """Azure refuses a peering between virtual networks that share addresses."""
    networks = draft.lookup.networks
    seen: set[object] = set()
    for side in sides(draft.topology):
        one, other = side.virtual_network, side.remote_virtual_network
        key = side.location if side.location[0] == "peerings" else frozenset((one, other))
        if one == other or one not in networks or other not in networks or key in seen:
            continue
        seen.add(key)
        for left in networks[one].address_space:
            for right in networks[other].address_space:
                if left.overlaps(right):
                    message = f"{one} ({left}) and {other} ({right}) overlap, so they cannot be peered"
                    yield draft.error(side.location, message, fix="give one of them another address space")


def _places(draft: Draft) -> Iterator[tuple[IPv4Address, str, Location, InterfacePlace | FrontendPlace]]:
    """Every address that is taken: network interfaces and frontends."""
    for interface in draft.lookup.interfaces:
        location = (*interface.location, "private_ip_address")
        yield interface.interface.private_ip_address, interface.interface.subnet, location, interface
    for front in draft.lookup.frontends:
        if front.frontend.private_ip_address and front.frontend.subnet:
            location = (*front.location, "private_ip_address")
            yield front.frontend.private_ip_address, front.frontend.subnet, location, front


def _usable(prefix: IPv4Network, taken: set[IPv4Address]) -> str:
    """Words that name an address that can be used instead."""
    first, last = int(prefix.network_address) + 4, int(prefix.broadcast_address) - 1
    free = next((IPv4Address(each) for each in range(first, last + 1) if IPv4Address(each) not in taken), None)
    return f"use a free address, e.g. {free}" if free else "the subnet is full; make it larger"


def addresses_in_subnets(draft: Draft) -> Iterator[Finding]:
    """An address lies in its subnet and is not one of the five that Azure keeps."""
    taken = {address for address, *_ in _places(draft)}
    for address, key, location, _ in _places(draft):
        place = draft.lookup.subnet.get(key)
        if place is None:
            continue  # an unknown subnet is reported elsewhere
        prefix = place.subnet.address_prefix
        if prefix.prefixlen > _SMALLEST:
            continue  # has no usable address at all, and is reported for that
        if address not in prefix:
            message = f"{address} is not in subnet {key} ({prefix})"
            yield draft.error(location, message, fix=_usable(prefix, taken))
        elif int(address) - int(prefix.network_address) < 4 or address == prefix.broadcast_address:
            message = f"{address} is reserved: Azure keeps the first four addresses and the last one of {prefix}"
            yield draft.error(location, message, fix=_usable(prefix, taken))


def _owner(place: InterfacePlace | FrontendPlace) -> str:
    if isinstance(place, FrontendPlace):
        return f"frontend {place.key}"
    return f"a network interface of machine {place.machine.name!r}"


def addresses_taken_once(draft: Draft) -> Iterator[Finding]:
    """In one virtual network, an address belongs to one network interface or frontend."""
    taken = {address for address, *_ in _places(draft)}
    first: dict[tuple[str, IPv4Address], tuple[Location, InterfacePlace | FrontendPlace]] = {}
    for address, key, location, place in sorted(_places(draft), key=lambda each: draft.line(each[2])):
        if (place.network, address) not in first:
            first[place.network, address] = (location, place)
            continue
        there, owner = first[place.network, address]
        subnet = draft.lookup.subnet.get(key)
        fix = _usable(subnet.subnet.address_prefix, taken) if subnet else "use a free address"
        message = f"{address} is taken by {_owner(owner)} on line {draft.line(there)}"
        yield draft.error(location, message, fix=fix)


def internet_prefix(draft: Draft) -> Iterator[Finding]:
    """The world outside is outside, and has room for its machine."""
    internet = draft.topology.internet
    if internet is None:
        return
    prefix, location = internet.address_prefix, ("internet", "address_prefix")
    if prefix.prefixlen > _SMALLEST:
        yield draft.error(location, f"{prefix} is too small", fix="choose a /29 or larger, e.g. 203.0.113.0/24")
    if problem := _forbidden(prefix):
        yield draft.error(location, problem, fix="use a documentation range, e.g. 203.0.113.0/24")
    for network in draft.topology.virtual_networks:
        if hit := _overlapping(prefix, network.address_space):
            message = f"{prefix} overlaps {hit} of virtual network {network.name!r}"
            yield draft.error(location, message, fix="use a documentation range, e.g. 203.0.113.0/24")


def _overlapping(prefix: IPv4Network, others: Sequence[IPv4Network]) -> IPv4Network | None:
    return next((each for each in others if each.overlaps(prefix)), None)
