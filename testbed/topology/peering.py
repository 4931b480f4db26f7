"""What peerings and gateways come to: which sides are connected, and which gateway a virtual network uses. Pure.

A peering has two sides, one in each virtual network. ``peerings`` of a document write both at once,
``virtual_network_peerings`` one; a side whose other side is not there is ``Initiated`` and carries nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network

    from testbed.topology.model import LocalNetworkGateway, Topology, VirtualNetworkGateway

__all__ = ["Connections", "PeeringSide", "sides"]


@dataclass(frozen=True, slots=True)
class PeeringSide:
    """One virtual network's side of a peering, and where it is written."""

    location: tuple[str | int, ...]
    virtual_network: str
    remote_virtual_network: str
    allow_virtual_network_access: bool
    allow_forwarded_traffic: bool
    allow_gateway_transit: bool = False
    use_remote_gateways: bool = False


def sides(topology: Topology) -> tuple[PeeringSide, ...]:
    """Every side that the document writes, in its order: short forms first."""
    short = [
        PeeringSide(("peerings", i), here, there, each.allow_virtual_network_access, each.allow_forwarded_traffic)
        for i, each in enumerate(topology.peerings)
        for here, there in (each.between, each.between[::-1])
    ]
    long = [
        PeeringSide(
            ("virtual_networks", i, "virtual_network_peerings", j),
            network.name,
            each.remote_virtual_network,
            each.allow_virtual_network_access,
            each.allow_forwarded_traffic,
            each.allow_gateway_transit,
            each.use_remote_gateways,
        )
        for i, network in enumerate(topology.virtual_networks)
        for j, each in enumerate(network.virtual_network_peerings)
    ]
    return (*short, *long)


class Connections:
    """Which virtual networks are joined, and to what outside; made once from a topology.

    ``connected``: (virtual network, peer) to the side, of peerings that have both; the first one written counts.
    """

    def __init__(self, topology: Topology) -> None:
        found: dict[tuple[str, str], PeeringSide] = {}
        for each in sides(topology):
            found.setdefault((each.virtual_network, each.remote_virtual_network), each)
        self.connected = {
            (here, there): each for (here, there), each in found.items() if (there, here) in found and here != there
        }
        self._neighbours: dict[str, list[str]] = {}
        for (here, there), side in self.connected.items():
            if side.allow_virtual_network_access and self.connected[there, here].allow_virtual_network_access:
                self._neighbours.setdefault(here, []).append(there)
        self._gateways = {each.virtual_network: each for each in reversed(topology.virtual_network_gateways)}
        self._places: dict[str, list[LocalNetworkGateway]] = {}
        for place in topology.local_network_gateways:
            self._places.setdefault(place.virtual_network_gateway, []).append(place)

    def neighbours(self, virtual_network: str) -> tuple[str, ...]:
        """The virtual networks that this one reaches directly: both sides are there, and both allow it."""
        return tuple(self._neighbours.get(virtual_network, ()))

    def reachable(self, virtual_network: str) -> tuple[str, ...]:
        """The virtual network itself and those it reaches directly."""
        return (virtual_network, *self.neighbours(virtual_network))

    def gateway(self, virtual_network: str) -> VirtualNetworkGateway | None:
        """The gateway in the virtual network; else that of the peer whose gateway it uses and may use."""
        if virtual_network in self._gateways:
            return self._gateways[virtual_network]
        for there in self.neighbours(virtual_network):
            here = self.connected[virtual_network, there]
            if here.use_remote_gateways and self.connected[there, virtual_network].allow_gateway_transit:
                return self._gateways.get(there)
        return None

    def local_networks(self, virtual_network: str) -> tuple[LocalNetworkGateway, ...]:
        """The places outside Azure that a virtual network reaches by the gateway it uses."""
        gateway = self.gateway(virtual_network)
        return tuple(self._places.get(gateway.name, ())) if gateway else ()

    def on_premises_prefixes(self, virtual_network: str) -> tuple[IPv4Network, ...]:
        """The prefixes of those places; in Azure the service tag ``VirtualNetwork`` holds them too."""
        places = self.local_networks(virtual_network)
        return tuple(dict.fromkeys(prefix for each in places for prefix in each.local_network_address_space))
