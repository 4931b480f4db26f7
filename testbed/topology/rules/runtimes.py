"""Machines: what runs in them fits what they are used for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.topology.lookup import InterfacePlace
from testbed.topology.runtimes import ContainerRuntime, NamespaceRuntime, Program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding

__all__ = ["floating_frontends_owned", "standbys"]


def standbys(draft: Draft) -> Iterator[Finding]:
    """A standby is an appliance, and waits for another machine."""
    for i, machine in enumerate(draft.topology.machines):
        runtime = machine.runtime
        active = runtime.standby_of if isinstance(runtime, NamespaceRuntime) else None
        if not isinstance(runtime, NamespaceRuntime) or active is None:
            continue
        location = ("machines", i, "runtime", "standby_of")
        if runtime.program != Program.NFT_FIREWALL:
            fix = "set program: nft-firewall, or remove standby_of"
            yield draft.error(location, "only program nft-firewall can be a standby", fix=fix)
        owners = [each for each in draft.lookup.owners(active) if isinstance(each, InterfacePlace)]
        if not owners and not draft.lost(str(active), kind="network_interfaces"):
            message = f"no machine has the address {active}"
            yield draft.error(location, message, fix="name the address of the active appliance's network interface")
        elif owners and all(each.machine is machine for each in owners):
            message = f"{active} is an address of {machine.name} itself"
            yield draft.error(location, message, fix="name the address of the active appliance's network interface")


def floating_frontends_owned(draft: Draft) -> Iterator[Finding]:
    """With floating IP, packets for the frontend reach the member unchanged: it must own that address."""
    for place in draft.lookup.rules:
        frontend = draft.lookup.frontend.get(place.frontend)
        if not place.rule.enable_floating_ip or frontend is None or frontend.frontend.private_ip_address is None:
            continue
        address = frontend.frontend.private_ip_address
        for member in draft.lookup.members(place.pool):
            runtime = member.machine.runtime
            if not isinstance(runtime, NamespaceRuntime | ContainerRuntime):
                continue  # the machine's own affair
            owned = address in runtime.loopback_addresses
            if member.interface.enable_ip_forwarding or owned or draft.lost(str(address)):
                continue
            message = f"{member.machine.name} drops what is addressed to the floating frontend {address}"
            fix = f"add 'loopback_addresses: [{address}]', or set enable_floating_ip: false on rule {place.rule.name!r}"
            yield draft.warning(("machines", member.location[1], "runtime"), message, fix=fix)
