"""Starts the programs of many machines at once: loads them once, then forks one daemon per machine.

``python -m testbed.nodes.launcher`` reads a JSON list of programs and writes a JSON list of what was started.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from testbed.errors import LabError, TestbedError
from testbed.kernel import processes
from testbed.kernel.namespaces import enter
from testbed.kernel.processes import identify, set_process_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.nodes.program import Program

__all__ = ["PROGRAMS", "Launched", "ProgramSpec", "launch"]

#: Kind of program, and the module whose ``run`` it is.
PROGRAMS = {
    "dhcp": "testbed.nodes.dhcp",
    "echo": "testbed.nodes.echo",
    "nft-firewall": "testbed.nodes.nft_firewall",
}
_READY = b"ready"
_READY_SECONDS = 30.0
_LOG_TAIL = 2000


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A program to start. ``config`` is its JSON configuration, ``log`` the file it writes to."""

    namespace: str
    machine: str
    kind: str
    config: str
    log: str


@dataclass(frozen=True, slots=True)
class Launched:
    """A program that runs; ``start_time`` tells it from a later process of the same pid."""

    machine: str
    pid: int
    start_time: int


@dataclass(slots=True)
class _Child:
    spec: ProgramSpec
    pid: int
    pipe: int
    log_begin: int
    said: bytes = b""
    ended: bool = False


def launch(specs: Sequence[ProgramSpec]) -> tuple[Launched, ...]:
    """Start all programs and wait until each is ready.

    Raises:
        LabError: One failed; those that had started are ended again.
    """
    if not specs:
        return ()
    pipe = subprocess.PIPE
    with processes.start_module("testbed.nodes.launcher", stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            wanted = json.dumps([asdict(spec) for spec in specs]).encode()
            answer, errors = process.communicate(wanted, timeout=2 * _READY_SECONDS)
        except BaseException:
            process.terminate()  # it ends those that it has started
            raise
    try:
        answers = json.loads(answer)
    except ValueError as error:
        tail = errors.decode(errors="replace")[-_LOG_TAIL:].strip()
        raise LabError(f"the programs of {len(specs)} machines were not started: {tail}") from error
    failed = [each for each in answers if each["error"]]
    if failed:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise LabError(f"the program of machine {first['machine']!r} did not start{more}: {first['error']}")
    return tuple(Launched(each["machine"], each["pid"], each["start_time"]) for each in answers)


def _fork(spec: ProgramSpec) -> _Child:
    try:
        log_begin = Path(spec.log).stat().st_size
    except OSError:
        log_begin = 0
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(spec, write)
    os.close(write)
    return _Child(spec, pid, read, log_begin)


def _become(spec: ProgramSpec, pipe: int) -> NoReturn:
    """The rest of a child's life."""
    status = 1
    try:
        _detach(spec, pipe)
        program: Program = importlib.import_module(PROGRAMS[spec.kind]).run

        def ready() -> None:
            os.write(pipe, _READY)
            os.close(pipe)

        asyncio.run(program(spec.config, ready))
        status = 0
    except (TestbedError, OSError) as error:
        print(f"{spec.kind}: {error}", file=sys.stderr, flush=True)
    except Exception:  # noqa: BLE001 - goes to the program's log, and must not run on in the launcher's code
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _detach(spec: ProgramSpec, pipe: int) -> None:
    """Own session, own name, own namespace, log instead of terminal, and no descriptor of the starter's."""
    os.setsid()
    log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    set_process_name(f"tb-{spec.kind}")
    # When memory runs out, a lab goes before what the computer is for.
    Path("/proc/self/oom_score_adj").write_text("500")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN if number == signal.SIGPIPE else signal.SIG_DFL)
    enter(spec.namespace)


def _wait(children: Sequence[_Child], seconds: float) -> None:
    """Until each has said that it is ready, or has ended, or the time is over."""
    deadline = time.monotonic() + seconds
    poller = select.poll()
    waiting = {child.pipe: child for child in children}
    for pipe in waiting:
        poller.register(pipe, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for pipe, _ in poller.poll(left * 1000):
            child = waiting[pipe]
            data = os.read(pipe, 64)
            child.said += data
            if not data or child.said == _READY:
                child.ended = not data
                poller.unregister(pipe)
                del waiting[pipe]


def _complaint(child: _Child) -> str:
    if child.said == _READY:
        return ""
    if not child.ended:
        return f"not ready after {_READY_SECONDS:g} s"
    try:
        tail = Path(child.spec.log).read_bytes()[child.log_begin :][-_LOG_TAIL:].decode(errors="replace").strip()
    except OSError as error:
        tail = str(error)
    return tail or "it ended without a word"


def _start(specs: Sequence[ProgramSpec], children: list[_Child]) -> list[dict[str, object]]:
    """Start all; ``children`` grows as they are forked. When one failed, all are ended again."""
    unknown = {spec.kind for spec in specs} - PROGRAMS.keys()
    if unknown:
        wrong = [spec for spec in specs if spec.kind in unknown]
        return [_answer(spec, 0, f"unknown program {spec.kind!r}") for spec in wrong]
    for kind in {spec.kind for spec in specs}:
        importlib.import_module(PROGRAMS[kind])
    gc.freeze()  # what is loaded now stays shared between all children
    for spec in specs:
        children.append(_fork(spec))  # noqa: PERF401 - whoever ends them must know each at once
    _wait(children, _READY_SECONDS)
    answers = [_answer(child.spec, child.pid, _complaint(child)) for child in children]
    if any(answer["error"] for answer in answers):
        _end(children)
    return answers


def _answer(spec: ProgramSpec, pid: int, complaint: str) -> dict[str, object]:
    started = 0 if complaint else identify(pid).start_time
    return {"machine": spec.machine, "pid": pid, "start_time": started, "error": complaint}


def _end(children: list[_Child]) -> None:
    for child in children:
        os.kill(child.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
        os.waitpid(child.pid, 0)
    children.clear()


def _terminated(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(1)


def main() -> int:
    """Start what standard input says; tell on standard output. Nobody left to tell: end them again."""
    signal.signal(signal.SIGTERM, _terminated)
    children: list[_Child] = []
    try:
        answers = _start([ProgramSpec(**each) for each in json.load(sys.stdin)], children)
        os.write(sys.stdout.fileno(), json.dumps(answers).encode())
    except BaseException:
        _end(children)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
