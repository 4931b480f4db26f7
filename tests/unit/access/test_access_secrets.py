"""Secrets are read on demand, and no text that leaves contains one."""

from __future__ import annotations

import json
import shlex
from base64 import b64encode, urlsafe_b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.access.secrets import MASK, Secrets
from testbed.errors import InputError, LabError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
VALUE = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(lambda value: value.strip("*"))


@given(value=VALUE, before=TEXT, after=TEXT)
def test_a_secret_is_nowhere_in_a_text(value: str, before: str, after: str) -> None:
    """Whatever stands round it: what is redacted does not contain the secret."""
    secrets = Secrets({"NAME": value})
    secrets.env("NAME", "somebody")
    assert value not in secrets.redact(before + value + after)


@given(value=VALUE, before=TEXT, after=TEXT)
def test_a_secret_is_not_there_in_disguise(value: str, before: str, after: str) -> None:
    """Quoted for a shell, a URL, JSON or Python, or in base64, it is masked too."""
    secrets = Secrets()
    secrets.remember(value)
    disguises = [shlex.quote(value), quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)]
    disguises += [repr(value), b64encode(value.encode()).decode(), urlsafe_b64encode(value.encode()).decode()]
    for disguise in disguises:
        masked = secrets.redact(f"{before} {disguise} {after}")
        assert MASK in masked
        assert disguise not in masked or disguise in f"{before} {MASK} {after}"


@given(value=st.text(st.characters(codec="ascii"), min_size=9, max_size=40), before=st.binary(max_size=9))
def test_a_secret_inside_base64_is_masked(value: str, before: bytes) -> None:
    """A header such as ``Basic base64(user:password)`` holds the secret at any of three places."""
    secrets = Secrets()
    secrets.remember(value)
    encoded = b64encode(before + value.encode() + b"\n").decode()
    assert secrets.redact(encoded) != encoded


@given(text=TEXT)
def test_a_text_without_secrets_is_left_alone(text: str) -> None:
    """Nothing is masked that is none."""
    secrets = Secrets({"NAME": "correct horse battery staple"})
    assert secrets.redact(text) == text
    secrets.env("NAME", "somebody")
    assert secrets.redact(text) == text


def test_one_secret_within_another() -> None:
    """The longer one goes first, so that nothing of it is left."""
    secrets = Secrets()
    secrets.remember("key")
    secrets.remember("monkeys")
    assert secrets.redact("my monkeys have a key") == "my *** have a ***"


def test_what_looks_masked_already_ends() -> None:
    """A secret that is part of the mask does not go round for ever."""
    secrets = Secrets()
    secrets.remember("**")
    assert secrets.redact("a ** b") == "a ** b"


def test_a_variable_that_is_not_set() -> None:
    """The error says who wants which variable, and how to set it."""
    with pytest.raises(InputError) as raised:
        Secrets({}).env("NVA_PASSWORD", "machine 'nva1': access.ssh")
    assert raised.value.message == "machine 'nva1': access.ssh: the environment variable NVA_PASSWORD is not set"
    assert raised.value.fix == "set it: export NVA_PASSWORD=..."


def test_a_secret_of_a_file(tmp_path: Path) -> None:
    """The text of a file is a secret, with and without its last line end."""
    file = tmp_path / "token"
    file.write_text("abc-123\n")
    secrets = Secrets()
    assert secrets.file(file, "somebody") == "abc-123\n"
    assert secrets.redact("token abc-123, please") == "token ***, please"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _path: None, "nva1: there is no file {path}"),
        (lambda path: path.mkdir(), "nva1: {path} cannot be read: is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "nva1: {path} is not text"),
    ],
    ids=["missing", "folder", "binary"],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, make: object, message: str) -> None:
    """Each case has words of its own."""
    path = tmp_path / "key"
    assert callable(make)
    make(path)
    with pytest.raises(InputError) as raised:
        Secrets().file(path, "nva1")
    assert raised.value.message == message.format(path=path)
    assert raised.value.fix


def test_an_error_leaves_without_secrets() -> None:
    """Message, fix, arguments and cause of an error are clean when it leaves the guarded block."""
    secrets = Secrets()
    secrets.remember("hunter2")

    def fail() -> None:
        error = LabError("login with hunter2 failed", fix="echo hunter2")
        error.__cause__ = ValueError("hunter2")
        raise error

    with pytest.raises(LabError) as raised, secrets.guarded():
        fail()
    assert "hunter2" not in f"{raised.value} {raised.value.args} {raised.value.fix} {raised.value.__cause__}"
    assert raised.value.message == "login with *** failed"
    assert raised.value.fix == "echo ***"
