"""Members of pools, as an operator speaks of them: their admin state, and the flows they have left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.deadline import wait_for
from testbed.errors import DeadlineError, InputError, UnknownLabError, VerdictError
from testbed.lab.state import State
from testbed.probes import control

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.plan.model import Plan

__all__ = ["Backend", "backend_address", "drain", "find", "set_admin_state"]

_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Backend:
    """A member (``machine/eth0``) of a pool (``load_balancer/pool``), its admin state, and its living TCP flows."""

    pool: str
    member: str
    admin_state: str
    flows: int


def find(plan: Plan, pool: str, member: str) -> tuple[str, str]:
    """The full names of a pool and of a member of it.

    Args:
        plan: Of the lab.
        pool: ``load_balancer/pool``, or ``pool`` when only one has that name.
        member: ``machine/eth1``, or ``machine`` when one of its network interfaces is a member.

    Raises:
        UnknownLabError: There is no such pool or member.
        InputError: A word fits several, or the pool's rules have no probe.
    """
    rules = [rule for rule in plan.rules if pool in (rule.backend_address_pool, _last(rule.backend_address_pool))]
    pools = sorted({rule.backend_address_pool for rule in rules})
    if not pools:
        names = ", ".join(sorted({rule.backend_address_pool for rule in plan.rules})) or "none"
        raise UnknownLabError(f"no rule of lab {plan.lab!r} uses a pool {pool!r}", fix=f"pools: {names}")
    if len(pools) > 1:
        raise InputError(f"several pools are called {pool!r}", fix=f"use one of: {', '.join(pools)}")
    members = sorted({each.key for rule in rules for each in rule.members})
    fitting = [each for each in members if member in (each, each.partition("/")[0])]
    if not fitting:
        raise UnknownLabError(f"pool {pools[0]!r} has no member {member!r}", fix=f"members: {', '.join(members)}")
    if len(fitting) > 1:
        raise InputError(
            f"several network interfaces of {member!r} are members", fix=f"use one of: {', '.join(fitting)}"
        )
    if not any(rule.probe for rule in rules):
        raise InputError(f"no rule of pool {pools[0]!r} has a probe, so admin states do not count", fix="add a probe")
    return pools[0], fitting[0]


def _last(pool: str) -> str:
    return pool.partition("/")[2]


def _ask(plan: Plan, op: str, pool: str, member: str, state: str | None = None) -> Backend:
    socket = State(plan.lab) / "controller.sock"
    answer = control.request(socket, op, pool=pool, member=member, admin_state=state)
    return Backend(pool, member, answer["admin_state"], answer["flows"])


def backend_address(plan: Plan, pool: str, member: str) -> Backend:
    """How a member is now; full names.

    Raises:
        LabError: The controller does not answer.
    """
    return _ask(plan, "flows", pool, member)


def set_admin_state(plan: Plan, pool: str, member: str, state: str) -> Backend:
    """Change it at once, for all rules of the pool; full names. It stays until the document says something new.

    Raises:
        LabError: The controller does not answer.
    """
    return _ask(plan, "backend", pool, member, state)


def drain(
    plan: Plan, pool: str, member: str, *, seconds: float, say: Callable[[Backend], None] = lambda _now: None
) -> Backend:
    """Set ``Down`` and wait until no TCP flow is left; full names.

    Args:
        plan: Of the lab.
        pool: Of the member.
        member: To drain.
        seconds: How long to wait at most.
        say: Is told the member's state whenever the number of flows has changed.

    Raises:
        VerdictError: Flows are left. The member stays ``Down``.
        LabError: The controller does not answer.
    """
    last: list[int] = []

    def look() -> Backend:
        now = backend_address(plan, pool, member) if last else set_admin_state(plan, pool, member, "Down")
        if now.flows not in last:
            last[:] = [now.flows]
            say(now)
        return now

    what = f"{member} of pool {pool} has no flows left"
    try:
        return wait_for(what, look, lambda now: now.flows == 0, seconds=seconds, interval=_LOOK_SECONDS)
    except DeadlineError as error:
        raise VerdictError(
            f"{member} of pool {pool} is not drained after {seconds:g} s: TCP flows left: {last[0]}",
            fix="it stays Down and its flows go on: drain again, or set --admin-state None",
        ) from error
