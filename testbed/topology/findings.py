"""What a check of a topology document found: one mistake, where it is, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["Finding", "Severity"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake (``error``), or something that is allowed and rarely meant (``warning``).

    ``line`` counts from 1. ``path`` names the place in the document, for example
    ``load_balancers[nva-lb].load_balancing_rules[ha-ports].frontend_port``; it is empty for the whole file.
    ``code`` is the error code that Azure's control plane answers with, where one is known.
    """

    severity: Severity
    file: str
    line: int
    path: str
    message: str
    fix: str
    code: str | None = None

    def __str__(self) -> str:
        """``file:line: error: path: message``, and the fix on a line of its own."""
        path = f"{self.path}: " if self.path else ""
        code = f" ({self.code})" if self.code else ""
        return f"{self.file}:{self.line}: {self.severity}: {path}{self.message}{code}\n  fix: {self.fix}"

    def to_json(self) -> dict[str, object]:
        """Plain values, all keys always present."""
        return asdict(self)
