"""Remove a lab: with its state or without, whole or half made."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from testbed.kernel import namespaces, processes
from testbed.lab.apply import remove_namespaces
from testbed.lab.state import State, labs, locked

if TYPE_CHECKING:
    from testbed.kernel.namespaces import OwnedNamespace

__all__ = ["all_labs", "down", "remove"]


def all_labs() -> tuple[str, ...]:
    """Every lab on this machine: those with state and those that only left namespaces."""
    return tuple(sorted({*labs(), *(each.lab for each in namespaces.owned())}))


def down(lab: str) -> tuple[OwnedNamespace, ...]:
    """Remove a lab and return the namespaces it had. A lab that is not there is fine: nothing is removed.

    What the lab owns is known by the mark its namespaces carry; nothing else is touched.
    """
    with locked(lab):
        return remove(lab)


def remove(lab: str) -> tuple[OwnedNamespace, ...]:
    """As :func:`down`, for a caller that holds the lab's lock."""
    state = State(lab)
    owned = namespaces.owned(lab)
    with suppress(ValueError):  # damaged: then the namespaces say who belongs to the lab
        processes.end(each.process for each in state.running().values())
    remove_namespaces(owned)
    state.remove()
    return owned
