"""Before the lab is touched: images, files, and what the computer must have; and afterwards: whether all still runs."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.kernel import ipvs
from testbed.lab import host_links
from testbed.plan import objects
from testbed.runtimes.base import tail
from testbed.runtimes.registry import runtime
from testbed.topology.runtimes import ContainerRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from testbed.lab.state import State
    from testbed.plan.model import Plan
    from testbed.runtimes.base import Runtime
    from testbed.topology.model import Topology

__all__ = ["build_images", "need_alive", "prepare"]


def build_images(topology: Topology, folder: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Build what the document's containers are built from, where it is not there yet; gives the images by ``build``.

    Raises:
        InputError: There is no such folder.
        MachineError: The engine does not answer.
        LabError: A build fails.
    """
    builds = [each.runtime.build for each in topology.machines if isinstance(each.runtime, ContainerRuntime)]
    wanted = dict.fromkeys(build for build in builds if build)
    if not wanted:
        return {}
    from testbed.images import ensure

    return {build: ensure(build, folder, say) for build in wanted}


def _by_runtime(plan: Plan, state: State) -> Iterator[tuple[Runtime, list[objects.Instance]]]:
    """The instances of a plan, those of one runtime together."""
    instances = sorted((each for each in plan.objects if isinstance(each, objects.Instance)), key=attrgetter("runtime"))
    for kind, group in groupby(instances, key=attrgetter("runtime")):
        yield runtime(kind, state.place), list(group)


def prepare(plan: Plan, state: State, *, taken: Collection[str]) -> None:
    """Make sure of all that can fail before the lab is touched.

    Raises:
        InputError: The document names something that is not there, or that the computer needs itself.
        MachineError: This computer lacks something.
    """
    for made_of, instances in _by_runtime(plan, state):
        made_of.prepare(instances)
    host_links.check(plan, taken)
    if plan.balancer == "ipvs" and plan.rules:
        ipvs.load()


def need_alive(plan: Plan, state: State) -> None:
    """Make sure that what was started still runs.

    Raises:
        LabError: Something has ended at once; the message holds the end of its log.
    """
    running = state.running()
    for made_of, instances in _by_runtime(plan, state):
        for each in instances:
            if each.machine not in running:
                how = made_of.states([each.machine], {})[each.machine]
                said = tail(made_of.log(each.machine))
                what = {"container": "container", "vm": "virtual machine"}.get(each.runtime, "the program of machine")
                fix = "look at its log; for a container, 'command:' can give it something that stays"
                raise LabError(f"{what} {each.machine!r} ended at once: {how}; its log ends:\n{said}", fix=fix)
