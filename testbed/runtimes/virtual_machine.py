"""Machines that are virtual machines of QEMU.

Each network interface is virtio-net on a tap in the machine's namespace, which the plan wires to the fabric. The disk
is an overlay in :data:`testbed.runtimes.base.DISKS`: the image is never written, a machine that restarts keeps what
it wrote, and ``down`` removes it. The serial console goes to a file, and to a socket (``MACHINE.console``) for typing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.access.keys import forget, key_pair, lab_key
from testbed.deadline import wait_for
from testbed.errors import InputError, LabError, MachineError
from testbed.kernel import namespaces, processes
from testbed.runtimes import qmp
from testbed.runtimes.accelerator import QEMU, processor
from testbed.runtimes.base import DISKS, State, no_way_in, tail
from testbed.runtimes.seed import added_files, seed_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.access.transport import Transport
    from testbed.kernel.processes import Process
    from testbed.plan.objects import Instance
    from testbed.runtimes.base import Place

__all__ = ["VirtualMachineRuntime"]

_PATIENCE = 20.0


class VirtualMachineRuntime:
    """One QEMU process for each machine, in the machine's network namespace."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._disks = DISKS / place.lab

    def _socket(self, machine: str) -> Path:
        return self._place.directory / f"{machine}.qmp"

    def _serial(self, machine: str) -> Path:
        return self._place.directory / f"{machine}.serial.log"

    # -- life ----------------------------------------------------------------------------------------

    def prepare(self, instances: Sequence[Instance]) -> None:
        """QEMU is there, and every file it will read is what it should be."""
        for program in (QEMU, "qemu-img"):
            if shutil.which(program) is None:
                raise MachineError(f"{program} is not installed", fix="apt-get install qemu-system-x86 qemu-utils")
        for each in instances:
            config = _config(each)
            for key in ("kernel", "initrd"):
                if config[key] and not Path(config[key]).is_file():
                    raise _no_file(each.machine, key, config[key])
            if config["disk"]:
                _image_format(each.machine, config["disk"])
            processor(config["accelerator"])
            added_files(each.machine, config["files"])
            if config["seed"]:
                seed_files(self._place.lab, each.machine, config)

    def start(self, instances: Sequence[Instance]) -> dict[str, Process]:
        """Start QEMU for each, and wait until all answer; the guests boot on."""
        children: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for each in instances:
                children[each.machine] = self._spawn(each)
            for machine, child in children.items():
                self._await(machine, child)
        except BaseException:
            for child in children.values():
                child.kill()
                child.wait()
            raise
        started = {machine: processes.identify(child.pid) for machine, child in children.items()}
        for child in children.values():
            child.returncode = 0  # they outlive this process on purpose
        return started

    def _spawn(self, instance: Instance) -> subprocess.Popen[bytes]:
        machine = instance.machine
        config = _config(instance)
        command = self._command(machine, config)
        self._socket(machine).unlink(missing_ok=True)
        serial = self._serial(machine)
        if str(serial) != config["serial"]:
            serial.unlink(missing_ok=True)
            serial.symlink_to(config["serial"])
        with namespaces.entered(instance.namespace), self._place.log(machine).open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )

    def _await(self, machine: str, child: subprocess.Popen[bytes]) -> None:
        def look() -> str:
            if child.poll() is not None:
                said = self._place.log(machine).read_text(errors="replace")
                raise LabError(f"virtual machine {machine!r}: QEMU ended at once:\n{tail(said)}")
            try:
                qmp.ask(self._socket(machine), "query-status")
            except LabError as error:
                return str(error)
            return ""

        wait_for(f"QEMU of {machine!r} answers", look, lambda problem: not problem, seconds=_PATIENCE)

    def _command(self, machine: str, config: dict[str, Any]) -> list[str]:
        console = {
            "path": self._place.directory / f"{machine}.console",
            "server": "on",
            "wait": "off",
            "logfile": config["serial"],
            "logappend": "on",
        }
        command = [
            *(QEMU, "-name", f"guest={self._place.lab}-{machine},process=tb-vm", "-machine", "pc,graphics=off"),
            *processor(config["accelerator"]),
            *("-m", config["memory"], "-smp", str(config["cpus"])),
            *("-nodefaults", "-no-user-config", "-display", "none", "-device", "virtio-rng-pci"),
            *("-chardev", _options("socket,id=serial", console), "-serial", "chardev:serial"),
            *("-qmp", _options("unix:" + _escaped(self._socket(machine)), {"server": "on", "wait": "off"})),
        ]
        for number, each in enumerate(config["interfaces"]):
            tap = {"ifname": each["tap"], "script": "no", "downscript": "no"}
            command += ["-netdev", _options(f"tap,id=net{number}", tap)]
            nic = {"netdev": f"net{number}", "mac": each["mac"], "romfile": ""}
            command += ["-device", _options(f"virtio-net-pci,id=nic{number}", nic)]
        return [*command, *self._storage(machine, config), *self._kernel(machine, config)]

    def _storage(self, machine: str, config: dict[str, Any]) -> list[str]:
        words = []
        if config["disk"]:
            overlay: dict[str, Any] = {"driver": "file", "filename": str(self._overlay(machine, config["disk"]))}
            node: dict[str, Any] = {"driver": "qcow2", "node-name": "disk", "file": overlay, "discard": "unmap"}
            words += ["-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=disk,bootindex=1"]
        if config["seed"]:
            folder = self._seed(machine, config)
            node = {"driver": "vvfat", "node-name": "seed", "dir": str(folder), "label": "cidata", "read-only": True}
            words += ["-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=seed"]
        return words

    def _overlay(self, machine: str, disk: str) -> Path:
        """The machine's own disk over the image, made when it has none."""
        overlay = self._disks / f"{machine}.qcow2"
        if not overlay.exists():
            self._disks.mkdir(mode=0o700, parents=True, exist_ok=True)
            forget(self._place.directory, machine)  # a new machine has a new host key
            image_format = _image_format(machine, disk)
            command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", image_format, str(overlay)]
            subprocess.run(command, check=True, capture_output=True)
        return overlay

    def _seed(self, machine: str, config: dict[str, Any]) -> Path:
        folder = self._place.directory / f"{machine}.seed"
        folder.mkdir(mode=0o700, exist_ok=True)
        state = self._place.directory
        keys = lab_key(state), key_pair(state, f"{machine}.host_key")
        for name, text in seed_files(self._place.lab, machine, config, *keys).items():
            (folder / name).write_text(text)
        return folder

    def _kernel(self, machine: str, config: dict[str, Any]) -> list[str]:
        if not config["kernel"]:
            return []
        if not config["disk"] and not config["seed"]:
            forget(self._place.directory, machine)
        words = ["-kernel", config["kernel"], "-append", f"console=ttyS0 {config['append']}".strip()]
        if config["initrd"]:
            words += ["-initrd", config["initrd"]]
        if config["files"]:
            own = self._place.directory / f"{machine}.initrd"
            stock = Path(config["initrd"]).read_bytes()
            own.write_bytes(stock + bytes(-len(stock) % 4) + added_files(machine, config["files"]))
            words[-1] = str(own)
        return words

    def stop(self, machine: str, process: Process | None) -> None:
        """End QEMU and remove the overlay."""
        processes.end([process] if process else [])
        (self._disks / f"{machine}.qcow2").unlink(missing_ok=True)
        for folder in (self._disks, DISKS):
            with suppress(OSError):
                folder.rmdir()

    # -- looking -------------------------------------------------------------------------------------

    def states(self, machines: Sequence[str], processes: dict[str, Process]) -> dict[str, State]:
        """As QEMU says."""
        return {name: self._state(name) if name in processes else State("exited") for name in machines}

    def _state(self, machine: str) -> State:
        try:
            word = str(qmp.ask(self._socket(machine), "query-status")["status"])
        except LabError as error:
            return State("unknown", error.message)
        return State(word)

    def log(self, machine: str) -> str:
        """The serial console, and before it what QEMU itself complains of."""
        said = ""
        for path in (self._place.log(machine), self._serial(machine)):
            with suppress(FileNotFoundError):
                said += path.read_text(errors="replace")
        return said

    def health(self, machine: str) -> str:
        """There is no such thing."""
        del machine
        return ""

    def enter(self, machine: str) -> Transport:
        """By SSH only."""
        raise no_way_in(machine, "a virtual machine")

    # -- faults --------------------------------------------------------------------------------------

    def kill(self, machine: str, process: Process | None) -> None:
        """End QEMU, as a power cut does."""
        del machine
        processes.end([process] if process else [])

    def freeze(self, machine: str, process: Process | None) -> None:
        """Stop the guest's processors."""
        del process
        qmp.ask(self._socket(machine), "stop")

    def thaw(self, machine: str, process: Process | None) -> None:
        """Let them go on."""
        if process:
            qmp.ask(self._socket(machine), "cont")

    def reboot(self, machine: str, process: Process | None) -> None:
        """Press the reset button."""
        del process
        qmp.ask(self._socket(machine), "system_reset")

    def carrier(self, machine: str, *, up: bool) -> None:
        """Cables in or out, as the guest sees them."""
        for nic in qmp.ask(self._socket(machine), "query-rx-filter"):
            qmp.ask(self._socket(machine), "set_link", name=nic["name"], up=up)


def _config(instance: Instance) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(instance.config)
    return config


def _escaped(value: object) -> str:
    return str(value).replace(",", ",,")


def _options(head: str, options: dict[str, Any]) -> str:
    return ",".join([head, *(f"{key}={_escaped(value)}" for key, value in options.items())])


def _no_file(machine: str, key: str, path: str) -> InputError:
    fix = "paths start at the document; the images of this project are made by 'make images'"
    return InputError(f"virtual machine {machine!r}: {key} {path} is not there", fix=fix)


def _image_format(machine: str, disk: str) -> str:
    """``qcow2``, ``raw`` or another format that QEMU reads.

    Raises:
        InputError: It is not there, or cannot be read.
    """
    if not Path(disk).is_file():
        raise _no_file(machine, "disk", disk)
    command = ["qemu-img", "info", "--output=json", disk]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().removeprefix("qemu-img: ")
        raise InputError(f"virtual machine {machine!r}: disk {disk}: {said}", fix="qemu-img info tells what it is")
    return str(json.loads(done.stdout)["format"])
