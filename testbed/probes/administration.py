"""Admin states of pool members, in ``admin.json`` of the state directory: an operator's word outlives a controller.

The document gives the first word. A later one counts until the document itself says something else than before.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from testbed.plan.model import Member, Rule

__all__ = ["AdminState", "AdminStates"]

_FILE_NAME = "admin.json"


@dataclass(frozen=True, slots=True)
class AdminState:
    """Of a member (``machine/eth0``) in a pool (``load_balancer/pool``).

    ``document`` is what the document said when ``state`` came about, at unix time ``since``.
    """

    pool: str
    member: str
    document: str
    state: str
    since: float


class AdminStates:
    """The admin states of all members of the rules' pools."""

    def __init__(self, directory: str, rules: Iterable[Rule], now: float) -> None:
        self._path = Path(directory, _FILE_NAME)
        known = {(each.pool, each.member): each for each in self._load()}
        self._earlier = {key: each.state for key, each in known.items()}
        self._states: dict[tuple[str, str], AdminState] = {}
        for rule in rules:
            for member in rule.members:
                key = (rule.backend_address_pool, member.key)
                before = known.get(key)
                if before is None or before.document != member.admin_state:
                    before = AdminState(*key, member.admin_state, member.admin_state, now)
                self._states[key] = before

    def _load(self) -> tuple[AdminState, ...]:
        try:
            return tuple(AdminState(**each) for each in json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return ()

    def save(self) -> None:
        """Replace the file as a whole.

        Raises:
            OSError: The state directory is gone or full.
        """
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(each) for each in self._states.values()]))
        fresh.replace(self._path)

    def __iter__(self) -> Iterator[AdminState]:
        return iter(self._states.values())

    def of(self, pool: str, member: Member) -> AdminState:
        """A member's.

        Raises:
            KeyError: It is not in the pool.
        """
        return self._states[pool, member.key]

    def of_rule(self, rule: Rule) -> dict[int, str]:
        """By member id. Admin states are for rules with a probe; nothing for others."""
        if rule.probe is None:
            return {}
        return {member.id: self.of(rule.backend_address_pool, member).state for member in rule.members}

    def earlier(self, rule: Rule) -> dict[int, str]:
        """The same, of the controller before this one."""
        if rule.probe is None:
            return {}
        pool = rule.backend_address_pool
        return {member.id: self._earlier.get((pool, member.key), "None") for member in rule.members}

    def change(self, pool: str, member: Member, state: str, now: float) -> None:
        """An operator's word, not saved yet."""
        before = self.of(pool, member)
        self._states[pool, member.key] = AdminState(pool, member.key, before.document, state, now)
