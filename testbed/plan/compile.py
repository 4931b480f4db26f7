"""Topology to plan: numbers, interfaces, rules, and every kernel object, in order of creation. Pure."""

from __future__ import annotations

from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING

from testbed.plan import objects
from testbed.plan.assembly import MAIN_TABLE, MTU, asking, fabric_routes, fabric_sysctls, machine_objects, steering
from testbed.plan.cables import cables
from testbed.plan.instances import Surroundings, container, dhcp, programs, virtual_machines
from testbed.plan.model import IPv6Configuration, Machine, Member, NetworkInterface, Plan, Probe, Rule, ip_versions
from testbed.plan.network import Network
from testbed.plan.numbers import Numbers, table_mark
from testbed.plan.ruleset.context import PROBE_SOURCE, Fabric, InternetLink
from testbed.plan.ruleset.table import fabric_ruleset
from testbed.plan.security import effective_security
from testbed.plan.security_ruleset import SECURITY_TABLE, security_ruleset
from testbed.topology.model import ProbeProtocol
from testbed.topology.peering import Connections
from testbed.topology.runtimes import ExternalRuntime, NamespaceRuntime
from testbed.topology.switches import AdminStateDown, HttpProbeTimeout, NumberOfProbes, SingleInstanceAllDown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from ipaddress import IPv4Network

    from testbed.topology import model
    from testbed.topology.switches import Switches

__all__ = ["INTERNET", "compile_plan", "interface_numbers", "network_of"]

#: Name of the machine outside the trusted space.
INTERNET = "internet"
_SHORT_NAME = 15  # IFNAMSIZ less the final zero
_FEW_MEMBERS = 8
_HTTP_TIMEOUTS = {HttpProbeTimeout.THIRTY_SECONDS: 30.0, HttpProbeTimeout.THIRTY_ONE_SECONDS: 31.0}


def compile_plan(
    topology: model.Topology,
    lab: str,
    numbers: Numbers,
    state_directory: str,
    *,
    folder: str = ".",
    images: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Compile a checked topology.

    Args:
        topology: A document without errors (see :mod:`testbed.topology.loading`).
        lab: Name of the lab; prefix of its namespaces.
        numbers: Numbers given earlier to the same lab; new ones are added to it.
        state_directory: Where the lab's sockets will be.
        folder: Of the document.
        images: Image of each ``build`` of the document.
    """
    fabric = f"{lab}-fabric"
    machines = tuple(_machine(topology, lab, machine, numbers) for machine in topology.machines)
    places = tuple(_places(topology, lab, numbers))
    interfaces = tuple(each for machine in (*machines, *places) for each in machine.network_interfaces)
    rules = tuple(_rules(topology, interfaces, numbers))
    versions = ip_versions(interfaces)
    networks = {each: _network(topology, interfaces, rules, numbers, each) for each in versions}
    outside = _internet(topology, lab, numbers)
    link = _internet_link(topology, networks[4], outside, numbers)
    everyone = (*machines, *places, *([outside] if outside else []))
    server = dhcp(fabric, machines, MTU)
    made: list[objects.KernelObject] = [objects.Namespace(fabric)]
    around = Surroundings(topology, lab, state_directory, folder, images)
    made += [container(each, around) or objects.Namespace(each.namespace) for each in everyone]
    made += [objects.Sysctl(fabric, key, value) for key, value in fabric_sysctls(ipv6=6 in versions).items()]
    if any(rule.reset_when_idle for rule in rules):
        made.append(objects.Sysctl(fabric, "net.netfilter.nf_conntrack_events", "1"))  # else it tells of no endings
    made.append(objects.Address(fabric, "lo", f"{PROBE_SOURCE}/32"))
    # Answers ARP for everything on every cable: a route out of another device is what proxy ARP asks for.
    made.append(objects.Route(fabric, MAIN_TABLE, "0.0.0.0/0", link="lo"))
    for each in everyone:
        made += machine_objects(fabric, lab, each)
    for version, network in networks.items():
        own = _of_version(interfaces, version)
        made += fabric_routes(fabric, network, own, outside if version == 4 else None, numbers)
    made += steering(fabric, rules)
    if rules and topology.balancer == "ipvs":
        made += asking(fabric, tuple(rule for rule in rules if rule.version == 4), topology.scheduler)
    for version, network in networks.items():
        described = Fabric(
            network,
            _of_version(interfaces, version),
            tuple(each for each in rules if each.version == version),
            link if version == 4 else None,
            topology.time_scale,
            topology.switches,
            dhcp=server is not None and version == 4,
            balancer=topology.balancer if version == 4 else "nftables",
        )
        made.append(objects.Ruleset(fabric, (described.table,), fabric_ruleset(described)))
    if securities := effective_security(topology, interfaces):
        known = interface_numbers(interfaces, numbers)
        text = security_ruleset(securities, known, topology.time_scale)
        made.append(objects.Ruleset(fabric, (SECURITY_TABLE,), text))
    made += [server] if server else []
    made += virtual_machines(everyone, around)
    made += programs(everyone, around)
    balancing = (topology.balancer.value, topology.scheduler.value)
    if rules:
        told = (rules, topology.time_scale, *balancing, *cables(rules, everyone))
        digest = blake2b(repr(told).encode(), digest_size=8).hexdigest()
        made.append(objects.Controller(fabric, digest))
    if kept := [each.name for each in everyone if each.runtime == "container"]:
        made.append(objects.Keeper(fabric, " ".join(kept)))
    ids = tuple(sorted(numbers.known.items()))
    return Plan(lab, topology.time_scale, fabric, everyone, rules, ids, tuple(made), folder, *balancing)


def network_of(topology: model.Topology, plan: Plan, version: int = 4) -> Network:
    """Where packets of an IP version go in a lab, for its plan and the document it was compiled from."""
    return _network(topology, plan.interfaces, plan.rules, Numbers(dict(plan.ids)), version)


def _of_version(interfaces: tuple[NetworkInterface, ...], version: int) -> tuple[NetworkInterface, ...]:
    return tuple(own for each in interfaces if (own := each.of_version(version)))


def interface_numbers(interfaces: tuple[NetworkInterface, ...], numbers: Numbers) -> dict[tuple[str, str], int]:
    """Numbers of network interfaces, by machine and name."""
    return {(each.machine, each.name): numbers.of("interface", f"{each.machine}/{each.name}") for each in interfaces}


def _network(
    topology: model.Topology,
    interfaces: tuple[NetworkInterface, ...],
    rules: tuple[Rule, ...],
    numbers: Numbers,
    version: int = 4,
) -> Network:
    subnets = {
        key: numbers.of("table", f"subnet {key}")
        for network in topology.virtual_networks
        for key in (f"{network.name}/{subnet.name}" for subnet in network.subnets)
    }
    mine = tuple(each for each in rules if each.version == version)
    return Network(topology, _of_version(interfaces, version), mine, subnets, version)


def _short(name: str) -> str:
    if len(name) <= _SHORT_NAME:
        return name
    return f"{name[:6]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"


def _mac(number: int) -> str:
    """A Microsoft address (00:0d:3a), as Azure gives its network interfaces."""
    return f"00:0d:3a:{number >> 16 & 0xFF:02x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


def _machine(topology: model.Topology, lab: str, machine: model.Machine, numbers: Numbers) -> Machine:
    prefixes = {
        f"{network.name}/{subnet.name}": subnet.ipv4.prefixlen
        for network in topology.virtual_networks
        for subnet in network.subnets
    }
    namespace = f"{lab}-{machine.name}"
    runtime = machine.runtime
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
                mac=_outside_mac(machine, position) or _mac(numbers.of("interface", key)),
                virtual_network=virtual_network,
                subnet=subnet,
                enable_ip_forwarding=each.enable_ip_forwarding,
                backend_address_pools=each.backend_address_pools,
                member_id=numbers.of("member", key) if each.backend_address_pools else 0,
                ipv6=next((_ipv6(further, key, numbers) for further in each.ip_configurations), None),
            )
        )
    program = runtime.program.value if isinstance(runtime, NamespaceRuntime) and runtime.program else None
    standby = isinstance(runtime, NamespaceRuntime) and runtime.standby_of is not None
    return Machine(machine.name, namespace, runtime.kind, program, standby, tuple(interfaces), runtime.summary, machine)


def _ipv6(further: model.IPConfiguration, key: str, numbers: Numbers) -> IPv6Configuration:
    """A pool member of its own, with a number of its own: what it carries is told apart."""
    pools = further.backend_address_pools
    return IPv6Configuration(
        str(further.private_ip_address), 64, pools, numbers.of("member", f"{key}/ipv6") if pools else 0
    )


def _outside_mac(machine: model.Machine, position: int) -> str | None:
    """What is outside has its own address, not one of Azure's."""
    runtime = machine.runtime
    return runtime.interfaces[position].mac_address if isinstance(runtime, ExternalRuntime) else None


def _stand_in(lab: str, name: str, numbers: Numbers, prefixes: tuple[IPv4Network, ...], gateway: str = "") -> Machine:
    """A machine for what is outside: the whole internet, or a place behind a gateway (``virtual_network/subnet``)."""
    namespace = f"{lab}-{name}"
    virtual_network, _, subnet = gateway.partition("/")
    interface = NetworkInterface(
        machine=name,
        name="eth0",
        namespace=namespace,
        fabric_name=_short(f"{name}-eth0"),
        address=str(prefixes[0][4]),
        prefix_length=prefixes[0].prefixlen,
        mac=_mac(numbers.of("interface", f"{name}/eth0")),
        virtual_network=virtual_network,
        subnet=subnet,
        enable_ip_forwarding=False,
        backend_address_pools=(),
        member_id=0,
        on_premises=tuple(map(str, prefixes)) if gateway else (),
    )
    return Machine(name, namespace, "namespace", "echo", standby=False, network_interfaces=(interface,), summary="echo")


def _internet(topology: model.Topology, lab: str, numbers: Numbers) -> Machine | None:
    internet = topology.internet
    return _stand_in(lab, INTERNET, numbers, (internet.address_prefix,)) if internet else None


def _places(topology: model.Topology, lab: str, numbers: Numbers) -> Iterator[Machine]:
    """What is behind gateways: a cable into the gateway's subnet, whose routes decide."""
    gateways = {each.name: each.subnet for each in topology.virtual_network_gateways}
    for each in topology.local_network_gateways:
        gateway = gateways[each.virtual_network_gateway]
        yield _stand_in(lab, each.name, numbers, each.local_network_address_space, gateway)


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
    connections, switches = Connections(topology), topology.switches
    for balancer in topology.load_balancers:
        frontends = {each.name: each for each in balancer.frontend_ip_configurations}
        probes = {each.name: each for each in balancer.probes}
        pools = {each.name: each for each in balancer.backend_address_pools}
        for rule in balancer.load_balancing_rules:
            frontend = frontends[rule.frontend_ip_configuration]
            address = frontend.private_ip_address
            assert address is not None  # noqa: S101 - a checked document
            pool = f"{balancer.name}/{rule.backend_address_pool}"
            described = pools[rule.backend_address_pool]
            network = (frontend.subnet or "").partition("/")[0]
            members = tuple(
                Member(
                    each.member_id,
                    each.machine,
                    each.name,
                    each.namespace,
                    each.address,
                    each.fabric_name,
                    each.enable_ip_forwarding,
                    _admin_state(described, each),
                )
                for interface in interfaces
                if (each := interface.of_version(address.version)) and pool in each.backend_address_pools
            )
            yield Rule(
                id=numbers.of("rule", f"{balancer.name}/{frontend.name}/{rule.name}"),
                load_balancer=balancer.name,
                frontend=frontend.name,
                name=rule.name,
                frontend_address=str(address),
                virtual_network=network,
                backend_address_pool=pool,
                enable_floating_ip=rule.enable_floating_ip,
                idle_timeout_in_minutes=rule.idle_timeout_in_minutes,
                buckets=4096 if len(members) <= _FEW_MEMBERS else 65536,
                members=members,
                protocol=rule.protocol.value,
                frontend_port=rule.frontend_port,
                backend_port=rule.backend_port,
                load_distribution=rule.load_distribution.value,
                probe=_probe(probes[rule.probe], switches) if rule.probe else None,
                reset_when_idle=rule.enable_tcp_reset,
                reset_transit_when_idle=rule.enable_tcp_reset and switches.tcp_reset_on_ha_ports,
                reset_when_down=switches.admin_state_down is AdminStateDown.RESET,
                drain_period_in_seconds=described.drain_period_in_seconds,
                flows_end_alone=len(members) == 1
                and switches.single_instance_all_down is SingleInstanceAllDown.FLOWS_END,
                reaches=tuple(sorted(connections.reachable(network))),
            )


def _admin_state(pool: model.BackendAddressPool, interface: NetworkInterface) -> str:
    names = (interface.machine, f"{interface.machine}/{interface.name}")
    given = (each.admin_state.value for each in pool.load_balancer_backend_addresses if each.machine in names)
    return next(given, "None")


def _probe(probe: model.Probe, switches: Switches) -> Probe:
    fixed = _HTTP_TIMEOUTS.get(switches.http_probe_timeout) if probe.protocol != ProbeProtocol.TCP else None
    threshold = probe.probe_threshold
    if switches.number_of_probes is NumberOfProbes.RESPECTED and "probe_threshold" not in probe.model_fields_set:
        threshold = probe.number_of_probes or threshold
    return Probe(
        probe.name,
        probe.protocol.value,
        probe.port,
        probe.request_path,
        float(probe.interval_in_seconds),
        threshold,
        probe.no_healthy_backends_behavior.value,
        fixed,
        switches.probe_hold_down,
    )
