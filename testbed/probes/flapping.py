"""How long a member that flaps is kept out. Pure; times in seconds of one clock.

Azure "waits longer" before it brings such an instance back, on purpose, and gives no numbers ("Azure Load Balancer
health probes"). The lab's: a member that falls again before it was up for :data:`CALM` intervals has had a short life.
From the third fall of such a row on, its return waits 2 intervals, then 4, 8, and 16 from there on. A longer life ends
the row.
"""

from __future__ import annotations

__all__ = ["CALM", "LONGEST", "TOLERATED", "Flapping"]

#: Intervals of being up after which earlier falls are forgotten.
CALM = 10
#: Falls of a row after which the member comes back at once.
TOLERATED = 2
#: Intervals that a return waits at most.
LONGEST = 16


class Flapping:
    """The falls of one member that is probed every ``interval`` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.falls = 0

    def fell(self, lived: float) -> None:
        """It went down after so many seconds of being up."""
        calm = lived >= CALM * self._interval
        self.falls = 1 if calm else self.falls + 1

    @property
    def hold(self) -> float:
        """Seconds that its next return has to wait."""
        extra = self.falls - TOLERATED
        return 0.0 if extra < 1 else min(2.0**extra, LONGEST) * self._interval
