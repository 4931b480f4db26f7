"""Addresses and prefixes of both IP versions, compared: those of two versions have nothing in common."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

__all__ = ["IPAddress", "IPNetwork", "inside", "overlap"]

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


def inside(part: IPNetwork, whole: IPNetwork) -> bool:
    """Whether ``whole`` holds all of ``part``."""
    return part.prefixlen >= whole.prefixlen and part.network_address in whole


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Whether they share an address."""
    return inside(one, other) or inside(other, one)
