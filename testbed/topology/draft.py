"""A document while it is checked: what of it is valid, and what had to be left out to get there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from testbed.topology.findings import Finding, Severity
from testbed.topology.lookup import Lookup

if TYPE_CHECKING:
    from testbed.topology.model import Topology
    from testbed.topology.nodes import Location, Node

__all__ = ["Draft", "locate"]


def locate(root: Node, location: Location) -> tuple[int, str]:
    """The line of a place, and its path with names instead of numbers.

    A key that is not there is on the line of what should hold it.
    """
    node: Node | None = root
    line = root.line
    path = ""
    for step in location:
        node = node.child(step) if node else None
        if node:
            line = node.line
        if isinstance(step, int):
            path += f"[{(node.label or node.index) if node else step}]"
        else:
            path += f".{step}" if path else step
    return line, path


@dataclass(frozen=True)
class Draft:
    """The valid part of a document.

    Rules look at ``topology`` and make findings with :meth:`error` and :meth:`warning`. A rule that complains
    about something that is *not* there asks :meth:`lost` first, because it may have been left out.
    """

    file: str
    root: Node
    topology: Topology
    lost_words: frozenset[str]
    lost_kinds: frozenset[str]

    @cached_property
    def lookup(self) -> Lookup:
        """What is where, by name and by address."""
        return Lookup(self.topology)

    def lost(self, *words: str, kind: str | None = None) -> bool:
        """Whether one of these names or addresses, or a nameless thing of the kind, was left out."""
        return kind in self.lost_kinds or not self.lost_words.isdisjoint(words)

    def damaged(self, location: Location) -> bool:
        """Whether a direct part of this place was left out."""
        node: Node | None = self.root
        for step in location:
            node = node.child(step) if node else None
        return node is not None and node.damaged

    def line(self, location: Location) -> int:
        """Where it stands."""
        return locate(self.root, location)[0]

    def error(self, location: Location, message: str, *, fix: str, code: str | None = None) -> Finding:
        """A mistake at this place."""
        return self._finding("error", location, message, fix, code)

    def warning(self, location: Location, message: str, *, fix: str) -> Finding:
        """Something allowed, and rarely meant."""
        return self._finding("warning", location, message, fix, None)

    def _finding(self, severity: Severity, location: Location, message: str, fix: str, code: str | None) -> Finding:
        line, path = locate(self.root, location)
        return Finding(severity, self.file, line, path, message, fix, code)
