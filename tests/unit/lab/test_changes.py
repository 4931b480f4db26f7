"""The difference between what should be and what is."""

from __future__ import annotations

from testbed.lab.changes import Change, difference
from testbed.plan import objects

FABRIC, MACHINE = objects.Namespace("x-fabric"), objects.Namespace("x-a")
CABLE = objects.Veth("x-fabric", "a-eth0", "x-a-eth0", "12:34:56:78:9a:bc", 1500, "x-a", "eth0", "00:0d:3a:00:00:01")
WIDER = objects.Veth("x-fabric", "a-eth0", "x-a-eth0", "12:34:56:78:9a:bc", 9000, "x-a", "eth0", "00:0d:3a:00:00:01")
UP = objects.LinkUp("x-a", "eth0")
ADDRESS = objects.Address("x-a", "eth0", "10.0.0.4/24")
ROUTE = objects.Route("x-fabric", 50001, "10.0.0.4/32", gateway="10.0.0.4", link="a-eth0")
OTHER_ROUTE = objects.Route("x-fabric", 50001, "10.0.0.5/32", kind="blackhole")
RULES = objects.Ruleset("x-fabric", ("ip testbed",), "one")
NEW_RULES = objects.Ruleset("x-fabric", ("ip testbed",), "two")
PROGRAM = objects.Instance("x-a", "a", "namespace", "echo", "{}")
CONTROLLER = objects.Controller("x-fabric", "digest")
ALL = (FABRIC, MACHINE, CABLE, UP, ADDRESS, ROUTE, OTHER_ROUTE, RULES, PROGRAM, CONTROLLER)


def add(*things: objects.KernelObject) -> list[Change]:
    return [Change("add", each) for each in things]


def remove(*things: objects.KernelObject) -> list[Change]:
    return [Change("remove", each) for each in things]


def test_nothing_to_do() -> None:
    """A lab that is as planned needs no change."""
    assert difference(ALL, ALL) == ()


def test_everything_is_made_in_order() -> None:
    """A fresh lab is made in the plan's order."""
    assert list(difference(ALL, ())) == add(*ALL)


def test_a_missing_object_is_made_again() -> None:
    """What somebody removed by hand comes back, alone."""
    present = [each for each in ALL if each is not ROUTE]
    assert list(difference(ALL, present)) == add(ROUTE)


def test_an_unknown_object_is_removed() -> None:
    """What no plan knows is removed before anything is added."""
    wanted = [each for each in ALL if each is not OTHER_ROUTE]
    assert list(difference(wanted, ALL)) == remove(OTHER_ROUTE)


def test_a_replaced_cable_brings_back_what_hangs_on_it() -> None:
    """The kernel drops a cable's addresses and routes with it; they are made anew."""
    wanted = tuple(WIDER if each is CABLE else each for each in ALL)
    changes = list(difference(wanted, ALL))
    assert changes == [*remove(CABLE), *add(WIDER, UP, ADDRESS, ROUTE)]


def test_a_new_ruleset_replaces_the_old_one_without_a_gap() -> None:
    """Tables are swapped in one transaction, while the controller that writes to them stands still."""
    wanted = tuple(NEW_RULES if each is RULES else each for each in ALL)
    assert list(difference(wanted, ALL)) == [*remove(CONTROLLER), *add(NEW_RULES, CONTROLLER)]


def test_a_machine_that_goes_takes_its_own_with_it() -> None:
    """Addresses inside a namespace need no step of their own; cables and programs do."""
    wanted = (FABRIC, OTHER_ROUTE, RULES, CONTROLLER)
    changes = list(difference(wanted, ALL))
    assert [each for each in changes if each.action == "remove"] == remove(PROGRAM, CABLE, MACHINE)


def test_an_address_that_goes_takes_its_routes_with_it() -> None:
    """Routes by the same link are set again when an address is replaced."""
    default = objects.Route("x-a", 254, "0.0.0.0/0", gateway="10.0.0.1", link="eth0")
    moved = objects.Address("x-a", "eth0", "10.0.0.5/24")
    changes = difference((*ALL, moved, default), (*ALL[:5], default, *ALL[5:]))
    assert list(changes) == add(moved)
    wanted = tuple(moved if each is ADDRESS else each for each in ALL)
    changes = difference((*wanted, default), (*ALL, default))
    assert list(changes) == [*remove(ADDRESS), *add(moved, default)]


def test_routes_that_go_with_an_address_are_removed_all_the_same() -> None:
    """The kernel may keep them; and those of the other IP version it keeps for certain."""
    router = objects.Address("x-fabric", "a-eth0", "fe80::1/64")
    other = objects.Route("x-fabric", 50001, "fd00::4/128", gateway="fd00::4", link="a-eth0")
    stays = objects.Route("x-fabric", 50001, "fd00::5/128", gateway="fd00::4", link="a-eth0")
    present = (*ALL[:5], router, *ALL[5:], other, stays)
    wanted = [each for each in (*ALL, stays) if each is not ROUTE]
    assert list(difference(wanted, present)) == [*remove(router), *add(stays), *remove(other, ROUTE)]


CONTAINER = objects.Instance("x-a", "a", "container", "image", "{}")
OTHER_CONTAINER = objects.Instance("x-a", "a", "container", "image", '{"memory": "1G"}')
CONTAINED = (FABRIC, CONTAINER, CABLE, UP, ADDRESS, ROUTE, OTHER_ROUTE, RULES, CONTROLLER)
TAP, WIRE = objects.Tap("x-a", "tap0"), objects.Ruleset("x-a", ("netdev testbed",), "wire")
MACHINE_VM = objects.Instance("x-a", "a", "vm", "disk", "{}")
VIRTUAL = (FABRIC, MACHINE, CABLE, UP, TAP, WIRE, ROUTE, OTHER_ROUTE, RULES, MACHINE_VM, CONTROLLER)


def test_another_container_takes_its_namespace_and_cables_with_it() -> None:
    """All that was in it is made anew in the new one; the rest of the fabric, and the controller, are left alone."""
    wanted = tuple(OTHER_CONTAINER if each is CONTAINER else each for each in CONTAINED)
    changes = list(difference(wanted, CONTAINED))
    assert changes == [*remove(CABLE, CONTAINER), *add(OTHER_CONTAINER, CABLE, UP, ADDRESS, ROUTE)]


def test_a_namespace_becomes_a_container() -> None:
    """The old namespace goes with its program before the container brings the new one."""
    changes = list(difference(CONTAINED, ALL))
    assert changes == [*remove(CABLE, PROGRAM, MACHINE), *add(CONTAINER, CABLE, UP, ADDRESS, ROUTE)]


def test_a_new_virtual_machine_keeps_its_wiring() -> None:
    """Its namespace, cable, tap and wire are not its own: only QEMU is another one."""
    bigger = objects.Instance("x-a", "a", "vm", "disk", '{"memory": "1G"}')
    wanted = tuple(bigger if each is MACHINE_VM else each for each in VIRTUAL)
    assert list(difference(wanted, VIRTUAL)) == [*remove(MACHINE_VM), *add(bigger)]


def test_a_wire_is_made_again_with_its_cable_and_leaves_the_controller_alone() -> None:
    """The kernel drops a hook with its device; the fabric's own tables are not touched."""
    wanted = tuple(WIDER if each is CABLE else each for each in VIRTUAL)
    changes = list(difference(wanted, VIRTUAL))
    assert changes == [*remove(CABLE), *add(WIDER, UP, WIRE, ROUTE)]


GROUPS = objects.Ruleset("x-fabric", ("netdev testbed_nsg",), 'hook ingress device "a-eth0" priority filter')
GUARDED = (*ALL[:-2], GROUPS, *ALL[-2:])


def test_security_groups_change_without_the_controller() -> None:
    """It does not write to their table; they go while the balancer's table stays."""
    changed = objects.Ruleset(GROUPS.namespace, GROUPS.tables, GROUPS.text + " drop")
    wanted = tuple(changed if each is GROUPS else each for each in GUARDED)
    assert list(difference(wanted, GUARDED)) == add(changed)
    assert list(difference(ALL, GUARDED)) == remove(GROUPS)
    assert list(difference(GUARDED, ALL)) == add(GROUPS)


def test_security_groups_are_loaded_again_with_a_cable() -> None:
    """Their chains go with the cable's end in the fabric; those that name other cables only are left alone."""
    wanted = tuple(WIDER if each is CABLE else each for each in GUARDED)
    assert add(GROUPS)[0] in difference(wanted, GUARDED)
    other = objects.Ruleset(GROUPS.namespace, GROUPS.tables, 'hook ingress device "b-eth0" priority filter')
    present = tuple(other if each is GROUPS else each for each in GUARDED)
    wanted = tuple(WIDER if each is CABLE else each for each in present)
    assert add(other)[0] not in difference(wanted, present)


def test_security_groups_go_with_one_of_their_cables() -> None:
    """A cable takes its own chains only: the table is removed all the same, it still holds those of other cables."""
    wanted = [each for each in GUARDED if each not in (GROUPS, CABLE, UP, ROUTE)]
    assert remove(GROUPS)[0] in difference(wanted, GUARDED)


def test_a_changed_route_is_replaced_without_a_gap() -> None:
    """The new route takes the old one's place; between the two, packets would find none."""
    elsewhere = objects.Route("x-fabric", 50001, "10.0.0.5/32", gateway="10.0.0.4", link="a-eth0")
    wanted = tuple(elsewhere if each is OTHER_ROUTE else each for each in ALL)
    assert list(difference(wanted, ALL)) == add(elsewhere)


def test_routes_go_when_the_new_rules_are_there() -> None:
    """Until the rules send packets another way, they need the route that goes."""
    wanted = [NEW_RULES if each is RULES else each for each in ALL if each is not OTHER_ROUTE]
    changes = list(difference(wanted, ALL))
    assert changes == [*remove(CONTROLLER), *add(NEW_RULES), *remove(OTHER_ROUTE), *add(CONTROLLER)]
