"""The one door to the container engine: Docker, or whatever speaks its API at ``DOCKER_HOST`` (Podman does)."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from testbed.errors import LabError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

__all__ = ["address", "engine", "refusals", "words"]

_DEFAULT = "unix:///var/run/docker.sock"
_CONNECT_SECONDS = 5.0


def address() -> str:
    """Where the engine is expected: ``DOCKER_HOST``, or Docker's own socket."""
    return os.environ.get("DOCKER_HOST") or _DEFAULT


def engine(*, timeout: float = 60) -> DockerClient:
    """A client of the engine, which has answered; the caller closes it (it is a context for ``closing`` too).

    Args:
        timeout: Longest silence of the engine within one request, in seconds.

    Raises:
        MachineError: It does not answer; the message says where and why, the fix what to do about it.
    """
    where = address()
    if where.startswith("unix://"):
        _try_socket(where)
    import docker
    from docker.errors import DockerException

    try:
        return docker.from_env(timeout=timeout)  # type: ignore[arg-type] # its stub wants whole seconds
    except DockerException as error:
        raise _silent(where, str(error)) from error


def _try_socket(where: str) -> None:
    """Connect once beforehand: the operating system tells apart what the SDK puts into one long message."""
    path = where.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(path)
        except FileNotFoundError as error:
            raise _silent(where, "there is no such socket") from error
        except PermissionError as error:
            fix = (
                "run the command with sudo, or join the group of the socket: usermod -aG docker USER, and log in again"
            )
            raise _silent(where, "permission denied", fix=fix) from error
        except ConnectionRefusedError as error:
            raise _silent(where, "the socket is there, and nobody listens") from error
        except OSError as error:
            raise _silent(where, str(error)) from error


def _silent(where: str, why: str, *, fix: str = "") -> MachineError:
    if not fix and where == _DEFAULT:
        fix = "install and start it: make docker"
    return MachineError(
        f"the Docker engine does not answer at {where}: {why}", fix=fix or "start it, or unset DOCKER_HOST"
    )


def words(error: Exception) -> str:
    """What the engine says, without the address of its socket."""
    return str(getattr(error, "explanation", None) or error).strip()


@contextmanager
def refusals(what: str, *, fix: str = "") -> Iterator[None]:
    """What the engine refuses in the block, and its end in the middle of it, as an error of the testbed.

    Args:
        what: Was tried, for the message.
        fix: What the user can do about it.

    Raises:
        LabError: The engine refused, or went away.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException) as error:
        raise LabError(f"{what}: {words(error)}", fix=fix or "look at the engine: docker info") from error
