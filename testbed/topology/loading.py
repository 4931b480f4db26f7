"""From a file to a checked topology, or to everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.errors import DocumentError
from testbed.topology.findings import Finding
from testbed.topology.nodes import MAX_BYTES, parse
from testbed.topology.repair import settle
from testbed.topology.rules import run_all

if TYPE_CHECKING:
    from pathlib import Path

    from testbed.topology.model import Topology

__all__ = ["LoadedTopology", "check", "check_text", "load"]


@dataclass(frozen=True, slots=True)
class LoadedTopology:
    """A topology without errors, what to be warned of, and the text it was read from."""

    topology: Topology
    warnings: tuple[Finding, ...]
    text: str


def _read(path: Path) -> str | Finding:
    def refuse(message: str, fix: str, line: int = 1) -> Finding:
        return Finding("error", str(path), line, "", message, fix)

    try:
        if path.exists() and not path.is_file():  # a device or a pipe might never end
            return refuse("is not a regular file", "name a file, e.g. topologies/hub-spoke.yaml")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        return refuse(f"cannot be read: {reason}", "check the path; ready topologies are in topologies/")
    if len(data) > MAX_BYTES:
        return refuse(f"is larger than {MAX_BYTES >> 20} MiB", "is it the right file? Split the lab otherwise")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return refuse(f"byte {error.start} is not UTF-8", "save the file as UTF-8", line)


def check_text(text: str, file: str) -> tuple[Topology | None, tuple[Finding, ...]]:
    """Check a document that was read already; ``file`` is what findings call it."""
    root, mistakes = parse(text)
    found = [Finding("error", file, each.line, "", each.message, each.fix) for each in mistakes]
    draft = None
    if root is not None:
        draft, structural = settle(root, file)
        found += structural
        if draft is not None:
            found += run_all(draft)
    ordered = tuple(sorted(dict.fromkeys(found), key=lambda each: (each.line, each.path, each.message)))
    wrong = draft is None or any(each.severity == "error" for each in ordered)
    return None if wrong or draft is None else draft.topology, ordered


def check(path: Path) -> tuple[Topology | None, tuple[Finding, ...]]:
    """Everything there is to say about a document, in the order of its lines.

    The topology is ``None`` exactly when one of the findings is an error. Never raises for a bad document.
    """
    text = _read(path)
    return (None, (text,)) if isinstance(text, Finding) else check_text(text, str(path))


def load(path: Path) -> LoadedTopology:
    """Read and check a document.

    Raises:
        DocumentError: It has errors; ``findings`` holds all of them, and the warnings.
    """
    text = _read(path)
    topology, findings = (None, (text,)) if isinstance(text, Finding) else check_text(text, str(path))
    if topology is None or isinstance(text, Finding):
        count = sum(each.severity == "error" for each in findings)
        head = f"{path} has {count} error{'s' if count != 1 else ''}"
        raise DocumentError("\n".join([head, *map(str, findings)]), findings)
    return LoadedTopology(topology, findings, text)
