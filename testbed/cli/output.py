"""How verbs print: plain tables, colour only on a terminal, JSON on demand, errors on standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bad", "good", "print_error", "print_json", "print_table", "weak"]


def _coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _paint(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if _coloured() else text


def good(text: str) -> str:
    """Green on a terminal."""
    return _paint(text, "32")


def bad(text: str) -> str:
    """Red on a terminal."""
    return _paint(text, "31")


def weak(text: str) -> str:
    """Faint on a terminal."""
    return _paint(text, "2")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str))


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]], *, indent: str = "") -> None:
    """A table with aligned columns; nothing when there are no rows."""
    if not rows:
        return
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in [list(head), *cells]) for place in range(len(head))]
    for number, row in enumerate([list(head), *cells]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        print(indent + (weak(line) if number == 0 else line))


def print_error(message: str, fix: str, *, as_json: bool = False) -> None:
    """An error, and what to do about it, on standard error (with ``as_json`` on standard output)."""
    if as_json:
        print_json({"error": {"message": message, "fix": fix}})
        return
    head = "\033[31merror:\033[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else "error:"
    print(f"{head} {message}", file=sys.stderr)
    if fix:
        print(f"  fix: {fix}", file=sys.stderr)
