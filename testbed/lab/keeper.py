"""The keeper: one process per lab with containers, told by the engine when one starts or ends.

A container that starts anew has a new network namespace without any cable: the keeper wires it again and repeats the
steps of its set-up. One that has ended is unplugged: its namespace lives on by its name, and would forward. When the
engine goes away it waits for it, and then looks after all containers.

``python -m testbed.lab.keeper LAB``. Its main thread goes into the fabric's namespace when it hears the engine, which
is how it is found without any state; it works in a second thread, which stays where the engine is reached.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from testbed.errors import DeadlineError, MachineError, TestbedError
from testbed.kernel import namespaces
from testbed.kernel.processes import set_process_name
from testbed.lab import fault_record, faults, healing, readiness
from testbed.lab.state import Running, State, locked
from testbed.lab.up import load_plan_and_topology
from testbed.plan import objects
from testbed.probes import events
from testbed.runtimes.container import LAB_LABEL, MACHINE_LABEL, ContainerRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.plan.model import Machine, Plan

__all__ = ["main"]

_HEARD = {"start", "die", "destroy"}
_AGAIN = 0.5  # seconds between two attempts to reach an engine that is away


class _Keeper:
    """Hears the engine and settles one container after the other."""

    def __init__(self, lab: str, ready: threading.Event, stop: threading.Event) -> None:
        self._state = State(lab)
        self._runtime = ContainerRuntime(self._state.place)
        self._ready, self._stop = ready, stop

    def run(self) -> None:
        """Until told to stop."""
        while not self._stop.is_set():
            try:
                for event in self._events():
                    machine = event.get("Actor", {}).get("Attributes", {}).get(MACHINE_LABEL)
                    if machine and event.get("Action") in _HEARD:
                        self._event("container", machine=machine, state=event["Action"])
                        self.settle(machine)
            except Exception as error:  # noqa: BLE001 - the engine's library has no common root of errors
                self._say(error)
            self._event("engine", state="away")
            while not self._stop.wait(_AGAIN):
                with suppress(MachineError):
                    self._runtime = ContainerRuntime(self._state.place)
                    self._runtime.ping()
                    self._event("engine", state="back")
                    break

    def _events(self) -> Iterator[dict[str, Any]]:
        """What the engine tells from now on; all containers are looked after first."""
        stream = self._runtime.events({"type": "container", "label": f"{LAB_LABEL}={self._state.lab}"})
        if self._ready.is_set():
            for machine in load_plan_and_topology(self._state)[0].machines:
                if machine.runtime == "container":
                    self.settle(machine.name)
        self._ready.set()
        yield from stream

    def _event(self, event: str, **fields: object) -> None:
        with suppress(OSError):  # the lab is being removed
            events.append(self._state.directory, event, **fields)

    @staticmethod
    def _say(error: BaseException) -> None:
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()

    def settle(self, name: str) -> None:
        """Make a machine's wiring fit its container, which runs or does not."""
        try:
            with self._alone():
                plan, topology = load_plan_and_topology(self._state)
                if name not in {each.name for each in plan.machines}:
                    return
                machine = plan.machine(name)
                if not self._adopt(plan, machine):
                    faults.unplug(machine)
                    return
                began = time.monotonic()
                changed = healing.heal(plan, machine, start=False)
                took = (time.monotonic() - began) * 1000
                if in_force := fault_record.active(self._state).get(name):
                    faults.write_wire(plan, machine, in_force)  # the new namespace knows nothing of them
            if changed:
                self._event("container", machine=name, state="wired", duration_ms=round(took, 3))
                readiness.configure(plan, topology, [machine])
        except TestbedError as error:
            self._say(error)
            self._event("container", machine=name, state="failed", detail=error.message)

    def _adopt(self, plan: Plan, machine: Machine) -> bool:
        """Whether the container runs; its namespace has the machine's name then, and its process is known."""
        entry = self._state.running().get(machine.name)
        if entry and entry.process.inside(machine.namespace):
            return True
        (instance,) = (
            each for each in plan.objects if isinstance(each, objects.Instance) and each.machine == machine.name
        )
        process = self._runtime.adopt(instance)
        if process is None:
            return False
        self._state.remember({machine.name: Running(process, instance.kind, instance.config)})
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody is changing the lab, however long somebody does."""
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(locked(self._state.lab))
                    break
                except DeadlineError:
                    if self._stop.is_set():
                        raise
            yield


def main(lab: str) -> int:
    """Keep until SIGTERM."""
    set_process_name("tb-keeper")
    ready, stop = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    keeper = _Keeper(lab, ready, stop)
    plan, _ = load_plan_and_topology(State(lab))
    worker = threading.Thread(target=keeper.run, daemon=True)
    worker.start()
    ready.wait()
    namespaces.enter(plan.fabric)
    stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
