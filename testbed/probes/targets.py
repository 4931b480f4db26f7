"""Whom a controller probes: each probe of a load balancer once per member, for all rules that use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testbed.probes.adoption import KnownHealth
from testbed.probes.connection import ProbeTarget
from testbed.probes.health import MemberHealth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from testbed.plan.model import Member, Probe, Rule

__all__ = ["Target", "build_targets"]


@dataclass(slots=True)
class Target:
    """One member under one probe, the rules it counts for, and its health; ``sent`` counts probes."""

    load_balancer: str
    probe: Probe
    member: Member
    wire: ProbeTarget
    health: MemberHealth
    rules: list[Rule] = field(default_factory=list)
    sent: int = 0

    def known(self) -> tuple[KnownHealth, ...]:
        """What to note for the next controller; nothing before the first result."""
        state = self.health
        if state.healthy is None:
            return ()
        return tuple(
            KnownHealth(rule.id, self.member.id, state.healthy, state.since, state.started) for rule in self.rules
        )


def build_targets(
    rules: tuple[Rule, ...],
    adopted: Mapping[tuple[int, int], KnownHealth],
    sources: tuple[str | None, str | None],
    clock: Callable[[], float],
    time_scale: float = 1,
) -> tuple[Target, ...]:
    """All targets of the rules, in their order, with the health that was adopted.

    ``sources`` are where probes come from in IPv4 and in IPv6 (link-local, each cable of the fabric has it); None: the
    kernel chooses.
    """
    targets: dict[tuple[str, Probe, int], Target] = {}
    for rule in rules:
        probe = rule.probe
        if probe is None:
            continue
        for member in rule.members:
            key = (rule.load_balancer, probe, member.id)
            if key not in targets:
                state = adopted.get((rule.id, member.id))
                health = MemberHealth(
                    probe.protocol,
                    probe.probe_threshold,
                    clock,
                    adopted=state.healthy if state else None,
                    since=state.since if state else None,
                    started=state.started if state else False,
                    interval=probe.interval_in_seconds * time_scale if probe.hold_down else None,
                )
                own = sources[rule.version == 6]
                link = member.fabric_name if rule.version == 6 and own else None
                wire = ProbeTarget(member.address, probe.port, member.id, own, link)
                targets[key] = Target(rule.load_balancer, probe, member, wire, health)
            targets[key].rules.append(rule)
    return tuple(targets.values())
