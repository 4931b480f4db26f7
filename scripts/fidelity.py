"""Write ``docs/azure-fidelity.md`` to standard output, from the conformance suite.

``tests/conformance`` is read, not run: every test declared with ``@fact`` is a row of the table; ``absent.py`` there
says what is not modelled.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "tests" / "conformance"
#: The rows of facts, by part.
ROWS = {
    "Balancer": {
        1: "all ports, both protocols",
        2: "`load_distribution`",
        3: "members down",
        4: "members joining, leaving, recovering",
        5: "admin state and drain",
        6: "idle timeout and TCP reset",
        7: "floating IP",
        8: "several frontends and rules",
        9: "hairpin",
        10: "ICMP and fragments",
        11: "two balancers",
        12: "sizes of pools",
    },
    "Probes": {13: "TCP, HTTP, HTTPS", 14: "machines with several network interfaces", 15: "flapping"},
    "Network": {
        16: "effective routes",
        17: "peering and gateways",
        18: "IP forwarding",
        19: "network security groups",
        20: "live changes",
    },
    "Limits": {21: "HA Ports rules, 2017 and today; IPv6", 22: "counts and ranges"},
}
_SOURCE = re.compile(r"^azure\.md §(\d+)(?:, (.+))?$")
_WORDS = {"same": "same", "differs": "differs on purpose", "switchable": "switchable", "absent": "not modelled"}


@dataclass(frozen=True)
class Fact:
    """A row of the table."""

    row: int
    state: str
    statement: str
    section: int
    document: str
    note: str
    test: str
    balancers: str = ""
    """Which ones it is proven on; a dash where the balancer plays no part."""


class FactError(Exception):
    """A fact is not written as :mod:`facts` wants it; says where."""


def parse(row: int, state: str, docstring: str, test: str, *, balancer: bool = True) -> Fact:
    """A fact from the docstring of its test.

    Raises:
        FactError: Its source or statement is missing.
    """
    parts = re.split(r"\n+(Source|Note): ", inspect.cleandoc(docstring))
    found = {key: " ".join(value.split()) for key, value in zip(parts[1::2], parts[2::2], strict=True)}
    source = _SOURCE.match(found.get("Source", ""))
    if not source or not parts[0]:
        raise FactError(f'{test}: the docstring has no line like: Source: azure.md §3, "Health probes"')
    statement, note, balancers = " ".join(parts[0].split()), found.get("Note", ""), "both" if balancer else "-"
    return Fact(row, state, statement, int(source[1]), source[2] or "", note, test, balancers)


def _call(node: ast.expr, name: str) -> dict[str, ast.expr] | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
        return {each.arg: each.value for each in node.keywords if each.arg}
    return None


def _literal(arguments: dict[str, ast.expr], key: str, default: object) -> object:
    return ast.literal_eval(arguments[key]) if key in arguments else default


def facts_of(path: Path) -> Iterator[Fact]:
    """The facts of one module of the suite."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if (arguments := _call(decorator, "fact")) is not None:
                    row, state = _literal(arguments, "row", 0), _literal(arguments, "state", "same")
                    balancer = bool(_literal(arguments, "balancer", default=True))
                    docstring, name = ast.get_docstring(node) or "", f"{path.name}::{node.name}"
                    yield parse(int(str(row)), str(state), docstring, name, balancer=balancer)


def absences() -> Iterator[Fact]:
    """What ``absent.py`` says is not modelled."""
    for node in ast.parse((SUITE / "absent.py").read_text()).body:
        if isinstance(node, ast.Expr) and (arguments := _call(node.value, "not_modelled")) is not None:
            text = {key: str(ast.literal_eval(value)) for key, value in arguments.items()}
            source = _SOURCE.match(text["source"])
            if not source:
                raise FactError(f"absent.py: bad source {text['source']!r}")
            note = " ".join(text["reason"].split())
            yield Fact(int(text["row"]), "absent", text["fact"], int(source[1]), source[2] or "", note, "")


def _row(each: Fact) -> str:
    module, _, test = each.test.partition("::")
    where = f"[{test}](../tests/conformance/{module})" if each.test else ""
    document = f" {each.document}" if each.document else ""
    statement = each.statement + (f" *{each.note}*" if each.note else "")
    cells = (statement, f"[§{each.section}](#sources){document}", _WORDS[each.state], each.balancers, where)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("``", "`") for cell in cells) + " |"


def markdown() -> str:
    """The page."""
    facts = [each for path in sorted(SUITE.glob("test_*.py")) for each in facts_of(path)]
    facts += absences()
    counts = {state: sum(each.state == state for each in facts) for state in _WORDS}
    lines = [(SUITE / "head.md").read_text().rstrip(), ""]
    lines += [", ".join(f"{counts[state]} {words}" for state, words in _WORDS.items()) + "."]
    proven = Counter(each.balancers for each in facts)
    lines += [f"{proven['both']} proven on both balancers, {proven['-']} need none.", ""]
    for part, rows in ROWS.items():
        lines += [f"## {part}", ""]
        for row, title in rows.items():
            mine = [each for each in facts if each.row == row]
            lines += [f"### {row}. {title[0].upper()}{title[1:]}" if title[0] != "`" else f"### {row}. {title}", ""]
            lines += ["| fact | source | state | balancers | test |", "|---|---|---|---|---|", *map(_row, mine), ""]
    return "\n".join([*lines, (SUITE / "tail.md").read_text().rstrip(), ""])


def main() -> int:
    """Print the page."""
    try:
        print(markdown(), end="")
    except FactError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
