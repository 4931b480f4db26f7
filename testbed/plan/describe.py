"""Kernel objects as the commands one would type for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.plan import objects
from testbed.plan.virtual_services import HASHED, ONE_PACKET

if TYPE_CHECKING:
    from testbed.plan.objects import KernelObject

__all__ = ["describe", "title"]


def describe(thing: KernelObject) -> str:  # noqa: C901, PLR0911, PLR0912 - one case per kind of object
    """The object in the words of ``ip``, ``sysctl`` and ``nft``; one line, a ruleset as many as it has."""
    match thing:
        case objects.Namespace():
            return f"ip netns add {thing.namespace}"
        case objects.Sysctl():
            return f"sysctl -w {thing.key}={thing.value}"
        case objects.Veth():
            return (
                f"ip link add {thing.name} address {thing.mac} mtu {thing.mtu} type veth "
                f"peer {thing.peer_name} netns {thing.peer_namespace} address {thing.peer_mac}"
            )
        case objects.Tap():
            return f"ip tuntap add {thing.name} mode tap"
        case objects.Macvlan():
            return f"ip link add {thing.name} link {thing.parent} address {thing.mac} type macvlan mode private"
        case objects.MovedLink():
            return f"ip link set {thing.interface} netns {thing.namespace} name {thing.name}"
        case objects.NoChecksumOffload():
            return f"ethtool -K {thing.link} tx off"
        case objects.LinkUp():
            return f"ip link set {thing.link} up"
        case objects.Address():
            nodad = " nodad" if ":" in thing.address else ""
            return f"ip address add {thing.address} dev {thing.link}{nodad}"
        case objects.Neighbor():
            return f"ip neighbour replace {thing.address} lladdr {thing.mac} dev {thing.link} nud permanent"
        case objects.Route():
            kind = "" if thing.kind == "unicast" else f"{thing.kind} "
            via = f" via {thing.gateway}" if thing.gateway else ""
            link = f" dev {thing.link}" if thing.link else ""
            onlink = " onlink" if thing.gateway else ""
            table = "" if thing.table == 254 else f" table {thing.table}"
            command = "ip -6 route" if ":" in thing.destination else "ip route"
            return f"{command} add {kind}{thing.destination}{via}{link}{onlink}{table} proto static"
        case objects.RoutingRule():
            command = "ip rule" if thing.version == 4 else "ip -6 rule"
            mark = f"{thing.mark:#x}/{thing.mask:#x}"
            return f"{command} add priority {thing.priority} fwmark {mark} lookup {thing.table}"
        case objects.VirtualServices():
            return "; ".join(_virtual_service(each) for each in thing.services) or "ipvsadm -C"
        case objects.Ruleset():
            return f"nft -f - <<'END'\n{thing.text}END"
        case objects.Instance():
            word = "program" if thing.runtime == "namespace" else thing.runtime
            return f"# {word} {thing.kind} {thing.config}"
        case objects.Controller():
            return "# probe controller"
        case objects.Keeper():
            return "# keeper of the containers"


def _virtual_service(service: objects.VirtualService) -> str:
    once = " -o" if service.flags & ONE_PACKET else ""
    hashed = f" -b {service.scheduler}-port,{service.scheduler}-fallback" if service.flags & HASHED else ""
    made = f"ipvsadm -A -f {service.mark} -s {service.scheduler}{hashed}{once}"
    return "; ".join([made, *(f"ipvsadm -a -f {service.mark} -r {each} -g -w 0" for each in service.destinations)])


def title(thing: KernelObject) -> str:
    """The object in one line, with the namespace it stands in."""
    what = f"nftables {', '.join(thing.tables)}" if isinstance(thing, objects.Ruleset) else describe(thing)
    return f"{thing.namespace}: {what}"
