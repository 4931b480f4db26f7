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
