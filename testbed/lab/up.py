"""Bring a lab up, or make a lab that is up what its document says now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import LabExistsError, TestbedError
from testbed.kernel import namespaces
from testbed.lab import fault_record, faults
from testbed.lab.apply import Applier, remove_namespaces
from testbed.lab.changes import Change, difference
from testbed.lab.down import remove, remove_disks
from testbed.lab.observe import observe
from testbed.lab.preparation import build_images, need_alive, prepare
from testbed.lab.route_delay import pass_time, with_old_routes
from testbed.lab.state import Record, State, check_lab_name, locked
from testbed.plan import objects
from testbed.plan.compile import compile_plan
from testbed.plan.numbers import Numbers
from testbed.runtimes.registry import runtime
from testbed.topology.loading import load
from testbed.topology.model import Balancer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from testbed.plan.model import Plan
    from testbed.plan.objects import KernelObject
    from testbed.topology.findings import Finding
    from testbed.topology.model import Topology

__all__ = ["Outcome", "load_plan", "up"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What ``up`` did: the plan that stands now, the changes it took (none: nothing to do), the document's warnings."""

    plan: Plan
    changes: tuple[Change, ...]
    warnings: tuple[Finding, ...] = ()


def up(
    document: Path,
    *,
    lab: str | None = None,
    time_scale: float | None = None,
    balancer: str | None = None,
    checkpoint: Callable[[Change], None] | None = None,
    taken: Collection[str] = (),
    say: Callable[[str], None] = lambda _line: None,
) -> Outcome:
    """Bring up the lab of a document, or converge the one that is up to it.

    Either all of it stands at the end, or what this call made is gone again.

    Args:
        document: The topology document.
        lab: Name of the lab; the document's ``name`` when not given.
        time_scale: Used instead of the document's.
        balancer: ``nftables`` or ``ipvs``, instead of the document's.
        checkpoint: Called before each change; tests let it fail.
        taken: Network interfaces of the computer that may be used though the computer uses them itself.
        say: Is told what takes long, in a line.

    Raises:
        DocumentError: The document has mistakes.
        LabExistsError: The name is taken by a lab from another document.
        MachineError: This computer lacks what a machine needs.
        LabError: A step failed.
    """
    loaded = load(document)
    topology = loaded.topology
    if time_scale is not None:
        topology = topology.model_copy(update={"time_scale": time_scale})
    if balancer is not None:
        topology = topology.model_copy(update={"balancer": Balancer(balancer)})
    name = lab or topology.name
    check_lab_name(name)
    folder = str(document.resolve().parent)
    images = build_images(topology, document.resolve().parent, say)  # before the lock: it may take minutes
    with locked(name):
        state = State(name)
        record = state.record()
        fresh = not any(each.mounted for each in namespaces.owned(name))
        _refuse_foreign(name, record, document, loaded.text, state, fresh=fresh)
        numbers = Numbers(dict(record.numbers) if record else {})
        plan = compile_plan(topology, name, numbers, str(state.directory), folder=folder, images=images)
        kinds = sorted({machine.runtime for machine in plan.machines})
        new_record = Record(
            name,
            str(document.resolve()),
            topology.time_scale,
            dict(numbers.known),
            images,
            kinds,
            topology.balancer.value,
        )
        prepare(plan, state, taken=taken)
        if fresh:
            changes = _raise_fresh(plan, state, new_record, loaded.text, checkpoint)
        else:
            old, before = load_plan_and_topology(state, record)
            steps = [plan]
            delay = topology.switches.route_update_delay * topology.time_scale
            if delay and (slow := with_old_routes(topology, before)):
                say(f"changed routes take effect in {delay:g} s (route_update_delay)")
                steps.insert(0, compile_plan(slow, name, numbers, str(state.directory), folder=folder, images=images))
            changes = _converge(steps, old, state, new_record, loaded.text, checkpoint, delay)
            for machine in set(fault_record.active(state)) & {each.name for each in plan.machines}:
                faults.clear(plan, machine)  # a document says nothing of faults
        return Outcome(plan, changes, loaded.warnings)


def _refuse_foreign(name: str, record: Record | None, document: Path, text: str, state: State, *, fresh: bool) -> None:
    if fresh:
        return
    if record is None:
        fix = f"remove what is left of it: testbed down {name}"
        raise LabExistsError(f"lab {name!r} is there, but its state is lost", fix=fix)
    same = (state / "topology.yaml").exists() and (state / "topology.yaml").read_text() == text
    if record.document != str(document.resolve()) and not same:
        raise LabExistsError(
            f"lab {name!r} is up, made from {record.document}; nothing was changed",
            fix=f"give this one another name (--lab NAME), or remove that one: testbed down {name}",
        )


def load_plan(state: State, record: Record | None = None) -> Plan:
    """The plan of a lab that is up, from the document it was made from.

    Raises:
        UnknownLabError: There is no such lab.
    """
    plan, _ = load_plan_and_topology(state, record)
    return plan


def load_plan_and_topology(state: State, record: Record | None = None) -> tuple[Plan, Topology]:
    """The plan of a lab that is up, and the document it was made from, with the time scale and balancer in force."""
    record = record or state.need_record()
    topology = load(state / "topology.yaml").topology
    topology = topology.model_copy(update={"time_scale": record.time_scale, "balancer": Balancer(record.balancer)})
    folder = str(Path(record.document).parent)
    numbers = Numbers(dict(record.numbers))
    plan = compile_plan(topology, state.lab, numbers, str(state.directory), folder=folder, images=record.images)
    return plan, topology


def _raise_fresh(
    plan: Plan, state: State, record: Record, text: str, checkpoint: Callable[[Change], None] | None
) -> tuple[Change, ...]:
    remove_namespaces(namespaces.owned(plan.lab))  # names that a crash left without a namespace
    state.remove()
    state.write_record(record)  # first, so that whatever is made can be found
    state.write("topology.yaml", text)
    _clear_the_way(plan)
    changes = difference(plan.objects, ())
    try:
        with Applier(plan, state, checkpoint) as applier:
            applier.apply(changes)
        need_alive(plan, state)
    except BaseException as error:
        try:
            remove(plan.lab)  # quicker than step by step, and it needs nothing to be known
        except TestbedError as second:
            error.add_note(f"not cleaned up: {second}")
        raise
    return changes


def _converge(
    steps: list[Plan],
    old: Plan,
    state: State,
    record: Record,
    text: str,
    checkpoint: Callable[[Change], None] | None,
    delay: float,
) -> tuple[Change, ...]:
    """Make the lab what the last step says; after each step but the last one so many seconds pass."""
    before = state.need_record()
    plan = steps[-1]
    _end_lost(plan, old, state)
    known = (*old.objects, *(each for step in steps for each in step.objects))
    # Numbers that are given stay given, whatever comes; and until it has come, there may be machines of old kinds.
    state.write_record(replace(record, runtimes=sorted({*before.runtimes, *record.runtimes})))
    changes: list[Change] = []
    try:
        for step in steps:
            if step is not steps[0]:
                pass_time(delay)
            found = difference(step.objects, observe(plan.lab, plan.fabric, known, state))
            with Applier(step, state, checkpoint) as applier:
                applier.apply(found)
            changes += found
        need_alive(plan, state)
    except BaseException as error:
        state.write_record(replace(before, numbers=record.numbers))
        _go_back(old, known, state, error)
        raise
    state.write_record(record)
    state.write("topology.yaml", text)
    return tuple(changes)


def _clear_the_way(plan: Plan) -> None:
    """Remove containers and disks that an earlier lab of this name left, when its ``down`` could not."""
    remove_disks(plan.lab)
    if any(machine.runtime == "container" for machine in plan.machines):
        from testbed.runtimes.container import remove_containers

        remove_containers(plan.lab)


def _end_lost(plan: Plan, old: Plan, state: State) -> None:
    """Remove what has ended by itself and is not wanted any more: looking at the lab does not show it."""
    names = {machine.name for machine in plan.machines if machine.runs}
    running = state.running()
    for each in old.objects:
        if isinstance(each, objects.Instance) and each.machine not in {*names, *running}:
            runtime(each.runtime, state.place).stop(each.machine, None)


def _go_back(old: Plan, known: tuple[KernelObject, ...], state: State, error: BaseException) -> None:
    """Make the lab again what it was before a change to it failed."""
    try:
        with Applier(old, state) as applier:
            applier.apply(difference(old.objects, observe(old.lab, old.fabric, known, state)))
    except TestbedError as second:
        error.add_note(f"and the lab could not be made again what it was: {second}")


def summary(changes: tuple[Change, ...]) -> str:
    """The changes in one line, for people."""
    if not changes:
        return "no changes"
    counts: dict[str, int] = {}
    for change in changes:
        kind = _INSTANCES[change.object.runtime] if isinstance(change.object, objects.Instance) else ""
        kind = kind or _WORDS.get(type(change.object), "settings")
        key = f"{'+' if change.action == 'add' else '-'} {kind}"
        counts[key] = counts.get(key, 0) + 1
    return ", ".join(
        f"{key[0]}{count} {key[2:].removesuffix('s') if count == 1 else key[2:]}" for key, count in counts.items()
    )


_WORDS: dict[type, str] = {
    objects.Namespace: "namespaces",
    objects.Veth: "cables",
    objects.Route: "routes",
    objects.RoutingRule: "policy rules",
    objects.VirtualServices: "IPVS services",
    objects.Ruleset: "rulesets",
    objects.Controller: "controller",
    objects.Keeper: "keeper",
}
_INSTANCES = {"namespace": "programs", "container": "containers", "vm": "virtual machines"}
