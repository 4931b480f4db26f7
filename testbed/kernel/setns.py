"""Entering a network namespace with nothing but libc: for processes that must stay small.

Moves the calling thread. A process that calls this first thing, while it has one thread, is there for good.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from testbed.errors import LabError, MachineError

__all__ = ["NETNS_DIRECTORY", "enter", "set_process_name"]

#: Where ``ip netns`` mounts namespaces by name.
NETNS_DIRECTORY = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_PR_SET_NAME = 15
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """Move the calling thread into a named network namespace.

    Raises:
        LabError: There is no such namespace, or the kernel refuses.
        MachineError: This process may not.
    """
    try:
        target = os.open(NETNS_DIRECTORY / namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LabError(
            f"network namespace {namespace!r} is gone", fix="run 'testbed up' again to restore it"
        ) from error
    try:
        if _libc.setns(target, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            what = f"enter network namespace {namespace!r}: {os.strerror(number)}"
            if number == errno.EPERM:
                raise MachineError(what, fix="run as root (sudo), or give CAP_SYS_ADMIN")
            raise LabError(what)
    finally:
        os.close(target)


def set_process_name(name: str) -> None:
    """Name the calling process for ``ps`` and ``top``; the kernel keeps the first 15 bytes."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
