"""Cables whose ends may have to be reset: of all network interfaces that such rules reach. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.plan.assembly import FABRIC_MAC
from testbed.plan.model import Cable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from testbed.plan.model import Machine, Rule

__all__ = ["cables"]


def cables(rules: Iterable[Rule], machines: Iterable[Machine]) -> tuple[Cable, ...]:
    """Nothing when no rule resets flows."""
    networks = {network for rule in rules if rule.resets for network in rule.reaches}
    return tuple(
        Cable(each.virtual_network, own.address, each.fabric_name, each.mac, FABRIC_MAC)
        for machine in machines
        for each in machine.network_interfaces
        for own in each.versions
        if each.virtual_network in networks
    )
