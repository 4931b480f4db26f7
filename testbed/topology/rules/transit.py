"""Traffic that appliances forward: peerings that drop it, and routes that send it back to where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.topology.lookup import FrontendPlace
from testbed.topology.switches import ForwardedTraffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.lookup import InterfacePlace, SubnetPlace
    from testbed.topology.model import Route
    from testbed.topology.nodes import Location

__all__ = ["forwarded_traffic", "routes_into_themselves"]


def _hops(draft: Draft) -> Iterator[tuple[Location, Route, SubnetPlace, InterfacePlace | FrontendPlace]]:
    """Routes to an address, per subnet that uses them: where, which, whose, and what stands at the next hop."""
    for i, table in enumerate(draft.topology.route_tables):
        for j, route in enumerate(table.routes):
            if route.next_hop_ip_address is None:
                continue
            owners = draft.lookup.owners(route.next_hop_ip_address)
            for place in draft.lookup.subnets:
                if place.subnet.route_table != table.name:
                    continue
                reachable = draft.lookup.reachable(place.network.name)
                for owner in owners:
                    if owner.network in reachable:
                        yield ("route_tables", i, "routes", j), route, place, owner


def forwarded_traffic(draft: Draft) -> Iterator[Finding]:
    """Where an appliance of a peer forwards into a virtual network, its side of the peering allows that."""
    if draft.topology.switches.allow_forwarded_traffic != ForwardedTraffic.DOCUMENTED:
        return
    forwarding = {each.interface.subnet for each in draft.lookup.interfaces if each.interface.enable_ip_forwarding}
    reported: set[tuple[str, str]] = set()
    for _, route, place, owner in _hops(draft):
        peer = draft.lookup.networks.get(owner.network)
        if peer is None or peer is place.network:
            continue
        # Into whom: back to the users of the route, and, where appliances use it, on to the next hop.
        ways = [(place.network.name, peer)] if not any(map(route.address_prefix.subnet_of, peer.address_space)) else []
        ways += [(peer.name, place.network)] if place.key in forwarding else []
        for name, start in ways:
            side = draft.lookup.connections.connected.get((name, start.name))
            if side is None or side.allow_forwarded_traffic or (name, start.name) in reported:
                continue
            reported.add((name, start.name))
            message = f"what appliances in {start.name} forward into {name} is dropped: {name}'s side does not allow it"
            fix = "set allow_forwarded_traffic: true (for the other behaviour see 'switches')"
            yield draft.warning(side.location, message, fix=fix)


def routes_into_themselves(draft: Draft) -> Iterator[Finding]:
    """An appliance's own subnet does not send what it forwards back to it: packets would go round."""
    for location, route, place, owner in _hops(draft):
        if isinstance(owner, FrontendPlace):
            pools = {each.pool for each in draft.lookup.rules if each.frontend == owner.key}
            stand = [member for pool in sorted(pools) for member in draft.lookup.members(pool)]
        else:
            stand = [owner]
        for each in stand:
            if each.interface.subnet == place.key and each.interface.enable_ip_forwarding:
                message = (
                    f"{each.machine.name} is in {place.key} itself: what it forwards to {route.address_prefix} comes "
                    "back to it, a loop until the TTL ends"
                )
                yield draft.warning(location, message, fix="give the appliances a subnet without this route")
                break
