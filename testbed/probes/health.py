"""When a probe result changes a member's health. Pure: results go in, the clock is given.

Facts are from "Azure Load Balancer health probes": one success after the start makes a member healthy; later
a change needs ``probe_threshold`` equal results in a row; an explicit HTTP answer acts at once, so for HTTP
the threshold governs timeouts and refused connections only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from testbed.probes.flapping import Flapping

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from testbed.plan.model import Rule

__all__ = ["MemberHealth", "ProbeResult", "ResultKind", "eligible_members"]


class ResultKind(StrEnum):
    """How a probe ended."""

    SUCCESS = "success"
    """TCP: the handshake was completed. HTTP: status 200."""
    WRONG_STATUS = "wrong-status"
    """HTTP only: an answer with another status."""
    REFUSED = "refused"
    """A reset, before or after the connection was made."""
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    """The kernel or an ICMP error says that there is no way."""
    INVALID_ANSWER = "invalid-answer"
    """An answer that is not HTTP, no answer before the end, or TLS that fails."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The end of one probe: kind, words for people (``HTTP 503``), and how long it took in seconds."""

    kind: ResultKind
    detail: str
    duration: float


class MemberHealth:
    """The health of one member under one probe.

    ``healthy`` is None before the first result, and such a member counts as down. ``started`` tells whether
    the one success that is enough after a start has been seen.

    Args:
        protocol: ``Tcp``, ``Http`` or ``Https``.
        threshold: Equal results in a row that change the state.
        clock: Gives the unix time; stamps ``since``.
        adopted: State taken over from a controller that ran before; None: none is known.
        since: When the adopted state began; default now.
        started: Whether the adopted member was ever healthy; if not, one success is enough for it.
        interval: Seconds between probes; with it, a member that flaps is held down for longer.
    """

    def __init__(
        self,
        protocol: str,
        threshold: int,
        clock: Callable[[], float],
        *,
        adopted: bool | None = None,
        since: float | None = None,
        started: bool = True,
        interval: float | None = None,
    ) -> None:
        self._flapping = Flapping(interval) if interval is not None else None
        self.held_until: float | None = None
        """Unix time until which a member whose probe is good again is kept out."""
        self._explicit = protocol != "Tcp"
        self._threshold = threshold
        self._clock = clock
        self._against = 0  # results in a row that speak against the present state
        self.started = adopted is not None and started
        self.healthy = adopted
        self.since = clock() if since is None else since
        self.last: ProbeResult | None = None

    def observe(self, result: ProbeResult) -> bool:
        """Take the next result; true when ``healthy`` has changed."""
        self.last = result
        good = result.kind is ResultKind.SUCCESS
        if good == self.healthy:
            self._against = 0
            self.held_until = None
            return False
        self._against += 1
        if not self._decides(result.kind) or (good and self._held()):
            return False
        if self.healthy and self._flapping:
            self._flapping.fell(self._clock() - self.since)
        self.held_until = None
        self._against = 0
        self.started = self.started or good
        self.healthy = good
        self.since = self._clock()
        return True

    def _held(self) -> bool:
        """Whether a return has to wait; it begins to wait with the first call."""
        now = self._clock()
        if self.held_until is None:
            hold = self._flapping.hold if self._flapping and self.healthy is False else 0.0
            self.held_until = now + hold if hold else None
        return self.held_until is not None and now < self.held_until

    def _decides(self, kind: ResultKind) -> bool:
        """Whether a result against the present state is enough to change it."""
        if self.healthy is None or self._against >= self._threshold:
            return True
        if kind is ResultKind.SUCCESS and not self.started:
            return True
        return self._explicit and kind in (ResultKind.SUCCESS, ResultKind.WRONG_STATUS)


def eligible_members(
    rule: Rule, healthy: AbstractSet[int], admin: Mapping[int, str] = MappingProxyType({})
) -> frozenset[int]:
    """The member ids that may get new flows.

    All of a rule without a probe; otherwise the healthy ones, or everybody when none is healthy and the probe
    says ``AllProbedUp``. ``admin`` holds admin states by member id: ``Up`` counts as healthy whatever the probe
    says, and ``Down`` never gets a flow ("Admin state overview").
    """
    everybody = frozenset(member.id for member in rule.members)
    if rule.probe is None:
        return everybody
    possible = frozenset(each for each in everybody if admin.get(each) != "Down")
    chosen = frozenset(each for each in possible if admin.get(each) == "Up" or each in healthy)
    if not chosen and rule.probe.no_healthy_backends_behavior == "AllProbedUp":
        return possible
    return chosen
