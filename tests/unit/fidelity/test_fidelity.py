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


def test_every_row_is_proven() -> None:
    """No row is without a fact."""
    rows = re.split(r"^### ", PAGE.read_text().partition("## Where")[0], flags=re.MULTILINE)[1:]
    assert len(rows) == 22
    empty = [row.splitlines()[0] for row in rows if row.count("\n| ") < 2]
    assert empty == []
