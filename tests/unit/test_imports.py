"""Imports point downwards only, what is pure stays away from the kernel, and the command starts fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import testbed

ROOT = Path(testbed.__file__).parent
#: Top to bottom: a package may import from those below it.
ORDER = (
    "cli",
    "qualify",
    "lab",
    "doctor",
    "verify",
    "traffic",
    "runtimes",
    "images",
    "access",
    "nodes",
    "probes",
    "balancer",
    "graph",
    "plan",
    "topology",
    "kernel",
    "deadline",
    "errors",
)
#: Measurement, result and verdict, the plan and the document are pure: they run without root, on any system.
PURE = {
    "graph": {"plan", "topology", "errors"},
    "plan": {"topology", "errors"},
    "topology": {"errors"},
    "verify": set(ORDER) - {"cli", "qualify", "lab", "doctor", "nodes", "kernel"},
}
SLOW = {"docker", "jinja2", "numpy", "paramiko", "pydantic", "pyroute2", "scapy"}


@dataclass(frozen=True)
class Import:
    """One package of the testbed importing another."""

    file: str
    line: int
    source: str
    target: str
    typing_only: bool

    def __str__(self) -> str:
        """As an editor takes it."""
        return f"{self.file}:{self.line}: {self.source} imports {self.target}"


class Collector(ast.NodeVisitor):
    """All imports of a module, those in functions too."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.found: list[Import] = []
        self._typing = 0
        self._source = source

    def visit_If(self, node: ast.If) -> None:
        """Imports under ``TYPE_CHECKING`` never run."""
        typing = "TYPE_CHECKING" in ast.unparse(node.test)
        self._typing += typing
        for child in node.body:
            self.visit(child)
        self._typing -= typing
        for child in node.orelse:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        """``import testbed.x``."""
        for alias in node.names:
            self._add(node.lineno, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """``from testbed.x import y``, and ``from testbed import x``."""
        assert node.level == 0, f"{self.name}:{node.lineno}: imports name whole paths"
        module = node.module or ""
        names = [f"{module}.{alias.name}" for alias in node.names] if module == "testbed" else [module]
        for name in names:
            self._add(node.lineno, name)

    def _add(self, line: int, name: str) -> None:
        parts = name.split(".")
        if parts[0] == "testbed" and len(parts) > 1 and parts[1] != "__version__":
            self.found.append(Import(self.name, line, self._source, parts[1], self._typing > 0))


def imports(text: str, name: str) -> list[Import]:
    """The imports of one module; ``name`` is its path below the package."""
    collector = Collector(name, Path(name).parts[0].removesuffix(".py"))
    collector.visit(ast.parse(text))
    return collector.found


def misdirected(found: list[Import]) -> list[str]:
    """Those that point upwards, or from a pure package to one that is not."""
    wrong = []
    for each in found:
        if each.source == each.target:
            continue
        upwards = ORDER.index(each.target) < ORDER.index(each.source)
        impure = each.source in PURE and each.target not in PURE[each.source] and not each.typing_only
        if upwards or impure:
            wrong.append(str(each))
    return wrong


def project_imports() -> list[Import]:
    """Every import between packages of the testbed, but those of the package's own front."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name not in {"__init__.py", "__main__.py"}:
            found += imports(path.read_text(), name)
    return found


def test_every_package_has_its_place() -> None:
    """A new package must be put into the order before it can be used."""
    places = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert places - {"__init__", "__main__", "__pycache__"} <= set(ORDER)


def test_imports_point_downwards() -> None:
    """No package imports one above it, and pure packages import pure ones only."""
    assert misdirected(project_imports()) == []


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("from testbed.lab import up", "plan/x.py", 1),
        ("import testbed.kernel.nft", "verify/x.py", 1),
        ("def f():\n    from testbed import kernel", "plan/x.py", 1),
        ("from testbed.plan import model", "topology/x.py", 1),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from testbed.kernel import nft",
            "verify/x.py",
            0,
        ),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from testbed.cli import x",
            "verify/x.py",
            1,
        ),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    from testbed.kernel import nft", "verify/x.py", 1),
        ("from testbed.errors import LabError\nfrom testbed.traffic import flows", "verify/x.py", 0),
        ("from testbed import __version__", "kernel/x.py", 0),
    ],
)
def test_the_check_tells_good_from_bad(text: str, name: str, count: int) -> None:
    """The check itself finds each way of importing, and lets the allowed ones pass."""
    assert len(misdirected(imports(text, name))) == count


def test_the_command_starts_without_slow_packages() -> None:
    """What takes long to import is imported where it is used, so that ``testbed --help`` answers at once."""
    command = [sys.executable, "-X", "importtime", "-c", "import testbed.cli; testbed.cli.make_parser()"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "testbed" in loaded
    assert loaded & SLOW == set()
