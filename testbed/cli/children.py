"""Commands that run inside a namespace while the testbed waits for them."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.kernel import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Ended", "run_child"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended: exit status as shells tell it (128 + signal), output if it was captured."""

    status: int
    out: str
    err: str


@contextmanager
def _interrupts_are_the_childs() -> Iterator[None]:
    """Ctrl-C reaches the command too, which ends in its own way; we wait for that."""
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_child(command: Sequence[str], namespace: str, *, capture: bool) -> Ended:
    """Run a command in a namespace and wait for its end. Output that is not UTF-8 is captured with marks in it.

    Raises:
        OSError: There is no such command, or it cannot be run.
    """
    pipe = subprocess.PIPE if capture else None
    with namespaces.entered(namespace), _interrupts_are_the_childs():
        child = subprocess.Popen(command, stdout=pipe, stderr=pipe)  # born in the namespace of this thread
        out, err = child.communicate()
    status = child.returncode if child.returncode >= 0 else 128 - child.returncode
    return Ended(status, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace"))
