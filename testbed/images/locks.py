"""One builder at a time, whichever process or thread it is in."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["locked"]


@contextmanager
def locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of this name; the kernel lets go of it when the process ends, however it does.

    Args:
        name: What is built; the name of the lock's file, which stays.
        say: Told when somebody else has it.
    """
    with _file(name).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: somebody else builds it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _file(name: str) -> Path:
    common = Path("/run/lock")
    folder = common if os.access(common, os.W_OK) else Path(tempfile.gettempdir())
    return folder / f"testbed-image-{name}.{os.geteuid()}.lock"
