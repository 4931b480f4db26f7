"""The docstrings of the model, read from its source: the one place where a key is explained.

Pydantic can do this when the classes are made; that costs every command start time, and only the schema and the
reference need it.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from testbed.topology import connections, model, runtimes, security, switches

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["class_descriptions", "key_descriptions"]


@cache
def _classes() -> tuple[ast.ClassDef, ...]:
    trees = [ast.parse(inspect.getsource(module)) for module in (model, connections, runtimes, security, switches)]
    return tuple(each for tree in trees for each in tree.body if isinstance(each, ast.ClassDef))


@cache
def class_descriptions() -> Mapping[str, str]:
    """Class name to what it is."""
    return MappingProxyType({each.name: inspect.cleandoc(ast.get_docstring(each) or "") for each in _classes()})


@cache
def key_descriptions() -> Mapping[tuple[str, str], str]:
    """Class and key to what the key means."""
    found: dict[tuple[str, str], str] = {}
    for one in _classes():
        for before, after in zip(one.body, one.body[1:], strict=False):
            if not (isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[one.name, before.target.id] = " ".join(inspect.cleandoc(str(after.value.value)).split())
    return MappingProxyType(found)
