"""The IPVS backend: IPVS picks the member of a flow's first packet, everything else is the nftables backend's.

So the owner map and the eligible set are kept too: TCP flows stay by them, UDP flows move by them, and they pick for
what IPVS does not (:mod:`testbed.plan.ruleset.ipvs`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from testbed.balancer.nftables import NftablesBackend
from testbed.kernel.ipvs import Ipvs
from testbed.plan import virtual_services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from testbed.balancer.base import MemberCounters, Update
    from testbed.plan.model import Rule

__all__ = ["IpvsBackend"]


class IpvsBackend:
    """See :class:`testbed.balancer.base.Backend`. Make it in the fabric's namespace: it reads what is there."""

    def __init__(self, rules: tuple[Rule, ...], scheduler: str) -> None:
        self._rules = {rule.id: rule for rule in rules}
        self._scheduler = scheduler
        self._nftables = NftablesBackend(rules)
        self._ipvs = Ipvs()
        for rule, eligible in self._nftables.eligible().items():
            self._weigh(rule, eligible)  # whoever was here before may have been stopped between the two

    def close(self) -> None:
        """Give the sockets back."""
        self._ipvs.close()
        self._nftables.close()

    def eligible(self) -> Mapping[int, frozenset[int]]:
        """Per rule, the eligible members, read from the kernel."""
        return self._nftables.eligible()

    def apply(self, rule: int, eligible: frozenset[int]) -> Update:
        """Make exactly these members eligible: first for IPVS, then for nftables.

        In this order no flow that leaves its member meets that member again.

        Raises:
            LabError: The kernel refuses, for example because somebody else changed the services.
        """
        start = time.perf_counter()
        self._weigh(rule, eligible)
        update = self._nftables.apply(rule, eligible)
        return replace(update, duration_ms=(time.perf_counter() - start) * 1000)

    def _weigh(self, number: int, eligible: frozenset[int]) -> None:
        rule = self._rules[number]
        if not virtual_services.asks(rule):
            return
        wanted = virtual_services.weights(rule, eligible, self._scheduler)
        for mark in virtual_services.service_marks(rule):
            there = self._ipvs.weights(mark)
            changed = {address: weight for address, weight in wanted.items() if there.get(address) != weight}
            self._ipvs.set_weights(mark, changed)

    def counters(self) -> Mapping[int, MemberCounters]:
        """Flows and packets per member since the table was loaded."""
        return self._nftables.counters()
