"""What a guest reads when it starts: the files of a NoCloud seed, and files added to an initial RAM disk.

Formats: cloud-init's data source NoCloud and network config version 2; the kernel's ``buffer-format`` for initial RAM
disks (several cpio archives may follow each other, so a stock one is only added to).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import InputError

if TYPE_CHECKING:
    from testbed.access.keys import KeyPair

__all__ = ["added_files", "seed_files"]


def seed_files(
    lab: str, machine: str, config: dict[str, Any], lab_key: KeyPair | None = None, host_key: KeyPair | None = None
) -> dict[str, str]:
    """Names and texts of a seed's files.

    Args:
        lab: Name of the lab.
        machine: Name of the machine, which becomes its host name.
        config: Of the instance (:func:`testbed.plan.instances.virtual_machines`).
        lab_key: Lets the seed's user in, if there is one.
        host_key: The machine's own, so that it has the same one each time it starts.

    Raises:
        InputError: The user data is in a file that cannot be read.
    """
    seed = config["seed"]
    files = {
        "meta-data": json.dumps({"instance-id": f"{lab}-{machine}", "local-hostname": machine}) + "\n",
        "user-data": _user_data(machine, seed, lab_key, host_key),
    }
    if seed["network_config"]:
        files["network-config"] = json.dumps(_network(config["interfaces"]), indent=1) + "\n"
    return files


def _user_data(machine: str, seed: dict[str, Any], lab_key: KeyPair | None, host_key: KeyPair | None) -> str:
    """The user's own, or a small one with the keys; JSON is YAML."""
    if seed["user_data"] is not None:
        return str(seed["user_data"])
    if seed["user_data_file"] is not None:
        try:
            return Path(seed["user_data_file"]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            message = f"machine {machine!r}: user data {seed['user_data_file']}: {reason}"
            raise InputError(message, fix="paths start at the document") from error
    data: dict[str, Any] = {}
    if host_key is not None:
        data["ssh_keys"] = {"ed25519_private": host_key.private.read_text(), "ed25519_public": host_key.public}
    if seed["username"] is not None and lab_key is not None:
        data["ssh_authorized_keys"] = [lab_key.public]
        user = {"name": seed["username"], "ssh_authorized_keys": [lab_key.public]}
        if seed["username"] == "root":
            data["disable_root"] = False
        else:
            user |= {"sudo": "ALL=(ALL) NOPASSWD:ALL", "shell": "/bin/bash"}
        data["users"] = [user]
    return "#cloud-config\n" + json.dumps(data, indent=1) + "\n"


def _network(interfaces: list[dict[str, Any]]) -> dict[str, Any]:
    """Addresses by MAC address; as Azure's DHCP, the way out and the platform by the first interface only."""
    ethernets = {}
    for number, each in enumerate(interfaces):
        ethernets[f"eth{number}"] = {
            "match": {"macaddress": each["mac"]},
            "set-name": f"eth{number}",
            "mtu": 1500,
            "addresses": [f"{each['address']}/{each['prefix_length']}"],
        }
    gateway = interfaces[0]["gateway"]
    targets = ("0.0.0.0/0", "168.63.129.16/32", "169.254.169.254/32")
    ethernets["eth0"]["routes"] = [{"to": target, "via": gateway, "on-link": True} for target in targets]
    return {"version": 2, "ethernets": ethernets}


_REGULAR, _FOLDER = 0o100000, 0o040000
_LAST = "TRAILER!!!"


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """One file of a ``newc`` archive."""
    text = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(text), 0)
    head = b"070701" + b"".join(f"{field:08x}".encode() for field in fields) + text
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def added_files(machine: str, files: dict[str, str]) -> bytes:
    """An archive of files of the computer, with their modes, under the names they have in the guest.

    Raises:
        InputError: A file cannot be read.
    """
    archive = b""
    folders: dict[str, None] = {}
    for target, source in files.items():
        try:
            data, mode = Path(source).read_bytes(), Path(source).stat().st_mode
        except OSError as error:
            message = f"machine {machine!r}: file {source} for {target}: {(error.strerror or str(error)).lower()}"
            raise InputError(message, fix="paths start at the document") from error
        name = target.strip("/")
        for parent in reversed([str(each) for each in Path(name).parents if str(each) != "."]):
            if parent not in folders:
                folders[parent] = None
                archive += _entry(parent, _FOLDER | 0o755, b"")
        archive += _entry(name, _REGULAR | (mode & 0o7777), data)
    return archive + _entry(_LAST, 0, b"")
