"""Secrets: read when they are needed, remembered so that no text which leaves contains them.

They come from the environment or from a file, and are handed over inside a connection or in memory; the words of a
process are visible to everybody on the computer, so they never stand there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import threading
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from testbed.errors import InputError, TestbedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["MASK", "Secrets"]

MASK = "***"
#: A shorter piece of base64 is found in innocent text too easily.
_SHORTEST_PIECE = 8


class Secrets:
    """All secrets of one run. Threads may share it.

    Args:
        environment: Where variables are looked up; the process's own when not given.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def env(self, name: str, asked_by: str) -> str:
        """The value of an environment variable; ``asked_by`` says who wants it, for the error.

        Raises:
            InputError: It is not set.
        """
        value = self._environment.get(name)
        if value is None:
            raise InputError(
                f"{asked_by}: the environment variable {name} is not set", fix=f"set it: export {name}=..."
            )
        self.remember(value)
        return value

    def file(self, path: Path, asked_by: str) -> str:
        """The text of a file; ``asked_by`` says who wants it, for the error.

        Raises:
            InputError: It cannot be read.
        """
        try:
            text = path.read_text()
        except FileNotFoundError as error:
            fix = "correct its name in the document; relative names start at the document"
            raise InputError(f"{asked_by}: there is no file {path}", fix=fix) from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            fix = "name another file, or change its mode"
            raise InputError(f"{asked_by}: {path} cannot be read: {reason}", fix=fix) from error
        except UnicodeDecodeError as error:
            raise InputError(f"{asked_by}: {path} is not text", fix="name another file") from error
        self.remember(text)
        return text

    def remember(self, value: str) -> None:
        """From now on, no text holds this."""
        with self._lock:
            for each in {value, value.strip()} - {""}:
                self._forms |= _forms(each)
            longest_first = sorted(self._forms, key=lambda form: (-len(form), form))
            self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def redact(self, text: str) -> str:
        """The text with ``***`` for every secret, also where one stands quoted or encoded.

        Cut a text only afterwards: half of a secret is not found.
        """
        pattern = self._pattern
        while pattern is not None and (cleaned := pattern.sub(MASK, text)) != text:
            text = cleaned  # once more: what stood on both sides of a secret may be one as well
        return text

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Errors of the testbed leave the block without secrets."""
        try:
            yield
        except TestbedError as error:
            error.message, error.fix = self.redact(error.message), self.redact(error.fix)
            error.args = (error.message,)
            error.__cause__ = None  # its words are not ours
            error.__suppress_context__ = True
            raise


def _forms(value: str) -> set[str]:
    """A secret as shells, JSON, Python, URLs and base64 write it. What is all ``*`` looks masked already."""
    data = value.encode(errors="surrogateescape")
    forms = {value, shlex.quote(value).removeprefix("'").removesuffix("'")}
    forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    forms |= {quote(data), quote(data, safe=""), quote_plus(data), b64encode(data).decode()}
    for before in range(3):  # base64 of a text that has the secret in it differs by where it stands, modulo 3
        encoded = b64encode(bytes(before) + data).decode()
        piece = encoded[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        if len(piece) >= _SHORTEST_PIECE:
            forms.add(piece)
    forms |= {form.replace("+", "-").replace("/", "_") for form in forms if _BASE64.fullmatch(form)}
    return {form for form in forms if form.strip("*")}


_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
