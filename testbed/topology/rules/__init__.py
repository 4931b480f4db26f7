"""What Azure and the lab ask of a document beyond the form of its parts.

A check is a function from a draft to findings, one fact each. :data:`CHECKS` lists all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.topology.rules import (
    addressing,
    balancing,
    dual_stack,
    joining,
    limits,
    machines,
    members,
    names,
    probing,
    references,
    routing,
    runtimes,
    security,
    transit,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding

__all__ = ["CHECKS", "run_all"]

CHECKS: tuple[Callable[[Draft], Iterator[Finding]], ...] = tuple(
    getattr(module, name)
    for module in (
        names,
        addressing,
        references,
        joining,
        routing,
        transit,
        balancing,
        dual_stack,
        limits,
        members,
        probing,
        security,
        runtimes,
        machines,
    )
    for name in module.__all__
    if name.islower()
)


def run_all(draft: Draft) -> Iterator[Finding]:
    """Every finding of every check."""
    for check in CHECKS:
        yield from check(draft)
