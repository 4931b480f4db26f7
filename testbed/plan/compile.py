"""Topology to plan: numbers, interfaces, rules, and every kernel object, in order of creation. Pure."""

from __future__ import annotations

import json
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from testbed.plan import objects
from testbed.plan.model import Machine, Member, NetworkInterface, Plan, Probe, Rule
from testbed.plan.network import Network, ToInternet, ToNetworkInterface
from testbed.plan.numbers import MEMBER_MASK, TABLE_MASK, Numbers, member_table, network_table, table_mark
from testbed.plan.ruleset import PROBE_SOURCE, InternetLink, fabric_ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.network import SubnetView
    from testbed.plan.routes import EffectiveRoute
    from testbed.topology import model

__all__ = ["FABRIC_MAC", "INTERNET", "MTU", "compile_plan", "network_of"]

#: The address every network interface in Azure sees its neighbours at.
FABRIC_MAC = "12:34:56:78:9a:bc"
#: Name of the machine outside the trusted space.
INTERNET = "internet"
#: Of every cable, bytes.
MTU = 1500
_METADATA = "169.254.169.254"
_MAIN_TABLE = 254
_SHORT_NAME = 15  # IFNAMSIZ less the final zero
_FEW_MEMBERS = 8

_FABRIC_SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.default.proxy_arp": "1",
    "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
}
_MACHINE_SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}


def compile_plan(topology: model.Topology, lab: str, numbers: Numbers, state_directory: str) -> Plan:
    """Compile a checked topology.

    Args:
        topology: A document without errors (see :mod:`testbed.topology.loading`).
        lab: Name of the lab; prefix of its namespaces.
        numbers: Numbers given earlier to the same lab; new ones are added to it.
        state_directory: Where the lab's sockets will be.
    """
    fabric = f"{lab}-fabric"
    machines = tuple(_machine(topology, lab, machine, numbers) for machine in topology.machines)
    interfaces = tuple(each for machine in machines for each in machine.network_interfaces)
    rules = tuple(_rules(topology, interfaces, numbers))
    network = _network(topology, interfaces, rules, numbers)
    outside = _internet(topology, lab, numbers)
    link = _internet_link(topology, network, outside, numbers)
    everyone = (*machines, outside) if outside else machines
    ruleset = fabric_ruleset(network, interfaces, rules, link, topology.time_scale)
    made: list[objects.KernelObject] = [objects.Namespace(fabric)]
    made += [objects.Namespace(each.namespace) for each in everyone]
    made += [objects.Sysctl(fabric, key, value) for key, value in _FABRIC_SYSCTLS.items()]
    made.append(objects.Address(fabric, "lo", f"{PROBE_SOURCE}/32"))
    # Answers ARP for everything on every cable: a route out of another device is what proxy ARP asks for.
    made.append(objects.Route(fabric, _MAIN_TABLE, "0.0.0.0/0", link="lo"))
    for each in everyone:
        made += _machine_objects(fabric, lab, each, _loopback_addresses(topology, each.name))
    made += _fabric_routes(fabric, network, interfaces, outside, numbers)
    made += _steering(fabric, rules)
    made.append(objects.Ruleset(fabric, ("ip testbed",), ruleset))
    made += _programs(topology, everyone, state_directory)
    if rules:
        digest = blake2b(repr((rules, topology.time_scale)).encode(), digest_size=8).hexdigest()
        made.append(objects.Controller(fabric, digest))
    ids = tuple(sorted(numbers.known.items()))
    return Plan(lab, topology.time_scale, fabric, everyone, rules, ids, tuple(made))


def network_of(topology: model.Topology, plan: Plan) -> Network:
    """Where packets go in a lab, for its plan and the document it was compiled from."""
    interfaces = tuple(each for machine in plan.machines for each in machine.network_interfaces)
    return _network(topology, interfaces, plan.rules, Numbers(dict(plan.ids)))


def _network(
    topology: model.Topology, interfaces: tuple[NetworkInterface, ...], rules: tuple[Rule, ...], numbers: Numbers
) -> Network:
    subnets = {
        key: numbers.of("table", f"subnet {key}")
        for network in topology.virtual_networks
        for key in (f"{network.name}/{subnet.name}" for subnet in network.subnets)
    }
    return Network(topology, interfaces, rules, subnets)


def _short(name: str) -> str:
    if len(name) <= _SHORT_NAME:
        return name
    return f"{name[:6]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"


def _mac(number: int) -> str:
    """A Microsoft address (00:0d:3a), as Azure gives its network interfaces."""
    return f"00:0d:3a:{number >> 16 & 0xFF:02x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


def _machine(topology: model.Topology, lab: str, machine: model.Machine, numbers: Numbers) -> Machine:
    prefixes = {
        f"{network.name}/{subnet.name}": subnet.address_prefix.prefixlen
        for network in topology.virtual_networks
        for subnet in network.subnets
    }
    namespace = f"{lab}-{machine.name}"
    interfaces = []
    for position, each in enumerate(machine.network_interfaces):
        virtual_network, _, subnet = each.subnet.partition("/")
        key = f"{machine.name}/eth{position}"
        interfaces.append(
            NetworkInterface(
                machine=machine.name,
                name=f"eth{position}",
                namespace=namespace,
                fabric_name=_short(f"{machine.name}-eth{position}"),
                address=str(each.private_ip_address),
                prefix_length=prefixes[each.subnet],
                mac=_mac(numbers.of("interface", key)),
                virtual_network=virtual_network,
                subnet=subnet,
                enable_ip_forwarding=each.enable_ip_forwarding,
                backend_address_pools=each.backend_address_pools,
                member_id=numbers.of("member", key) if each.backend_address_pools else 0,
            )
        )
    runtime = machine.runtime
    program = runtime.program.value if runtime.program else None
    standby = runtime.standby_of is not None
    return Machine(machine.name, namespace, runtime.kind, program, standby, tuple(interfaces))


def _internet(topology: model.Topology, lab: str, numbers: Numbers) -> Machine | None:
    if topology.internet is None:
        return None
    prefix = topology.internet.address_prefix
    namespace = f"{lab}-{INTERNET}"
    interface = NetworkInterface(
        machine=INTERNET,
        name="eth0",
        namespace=namespace,
        fabric_name=f"{INTERNET}-eth0",
        address=str(prefix[4]),
        prefix_length=prefix.prefixlen,
        mac=_mac(numbers.of("interface", f"{INTERNET}/eth0")),
        virtual_network="",
        subnet="",
        enable_ip_forwarding=False,
        backend_address_pools=(),
        member_id=0,
    )
    return Machine(INTERNET, namespace, "namespace", "echo", standby=False, network_interfaces=(interface,))


def _internet_link(
    topology: model.Topology, network: Network, outside: Machine | None, numbers: Numbers
) -> InternetLink | None:
    if outside is None or topology.internet is None:
        return None
    back = {
        each.name: table_mark(numbers.of("table", f"virtual network {each.name}")) for each in topology.virtual_networks
    }
    return InternetLink(
        outside.network_interfaces[0].fabric_name,
        str(topology.internet.address_prefix[1]),
        tuple((table_mark(view.number), back[view.virtual_network]) for view in network.subnets),
    )


def _rules(topology: model.Topology, interfaces: tuple[NetworkInterface, ...], numbers: Numbers) -> Iterator[Rule]:
    for balancer in topology.load_balancers:
        frontends = {each.name: each for each in balancer.frontend_ip_configurations}
        probes = {each.name: each for each in balancer.probes}
        for rule in balancer.load_balancing_rules:
            frontend = frontends[rule.frontend_ip_configuration]
            pool = f"{balancer.name}/{rule.backend_address_pool}"
            members = tuple(
                Member(
                    each.member_id,
                    each.machine,
                    each.name,
                    each.namespace,
                    each.address,
                    each.fabric_name,
                    each.enable_ip_forwarding,
                )
                for each in interfaces
                if pool in each.backend_address_pools
            )
            yield Rule(
                id=numbers.of("rule", f"{balancer.name}/{frontend.name}/{rule.name}"),
                load_balancer=balancer.name,
                frontend=frontend.name,
                name=rule.name,
                frontend_address=str(frontend.private_ip_address),
                virtual_network=(frontend.subnet or "").partition("/")[0],
                backend_address_pool=pool,
                enable_floating_ip=rule.enable_floating_ip,
                idle_timeout_in_minutes=rule.idle_timeout_in_minutes,
                buckets=4096 if len(members) <= _FEW_MEMBERS else 65536,
                members=members,
                probe=_probe(probes[rule.probe]) if rule.probe else None,
            )


def _probe(probe: model.Probe) -> Probe:
    return Probe(
        probe.name,
        probe.protocol.value,
        probe.port,
        probe.request_path,
        float(probe.interval_in_seconds),
        probe.probe_threshold,
        probe.no_healthy_backends_behavior.value,
    )


def _loopback_addresses(topology: model.Topology, machine: str) -> tuple[IPv4Address, ...]:
    return next((each.runtime.loopback_addresses for each in topology.machines if each.name == machine), ())


def _machine_objects(
    fabric: str, lab: str, machine: Machine, loopback: tuple[IPv4Address, ...]
) -> Iterator[objects.KernelObject]:
    """What makes one machine, and its cables into the fabric."""
    here = machine.namespace
    for key, value in _MACHINE_SYSCTLS.items():
        yield objects.Sysctl(here, key, value)
    for each in machine.network_interfaces:
        altname = f"{lab}-{machine.name}-{each.name}"
        yield objects.Veth(fabric, each.fabric_name, altname, FABRIC_MAC, MTU, here, each.name, each.mac)
        # Proxy ARP waits up to 0.8 s on purpose (RFC 925 wants the real owner to be first); here there is none.
        yield objects.Sysctl(fabric, f"net.ipv4.neigh.{each.fabric_name}.proxy_delay", "0")
        yield objects.LinkUp(here, each.name)
        yield objects.Address(here, each.name, f"{each.address}/{each.prefix_length}")
        yield objects.Neighbor(fabric, each.fabric_name, each.address, each.mac)
    for address in loopback:
        yield objects.Address(here, "lo", f"{address}/32")
    primary = machine.network_interfaces[0]
    gateway = str(IPv4Network(f"{primary.address}/{primary.prefix_length}", strict=False)[1])
    # As Azure's DHCP does: the platform's addresses by the primary network interface only.
    for destination in ("0.0.0.0/0", f"{PROBE_SOURCE}/32", f"{_METADATA}/32"):
        yield objects.Route(here, _MAIN_TABLE, destination, gateway=gateway, link=primary.name)


def _delivery(fabric: str, table: int, destination: str, interface: NetworkInterface) -> objects.Route:
    return objects.Route(fabric, table, destination, gateway=interface.address, link=interface.fabric_name)


def _fabric_routes(
    fabric: str,
    network: Network,
    interfaces: tuple[NetworkInterface, ...],
    outside: Machine | None,
    numbers: Numbers,
) -> Iterator[objects.KernelObject]:
    """One table per subnet, its effective routes; and one per virtual network for replies from the internet."""
    for view in network.subnets:
        table = network_table(view.number)
        for route in view.routes:
            if route.state == "Active":
                yield _prefix_route(fabric, table, network, view, route, outside)
        for each in interfaces:
            if each.virtual_network in network.reachable(view.virtual_network) and (
                network.target(view, IPv4Address(each.address)) == ToNetworkInterface(each)
            ):
                yield _delivery(fabric, table, f"{each.address}/32", each)
        yield _selection(fabric, view.number)
    for name in dict.fromkeys(view.virtual_network for view in network.subnets) if outside else ():
        number = numbers.of("table", f"virtual network {name}")
        for each in interfaces:
            if each.virtual_network == name:
                yield _delivery(fabric, network_table(number), f"{each.address}/32", each)
        yield _selection(fabric, number)


def _selection(fabric: str, number: int) -> objects.RoutingRule:
    return objects.RoutingRule(fabric, 20_000 + number, table_mark(number), TABLE_MASK, network_table(number))


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
    if route.next_hop_type in ("VirtualAppliance", "Internet"):
        target = network.follow(view, route, route.address_prefix.network_address)
        if isinstance(target, ToNetworkInterface):
            return _delivery(fabric, table, prefix, target.network_interface)
        if isinstance(target, ToInternet) and outside:
            return _delivery(fabric, table, prefix, outside.network_interfaces[0])
    return objects.Route(fabric, table, prefix, kind="blackhole")


def _steering(fabric: str, rules: tuple[Rule, ...]) -> Iterator[objects.KernelObject]:
    """Per pool member a table that leads to it, chosen by the low half of the mark; probes use it as well."""
    members = {member.id: member for rule in rules for member in rule.members}
    for number, member in sorted(members.items()):
        table = member_table(number)
        gateway, link = member.address, member.fabric_name
        yield objects.Route(fabric, table, "0.0.0.0/0", gateway=gateway, link=link)
        yield objects.RoutingRule(fabric, 10_000 + number, number, MEMBER_MASK, table)


def _programs(
    topology: model.Topology, machines: tuple[Machine, ...], state_directory: str
) -> Iterator[objects.Program]:
    trusted = [str(prefix) for network in topology.virtual_networks for prefix in network.address_space]
    runtimes = {each.name: each.runtime for each in topology.machines}
    for machine in machines:
        if machine.program is None:
            continue
        config: dict[str, object] = {
            "machine": machine.name,
            "control": f"{state_directory}/{machine.name}.sock",
        }
        if machine.program == "nft-firewall":
            runtime = runtimes[machine.name]
            config |= {
                "probe_port": runtime.probe_port,
                "probe_path": runtime.probe_path,
                "trusted_prefixes": trusted,
                "standby_of": str(runtime.standby_of) if runtime.standby_of else None,
                "heartbeat_seconds": 1.0 * topology.time_scale,
            }
        yield objects.Program(machine.namespace, machine.name, machine.program, json.dumps(config, sort_keys=True))
