"""Classic BPF on packet sockets: which packets the kernel gives to one (``linux/filter.h``)."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Instruction", "attach"]

#: One instruction: code, jump if true, jump if false, constant.
Instruction = tuple[int, int, int, int]

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")


def attach(to: socket.socket, program: Sequence[Instruction]) -> None:
    """From now on the socket hears what the program keeps.

    Raises:
        OSError: The kernel refuses the program.
    """
    code = b"".join(_INSTRUCTION.pack(*each) for each in program)
    kept = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("@HP", len(program), ctypes.addressof(kept))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
