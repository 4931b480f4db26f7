"""``route_update_delay``: a changed route takes effect some time after everything else, as users of Azure see it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from testbed.deadline import wait_for

if TYPE_CHECKING:
    from testbed.topology.model import Topology

__all__ = ["pass_time", "with_old_routes"]

_SLACK = 60.0  # seconds a busy machine may be late by


def with_old_routes(new: Topology, old: Topology) -> Topology | None:
    """The new document with the route tables that the old one has; None when it changes no route.

    A table that is new is there already, and so is the table of a subnet that is new.
    """
    before = {each.name: each for each in old.route_tables}
    tables = (*old.route_tables, *(each for each in new.route_tables if each.name not in before))
    used = {(net.name, subnet.name): subnet.route_table for net in old.virtual_networks for subnet in net.subnets}
    networks = tuple(
        net.model_copy(
            update={
                "subnets": tuple(
                    each.model_copy(update={"route_table": used.get((net.name, each.name), each.route_table)})
                    for each in net.subnets
                )
            }
        )
        for net in new.virtual_networks
    )
    kept = {each.name: each for each in new.route_tables} | before
    if networks == new.virtual_networks and kept == {each.name: each for each in new.route_tables}:
        return None
    return new.model_copy(update={"route_tables": tables, "virtual_networks": networks})


def pass_time(seconds: float) -> None:
    """Wait until so many seconds have passed."""
    until = time.monotonic() + seconds
    wait_for("the changed routes take effect", time.monotonic, lambda now: now >= until, seconds=seconds + _SLACK)
