"""Which processor a virtual machine gets: KVM where it really starts a guest, emulation (TCG) elsewhere."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["QEMU", "processor", "why_no_kvm"]

QEMU = "qemu-system-x86_64"
_PORT, _WORD = 0xF4, 0x2A
_PASSED = _WORD << 1 | 1  # the exit status that the device isa-debug-exit makes of the word
_SECONDS = 15.0
#: A boot sector that writes a word to a port: mov dx, 0xf4; mov al, 0x2a; out dx, al; hlt; jmp to the hlt.
_SECTOR = bytes((0xBA, _PORT, 0, 0xB0, _WORD, 0xEE, 0xF4, 0xEB, 0xFD)).ljust(510, b"\0") + b"\x55\xaa"


def processor(wanted: str) -> tuple[str, ...]:
    """QEMU's arguments for ``auto``, ``kvm`` or ``tcg``.

    Raises:
        MachineError: KVM is wanted, and starts no guest.
    """
    reason = "" if wanted == "tcg" else why_no_kvm()
    if wanted == "kvm" and reason:
        raise MachineError(
            f"KVM starts no guest here: {reason}", fix="set accelerator: auto (or tcg: slower, but runs)"
        )
    if wanted == "tcg" or reason:
        # With a larger cache of translated code each reset takes longer than the one before.
        return ("-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max")
    return ("-accel", "kvm", "-cpu", "host")


@cache
def why_no_kvm() -> str:
    """What is wrong when a smallest guest is started with KVM; empty: it ran.

    A device file says little: it can be there where no guest ever gets to its first instruction.
    """
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    with tempfile.NamedTemporaryFile(prefix="testbed-kvm-") as disk:
        disk.write(_SECTOR)
        disk.flush()
        return _try(
            (
                *(QEMU, "-accel", "kvm", "-cpu", "host", "-m", "32M", "-nodefaults", "-display", "none"),
                *("-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1"),
                *("-drive", f"file={disk.name},format=raw,snapshot=on"),
            )
        )


def _try(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"a guest with one instruction did not end within {_SECONDS:g} s"
    except OSError as error:
        return f"{QEMU}: {error.strerror}"
    if done.returncode == _PASSED:
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return (said[0] if said else f"QEMU ended with status {done.returncode}").removeprefix(f"{QEMU}: ")
