"""Flows that members have: how many are left, and how they end with a reset instead of in silence.

Connection tracking of the fabric knows them by the rule's zone and the member's mark. What reset means is in
:mod:`testbed.probes.resets`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from testbed.kernel import conntrack
from testbed.kernel.conntrack import TcpState
from testbed.probes.resets import Ending, Side, reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from testbed.plan.model import Cable, Member, Rule
    from testbed.probes.config import ControllerConfig

__all__ = ["Flows", "ending"]

_LOOKS_PER_TIMEOUT = 20
_SHORTEST_LOOK, _LONGEST_LOOK = 0.2, 2.0


def ending(rule: Rule, member: Member, flow: conntrack.Entry, cables: Iterable[Cable]) -> Ending:
    """The two sides of a flow of a rule that a member has. Pure.

    The far end of what an appliance forwards is told through the appliance, so that it learns of it too.
    """
    at = {each.address: each for each in cables if each.virtual_network in rule.reaches}
    here = (flow.source, flow.source_port)
    there = (flow.destination, flow.destination_port)
    client = Side(here, there, at.get(flow.source), at.get(flow.source))
    if flow.destination != rule.frontend_address:
        return Ending(client, Side(there, here, at.get(flow.destination), at.get(member.address)))
    own = flow.destination if rule.enable_floating_ip else member.address
    port = rule.rewritten_port or flow.destination_port
    return Ending(client, Side((own, port), here, at.get(member.address), at.get(member.address)))


class Flows:
    """The flows of the lab's rules, in the network namespace of the calling thread."""

    def __init__(self, config: ControllerConfig, record: Callable[..., None]) -> None:
        self._rules = {rule.id: rule for rule in config.rules}
        self._cables = config.cables
        self._scale = config.time_scale
        self._record = record

    def _of(self, pool: str, member: int) -> list[conntrack.Entry]:
        zones = {rule.id for rule in self._rules.values() if rule.backend_address_pool == pool}
        return [each for each in conntrack.entries(member) if each.zone in zones]

    def left(self, pool: str, member: int) -> int:
        """TCP connections of a member that have begun and not ended."""
        return sum(each.lives for each in self._of(pool, member))

    async def end(self, pool: str, member: int, reason: str) -> None:
        """Forget all TCP flows of a member, and reset those that live."""
        flows = [each for each in self._of(pool, member) if each.protocol == socket.IPPROTO_TCP]
        for each in flows:
            conntrack.forget(each)
        await self._reset([each for each in flows if each.lives], reason)

    async def _reset(self, flows: Iterable[conntrack.Entry], reason: str) -> None:
        endings: dict[tuple[str, str], list[Ending]] = {}
        for each in flows:
            rule = self._rules[each.zone]
            member = next((member for member in rule.members if member.id == each.mark), None)
            if member is not None:
                made = endings.setdefault((rule.key, member.machine), [])
                made.append(ending(rule, member, each, self._cables))
        if not endings:
            return
        sent = await reset([each for some in endings.values() for each in some])
        for (rule_key, machine), some in endings.items():
            self._record("reset", rule=rule_key, machine=machine, flows=len(some), reason=reason)
        if not sent:
            self._record("reset", flows=0, reason="nobody answered")

    async def watch(self) -> None:
        """For ever, reset flows that end by their idle timeout, where a rule asks for it."""
        minutes = min(rule.idle_timeout_in_minutes for rule in self._rules.values() if rule.reset_when_idle)
        pause = min(max(minutes * 60 * self._scale / _LOOKS_PER_TIMEOUT, _SHORTEST_LOOK), _LONGEST_LOOK)
        endings = conntrack.Endings()
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(pause)
                await asyncio.to_thread(conntrack.sweep)  # tens of milliseconds, which probes must not wait
                idle = [each for each in endings.read() if self._resets(each)]
                if idle:
                    task = asyncio.create_task(self._reset(idle, "idle timeout"))
                    running.add(task)
                    task.add_done_callback(running.discard)
        finally:
            endings.close()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _resets(self, flow: conntrack.Entry) -> bool:
        rule = self._rules.get(flow.zone)
        if rule is None or flow.state != TcpState.ESTABLISHED:
            return False
        transit = flow.destination != rule.frontend_address
        return rule.reset_transit_when_idle if transit else rule.reset_when_idle
