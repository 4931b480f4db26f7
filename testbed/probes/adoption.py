"""What a controller knows when it starts: the kernel's eligible members, and what the one before it noted.

The kernel is right about who gets flows; ``health.json`` in the state directory tells since when, and is
believed only where it agrees with the kernel.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.probes.health import eligible_members

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from testbed.plan.model import Rule
    from testbed.probes.administration import AdminStates

__all__ = ["KnownHealth", "adopt", "load", "save"]

_FILE_NAME = "health.json"


@dataclass(frozen=True, slots=True)
class KnownHealth:
    """One member of one rule: ``healthy`` since unix time ``since``; ``started``: was ever healthy."""

    rule: int
    member: int
    healthy: bool
    since: float
    started: bool


def save(state_directory: str, known: Iterable[KnownHealth]) -> None:
    """Replace ``health.json`` as a whole.

    Raises:
        OSError: The state directory is gone or full.
    """
    path = Path(state_directory, _FILE_NAME)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps([asdict(each) for each in known]))
    fresh.replace(path)


def load(state_directory: str) -> tuple[KnownHealth, ...]:
    """What was saved last; nothing when there is no such file or it is damaged."""
    try:
        values = json.loads(Path(state_directory, _FILE_NAME).read_text())
        return tuple(KnownHealth(**each) for each in values)
    except (OSError, ValueError, TypeError):
        return ()


def adopt(
    rules: tuple[Rule, ...],
    kernel: Mapping[int, frozenset[int]],
    known: tuple[KnownHealth, ...],
    now: float,
    admin: AdminStates | None = None,
) -> dict[tuple[int, int], KnownHealth]:
    """The state to go on with, per (rule id, member id); members that nothing is known of are left out.

    Notes on a rule hold as a whole when they explain the kernel's eligible members (all of them may be
    eligible because none is healthy); otherwise member by member. A member with an admin state is eligible or not
    whatever its health, so the notes alone tell of it.
    """
    noted = {(each.rule, each.member): each for each in known}
    adopted: dict[tuple[int, int], KnownHealth] = {}
    for rule in rules:
        mine = {member.id: noted.get((rule.id, member.id)) for member in rule.members}
        eligible = kernel.get(rule.id, frozenset())
        healthy = {member for member, each in mine.items() if each and each.healthy}
        complete = all(mine[member] for member in eligible if member in mine)
        states = admin.earlier(rule) if admin else {}
        agrees = complete and eligible_members(rule, healthy, states) == eligible
        for member, each in mine.items():
            overruled = states.get(member, "None") != "None"
            if each and (agrees or overruled or each.healthy == (member in eligible)):
                adopted[rule.id, member] = each
            elif member in eligible and not agrees and not overruled:
                adopted[rule.id, member] = KnownHealth(rule.id, member, healthy=True, since=now, started=True)
    return adopted
