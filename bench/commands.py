"""Running the ``testbed`` command as a user does."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["lab_up", "run", "seconds"]

TESTBED = Path(sys.executable).with_name("testbed")


def run(*arguments: str | Path) -> str:
    """Run a verb and return what it prints; its messages go to the terminal."""
    return subprocess.run([TESTBED, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def seconds(*arguments: str | Path) -> float:
    """How long a verb takes, the start of the interpreter included."""
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


@contextmanager
def lab_up(document: Path, lab: str, *arguments: str) -> Iterator[None]:
    """A lab that is up, with all its probes, for the length of a block."""
    try:
        run("up", document, "--lab", lab, "--wait", "60", *arguments)
        yield
    finally:
        run("down", lab)
