"""Machines that are plain namespaces: the programs in them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from testbed.kernel import conntrack, namespaces, processes, sysctl
from testbed.nodes import launcher
from testbed.runtimes.base import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.access.transport import Transport
    from testbed.kernel.processes import Process
    from testbed.plan.objects import Instance
    from testbed.runtimes.base import Place

__all__ = ["NamespaceRuntime"]


class NamespaceRuntime:
    """Programs of the testbed, one process each."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def prepare(self, instances: Sequence[Instance]) -> None:
        """Nothing can fail before."""

    def start(self, instances: Sequence[Instance]) -> dict[str, Process]:
        """Start the programs."""
        specs = [
            launcher.ProgramSpec(
                each.namespace, each.machine, each.kind, each.config, str(self._place.log(each.machine))
            )
            for each in instances
        ]
        return {each.machine: processes.Process(each.pid, each.start_time) for each in launcher.launch(specs)}

    def stop(self, machine: str, process: Process | None) -> None:
        """End the program."""
        del machine
        processes.end([process] if process else [])

    def states(self, machines: Sequence[str], processes: dict[str, Process]) -> dict[str, State]:
        """Running, or dead."""
        return {name: State("running") if name in processes else State("exited") for name in machines}

    def log(self, machine: str) -> str:
        """Of the program."""
        with suppress(FileNotFoundError):
            return self._place.log(machine).read_text(errors="replace")
        return ""

    def health(self, machine: str) -> str:
        """There is no such thing."""
        del machine
        return ""

    def enter(self, machine: str) -> Transport:
        """In the namespace, with the computer's own files."""
        from testbed.access.transport import NamespaceTransport

        return NamespaceTransport(self._place.namespace(machine))

    def kill(self, machine: str, process: Process | None) -> None:
        """End the program, and what of it is in the kernel."""
        namespace = self._place.namespace(machine)
        with namespaces.entered(namespace):
            for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
                sysctl.write(key, "0")  # first: what is killed must not outlive itself in the kernel
        processes.end([process] if process else [])
        with namespaces.entered(namespace):
            conntrack.flush()  # a machine that comes back remembers nothing

    def freeze(self, machine: str, process: Process | None) -> None:
        """Stop the program; the kernel's part is stopped on the wire."""
        del machine
        if process:
            os.kill(process.pid, signal.SIGSTOP)

    def thaw(self, machine: str, process: Process | None) -> None:
        """Let the program go on."""
        del machine
        if process:
            os.kill(process.pid, signal.SIGCONT)

    def reboot(self, machine: str, process: Process | None) -> None:
        """End the program; whoever asked starts it again."""
        self.kill(machine, process)

    def carrier(self, machine: str, *, up: bool) -> None:
        """The namespace sees its own links."""
