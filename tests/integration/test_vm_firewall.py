"""The virtual machine's image boots under emulation, both ways, and is a firewall that is reached by SSH."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from image_rig import BULK, fetch, namespace, push, server, ssh, wait_for_health

from testbed.deadline import wait_for
from testbed.errors import LabError
from testbed.images import vm_firewall
from testbed.runtimes import qmp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testbed.images.virtual_machine import VirtualMachineImage

CLIENT, SERVER, OUTSIDE = "10.1.0.4", "10.2.0.4", "203.0.113.4"
NEAR, FAR = "10.1.0.1", "10.2.0.1"
OWN = f"tv{os.getpid()}"
MACS = ("12:34:56:00:00:01", "12:34:56:00:00:02")
BOOT_SECONDS = 60  # a limit for a busy computer: a quiet one needs 6 to 8


@dataclass(frozen=True)
class Guest:
    """A running virtual machine between a client and a server."""

    client: str
    server: str
    process: subprocess.Popen[bytes]
    control: Path
    serial: Path


@pytest.fixture(scope="module")
def image() -> VirtualMachineImage:
    """The image; built when it is not there."""
    return vm_firewall(print)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key pair; the public half is ``key.pub``."""
    return make_key(tmp_path / "key")


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return path


def seed(key: Path, host_key: Path | None = None) -> dict[str, bytes]:
    """The files of a NoCloud seed; JSON is YAML."""
    ethernets = {
        name: {"match": {"macaddress": mac}, "set-name": name, "mtu": 1400, "addresses": [address]}
        for name, mac, address in (("outer", MACS[1], f"{FAR}/24"), ("inner", MACS[0], f"{NEAR}/24"))
    }
    ethernets["outer"]["routes"] = [{"to": f"{OUTSIDE}/32", "via": SERVER}]
    user: dict[str, object] = {"ssh_authorized_keys": [key.with_suffix(".pub").read_text().strip()]}
    if host_key:
        user["ssh_keys"] = {"ed25519_private": host_key.read_text()}
    return {
        "meta-data": json.dumps({"instance-id": "i", "local-hostname": "fw1"}).encode(),
        "user-data": b"#cloud-config\n" + json.dumps(user).encode(),
        "network-config": json.dumps({"version": 2, "ethernets": ethernets}, indent=1).encode(),
    }


def vfat(files: dict[str, bytes], folder: Path) -> list[str]:
    """A seed that QEMU makes of a folder."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    node = {"driver": "vvfat", "node-name": "seed", "dir": str(folder), "label": "cidata", "read-only": True}
    return ["-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=seed"]


def iso9660(files: dict[str, bytes], path: Path) -> list[str]:
    """A seed on a CD (ECMA-119: sectors of 2048 bytes, numbers in both orders of bytes)."""

    def both(value: int, size: str) -> bytes:
        return struct.pack(f"<{size}", value) + struct.pack(f">{size}", value)

    def record(name: bytes, sector: int, length: int, flags: int) -> bytes:
        body = bytes([0]) + both(sector, "I") + both(length, "I") + bytes(7) + bytes([flags, 0, 0])
        body += both(1, "H") + bytes([len(name)]) + name
        body += bytes((len(body) + 1) % 2)
        return bytes([len(body) + 1]) + body

    sector, records, data = 19, record(b"\0", 18, 2048, 2) + record(b"\1", 18, 2048, 2), b""
    for name, content in sorted(files.items()):
        records += record(name.encode(), sector, len(content), 0)
        data += content + bytes(-len(content) % 2048)
        sector += -(-len(content) // 2048)
    root = record(b"\0", 18, 2048, 2)
    volume = b"\1CD001\1\0" + b" " * 32 + b"cidata".ljust(32) + bytes(8) + both(sector, "I") + bytes(32)
    volume += both(1, "H") * 2 + both(2048, "H") + both(0, "I") + bytes(16) + root.ljust(34, b"\0")
    end = b"\xffCD001\1"
    path.write_bytes(bytes(16 * 2048) + b"".join(each.ljust(2048, b"\0") for each in (volume, end, records)) + data)
    return ["-drive", f"file={path},format=raw,media=cdrom,if=ide,readonly=on"]


@contextmanager
def booted(folder: Path, words: list[str], *, memory: str = "512M") -> Iterator[Guest]:
    """Start QEMU with two network interfaces: the client's side, and the server's."""
    control, serial = folder / "qmp", folder / "serial"
    command = [
        "qemu-system-x86_64",
        "-machine",
        "pc",
        "-accel",
        "tcg,tb-size=64",
        "-cpu",
        "max",
        "-m",
        memory,
        "-smp",
        "1",
    ]
    command += [
        "-nodefaults",
        "-display",
        "none",
        "-serial",
        f"file:{serial}",
        "-qmp",
        f"unix:{control},server=on,wait=off",
    ]
    for number, mac in enumerate(MACS):
        command += ["-netdev", f"tap,id=n{number},ifname=tap{number},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,netdev=n{number},mac={mac},romfile="]
    with namespace(f"{OWN}-client") as client, namespace(f"{OWN}-server") as far:
        for number in (0, 1):
            client.run("ip", "tuntap", "add", f"tap{number}", "mode", "tap")
        with subprocess.Popen(["nsenter", client.net, *command, *words]) as process:
            try:
                wait_for("QEMU answers", lambda: answers(control), seconds=10)
                # The device stays QEMU's: only its place changes.
                client.run("ip", "link", "set", "tap1", "netns", far.name)
                for place, tap, address, way in ((client, "tap0", CLIENT, NEAR), (far, "tap1", SERVER, FAR)):
                    place.run("ip", "address", "add", f"{address}/24", "dev", tap)
                    place.run("ip", "link", "set", tap, "up")
                    place.run("ip", "route", "add", "default", "via", way)
                far.run("ip", "address", "add", f"{OUTSIDE}/32", "dev", "lo")
                with server(client.name), server(far.name):
                    yield Guest(client.name, far.name, process, control, serial)
            finally:
                print(serial.read_text(errors="replace"))
                process.kill()


def answers(control: Path) -> bool:
    try:
        qmp.ask(control, "query-status")
    except LabError:
        return False
    return True


def host_key_of(guest: Guest, key: Path) -> str:
    with ssh(guest.client, NEAR, key) as shell:
        transport = shell.get_transport()
        assert transport is not None
        return transport.get_remote_server_key().get_base64()


def test_it_is_small(image: VirtualMachineImage) -> None:
    """All files together have less than 60 MB."""
    assert image.size < 60e6


def test_it_is_built_once(image: VirtualMachineImage) -> None:
    """A second build takes no time and changes nothing."""
    before = image.initrd.stat().st_mtime_ns
    said: list[str] = []
    assert not vm_firewall(said.append).built
    assert image.initrd.stat().st_mtime_ns == before
    assert said == []


def test_kernel_and_initrd(image: VirtualMachineImage, key: Path, tmp_path: Path) -> None:
    """Booted directly, with a seed: in time, a firewall like the container, set up by SSH, with faults and a reset."""
    host_key = make_key(tmp_path / "host")
    words = ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", "console=ttyS0"]
    words += vfat(seed(key, host_key), tmp_path / "seed")
    began = time.monotonic()
    with booted(tmp_path, words, memory="256M") as guest:
        wait_for_health(guest.client, NEAR, seconds=BOOT_SECONDS)
        print(f"health after {time.monotonic() - began:.1f} s")
        assert host_key_of(guest, key) == host_key.with_suffix(".pub").read_text().split()[1]
        print(f"SSH after {time.monotonic() - began:.1f} s")
        assert fetch(guest.client, SERVER).body == CLIENT
        assert fetch(guest.server, CLIENT).body == SERVER
        assert fetch(guest.client, OUTSIDE).body == FAR
        # Big segments and unfinished checksums cross a virtual network interface differently from small packets.
        assert fetch(guest.client, SERVER, path="/bulk", seconds=10).body == BULK.decode()
        with ssh(guest.client, NEAR, key) as shell:
            push(shell, "/etc/firewall/policy", f"deny tcp {SERVER} 80\nallow any\n")
            _, out, err = shell.exec_command(
                "firewall load && cat /sys/class/net/outer/mtu; uname -n; mkdir /run/fault"
            )
            assert (out.read().decode(), err.read().decode()) == ("1400\nfw1\n", "")
            assert fetch(guest.client, SERVER).status == 0
            for command, reason in (
                ("touch /run/fault/probe-down", "fault: /run/fault/probe-down"),
                (
                    "rm /run/fault/probe-down; sysctl -w net.ipv4.ip_forward=0",
                    "50-firewall.check: IPv4 forwarding is off",
                ),
            ):
                _, out, _ = shell.exec_command(command)
                assert out.channel.recv_exit_status() == 0
                assert fetch(guest.client, NEAR, 8080, "/health") == (503, f"{reason}\n")
        qmp.ask(guest.control, "system_reset")
        wait_for("it is gone", lambda: fetch(guest.client, NEAR, 8080, "/health").status == 0, seconds=10)
        wait_for_health(guest.client, NEAR, seconds=BOOT_SECONDS)
        assert host_key_of(guest, key) == host_key.with_suffix(".pub").read_text().split()[1]
        assert fetch(guest.client, SERVER).body == CLIENT
        wait_for("the console", guest.serial.read_text, lambda text: text.count("vm-firewall: ready") == 2, seconds=5)


def test_disk(image: VirtualMachineImage, key: Path, tmp_path: Path) -> None:
    """Its disk boots by itself, with the seed on a CD; the host key outlives a reset, and the power button works."""
    overlay = tmp_path / "overlay.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.disk, "-F", "qcow2", overlay], check=True)
    words = ["-drive", f"file={overlay},if=virtio", *iso9660(seed(key), tmp_path / "seed.iso")]
    began = time.monotonic()
    with booted(tmp_path, words) as guest:
        wait_for_health(guest.client, NEAR, seconds=BOOT_SECONDS)
        print(f"health after {time.monotonic() - began:.1f} s")
        before = host_key_of(guest, key)
        print(f"SSH after {time.monotonic() - began:.1f} s")
        assert fetch(guest.client, SERVER).body == CLIENT
        qmp.ask(guest.control, "system_reset")
        wait_for("it is gone", lambda: fetch(guest.client, NEAR, 8080, "/health").status == 0, seconds=10)
        wait_for_health(guest.client, NEAR, seconds=BOOT_SECONDS)
        assert host_key_of(guest, key) == before
        qmp.ask(guest.control, "system_powerdown")
        assert guest.process.wait(timeout=10) == 0


def test_command_line(image: VirtualMachineImage, tmp_path: Path, key: Path) -> None:
    """Without a seed the kernel's command line has the addresses, the key, and the settings of the firewall."""
    public = ",".join(key.with_suffix(".pub").read_text().split())
    append = f"console=ttyS0 testbed.ip=eth0,{NEAR}/24 testbed.ip=eth1,{FAR}/24,,1400 testbed.key={public} NAT=all"
    append += f" testbed.route={OUTSIDE}/32,{SERVER},eth1 HEALTH_PORT=8081"
    words = ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", append]
    with booted(tmp_path, words) as guest:
        wait_for_health(guest.client, NEAR, port=8081, seconds=BOOT_SECONDS)
        assert fetch(guest.client, SERVER).body == FAR
        with ssh(guest.client, NEAR, key) as shell:
            _, out, _ = shell.exec_command("nft list chain ip firewall leave; ip -json route show default")
            assert 'oifname != "lo" masquerade' in out.read().decode()
