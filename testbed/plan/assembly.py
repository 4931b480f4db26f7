"""The kernel objects behind a compiled lab: machines and their cables, routing tables, steering. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address
from typing import TYPE_CHECKING

from testbed.plan import objects, virtual_services
from testbed.plan.instances import PLATFORM_ROUTES, tap_name
from testbed.plan.network import ToInternet, ToNetworkInterface
from testbed.plan.numbers import (
    IPVS_MASK,
    IPVS_TABLE,
    MEMBER_MASK,
    TABLE_MASK,
    Numbers,
    member_table,
    network_table,
    table_mark,
)
from testbed.plan.ruleset.context import PROBE_SOURCE_IPV6
from testbed.topology.prefixes import inside
from testbed.topology.runtimes import ContainerRuntime, ExternalRuntime, NamespaceRuntime, VirtualMachineRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import Machine, NetworkInterface, Rule
    from testbed.plan.network import Network, SubnetView
    from testbed.plan.routes import EffectiveRoute

__all__ = [
    "FABRIC_MAC",
    "MAIN_TABLE",
    "MTU",
    "WIRE_TABLE",
    "asking",
    "fabric_routes",
    "fabric_sysctls",
    "machine_objects",
    "steering",
]

#: The address every network interface in Azure sees its neighbours at.
FABRIC_MAC = "12:34:56:78:9a:bc"
#: Of every cable, bytes.
MTU = 1500
#: nftables table that joins the two ends of a cable, in the namespaces of machines with a kernel of their own.
WIRE_TABLE = "netdev testbed"
MAIN_TABLE = 254
_NO_IPV6 = {
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
}
#: No address asks whether it is taken, or comes from an advertisement: they are the document's.
_STATIC_IPV6 = {
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.all.accept_ra": "0",
    "net.ipv6.conf.default.accept_ra": "0",
}
_IPV6 = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
_FABRIC_IPV6 = {
    # Its cables have Azure's link-local address and no other; before IPv6 is on, or they would make their own.
    "net.ipv6.conf.all.addr_gen_mode": "1",
    "net.ipv6.conf.default.addr_gen_mode": "1",
    **_STATIC_IPV6,
    **_IPV6,
    "net.ipv6.conf.all.forwarding": "1",
}
_MACHINE_IPV6 = {
    **_STATIC_IPV6,
    **_IPV6,
    "net.ipv6.conf.all.accept_redirects": "0",
    "net.ipv6.conf.default.accept_redirects": "0",
    # As of IPv4: an address outlives its cable's being down.
    "net.ipv6.conf.all.keep_addr_on_down": "1",
    "net.ipv6.conf.default.keep_addr_on_down": "1",
}
_FABRIC_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.default.proxy_arp": "1",
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
}
#: IPVS leaves conntrack's entries alone, forgets members at once when they go, and takes flows it has not seen begin.
_IPVS_SYSCTLS = {
    "net.ipv4.vs.conntrack": "1",
    "net.ipv4.vs.expire_nodest_conn": "1",
    "net.ipv4.vs.sloppy_tcp": "1",
}
_MACHINE_SYSCTLS = {
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}


def fabric_sysctls(*, ipv6: bool) -> dict[str, str]:
    """The fabric's settings; those of IPv6 only in a lab that has it."""
    return (_FABRIC_IPV6 if ipv6 else _NO_IPV6) | _FABRIC_SYSCTLS


def machine_objects(fabric: str, lab: str, machine: Machine) -> Iterator[objects.KernelObject]:
    """What makes one machine of its namespace, and its cables into the fabric."""
    here = machine.namespace
    runtime = machine.document.runtime if machine.document else NamespaceRuntime()
    ipv6 = any(each.ipv6 for each in machine.network_interfaces)
    for key, value in ((_MACHINE_IPV6 if ipv6 else _NO_IPV6) | _MACHINE_SYSCTLS).items():
        yield objects.Sysctl(here, key, value)
    for each in machine.network_interfaces:
        altname = f"{lab}-{machine.name}-{each.name}"
        yield objects.Veth(fabric, each.fabric_name, altname, FABRIC_MAC, MTU, here, each.name, each.mac)
        # Proxy ARP waits up to 0.8 s on purpose (RFC 925 wants the real owner to be first); here there is none.
        yield objects.Sysctl(fabric, f"net.ipv4.neigh.{each.fabric_name}.proxy_delay", "0")
        yield objects.LinkUp(here, each.name)
        if isinstance(runtime, NamespaceRuntime | ContainerRuntime):
            yield objects.Address(here, each.name, f"{each.address}/{each.prefix_length}")
        yield objects.Neighbor(fabric, each.fabric_name, each.address, each.mac)
        if each.ipv6:
            yield objects.Address(fabric, each.fabric_name, f"{PROBE_SOURCE_IPV6}/64")
            # As DHCPv6 and the router's advertisements leave it in Azure: an address alone, nothing else is on-link.
            yield objects.Address(here, each.name, f"{each.ipv6.address}/128")
            yield objects.Neighbor(fabric, each.fabric_name, each.ipv6.address, each.mac)
    if isinstance(runtime, NamespaceRuntime | ContainerRuntime):
        yield from _guest(machine, runtime)
        if isinstance(runtime, ContainerRuntime) and not runtime.checksum_offload:
            for each in machine.network_interfaces:
                yield objects.NoChecksumOffload(fabric, each.fabric_name)
    else:
        yield from _wires(machine, runtime)


def _guest(machine: Machine, runtime: NamespaceRuntime | ContainerRuntime) -> Iterator[objects.KernelObject]:
    """What a guest that shares the computer's kernel is told, as Azure's DHCP tells it."""
    here = machine.namespace
    for address in runtime.loopback_addresses:
        yield objects.Address(here, "lo", f"{address}/32")
    primary = machine.network_interfaces[0]
    # As Azure's DHCP does: the platform's addresses by the primary network interface only.
    for destination in PLATFORM_ROUTES:
        yield objects.Route(here, MAIN_TABLE, destination, gateway=primary.gateway, link=primary.name)
    if primary.ipv6:
        yield objects.Route(here, MAIN_TABLE, "::/0", gateway=PROBE_SOURCE_IPV6, link=primary.name)
    if isinstance(runtime, ContainerRuntime):
        for key, value in runtime.sysctls.items():
            yield objects.Sysctl(here, key, value)


def _wires(machine: Machine, runtime: VirtualMachineRuntime | ExternalRuntime) -> Iterator[objects.KernelObject]:
    """The far end of each cable, and the rules that hand every frame from one end to the other."""
    here = machine.namespace
    lines = []
    for position, each in enumerate(machine.network_interfaces):
        far = tap_name(each.name)
        if isinstance(runtime, VirtualMachineRuntime):
            yield objects.Tap(here, far)
        elif (outside := runtime.interfaces[position]).parent:
            yield objects.Macvlan(here, far, outside.parent, FABRIC_MAC)
        elif outside.interface:
            yield objects.MovedLink(here, far, outside.interface)
        yield objects.LinkUp(here, far)
        for one, other in ((each.name, far), (far, each.name)):
            hook = f'type filter hook ingress device "{one}" priority filter; policy accept;'
            lines += [f"  chain {one}_in {{", f"    {hook}", f'    fwd to "{other}"', "  }"]
    yield objects.Ruleset(here, (WIRE_TABLE,), "\n".join([f"table {WIRE_TABLE} {{", *lines, "}", ""]))


def _delivery(fabric: str, table: int, destination: str, interface: NetworkInterface) -> objects.Route:
    return objects.Route(fabric, table, destination, gateway=interface.address, link=interface.fabric_name)


def fabric_routes(
    fabric: str,
    network: Network,
    interfaces: tuple[NetworkInterface, ...],
    outside: Machine | None,
    numbers: Numbers,
) -> Iterator[objects.KernelObject]:
    """One table per subnet, its effective routes of one IP version.

    And one per virtual network, for replies from the internet.
    """
    for view in network.subnets:
        # A table holds one route to a prefix: where a route of the document is for a machine alone, its delivery.
        routes = {each.destination: each for each in _subnet_routes(fabric, network, view, interfaces, outside)}
        yield from routes.values()
        yield _selection(fabric, view.number, network.version)
    for name in dict.fromkeys(view.virtual_network for view in network.subnets) if outside else ():
        number = numbers.of("table", f"virtual network {name}")
        for each in interfaces:
            if each.virtual_network == name:
                yield _delivery(fabric, network_table(number), _alone(each.address), each)
        yield _selection(fabric, number, network.version)


def _subnet_routes(
    fabric: str, network: Network, view: SubnetView, interfaces: tuple[NetworkInterface, ...], outside: Machine | None
) -> Iterator[objects.Route]:
    """The prefixes of a subnet's effective routes, then the machines that they deliver to."""
    table = network_table(view.number)
    for route in view.routes:
        if route.state == "Active":
            yield _prefix_route(fabric, table, network, view, route, outside)
            yield from _outside_routes(fabric, table, network, view, route)
    for each in interfaces:
        if (
            not each.on_premises
            and each.virtual_network in network.reachable(view.virtual_network)
            and (network.target(view, ip_address(each.address)) == ToNetworkInterface(each))
        ):
            yield _delivery(fabric, table, _alone(each.address), each)


def _alone(address: str) -> str:
    """The prefix of an address alone."""
    return f"{address}/{ip_address(address).max_prefixlen}"


def _selection(fabric: str, number: int, version: int) -> objects.RoutingRule:
    return objects.RoutingRule(fabric, 20_000 + number, table_mark(number), TABLE_MASK, network_table(number), version)


def _prefix_route(
    fabric: str,
    table: int,
    network: Network,
    view: SubnetView,
    route: EffectiveRoute,
    outside: Machine | None,
) -> objects.Route:
    """A whole prefix: on to an appliance or out; what is delivered one by one, balanced or lost is a blackhole."""
    prefix = str(route.address_prefix)
    if route.next_hop_type in ("VirtualAppliance", "Internet", "VirtualNetworkGateway"):
        target = network.follow(view, route, route.address_prefix.network_address)
        if isinstance(target, ToNetworkInterface) and _whole(route, target.network_interface):
            return _delivery(fabric, table, prefix, target.network_interface)
        if isinstance(target, ToInternet) and outside:
            return _delivery(fabric, table, prefix, outside.network_interfaces[0])
    return objects.Route(fabric, table, prefix, kind="blackhole")


def _whole(route: EffectiveRoute, interface: NetworkInterface) -> bool:
    """Whether all of a route's prefix leads to the interface: behind a gateway it may be a part of it."""
    behind = [IPv4Network(each) for each in interface.on_premises]
    return not behind or any(inside(route.address_prefix, each) for each in behind)


def _outside_routes(
    fabric: str, table: int, network: Network, view: SubnetView, route: EffectiveRoute
) -> Iterator[objects.Route]:
    """What is behind a gateway and only a part of a route's prefix, such as that of a default route."""
    if route.next_hop_type != "VirtualNetworkGateway" or route.virtual_network is None:
        return
    for prefix, each in network.on_premises(route.virtual_network).items():
        holding = [other for other in view.routes if other.state == "Active" and inside(prefix, other.address_prefix)]
        longest = max(holding, key=lambda other: other.address_prefix.prefixlen, default=None)
        if longest is route and prefix != route.address_prefix:
            yield _delivery(fabric, table, str(prefix), each)


def asking(fabric: str, rules: tuple[Rule, ...], scheduler: str) -> Iterator[objects.KernelObject]:
    """IPVS in the fabric: its settings, the way to it, its services and the ways to their destinations."""
    for key, value in _IPVS_SYSCTLS.items():
        yield objects.Sysctl(fabric, key, value)
    members = {member.id: member for rule in rules for member in rule.members}
    for _, member in sorted(members.items()):
        gateway, link = member.address, member.fabric_name
        yield objects.Route(
            fabric, MAIN_TABLE, f"{virtual_services.destination(member)}/32", gateway=gateway, link=link
        )
    yield objects.Route(fabric, IPVS_TABLE, "0.0.0.0/0", kind="local", link="lo")
    yield objects.RoutingRule(fabric, IPVS_TABLE, IPVS_MASK, IPVS_MASK, IPVS_TABLE)
    if services := virtual_services.services(rules, scheduler):
        yield objects.VirtualServices(fabric, services)


def steering(fabric: str, rules: tuple[Rule, ...]) -> Iterator[objects.KernelObject]:
    """Per pool member a table that leads to it, chosen by the low half of the mark; probes use it as well."""
    members = {member.id: member for rule in rules for member in rule.members}
    for number, member in sorted(members.items()):
        table = member_table(number)
        gateway, link = member.address, member.fabric_name
        everything, version = ("::/0", 6) if ":" in gateway else ("0.0.0.0/0", 4)
        yield objects.Route(fabric, table, everything, gateway=gateway, link=link)
        yield objects.RoutingRule(fabric, 10_000 + number, number, MEMBER_MASK, table, version)
