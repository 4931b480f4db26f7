"""Service tags: what addresses of security rules stand for at a network interface ("Service tags overview"). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from testbed.plan.ruleset.context import PROBE_SOURCE
from testbed.topology.security import ServiceTag, address_prefix

if TYPE_CHECKING:
    from testbed.plan.model import NetworkInterface
    from testbed.topology.model import Topology
    from testbed.topology.peering import Connections

__all__ = ["Addresses", "addresses", "virtual_network_tag"]

_PLATFORM = IPv4Network(PROBE_SOURCE)
_EVERYTHING = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class Addresses:
    """One side of a rule: ``words`` as the document has them, and the prefixes they stand for.

    ``outside``: it is all but these prefixes that is meant (the tag ``Internet``).
    """

    words: tuple[str, ...]
    prefixes: tuple[IPv4Network, ...]
    outside: bool = False

    @property
    def everything(self) -> bool:
        """Whether every address is meant."""
        return not self.outside and self.prefixes == (_EVERYTHING,)

    @property
    def nothing(self) -> bool:
        """Whether no address is left."""
        return self.outside and self.prefixes == (_EVERYTHING,)

    def __contains__(self, address: IPv4Address) -> bool:
        return any(address in prefix for prefix in self.prefixes) != self.outside


def virtual_network_tag(
    topology: Topology, connections: Connections, interface: NetworkInterface
) -> tuple[IPv4Network, ...]:
    """What ``VirtualNetwork`` stands for in the rules of a network interface.

    Its virtual network, those peered with it, what is known behind a gateway, the platform's address, and the
    prefixes of the user-defined routes of its subnet: a route for 0.0.0.0/0 makes it everything.
    """
    networks = {each.name: each for each in topology.virtual_networks}
    tables = {each.name: each.routes for each in topology.route_tables}
    here = networks[interface.virtual_network]
    subnet = next(each for each in here.subnets if each.name == interface.subnet)
    prefixes = [*here.address_space, _PLATFORM, *connections.on_premises_prefixes(here.name)]
    for peer in connections.neighbours(here.name):
        prefixes += networks[peer].address_space
    prefixes += [route.address_prefix for route in tables.get(subnet.route_table or "", ())]
    return _outermost([each for each in prefixes if isinstance(each, IPv4Network)])


def addresses(single: str | None, plural: tuple[str, ...], inside: tuple[IPv4Network, ...]) -> Addresses:
    """One side of a rule; ``inside`` is what ``VirtualNetwork`` stands for."""
    words = plural or (single or "*",)
    meant = [address_prefix(each) for each in words]
    if meant == [ServiceTag.VIRTUAL_NETWORK]:
        return Addresses(words, inside)
    if meant == [ServiceTag.INTERNET]:
        return Addresses(words, inside, outside=True)
    if meant == [ServiceTag.AZURE_LOAD_BALANCER]:
        return Addresses(words, (_PLATFORM,))
    networks = [each if isinstance(each, IPv4Network) else _EVERYTHING for each in meant]
    return Addresses(words, _outermost(networks))


def _outermost(prefixes: list[IPv4Network]) -> tuple[IPv4Network, ...]:
    """Those that no other one holds, in order: an nftables set takes no overlaps."""
    distinct = dict.fromkeys(prefixes)
    return tuple(each for each in distinct if not any(each != other and each.subnet_of(other) for other in distinct))
