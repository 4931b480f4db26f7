"""The event log: whole lines, readers that survive crashes, following."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from testbed.probes import events

if TYPE_CHECKING:
    from pathlib import Path


def test_events_come_back_in_order(tmp_path: Path) -> None:
    """`read` gives what was appended, stamped, with its fields."""
    first = events.append(tmp_path, "fault", machine="nva1", kind="crash")
    second = events.append(tmp_path, "health", healthy=False)
    assert events.read(tmp_path) == (first, second)
    assert first.fields == {"machine": "nva1", "kind": "crash"}
    assert first.time <= second.time


def test_no_file_is_no_events(tmp_path: Path) -> None:
    """A lab that nothing happened in has an empty log."""
    assert events.read(tmp_path) == ()


def test_unfinished_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    """Half a line, a list and a line without a time do not stop the reader."""
    good = events.append(tmp_path, "update")
    with (tmp_path / events.FILE_NAME).open("ab") as file:
        file.write(b'[1]\n{"event": "x"}\n\xff\n{"time": 1, "eve')
    assert events.read(tmp_path) == (good,)


def test_writers_do_not_mix(tmp_path: Path) -> None:
    """Lines written by many threads at once are all there and all whole."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: events.append(tmp_path, "probe", n=n, text="x" * 3000), range(400)))
    assert sorted(event.fields["n"] for event in events.read(tmp_path)) == list(range(400))


def test_follow_gives_old_and_new_events(tmp_path: Path) -> None:
    """A follower sees what was there, then what comes, and ends when it is told."""
    events.append(tmp_path, "one")
    stop = threading.Event()
    follower = events.follow(tmp_path, stop=stop)
    assert next(follower).event == "one"
    events.append(tmp_path, "two")
    assert next(follower).event == "two"
    events.append(tmp_path, "three")
    stop.set()
    assert [event.event for event in follower] == ["three"]


def test_follow_can_skip_the_past(tmp_path: Path) -> None:
    """With `from_start` false only what comes after the first look is given."""
    events.append(tmp_path, "old")
    stop = threading.Event()
    stop.set()
    assert list(events.follow(tmp_path, stop=stop, from_start=False)) == []


def test_follow_ends_with_the_lab(tmp_path: Path) -> None:
    """When the state directory is removed the follower ends by itself."""
    gone = tmp_path / "lab"
    gone.mkdir()
    events.append(gone, "last")
    follower = events.follow(gone)
    assert next(follower).event == "last"
    (gone / events.FILE_NAME).unlink()
    gone.rmdir()
    assert list(follower) == []
