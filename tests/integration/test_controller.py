"""The probe controller against real servers on the loopback of a namespace, with a data plane that remembers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from conftest import inside

from testbed.balancer.base import FakeBackend, Update
from testbed.errors import DeadlineError, LabError
from testbed.kernel.namespaces import entered
from testbed.plan.model import Member, Probe, Rule
from testbed.probes import control, events
from testbed.probes.config import ControllerConfig
from testbed.probes.controller import SOCKET_NAME, run
from testbed.probes.status import ControllerStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

PORT = 8080
INTERVAL = 0.05
FIRST, SECOND = "127.0.0.11", "127.0.0.12"


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace with a loopback and nothing else."""
    name = f"pc{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    inside(name, "ip", "link", "set", "lo", "up")
    yield name
    subprocess.run(["ip", "netns", "del", name], check=False)


def _config(
    directory: Path, protocol: str = "Http", threshold: int = 2, behavior: str = "AllProbedDown"
) -> ControllerConfig:
    members = tuple(
        Member(number, f"nva{number}", "eth0", f"l-nva{number}", address, f"nva{number}-eth0", forwards=True)
        for number, address in ((1, FIRST), (2, SECOND))
    )
    rule = Rule(
        id=1,
        load_balancer="lb",
        frontend="fe",
        name="ha",
        frontend_address="10.0.2.4",
        virtual_network="hub",
        backend_address_pool="lb/nvas",
        enable_floating_ip=False,
        idle_timeout_in_minutes=4,
        buckets=4096,
        members=members,
        probe=Probe("health", protocol, PORT, "/health", 5.0, threshold, behavior),
    )
    return ControllerConfig("lab", None, INTERVAL / 5.0, str(directory), (rule,), source=None)


class Servers:
    """HTTP servers on two addresses whose status can be changed; None: nothing listens."""

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        self.asked = 0
        self._handled: set[asyncio.Task[None]] = set()
        self._running: dict[str, asyncio.Server] = {}

    async def start(self, address: str, status: int = 200) -> None:
        """Listen, or answer with another status."""
        self.status[address] = status
        if address in self._running:
            return

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.asked += 1
            task = asyncio.current_task()
            assert task
            self._handled.add(task)
            task.add_done_callback(self._handled.discard)
            if await reader.readline():
                writer.write(f"HTTP/1.1 {self.status[address]} X\r\n\r\n".encode())
            writer.close()
            await writer.wait_closed()

        self._running[address] = await asyncio.start_server(handle, address, PORT)

    async def stop(self, address: str) -> None:
        """Refuse connections from now on."""
        self._running.pop(address).close()

    async def close(self) -> None:
        """Stop all."""
        for server in self._running.values():
            server.close()
        await asyncio.gather(*self._handled, return_exceptions=True)


@asynccontextmanager
async def _controlled(config: ControllerConfig, backend: FakeBackend) -> AsyncIterator[Servers]:
    stop = asyncio.Event()
    servers = Servers()
    task = asyncio.create_task(run(config, backend, stop))
    try:
        yield servers
    finally:
        stop.set()
        await task
        await servers.close()


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            raise DeadlineError(what)
        await asyncio.sleep(0.005)


def _inside(namespace: str, scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    with entered(namespace):
        asyncio.run(main())


def _named(directory: Path, event: str) -> list[events.Event]:
    return [each for each in events.read(directory) if each.event == event]


async def _status(directory: Path) -> ControllerStatus:
    answer = await asyncio.to_thread(control.request, directory / SOCKET_NAME, "status")
    return ControllerStatus.from_json(answer)


def test_health_becomes_eligibility(namespace: str, tmp_path: Path) -> None:
    """Members come up with their first 200, go with a 503, and come back; each change is one update."""
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        async with _controlled(_config(tmp_path), backend) as servers:
            await servers.start(FIRST)
            await servers.start(SECOND)
            await _until(lambda: backend.eligible()[1] == {1, 2}, "both up")
            await servers.start(SECOND, 503)
            await _until(lambda: backend.eligible()[1] == {1}, "second down")
            await servers.start(SECOND, 200)
            await _until(lambda: backend.eligible()[1] == {1, 2}, "second back")

    _inside(namespace, scenario)
    assert [update.eligible for update in backend.updates][-2:] == [{1}, {1, 2}]
    down = [event for event in _named(tmp_path, "health") if event.fields["reason"] == "HTTP 503"]
    assert [(event.fields["machine"], event.fields["healthy"]) for event in down] == [("nva2", False)]
    updates = _named(tmp_path, "update")
    assert [event.fields["eligible"] for event in updates][-2:] == [["nva1"], ["nva1", "nva2"]]
    assert all(event.fields["rule"] == "lb/fe/ha" and event.fields["duration_ms"] >= 0 for event in updates)
    states = [event.fields["state"] for event in _named(tmp_path, "controller")]
    assert states == ["started", "stopped"]


def test_refused_connections_are_counted(namespace: str, tmp_path: Path) -> None:
    """A member whose port is closed goes down with the probe that reaches the threshold, not before."""
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        async with _controlled(_config(tmp_path, threshold=3), backend) as servers:
            await servers.start(FIRST)
            await _until(lambda: backend.eligible()[1] == {1}, "up")
            await servers.stop(FIRST)
            await _until(lambda: backend.eligible()[1] == frozenset(), "down")

    _inside(namespace, scenario)
    own = [each for each in events.read(tmp_path) if each.fields.get("machine") == "nva1"]
    refused = [each.time for each in own if each.fields.get("detail") == "connection refused"]
    down = [each.time for each in own if each.event == "health" and each.fields["healthy"] is False][-1]
    first_refused = max(time for time in refused if time < down - INTERVAL)
    assert down - first_refused >= 1.5 * INTERVAL


def test_a_silent_member_times_out_in_lab_time(namespace: str, tmp_path: Path) -> None:
    """A member that accepts and says nothing is told as a timeout with the scaled limit."""
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        with socket.create_server((FIRST, PORT)):
            async with _controlled(_config(tmp_path), backend):
                await _until(lambda: bool(_silent()), "timeout told")

    def _silent() -> list[events.Event]:
        probes = _named(tmp_path, "probe")
        return [each for each in probes if each.fields["detail"] == f"timeout after {INTERVAL * 1000:g} ms"]

    _inside(namespace, scenario)
    assert _silent()[0].fields["machine"] == "nva1"


def test_silence_is_noticed_within_the_threshold(namespace: str, tmp_path: Path) -> None:
    """A member that falls silent is down after `threshold` intervals and one phase: no probe is left out."""
    backend = FakeBackend({1: frozenset({1, 2})})
    slow = replace(_config(tmp_path, threshold=3), time_scale=0.04)  # an interval of 200 ms

    async def scenario() -> None:
        with socket.create_server((FIRST, PORT)), socket.create_server((SECOND, PORT)):
            async with _controlled(slow, backend):
                await _until(lambda: backend.eligible()[1] == frozenset(), "both down")

    _inside(namespace, scenario)
    started = _named(tmp_path, "controller")[0].time
    down = {each.fields["machine"]: each.time - started for each in _named(tmp_path, "health")}
    assert 0.55 < down["nva1"] < 0.95  # every second probe left out would make it 1.0
    assert 0.65 < down["nva2"] < 1.05


def test_all_probed_up_takes_everybody_when_nobody_is_healthy(namespace: str, tmp_path: Path) -> None:
    """Under AllProbedUp a pool that is all down is all eligible, from the start on."""
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        async with _controlled(_config(tmp_path, behavior="AllProbedUp"), backend) as servers:
            await _until(lambda: backend.eligible()[1] == {1, 2}, "everybody at the start")
            await servers.start(FIRST)
            await _until(lambda: backend.eligible()[1] == {1}, "only the healthy one")
            await servers.start(FIRST, 500)
            await _until(lambda: backend.eligible()[1] == {1, 2}, "everybody again")

    _inside(namespace, scenario)


def test_a_rule_without_a_probe_is_opened(namespace: str, tmp_path: Path) -> None:
    """All members of a rule without a probe are made eligible, and stay so."""
    config = _config(tmp_path)
    bare = replace(config, rules=(replace(config.rules[0], probe=None),))
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        async with _controlled(bare, backend):
            await _until(lambda: backend.eligible()[1] == {1, 2}, "all")
            members = (await _status(tmp_path)).rules[0].members
            assert [(member.healthy, member.eligible, member.probes) for member in members] == [(None, True, 0)] * 2

    _inside(namespace, scenario)


def test_a_restart_touches_nothing(namespace: str, tmp_path: Path) -> None:
    """The next controller takes over health and its times, and makes no update while nothing changes."""
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        servers = Servers()
        await servers.start(FIRST)
        await servers.start(SECOND, 503)
        async with _controlled(_config(tmp_path), backend):
            await _until(lambda: backend.eligible()[1] == {1}, "first up")
            await _until(lambda: len(_named(tmp_path, "health")) == 2, "second known to be down")
            before = (await _status(tmp_path)).rules[0].members
        updates = len(backend.updates)
        async with _controlled(_config(tmp_path), backend):
            await _until((tmp_path / SOCKET_NAME).exists, "socket")
            after = (await _status(tmp_path)).rules[0].members
            assert [(m.healthy, m.since) for m in after] == [(m.healthy, m.since) for m in before]
            assert [m.healthy for m in after] == [True, False]
            asked = servers.asked
            await _until(lambda: servers.asked >= asked + 6, "three more rounds")
        assert len(backend.updates) == updates
        await servers.close()

    _inside(namespace, scenario)


def test_status_tells_health_and_probes(namespace: str, tmp_path: Path) -> None:
    """Status names each member with health, last result, probes sent and counters; other ops are refused."""
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        async with _controlled(_config(tmp_path), backend) as servers:
            await servers.start(FIRST)
            await _until(lambda: len(_named(tmp_path, "health")) >= 2 and bool(backend.updates), "results")
            status = await _status(tmp_path)
            assert (status.lab, status.pid, status.rules[0].rule) == ("lab", os.getpid(), "lb/fe/ha")
            first, second = status.rules[0].members
            assert (first.machine, first.address, first.healthy, first.detail) == ("nva1", FIRST, True, "HTTP 200")
            assert (second.healthy, second.detail) == (False, "connection refused")
            assert first.probes >= 1
            assert time.time() - 10 < first.since <= time.time()
            with pytest.raises(LabError, match="unknown op 'dance'"):
                await asyncio.to_thread(control.request, tmp_path / SOCKET_NAME, "dance")

    _inside(namespace, scenario)


def test_a_refused_update_is_tried_again(namespace: str, tmp_path: Path) -> None:
    """When the data plane refuses once, the controller lives on and the next probe repeats the update."""

    class Refusing(FakeBackend):
        refusals = 1

        def apply(self, rule: int, eligible: frozenset[int]) -> Update:
            if self.refusals:
                self.refusals -= 1
                raise LabError("nftables refuses: try later")
            return super().apply(rule, eligible)

    backend = Refusing({1: frozenset()})

    async def scenario() -> None:
        async with _controlled(_config(tmp_path), backend) as servers:
            await servers.start(FIRST)
            await _until(lambda: backend.eligible()[1] == {1}, "up in the end")

    _inside(namespace, scenario)
    assert _named(tmp_path, "update")[0].fields["error"] == "nftables refuses: try later"


def test_a_vanished_state_directory_does_not_stop_probing(namespace: str, tmp_path: Path) -> None:
    """Without a place for events and notes, health still reaches the data plane."""
    directory = tmp_path / "state"
    directory.mkdir()
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        async with _controlled(_config(directory), backend) as servers:
            await _until((directory / SOCKET_NAME).exists, "started")
            directory.rename(tmp_path / "elsewhere")
            await servers.start(FIRST)
            await _until(lambda: backend.eligible()[1] == {1}, "up")

    _inside(namespace, scenario)


def test_two_controllers_do_not_fight(namespace: str, tmp_path: Path) -> None:
    """A second controller of the same lab gives up and leaves the first one's socket alone."""
    backend = FakeBackend({1: frozenset()})

    async def scenario() -> None:
        async with _controlled(_config(tmp_path), backend):
            await _until((tmp_path / SOCKET_NAME).exists, "socket")
            with pytest.raises(LabError, match="has a probe controller already"):
                await run(_config(tmp_path), backend)
            assert (await _status(tmp_path)).lab == "lab"

    _inside(namespace, scenario)


_PROCESS = """
import asyncio, sys
from pathlib import Path
from testbed.balancer.base import FakeBackend
from testbed.kernel.namespaces import enter
from testbed.probes.config import ControllerConfig
from testbed.probes.controller import _until_signal
config = ControllerConfig.from_json(Path(sys.argv[1]).read_text())
enter(config.namespace)
asyncio.run(_until_signal(config, FakeBackend({1: frozenset(map(int, sys.argv[2:]))})))
"""


def _start(config: ControllerConfig, directory: Path, *eligible: int) -> subprocess.Popen[bytes]:
    file = directory / "config.json"
    file.write_text(config.to_json())
    process = subprocess.Popen([sys.executable, "-c", _PROCESS, str(file), *map(str, eligible)])
    deadline = time.monotonic() + 10
    while True:
        try:
            assert control.request(directory / SOCKET_NAME, "ping")["pid"] == process.pid
        except LabError:
            assert process.poll() is None
            assert time.monotonic() < deadline
        else:
            return process


def _resident_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - a file of the kernel
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def test_a_killed_controller_is_replaced(namespace: str, tmp_path: Path) -> None:
    """After SIGKILL the stale socket is replaced and health adopted; SIGTERM ends cleanly without an update."""
    config = replace(_config(tmp_path), namespace=namespace, time_scale=1.0)
    first = _start(config, tmp_path, 1, 2)
    try:
        assert _resident_mib(first.pid) <= 60
    finally:
        first.kill()
        first.wait(10)
    assert (tmp_path / SOCKET_NAME).exists()
    second = _start(config, tmp_path, 1, 2)
    try:
        answer = ControllerStatus.from_json(control.request(tmp_path / SOCKET_NAME, "status"))
        assert [member.healthy for member in answer.rules[0].members] == [True, True]
        second.send_signal(signal.SIGTERM)
        assert second.wait(10) == 0
    finally:
        second.kill()
        second.wait(10)
    assert not (tmp_path / SOCKET_NAME).exists()
    assert not _named(tmp_path, "update")
    assert _named(tmp_path, "controller")[-1].fields["state"] == "stopped"


def test_main_tells_what_is_wrong(tmp_path: Path) -> None:
    """The program ends with a sentence and a status, no traceback, when it cannot start."""
    file = tmp_path / "config.json"
    config = _config(tmp_path)
    for text, words in (
        ("nonsense", "configuration cannot be read"),
        (replace(config, namespace="no-such-namespace").to_json(), "'no-such-namespace' is gone"),
        (replace(config, backend="abacus").to_json(), "unknown balancer backend 'abacus'"),
    ):
        file.write_text(text)
        command = [sys.executable, "-m", "testbed.probes.controller", "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 4
        assert words in done.stderr
        assert "Traceback" not in done.stderr
