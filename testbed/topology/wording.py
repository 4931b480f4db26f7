"""What pydantic finds, in words for people: what is wrong, and what to write instead."""

from __future__ import annotations

from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from testbed.topology import runtimes
from testbed.topology.model import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pydantic_core import ErrorDetails

    from testbed.topology.nodes import Location

__all__ = ["KINDS", "closest", "meant", "model_at", "one_of", "put", "suggestion", "untagged"]

_SEE = "see docs/topology.md for the keys and their values"
#: A runtime's models by their kind, which pydantic puts into the places of errors.
_RUNTIMES: Mapping[object, type[BaseModel]] = {
    "namespace": runtimes.NamespaceRuntime,
    "container": runtimes.ContainerRuntime,
    "vm": runtimes.VirtualMachineRuntime,
    "external": runtimes.ExternalRuntime,
}


def closest(word: str, words: tuple[str, ...], *, cutoff: float = 0.6) -> str | None:
    """The word that was probably meant, whatever its case; ``None`` when none is near (1 is the same word)."""
    by_lower = {each.lower(): each for each in words}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else None


def one_of(words: tuple[str, ...]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1] if words else "")))


def suggestion(name: str, names: Collection[str], where: str) -> str:
    """What to do about a reference to nothing: ``names`` are there, in the list ``where``."""
    near = closest(name, tuple(names))
    if near:
        return f"did you mean {near!r}?"
    return f"use {one_of(tuple(names))}" if names else f"add it to {where}"


def _inside(annotation: Any) -> Any:
    """The model or the enumeration in ``tuple[X, ...]``, ``X | None`` and ``Annotated[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel | StrEnum):
        return annotation
    return next((found for each in get_args(annotation) if (found := _inside(each))), None)


def untagged(location: Location) -> Location:
    """The place as the document has it: without the kind that pydantic names behind ``runtime``."""
    return tuple(
        step for i, step in enumerate(location) if not (i and location[i - 1] == "runtime" and step in _RUNTIMES)
    )


def model_at(location: Location) -> type[BaseModel] | None:
    """The model whose keys stand at this place; ``None`` when it is a plain value."""
    model: Any = Topology
    for step in location:
        if isinstance(step, int):
            continue
        if model is runtimes.NamespaceRuntime and step in _RUNTIMES:
            model = _RUNTIMES[step]
            continue
        field = model.model_fields.get(step)
        model = _inside(field.annotation) if field else None
        if model is None or not issubclass(model, BaseModel):
            return None
    found: type[BaseModel] | None = model
    return found


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _key(error: ErrorDetails) -> str:
    return next((str(each) for each in reversed(error["loc"]) if isinstance(each, str)), "the document")


def _path(location: Location) -> str:
    """``load_balancers.probes`` for a place in any of them."""
    return ".".join(step for step in untagged(location) if isinstance(step, str)) or "the document"


@cache
def _homes() -> dict[str, frozenset[str]]:
    """Every key of the document, and the paths of what may have it."""
    homes: dict[str, frozenset[str]] = {}
    ways: list[tuple[Location, type[BaseModel]]] = [((), Topology)]
    for way, model in ways:  # grows while it is read
        for key, field in model.model_fields.items():
            homes[key] = homes.get(key, frozenset()) | {_path(way)}
            found = _inside(field.annotation)
            inner = _RUNTIMES.values() if found is runtimes.NamespaceRuntime else [found]
            ways += [((*way, key), each) for each in inner if each and issubclass(each, BaseModel)]
    return homes


def _home(location: Location) -> str | None:
    """Where the key at this place belongs, if not here, and if to one place only."""
    elsewhere = _homes().get(str(location[-1]), frozenset()) - {_path(location[:-1])}
    return next(iter(elsewhere)) if len(elsewhere) == 1 else None


def meant(location: Location) -> str | None:
    """The key that an unknown one was meant to be; ``None`` when it is of another place, or none here is near."""
    model = model_at(location[:-1])
    cutoff = 0.9 if _home(location) else 0.6
    return closest(str(location[-1]), tuple(model.model_fields), cutoff=cutoff) if model else None


def _extra(error: ErrorDetails) -> tuple[str, str]:
    location = error["loc"]
    if near := meant(location):
        fix = f"did you mean {near!r}?"
    elif home := _home(location):
        fix = f"move it; it is a key of {home}"
    else:
        model = model_at(location[:-1])
        fix = f"remove it; the keys here are {', '.join(model.model_fields if model else ())}"
    return f"unknown key {str(location[-1])[:60]!r}", fix


def _missing(error: ErrorDetails) -> tuple[str, str]:
    if isinstance(error["loc"][-1], int):
        return "one name too few", "give two virtual networks, e.g. [hub, spoke1]"
    return f"key {error['loc'][-1]!r} is missing", f"add '{error['loc'][-1]}:'; {_SEE}"


def _enum(error: ErrorDetails) -> tuple[str, str]:
    expected = tuple(str(error["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", "))
    message = f"{_short(error['input'])} is not a value of {_key(error)}"
    near = closest(str(error["input"]), expected)
    if near and near.lower() == str(error["input"]).lower():
        return message, f"write {near} (upper and lower case count)"
    return message, f"did you mean {near}? It can be {one_of(expected)}" if near else f"write {one_of(expected)}"


#: What a text with a pattern of its own has to be, by its key.
_FORMS = {
    "memory": ("an amount of memory", "write mebibytes or gibibytes, e.g. 512M or 2G"),
    "mac_address": ("the address of a network interface", "write it in lower case, e.g. 00:1b:21:3a:4c:5d"),
    "machine": ("a member of a pool", "write a machine, or one of its network interfaces: nva1, nva1/eth1"),
    "host_key": ("a way to know a host key", "write accept-new, or known-hosts and a file"),
    "mode": ("the mode of a file", "write it in quotes, e.g. '0644'"),
}


def _pattern(error: ErrorDetails) -> tuple[str, str]:
    form = _FORMS.get(_key(error))
    if form:
        return f"{_short(error['input'])} is not {form[0]}", form[1]
    if error["ctx"]["pattern"] == runtimes.ONE_LINE:
        return f"{_key(error)} is {_short(error['input'])}", "write one line of text"
    if "/" in str(error["ctx"]["pattern"]):
        parts = "load_balancer/backend_address_pool" if "pools" in _key(error) else "virtual_network/subnet"
        return f"{_short(error['input'])} is not a reference of the form {parts}", "write both names, with one slash"
    allowed = "use lower-case letters, digits and hyphens, with a letter or a digit at both ends"
    return f"{_short(error['input'])} cannot be a name", allowed


def _string(error: ErrorDetails) -> tuple[str, str]:
    value = error["input"]
    if form := _FORMS.get(_key(error)):
        return f"{_key(error)} is {_short(value)}, not {form[0]}", form[1]
    plain = isinstance(value, str | int | float | bool)
    fix = "put it in quotes if the text is meant" if plain else "write a text"
    return f"{_key(error)} is {_short(value)}, not a text", fix


def _number(error: ErrorDetails) -> tuple[str, str]:
    return f"{_key(error)} is {_short(error['input'])}, not a number", "write a plain number, such as 4"


def _whole(error: ErrorDetails) -> tuple[str, str]:
    return f"{_key(error)} is {_short(error['input'])}, not a whole number", "write a whole number, such as 4"


def _boolean(error: ErrorDetails) -> tuple[str, str]:
    return f"{_key(error)} is {_short(error['input'])}", "write true or false"


def _bound(words: str, key: str) -> Callable[[ErrorDetails], tuple[str, str]]:
    def say(error: ErrorDetails) -> tuple[str, str]:
        limit = error["ctx"][key]
        return f"{_key(error)} is {_short(error['input'])}", f"write a number {words} {limit:g}"

    return say


def _list(error: ErrorDetails) -> tuple[str, str]:
    return f"{_key(error)} is {_short(error['input'])}, not a list", "write a list: [a, b], or one '- ' line per item"


def _dictionary(error: ErrorDetails) -> tuple[str, str]:
    return f"{_key(error)} is {_short(error['input'])}, not a mapping", "write 'key: value' lines"


def _runtime(error: ErrorDetails) -> tuple[str, str]:
    kind = error["input"].get("kind")
    message = f"{_short(kind)} is not a value of kind"
    near = closest(str(kind), runtimes.RUNTIME_KINDS)
    kinds = one_of(runtimes.RUNTIME_KINDS)
    return message, f"did you mean {near}? It can be {kinds}" if near else f"write {kinds}"


def _mapping(error: ErrorDetails) -> tuple[str, str]:
    model = model_at(error["loc"])
    keys = ", ".join(model.model_fields) if model else ""
    return f"{_short(error['input'])} stands where keys are expected", f"write 'key: value' lines; the keys are {keys}"


def _too_long(error: ErrorDetails) -> tuple[str, str]:
    context = error["ctx"]
    if "actual_length" in context:
        return f"{_key(error)} has {context['actual_length']} items", f"give at most {context['max_length']}"
    return f"{_key(error)} has {len(error['input'])} characters", f"give at most {context['max_length']}"


def _too_short(error: ErrorDetails) -> tuple[str, str]:
    return f"{_key(error)} is empty", f"give at least {error['ctx']['min_length']}"


def _told(error: ErrorDetails) -> tuple[str, str]:
    context = error["ctx"]
    return context["message"], context["fix"]


#: Pydantic's error types that a document can cause.
KINDS: Mapping[str, Callable[[ErrorDetails], tuple[str, str]]] = {
    "address": _told,
    "bool_parsing": _boolean,
    "bool_type": _boolean,
    "dict_type": _dictionary,
    "enum": _enum,
    "extra_forbidden": _extra,
    "float_parsing": _number,
    "float_type": _number,
    "greater_than": _bound("above", "gt"),
    "greater_than_equal": _bound("from", "ge"),
    "int_from_float": _whole,
    "int_parsing": _whole,
    "int_parsing_size": _whole,
    "int_type": _whole,
    "less_than_equal": _bound("up to", "le"),
    "missing": _missing,
    "model_type": _mapping,
    "string_pattern_mismatch": _pattern,
    "string_too_long": _too_long,
    "string_type": _string,
    "too_long": _too_long,
    "too_short": _too_short,
    "tuple_type": _list,
    "union_tag_invalid": _runtime,
}


def put(error: ErrorDetails) -> tuple[str, str]:
    """The message and the fix."""
    kind = KINDS.get(error["type"])
    return kind(error) if kind else (error["msg"].lower(), _SEE)
