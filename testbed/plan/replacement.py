"""From one ruleset of the fabric to the next in one transaction, keeping what running flows need. Pure.

Sets, maps and counters that both have stay as they are, with their elements: flows keep their members, rewritten
flows their frontends, security groups their flow records, counters their counts. Rules are replaced, and what the new
text does not have goes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["BALANCER_TABLES", "chains", "declared", "replacement"]

#: The tables of the fabric that balance, by IP version.
BALANCER_TABLES = {4: "ip testbed", 6: "ip6 testbed"}
_DECLARATION = re.compile(r"^  (chain|map|set|counter|ct timeout) (\w+) \{", re.MULTILINE)
#: Maps with fixed elements: they are filled anew, because an element cannot be changed in place.
_FIXED = ("flows", "packets")
#: In this order nothing that is deleted is still referred to.
_ORDER = ("chain", "map", "set", "ct timeout", "counter")


def declared(text: str) -> set[tuple[str, str]]:
    """(kind, name) of everything a ruleset's table holds."""
    return {(match[1], match[2]) for match in _DECLARATION.finditer(text)}


def chains(text: str) -> set[str]:
    """Names of a ruleset's chains; one of them names its version."""
    return {name for kind, name in declared(text) if kind == "chain"}


def replacement(
    table: str, old: str | None, new: str, elements: str = "", *, present: Collection[str] | None = None
) -> str:
    """The nft commands that turn a table made by ``old`` into ``new``.

    Args:
        table: Family and name.
        old: The text loaded last; None: whatever table is there is replaced as a whole.
        new: The text to load.
        elements: Commands that fill the owner maps and eligible sets, which are emptied before.
        present: The table's chains; those that hang on a link go with it (Linux before 6.16). None: all of them.
    """
    if old is None:
        return f"add table {table}\ndelete table {table}\n{new}{elements}"
    before, after = declared(old), declared(new)
    if present is not None:
        before = {(kind, name) for kind, name in before if kind != "chain" or name in present}
    commands = [f"flush table {table}\n"]
    commands += [f"flush map {table} {name}\n" for name in _FIXED if ("map", name) in before]
    commands.append(new)
    for kind, name in sorted(before & after):
        if name.startswith(("owner_", "eligible_")):
            commands.append(f"flush {kind} {table} {name}\n")
    commands.append(elements)
    gone = sorted(before - after, key=lambda each: (_ORDER.index(each[0]), each[1]))
    commands += [f"delete {kind} {table} {name}\n" for kind, name in gone]
    return "".join(commands)
