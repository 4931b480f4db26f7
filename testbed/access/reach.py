"""How the fabric reaches a machine: its primary network interface, over the cable that leads there.

Connections start in the fabric's namespace, at the platform's own address, and are bound to the cable: they need no
route, obey no user-defined route, and cannot be mistaken for another virtual network's machine with the same
address. Nothing of it is visible outside the lab.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.kernel import namespaces
from testbed.plan.numbers import LOGIN_MARK
from testbed.plan.ruleset.context import PROBE_SOURCE

if TYPE_CHECKING:
    from testbed.plan.model import Plan

__all__ = ["Reach", "cause", "connect", "open_socket"]

_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h


@dataclass(frozen=True, slots=True)
class Reach:
    """One machine as the fabric sees it.

    ``fabric`` is the name of the fabric's namespace, ``device`` the fabric's end of the machine's cable, and
    ``address`` what is at its other end.
    """

    lab: str
    machine: str
    fabric: str
    device: str
    address: str

    @classmethod
    def of(cls, plan: Plan, machine: str) -> Reach:
        """The way to a machine of a plan.

        Raises:
            UnknownLabError: The plan has no such machine.
        """
        primary = plan.machine(machine).network_interfaces[0]
        return cls(plan.lab, machine, plan.fabric, primary.fabric_name, primary.address)

    def port(self, port: int) -> str:
        """A port of the machine, in words."""
        return f"machine {self.machine!r} ({self.address}) port {port}"


def open_socket(reach: Reach, port: int, seconds: float) -> socket.socket:
    """A TCP connection to a port of the machine; ``seconds`` stays its timeout.

    Raises:
        OSError: It did not come up (:func:`cause` puts it into words).
        LabError: The fabric is gone.
    """
    with namespaces.entered(reach.fabric):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.settimeout(seconds)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, reach.device.encode())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, LOGIN_MARK)
        # The port is chosen when the peer is known, so closed connections do not use up the ports.
        made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        made.bind((PROBE_SOURCE, 0))
        made.connect((reach.address, port))
    except BaseException:
        made.close()
        raise
    return made


def cause(error: OSError, seconds: float) -> str:
    """Why a connection failed, in a few words; ``seconds`` is how long it was given."""
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    return os.strerror(error.errno).lower() if error.errno else str(error)


def connect(reach: Reach, port: int, seconds: float) -> socket.socket:
    """A TCP connection to a port of the machine; ``seconds`` stays its timeout.

    Raises:
        LabError: It did not come up, with the exact cause.
    """
    try:
        return open_socket(reach, port, seconds)
    except OSError as error:
        raise LabError(f"{reach.port(port)}: {cause(error, seconds)}", fix=_fix(reach, error)) from error


def _fix(reach: Reach, error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there: start the server in the machine, or correct the port in the document"
    if error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL):
        return "run 'testbed up' again to restore the fabric"
    return f"see whether packets get there and back: testbed capture {reach.lab} {reach.machine}"
