"""Starts modules of the testbed by forking: the interpreter and what they import are loaded once, not each time.

A lab's launcher and controller are processes of their own, and on an emulated computer loading them is most of what
bringing a lab up or changing it costs. Here one process has everything loaded, and each module that is to be started
is forked from it and runs the module's ``main``. Otherwise it is what :func:`testbed.kernel.processes.start_module`
makes: a child of whoever asks, in a session of its own, with the same three streams.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NoReturn

__all__ = ["Nursery"]

_PR_SET_CHILD_SUBREAPER = 36
_LOADED = (
    "pyroute2",
    "testbed.balancer.ipvs",
    "testbed.balancer.nftables",
    "testbed.balancer.persistence",
    "testbed.nodes.dhcp",
    "testbed.nodes.echo",
    "testbed.nodes.launcher",
    "testbed.nodes.nft_firewall",
    "testbed.probes.controller",
)


class Nursery:
    """The process that forks. Close it; what it has started lives on."""

    def __init__(self) -> None:
        # So that what it starts becomes a child of this process when the process between them has ended.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._door, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            command = [sys.executable, str(Path(__file__)), str(other.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)

    def start_module(self, name: str, *words: str, **streams: int | IO[bytes]) -> subprocess.Popen[bytes]:
        """As :func:`testbed.kernel.processes.start_module`."""
        return _Forked(self, [name, *words], **streams)

    def fork(self, words: list[str], streams: list[int]) -> int:
        """Let it fork a process with these standard streams, and return its pid."""
        socket.send_fds(self._door, [json.dumps(words).encode()], streams)
        return int(self._door.recv(64))

    def close(self) -> None:
        """End it."""
        self._door.close()
        self._process.wait(30)


class _Forked(subprocess.Popen[bytes]):
    """A process that was forked, not executed."""

    def __init__(self, nursery: Nursery, words: list[str], **streams: Any) -> None:
        self._nursery = nursery
        super().__init__(words, **streams)

    def _execute_child(self, words: list[str], *rest: Any) -> None:
        pipes = rest[9:15]
        mine = [number if pipe < 0 else pipe for number, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        self.pid = self._nursery.fork(words, mine)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined] # of this class's own innards


def _serve(door: socket.socket) -> None:
    """Fork for each message, until nobody is left to send one."""
    for each in _LOADED:
        importlib.import_module(each)
    gc.freeze()
    while True:
        message, streams, _, _ = socket.recv_fds(door, 65_536, 3)
        if not message:
            return
        ended, told = os.pipe()
        between = os.fork()
        if between == 0:
            if pid := os.fork():
                os.write(told, str(pid).encode())
                os._exit(0)
            _become(json.loads(message), streams)
        os.waitpid(between, 0)  # only then the one who asks is the parent
        door.send(os.read(ended, 64))
        for descriptor in (ended, told, *streams):
            os.close(descriptor)


def _become(words: list[str], streams: list[int]) -> NoReturn:
    """The rest of a child's life."""
    status: object = 1
    try:
        os.setsid()
        for target, source in enumerate(streams):
            os.dup2(source, target)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        sys.argv = words
        status = importlib.import_module(words[0]).main()
    except SystemExit as end:
        status = end.code
    except BaseException:  # it must not run on in this module's code
        traceback.print_exc()
    finally:
        for each in (sys.stdout, sys.stderr):
            each.flush()
        os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    with ExitStack() as stack:
        _serve(stack.enter_context(socket.socket(fileno=int(sys.argv[1]))))
