"""A machine at the other end of a cable of the lab's kind, and servers in it for what logs in to meet."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
from conftest import inside
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from testbed.access.keys import lab_key
from testbed.access.login import Door
from testbed.access.reach import Reach
from testbed.access.ready import Sources, conditions, pending
from testbed.access.secrets import Secrets
from testbed.access.ssh import SshTransport
from testbed.access.transport import FakeTransport
from testbed.deadline import wait_for
from testbed.kernel import namespaces, processes
from testbed.kernel.netlink import Netlink, RouteEntry
from testbed.plan.ruleset.context import PROBE_SOURCE
from testbed.topology.model import Machine
from testbed.topology.runtimes import Ready, SshAccess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ADDRESS",
    "NIC",
    "PASSWORD",
    "Rig",
    "cabled",
    "greet",
    "machine",
    "password_server",
    "sources",
    "wire",
]

FABRIC_MAC, MACHINE_MAC = "12:34:56:78:9a:bc", "02:00:00:00:00:04"
ADDRESS = "10.0.1.4"
PASSWORD = "correct horse/battery+staple"  # noqa: S105 - of a server that lives as long as a test
NIC = {"subnet": "hub/nva", "private_ip_address": ADDRESS}
SSHD_CONFIG = """\
Port 22
HostKey {folder}/{host_key}
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM {pam}
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
{more}
"""


@dataclass
class Rig:
    """A fabric, a machine at the other end of a cable, and servers in the machine."""

    fabric: str
    machine: str
    folder: Path
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    listeners: list[socket.socket] = field(default_factory=list)

    @property
    def reach(self) -> Reach:
        return Reach("rig", "nva1", self.fabric, "c1", ADDRESS)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def door(self, secrets: Secrets | None = None, **access: Any) -> Door:
        ssh = SshAccess.model_validate({"username": "root", **access})
        return Door(self.reach, ssh, self.folder, self.state, secrets or Secrets({}))

    def ssh(self, secrets: Secrets | None = None, patience: float = 10, **access: Any) -> SshTransport:
        return SshTransport(self.door(secrets, **access), patience=patience)

    def sshd(
        self, host_key: str = "host_ed25519", more: str = "Subsystem sftp internal-sftp", *, log: str = ""
    ) -> None:
        """Start OpenSSH's server; the lab's key may log in."""
        path = self.folder / host_key
        if not path.exists():
            kind = host_key.rsplit("_", 1)[1]
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
        if not (self.folder / "authorized_keys").exists():
            (self.folder / "authorized_keys").write_text(lab_key(self.state).public + "\n")
        # Without PAM, sshd turns away an account that is locked, as root's is on some systems.
        locked = any(line.startswith("root:!") for line in Path("/etc/shadow").read_text().splitlines())
        config = self.folder / "sshd_config"
        text = SSHD_CONFIG.format(folder=self.folder, host_key=host_key, pam="yes" if locked else "no", more=more)
        config.write_text(text)
        with namespaces.entered(self.machine), (self.folder / (log or "sshd.log")).open("ab") as file:
            command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
            self.servers.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file))
        self.wait(22)

    def stop(self) -> None:
        """End all processes in the machine."""
        processes.end(processes.inside([namespaces.inode(self.machine)]))
        for each in self.servers:
            each.wait()
        self.servers.clear()

    def wait(self, port: int) -> None:
        """Until somebody listens."""
        open_port = conditions(Ready(tcp=port), sources(self))
        wait_for(f"port {port}", lambda: pending(open_port), lambda texts: not texts, seconds=10)

    def serve(self, port: int, talk: Callable[[socket.socket], None]) -> None:
        """A server in the machine that says what it likes to everybody."""
        with namespaces.entered(self.machine):
            listener = socket.create_server(("0.0.0.0", port))
        self.listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                talk(connection)

        threading.Thread(target=accept, daemon=True).start()


def sources(rig: Rig, **other: Any) -> Sources:
    return replace(Sources(rig.reach, lambda: "", lambda: "", FakeTransport), **other)


@contextmanager
def cabled(folder: Path) -> Iterator[Rig]:
    """Two namespaces and a cable; nothing of them is left."""
    made = Rig(f"access-{os.getpid()}-f", f"access-{os.getpid()}-m", folder)
    privilege_separation = Path("/run/sshd")  # sshd's own start script makes it
    fresh = not privilege_separation.exists()
    privilege_separation.mkdir(mode=0o755, exist_ok=True)
    for name in (made.fabric, made.machine):
        namespaces.create(name, "access")
    try:
        wire(made.fabric, "c1", made.machine)
        with namespaces.entered(made.fabric), Netlink() as netlink:
            netlink.address("add", "lo", f"{PROBE_SOURCE}/32")
        yield made
    finally:
        for listener in made.listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        made.stop()
        for name in (made.fabric, made.machine):
            namespaces.delete(name)
        if fresh:
            privilege_separation.rmdir()


def wire(fabric: str, device: str, machine: str) -> None:
    """A cable as a lab has it: no route in the fabric leads to the machine, but its neighbour is known."""
    with namespaces.entered(fabric), Netlink() as netlink:
        netlink.add_veth(device, FABRIC_MAC, 1500, namespaces.path(machine), "eth0", MACHINE_MAC)
        netlink.set_link(device, up=True)
        netlink.neighbor("replace", device, ADDRESS, MACHINE_MAC)
    with namespaces.entered(machine), Netlink() as netlink:
        netlink.set_link("eth0", up=True)
        netlink.address("add", "eth0", f"{ADDRESS}/24")
        netlink.neighbor("replace", "eth0", PROBE_SOURCE, FABRIC_MAC)
        netlink.route("add", RouteEntry(254, f"{PROBE_SOURCE}/32", "unicast", None, "eth0"))
    for namespace, link in ((fabric, device), (machine, "eth0")):
        # The kernel drops what is sent before it has noticed the carrier.
        show = partial(inside, namespace, "ip", "-json", "link", "show", link)
        wait_for(f"carrier on {link}", show, lambda text: '"operstate":"UP"' in text, seconds=10)


def greet(*data: bytes) -> Callable[[socket.socket], None]:
    """Say something, and wait for the other side to hang up."""

    def talk(connection: socket.socket) -> None:
        for each in data:
            connection.sendall(each)
        while connection.recv(4096):
            pass

    return talk


class PasswordServer(paramiko.ServerInterface):
    """Lets root in with the password, and runs nothing."""

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "password"

    def check_auth_password(self, username: str, password: str) -> int:
        return AUTH_SUCCESSFUL if (username, password) == ("root", PASSWORD) else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del kind, chanid
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def answer() -> None:
            while channel.recv(1):
                pass  # until there is no more input, which also means that our consent has arrived
            channel.sendall(command)
            channel.send_exit_status(0)
            channel.close()

        threading.Thread(target=answer, daemon=True).start()
        return True


def password_server(rig: Rig, port: int) -> None:
    """A server that asks for a password. OpenSSH's would ask for one of this computer's accounts."""
    key = paramiko.ECDSAKey.generate()

    def talk(connection: socket.socket) -> None:
        session = paramiko.Transport(connection)
        session.add_server_key(key)
        session.start_server(server=PasswordServer())
        session.join()

    rig.serve(port, talk)


def machine(**keys: Any) -> Machine:
    return Machine.model_validate({"name": "nva1", "network_interfaces": [NIC], **keys})
