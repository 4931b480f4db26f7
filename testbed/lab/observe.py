"""What of a lab is there now, read from the kernel, in the words of :mod:`testbed.plan.objects`."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.kernel import devices, ipvs, namespaces, nft, sysctl
from testbed.kernel.netlink import Netlink
from testbed.plan import objects
from testbed.plan.replacement import chains

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from testbed.kernel.netlink import Link
    from testbed.lab.state import State
    from testbed.plan.objects import KernelObject

__all__ = ["observe"]


def observe(lab: str, fabric: str, known: Iterable[KernelObject], state: State) -> tuple[KernelObject, ...]:
    """All objects of the lab that are there, in order of creation.

    The fabric is the testbed's own, so everything found in it counts. In machines only what ``known`` (the old
    plan and the new one) names counts: a route that a guest or its user set is theirs.
    """
    known = tuple(dict.fromkeys(known))
    running = set(_processes(known, state))
    mounted = [each.name for each in namespaces.owned(lab) if each.mounted]
    brought = {each.namespace for each in running if isinstance(each, objects.Instance) and each.brings_namespace}
    # What a container that has ended left behind is no machine: neither its namespace nor anything in it counts.
    lost = {each.namespace for each in known if isinstance(each, objects.Instance) and each.brings_namespace} - brought
    present = [name for name in mounted if name not in lost or objects.Namespace(name) in known]
    found: set[KernelObject] = {objects.Namespace(name) for name in present if name not in brought} | running
    by_namespace: dict[str, list[KernelObject]] = {name: [] for name in present}
    for each in known:
        if each.namespace in by_namespace:
            by_namespace[each.namespace].append(each)
    extra: list[KernelObject] = [objects.Namespace(name) for name in present if name not in brought]
    links: dict[str, tuple[Link, ...]] = {}
    for name, mine in by_namespace.items():
        links[name], seen = _look(name, mine)
        if name == fabric:  # its links' states belong to the cables, see below
            seen = {each for each in seen if not isinstance(each, objects.LinkUp)}
            extra += seen
        found |= seen if name == fabric else seen & set(mine)
    cables = _cables(fabric, known, links)
    found |= cables
    extra += cables
    ordered = dict.fromkeys([*known, *sorted(extra, key=_rank)])
    return tuple(each for each in ordered if each in found)


_ORDER = (
    objects.Namespace,
    objects.Sysctl,
    objects.Veth,
    objects.NoChecksumOffload,
    objects.LinkUp,
    objects.Address,
    objects.Neighbor,
    objects.Route,
    objects.RoutingRule,
    objects.VirtualServices,
    objects.Ruleset,
)


def _rank(thing: KernelObject) -> int:
    return _ORDER.index(type(thing))


def _look(namespace: str, mine: list[KernelObject]) -> tuple[tuple[Link, ...], set[KernelObject]]:
    """The links, and the settings, link states, addresses, neighbours, routes, rules and tables of one namespace."""
    found: set[KernelObject] = set()
    with namespaces.entered(namespace), Netlink() as netlink:
        links = netlink.links()
        names = {link.index: link.name for link in links}
        found |= {each for each in mine if isinstance(each, objects.Sysctl) and _is_set(each)}
        found |= {each for each in mine if isinstance(each, objects.Ruleset) and _is_loaded(each)}
        if any(isinstance(each, objects.VirtualServices) for each in mine):
            found |= _virtual_services(namespace)
        found |= {objects.LinkUp(namespace, link.name) for link in links if link.up}
        found |= {each for each in mine if _is_device(each, links)}
        for link, address in netlink.addresses(names):
            if not address.startswith(("127.", "::1/")):
                found.add(objects.Address(namespace, link, address))
        for link, address, mac in netlink.neighbors(names):
            found.add(objects.Neighbor(namespace, link, address, mac))
        for entry in netlink.routes(names):
            found.add(objects.Route(namespace, entry.table, entry.destination, entry.kind, entry.gateway, entry.link))
        for rule in netlink.rules():
            found.add(objects.RoutingRule(namespace, rule.priority, rule.mark, rule.mask, rule.table, rule.version))
    return links, found


def _is_device(thing: KernelObject, links: tuple[Link, ...]) -> bool:
    """Whether a device of the plan is there as planned."""
    match thing:
        case objects.Tap():
            return any(link.name == thing.name for link in links)
        case objects.Macvlan():
            return any((link.name, link.mac) == (thing.name, thing.mac) for link in links)
        case objects.MovedLink():
            return any((link.name, link.alias) == (thing.name, devices.HOME + thing.interface) for link in links)
        case objects.NoChecksumOffload():
            return devices.checksum_offload(thing.link) is False
    return False


def _is_set(setting: objects.Sysctl) -> bool:
    value = sysctl.read(setting.key)
    return value == setting.value or (value is None and setting.key.startswith("net.ipv6."))


def _is_loaded(ruleset: objects.Ruleset) -> bool:
    return nft.chains(ruleset.tables) == chains(ruleset.text)


def _virtual_services(namespace: str) -> set[KernelObject]:
    """What IPVS has; nothing, where the kernel has no IPVS or it has no services."""
    with suppress(LabError), closing(ipvs.Ipvs()) as door:
        found = tuple(
            objects.VirtualService(each.mark, each.scheduler, each.flags, each.destinations) for each in door.services()
        )
        return {objects.VirtualServices(namespace, found)} if found else set()
    return set()


def _cables(fabric: str, known: tuple[KernelObject, ...], links: Mapping[str, tuple[Link, ...]]) -> set[KernelObject]:
    """Cables whose two ends are there as planned, and those in the fabric that no plan knows."""
    planned = {each.name: each for each in known if isinstance(each, objects.Veth)}
    found: set[KernelObject] = set()
    for link in links.get(fabric, ()):
        if link.name == "lo":
            continue
        veth = planned.get(link.name)
        if (
            veth
            and (link.mac, link.mtu, link.up) == (veth.mac, veth.mtu, True)
            and veth.altname in link.altnames
            and (veth.peer_name, veth.peer_mac) in {(far.name, far.mac) for far in links.get(veth.peer_namespace, ())}
        ):
            found.add(veth)
        else:
            found.add(_stray(fabric, link))
    for veth in planned.values():
        if veth not in found:  # its far end can still be there: it stands in the way, or the kernel is about to drop it
            far = [link for link in links.get(veth.peer_namespace, ()) if link.name == veth.peer_name]
            found |= {_stray(veth.peer_namespace, link) for link in far}
    return found


def _stray(namespace: str, link: Link) -> objects.Veth:
    """An end of a cable that no plan knows."""
    altname = link.altnames[0] if link.altnames else ""
    return objects.Veth(namespace, link.name, altname, link.mac, link.mtu, "", "", "")


def _processes(known: tuple[KernelObject, ...], state: State) -> Iterator[KernelObject]:
    """Programs and the controller: alive, in their namespace, started with what is planned."""
    running = state.running()
    for each in known:
        if isinstance(each, objects.Instance):
            entry = running.get(each.machine)
        elif isinstance(each, objects.Controller):
            entry = running.get("controller")
        elif isinstance(each, objects.Keeper):
            entry = running.get("keeper")
        else:
            continue
        if entry and entry.config == each.config and entry.process.inside(each.namespace):
            yield each
