"""JSON Schema of the topology document, for editors (YAML language servers) and other programs."""

from __future__ import annotations

from typing import Any

from testbed.topology.descriptions import class_descriptions, key_descriptions
from testbed.topology.model import Topology

__all__ = ["DIALECT", "json_schema"]

#: What pydantic writes and YAML language servers read.
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _plain(text: str) -> str:
    """Without the marks of a docstring."""
    return text.replace("``", "")


def _describe(name: str, definition: dict[str, Any]) -> None:
    """Put the model's docstrings in, and take out titles that only repeat a key."""
    summary = class_descriptions().get(name)
    if summary:
        definition["description"] = _plain(summary)
    for key, value in definition.get("properties", {}).items():
        value.pop("title", None)
        meaning = key_descriptions().get((name, key))
        if meaning:
            value["description"] = _plain(meaning)


def json_schema() -> dict[str, Any]:
    """The schema, self-contained: it covers form and ranges; what needs more than one value is in the checks."""
    schema = Topology.model_json_schema()
    for name, definition in schema["$defs"].items():
        _describe(name, definition)
    _describe("Topology", schema)
    schema["title"] = "HA Ports testbed topology"
    return {"$schema": DIALECT, **schema}
