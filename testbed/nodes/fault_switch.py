"""A program's own faults: how its health responder is made to fail, and the control socket that does it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import InputError
from testbed.kernel import nft
from testbed.probes import control

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FaultSwitch", "ResponderFault"]

_TABLE = "inet testbed-fault"


class ResponderFault(StrEnum):
    """How a health responder fails.

    ``probe-down``: HTTP and HTTPS probes are answered 503; connections are still accepted, so a TCP probe
    sees no difference. ``probe-silent``: the packets of probes are dropped, so every probe times out.
    """

    NONE = "none"
    PROBE_DOWN = "probe-down"
    PROBE_SILENT = "probe-silent"


class FaultSwitch:
    """The present fault of a program, and the socket where it is switched. Starts without a fault.

    Args:
        path: Control socket; None: there is none, and never a fault.
        probes: nftables matches of what a probe sends to this machine.
    """

    def __init__(self, path: str | None, *probes: str) -> None:
        self._path = path
        self._probes = probes
        self._server: control.ControlServer | None = None
        self.fault = ResponderFault.NONE

    async def __aenter__(self) -> Self:
        self._switch(ResponderFault.NONE)  # rules that an earlier program left are removed
        if self._path:
            self._server = await control.ControlServer(control.listen(self._path), self._answer).start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._server:
            await self._server.close()
        self._remove_socket()

    def _remove_socket(self) -> None:
        if self._path:
            Path(self._path).unlink(missing_ok=True)

    def _answer(self, op: str, asked: dict[str, Any]) -> dict[str, Any]:
        if op not in ("fault", "status"):
            raise InputError(f"unknown op {op!r}", fix="ops: fault, status")
        if op == "fault":
            try:
                wanted = ResponderFault(str(asked.get("kind")))
            except ValueError as error:
                raise InputError(str(error), fix=f"kinds: {', '.join(ResponderFault)}") from error
            self._switch(wanted)
        return {"fault": self.fault.value}

    def _switch(self, wanted: ResponderFault) -> None:
        lines = [f"table {_TABLE}", f"delete table {_TABLE}"]
        if wanted is ResponderFault.PROBE_SILENT:
            lines += [
                f"table {_TABLE} {{",
                "  chain silent {",
                "    type filter hook input priority filter - 10; policy accept;",
                *(f"    {match} drop" for match in self._probes),
                "  }",
                "}",
            ]
        nft.run("\n".join([*lines, ""]))
        self.fault = wanted
