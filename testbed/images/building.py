"""Images are built when the engine does not have them, and only then."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from testbed.errors import InputError, LabError
from testbed.images.engine import engine
from testbed.images.locks import locked
from testbed.images.recipes import CONTAINERS, DOCKERFILE, Recipe, names, recipe
from testbed.images.root import ensure_root, present
from testbed.images.virtual_machine import VM_FIREWALL, vm_firewall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from docker import DockerClient

__all__ = ["Image", "build_all", "ensure"]

_TAIL = 20
#: Build arguments that every Dockerfile takes, and that are not kept in the image.
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is there.

    Attributes:
        name: Its folder in ``containers/``.
        reference: What the engine calls it; the folder with the files of a virtual machine.
        size: In bytes, with all that it is based on.
        built: Whether it was not there before.
    """

    name: str
    reference: str
    size: int
    built: bool


def _quiet(_line: str) -> None:
    """Nobody listens."""


def ensure(
    build: str,
    document_folder: Path,
    say: Callable[[str], None] = _quiet,
    *,
    client: DockerClient | None = None,
) -> str:
    """The reference of the image that ``runtime.build`` means; built first when the engine does not have it.

    Args:
        build: See :func:`testbed.images.recipes.recipe`.
        document_folder: Where the document is.
        say: Takes a line about each thing that takes a while.
        client: The engine, when the caller has it already.

    Raises:
        InputError: There is no such folder.
        MachineError: The engine does not answer, or a tool is missing.
        LabError: A step of the build fails; the message has the last lines of its log.
    """
    wanted = recipe(build, document_folder)
    if client is not None:
        return _ensure(client, wanted, say)
    with closing(engine()) as own:
        return _ensure(own, wanted, say)


def build_all(which: Sequence[str] = (), say: Callable[[str], None] = _quiet) -> tuple[Image, ...]:
    """Build what is missing of the testbed's own images, the virtual machine's too; all when no names are given.

    Raises:
        InputError: There is no image of that name.
        MachineError: The engine does not answer, or a tool is missing.
        LabError: A step of a build fails.
    """
    every = (*names(), VM_FIREWALL)
    for name in which:
        if name not in every:
            close = get_close_matches(name, every, n=1)
            fix = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(every)}"
            raise InputError(f"there is no image {name!r}", fix=fix)
    containers = [recipe(name, CONTAINERS) for name in (which or every) if name != VM_FIREWALL]
    images = []
    if containers:
        with closing(engine()) as client:
            images = [_image(client, each, say) for each in containers]
    if VM_FIREWALL in (which or every):
        machine = vm_firewall(say)
        images.append(Image(VM_FIREWALL, str(machine.disk.parent), machine.size, machine.built))
    return tuple(images)


def _image(client: DockerClient, wanted: Recipe, say: Callable[[str], None]) -> Image:
    built = not present(client, wanted.reference)
    _ensure(client, wanted, say)
    size = int(client.images.get(wanted.reference).attrs["Size"])
    return Image(wanted.name, wanted.reference, size, built)


def _ensure(client: DockerClient, wanted: Recipe, say: Callable[[str], None]) -> str:
    if present(client, wanted.reference):
        return wanted.reference
    arguments = {}
    if wanted.base:  # before the lock: nobody holds two of them
        arguments["BASE"] = _ensure(client, wanted.base, say)
    if wanted.needs_root:
        arguments["ROOT"] = ensure_root(client, say)
    with locked(wanted.name, say):
        if not present(client, wanted.reference):  # somebody else may have built it meanwhile
            say(f"image {wanted.name}: building {wanted.reference}")
            began = time.monotonic()
            _build(client, wanted, arguments)
            say(f"image {wanted.name}: built in {time.monotonic() - began:.1f} s")
    return wanted.reference


def _build(client: DockerClient, wanted: Recipe, arguments: dict[str, str]) -> None:
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    proxies = {name: os.environ[name] for each in _PROXIES for name in (each, each.upper()) if os.environ.get(name)}
    log: deque[str] = deque(maxlen=_TAIL)
    try:
        events = client.api.build(
            path=str(wanted.folder),
            dockerfile=DOCKERFILE,
            tag=wanted.reference,
            buildargs=proxies | arguments,
            network_mode="host",  # the engine's own network may lead nowhere; Debian's archive is the host's matter
            rm=True,
            forcerm=True,
            decode=True,
            timeout=None,
        )
        for event in events:
            log.extend(line for line in str(event.get("stream", "")).splitlines() if line.strip())
            if "error" in event:
                raise _failure(wanted, arguments, str(event["error"]), log)
    except (DockerException, RequestException) as error:
        raise _failure(wanted, arguments, str(getattr(error, "explanation", None) or error), log) from error


def _failure(wanted: Recipe, arguments: dict[str, str], why: str, log: Iterable[str]) -> LabError:
    lines = "".join(f"\n    {line}" for line in log)
    options = "".join(f" --build-arg {name}={value}" for name, value in arguments.items())
    return LabError(
        f"image {wanted.name}: cannot be built: {why.strip()}{lines}",
        fix=f"mend {wanted.folder / DOCKERFILE}; try it: docker build --network host{options} {wanted.folder}",
    )
