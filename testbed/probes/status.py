"""What the probe controller tells about itself over its control socket."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.balancer.base import MemberCounters
    from testbed.plan.model import Member
    from testbed.probes.targets import Target

__all__ = ["ControllerStatus", "MemberStatus", "RuleStatus", "member_status"]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member of a rule. ``healthy`` is None before the first result and for a rule without a probe.

    ``since`` is unix time; ``detail`` the last result in words; ``flows`` and ``packets`` count since the
    data plane was loaded, and ``probes`` those sent by this controller.
    """

    id: int
    machine: str
    address: str
    healthy: bool | None
    since: float
    detail: str
    probes: int
    eligible: bool
    flows: int
    packets: int
    admin_state: str = "None"
    held_until: float | None = None
    """Unix time until which a member that flaps is kept out, though its probe is good."""


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """One rule and its members."""

    id: int
    rule: str
    load_balancer: str
    frontend: str
    members: tuple[MemberStatus, ...]


@dataclass(frozen=True, slots=True)
class ControllerStatus:
    """The whole controller. ``started`` is unix time."""

    lab: str
    pid: int
    started: float
    rules: tuple[RuleStatus, ...]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ControllerStatus:
        """Read the answer to ``{"op": "status"}``.

        Raises:
            KeyError: A part is missing.
            TypeError: It is something else.
        """
        rules = tuple(
            RuleStatus(**{**rule, "members": tuple(MemberStatus(**member) for member in rule["members"])})
            for rule in values["rules"]
        )
        return cls(values["lab"], values["pid"], values["started"], rules)


def member_status(
    member: Member,
    target: Target | None,
    counted: MemberCounters | None,
    *,
    eligible: bool,
    admin_state: str,
    stopped: bool,
    started: float,
) -> MemberStatus:
    """A member as it is told; ``target`` is None for a rule without a probe."""
    last = target.health.last if target else None
    detail = last.detail if last else ""
    held_until = target.health.held_until if target else None
    if stopped and target and not target.health.healthy:
        detail = "stopped"
    elif held_until is not None:
        detail += f", held down until {time.strftime('%H:%M:%S', time.localtime(held_until))}"
    return MemberStatus(
        id=member.id,
        machine=member.machine,
        address=member.address,
        healthy=target.health.healthy if target else None,
        since=target.health.since if target else started,
        detail=detail,
        probes=target.sent if target else 0,
        eligible=eligible,
        flows=counted.flows if counted else 0,
        packets=counted.packets if counted else 0,
        admin_state=admin_state,
        held_until=held_until,
    )
