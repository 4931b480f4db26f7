"""Network namespaces: make, enter, find, remove; visible to ``ip netns`` as files in ``/run/netns``.

A namespace of a lab carries its owner as the alias of its loopback (``testbed:LAB``), set before the name
appears, so it can be found and told from foreign ones with no state at all. The file under the mount point
holds the same words, which covers a crash between making the file and mounting on it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import LabError, MachineError
from testbed.kernel.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "NETNS_DIRECTORY",
    "OwnedNamespace",
    "adopt",
    "create",
    "delete",
    "enter",
    "entered",
    "exists",
    "inode",
    "owned",
    "path",
]

NETNS_DIRECTORY = Path("/run/netns")
_OWNER = "testbed:"
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MS_REC = 16384
_MS_SHARED = 1 << 20
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class OwnedNamespace:
    """A namespace that carries a lab's mark; ``mounted`` is false for a name that a crash left empty."""

    name: str
    lab: str
    mounted: bool


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        if number in (errno.EPERM, errno.EACCES):
            raise MachineError(f"{what}: {os.strerror(number)}", fix="run as root (sudo), or give CAP_SYS_ADMIN")
        raise LabError(f"{what}: {os.strerror(number)}")


def path(name: str) -> Path:
    """Where the namespace of this name is mounted."""
    return NETNS_DIRECTORY / name


def exists(name: str) -> bool:
    """Whether something of this name stands in ``/run/netns``."""
    return path(name).exists()


def inode(name: str) -> int:
    """The namespace's identity: what ``/proc/PID/ns/net`` of its processes shows."""
    return path(name).stat().st_ino


def enter(name: str) -> None:
    """Move the calling thread into a namespace, for good; a process that does it while it has one thread is there.

    Raises:
        LabError: There is no such namespace, or the kernel refuses.
        MachineError: This process may not.
    """
    try:
        target = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LabError(f"network namespace {name!r} is gone", fix="run 'testbed up' again to restore it") from error
    try:
        _check(_libc.setns(target, _CLONE_NEWNET), f"enter network namespace {name!r}")
    finally:
        os.close(target)


@contextmanager
def entered(name: str | None) -> Iterator[None]:
    """Run the calling thread inside a namespace; sockets opened here stay there for life.

    Only this thread moves. ``None`` means: stay where you are. No ``await`` may stand inside the block.

    Raises:
        LabError: There is no such namespace, or the kernel refuses.
    """
    if name is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(name)
        try:
            yield
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET), "return from a network namespace")
    finally:
        os.close(home)


def _prepare_directory() -> None:
    """Make ``/run/netns`` a shared mount, as ``ip netns`` does: other mount namespaces see the names."""
    NETNS_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    where = str(NETNS_DIRECTORY).encode()
    if _libc.mount(b"", where, b"none", _MS_SHARED | _MS_REC, None) != 0:
        _check(_libc.mount(where, where, b"none", _MS_BIND | _MS_REC, None), f"mount {NETNS_DIRECTORY}")
        _check(_libc.mount(b"", where, b"none", _MS_SHARED | _MS_REC, None), f"share {NETNS_DIRECTORY}")


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the block is over."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def create(name: str, lab: str) -> None:
    """Make a namespace, owned by ``lab``, with its loopback up.

    Raises:
        LabError: The name is taken, or the kernel refuses.
    """
    if exists(name):
        raise LabError(f"network namespace {name!r} already exists", fix=f"look at it: ip netns pids {name}")
    _name(name, lab, lambda: _check(_libc.unshare(_CLONE_NEWNET), f"make network namespace {name!r}"))


def adopt(name: str, lab: str, pid: int) -> None:
    """Give the namespace of a process a name, and mark it as owned by ``lab``; the name's earlier meaning is lost.

    Raises:
        LabError: The process has ended, or the kernel refuses.
    """
    try:
        target = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise LabError(f"process {pid} of network namespace {name!r} has ended") from error
    try:
        delete(name)
        _name(name, lab, lambda: _check(_libc.setns(target, _CLONE_NEWNET), f"enter the namespace of process {pid}"))
    finally:
        os.close(target)


def _name(name: str, lab: str, go: Callable[[], None]) -> None:
    """Mark and mount the namespace that ``go`` brings a thread into."""
    _prepare_directory()
    failure: list[BaseException] = []

    def make() -> None:
        try:
            go()
            with Netlink() as netlink:
                netlink.mark_loopback(_OWNER + lab)
            path(name).write_text(_OWNER + lab)
            result = _libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path(name)), b"none", _MS_BIND, None)
            if result != 0:
                path(name).unlink()
            _check(result, f"mount network namespace {name!r}")
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=make)  # a thread, so that the caller stays in its own namespace
    with _interrupts_held():  # else an interrupt leaves the thread behind, and its work appears after the clean-up
        thread.start()
        thread.join()
    if failure:
        raise failure[0]


def delete(name: str) -> None:
    """Remove the name; the kernel frees the namespace with its last process. Gone already is fine."""
    _libc.umount2(os.fsencode(path(name)), _MNT_DETACH)
    path(name).unlink(missing_ok=True)


def _owner(name: str) -> OwnedNamespace | None:
    try:
        size = path(name).stat().st_size
        if size:  # a plain file: a crash came before the mount
            text = path(name).read_text()
            mounted = False
        else:
            with entered(name), Netlink() as netlink:
                text = netlink.loopback_mark()
            mounted = True
    except (OSError, LabError, UnicodeDecodeError):
        return None
    return OwnedNamespace(name, text.removeprefix(_OWNER), mounted) if text.startswith(_OWNER) else None


def owned(lab: str | None = None) -> tuple[OwnedNamespace, ...]:
    """All namespaces of a lab, or of every lab, by the mark they carry."""
    if not NETNS_DIRECTORY.is_dir():
        return ()
    names = sorted(entry.name for entry in NETNS_DIRECTORY.iterdir())
    prefix = f"{lab}-" if lab else ""
    found = (_owner(name) for name in names if name.startswith(prefix))
    return tuple(each for each in found if each and lab in (None, each.lab))
