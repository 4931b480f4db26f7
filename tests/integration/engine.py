"""Container engines for tests: the computer's own with a small image, and one of a test's own that may be ended."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from testbed.deadline import wait_for
from testbed.errors import MachineError
from testbed.images import engine

if TYPE_CHECKING:
    from pathlib import Path

__all__: list[str] = []

#: A stock image nobody has prepared for a lab: BusyBox, and nothing else.
BUSYBOX = "testbed-test-busybox:latest"
_TOOLS = (
    "sh",
    "sleep",
    "ip",
    "cat",
    "echo",
    "nc",
    "httpd",
    "mkdir",
    "kill",
    "true",
    "false",
    "timeout",
    "nproc",
    "env",
)


def _busybox_root() -> bytes:
    """A root file system with BusyBox, packed."""
    program = shutil.which("busybox")
    assert program is not None
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(program, "bin/busybox")
        for tool in _TOOLS:
            link = tarfile.TarInfo(f"bin/{tool}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for folder in ("tmp", "etc", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
    return packed.getvalue()


def need_busybox() -> str:
    """The image, made when the engine that ``DOCKER_HOST`` names has not got it."""
    with closing(engine()) as client:
        if not client.images.list(BUSYBOX):
            name, _, tag = BUSYBOX.partition(":")
            client.api.import_image_from_data(_busybox_root(), repository=name, tag=tag)
    return BUSYBOX


class OwnEngine:
    """A Docker engine of a test's own: nobody else notices when it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            *("dockerd", "--host", self.host, "--data-root", f"{self._folder}/data"),
            *("--exec-root", f"{self._folder}/exec", "--pidfile", f"{self._folder}/docker.pid"),
            *("--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "vfs"),
        ]
        with (self._folder / "log").open("ab") as log:
            self._child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        wait_for("the test's own engine answers", self._answers, seconds=60)

    def _answers(self) -> bool:
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = self.host
        try:
            engine().close()
        except MachineError:
            return False
        finally:
            if before is None:
                del os.environ["DOCKER_HOST"]
            else:
                os.environ["DOCKER_HOST"] = before
        return True

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; its containers end with it only when it is asked politely."""
        if self._child is not None:
            self._child.send_signal(number)
            self._child.wait(60)
            self._child = None
        if number == signal.SIGKILL:  # its containerd goes with it; where nobody reaps it, its pid seems to live on
            file = self._folder / "exec" / "containerd" / "containerd.pid"
            with suppress(OSError):
                os.kill(int(file.read_text()), signal.SIGKILL)
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        """End it, and what it has started."""
        self.stop()
        for mount in sorted(self._mounts(), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)

    def _mounts(self) -> list[str]:
        with open("/proc/mounts") as mounts:  # noqa: PTH123 - it is no file
            return [line.split()[1] for line in mounts if line.split()[1].startswith(str(self._folder))]
