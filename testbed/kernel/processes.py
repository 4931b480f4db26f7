"""Processes: who lives in a network namespace, is this still the same one, end it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import DeadlineError
from testbed.kernel import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

__all__ = ["Process", "end", "identify", "inside", "own_module", "set_process_name", "start_module"]

_PR_SET_NAME = 15


@dataclass(frozen=True, slots=True)
class Process:
    """A process with its start time (clock ticks since boot), which tells it from a later one of the same pid."""

    pid: int
    start_time: int

    def alive(self) -> bool:
        """Whether it is still this process; a zombie counts as gone."""
        try:
            fields = _fields(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(fields[19]) == self.start_time and fields[0] not in ("Z", "X")

    def inside(self, namespace: str) -> bool:
        """Whether it lives in the network namespace of this name."""
        try:
            return Path(f"/proc/{self.pid}/ns/net").stat().st_ino == namespaces.inode(namespace)
        except FileNotFoundError:
            return False


def _fields(pid: int) -> list[str]:
    """``/proc/PID/stat`` from the third field on: the name before it may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def identify(pid: int) -> Process:
    """The process that has this pid now.

    Raises:
        FileNotFoundError: There is none.
    """
    return Process(pid, int(_fields(pid)[19]))


def set_process_name(name: str) -> None:
    """Name the calling process for ``ps`` and ``top``; the kernel keeps the first 15 bytes."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def own_module(name: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run a module of this very testbed, installed or not, in any directory."""
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return [sys.executable, "-m", name], os.environ | {"PYTHONPATH": path}


def start_module(
    name: str, *words: str, stdin: int | IO[bytes], stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start such a module with these arguments, in a session of its own."""
    command, environment = own_module(name)
    return subprocess.Popen(
        [*command, *words],
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd="/",
        start_new_session=True,  # an interrupt from the keyboard is for the command, which passes it on
    )


def inside(inodes: Iterable[int]) -> tuple[Process, ...]:
    """Processes whose network namespace is one of these (see :func:`testbed.kernel.namespaces.inode`)."""
    wanted = {f"net:[{each}]" for each in inodes}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # ended while we looked, or not ours to look at
            if str((entry / "ns/net").readlink()) in wanted:
                found.append(identify(int(entry.name)))
    return tuple(each for each in found if each.pid != os.getpid())


def end(processes: Iterable[Process], *, patience: float = 5.0) -> None:
    """Kill the processes and wait until each has ended.

    Raises:
        DeadlineError: One is still there after ``patience`` seconds.
    """
    handles = []
    for process in processes:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(process.pid)
            if process.alive():
                # A stopped process (fault ``freeze``) ends by SIGKILL too.
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            handles.append((process, handle))
    try:
        for process, handle in handles:
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            if not poller.poll(patience * 1000):
                raise DeadlineError(f"process {process.pid} does not end {patience:g} s after SIGKILL")
            with suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    finally:
        for _, handle in handles:
            os.close(handle)
