"""Configure steps and diagnostics, with a transport that runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from testbed.access.configure import digest, run_steps
from testbed.access.diagnostics import collect
from testbed.access.secrets import Secrets
from testbed.access.transport import Answer, FakeTransport
from testbed.errors import DeadlineError, InputError, LabError
from testbed.topology.model import Machine

if TYPE_CHECKING:
    from pathlib import Path

NIC = {"subnet": "hub/nva", "private_ip_address": "10.0.1.4"}
KNOWN = {"lab": "lab", "machine": {"name": "nva1"}, "machines": {}}
PASSWORD = "hunter2"  # noqa: S105 - it is none


def machine(*steps: dict[str, Any], diagnostics: tuple[str, ...] = ()) -> Machine:
    values = {"name": "nva1", "network_interfaces": [NIC], "configure": steps, "diagnostics": diagnostics}
    return Machine.model_validate(values)


def run(
    document: Machine,
    transport: FakeTransport,
    folder: Path,
    *,
    seconds: float = 60,
    environment: dict[str, str] | None = None,
) -> list[str]:
    """Run the steps; returns what was said."""
    said: list[str] = []
    secrets = Secrets({"TOKEN": PASSWORD} if environment is None else environment)
    run_steps(document, KNOWN, transport, secrets=secrets, folder=folder, say=said.append, seconds=seconds)
    return said


def test_commands_run_in_order(tmp_path: Path) -> None:
    """Commands of all steps, filled in; each is announced."""
    transport = FakeTransport()
    document = machine({"commands": ["echo {{ machine.name }}", "true"]}, {"commands": ["a\nb"]})
    said = run(document, transport, tmp_path)
    assert transport.commands == ["echo nva1", "true", "a\nb"]
    assert said == ["nva1: configure step 1: echo nva1", "nva1: configure step 1: true", "nva1: configure step 2: a…"]


def test_a_template_is_a_file_or_commands(tmp_path: Path) -> None:
    """With a path it is put as it is; without one each line is a command, but for comments and blank ones."""
    (tmp_path / "setup.j2").write_text("# of {{ lab }}\n\n  sysctl -w a=1\n{% if lab %}ip link\n{% endif %}")
    (tmp_path / "policy.j2").write_text("# of {{ lab }}\n\ntable {}\n")
    transport = FakeTransport()
    said = run(
        machine(
            {"template": "policy.j2", "path": "/etc/policy", "mode": "0600"},
            {"template": "setup.j2"},
            {"content": "x {{ machine.name }}", "path": "/etc/x"},
        ),
        transport,
        tmp_path,
    )
    assert transport.files == {"/etc/policy": (b"# of lab\n\ntable {}\n", 0o600), "/etc/x": (b"x nva1", 0o644)}
    assert transport.commands == ["sysctl -w a=1", "ip link"]
    assert said[0] == "nva1: configure step 1: put /etc/policy"


def test_the_first_failure_is_the_end(tmp_path: Path) -> None:
    """The error names machine, step, command, status and the end of the output; nothing runs after it."""
    said = "".join(f"line {number}\n" for number in range(20))
    transport = FakeTransport(lambda command: Answer(3, said, "oh no\n") if command == "bad" else Answer(0))
    with pytest.raises(LabError) as raised:
        run(machine({"commands": ["good"]}, {"commands": ["bad", "never"]}), transport, tmp_path)
    head, *last = raised.value.message.splitlines()
    assert head == "machine 'nva1': configure step 2, command 'bad': ended with exit status 3"
    assert last == [*(f"    line {number}" for number in range(11, 20)), "    oh no"]
    assert transport.commands == ["good", "bad"]
    assert raised.value.fix


def test_no_secret_in_what_is_said_or_raised(tmp_path: Path) -> None:
    """The command has the secret; announcements, errors and quoted output have not."""
    transport = FakeTransport(lambda _command: Answer(1, f"tried {PASSWORD}\n", f"'{PASSWORD}' is wrong\n"))
    said: list[str] = []
    with pytest.raises(LabError) as raised:
        run_steps(
            machine({"commands": ["login {{ env('TOKEN') }}"]}),
            KNOWN,
            transport,
            secrets=Secrets({"TOKEN": PASSWORD}),
            folder=tmp_path,
            say=said.append,
            seconds=60,
        )
    assert transport.commands == [f"login {PASSWORD}"]
    assert PASSWORD not in f"{said} {raised.value}"
    assert said == ["nva1: configure step 1: login ***"]
    assert "command 'login ***'" in raised.value.message
    assert "tried ***" in raised.value.message


def test_a_secret_of_several_lines_is_not_cut_open(tmp_path: Path) -> None:
    """What is shortened is masked before: half of a secret would not be found."""
    value = "\n".join(f"secret line {number}" for number in range(30))
    transport = FakeTransport(lambda _command: Answer(1, value, ""))
    with pytest.raises(LabError) as raised:
        run(machine({"commands": ["echo {{ env('TOKEN') }}"]}), transport, tmp_path, environment={"TOKEN": value})
    assert "secret line" not in str(raised.value)


@pytest.mark.parametrize(
    "late", [{"commands": ["{{ nonsense }}"]}, {"template": "missing.j2"}, {"commands": ["{{ env('GONE') }}"]}]
)
def test_a_mistake_in_a_late_step_is_found_before_anything_is_done(tmp_path: Path, late: dict[str, Any]) -> None:
    """All templates are filled in first."""
    transport = FakeTransport()
    with pytest.raises(InputError, match="machine 'nva1': configure step 2"):
        run(machine({"commands": ["true"]}, late), transport, tmp_path)
    assert transport.commands == []


def test_a_broken_connection_names_the_step(tmp_path: Path) -> None:
    """The transport knows the machine, the step is added."""

    def broken(_command: str) -> Answer:
        raise LabError("the connection broke", fix="see the machine")

    with pytest.raises(LabError) as raised:
        run(machine({"commands": ["true"]}), FakeTransport(broken), tmp_path)
    assert raised.value.message == "machine 'nva1': configure step 1, command 'true': the connection broke"
    assert raised.value.fix == "see the machine"


def test_the_time_is_for_all_steps(tmp_path: Path) -> None:
    """When it is up, nothing more is started."""
    with pytest.raises(DeadlineError, match="machine 'nva1': configure step 1: not within 0 s"):
        run(machine({"commands": ["true"]}), FakeTransport(), tmp_path, seconds=0)


def test_the_digest_sees_what_matters(tmp_path: Path) -> None:
    """It changes with a step, with a template file, and with a fact that is used; not with one that is not."""
    template = tmp_path / "t.j2"
    template.write_text("{{ lab }}")
    second = {"commands": ["echo {{ env('TOKEN') }}"]}
    document = machine({"template": "t.j2"}, second)
    first = digest(document, KNOWN, tmp_path)
    assert first == digest(document, KNOWN, tmp_path)
    assert first == digest(document, {**KNOWN, "machines": {"web9": {}}}, tmp_path)
    assert first != digest(document, {**KNOWN, "lab": "other"}, tmp_path)
    assert first != digest(machine({"template": "t.j2"}), KNOWN, tmp_path)
    assert first != digest(machine({"template": "t.j2", "path": "/x"}, second), KNOWN, tmp_path)
    template.write_text("{{ lab }} ")
    assert first != digest(document, KNOWN, tmp_path)
    assert digest(machine(), KNOWN, tmp_path) == ""
    with pytest.raises(InputError, match="there is no template"):
        digest(machine({"template": "missing.j2"}), KNOWN, tmp_path)


def test_diagnostics_show_everything(tmp_path: Path) -> None:
    """Each command with its output and status; one that cannot run does not keep the others from running."""
    del tmp_path

    def answer(command: str) -> Answer:
        if command == "gone":
            raise LabError("machine 'nva1' (10.0.1.4) port 22: connection refused")
        return Answer(0, f"out of {PASSWORD}\n", "err") if command == "a" else Answer(2)

    secrets = Secrets()
    secrets.remember(PASSWORD)
    text = collect(machine(diagnostics=("a", "gone", "b")), FakeTransport(answer), secrets, 60)
    assert text.splitlines() == [
        "$ a",
        "out of ***",
        "err",
        "[exit status 0]",
        "",
        "$ gone",
        "[not done: machine 'nva1' (10.0.1.4) port 22: connection refused]",
        "",
        "$ b",
        "[exit status 2]",
    ]
    assert collect(machine(), FakeTransport(answer), secrets, 60) == ""


def test_long_diagnostics_keep_their_end() -> None:
    """And say how much is missing."""
    transport = FakeTransport(lambda _command: Answer(0, "".join(f"{number}\n" for number in range(1000))))
    secrets = Secrets()
    secrets.remember("\n".join(str(number) for number in range(590, 605)))  # the cut would go through it
    assert "\n602\n" not in collect(machine(diagnostics=("x",)), transport, secrets, 60)
    lines = collect(machine(diagnostics=("x",)), transport, Secrets(), 60).splitlines()
    assert lines[:3] == ["$ x", "[600 lines left out]", "600"]
    assert lines[-2:] == ["999", "[exit status 0]"]
