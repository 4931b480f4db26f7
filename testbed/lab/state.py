"""What a lab leaves on disk: ``/run/testbed/LAB/``. It helps, but ``down`` works without it.

``lab.json`` (where the document is, the numbers given so far, the images of built containers), ``topology.yaml``
(the document as it was read), ``ruleset.nft`` and ``netdev-testbed_nsg.nft`` (the nftables texts loaded last),
``processes.json``, and what the controller and the programs write: ``events.jsonl``, ``health.json``, sockets, logs.
Files are replaced whole, never half-written.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.deadline import wait_for
from testbed.errors import InputError, LabError, MachineError, UnknownLabError
from testbed.kernel import namespaces
from testbed.kernel.processes import Process
from testbed.plan.replacement import BALANCER_TABLES
from testbed.runtimes.base import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ROOT", "Record", "Running", "State", "check_lab_name", "labs", "locked"]

#: Volatile on purpose: namespaces do not survive a reboot either.
ROOT = Path("/run/testbed")
_LOCK_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Record:
    """What has to be remembered between two commands.

    ``time_scale`` is the one in force, which ``up --time-scale`` may have set against the document.
    """

    lab: str
    document: str
    time_scale: float
    numbers: dict[str, int] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    """Image of each ``build`` of the document."""
    runtimes: list[str] = field(default_factory=list)
    """Kinds of machines it has."""
    balancer: str = "nftables"
    """The one in force, which ``up --balancer`` may have set against the document."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that the lab started, and the configuration it was started with."""

    process: Process
    kind: str
    config: str


class State:
    """The state directory of one lab."""

    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.directory = ROOT / lab

    @property
    def place(self) -> Place:
        """What the lab's runtimes are told of it."""
        return Place(self.lab, self.directory)

    def __truediv__(self, name: str) -> Path:
        return self.directory / name

    def write(self, name: str, text: str) -> None:
        """Replace a file as a whole; the directory is made when it is not there."""
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = self / f".{name}.new"
        temporary.write_text(text)
        temporary.replace(self / name)

    def _read(self, name: str) -> str | None:
        try:
            return (self / name).read_text()
        except FileNotFoundError:
            return None

    def record(self) -> Record | None:
        """The record, or ``None`` when there is none.

        Raises:
            LabError: The file is not what the testbed wrote.
        """
        text = self._read("lab.json")
        try:
            return Record(**json.loads(text)) if text is not None else None
        except (TypeError, ValueError) as error:
            fix = f"remove the lab: testbed down {self.lab}"
            raise LabError(f"{self / 'lab.json'} is damaged: {error}", fix=fix) from error

    def need_record(self) -> Record:
        """The record of a lab that must be there.

        Raises:
            UnknownLabError: It is not.
        """
        record = self.record()
        if record is None:
            if self.lab in labs() or (self.lab and namespaces.owned(self.lab)):
                fix = f"remove what is left of it: testbed down {self.lab}"
                raise UnknownLabError(f"lab {self.lab!r} has lost its state", fix=fix)
            known = ", ".join(labs()) or "none"
            raise UnknownLabError(f"there is no lab {self.lab!r}", fix=f"labs that are up: {known}")
        return record

    def write_record(self, record: Record) -> None:
        """Remember."""
        self.write("lab.json", json.dumps(asdict(record), indent=1))

    def ruleset(self, table: str) -> str | None:
        """The nftables text loaded last into a table of the fabric (``family name``)."""
        return self._read(_ruleset_file(table))

    def write_ruleset(self, table: str, text: str) -> None:
        """Remember what was loaded."""
        self.write(_ruleset_file(table), text)

    def running(self) -> dict[str, Running]:
        """Processes by machine name; the controller is ``controller``. Dead ones are left out."""
        text = self._read("processes.json")
        found = {}
        for name, each in (json.loads(text) if text else {}).items():
            process = Process(each["pid"], each["start_time"])
            if process.alive():
                found[name] = Running(process, each["kind"], each["config"])
        return found

    def remember(self, started: dict[str, Running]) -> None:
        """Add processes to the remembered ones."""
        self.write_running(self.running() | started)

    def write_running(self, running: dict[str, Running]) -> None:
        """Remember the processes."""
        entries = {
            name: {
                "pid": each.process.pid,
                "start_time": each.process.start_time,
                "kind": each.kind,
                "config": each.config,
            }
            for name, each in running.items()
        }
        self.write("processes.json", json.dumps(entries, indent=1))

    def remove(self) -> None:
        """Remove the directory and all in it."""
        shutil.rmtree(self.directory, ignore_errors=True)
        with suppress(OSError):
            ROOT.rmdir()  # only when it was the last lab


def _ruleset_file(table: str) -> str:
    return "ruleset.nft" if table == BALANCER_TABLES[4] else f"{table.replace(' ', '-')}.nft"


def check_lab_name(name: str) -> None:
    """Refuse a name that cannot be part of a namespace's and a file's name.

    Raises:
        InputError: It cannot.
    """
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    if not name or len(name) > 40 or set(name) - allowed or name.startswith("-") or name.endswith("-"):
        fix = "lower case letters, digits and inner hyphens, at most 40"
        raise InputError(f"{name!r} cannot be the name of a lab", fix=fix)


def labs() -> tuple[str, ...]:
    """Names of all labs that have a state directory."""
    with suppress(FileNotFoundError):
        return tuple(sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir()))
    return ()


@contextmanager
def locked(lab: str) -> Iterator[None]:
    """Keep other ``up`` and ``down`` of this lab away; the lock goes with the process that holds it.

    Raises:
        DeadlineError: Somebody else holds it for 30 seconds.
    """
    path = ROOT / f".{lab}.lock"
    handle = wait_for(
        f"lab {lab!r} is being changed by another 'testbed up' or 'down'",
        lambda: _try_lock(path),
        lambda handle: handle is not None,
        seconds=_LOCK_PATIENCE,
        describe=lambda _: "locked",
    )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits sees that the file is another one
        if handle is not None:
            os.close(handle)
        with suppress(OSError):
            ROOT.rmdir()


def _try_lock(path: Path) -> int | None:
    """An open file that holds the lock, or ``None`` when somebody else has it."""
    try:
        ROOT.mkdir(mode=0o755, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    except FileNotFoundError:
        return None  # the last lab went between the two calls, and its directory with it
    except PermissionError as error:
        raise MachineError(f"cannot write to {ROOT}", fix="run as root, for example with sudo") from error
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino == path.stat().st_ino:
            return handle
    os.close(handle)
    return None
