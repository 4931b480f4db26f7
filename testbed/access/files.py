"""Files of the state directory that several processes make and change at the same time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["alone", "replace"]


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Nobody else is in such a block for this directory, which is made if it is not there; blocks are short."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def replace(path: Path, text: str, mode: int) -> None:
    """Write a file that is seen whole or not at all, and never with another mode; inside :func:`alone`."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)  # left behind by a crash
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    temporary.replace(path)
