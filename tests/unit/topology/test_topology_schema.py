"""The schema and the reference page say what the model says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed.topology import model, runtimes
from testbed.topology.descriptions import class_descriptions, key_descriptions
from testbed.topology.document import Document
from testbed.topology.reference import markdown
from testbed.topology.schema import DIALECT, json_schema

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOT = Path(__file__).parents[3]
PARTS = sorted(
    (each for each in (vars(model) | vars(runtimes)).values() if isinstance(each, type) and issubclass(each, Document)),
    key=lambda each: each.__name__,
)


def test_the_reference_page_is_current() -> None:
    """Made anew with ``python -c 'from testbed.topology.reference import markdown; print(markdown(), end="")'``."""
    assert (ROOT / "docs" / "topology.md").read_text() == markdown()


@pytest.mark.parametrize("part", [each for each in PARTS if each is not Document], ids=lambda part: part.__name__)
def test_every_key_is_explained(part: type[BaseModel]) -> None:
    """No key without a meaning, in the page as in the schema."""
    assert class_descriptions()[part.__name__]
    for key in part.model_fields:
        assert key_descriptions()[part.__name__, key].endswith("."), key


def _objects(schema: Any) -> list[dict[str, Any]]:
    return [schema, *(each for each in schema["$defs"].values() if each.get("type") == "object")]


def test_the_schema_is_closed_and_described() -> None:
    """Every object refuses unknown keys and every key has a description."""
    schema = json_schema()
    assert schema["$schema"] == DIALECT
    for definition in _objects(schema):
        assert definition["additionalProperties"] is False
        assert definition["title"]
        assert all(value["description"] for value in definition["properties"].values())


def _pattern(part: str, key: str) -> re.Pattern[str]:
    value = json_schema()["$defs"][part]["properties"][key]
    return re.compile(value["pattern"])


@pytest.mark.parametrize(
    ("text", "fits"),
    [("10.0.0.4", True), ("255.255.255.255", True), ("10.0.0.256", False), ("10.0.0", False), ("010.0.0.1", False)],
)
def test_the_schema_knows_addresses(text: str, fits: bool) -> None:  # noqa: FBT001 - a table of cases
    """Editors mark a bad address by a pattern, which they know better than formats."""
    assert bool(_pattern("NetworkInterface", "private_ip_address").match(text)) == fits


@pytest.mark.parametrize(
    ("text", "fits"), [("10.0.0.0/8", True), ("0.0.0.0/0", True), ("10.0.0.0/33", False), ("10.0.0.0", False)]
)
def test_the_schema_knows_prefixes(text: str, fits: bool) -> None:  # noqa: FBT001 - a table of cases
    """A prefix has a length."""
    assert bool(_pattern("Internet", "address_prefix").match(text)) == fits


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("10.0.0.0/8", True),
        ("fd00::/48", True),
        ("::/0", True),
        ("fd00::/129", False),
        ("fd00::", False),
        ("f/4", False),
    ],
)
def test_the_schema_knows_prefixes_of_both_versions(text: str, fits: bool) -> None:  # noqa: FBT001 - a table of cases
    """Routes have prefixes of IPv4 or of IPv6."""
    assert bool(_pattern("Route", "address_prefix").match(text)) == fits
