"""An SSH server for tests, of paramiko: one allowed key, commands run as they come, nothing of the machine's own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_SUCCEEDED,
)

__all__: list[str] = []


class Server(paramiko.ServerInterface):
    """Lets one key in and runs what it asks for."""

    def __init__(self, allowed: paramiko.PKey) -> None:
        self._allowed = allowed

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        del username
        return AUTH_SUCCESSFUL if key == self._allowed else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del chanid
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=execute, args=(channel, command.decode()), daemon=True).start()
        return True


def execute(channel: paramiko.Channel, command: str) -> None:
    """Run a command with the channel as its standard input and output."""
    with subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        feeder = threading.Thread(target=feed, args=(channel, process), daemon=True)
        feeder.start()
        while data := process.stdout.read1(1 << 16):  # type: ignore[attr-defined] # it is a BufferedReader
            channel.sendall(data)
    channel.send_exit_status(process.returncode)
    channel.close()


def feed(channel: paramiko.Channel, process: subprocess.Popen[bytes]) -> None:
    """What the client sends, until it has no more."""
    assert process.stdin is not None
    try:
        while data := channel.recv(1 << 16):
            process.stdin.write(data)
            process.stdin.flush()
        process.stdin.close()
    except OSError:
        pass  # the command has ended


def main(port: int, host_key: Path, allowed: Path) -> None:
    """Serve until killed."""
    key = paramiko.Ed25519Key.from_private_key_file(str(host_key))
    client = paramiko.Ed25519Key.from_private_key_file(str(allowed))
    with socket.create_server(("0.0.0.0", port)) as listener:
        while True:
            connection, _ = listener.accept()
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.start_server(server=Server(client))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
