"""What the fabric itself receives and sends: probes, logins, DHCP; and what leaves for the internet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.plan.ruleset.context import PROBE_SOURCE, PROBE_SOURCE_IPV6
from testbed.plan.ruleset.ipvs import RECEIVED
from testbed.plan.ruleset.text import block

if TYPE_CHECKING:
    from testbed.plan.ruleset.context import Fabric

__all__ = ["local"]


def local(fabric: Fabric) -> list[str]:
    """The fabric itself speaks to machines when it probes them or logs in; it cannot be pinged, as in Azure."""
    probed = ", ".join(f'"{each.fabric_name}" . {each.address}' for each in fabric.interfaces)
    if fabric.version == 6:
        return _local_ipv6(probed)
    received = [
        "type filter hook input priority filter; policy drop;",
        'iifname "lo" accept',
        *([RECEIVED] if fabric.balancer == "ipvs" else []),
        *(["ip daddr 255.255.255.255 udp dport 67 accept"] if fabric.dhcp else []),
        # An answer that comes by another cable than the probe went is lost, as in Azure (machines with two NICs).
        f"ip daddr {PROBE_SOURCE} iifname . ip saddr != {{ {probed} }} drop" if probed else "drop",
        f"ip daddr {PROBE_SOURCE} tcp flags & (syn | ack) != syn accept",
        *([f"ip daddr {PROBE_SOURCE} udp dport 67 accept"] if fabric.dhcp else []),
        f"ip daddr {PROBE_SOURCE} icmp type destination-unreachable accept",
    ]
    sent = [
        "type filter hook output priority raw; policy accept;",
        "icmp type != destination-unreachable drop",
        "icmp code != frag-needed drop",
        "notrack",
    ]
    lines = [*block("chain received", received), *block("chain sent", sent)]
    if fabric.internet:
        translate = f'oifname "{fabric.internet.fabric_name}" snat to {fabric.internet.source_address}'
        hook = "type nat hook postrouting priority srcnat; policy accept;"
        lines += block("chain leave", [hook, translate])
    return lines


def _local_ipv6(probed: str) -> list[str]:
    """The same for IPv6, where the fabric is the router that every guest asks for as its neighbour."""
    asked = "nd-neighbor-solicit, nd-neighbor-advert"
    received = [
        "type filter hook input priority filter; policy drop;",
        'iifname "lo" accept',
        f"icmpv6 type {{ {asked} }} accept",
        f"ip6 daddr {PROBE_SOURCE_IPV6} iifname . ip6 saddr != {{ {probed} }} drop" if probed else "drop",
        f"ip6 daddr {PROBE_SOURCE_IPV6} tcp flags & (syn | ack) != syn accept",
        f"ip6 daddr {PROBE_SOURCE_IPV6} icmpv6 type {{ destination-unreachable, packet-too-big }} accept",
    ]
    sent = [
        "type filter hook output priority raw; policy accept;",
        f"icmpv6 type != {{ {asked}, packet-too-big }} drop",
        "notrack",
    ]
    return [*block("chain received", received), *block("chain sent", sent)]
