"""``net.*`` settings of the namespace the thread is in, by way of ``/proc/sys``."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import LabError

__all__ = ["read", "write"]

_ROOT = Path("/proc/sys")


def _path(key: str) -> Path:
    return _ROOT.joinpath(*key.split("."))


def read(key: str) -> str | None:
    """The value, or ``None`` where the kernel does not have the setting (IPv6 compiled out, say)."""
    try:
        return _path(key).read_text().strip()
    except FileNotFoundError:
        return None


def write(key: str, value: str) -> None:
    """Set the value. A setting of IPv6 that is missing is fine: there is nothing to turn off.

    Raises:
        LabError: The kernel has no such setting, or refuses the value.
    """
    try:
        _path(key).write_text(value)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and key.startswith("net.ipv6."):
            return
        reason = error.strerror or str(error)
        fix = "sysctl -a lists the settings of this kernel; some come with a module (modprobe nf_conntrack, …)"
        raise LabError(f"set sysctl {key}={value}: {reason.lower()}", fix=fix) from error
