"""Validate what can be validated: each broken fragment is reported once and taken out, the rest is tried again.

So one missing key does not hide what is wrong elsewhere, and what is only wrong because a fragment was taken out
is not reported (see :meth:`testbed.topology.draft.Draft.lost`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import ValidationError

from testbed.topology.draft import Draft, locate
from testbed.topology.findings import Finding
from testbed.topology.model import Topology
from testbed.topology.nodes import Node
from testbed.topology.wording import meant, model_at, put, untagged

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from testbed.topology.nodes import Location

__all__ = ["settle"]

_ROUNDS = 20
#: Keys that no other check depends on: when one is wrong, its default stands in for it.
_STAND_ALONE = frozenset(
    {
        "admin_state",
        "allow_forwarded_traffic",
        "allow_gateway_transit",
        "allow_virtual_network_access",
        "disable_bgp_route_propagation",
        "drain_period_in_seconds",
        "enable_tcp_reset",
        "idle_timeout_in_minutes",
        "interval_in_seconds",
        "load_distribution",
        "network_security_group",
        "no_healthy_backends_behavior",
        "number_of_probes",
        "probe_path",
        "probe_port",
        "probe_threshold",
        "route_table",
        "sku",
        "time_scale",
        "use_remote_gateways",
    }
)
#: The two lists that may not be empty, and what fills them while the rest is checked.
_FILLERS: dict[str, dict[str, object]] = {
    "virtual_networks": {"name": "filler", "address_space": ["10.0.0.0/16"]},
    "machines": {"name": "filler", "network_interfaces": [{"subnet": "a/b", "private_ip_address": "10.0.0.4"}]},
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def _miscounted(error: ErrorDetails) -> bool:
    """Pydantic does not count broken items, so a list of them is too short in its eyes."""
    return error["type"] == "too_short" and bool(error["input"])


class _Repair:
    """One document on its way to being valid."""

    def __init__(self, root: Node, file: str) -> None:
        self.root = root
        self.file = file
        self.findings: dict[tuple[str, str], Finding] = {}
        self.words: set[str] = set()
        self.kinds: set[str] = set()
        self.filled: set[str] = set()
        self.unnamed = 0

    def run(self) -> Draft | None:
        """Report, take out, try again; ``None`` when nothing checkable is left."""
        for _ in range(_ROUNDS):
            try:
                topology = Topology.model_validate(self._data())
            except ValidationError as error:
                errors = [each for each in error.errors(include_url=False) if not _miscounted(each)]
            else:
                empty = {key: () for key in self.filled if not self._has(key)}
                topology = topology.model_copy(update=empty)
                return Draft(self.file, self.root, topology, frozenset(self.words), frozenset(self.kinds))
            self._round(errors)
        return None

    def _has(self, key: str) -> bool:
        node = self.root.child(key)
        return node is not None and bool(node.items)

    def _data(self) -> object:
        data = self.root.value()
        if isinstance(data, dict):
            data |= {key: [filler] for key, filler in _FILLERS.items() if key in self.filled and not self._has(key)}
        return data

    def _round(self, errors: list[ErrorDetails]) -> None:
        renamed = {
            (*error["loc"][:-1], better): error["loc"]
            for error in errors
            if error["type"] == "extra_forbidden" and (better := self._meant(error["loc"]))
        }
        targets: list[tuple[ErrorDetails, list[tuple[str | int, Node]]]] = []
        for error in errors:
            if error["loc"] in renamed and error["type"] == "missing":
                continue  # it is there, misspelt, and reported as such
            self._report(error)
            targets.append((error, self._way(error["loc"])))
        for error, way in targets:
            self._mend(error, way, renamed)

    def _meant(self, location: Location) -> str | None:
        """The key that a misspelt one was meant to be, unless that one is given as well."""
        node = self._way(location[:-1])
        parent = node[-1][1] if node else self.root
        better = meant(location)
        return better if better and better not in (parent.entries or {}) else None

    def _way(self, location: Location) -> list[tuple[str | int, Node]]:
        """The nodes from below the root to the deepest one that exists on this way, each with its key."""
        way = []
        node: Node | None = self.root
        for step in untagged(location):
            node = node.child(step) if node else None
            if node is None:
                break
            way.append((step, node))
        return way

    def _report(self, error: ErrorDetails) -> None:
        way = self._way(error["loc"])
        if way and way[-1][1].damaged:
            return  # too short only because of what was taken out
        place = untagged(error["loc"])
        line, path = locate(self.root, (*place, "kind") if error["type"] == "union_tag_invalid" else place)
        message, fix = put(error)
        finding = Finding("error", self.file, line, path, message, fix)
        self.findings.setdefault((path, message), finding)

    def _mend(self, error: ErrorDetails, way: list[tuple[str | int, Node]], renamed: dict[Location, Location]) -> None:
        location = untagged(error["loc"])
        depth = len(way)
        parent = way[depth - 2][1] if depth > 1 else self.root
        key = location[-1] if location else ""
        if error["type"] == "extra_forbidden":
            node = (parent.entries or {}).pop(str(key), None)
            better = next((new[-1] for new, old in renamed.items() if old == error["loc"]), None)
            if node and better:
                (parent.entries or {}).setdefault(str(better), node)
            elif node:
                self.words.update(node.words())
        elif key in self._nameless(location, way):
            self._name(location, way)
        elif len(location) == 1 and key in _FILLERS:
            self._take_out(self.root, key)
            self.filled.add(str(key))
            self.kinds.add(str(key))
        elif key in _STAND_ALONE and depth == len(location):
            self._take_out(parent, key)
        elif key == "enable_ip_forwarding":
            way[-1][1].scalar = True  # nothing else is wrong with a network interface that forwards
        else:
            self._climb(way)

    def _nameless(self, location: Location, way: list[tuple[str | int, Node]]) -> tuple[str, ...]:
        """``name`` is repaired only where the thing that should hold it is there."""
        return ("name",) if len(way) >= len(location) - 1 else ()

    def _name(self, location: Location, way: list[tuple[str | int, Node]]) -> None:
        holder = way[len(location) - 2][1] if len(location) > 1 else self.root
        old = holder.child("name")
        if old:
            self.words.update(old.words())
        if holder.entries is not None:
            holder.entries["name"] = Node(holder.line, scalar=f"x-unnamed-{self.unnamed}")
        self.unnamed += 1
        self.kinds.add(next((str(each) for each in reversed(location[:-1]) if isinstance(each, str)), "name"))

    def _climb(self, way: list[tuple[str | int, Node]]) -> None:
        """Take out the nearest item of a list that holds the error, or the nearest optional part."""
        for depth in range(len(way) - 1, -1, -1):
            step = way[depth][0]
            parent = way[depth - 1][1] if depth else self.root
            in_pair = depth > 0 and way[depth - 1][0] == "between"
            if (isinstance(step, int) and not in_pair) or step in ("access", "internet", "ready", "runtime"):
                list_key = str(way[depth - 1][0]) if isinstance(step, int) and depth else str(step)
                self._take_out(parent, step, way[depth][1], list_key)
                return
            if depth == 0 or (parent.entries is not None and self._optional_list(way, depth)):
                self._take_out(parent, step)
                if depth == 0 and step in _FILLERS:
                    self.filled.add(str(step))
                return

    @staticmethod
    def _optional_list(way: list[tuple[str | int, Node]], depth: int) -> bool:
        """A list that is not one, under a key that may be left out."""
        model = model_at(tuple(step for step, _ in way[:depth]))
        field = model.model_fields.get(str(way[depth][0])) if model else None
        return depth == len(way) - 1 and field is not None and not field.is_required() and field.default == ()

    def _take_out(self, parent: Node, key: str | int, node: Node | None = None, kind: str | None = None) -> None:
        if parent.items is not None and node is not None:
            parent.items = [each for each in parent.items if each is not node]
            parent.damaged = True
        elif parent.entries is not None:
            node = parent.entries.pop(str(key), None)
            kind = str(key)
        if node is None:
            return
        self.words.update(node.words())
        name = node.child("name")
        if name is None or not isinstance(name.scalar, str) or not _NAME.fullmatch(name.scalar):
            self.kinds.add(kind or str(key))


def settle(root: Node, file: str) -> tuple[Draft | None, tuple[Finding, ...]]:
    """The valid part of a document, and what is wrong with the rest; changes ``root``."""
    repair = _Repair(root, file)
    draft = repair.run()
    return draft, tuple(repair.findings.values())
