"""What runs as a machine or in it, with its whole configuration. Pure.

A configuration is JSON with sorted keys: two instances are the same exactly when it is. Files are named by absolute
paths, so that it does not matter where a command is started.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import TYPE_CHECKING

from testbed.plan import objects
from testbed.plan.ruleset.context import PROBE_SOURCE, PROBE_SOURCE_IPV6
from testbed.topology.runtimes import ContainerRuntime, NamespaceRuntime, VirtualMachineRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from testbed.plan.model import Machine
    from testbed.topology import model

__all__ = ["DHCP", "PLATFORM_ROUTES", "Surroundings", "container", "dhcp", "programs", "tap_name", "virtual_machines"]

#: Name of the DHCP server among the lab's processes; no machine may have it.
DHCP = "dhcp"
_METADATA = "169.254.169.254"
#: What a guest reaches by its primary network interface only.
PLATFORM_ROUTES = ("0.0.0.0/0", f"{PROBE_SOURCE}/32", f"{_METADATA}/32")


class Surroundings:
    """What the configurations refer to: the lab's folders, its trusted prefixes, the images of built containers.

    Args:
        topology: The document.
        lab: Name of the lab.
        state_directory: Where the lab's sockets and keys are.
        folder: Of the document.
        images: Image of each ``build`` of the document.
    """

    def __init__(
        self, topology: model.Topology, lab: str, state_directory: str, folder: str, images: Mapping[str, str]
    ) -> None:
        self.topology, self.lab, self.state_directory, self.images = topology, lab, state_directory, images
        self._folder = PurePath(folder)

    def path(self, name: str | None) -> str | None:
        """A file of the document, by its absolute path."""
        return None if name is None else str(self._folder / name)

    def control(self, machine: str) -> str:
        """The control socket of a machine."""
        return f"{self.state_directory}/{machine}.sock"


def _lab_key(machine: Machine) -> bool:
    """Whether the lab logs in with its own key."""
    access = machine.document.access if machine.document else None
    return bool(access and access.ssh and not access.ssh.password_env and not access.ssh.private_key_file)


def _instance(machine: Machine, kind: str, config: dict[str, object]) -> objects.Instance:
    text = json.dumps(config, sort_keys=True)
    return objects.Instance(machine.namespace, machine.name, machine.runtime, kind, text)


def container(machine: Machine, around: Surroundings) -> objects.Instance | None:
    """The container of a machine; None when it is not one."""
    runtime = machine.document.runtime if machine.document else None
    if not isinstance(runtime, ContainerRuntime):
        return None
    config: dict[str, object] = {
        "image": runtime.image or around.images.get(runtime.build or "", runtime.build),
        "pull": runtime.image is not None,
        "command": runtime.command,
        "environment": runtime.environment,
        "capabilities": runtime.capabilities,
        "mounts": [(around.path(each.source), each.target, each.read_only) for each in runtime.mounts],
        "lab_key": _lab_key(machine),
        "memory": runtime.memory,
        "cpus": runtime.cpus,
    }
    return _instance(machine, machine.summary, config)


def virtual_machines(machines: tuple[Machine, ...], around: Surroundings) -> Iterator[objects.Instance]:
    """The virtual machines, with one tap for each network interface."""
    for machine in machines:
        runtime = machine.document.runtime if machine.document else None
        if not isinstance(runtime, VirtualMachineRuntime):
            continue
        seed = runtime.cloud_init
        interfaces = [
            {
                "tap": tap_name(each.name),
                "mac": each.mac,
                "address": each.address,
                "prefix_length": each.prefix_length,
                "gateway": each.gateway,
            }
            for each in machine.network_interfaces
        ]
        config: dict[str, object] = {
            "disk": around.path(runtime.disk),
            "kernel": around.path(runtime.kernel),
            "initrd": around.path(runtime.initrd),
            "append": runtime.append,
            "files": {target: around.path(source) for target, source in runtime.files.items()},
            "memory": runtime.memory,
            "cpus": runtime.cpus,
            "accelerator": runtime.accelerator.value,
            "serial": around.path(runtime.serial) or f"{around.state_directory}/{machine.name}.serial.log",
            "interfaces": interfaces,
            "seed": None
            if seed is None
            else {
                "user_data": seed.user_data,
                "user_data_file": around.path(seed.user_data_file),
                "network_config": seed.network_config,
                "username": _username(machine) if _lab_key(machine) else None,
            },
        }
        yield _instance(machine, machine.summary, config)


def dhcp(fabric: str, machines: tuple[Machine, ...], mtu: int) -> objects.Instance | None:
    """The platform's DHCP server, for machines with a kernel of their own; None when there are none."""
    leases = {
        each.fabric_name: {
            "machine": machine.name,
            "mac": each.mac,
            "address": f"{each.address}/{each.prefix_length}",
            "gateway": "" if position else each.gateway,
            "mtu": mtu,
            "routes": () if position else PLATFORM_ROUTES,
            "server": PROBE_SOURCE,
        }
        for machine in machines
        if machine.runtime in ("vm", "external")
        for position, each in enumerate(machine.network_interfaces)
    }
    if not leases:
        return None
    return objects.Instance(fabric, DHCP, "namespace", DHCP, json.dumps({"leases": leases}, sort_keys=True))


def _username(machine: Machine) -> str | None:
    access = machine.document.access if machine.document else None
    return access.ssh.username if access and access.ssh else None


def tap_name(interface: str) -> str:
    """The tap or outside end behind ``eth0``: ``tap0``."""
    return interface.replace("eth", "tap")


def programs(machines: tuple[Machine, ...], around: Surroundings) -> Iterator[objects.Instance]:
    """The programs of namespace machines."""
    topology = around.topology
    spaces = [prefix for network in topology.virtual_networks for prefix in network.address_space]
    trusted = [str(prefix) for prefix in spaces if prefix.version == 4]
    trusted += [str(prefix) for each in topology.local_network_gateways for prefix in each.local_network_address_space]
    for machine in machines:
        if machine.program is None:
            continue
        config: dict[str, object] = {"machine": machine.name, "control": around.control(machine.name)}
        ipv6 = any(each.ipv6 for each in machine.network_interfaces)
        if ipv6 and machine.program == "echo":
            config["ipv6_probe_source"] = PROBE_SOURCE_IPV6
        runtime = machine.document.runtime if machine.document else None
        if machine.program == "nft-firewall" and isinstance(runtime, NamespaceRuntime):
            config |= {
                "probe_port": runtime.probe_port,
                "probe_path": runtime.probe_path,
                "trusted_prefixes": trusted,
                "source_nat": runtime.source_nat.value,
                "standby_of": str(runtime.standby_of) if runtime.standby_of else None,
                "heartbeat_seconds": 1.0 * topology.time_scale,
            }
            config |= {"ipv6": True} if ipv6 else {}
        yield _instance(machine, machine.program, config)
