"""How verbs print: plain tables, colour only on a terminal, JSON on demand, errors on standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["bad", "counted", "good", "print_error", "print_json", "print_table", "weak"]

_COLOUR = re.compile(r"\033\[\d+m")


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _paint(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if _coloured(sys.stdout) else text


def good(text: str) -> str:
    """Green on a terminal."""
    return _paint(text, "32")


def bad(text: str) -> str:
    """Red on a terminal."""
    return _paint(text, "31")


def weak(text: str) -> str:
    """Faint on a terminal."""
    return _paint(text, "2")


def counted(count: int, word: str) -> str:
    """``1 error``, ``2 errors``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str))


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]], *, indent: str = "") -> None:
    """A table with aligned columns, whole numbers to the right; nothing when there are no rows."""
    if not rows:
        return
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(_width(row[place]) for row in [list(head), *cells]) for place in range(len(head))]
    right = [all(isinstance(row[place], int) for row in rows) for place in range(len(head))]
    for number, row in enumerate([list(head), *cells]):
        padded = [
            " " * (width - _width(cell)) + cell if number_column else cell + " " * (width - _width(cell))
            for cell, width, number_column in zip(row, widths, right, strict=True)
        ]
        line = "  ".join(padded).rstrip()
        print(indent + (weak(line) if number == 0 else line))


def _width(cell: str) -> int:
    return len(_COLOUR.sub("", cell))


def print_error(message: str, fix: str, *, details: Mapping[str, object] | None = None, as_json: bool = False) -> None:
    """An error and what to do about it, on standard error.

    With ``as_json`` it is a document on standard output: ``{"error": {"message": …, "fix": …}}`` and the details.
    """
    if as_json:
        print_json({"error": {"message": message, "fix": fix, **(details or {})}})
        return
    head = "\033[31merror:\033[0m" if _coloured(sys.stderr) else "error:"
    print(f"{head} {message}", file=sys.stderr)
    if fix:
        print(f"  fix: {fix}", file=sys.stderr)
