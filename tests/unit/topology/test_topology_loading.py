"""Reading documents: ready ones are fine, files that are none are told, nothing else than findings comes out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import DocumentError
from testbed.topology import model, runtimes
from testbed.topology.document import Document
from testbed.topology.findings import Finding
from testbed.topology.loading import check, check_text, load
from testbed.topology.nodes import MAX_BYTES

ROOT = Path(__file__).parents[3]
READY = sorted((ROOT / "topologies").glob("*.yaml"))
BASE = READY[[path.stem for path in READY].index("hub-spoke")].read_text()
#: Ready topologies that show a mistake, and how many warnings it is worth.
MISTAKEN = {"sandwich": 2}


def test_the_ready_topologies_are_there() -> None:
    """The names that the documentation promises."""
    names = {path.stem for path in READY}
    assert names >= {"hub-spoke", "hub-spoke-scale", "active-passive", "all-ports-app", "all-ports-app-dsr"}


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_topology_is_perfect(path: Path) -> None:
    """No error, no warning that is not its purpose, named after its file, and commented."""
    loaded = load(path)
    assert len(loaded.warnings) == MISTAKEN.get(path.stem, 0)
    assert loaded.topology.name == path.stem
    assert loaded.text == path.read_text()
    assert loaded.text.startswith("# ")


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_topology_round_trips(path: Path) -> None:
    """Written out as YAML or JSON, a topology reads back as the same one."""
    topology = load(path).topology
    plain = topology.model_dump(mode="json")
    for text in (yaml.safe_dump(plain), json.dumps(plain)):
        again, findings = check_text(text, "again.yaml")
        assert len(findings) == MISTAKEN.get(path.stem, 0)
        assert again == topology


def test_the_scale_lab_has_its_size() -> None:
    """Four spokes with one machine each, eight appliances."""
    topology = load(ROOT / "topologies" / "hub-spoke-scale.yaml").topology
    assert len(topology.virtual_networks) == 5
    assert sum(bool(each.network_interfaces[0].backend_address_pools) for each in topology.machines) == 8
    assert len(topology.machines) == 12


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A finding like any other, not a traceback."""
    topology, (finding,) = check(tmp_path / "none.yaml")
    assert topology is None
    assert "no such file" in finding.message


def test_a_directory_is_told(tmp_path: Path) -> None:
    """A directory has no text."""
    with pytest.raises(DocumentError, match="not a regular file"):
        load(tmp_path)


def test_a_pipe_is_told(tmp_path: Path) -> None:
    """Reading one would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in check(tmp_path / "pipe")[1][0].message


def test_a_name_that_is_none_is_told() -> None:
    """The kernel takes no path with a NUL in it."""
    assert check(Path("a\0b"))[0] is None


def test_bytes_that_are_not_utf_8_are_told(tmp_path: Path) -> None:
    """With the line they are on."""
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: lab\n# caf\xe9\n")
    (finding,) = check(path)[1]
    assert (finding.line, finding.message) == (2, "byte 15 is not UTF-8")


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert load(path).topology.name == "hub-spoke"


def test_a_huge_file_is_told(tmp_path: Path) -> None:
    """The limit is named, and the file is not parsed."""
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    assert check(path)[1][0].message == "is larger than 4 MiB"


def test_anchors_and_aliases_work() -> None:
    """YAML's way to say a thing once; a mistake in it is reported where it is used."""
    text = BASE.replace("private_ip_address: 10.0.2.4}", "private_ip_address: &frontend 10.0.2.4}")
    text = text.replace("next_hop_ip_address: 10.0.2.4", "next_hop_ip_address: *later")
    assert "no finished anchor" in check_text(text, "x.yaml")[1][0].message
    text = text.replace("*later", "10.0.2.4") + "\n"
    assert check_text(text, "x.yaml")[1] == ()
    text = text.replace("private_ip_address: 10.2.0.4", "private_ip_address: *frontend")
    finding = next(each for each in check_text(text, "x.yaml")[1] if "is not in subnet" in each.message)
    assert finding.path == "machines[web2].network_interfaces[0].private_ip_address"
    assert "*frontend" in text.splitlines()[finding.line - 1]


def test_a_finding_as_text_and_as_json() -> None:
    """For people one line and a fix, for programs all parts."""
    finding = Finding("error", "a.yaml", 3, "name", "wrong", "right", "SomeCode")
    assert str(finding) == "a.yaml:3: error: name: wrong (SomeCode)\n  fix: right"
    assert finding.to_json() == {
        "severity": "error",
        "file": "a.yaml",
        "line": 3,
        "path": "name",
        "message": "wrong",
        "fix": "right",
        "code": "SomeCode",
    }


LONGEST = "x" * 40


def test_the_longest_names_fit_the_kernel() -> None:
    """Namespace files (255), alternative interface names (127) and control sockets (107) have room for them."""
    text = BASE.replace("name: hub-spoke", f"name: {LONGEST}").replace("name: web1", f"name: {LONGEST}")
    topology, findings = check_text(text, "x.yaml")
    assert findings == ()
    assert topology is not None
    assert len(f"{LONGEST}-{LONGEST}-eth7") <= 127
    assert len(f"/run/testbed/{LONGEST}/{LONGEST}.sock") <= 107


PARTS = [
    each for each in (vars(model) | vars(runtimes)).values() if isinstance(each, type) and issubclass(each, Document)
]
KEYS = sorted({key for part in PARTS for key in part.model_fields})
WORDS = st.sampled_from(["hub", "hub/nva", "nva-lb/nvas", "10.0.0.0/16", "10.0.1.4", "All", "fe80::1", "", "0", "x y"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | WORDS, inner, max_size=3),
    max_leaves=12,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [path]
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        found += _places(inner, (*path, step))
    return found


DOCUMENT: dict[str, Any] = yaml.safe_load(BASE)
PLACES = [path for path in _places(DOCUMENT) if path]


def _judge(text: str) -> None:
    """Whatever it is: a topology without errors, or errors with sensible lines."""
    topology, findings = check_text(text, "x.yaml")
    lines = text.count("\n") + 1
    assert all(1 <= each.line <= lines and each.message and each.fix for each in findings)
    assert (topology is None) == any(each.severity == "error" for each in findings)
    if topology is not None:
        again, _ = check_text(json.dumps(topology.model_dump(mode="json")), "again.yaml")
        assert again == topology


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES | st.just(...)), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_any_change_gives_findings_or_a_topology(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Values replaced or taken out anywhere in a good document raise nothing and hide nothing."""
    document = yaml.safe_load(BASE)
    for path, value in changes:
        inner = document
        for step in path[:-1]:
            inner = inner[step] if isinstance(inner, dict | list) and step in _keys(inner) else None
        if inner is None or not isinstance(inner, dict | list) or path[-1] not in _keys(inner):
            continue
        if value is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
    _judge(yaml.safe_dump(document, sort_keys=False))


def _keys(value: dict[Any, Any] | list[Any]) -> set[Any]:
    return set(value) if isinstance(value, dict) else set(range(len(value)))


@given(document=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
@settings(max_examples=200, deadline=None)
def test_any_document_gives_findings(document: dict[str, Any]) -> None:
    """Documents made of the right keys in the wrong places."""
    _judge(yaml.safe_dump(document))


@given(text=st.text(alphabet=st.sampled_from(list(" \n\t:-[]{}&*!|>'\"#%@,?ab0.é\0\x85")), max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_text_gives_findings(text: str) -> None:
    """Text that may be YAML by accident."""
    topology, findings = check_text(text, "x.yaml")
    assert topology is None
    assert findings != ()
