"""What Azure has and the lab has not, with the reason; a part of ``docs/azure-fidelity.md``."""

from __future__ import annotations

__all__ = ["not_modelled"]


def not_modelled(*, row: int, fact: str, source: str, reason: str) -> None:
    """Say that a fact has no test because the lab has no such thing. Read by ``scripts/fidelity.py``, not run."""


not_modelled(
    row=11,
    fact="A public load balancer in front of the same appliances (the public and internal sandwich).",
    source='azure.md §1, "High availability ports overview"',
    reason="Public frontends have one rule per port and source NAT of their own; the asymmetry is the same with two "
    "internal load balancers, one per side, which the lab has.",
)
not_modelled(
    row=1,
    fact="Metrics: data path availability, SYN count, byte and packet count.",
    source='azure.md §7, "Supported metrics for Microsoft.Network/loadBalancers"',
    reason="The status of the lab counts flows and packets per member; Azure Monitor's names and grains are not kept.",
)
not_modelled(
    row=3,
    fact="Availability zones: each zone of a zone-redundant frontend probes on its own.",
    source='azure.md §6, "Load Balancer and availability zones"',
    reason="A lab is one zone.",
)
not_modelled(
    row=21,
    fact="Secondary IPv4 configurations of a network interface.",
    source='azure.md §1, "High availability ports overview"',
    reason="Azure promises symmetric flows to network interfaces with one IPv4 and at most one IPv6 configuration.",
)
not_modelled(
    row=21,
    fact="IPv6 to the internet, behind gateways and network security groups, and DHCPv6 for virtual machines.",
    source='azure.md §1, "High availability ports overview"',
    reason="The balancer is what a lab is about; IPv6 reaches it from namespaces and containers.",
)
not_modelled(
    row=19,
    fact="Application security groups, and service tags other than VirtualNetwork, AzureLoadBalancer and Internet.",
    source='azure.md §5, "Network security groups overview"',
    reason="They name groups of addresses, which a rule can list; other tags are services that a lab does not have.",
)
