"""From what happened to the exit status, and to words on the right stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed import errors
from testbed.cli import main, schema_verb

if TYPE_CHECKING:
    import argparse

ROOT = Path(__file__).parents[3]
HUB_SPOKE = ROOT / "topologies/hub-spoke.yaml"


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let a verb end with an error."""

    def run(_arguments: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(schema_verb, "run", run)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.VerdictError, 1),
        (errors.InputError, 2),
        (errors.DocumentError, 2),
        (errors.LabExistsError, 2),
        (errors.UnknownLabError, 2),
        (errors.MachineError, 3),
        (errors.LabError, 4),
        (errors.DeadlineError, 4),
        (errors.TestbedError, 4),
    ],
)
def test_each_error_has_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: type[errors.TestbedError], status: int
) -> None:
    """An error becomes its exit status; message, notes and fix stand on standard error alone."""
    error = kind("the cable is cut", fix="mend it")
    error.add_note("while digging")
    failing(monkeypatch, error)
    assert main(["schema"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: the cable is cut\nwhile digging\n  fix: mend it\n"


def test_an_error_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--json`` the error is one document on standard output, and nothing else is printed."""
    failing(monkeypatch, errors.MachineError("no rights", fix="sudo"))
    assert main(["schema", "--json"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"message": "no rights", "fix": "sudo", "type": "MachineError"}}
    assert err == ""


def test_wrong_words_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Words that are not understood are told as JSON too when ``--json`` is among them."""
    assert main(["status", "--json", "--bogus", "x"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["message"] == "not understood: --bogus"
    assert err == ""


def test_the_json_of_a_command_is_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` behind ``--`` belongs to the command: our error stays text."""
    assert main(["exec", "--bogus", "x", "y", "--", "ip", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")


def test_a_bug_is_told_as_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An error nobody thought of: status 4, the traceback on standard error, with ``--json`` still one document."""
    failing(monkeypatch, ZeroDivisionError("oops"))
    assert main(["schema", "--json"]) == 4
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["type"] == "ZeroDivisionError"
    assert "Traceback" in err
    assert main(["schema"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: this is a fault of the testbed: ZeroDivisionError('oops')" in err


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends a verb with 130 and no traceback."""
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["schema"]) == 130
    assert capsys.readouterr() == ("", "error: interrupted\n")


@pytest.mark.parametrize("verb", ["up", "plan", "graph"])
@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "not YAML", "wrong"])
def test_a_bad_document(verb: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is wrong with a document: status 2, each finding with its fix, nothing is made."""
    path = tmp_path / "lab.yaml"
    match kind:
        case "folder":
            path.mkdir()
        case "empty":
            path.write_text("")
        case "not YAML":
            path.write_text("a: [b\n")
        case "wrong":
            path.write_text(HUB_SPOKE.read_text().replace("sku: Standard", "sku: Basic"))
    assert main([verb, str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{path} has " in err
    assert f"{path}:" in err
    assert "fix:" in err
    assert main([verb, str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    told = json.loads(out)["error"]
    assert err == ""
    assert told["type"] == "DocumentError"
    assert [each["file"] for each in told["findings"]] == [str(path)] * len(told["findings"])
    assert all(each["fix"] for each in told["findings"])


def test_validate_tells_of_every_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bad document does not hide the verdict on the next; as JSON all findings are in one list."""
    bad = tmp_path / "none.yaml"
    assert main(["validate", str(bad), str(HUB_SPOKE)]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-2:] == [f"{bad}: 1 error", f"{HUB_SPOKE}: valid"]
    assert main(["validate", "--json", str(bad), str(HUB_SPOKE)]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is False
    assert [each["file"] for each in answer["findings"]] == [str(bad)]
    assert main(["validate", "--json", str(HUB_SPOKE)]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True


@pytest.mark.parametrize("name", ["../x", "A B", "-x", "x-", "x" * 41])
def test_a_name_that_no_lab_can_have(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that could leave its folder or namespace is refused before anything is done with it."""
    assert main(["plan", str(HUB_SPOKE), f"--lab={name}"]) == 2
    assert f"{name!r} cannot be the name of a lab" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["schema"], ["plan", str(HUB_SPOKE)], ["plan", str(HUB_SPOKE), "--json"], ["graph", str(HUB_SPOKE)]]
)
def test_json_and_text_have_no_colour_without_a_terminal(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing but the answer goes to a pipe."""
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out
    assert "\033" not in out
    assert err == ""
    if "--json" in words or words == ["schema"]:
        json.loads(out)


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "testbed", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, text=True, check=False, timeout=60, **options)


@pytest.mark.parametrize(
    ("words", "status"), [(["plan", HUB_SPOKE], 141), (["schema"], 141), (["status", "--json"], 2)], ids=str
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_had_enough(words: list[object], status: int, unbuffered: str) -> None:
    """Output into a pipe that nobody reads any more (``| head``): no traceback; a status is never made better."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with os.fdopen(writing, "w") as pipe:
        done = run(*words, stdout=pipe, stderr=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stderr) == (status, "")


def test_a_small_alphabet_is_enough() -> None:
    """Where standard output knows ASCII only, the help is printed all the same."""
    done = run("doctor", "--help", env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
