"""The words of what a machine is still waited for; connections are in the integration tests."""

from __future__ import annotations

import pytest

from testbed.access.reach import Reach
from testbed.access.ready import Condition, Sources, conditions, pending
from testbed.access.transport import Answer, FakeTransport, Transport
from testbed.errors import InputError, LabError
from testbed.topology.runtimes import Ready

REACH = Reach("lab", "nva1", "ready-no-such-namespace", "nva1-eth0", "10.0.1.4")


def sources(log: str = "", health: str = "", ssh: Transport | None = None) -> Sources:
    return Sources(REACH, lambda: log, lambda: health, lambda: ssh or FakeTransport())


def waits(sources: Sources, **ready: object) -> list[str]:
    return pending(conditions(Ready.model_validate(ready), sources))


def test_nothing_to_wait_for() -> None:
    """A machine without conditions is ready."""
    assert waits(sources()) == []


def test_several_are_all_of() -> None:
    """What is so drops out of the list, and what is not stays."""
    assert waits(sources(log="booted\n", health="starting"), log="^booted$", container_health=True) == [
        "container health: starting"
    ]


@pytest.mark.parametrize(
    ("log", "seen"),
    [("", ["log /ready/: not seen (0 lines)"]), ("a\nb", ["log /ready/: not seen (2 lines)"]), ("a\nready", [])],
)
def test_the_log(log: str, seen: list[str]) -> None:
    """How much was looked at is told."""
    assert waits(sources(log=log), log="ready") == seen


@pytest.mark.parametrize(
    ("health", "seen"),
    [("healthy", []), ("unhealthy", ["unhealthy"]), ("", ["the image has no HEALTHCHECK"])],
)
def test_the_health_of_a_container(health: str, seen: list[str]) -> None:
    """The engine's own word."""
    assert waits(sources(health=health), container_health=True) == [f"container health: {word}" for word in seen]


def test_a_command_by_ssh() -> None:
    """Its exit status is told, and the way in is closed after each look."""
    transport = FakeTransport(lambda command: Answer(0 if command == "true" else 1))
    assert waits(sources(ssh=transport), ssh="false") == ["ssh 'false': exit 1"]
    assert transport.closed
    assert waits(sources(ssh=transport), ssh="true") == []


def test_a_machine_that_is_not_reached() -> None:
    """Why is part of the text."""

    def broken(_command: str) -> Answer:
        raise LabError("connection refused")

    assert waits(sources(ssh=FakeTransport(broken)), ssh="true") == ["ssh 'true': connection refused"]


def test_what_no_waiting_brings_is_an_error() -> None:
    """A password that is not there will not come."""

    def locked_out() -> Transport:
        raise InputError("PASSWORD is not set")

    with pytest.raises(InputError):
        waits(Sources(REACH, lambda: "", lambda: "", locked_out), ssh="true")


def test_a_log_that_cannot_be_read() -> None:
    """An engine that is down is waited for as well."""

    def gone() -> str:
        raise LabError("the engine does not answer")

    both = Sources(REACH, gone, gone, FakeTransport)
    assert waits(both, log="x", container_health=True) == [
        "log /x/: the engine does not answer",
        "container health: the engine does not answer",
    ]


def test_a_fabric_that_is_gone() -> None:
    """Connections say so."""
    text = "network namespace 'ready-no-such-namespace' is gone"
    assert waits(sources(), tcp=22, http="http://:80/") == [f"tcp 22: {text}", f"http http://:80/: {text}"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("http", "http://10.0.1.5/", "asks 10.0.1.5, which is not its primary network interface"),
        ("http", "ftp://10.0.1.4/", "is not a URL of HTTP or HTTPS"),
        ("http", "http://:99999/", "is not a URL of HTTP or HTTPS"),
        ("log", "(", "'\\(' is not a regular expression"),
    ],
)
def test_conditions_that_make_no_sense(key: str, value: str, message: str) -> None:
    """They are refused before anybody waits."""
    with pytest.raises(InputError, match=message):
        waits(sources(), **{key: value})


def test_a_condition_is_looked_at_each_time() -> None:
    """Nothing is remembered: what was so can be otherwise."""
    seen = iter(["no", "", "no"])
    condition = Condition("x", lambda: next(seen))
    assert [condition.pending() for _ in range(3)] == ["x: no", "", "x: no"]
