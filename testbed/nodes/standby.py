"""A passive appliance: it declares itself unhealthy while the active one answers its health path."""

from __future__ import annotations

import asyncio

from testbed.probes.connection import ProbeTarget
from testbed.probes.health import ResultKind
from testbed.probes.probers import Prober
from testbed.probes.schedule import next_due

__all__ = ["Standby"]

_MISSES = 3
#: A heartbeat's answer may take this long even in a lab whose time runs fast, or a busy computer would fail over.
_SHORTEST_TIMEOUT = 0.1


class Standby:
    """Watches the active appliance. ``passive`` from the start, until three heartbeats in a row were missed.

    Args:
        address: The active appliance.
        port: Its probe port.
        path: Its probe path.
        seconds: Between two heartbeats, in the lab's time.
    """

    def __init__(self, address: str, port: int, path: str, seconds: float) -> None:
        self._target = ProbeTarget(address, port)
        self._path = path
        self._seconds = seconds
        self._misses = 0
        self.passive = True

    async def watch(self) -> None:
        """Send heartbeats until cancelled."""
        loop = asyncio.get_running_loop()
        prober = Prober()
        due = loop.time()
        timeout = max(self._seconds, _SHORTEST_TIMEOUT)
        while True:
            await asyncio.sleep(max(due - loop.time(), 0))
            result = await prober.probe(self._target, "Http", timeout, self._path)
            self.heartbeat(answered=result.kind is ResultKind.SUCCESS)
            due = next_due(due, self._seconds, loop.time())

    def heartbeat(self, *, answered: bool) -> None:
        """Take one heartbeat's end."""
        self._misses = 0 if answered else self._misses + 1
        if answered:
            self.passive = True
        elif self._misses >= _MISSES:
            self.passive = False
