"""What the programs of namespace machines have in common: configuration, and an end on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from testbed.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Program", "listening_families", "raise_descriptor_limit", "read_config", "until_terminated"]

_Config = TypeVar("_Config")
_MOST_DESCRIPTORS = 262_144


class Program(Protocol):
    """A program: runs in its machine's namespace until SIGTERM, and calls ``ready`` when it serves."""

    async def __call__(self, config: str, ready: Callable[[], None]) -> None:
        """Run."""


def read_config(kind: type[_Config], text: str) -> _Config:
    """A program's configuration from JSON.

    Raises:
        LabError: A key is missing or unknown.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return kind(**(values | lists))
    except (ValueError, TypeError, AttributeError) as error:
        raise LabError(f"a program's configuration cannot be used: {error}") from error


async def until_terminated() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def listening_families(*, ipv6: bool) -> tuple[socket.AddressFamily, ...]:
    """What a program listens on: a socket for each IP version, so that peers are called by their own addresses."""
    return (socket.AF_INET, socket.AF_INET6) if ipv6 else (socket.AF_INET,)


def raise_descriptor_limit() -> None:
    """Allow many thousands of connections; without the right to go beyond the hard limit, up to it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_DESCRIPTORS, max(hard, _MOST_DESCRIPTORS)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
