"""What makes a test a fact of ``docs/azure-fidelity.md``.

A fact's docstring is what users read: first what Azure does, in one paragraph; then a line ``Source: azure.md §3,
"Health probes"`` (a section of the list of sources at the end of that page); perhaps a line ``Note: …`` that says
what the lab does differently and why. ``make fidelity`` writes the page, and a test checks that it is current.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["State", "fact"]

State = Literal["same", "differs", "switchable"]
_Test = TypeVar("_Test", bound="Callable[..., object]")


def fact(*, row: int, state: State = "same", balancer: bool = True) -> Callable[[_Test], _Test]:
    """Declare a test to be the proof of a fact.

    Args:
        row: Of the list of rows in ``scripts/fidelity.py``; the page is sorted by it.
        state: ``same`` as Azure, ``differs`` on purpose (the note says why), or ``switchable``.
        balancer: False where the balancer plays no part: it is proven once, with nftables. Nothing that such a test
            needs may depend on who picks the member of a flow.
    """

    def declare(test: _Test) -> _Test:
        marked: _Test = pytest.mark.fact(row=row, state=state)(test)
        return marked if balancer else pytest.mark.unbalanced(marked)

    return declare
