"""Remove a lab: with its state or without, whole or half made."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import LabError, MachineError
from testbed.kernel import namespaces, processes
from testbed.lab.apply import remove_namespaces
from testbed.lab.state import State, labs, locked
from testbed.runtimes.base import DISKS

if TYPE_CHECKING:
    from testbed.kernel.namespaces import OwnedNamespace

__all__ = ["all_labs", "down", "remove", "remove_disks"]


def all_labs(*, ask_engine: bool = False) -> tuple[str, ...]:
    """Every lab on this machine: those with state and those that only left namespaces or disks.

    With ``ask_engine`` also those that only left containers; that takes half a second where there is an engine.
    """
    disks = [each.name for each in DISKS.iterdir()] if DISKS.is_dir() else []
    containers = _labs_with_containers() if ask_engine else ()
    return tuple(sorted({*labs(), *(each.lab for each in namespaces.owned()), *disks, *containers}))


def _labs_with_containers() -> tuple[str, ...]:
    if not _engine_expected():
        return ()
    from testbed.runtimes.container import labs_with_containers

    with suppress(LabError, MachineError):  # then nobody can tell
        return labs_with_containers()
    return ()


def _engine_expected() -> bool:
    """Whether this computer has an engine that could hold containers, at a glance."""
    return "DOCKER_HOST" in os.environ or Path("/var/run/docker.sock").exists()


def down(lab: str) -> tuple[OwnedNamespace, ...]:
    """Remove a lab and return the namespaces it had. A lab that is not there is fine: nothing is removed.

    What the lab owns is known by the mark its namespaces and containers carry; nothing else is touched.

    Raises:
        LabError: Containers are left, because the engine does not answer; all the rest is gone.
    """
    with locked(lab):
        return remove(lab)


def remove(lab: str) -> tuple[OwnedNamespace, ...]:
    """As :func:`down`, for a caller that holds the lab's lock."""
    state = State(lab)
    owned = namespaces.owned(lab)
    with suppress(ValueError):  # damaged: then the namespaces say who belongs to the lab
        running = state.running()
        processes.end(running[name].process for name in ("keeper", "controller") if name in running)
    used = _uses_containers(state)
    asked = used is not False and _engine_expected() and _remove_containers(lab)
    with suppress(ValueError):
        processes.end(each.process for each in state.running().values())
    remove_namespaces(owned)  # ends what runs in them, containers too, whether an engine answers or not
    remove_disks(lab)
    if asked:
        _remove_containers(lab)  # one that an interrupted "up" was just having made
    elif used:
        fix = f"start the engine ('make docker'), then: testbed down {lab}"
        raise LabError(
            f"the containers of lab {lab!r} were ended, but the engine that keeps their files does not answer", fix=fix
        )
    state.remove()
    return owned


def _uses_containers(state: State) -> bool | None:
    """Whether the lab has containers; None: nobody knows any more."""
    with suppress(LabError):
        record = state.record()
        return None if record is None else "container" in record.runtimes
    return None


def _remove_containers(lab: str) -> bool:
    """Remove those that carry the lab's label; gives whether the engine answered."""
    from testbed.runtimes.container import remove_containers

    try:
        remove_containers(lab)
    except (LabError, MachineError):
        return False
    return True


def remove_disks(lab: str) -> None:
    """Remove the disks of a lab's virtual machines."""
    shutil.rmtree(DISKS / lab, ignore_errors=True)
    with suppress(OSError):
        DISKS.rmdir()
