"""Machines that are containers of a Docker engine, without a network of the engine's.

Everything a container owns at the engine carries the labels ``testbed.lab`` and ``testbed.machine``, by which it is
found with no state at hand. Its network namespace gets the machine's name when it starts, and another one each time.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from testbed.access.keys import forget, lab_key
from testbed.errors import InputError, LabError, MachineError
from testbed.images.engine import engine, refusals, words
from testbed.kernel import namespaces
from testbed.kernel.processes import identify
from testbed.runtimes.base import State, tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import docker
    from docker.models.containers import Container

    from testbed.access.transport import Transport
    from testbed.kernel.processes import Process
    from testbed.plan.objects import Instance
    from testbed.runtimes.base import Place

__all__ = ["LAB_LABEL", "MACHINE_LABEL", "ContainerRuntime", "remove_containers"]

LAB_LABEL = "testbed.lab"
MACHINE_LABEL = "testbed.machine"
#: Where a container finds the lab's public key, when it is to be reached with that.
AUTHORIZED_KEYS = "/run/testbed/authorized_keys"
_CONFIG_LABEL = "testbed.config"
_AT_ONCE = 8
_END_SECONDS = 10  # for the engine to notice that a process has ended
_WORDS = {"created": "exited", "dead": "exited", "removing": "exited", "restarting": "exited"}


class ContainerRuntime:
    """Containers of the engine that ``DOCKER_HOST`` names, or of the computer's own."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client: docker.DockerClient | None = None

    @property
    def _engine(self) -> docker.DockerClient:
        if self._client is None:
            self._client = engine()
        return self._client

    def _name(self, machine: str) -> str:
        return f"testbed-{self._place.lab}-{machine}"

    def _find(self, machine: str) -> Container | None:
        """The machine's container.

        Raises:
            LabError: Its name is taken by a container that is not the lab's.
        """
        import docker

        with refusals(f"look at container {machine!r}"):
            try:
                found = self._engine.containers.get(self._name(machine))
            except docker.errors.NotFound:
                return None
        if found.labels.get(LAB_LABEL) != self._place.lab:
            fix = f"remove or rename it: docker rm {found.name}"
            raise LabError(f"container {found.name!r} is there, and is not of lab {self._place.lab!r}", fix=fix)
        return found

    # -- life ----------------------------------------------------------------------------------------

    def prepare(self, instances: Sequence[Instance]) -> None:
        """Every image is there, and every mounted file."""
        import docker

        for reference, pull in dict.fromkeys((config["image"], config["pull"]) for config in map(_config, instances)):
            try:
                self._engine.images.get(reference)
            except docker.errors.ImageNotFound:
                self._pull(reference) if pull else self._missing(reference, "it was built, and is gone")
            except docker.errors.APIError as error:
                raise InputError(
                    f"image {reference!r}: {words(error)}", fix="write name, name:tag or name@sha256:…"
                ) from error
        for each in instances:
            _check_mounts(each.machine, _config(each)["mounts"])

    def _pull(self, reference: str) -> None:
        import docker

        name = reference if ":" in reference.rpartition("/")[2] or "@" in reference else f"{reference}:latest"
        try:
            self._engine.images.pull(name)
        except docker.errors.DockerException as error:
            self._missing(reference, f"it cannot be pulled: {words(error)}", error)

    @staticmethod
    def _missing(reference: str, why: str, cause: Exception | None = None) -> None:
        fix = "check its name with 'docker images'; load it with 'docker load', or build it ('build: FOLDER')"
        raise InputError(f"image {reference!r} is not there: {why}", fix=fix) from cause

    def start(self, instances: Sequence[Instance]) -> dict[str, Process]:
        """Start the containers side by side, and name their namespaces."""
        _ = self._engine  # once, before there are threads
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            started = list(pool.map(self._start_one, instances))
        return {each.machine: process for each, process in zip(instances, started, strict=True)}

    def _start_one(self, instance: Instance) -> Process:
        fix = "look at the image and at the keys of its runtime in the document"
        with refusals(f"container {instance.machine!r} does not start", fix=fix):
            container = self._present(instance)
            if container.status == "paused":
                container.unpause()
            if container.status != "running":
                container.start()
            if process := self.adopt(instance):
                return process
        raise self._ended(instance.machine)

    def adopt(self, instance: Instance) -> Process | None:
        """Name the namespace of a container that runs, and give its process; None when it does not run.

        Asks for the container itself: lists of the engine are a moment late.
        """
        container = self._find(instance.machine)
        if container is None or not container.attrs["State"]["Running"]:
            return None
        pid = int(container.attrs["State"]["Pid"])
        try:
            process = identify(pid)
        except FileNotFoundError:
            return None  # it has ended between two lines
        try:
            namespaces.adopt(instance.namespace, self._place.lab, pid)
        except LabError:
            if process.alive():
                raise
            return None
        return process

    def _ended(self, machine: str) -> LabError:
        state = self.states([machine], {})[machine]
        fix = f"look at it: docker logs {self._name(machine)}; 'command:' can give it something that stays"
        return LabError(
            f"container {machine!r} ended at once: {state}; its log ends:\n{tail(self.log(machine))}", fix=fix
        )

    def _present(self, instance: Instance) -> Container:
        """The container as it is, if it was made from the same configuration, or a new one."""
        container = self._find(instance.machine)
        digest = blake2b(instance.config.encode(), digest_size=8).hexdigest()
        if container is not None and container.labels.get(_CONFIG_LABEL) == digest:
            return container
        if container is not None:
            container.remove(force=True, v=True)
        forget(self._place.directory, instance.machine)  # a new machine has a new host key
        config = _config(instance)
        volumes = [f"{source}:{target}{':ro' if fixed else ''}" for source, target, fixed in config["mounts"]]
        if config["lab_key"]:
            public = f"{lab_key(self._place.directory).private}.pub"
            volumes.append(f"{public}:{AUTHORIZED_KEYS}:ro")
        return self._engine.containers.create(
            config["image"],
            config["command"],
            name=self._name(instance.machine),
            hostname=instance.machine,
            network_mode="none",
            environment=config["environment"],
            cap_add=config["capabilities"],
            labels={LAB_LABEL: self._place.lab, MACHINE_LABEL: instance.machine, _CONFIG_LABEL: digest},
            volumes=volumes,
            mem_limit=config["memory"] and config["memory"].lower(),
            nano_cpus=int(config["cpus"] * 1e9) if config["cpus"] else None,
        )

    def stop(self, machine: str, process: Process | None) -> None:
        """Remove the container with its files, and its namespace."""
        del process
        container = self._find(machine)
        if container is not None:
            with refusals(f"remove container {machine!r}"):
                container.remove(force=True, v=True)
        namespaces.delete(self._place.namespace(machine))

    # -- looking -------------------------------------------------------------------------------------

    def states(self, machines: Sequence[str], processes: dict[str, Process]) -> dict[str, State]:
        """As the engine says; without the engine, as the processes say."""
        import docker

        try:
            listed = self._engine.api.containers(all=True, filters={"label": f"{LAB_LABEL}={self._place.lab}"})
        except (LabError, MachineError, docker.errors.DockerException, OSError):
            word = {name: "running" if name in processes else "exited" for name in machines}
            return {name: State(word[name], "the Docker engine does not answer") for name in machines}
        found = {each["Labels"].get(MACHINE_LABEL): each for each in listed}
        states = {name: _state(found.get(name)) for name in machines}
        # The list is a moment late: of what it takes to run, and nobody knows a process of, the end is waited for.
        unsure = [name for name, state in states.items() if state.well and name not in processes]
        return states | {name: self._exact_state(name) for name in unsure}

    def _exact_state(self, machine: str) -> State:
        container = self._find(machine)
        if container is None:
            return _state(None)
        with suppress(FileNotFoundError):
            if identify(int(container.attrs["State"]["Pid"])).alive():
                return State("running")
        with refusals(f"wait for the end of container {machine!r}"):
            return State("exited", f"Exited ({container.wait(timeout=_END_SECONDS)['StatusCode']})")

    def ping(self) -> None:
        """Ask whether the engine is there.

        Raises:
            MachineError: It does not answer.
        """
        engine().close()

    def events(self, filters: dict[str, str]) -> Iterator[dict[str, Any]]:
        """What the engine tells from this moment on, until it goes away."""
        stream: Iterator[dict[str, Any]] = self._engine.api.events(filters=filters, decode=True)
        return stream

    def health(self, machine: str) -> str:
        """What the image's ``HEALTHCHECK`` says: ``starting``, ``healthy`` or ``unhealthy``; empty: it has none."""
        container = self._find(machine)
        if container is None:
            return "the container is gone"
        found = container.attrs["State"].get("Health")
        return str(found["Status"]) if found else ""

    def log(self, machine: str) -> str:
        """What its main process has printed."""
        import docker

        try:
            container = self._find(machine)
            return container.logs().decode(errors="replace") if container else ""
        except (LabError, MachineError, docker.errors.DockerException, OSError):
            return ""

    def enter(self, machine: str) -> Transport:
        """By the engine."""
        from testbed.runtimes.engine_exec import EngineTransport

        container = self._find(machine)
        if container is None:
            fix = f"testbed up makes it again; look: testbed status {self._place.lab}"
            raise LabError(f"the container of {machine!r} is gone", fix=fix)
        return EngineTransport(machine, container)

    # -- faults --------------------------------------------------------------------------------------

    def _need(self, machine: str) -> Container:
        container = self._find(machine)
        if container is None:
            raise LabError(f"the container of {machine!r} is gone", fix="testbed up makes it again")
        return container

    def kill(self, machine: str, process: Process | None) -> None:
        """As ``docker kill``."""
        import docker

        del process
        with suppress(docker.errors.APIError):  # it was dead already
            self._need(machine).kill()

    def freeze(self, machine: str, process: Process | None) -> None:
        """As ``docker pause``."""
        del process
        with refusals(f"pause container {machine!r}"):
            self._need(machine).pause()

    def thaw(self, machine: str, process: Process | None) -> None:
        """As ``docker unpause``."""
        del process
        container = self._find(machine)
        if container is not None and container.status == "paused":
            with refusals(f"unpause container {machine!r}"):
                container.unpause()

    def reboot(self, machine: str, process: Process | None) -> None:
        """As ``docker restart``, without waiting for a farewell."""
        del process
        with refusals(f"restart container {machine!r}"):
            self._need(machine).restart(timeout=0)

    def carrier(self, machine: str, *, up: bool) -> None:
        """A container sees its own links."""


def _config(instance: Instance) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(instance.config)
    return config


def _check_mounts(machine: str, mounts: Sequence[tuple[str, str, bool]]) -> None:
    from pathlib import Path

    for source, target, _ in mounts:
        if not Path(source).exists():
            fix = "the engine would make an empty folder there; check the path, which starts at the document"
            raise InputError(f"container {machine!r}: {source}, to be mounted at {target}, is not there", fix=fix)


def _state(listed: dict[str, Any] | None) -> State:
    if listed is None:
        return State("gone", "its container was removed")
    word = str(listed["State"])
    if word == "running":
        return State(word)
    return State(_WORDS.get(word, word), str(listed["Status"]))


def remove_containers(lab: str) -> tuple[str, ...]:
    """Remove every container that carries the lab's label; returns their names.

    Raises:
        MachineError: The engine does not answer.
    """
    client = engine()
    with refusals(f"list the containers of lab {lab!r}"):
        found = client.containers.list(all=True, filters={"label": f"{LAB_LABEL}={lab}"}, ignore_removed=True)

    def remove(container: Container) -> str:
        import docker

        with refusals(f"remove container {container.name!r}"), suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)
        return str(container.name)

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return tuple(pool.map(remove, found))


def labs_with_containers() -> tuple[str, ...]:
    """Names of labs that have containers.

    Raises:
        MachineError: The engine does not answer.
    """
    with refusals("list the containers of all labs"):
        listed = engine().api.containers(all=True, filters={"label": LAB_LABEL})
    return tuple(sorted({each["Labels"][LAB_LABEL] for each in listed}))
