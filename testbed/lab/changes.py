"""The difference between a plan and what is there, as a list of changes. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from testbed.plan import objects
from testbed.plan.replacement import BALANCER_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from testbed.plan.objects import KernelObject

__all__ = ["Change", "difference"]


@dataclass(frozen=True, slots=True)
class Change:
    """Make or remove one object."""

    action: Literal["add", "remove"]
    object: KernelObject


#: What is changed into its successor.
_IN_PLACE = (objects.Ruleset, objects.VirtualServices)
#: What others go with.
_HOLDERS = (
    objects.Veth,
    objects.Address,
    objects.Tap,
    objects.Macvlan,
    objects.MovedLink,
    objects.Namespace,
    objects.Instance,
)


def _depends(thing: KernelObject, other: KernelObject) -> bool:
    """Whether the kernel drops ``thing``, or a part of it, together with ``other``, or may do so."""
    match other:
        case objects.Veth():
            return _hangs_on(thing, other)
        case objects.Tap() | objects.Macvlan() | objects.MovedLink():
            mine = (thing.namespace, getattr(thing, "link", None)) == (other.namespace, other.name)
            return mine or (isinstance(thing, objects.Ruleset) and thing.namespace == other.namespace)
        case objects.Namespace() | objects.Instance():
            stays = objects.Namespace | objects.Instance | objects.Veth | objects.MovedLink
            return _brings(other) and thing.namespace == other.namespace and not isinstance(thing, stays)
        case objects.Address():  # a gateway may no longer be reachable without the subnet
            return isinstance(thing, objects.Route) and (thing.namespace, thing.link, ":" in thing.destination) == (
                other.namespace,
                other.link,
                ":" in other.address,
            )
    return False


def _brings(thing: KernelObject) -> bool:
    """Whether a network namespace comes and goes with it."""
    return isinstance(thing, objects.Namespace) or (isinstance(thing, objects.Instance) and thing.brings_namespace)


def _hangs_on(thing: KernelObject, veth: objects.Veth) -> bool:
    ends = {(veth.namespace, veth.name), (veth.peer_namespace, veth.peer_name)}
    match thing:
        case objects.LinkUp() | objects.Address() | objects.Neighbor() | objects.Route() | objects.NoChecksumOffload():
            return (thing.namespace, thing.link) in ends
        case objects.Ruleset():  # of a wire: it hangs on both ends; of the fabric: some chains name a cable
            hooked = thing.namespace == veth.namespace and f'device "{veth.name}"' in thing.text
            return hooked or thing.namespace == veth.peer_namespace
        case objects.Sysctl():
            return thing.namespace == veth.namespace and f".{veth.name}." in thing.key
    return False


def difference(wanted: Iterable[KernelObject], present: Iterable[KernelObject]) -> tuple[Change, ...]:
    """Changes that turn ``present`` into ``wanted``: removals first, in reverse order, then additions.

    Routes go later, when the new ones and the new rules are there: until then packets need the old ones. ``present``
    must be in order of creation. What the kernel drops along with a removed object is made anew.
    """
    wanted, present = tuple(wanted), tuple(present)
    keep = set(wanted)
    removed = [each for each in present if each not in keep]
    gone = {each.namespace for each in removed if _brings(each)}
    removed += [
        each for each in present if each in keep and isinstance(each, objects.Veth) and each.peer_namespace in gone
    ]
    holders = _by_namespace(removed)
    losses = {each: [one for one in holders[each.namespace] if _depends(each, one)] for each in present}
    have = {each for each, those in losses.items() if not those} - set(removed)
    replacing = {
        each.namespace
        for each in wanted
        if isinstance(each, objects.Ruleset) and each.tables[0] in BALANCER_TABLES.values() and each not in have
    }
    # The controller writes to the balancer's table: it must not run while that is replaced.
    controllers = [each for each in have if isinstance(each, objects.Controller) and each.namespace in replacing]
    removed += controllers
    have -= set(controllers)
    replaced = {_place(each) for each in wanted if isinstance(each, _IN_PLACE)}
    rerouted = {_destination(each) for each in wanted if isinstance(each, objects.Route)}
    takedown = [
        each
        for each in reversed(removed)
        if not (_replaced(each, replaced) or _kept(each, rerouted) or any(_wholly(each, one) for one in losses[each]))
    ]
    added = [each for each in wanted if each not in have]
    routing = objects.Route | objects.RoutingRule
    network = [place for place, each in enumerate(added, 1) if isinstance(each, routing | objects.Ruleset)]
    ready = max(network, default=0)
    return (
        *(Change("remove", each) for each in takedown if not isinstance(each, routing)),
        *(Change("add", each) for each in added[:ready]),
        *(Change("remove", each) for each in takedown if isinstance(each, routing)),
        *(Change("add", each) for each in added[ready:]),
    )


def _by_namespace(removed: Iterable[KernelObject]) -> dict[str, list[KernelObject]]:
    """What others go with, by where these are: a cable is in two namespaces."""
    found: dict[str, list[KernelObject]] = defaultdict(list)
    for each in removed:
        if isinstance(each, _HOLDERS):
            for place in {each.namespace, each.peer_namespace} if isinstance(each, objects.Veth) else {each.namespace}:
                found[place].append(each)
    return found


def _wholly(thing: KernelObject, holder: KernelObject) -> bool:
    """Whether nothing can be left of what depends on a holder that is removed.

    Of a table a cable takes its own chains only, and without an address a route may stay.
    """
    part = isinstance(thing, objects.Ruleset) and not _brings(holder)
    return not part and not isinstance(holder, objects.Address)


def _destination(route: objects.Route) -> tuple[str, int, str]:
    return route.namespace, route.table, route.destination


def _kept(thing: KernelObject, destinations: set[tuple[str, int, str]]) -> bool:
    """A route that another one takes the place of is not removed before, for the same reason as a table is not."""
    return isinstance(thing, objects.Route) and _destination(thing) in destinations


def _place(thing: KernelObject) -> tuple[object, ...]:
    """Where something stands that its successor takes over."""
    return (type(thing), thing.namespace, thing.tables if isinstance(thing, objects.Ruleset) else ())


def _replaced(thing: KernelObject, replaced: set[tuple[object, ...]]) -> bool:
    """A table that another one replaces is not removed before: packets would meet a gap."""
    return isinstance(thing, _IN_PLACE) and _place(thing) in replaced
