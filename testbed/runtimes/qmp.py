"""Questions to QEMU by its control socket (QEMU Machine Protocol), one connection a question."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from testbed.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ask"]

_SECONDS = 5.0


def ask(path: Path, command: str, **arguments: object) -> Any:
    """Run one command and return its result.

    Raises:
        LabError: QEMU does not answer, or refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(str(path))
            with connection.makefile("rwb") as stream:
                stream.readline()  # the greeting
                _exchange(stream, "qmp_capabilities", {})
                return _exchange(stream, command, arguments)
    except OSError as error:
        raise LabError(f"QEMU does not answer at {path}: {error.strerror or error}") from error


def _exchange(stream: Any, command: str, arguments: dict[str, object]) -> Any:
    stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    stream.flush()
    for line in stream:
        message = json.loads(line)
        if "error" in message:
            raise LabError(f"QEMU refuses {command}: {message['error']['desc']}")
        if "return" in message:
            return message["return"]
    raise LabError(f"QEMU hung up at {command}")
