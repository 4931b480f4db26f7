"""The virtual machine's image: made by its own script, of Debian's packages."""

from __future__ import annotations

import subprocess
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.errors import LabError, MachineError
from testbed.images.recipes import CONTAINERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["VM_FIREWALL", "VirtualMachineImage", "vm_firewall"]

VM_FIREWALL = "vm-firewall"
_LACKS = 3  # the script's exit status when this computer lacks a tool or a right, as the testbed's own
_TAIL = 20


@dataclass(frozen=True, slots=True)
class VirtualMachineImage:
    """Two ways to boot the same system: a kernel with its initial RAM disk, or a disk.

    ``built`` tells whether the files were not there before, or were of other sources.
    """

    kernel: Path
    initrd: Path
    disk: Path
    built: bool = False

    @property
    def size(self) -> int:
        """Bytes of the three files together."""
        return sum(path.stat().st_size for path in (self.kernel, self.initrd, self.disk))


def vm_firewall(say: Callable[[str], None] = lambda _line: None) -> VirtualMachineImage:
    """Build the image when it is not there or its sources have changed.

    Args:
        say: Takes the lines of the script.

    Raises:
        MachineError: A tool is missing; the fix names the package.
        LabError: The script fails; the message has its last lines.
    """
    folder = CONTAINERS / VM_FIREWALL
    log: deque[str] = deque(maxlen=_TAIL)
    with subprocess.Popen(
        [folder / "build"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101 - tells the type checker what PIPE means
        for line in process.stdout:
            log.append(line.rstrip())
            say(line.rstrip())
    if process.returncode == _LACKS:
        fix = next((line.partition("fix:")[2].strip() for line in log if "fix:" in line), "")
        message = " ".join(line for line in log if "fix:" not in line)
        raise MachineError(message, fix=fix)
    if process.returncode:
        lines = "".join(f"\n    {line}" for line in log)
        raise LabError(f"{folder / 'build'} fails with status {process.returncode}:{lines}")
    out = folder / "out"
    return VirtualMachineImage(out / "vmlinuz", out / "initrd.img", out / "disk.qcow2", built=bool(log))
