"""The words of the command line: what is understood, what is refused, and what the help shows."""

from __future__ import annotations

import shlex

import pytest

from testbed.cli import fault_verb, main, verify_verb
from testbed.cli.parser import GROUPS, VERBS, parse, verb_module
from testbed.errors import InputError
from testbed.lab.fault_record import Kind
from testbed.lab.verification import CHECKS


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_its_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` ends well and shows what the verb does, each example and ``--json``."""
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert verb_module(verb).HELP in out
    assert "--json" in out
    for line in verb_module(verb).EXAMPLE.splitlines():
        assert f"  {line}\n" in out


@pytest.mark.parametrize("verb", VERBS)
def test_examples_can_be_typed(verb: str) -> None:
    """The parser understands each example, and it is one of this verb."""
    for line in verb_module(verb).EXAMPLE.splitlines():
        program, *words = shlex.split(line.partition(" > ")[0])
        assert program == "testbed"
        assert parse(words).verb == verb


def test_the_help_names_each_verb_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb stands below a heading with its line, and fits into 100 columns."""
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for heading, verbs in GROUPS.items():
        assert f"{heading}:" in lines
        for verb in verbs:
            assert lines.count(f"  {verb:9} {verb_module(verb).HELP}") == 1
    assert max(map(len, lines[: lines.index("options:")])) <= 103


def test_no_words_show_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a verb nothing is done: status 2, the help on standard error, nothing on standard output."""
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "start here:" in err


def test_words_of_the_parser_are_those_of_the_lab() -> None:
    """The names of checks and faults that the parser keeps for speed are the lab's own."""
    assert verify_verb.CHECKS == CHECKS
    assert set(verify_verb.FAULTS) == set(fault_verb.KINDS) == set(Kind)


@pytest.mark.parametrize(
    ("words", "command", "as_json"),
    [
        (["exec", "l", "m", "--", "ls", "--json"], ["ls", "--json"], False),
        (["exec", "l", "m", "ls", "-l", "--json"], ["ls", "-l", "--json"], False),
        (["exec", "--json", "l", "m", "--", "ls"], ["ls"], True),
        (["exec", "l", "m", "--json", "--", "ls", "-h"], ["ls", "-h"], True),
        (["exec", "l", "--json", "m", "ls", "--help"], ["ls", "--help"], True),
        (["exec", "l", "m", "--", "sh", "-c", "echo -- x"], ["sh", "-c", "echo -- x"], False),
        (["exec", "l", "m", "--", "cmd", "--", "-x"], ["cmd", "--", "-x"], False),
        (["exec", "l", "m", "--", "--odd"], ["--odd"], False),
        (["exec", "l", "m", "--"], [], False),
        (["exec", "l", "m"], [], False),
    ],
)
def test_the_command_of_exec_is_left_alone(words: list[str], command: list[str], as_json: bool) -> None:  # noqa: FBT001
    """What stands behind ``--``, or behind the machine, belongs to the command, also when it looks like ours."""
    found = parse(words)
    assert (found.lab, found.machine, found.command, found.json) == ("l", "m", command, as_json)


@pytest.mark.parametrize(
    "words",
    [
        ["capture", "l", "m", "-c", "3", "tcp", "port", "80"],
        ["capture", "-c", "3", "l", "m", "tcp", "port", "80"],
        ["capture", "l", "m", "tcp", "port", "80", "-c", "3"],
        ["capture", "l", "m", "-c", "3", "--", "tcp", "port", "80"],
    ],
)
def test_options_may_stand_anywhere_among_the_filter(words: list[str]) -> None:
    """Machine, options and the words of a filter are told apart in any order."""
    found = parse(words)
    assert (found.lab, found.machine, found.count, found.filter) == ("l", "m", 3, ["tcp", "port", "80"])


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "l", "symmetry", "failover", "--machine", "nva1"],
        ["verify", "l", "--machine", "nva1", "symmetry", "failover"],
        ["verify", "l", "symmetry", "--machine", "nva1", "failover"],
    ],
)
def test_options_may_stand_anywhere_among_the_checks(words: list[str]) -> None:
    """The names of checks are understood before and after the options."""
    found = parse(words)
    assert (found.lab, found.checks, found.machine) == ("l", ["symmetry", "failover"], "nva1")


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        (["stauts"], "there is no verb 'stauts'", "did you mean 'testbed status'?"),
        (["xyz"], "there is no verb 'xyz'", "see: testbed --help"),
        (["status"], "the following arguments are required: LAB", "see: testbed status --help"),
        (["verify"], "the following arguments are required: LAB", "see: testbed verify --help"),
        (["capture", "l"], "the following arguments are required: MACHINE", "see: testbed capture --help"),
        (["status", "l", "--josn"], "not understood: --josn", "see: testbed status --help"),
        (["status", "l", "--js"], "not understood: --js", "see: testbed status --help"),
        (["routes", "l", "m", "n"], "not understood: n", "see: testbed routes --help"),
        (["verify", "l", "speed"], "argument CHECK: there is no check 'speed'", "see: testbed verify --help"),
        (["fault", "l", "m"], "one of the arguments KIND --clear --list is required", "see: testbed fault --help"),
        (["down"], "one of the arguments LAB --all is required", "see: testbed down --help"),
        (["down", "l", "--all"], "not allowed with argument", "see: testbed down --help"),
        (["up", "f", "--time-scale", "0"], "'0' is not a number from 0.001 to 100", "see: testbed up --help"),
        (["explain", "l", "--from", "m", "--to", "10.0"], "'10.0' is not an IP address", "see: testbed explain --help"),
    ],
)
def test_words_that_are_refused(words: list[str], message: str, fix: str) -> None:
    """The error names the word that is wrong, and the help that fits."""
    with pytest.raises(InputError) as caught:
        parse(words)
    assert message in caught.value.message
    assert "required" not in message or caught.value.message == message  # and nothing more is
    assert caught.value.fix == fix
