"""What the probe controller tells about itself over its control socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ControllerStatus", "MemberStatus", "RuleStatus"]


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
