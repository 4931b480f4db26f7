"""What joins virtual networks to each other and to places outside Azure, as a user writes it.

The names are those of ``VirtualNetworkPeering``, ``VirtualNetworkGateway`` and ``LocalNetworkGateway`` in the Azure SDK
for Python; a connection between the two gateways is the key ``virtual_network_gateway`` here.
What follows from them together is in :mod:`testbed.topology.peering`.
"""

from __future__ import annotations

from pydantic import Field

from testbed.topology.document import Document
from testbed.topology.words import Name, Prefix, Reference

__all__ = ["LocalNetworkGateway", "Peering", "VirtualNetworkGateway", "VirtualNetworkPeering"]


class Peering(Document):
    """A peering between two virtual networks, both of its sides with the same settings."""

    between: tuple[Name, Name]
    """The two virtual networks. Peering is not transitive."""
    allow_virtual_network_access: bool = True
    """Whether the two reach each other at all."""
    allow_forwarded_traffic: bool = False
    """Whether traffic that did not start in the peer may come from it (hub-and-spoke needs it)."""


class VirtualNetworkPeering(Document):
    """One side of a peering; it works when the other virtual network has a side to this one."""

    name: Name
    """Unique in its virtual network."""
    remote_virtual_network: Name
    """The peer."""
    allow_virtual_network_access: bool = True
    """Whether the two reach each other; both sides must allow it."""
    allow_forwarded_traffic: bool = False
    """Whether what did not start in the peer may come from it into *this* virtual network."""
    allow_gateway_transit: bool = False
    """Whether the peer may use this virtual network's gateway."""
    use_remote_gateways: bool = False
    """Use the peer's gateway; its side needs ``allow_gateway_transit``, and only one peering may say so."""


class VirtualNetworkGateway(Document):
    """A virtual network gateway: where what is outside Azure comes into a virtual network."""

    name: Name
    """Unique in the document; local network gateways name it."""
    subnet: Reference
    """``virtual_network/GatewaySubnet``; that subnet's route table decides about what comes in."""

    @property
    def virtual_network(self) -> str:
        """Where it stands."""
        return self.subnet.partition("/")[0]


class LocalNetworkGateway(Document):
    """A place outside Azure, connected to a gateway; a machine of its name stands for it (it runs ``echo``)."""

    name: Name
    """Unique in the document, also among machines; its namespace is ``<lab>-<name>``."""
    virtual_network_gateway: Name
    """The gateway that it is connected to."""
    local_network_address_space: tuple[Prefix, ...] = Field(min_length=1)
    """Its prefixes. The machine has the fifth address of the first one (``.4``) and gets what is for any of them."""
