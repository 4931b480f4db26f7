"""Setting a machine up: the configure steps of the document, one after the other."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from testbed.access.templates import Source, render, used
from testbed.errors import DeadlineError, InputError, LabError, TestbedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from testbed.access.secrets import Secrets
    from testbed.access.transport import Answer, Transport
    from testbed.topology.model import Machine
    from testbed.topology.runtimes import ConfigureStep

__all__ = ["digest", "run_steps"]

_LAST_LINES = 10
_SHORT = 100


@dataclass(frozen=True, slots=True)
class _Action:
    """One thing to do: a command, or (with ``path``) a file to put."""

    step: int
    text: str
    path: str | None = None
    mode: int = 0


def run_steps(
    machine: Machine,
    known: Mapping[str, Any],
    transport: Transport,
    *,
    secrets: Secrets,
    folder: Path,
    say: Callable[[str], None],
    seconds: float,
) -> None:
    """Do all steps; the first one that fails is the last.

    All templates are filled in before anything is done, so a mistake in one leaves the machine as it was.

    Args:
        machine: What the document says of it.
        known: What templates can use (:func:`testbed.access.templates.facts`).
        transport: The way in.
        secrets: Where ``env()`` looks, and what no error contains.
        folder: Where the document is.
        say: Is told before each action what it is, in a line.
        seconds: For all steps together.

    Raises:
        InputError: A template is wrong, a file or a variable of the environment is not there.
        DeadlineError: The time is up.
        LabError: A command failed, or the machine is not reached; names step and command, shows the last output.
    """
    deadline = time.monotonic() + seconds
    with secrets.guarded():
        actions = [
            each
            for number, step in enumerate(machine.configure, 1)
            for each in _actions(machine.name, number, step, known, secrets, folder)
        ]
        for each in actions:
            what = f"put {each.path}" if each.path is not None else secrets.redact(each.text.strip())
            say(_shortened(f"{machine.name}: configure step {each.step}: {what}"))
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlineError(f"machine {machine.name!r}: configure step {each.step}: not within {seconds:g} s")
            _do(machine, each, transport, secrets, left)


def _actions(
    machine: str, number: int, step: ConfigureStep, known: Mapping[str, Any], secrets: Secrets, folder: Path
) -> Iterator[_Action]:
    texts = [render(source, known, secrets) for source in _sources(machine, number, step, folder)]
    if step.path is not None:
        yield _Action(number, "".join(texts), step.path, int(step.mode, 8))
    elif step.commands:
        yield from (_Action(number, text) for text in texts)
    else:
        lines = [line.strip() for text in texts for line in text.splitlines()]
        yield from (_Action(number, line) for line in lines if line and not line.startswith("#"))


def _sources(machine: str, number: int, step: ConfigureStep, folder: Path) -> list[Source]:
    """The templates of a step."""
    place = f"configure step {number}"
    sources = [Source(text, f"{place}, command {n}", machine) for n, text in enumerate(step.commands, 1)]
    if step.content is not None:
        sources.append(Source(step.content, f"{place}, content", machine))
    if step.template is not None:
        path = folder / step.template
        sources.append(Source(_read(path, f"machine {machine!r}: {place}"), str(path), machine))
    return sources


def _read(path: Path, who: str) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as error:
        fix = "correct its name in the document; relative names start at the document"
        raise InputError(f"{who}: there is no template {path}", fix=fix) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{who}: {path} cannot be read: {reason}", fix="name another file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{who}: {path} is not text", fix="a template is a UTF-8 file") from error


def _do(machine: Machine, action: _Action, transport: Transport, secrets: Secrets, seconds: float) -> None:
    where = f"machine {machine.name!r}: configure step {action.step}"
    if action.path is None:
        where += f", command {secrets.redact(action.text.strip())!r}"
    try:
        if action.path is not None:
            transport.put(action.text.encode(), action.path, action.mode)
            return
        answer = transport.run(action.text, seconds=seconds)
    except TestbedError as error:
        error.message = f"{where}: {error.message}"
        raise
    if answer.status:
        said = _last(answer, secrets)
        fix = "correct the command in the document, or what it needs in the machine"
        raise LabError(f"{where}: ended with exit status {answer.status}{said}", fix=fix)


def _last(answer: Answer, secrets: Secrets) -> str:
    """The end of what a command said, indented; secrets are taken out while they are still whole."""
    text = secrets.redact(answer.out.rstrip("\n") + "\n" + answer.err)
    lines = [line for line in text.splitlines() if line.strip()][-_LAST_LINES:]
    return "".join(f"\n    {line}" for line in lines)


def _shortened(text: str) -> str:
    """The first line, or as much of it as fits on one."""
    line, *more = text.split("\n")
    return f"{line[:_SHORT]}…" if more or len(line) > _SHORT else line


def digest(machine: Machine, known: Mapping[str, Any], folder: Path) -> str:
    """A fingerprint of a machine's steps: what they say, the templates they name, and what these use of the lab.

    Secrets are not part of it. It is empty when there are no steps.

    Raises:
        InputError: A template is not there, or is none.
    """
    if not machine.configure:
        return ""
    parts: list[object] = []
    for number, step in enumerate(machine.configure, 1):
        sources = _sources(machine.name, number, step, folder)
        parts += [step.path, step.mode, bool(step.commands)]
        parts += [[source.text, used(source, known)] for source in sources]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
