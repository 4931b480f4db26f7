"""Which kinds of faults there are, and the record of those in force in a lab."""

from __future__ import annotations

import json
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from testbed.lab.state import State

__all__ = ["Kind", "active", "remember"]

_FILE = "faults.json"


class Kind(StrEnum):
    """What can be done to a machine."""

    PROBE_DOWN = "probe-down"
    PROBE_SILENT = "probe-silent"
    FORWARDING_OFF = "forwarding-off"
    CPU_HOG = "cpu-hog"
    CRASH = "crash"
    LINK_DOWN = "link-down"
    FREEZE = "freeze"
    REBOOT = "reboot"

    @property
    def data_path_dies(self) -> bool:
        """Whether packets of established flows stop as well."""
        return self not in (Kind.PROBE_DOWN, Kind.PROBE_SILENT, Kind.CPU_HOG)


def active(state: State) -> dict[str, list[str]]:
    """Faults in force, by machine."""
    with suppress(FileNotFoundError, ValueError):
        found: dict[str, list[str]] = json.loads((state / _FILE).read_text())
        return found
    return {}


def remember(state: State, machine: str, faults: Iterable[str]) -> None:
    """Keep what is in force on a machine now; nothing forgets it."""
    known = active(state)
    known[machine] = sorted(faults)
    state.write(_FILE, json.dumps({name: each for name, each in known.items() if each}))
