"""Host keys: whether who answers is the machine that answered before, or the one that a file knows.

``accept-new`` remembers the first key that a machine shows, in ``known_hosts`` of the lab's state directory, under
the machine's name: addresses of two virtual networks may be the same. ``known-hosts FILE`` knows all keys
beforehand, under the machine's name or address. Format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.access.files import alone, replace
from testbed.access.keys import KNOWN_HOSTS
from testbed.errors import InputError, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testbed.access.reach import Reach
    from testbed.topology.runtimes import SshAccess

__all__ = ["HostKey", "KnownHosts"]

_REVOKED = "@revoked"


@dataclass(frozen=True, slots=True)
class HostKey:
    """The public key of a server: its type, and the key itself as it goes over the wire."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` shows it."""
        return "SHA256:" + b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def line(self, name: str) -> str:
        """The key as a line of a file of known hosts."""
        return f"{name} {self.kind} {b64encode(self.blob).decode()}"

    def __str__(self) -> str:
        """Type and fingerprint."""
        return f"{self.kind} {self.fingerprint}"


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    marker: str
    names: str
    key: HostKey


def _entries(text: str) -> Iterator[_Entry]:
    """The lines of a file of known hosts; as in OpenSSH, one that is not understood does not count."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            yield _Entry(number, marker, words[0], HostKey(words[1], b64decode(words[2], validate=True)))
        except binascii.Error:
            continue


def _matches(patterns: str, name: str) -> bool:
    """Whether a field of names means this name: hashed, or patterns with ``*``, ``?`` and ``!``."""
    if patterns.startswith("|1|"):
        try:
            _, _, salt, digest = patterns.split("|")
            expected = hmac.digest(b64decode(salt), name.encode(), "sha1")
            return hmac.compare_digest(expected, b64decode(digest))
        except ValueError:  # binascii.Error is one
            return False
    found = False
    for pattern in patterns.lower().split(","):
        wild = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(wild, name.lower()):
            if pattern.startswith("!"):
                return False
            found = True
    return found


@dataclass(frozen=True, slots=True)
class KnownHosts:
    """The keys that one machine may show.

    ``names``: what it is called in ``file``, the first one in what is added. ``accept_new``: whether the first key
    ever seen is added.
    """

    where: str
    names: tuple[str, ...]
    file: Path
    accept_new: bool

    @classmethod
    def of(cls, reach: Reach, access: SshAccess, folder: Path, state_directory: Path) -> KnownHosts:
        """As the document says; ``folder`` is where it is.

        Raises:
            InputError: The file it names is not there.
        """
        where = reach.port(access.port)
        if access.host_key == "accept-new":
            return cls(where, (reach.machine,), state_directory / KNOWN_HOSTS, accept_new=True)
        file = folder / access.host_key.removeprefix("known-hosts ").strip()
        if not file.is_file():
            fix = "correct host_key in the document; relative names start at the document"
            raise InputError(f"{where}: there is no file of known hosts {file}", fix=fix)
        address = reach.address if access.port == 22 else f"[{reach.address}]:{access.port}"
        return cls(where, (reach.machine, address), file, accept_new=False)

    def _mine(self) -> list[_Entry]:
        try:
            text = self.file.read_text()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.where}: {self.file} cannot be read: {error}", fix="name another file") from error
        return [each for each in _entries(text) if any(_matches(each.names, name) for name in self.names)]

    def kinds(self) -> tuple[str, ...]:
        """Types of the known keys: a server that has several is asked for one of these."""
        return tuple(dict.fromkeys(each.key.kind for each in self._mine() if not each.marker))

    def check(self, seen: HostKey) -> None:
        """Compare what the server shows, and remember it where that is wanted.

        Raises:
            LabError: It is another key than expected, or an unknown one; names the key.
        """
        if not self.accept_new:
            self._compare(seen, self._mine())
            return
        with alone(self.file.parent):
            mine = self._mine()
            if not mine:
                text = self.file.read_text() if self.file.exists() else ""
                replace(self.file, f"{text}{seen.line(self.names[0])}\n", 0o644)
            else:
                self._compare(seen, mine)

    def _compare(self, seen: HostKey, mine: list[_Entry]) -> None:
        if any(each.marker == _REVOKED and each.key == seen for each in mine):
            fix = "give the machine another host key"
            raise LabError(f"{self.where} shows a host key that {self.file} revokes: {seen}", fix=fix)
        known = [each for each in mine if not each.marker]
        if any(each.key == seen for each in known):
            return
        if not known:
            fix = f"if it is the machine's, add this line: {seen.line(self.names[0])}"
            raise LabError(f"{self.where} shows a host key that is not in {self.file}: {seen}", fix=fix)
        expected = ", ".join(f"{each.key} (line {each.number} of {self.file})" for each in known)
        raise LabError(
            f"{self.where} shows another host key than expected\n  seen:     {seen}\n  expected: {expected}",
            fix=f"if the machine was made anew, remove line {known[0].number} of {self.file}; "
            "if not, find out who answers in its place",
        )
