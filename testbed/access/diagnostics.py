"""What a machine says of itself when a check has failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from testbed.errors import TestbedError

if TYPE_CHECKING:
    from testbed.access.secrets import Secrets
    from testbed.access.transport import Transport
    from testbed.topology.model import Machine

__all__ = ["collect"]

#: Of one command's output; the end of it is kept.
_MOST_LINES = 400


def collect(machine: Machine, transport: Transport, secrets: Secrets, seconds: float) -> str:
    """Run the diagnostics commands of a machine; each is shown with its output and exit status.

    What fails, a machine that is not reached too, is told in the text. Each command gets its share of the
    ``seconds`` that are left. Empty when there are no commands.
    """
    deadline = time.monotonic() + seconds
    blocks = []
    for number, command in enumerate(machine.diagnostics):
        share = (deadline - time.monotonic()) / (len(machine.diagnostics) - number)
        blocks.append(f"$ {command}\n{_output(command, transport, secrets, max(0.1, share))}")
    return secrets.redact("\n".join(blocks))


def _output(command: str, transport: Transport, secrets: Secrets, seconds: float) -> str:
    try:
        answer = transport.run(command, seconds=seconds)
    except TestbedError as error:
        return f"[not done: {error.message}]\n"
    lines = [line for said in (answer.out, answer.err) for line in secrets.redact(said).splitlines()]
    left_out = len(lines) - _MOST_LINES
    if left_out > 0:
        lines = [f"[{left_out} lines left out]", *lines[left_out:]]
    return "".join(f"{line}\n" for line in [*lines, f"[exit status {answer.status}]"])
