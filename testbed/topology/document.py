"""The base of all parts of a topology document."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Document"]


class Document(BaseModel):
    """Frozen, and a key that is not in the model is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
