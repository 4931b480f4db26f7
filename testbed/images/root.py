"""Debian 12 as small as it is useful: pulled where a registry answers, else made of Debian's own packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import LabError, MachineError
from testbed.images.engine import engine, refusals, words
from testbed.images.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import DockerClient

__all__ = ["MADE", "PULLED", "ensure_root", "present"]

PULLED = "debian:bookworm-slim"
MADE = "testbed/root:bookworm-slim"
_SUITE = "bookworm"
_SILENCE_SECONDS = 20.0
_HOOKS = Path("/usr/share/mmdebstrap/hooks/merged-usr")
#: What debian:bookworm-slim leaves out; the licences stay.
_EXCLUDED = ("usr/share/man/*", "usr/share/locale/*", "usr/share/info/*", "usr/share/doc/*")
_INCLUDED = "usr/share/doc/*/copyright"
_TAIL = 20


def present(client: DockerClient, reference: str) -> bool:
    """Whether the engine has the image; one request."""
    from docker.errors import ImageNotFound

    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True


def ensure_root(client: DockerClient, say: Callable[[str], None]) -> str:
    """The reference of Debian's image; which of the two ways was gone is said.

    Raises:
        MachineError: It cannot be pulled, and what makes it is missing.
        LabError: Making it fails; the message has the last lines.
    """
    with locked("root", say):
        for reference in (PULLED, MADE):
            if present(client, reference):
                return reference
        refusal = _pull()
        if not refusal:
            say(f"{PULLED}: pulled")
            return PULLED
        say(f"{PULLED}: cannot be pulled ({refusal})")
        with tempfile.TemporaryDirectory(prefix="testbed-root-") as folder:
            _import(client, _make(Path(folder), refusal, say))
        return MADE


def _pull() -> str:
    """Pull it; returns why not, or nothing."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    repository, tag = PULLED.split(":")
    with closing(engine(timeout=_SILENCE_SECONDS)) as client:
        try:
            for event in client.api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in event:
                    return str(event["error"])
        except DockerException as error:  # first: some of them are errors of requests, too
            return words(error)
        except RequestException:
            return f"no word from the registry for {_SILENCE_SECONDS:g} s"
    return ""


def _make(folder: Path, refusal: str, say: Callable[[str], None]) -> Path:
    """A tar file with the root file system."""
    archive = folder / "root.tar"
    if shutil.which("mmdebstrap"):
        say(f"making it with mmdebstrap, of Debian's packages ({_SUITE})")
        _run(_mmdebstrap(archive))
    elif shutil.which("debootstrap") and shutil.which("tar"):
        say(f"making it with debootstrap, of Debian's packages ({_SUITE})")
        root = folder / "root"
        _run(["debootstrap", "--variant=minbase", _SUITE, str(root)])
        _clean(root)
        _run(["tar", "--create", "--numeric-owner", "--file", str(archive), "--directory", str(root), "."])
    else:
        message = f"{PULLED} cannot be pulled ({refusal}), and there is neither mmdebstrap nor debootstrap to make it"
        raise MachineError(message, fix="apt-get install mmdebstrap debian-archive-keyring")
    return archive


def _mmdebstrap(archive: Path) -> list[str]:
    options = [f"--dpkgopt=path-exclude=/{each}" for each in _EXCLUDED]
    options += [f"--dpkgopt=path-include=/{_INCLUDED}"]
    if _HOOKS.is_dir():  # without them usrmerge comes along, and 50 MB of Perl with it
        options += [f"--hook-dir={_HOOKS}", "--include=usr-is-merged"]
    return ["mmdebstrap", "--variant=minbase", "--format=tar", *options, _SUITE, str(archive)]


def _clean(root: Path) -> None:
    """Remove from a fresh root what the slim image does not have."""
    for pattern in (*_EXCLUDED, "var/lib/apt/lists/*", "var/cache/apt/archives/*.deb", "var/log/*.log"):
        for path in root.glob(pattern):
            kept = path / "copyright"
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif not kept.exists():
                shutil.rmtree(path)
            else:
                for each in path.iterdir():
                    if each != kept:
                        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-_TAIL:])
        message = f"{command[0]} fails with status {done.returncode}; its last lines:\n{lines}"
        raise LabError(
            message, fix="it needs root, Debian's archive and its key: apt-get install debian-archive-keyring"
        )


def _import(client: DockerClient, archive: Path) -> None:
    repository, tag = MADE.split(":")
    with refusals(f"import image {MADE}"):
        client.api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=['CMD ["bash"]'])
