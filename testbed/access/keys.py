"""Keys in the state directory: the lab's own pair, and the host keys that its machines have shown.

The lab's pair logs in where a document names neither a password nor a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.access.files import alone, replace
from testbed.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KNOWN_HOSTS", "KeyPair", "forget", "key_pair", "lab_key"]

#: File of the host keys seen, in OpenSSH's format; a host is called by its machine's name.
KNOWN_HOSTS = "known_hosts"
_PAIR = "id_ed25519"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The files of both halves, and the public one as a line that ``authorized_keys`` takes."""

    private: Path
    public_file: Path
    public: str


def lab_key(state_directory: Path) -> KeyPair:
    """The lab's own key pair, for ``ssh -i`` too: ``id_ed25519`` and ``id_ed25519.pub`` in the state directory.

    Raises:
        LabError: There is a private key that cannot be used.
    """
    return key_pair(state_directory, _PAIR)


def key_pair(state_directory: Path, name: str) -> KeyPair:
    """A key pair of the state directory, made when it is not there: ed25519, in OpenSSH's format, private one 0600.

    However many ask at once, there is one.

    Raises:
        LabError: There is a private key that cannot be used.
    """
    private, public = state_directory / name, state_directory / f"{name}.pub"
    with alone(state_directory):
        if not private.exists():
            replace(private, _new_private_key(), 0o600)
        line = f"{_public_key(private)} testbed-{state_directory.name}"
        if not public.exists() or public.read_text() != f"{line}\n":
            replace(public, f"{line}\n", 0o644)
    return KeyPair(private, public, line)


def _new_private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return made.decode()


def _public_key(private: Path) -> str:
    from cryptography.hazmat.primitives import serialization

    try:
        loaded = serialization.load_ssh_private_key(private.read_bytes(), password=None)
    except (ValueError, TypeError) as error:  # cut short, or encrypted
        raise LabError(f"{private} is not the key that the lab made", fix=f"remove it: rm {private}") from error
    public = loaded.public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def forget(state_directory: Path, machine: str) -> None:
    """Drop the host key of a machine that is made anew."""
    file = state_directory / KNOWN_HOSTS
    if not file.exists():
        return
    with alone(state_directory):
        lines = file.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.split(" ", 1)[0] != machine]
        if kept != lines:
            replace(file, "".join(kept), 0o644)
