"""House rules that a program can check: sizes, fronts, and words that must not stand in the tree."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "testbed").rglob("*.py"))
PROGRAMS = sorted(path for name in ("testbed", "tests", "bench", "scripts") for path in (ROOT / name).rglob("*.py"))
LINES = 500
# Put together here, so that this file does not contain them itself.
SHELL = "shell" + "=True"
SLEEP = "time" + ".sleep("
ADDRESSES = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "deb.debian" + ".org",
    "archive.ubuntu" + ".com",
    "registry.npmjs" + ".org",
    "--index" + "-url",
    "--extra-index" + "-url",
    "--trusted" + "-host",
    "/" + "simple/",
)


def relative(path: Path) -> str:
    """The path as it is shown in a test's name."""
    return str(path.relative_to(ROOT))


def written() -> list[Path]:
    """The files that people write: without what tools make and what git keeps."""
    made = {
        ".git",
        ".venv",
        ".guest",
        "results",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
        "__pycache__",
    }
    made |= {"build", "dist", "results"}
    found = []
    for directory, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in made and not name.endswith(".egg-info")]
        found += [Path(directory, name) for name in files]
    return found


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_is_short(path: Path) -> None:
    """A module that grows beyond 500 lines holds more than one idea."""
    assert len(path.read_text().splitlines()) <= LINES


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name not in {"__init__.py", "__main__.py"}], ids=relative
)
def test_a_module_says_what_it_is_and_what_it_offers(path: Path) -> None:
    """Every module has a docstring, and lists its public names."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    offers = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
    assert len(offers) == 1


@pytest.mark.parametrize("path", PROGRAMS, ids=relative)
def test_no_shell_and_no_sleep(path: Path) -> None:
    """Commands are argument lists, and waits are for conditions with deadlines."""
    text = path.read_text()
    assert SHELL not in text
    assert SLEEP not in text


def test_no_address_of_a_package_index() -> None:
    """Where packages come from is a matter of the machine, not of the project."""
    wrong = []
    for path in written():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a picture
        wrong += [f"{relative(path)}: {word}" for word in ADDRESSES if word in text]
    assert wrong == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned(name: str) -> None:
    """Every line is a comment or ``name==version``, and no package is named twice."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    names = [line.split("==")[0].lower() for line in lines]
    assert all(line.count("==") == 1 and " " not in line for line in lines)
    assert len(set(names)) == len(names)
