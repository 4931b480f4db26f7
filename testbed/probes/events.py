"""What happened in a lab, one JSON object per line in ``events.jsonl`` of its state directory.

Several processes write (the probe controller, the commands). A line is one ``write`` to a file opened for
appending, so lines never mix; a reader passes over a line that a crash left unfinished.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["FILE_NAME", "Event", "append", "follow", "read"]

FILE_NAME = "events.jsonl"
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Event:
    """One event: when (unix seconds), what (``probe``, ``health``, ``update``, …) and its own fields."""

    time: float
    event: str
    fields: Mapping[str, Any]

    def to_json(self) -> str:
        """The line as it stands in the file, without its end."""
        return json.dumps({"time": self.time, "event": self.event, **self.fields})


def append(state_directory: Path | str, event: str, **fields: object) -> Event:
    """Write one event, stamped with the time of now.

    Raises:
        OSError: The state directory is gone or full.
    """
    made = Event(time.time(), event, fields)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(Path(state_directory, FILE_NAME), flags, 0o644)
    try:
        os.write(descriptor, f"{made.to_json()}\n".encode())
    finally:
        os.close(descriptor)
    return made


def _parse(line: bytes) -> Event | None:
    try:
        fields = json.loads(line)
        return Event(float(fields.pop("time")), str(fields.pop("event")), fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _complete(data: bytes) -> tuple[list[Event], bytes]:
    """The events of all finished lines, and the unfinished rest."""
    *lines, rest = data.split(b"\n")
    return [event for event in map(_parse, lines) if event], rest


def read(state_directory: Path | str) -> tuple[Event, ...]:
    """All events so far, oldest first; none when nothing was ever written."""
    try:
        data = Path(state_directory, FILE_NAME).read_bytes()
    except FileNotFoundError:
        return ()
    return tuple(_complete(data)[0])


def follow(
    state_directory: Path | str, *, stop: threading.Event | None = None, from_start: bool = True
) -> Iterator[Event]:
    """Events as they come, after those that are there already (``from_start``).

    Ends when ``stop`` is set or the state directory is removed. Looks every 50 ms.
    """
    ended = stop or threading.Event()
    path = Path(state_directory, FILE_NAME)
    offset = 0 if from_start or not path.exists() else path.stat().st_size
    rest = b""
    while True:
        last_look = ended.is_set()
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            if not path.parent.is_dir():
                return
            data = b""
        offset += len(data)
        events, rest = _complete(rest + data)
        yield from events
        if last_look:
            return
        ended.wait(_POLL_SECONDS)
