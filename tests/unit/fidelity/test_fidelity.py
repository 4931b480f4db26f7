"""The page on fidelity is current, and says something on every row."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "azure-fidelity.md"


def test_the_page_is_current() -> None:
    """``make fidelity`` would change nothing."""
    made = subprocess.run([sys.executable, "scripts/fidelity.py"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert PAGE.read_text() == made.stdout, "run: make fidelity"


#: Rows of the probes and of documents: there is nothing for a balancer to do.
_UNBALANCED = {13, 15, 22}


def _rows() -> dict[int, str]:
    rows = re.split(r"^### ", PAGE.read_text().partition("## Where")[0], flags=re.MULTILINE)[1:]
    return {int(each.partition(".")[0]): each for each in rows}


def test_every_row_is_proven() -> None:
    """No row is without a fact."""
    rows = _rows()
    assert sorted(rows) == list(range(1, 23))
    empty = [row.splitlines()[0] for row in rows.values() if row.count("\n| ") < 2]
    assert empty == []


def test_every_row_of_the_data_path_is_proven_on_both_balancers() -> None:
    """At least one fact of it."""
    once = {number for number, row in _rows().items() if "| both |" not in row}
    assert once <= _UNBALANCED
