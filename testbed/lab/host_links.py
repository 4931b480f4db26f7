"""Network interfaces of the computer that a lab uses for machines outside: there, and not needed by the computer."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import TYPE_CHECKING

from testbed.errors import InputError
from testbed.kernel import namespaces
from testbed.kernel.netlink import Netlink
from testbed.plan import objects

if TYPE_CHECKING:
    from collections.abc import Collection

    from testbed.plan.model import Plan

__all__ = ["check"]


def check(plan: Plan, taken: Collection[str]) -> None:
    """Refuse what is not there, and what carries the computer's own traffic.

    Args:
        plan: To be brought up.
        taken: Network interfaces that the user gives up knowingly.

    Raises:
        InputError: One cannot be used.
    """
    wanted = {
        (each.parent if isinstance(each, objects.Macvlan) else each.interface): each
        for each in plan.objects
        if isinstance(each, objects.Macvlan | objects.MovedLink)
    }
    if not wanted:
        return
    with Netlink() as netlink:
        names = {link.index: link.name for link in netlink.links()}
        used = _used(netlink, names)
    for name, thing in wanted.items():
        if name in names.values():
            if name in used and name not in taken:
                moves = isinstance(thing, objects.MovedLink)
                danger = "moving it away cuts the computer off" if moves else "the machine outside shares that network"
                raise InputError(
                    f"network interface {name!r} has {used[name]}, and {danger}",
                    fix=f"use another one; or accept it: testbed up … --take-interface {name}",
                )
        elif not _moved_already(thing):
            known = ", ".join(sorted(set(names.values()) - {"lo"})) or "none"
            raise InputError(f"there is no network interface {name!r}", fix=f"this computer has: {known}")


def _used(netlink: Netlink, names: dict[int, str]) -> dict[str, str]:
    """What makes a network interface the computer's own, by its name."""
    used = {
        link: f"the address {address}"
        for link, address in reversed(netlink.addresses(names))  # IPv4 is named first
        if not _every_link_has(ip_interface(address))
    }
    for link in netlink.default_links(names):
        used[link] = "the computer's default route"
    return used


def _every_link_has(address: IPv4Interface | IPv6Interface) -> bool:
    """Whether the kernel gives one to each link that comes up, whatever it is for."""
    return address.version == 6 and address.is_link_local


def _moved_already(thing: objects.Macvlan | objects.MovedLink) -> bool:
    """Whether it is in the lab, from an ``up`` before."""
    if isinstance(thing, objects.Macvlan) or not namespaces.exists(thing.namespace):
        return False
    with namespaces.entered(thing.namespace), Netlink() as netlink:
        return any(link.name == thing.name for link in netlink.links())
