"""``docs/topology.md``: every key of the document with its type, default and meaning, made from the model."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from testbed.topology.descriptions import class_descriptions, key_descriptions
from testbed.topology.model import Topology
from testbed.topology.runtimes import ONE_LINE
from testbed.topology.schema import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["markdown"]

_HEAD = """# The topology document

A YAML file with Azure's words, spelled as in the Azure SDK for Python. Unknown keys are errors. References are
names: `subnet: hub/nva` is subnet `nva` of virtual network `hub`, `backend_address_pools: [nva-lb/nvas]` is pool
`nvas` of load balancer `nva-lb`. `testbed validate FILE` lists every mistake at once, `testbed schema` prints the
JSON Schema for editors. This page is made from the model in `testbed/topology/`.
"""


#: Texts that have a form, by its pattern.
_FORMS = {
    ONE_LINE: "text",
    r"^[1-9][0-9]{0,5}[MG]$": "amount, e.g. `512M`",
    r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$": "MAC address",
    r"^(accept-new|known-hosts [^\n\x00]+)$": "`accept-new` \\| `known-hosts FILE`",
    r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(/eth[0-7])?$": "machine or `machine/eth1`",
    r"^0?[0-7]{3}$": "mode, e.g. `'0644'`",
}


def _kind(schema: dict[str, Any]) -> str:  # noqa: PLR0911 - one case per form of a type
    """A type in a few words; parts of the document link to their section."""
    if "oneOf" in schema:
        return " \\| ".join(_kind(each) for each in schema["oneOf"])
    if "anyOf" in schema:
        return _kind(next(each for each in schema["anyOf"] if each.get("type") != "null"))
    if "$ref" in schema:
        return _named(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"list of {len(schema['prefixItems'])}: {_kind(schema['prefixItems'][0])}"
        return f"list of {_kind(schema['items'])}"
    if schema.get("type") == "object":
        values = schema.get("patternProperties") or {"": schema["additionalProperties"]}
        return f"mapping to {_kind(next(iter(values.values())))}"
    return _scalar(schema)


def _named(name: str) -> str:
    definition = json_schema()["$defs"][name]
    if "enum" in definition:
        return " \\| ".join(f"`{value}`" for value in definition["enum"])
    if "const" in definition:
        return f"`{definition['const']}`"
    return f"[{name}](#{name.lower()})"


def _scalar(schema: dict[str, Any]) -> str:
    pattern = schema.get("pattern", "")
    if pattern in _FORMS:
        return _FORMS[pattern]
    if "25[0-5]" in pattern:
        form = ("prefix", "`10.0.0.0/16`", "`fd00::/48`") if "/" in pattern else ("address", "`10.0.1.4`", "`fd00::4`")
        ipv6 = f" or {form[2]}" if ":" in pattern else ""
        return f"{form[0]}, e.g. {form[1]}{ipv6}"
    if pattern:
        return "reference, `a/b`" if "/" in pattern else "name"
    words = {"integer": "whole number", "number": "number", "boolean": "`true` \\| `false`", "string": "text"}
    return words[schema["type"]] + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if high is None:
        return ""
    return f", above {above} to {high}" if above is not None else f", {low} to {high}"


def _default(schema: dict[str, Any], *, required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    if value is None or value == [] or isinstance(value, dict):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _section(name: str, definition: dict[str, Any]) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield class_descriptions()[name].replace("``", "`")
    yield ""
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for key, schema in definition["properties"].items():
        default = _default(schema, required=key in definition.get("required", ()))
        meaning = key_descriptions().get((name, key), "").replace("``", "`")
        yield f"| `{key}` | {_kind(schema)} | {default} | {meaning} |"
    yield ""


def _ordered(model: Any, seen: dict[str, None]) -> None:
    """The document first, then its parts in the order they come up."""
    seen.setdefault(model.__name__)
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            if part.__name__ not in seen:
                _ordered(part, seen)


def _parts(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
    elif not (isinstance(annotation, type) and issubclass(annotation, StrEnum)):
        for each in getattr(annotation, "__args__", ()):
            yield from _parts(each)


def markdown() -> str:
    """The page, ending with one line feed."""
    schema = json_schema()
    order: dict[str, None] = {}
    _ordered(Topology, order)
    lines = [_HEAD]
    for name in order:
        lines += _section(name, schema if name == "Topology" else schema["$defs"][name])
    return "\n".join(lines).rstrip() + "\n"
