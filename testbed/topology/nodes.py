"""YAML as a tree that knows its lines, safe against hostile input.

PyYAML only turns the text into events. The tree is built here, so that the depth and the size of what aliases
unfold to are bounded, keys that are given twice are found, and every value knows where it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Location", "Mistake", "Node", "Scalar", "parse"]

#: Of a document; 5,000 machines need about 1 MB.
MAX_BYTES = 4 << 20
#: Of nested lists and mappings; the model needs 6.
MAX_DEPTH = 32
#: Values in a document after its aliases are unfolded.
MAX_NODES = 200_000

Scalar = str | int | float | bool | None
Location = tuple[str | int, ...]
#: What may stand in a path's brackets instead of a number.
_LABEL = re.compile(r"[\w.-]{1,60}")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times faster, not built everywhere
_resolver = Resolver()
_constructor = SafeConstructor()


@dataclass(slots=True, eq=False)
class Node:
    """A value of the document: a scalar, a mapping (``entries``) or a sequence (``items``).

    Mutable, because what is broken is taken out before the rest is checked. ``line`` counts from 1 and is where
    the entry or the item starts; ``index`` is the place in its list as it was written.
    """

    line: int
    scalar: Scalar = None
    entries: dict[str, Node] | None = None
    items: list[Node] | None = None
    index: int = 0
    label: str | None = None
    damaged: bool = False
    """Whether a direct part of it was taken out."""

    def value(self) -> object:
        """As plain Python values."""
        if self.entries is not None:
            return {key: node.value() for key, node in self.entries.items()}
        if self.items is not None:
            return [node.value() for node in self.items]
        return self.scalar

    def child(self, key: str | int) -> Node | None:
        """The entry or the item of this key, if there is one."""
        if self.entries is not None and isinstance(key, str):
            return self.entries.get(key)
        if self.items is not None and isinstance(key, int) and 0 <= key < len(self.items):
            return self.items[key]
        return None

    def words(self) -> Iterator[str]:
        """All texts in it, keys not counted; of references (``a/b``) the parts as well."""
        if self.entries is not None:
            for node in self.entries.values():
                yield from node.words()
        elif self.items is not None:
            for node in self.items:
                yield from node.words()
        elif isinstance(self.scalar, str):
            yield self.scalar
            yield from self.scalar.split("/")


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong with the YAML itself."""

    line: int
    message: str
    fix: str


class _UnreadableError(Exception):
    """The text ends the parse; carries the mistake."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.message)
        self.mistake = mistake


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


@dataclass(slots=True)
class _Builder:
    """Events to nodes."""

    events: Iterator[yaml.Event]
    mistakes: list[Mistake] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)
    count: int = 0

    def build(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        self._counted(line)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        if depth > MAX_DEPTH:
            fix = "a topology needs six levels; check the indentation and the brackets"
            raise _UnreadableError(Mistake(line, f"more than {MAX_DEPTH} levels of nesting", fix))
        if isinstance(event, yaml.ScalarEvent):
            node = Node(line, scalar=self._scalar(event, line))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Node(line, items=self._items(depth))
        else:
            node = Node(line, entries=self._entries(depth))
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _counted(self, line: int) -> None:
        self.count += 1
        if self.count > MAX_NODES:
            raise _UnreadableError(
                Mistake(
                    line, f"the document has more than {MAX_NODES:,} values", "use fewer aliases (*name), or split it"
                )
            )

    def _alias(self, anchor: str, line: int) -> Node:
        if anchor not in self.anchors:
            fix = f"write &{anchor} at the value before it is used, and not inside itself"
            raise _UnreadableError(Mistake(line, f"alias *{anchor} has no finished anchor", fix))
        return self._copy(self.anchors[anchor], line)

    def _copy(self, node: Node, line: int) -> Node:
        self._counted(line)
        if node.entries is not None:
            entries = {key: self._copy(each, line) for key, each in node.entries.items()}
            return Node(line, entries=entries, label=node.label)
        if node.items is not None:
            items = [self._copy(each, line) for each in node.items]
            for index, item in enumerate(items):
                item.index = index
            return Node(line, items=items)
        return Node(line, scalar=node.scalar)

    def _items(self, depth: int) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            node = self.build(event, depth + 1)
            node.index = len(items)
            items.append(node)
        return items

    def _entries(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                self.build(event, depth + 1)  # read to its end
                self.build(next(self.events), depth + 1)
                self.mistakes.append(Mistake(line, "a key is not a word", "write 'key: value'; check the brackets"))
                continue
            key = event.value
            node = self.build(next(self.events), depth + 1)
            node.line = line
            if key in entries:
                message = f"key {key!r} is given twice; first on line {entries[key].line}"
                self.mistakes.append(Mistake(line, message, "keep one of them"))
                continue
            entries[key] = node
        return entries

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Scalar:
        text: str = event.value
        tag = event.tag
        if tag is None or tag == "!":
            tag = _resolver.resolve(yaml.ScalarNode, text, event.implicit)  # type: ignore[no-untyped-call]
        node = yaml.ScalarNode(tag, text)
        try:
            match str(tag).rpartition(":")[2]:
                case "null":
                    return None
                case "bool":
                    return bool(_constructor.construct_yaml_bool(node))
                case "int":
                    return int(_constructor.construct_yaml_int(node))
                case "float":
                    return float(_constructor.construct_yaml_float(node))
        except (ValueError, KeyError):
            fix = "write a plain number, true or false, or put quotes around a text"
            self.mistakes.append(Mistake(line, f"{text[:40]!r} is not what its tag says", fix))
        return text  # dates and the like stay what was written; the model says what it wants instead


def _label(node: Node) -> None:
    """Give every named item its name, for paths; names may be repaired later, what was written stays."""
    for child in node.items or ():
        name = child.child("name")
        if name is not None and isinstance(name.scalar, str) and _LABEL.fullmatch(name.scalar):
            child.label = name.scalar
    for child in (*(node.items or ()), *(node.entries or {}).values()):
        _label(child)


def _parse(text: str, mistakes: list[Mistake]) -> Node:
    events = iter(yaml.parse(text, Loader=_LOADER))
    builder = _Builder(events, mistakes)
    next(events)  # the stream starts
    if isinstance(next(events), yaml.StreamEndEvent):
        raise _UnreadableError(Mistake(1, "the file is empty", "start from a ready one in topologies/"))
    root = builder.build(next(events), 1)
    next(events)  # the document ends
    if not isinstance(event := next(events), yaml.StreamEndEvent):
        line = _line(event)
        mistakes.append(Mistake(line, "a second document starts here", "one topology per file; remove the '---'"))
    if root.entries is None:
        if root.scalar is None and root.items is None:
            raise _UnreadableError(Mistake(1, "the file is empty", "start from a ready one in topologies/"))
        what = "a list" if root.items is not None else "a single value"
        raise _UnreadableError(
            Mistake(root.line, f"the document is {what}, not a mapping", "start with 'name: my-lab'")
        )
    return root


def parse(text: str) -> tuple[Node | None, tuple[Mistake, ...]]:
    """Read YAML. The tree is ``None`` when the text cannot be read to its end.

    Mistakes that leave the rest readable, such as a key that is given twice, come along with the tree.
    """
    mistakes: list[Mistake] = []
    try:
        root = _parse(text, mistakes)
    except _UnreadableError as error:
        return None, (*mistakes, error.mistake)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = error.problem or error.context or "it cannot be read"
        fix = "check indentation, brackets, quotes and colons here and on the line before"
        return None, (*mistakes, Mistake(line, f"not YAML at column {column}: {problem}", fix))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return None, (*mistakes, Mistake(line, f"character {error.character!r} is not allowed in YAML", "remove it"))
    _label(root)
    return root, tuple(mistakes)
