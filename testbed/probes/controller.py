"""The probe controller: probes every member, and tells the data plane who is eligible.

One asyncio process per lab, in the fabric's namespace. When it ends, in whatever way, the data plane stays as
it was; the next one takes over from there without touching a flow.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import LabError, TestbedError
from testbed.kernel.namespaces import enter
from testbed.kernel.processes import set_process_name
from testbed.probes import adoption, control, events
from testbed.probes.administration import AdminStates
from testbed.probes.config import ControllerConfig
from testbed.probes.flows import Flows
from testbed.probes.health import eligible_members
from testbed.probes.probers import Prober
from testbed.probes.schedule import lateness, next_due, phases
from testbed.probes.status import ControllerStatus, MemberStatus, RuleStatus, member_status
from testbed.probes.targets import Target, build_targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testbed.balancer.base import Backend
    from testbed.plan.model import Member, Rule
    from testbed.probes.health import ProbeResult

__all__ = ["SOCKET_NAME", "main", "run"]

#: The control socket's name in the state directory.
SOCKET_NAME = "controller.sock"
_LOCK_NAME = "controller.lock"


async def run(config: ControllerConfig, backend: Backend, stop: asyncio.Event | None = None) -> None:
    """Probe and steer until ``stop`` is set or the task is cancelled.

    Raises:
        LabError: Another controller of this lab runs, or the data plane cannot be read.
    """
    with _alone(config):
        await _Controller(config, backend).run(stop or asyncio.Event())


@contextmanager
def _alone(config: ControllerConfig) -> Iterator[None]:
    """Hold the lab's controller lock; the kernel releases it however this process ends."""
    with Path(config.state_directory, _LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(f"lab {config.lab!r} has a probe controller already") from error
        yield


class _Controller:
    def __init__(self, config: ControllerConfig, backend: Backend) -> None:
        self._config = config
        self._backend = backend
        self._prober = Prober()
        self._started = time.time()
        self._socket = Path(config.state_directory, SOCKET_NAME)
        kernel = backend.eligible()
        self._applied = {rule.id: kernel.get(rule.id, frozenset()) for rule in config.rules}
        self._admin = AdminStates(config.state_directory, config.rules, self._started)
        noted = adoption.load(config.state_directory)
        adopted = adoption.adopt(config.rules, self._applied, noted, self._started, self._admin)
        sources = (config.source, config.ipv6_source)
        self._targets = build_targets(config.rules, adopted, sources, time.time, config.time_scale)
        self._by_member = {(rule.id, target.member.id): target for target in self._targets for rule in target.rules}
        self._flows = Flows(config, self._record)
        self._stopped = set(config.stopped)
        self._drains: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        server = await control.ControlServer(control.listen(self._socket), self._answer).start()
        healthy = sorted({each.member.machine for each in self._targets if each.health.healthy})
        self._record("controller", state="started", pid=os.getpid(), adopted=healthy)
        self._keep(self._admin.save, "admin states are")
        for rule in self._config.rules:
            self._apply(rule)
            for member in rule.members:
                self._settle(rule, member)
        intervals = tuple(target.probe.interval_in_seconds * self._config.time_scale for target in self._targets)
        start = asyncio.get_running_loop().time()
        tasks = [
            asyncio.create_task(self._watch(target, start + phase, interval))
            for target, phase, interval in zip(self._targets, phases(intervals), intervals, strict=True)
        ]
        if any(rule.reset_when_idle for rule in self._config.rules):
            tasks.append(asyncio.create_task(self._flows.watch()))
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a watcher never ends by itself; its failure is this process's failure
        finally:
            everything = (stopping, *tasks, *self._drains.values())
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            await self._prober.close()
            await server.close()
            self._socket.unlink(missing_ok=True)
            self._record("controller", state="stopped", pid=os.getpid())

    async def _watch(self, target: Target, due: float, interval: float) -> None:
        """Probe one target for ever."""
        loop = asyncio.get_running_loop()
        timeout = target.probe.timeout_in_seconds * self._config.time_scale
        while True:
            await asyncio.sleep(max(due - loop.time(), 0))
            if target.member.machine in self._stopped and not target.health.healthy:
                due = next_due(due, interval, loop.time())
                continue
            target.sent += 1
            late = lateness(due, interval, loop.time())
            result = await self._prober.probe(
                target.wire, target.probe.protocol, timeout, target.probe.request_path, late=late
            )
            self._observe(target, result)
            due = next_due(due, interval, loop.time())

    def _observe(self, target: Target, result: ProbeResult) -> None:
        before, held = target.health.last, target.health.held_until
        changed = target.health.observe(result)
        news = before is None or (before.kind, before.detail) != (result.kind, result.detail)
        if changed or news:
            self._record(
                "probe",
                machine=target.member.machine,
                address=target.member.address,
                load_balancer=target.load_balancer,
                probe=target.probe.name,
                result=result.kind.value,
                detail=result.detail,
                duration_ms=round(result.duration * 1000, 3),
            )
        if target.health.held_until not in (None, held):
            self._record("hold-down", machine=target.member.machine, until=target.health.held_until)
        if changed:
            for rule in target.rules:
                self._record(
                    "health",
                    machine=target.member.machine,
                    address=target.member.address,
                    healthy=target.health.healthy,
                    rule=rule.key,
                    reason=result.detail,
                )
        for rule in target.rules:
            self._apply(rule)
        if changed:
            self._note()

    def _eligible(self, rule: Rule) -> frozenset[int]:
        healthy = {
            member.id
            for member in rule.members
            if (target := self._by_member.get((rule.id, member.id))) and target.health.healthy
        }
        return eligible_members(rule, healthy, self._admin.of_rule(rule))

    def _apply(self, rule: Rule) -> None:
        """Bring the data plane to what health says; after a refusal the next result tries again."""
        wanted = self._eligible(rule)
        if wanted == self._applied[rule.id]:
            return
        names = [member.machine for member in rule.members if member.id in wanted]
        try:
            update = self._backend.apply(rule.id, wanted)
        except LabError as error:
            self._record("update", rule=rule.key, eligible=names, error=str(error))
            return
        self._applied[rule.id] = wanted
        self._record(
            "update",
            rule=rule.key,
            eligible=names,
            moved=update.moved,
            duration_ms=round(update.duration_ms, 3),
        )

    def _record(self, event: str, **fields: object) -> None:
        """Log; a full or vanished state directory must not stop the probing."""
        try:
            events.append(self._config.state_directory, event, **fields)
        except OSError as error:
            print(f"event {event} is lost: {error}", file=sys.stderr)

    def _note(self) -> None:
        """Leave the health for the next controller."""
        known = [known for each in self._targets for known in each.known()]
        self._keep(lambda: adoption.save(self._config.state_directory, known), "health is")

    @staticmethod
    def _keep(save: Callable[[], None], what: str) -> None:
        try:
            save()
        except OSError as error:
            print(f"{what} not noted: {error}", file=sys.stderr)

    def _settle(self, rule: Rule, member: Member) -> None:
        """What a member's admin state means for the flows that it has."""
        if rule.probe is None:
            return
        pool = rule.backend_address_pool
        admin = self._admin.of(pool, member)
        down = admin.state == "Down"
        if rule.flows_end_alone:
            from testbed.balancer.persistence import set_persistent  # with numpy, as the backend

            try:
                set_persistent(rule, {member.id} if down else set())
            except LabError as error:
                self._record("update", rule=rule.key, error=str(error))
        if (pending := self._drains.pop((pool, member.id), None)) is not None:
            pending.cancel()
        if not down or not (rule.reset_when_down or rule.drain_period_in_seconds is not None):
            return
        period = 0.0 if rule.reset_when_down else (rule.drain_period_in_seconds or 0) * self._config.time_scale
        reason = "admin state Down" if rule.reset_when_down else "the drain period is over"
        self._drains[pool, member.id] = asyncio.create_task(
            self._end_flows(pool, member.id, admin.since + period - time.time(), reason)
        )

    async def _end_flows(self, pool: str, member: int, seconds: float, reason: str) -> None:
        await asyncio.sleep(max(seconds, 0))
        try:
            await self._flows.end(pool, member, reason)
        except OSError as error:
            self._record("reset", reason=reason, error=str(error))

    def _answer(self, op: str, asked: dict[str, Any]) -> dict[str, Any]:
        if op == "ping":
            return {"pid": os.getpid()}
        if op == "status":
            return asdict(self._status())
        if op == "stopped":
            change = self._stopped.add if asked.get("stopped") else self._stopped.discard
            change(str(asked.get("machine")))
            return {}
        if op in ("backend", "flows"):
            return self._backend_address(asked)
        return {"error": f"unknown op {op!r}"}

    def _backend_address(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Change a member's admin state in a pool, if one is given; and tell its state and its flows."""
        pool, state = asked.get("pool"), asked.get("admin_state")
        places = [
            (rule, member)
            for rule in self._config.rules
            for member in rule.members
            if (rule.backend_address_pool, member.key) == (pool, asked.get("member"))
        ]
        if not places:
            return {"error": f"pool {pool!r} has no member {asked.get('member')!r}"}
        if state not in (None, "None", "Up", "Down"):
            return {"error": f"{state!r} is not an admin state"}
        member = places[0][1]
        if state is not None and state != self._admin.of(str(pool), member).state:
            self._admin.change(str(pool), member, state, time.time())
            self._keep(self._admin.save, "admin states are")
            self._record("admin-state", pool=pool, machine=member.machine, admin_state=state)
            for rule, each in places:
                self._apply(rule)
                self._settle(rule, each)
        admin = self._admin.of(str(pool), member)
        return {"admin_state": admin.state, "since": admin.since, "flows": self._flows.left(str(pool), member.id)}

    def _status(self) -> ControllerStatus:
        counters = self._backend.counters()

        def status(rule: Rule, member: Member) -> MemberStatus:
            return member_status(
                member,
                self._by_member.get((rule.id, member.id)),
                counters.get(member.id),
                eligible=member.id in self._applied[rule.id],
                admin_state=self._admin.of(rule.backend_address_pool, member).state,
                stopped=member.machine in self._stopped,
                started=self._started,
            )

        rules = tuple(
            RuleStatus(
                rule.id,
                rule.key,
                rule.load_balancer,
                rule.frontend,
                tuple(status(rule, member) for member in rule.members),
            )
            for rule in self._config.rules
        )
        return ControllerStatus(self._config.lab, os.getpid(), self._started, rules)


def _backend(config: ControllerConfig) -> Backend:
    if config.backend == "nftables":
        from testbed.balancer.nftables import NftablesBackend

        return NftablesBackend(config.rules)
    if config.backend == "ipvs":
        from testbed.balancer.ipvs import IpvsBackend

        return IpvsBackend(config.rules, config.scheduler)
    raise LabError(f"unknown balancer backend {config.backend!r}", fix="use 'nftables' or 'ipvs'")


async def _until_signal(config: ControllerConfig, backend: Backend) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run(config, backend, stop)


def main() -> int:
    """``python -m testbed.probes.controller --config FILE``: run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="testbed.probes.controller", description="The lab's probe controller.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file written by 'testbed up'")
    arguments = parser.parse_args()
    try:
        config = ControllerConfig.from_json(arguments.config.read_text())
        set_process_name("tb-controller")
        if config.namespace is not None:
            enter(config.namespace)  # the process has one thread yet, so all of it moves
        asyncio.run(_until_signal(config, _backend(config)))
    except OSError as error:
        print(f"probe controller: {error}", file=sys.stderr)
        return 4
    except TestbedError as error:
        print(f"probe controller: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
