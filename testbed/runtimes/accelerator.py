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

__all__ = ["QEMU", "processor", "trial", "why_no_kvm"]

QEMU = "qemu-system-x86_64"
_PORT, _WORD = 0xF4, 0x2A
_PASSED = _WORD << 1 | 1  # the exit status that the device isa-debug-exit makes of the word
_SECONDS = 15.0
_CPUINFO = Path("/proc/cpuinfo")
#: A boot sector that goes from real mode to protected mode, returns there from an "interrupt", and writes a word to a
#: port. Boot loaders do the same, and a KVM that only emulates what comes before a kernel of its own kind cannot.
_SECTOR = (
    bytes.fromhex(
        "fa 6631c0 8ed8 8ed0 bc007c"  # cli; xor eax, eax; mov ds, ax; mov ss, ax; mov sp, 0x7c00
        "0f0116487c 40 0f22c0 ea197c0800"  # lgdt [0x7c48]; inc ax; mov cr0, eax; jmp 8:0x7c19
        "b810000000 8ed0 9c 6a08 68297c0000 cf"  # mov eax, 16; mov ss, eax; pushf; push 8; push 0x7c29; iret
        f"b0{_WORD:02x} e6{_PORT:02x} f4 ebfd"  # mov al, word; out port, al; hlt; jmp to the hlt
        "0000000000000000 ffff0000009acf00 ffff00000092cf00"  # descriptors: none, code, data; of 4 GiB
        "1700 307c0000"  # where they are
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)


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

    A device file says little: it can be there where no guest ever gets to its first instruction, or where only
    kernels made for it do.
    """
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    if not {"vmx", "svm"} & set(_CPUINFO.read_text().split()):
        return f"the processor has neither VMX nor SVM ({_CPUINFO}), without which no stock guest runs"
    return trial("-accel", "kvm", "-cpu", "host")


def trial(*arguments: str) -> str:
    """What is wrong when a smallest guest is started with these arguments of QEMU; empty: it ran."""
    with tempfile.NamedTemporaryFile(prefix="testbed-kvm-") as disk:
        disk.write(_SECTOR)
        disk.flush()
        return _try(
            (
                *(QEMU, *arguments, "-m", "32M", "-nodefaults", "-display", "none", "-no-reboot"),
                *("-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1"),
                *("-drive", f"file={disk.name},format=raw,snapshot=on"),
            )
        )


def _try(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"a guest of a few instructions did not end within {_SECONDS:g} s"
    except OSError as error:
        return f"{QEMU}: {error.strerror}"
    if done.returncode == _PASSED:
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return (said[0] if said else f"QEMU ended with status {done.returncode}").removeprefix(f"{QEMU}: ")
