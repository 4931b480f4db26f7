"""Make the health responder of a machine fail, and well again; ``control`` is its program's control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.nodes.fault_switch import ResponderFault
from testbed.probes.control import request

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["clear", "current", "probe_down", "probe_silent"]


def _switch(control: Path | str, fault: ResponderFault) -> None:
    request(control, "fault", kind=fault.value)


def probe_down(control: Path | str) -> None:
    """HTTP and HTTPS probes are answered 503. TCP probes still connect.

    Raises:
        LabError: The program does not answer.
    """
    _switch(control, ResponderFault.PROBE_DOWN)


def probe_silent(control: Path | str) -> None:
    """Probes get no answer at all, of any protocol, until they time out.

    Raises:
        LabError: The program does not answer.
    """
    _switch(control, ResponderFault.PROBE_SILENT)


def clear(control: Path | str) -> None:
    """The responder answers again as it should.

    Raises:
        LabError: The program does not answer.
    """
    _switch(control, ResponderFault.NONE)


def current(control: Path | str) -> ResponderFault:
    """The fault that is on.

    Raises:
        LabError: The program does not answer.
    """
    return ResponderFault(request(control, "status")["fault"])
