"""IPv6 beside IPv4: what Azure's internal load balancers do with it, and what of it a lab has.

Azure promises flow symmetry to network interfaces with one IPv4 and one IPv6 configuration, the rules of the two
versions independent of each other ("High availability ports overview", the section on flow symmetry).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.topology.model import AzureBehaviour, NextHopType
from testbed.topology.runtimes import ExternalRuntime, VirtualMachineRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding

__all__ = [
    "floating_ip_is_ipv4",
    "further_configurations",
    "ipv6_of_the_preview",
    "members_of_a_version",
    "route_versions",
    "security_groups_are_ipv4",
]


def further_configurations(draft: Draft) -> Iterator[Finding]:
    """A network interface has one IPv6 configuration beside its own, IPv4 one."""
    for place in draft.lookup.interfaces:
        here = (*place.location, "ip_configurations")
        further = place.interface.ip_configurations
        for k, each in enumerate(further):
            if each.private_ip_address.version == 4:
                yield draft.error(
                    (*here, k, "private_ip_address"),
                    "secondary IPv4 configurations are not modelled: Azure promises symmetric flows to network "
                    "interfaces with a single one",
                    fix="remove it, or give the machine another network interface",
                )
        count = sum(each.private_ip_address.version == 6 for each in further)
        if count > 1:
            message = f"{place.machine.name} has {count} IPv6 configurations on one network interface"
            yield draft.error(here, message, fix="Azure allows one; remove the others")
        if further and isinstance(place.machine.runtime, VirtualMachineRuntime | ExternalRuntime):
            message = "IPv6 of machines with a kernel of their own is not modelled: the lab has no DHCPv6 for them"
            yield draft.error(here, message, fix="use runtime kind namespace or container, or remove it")


def security_groups_are_ipv4(draft: Draft) -> Iterator[Finding]:
    """Network security groups of a lab filter IPv4: nothing passes one unseen."""
    for place in draft.lookup.interfaces:
        subnet = draft.lookup.subnet.get(place.interface.subnet)
        group = place.interface.network_security_group or (subnet and subnet.subnet.network_security_group)
        if group and place.interface.ip_configurations:
            message = f"network security group {group!r} filters {place.machine.name}, and filters IPv4 only in a lab"
            fix = "remove ip_configurations, or the group from the network interface and its subnet"
            yield draft.error((*place.location, "ip_configurations"), message, fix=fix)


def members_of_a_version(draft: Draft) -> Iterator[Finding]:
    """The members of an IPv6 rule are IPv6 configurations, those of an IPv4 rule are not."""
    for place in draft.lookup.rules:
        version = draft.lookup.version(place)
        for member in draft.lookup.members(place.pool):
            if member.address.version == version:
                continue
            message = (
                f"{member.machine.name} is in pool {place.pool} with {member.address}, "
                f"and rule {place.rule.name!r} on it has an IPv{version} frontend"
            )
            fix = (
                "name this pool under the IPv6 address in ip_configurations of the network interface instead"
                if version == 6
                else "name this pool beside private_ip_address of the network interface instead"
            )
            yield draft.error((*member.location, "backend_address_pools"), message, fix=fix)


def floating_ip_is_ipv4(draft: Draft) -> Iterator[Finding]:
    """Floating IP does not work for IPv6 on internal load balancers ("Azure Load Balancer Floating IP")."""
    for place in draft.lookup.rules:
        if place.rule.enable_floating_ip and draft.lookup.version(place) == 6:
            message = "floating IP does not work for IPv6 on internal load balancers"
            fix = "set enable_floating_ip: false; each IPv6 rule then needs members of its own"
            yield draft.error((*place.location, "enable_floating_ip"), message, fix=fix)


def ipv6_of_the_preview(draft: Draft) -> Iterator[Finding]:
    """The preview of 2017 had HA Ports for IPv4 only; IPv6 came in March 2020."""
    if draft.topology.azure_behaviour != AzureBehaviour.PREVIEW_2017:
        return
    for front in draft.lookup.frontends:
        address = front.frontend.private_ip_address
        if address is not None and address.version == 6:
            message = "HA Ports rules were for IPv4 only in the preview of 2017"
            fix = "use an IPv4 address, or azure_behaviour: current"
            yield draft.error((*front.location, "private_ip_address"), message, fix=fix)


def route_versions(draft: Draft) -> Iterator[Finding]:
    """A route's next hop has the IP version of its destinations; the lab's internet is IPv4."""
    for i, table in enumerate(draft.topology.route_tables):
        for j, route in enumerate(table.routes):
            here = ("route_tables", i, "routes", j)
            hop, prefix = route.next_hop_ip_address, route.address_prefix
            if hop is not None and hop.version != prefix.version:
                message = f"{hop} is no next hop for {prefix}: one is IPv4 and the other IPv6"
                fix = f"name the IPv{prefix.version} address of the appliance or frontend"
                yield draft.error((*here, "next_hop_ip_address"), message, fix=fix)
            if prefix.version == 6 and route.next_hop_type == NextHopType.INTERNET:
                message = "the lab's internet is IPv4 only, so what takes this route is dropped"
                fix = "remove the route, or lead it to an appliance"
                yield draft.warning((*here, "next_hop_type"), message, fix=fix)
