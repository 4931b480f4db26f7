"""Runtimes, access and set-up of machines: what has to be given, and what fits together."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from testbed.topology.runtimes import ContainerRuntime, ExternalRuntime, NamespaceRuntime, VirtualMachineRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.model import Machine
    from testbed.topology.nodes import Location

__all__ = ["access_fits", "containers", "external_machines", "readiness", "steps", "virtual_machines"]


def containers(draft: Draft) -> Iterator[Finding]:
    """A container has one source, and settings that the lab can make."""
    for i, machine in enumerate(draft.topology.machines):
        runtime, here = machine.runtime, ("machines", i, "runtime")
        if not isinstance(runtime, ContainerRuntime):
            continue
        if (runtime.image is None) == (runtime.build is None):
            both = "both" if runtime.image else "neither"
            yield draft.error(here, f"{machine.name} has {both} of image and build", fix="give one of the two")
        for j, mount in enumerate(runtime.mounts):
            if not mount.target.startswith("/"):
                fix = "write an absolute path, e.g. /etc/firewall/policy"
                yield draft.error((*here, "mounts", j, "target"), f"{mount.target!r} is a relative path", fix=fix)
        for key in runtime.sysctls:
            if not re.fullmatch(r"net(\.[\w-]+)+", key):
                message = f"{key!r} is not a setting of a network namespace"
                yield draft.error((*here, "sysctls", key), message, fix="settings that machines have begin with net.")


def virtual_machines(draft: Draft) -> Iterator[Finding]:
    """A virtual machine has something to boot from, and nothing that would not be used."""
    for i, machine in enumerate(draft.topology.machines):
        runtime, here = machine.runtime, ("machines", i, "runtime")
        if not isinstance(runtime, VirtualMachineRuntime):
            continue
        if runtime.disk is None and runtime.kernel is None:
            fix = "give disk: IMAGE, or kernel: FILE and initrd: FILE"
            yield draft.error(here, f"{machine.name} has nothing to boot from", fix=fix)
        if runtime.kernel is None:
            for key in ("initrd", "append"):
                if getattr(runtime, key):
                    message = f"{key} is used with a kernel only, and {machine.name} has none"
                    yield draft.error((*here, key), message, fix=f"add kernel: FILE, or remove {key}")
        if runtime.files and runtime.initrd is None:
            fix = "add initrd: FILE, or remove files"
            yield draft.error((*here, "files"), f"files are added to an initrd, and {machine.name} has none", fix=fix)
        seed = runtime.cloud_init
        if seed and seed.user_data is not None and seed.user_data_file is not None:
            fix = "give one of the two"
            yield draft.error((*here, "cloud_init"), "there are user_data and a user_data_file", fix=fix)


def external_machines(draft: Draft) -> Iterator[Finding]:
    """Each network interface of a machine outside has a cable of its own."""
    taken: dict[str, str] = {}
    for i, machine in enumerate(draft.topology.machines):
        runtime, here = machine.runtime, ("machines", i, "runtime", "interfaces")
        if not isinstance(runtime, ExternalRuntime):
            continue
        wanted, given = len(machine.network_interfaces), len(runtime.interfaces)
        if wanted != given and not draft.damaged(here) and not draft.damaged(("machines", i, "network_interfaces")):
            message = f"{machine.name} has {wanted} network_interfaces and {given} interfaces to reach them by"
            yield draft.error(here, message, fix="give one of each, in the same order")
        for j, each in enumerate(runtime.interfaces):
            names = [name for name in (each.parent, each.interface) if name]
            if len(names) != 1:
                fix = "give parent (a macvlan on it is made) or interface (it is moved into the lab)"
                yield draft.error((*here, j), f"there are {len(names)} of parent and interface", fix=fix)
            for name in names:
                if name in taken:
                    message = f"{name!r} is the cable of {taken[name]} already"
                    yield draft.error((*here, j), message, fix="give each its own, e.g. a VLAN interface")
                taken.setdefault(name, machine.name)


def access_fits(draft: Draft) -> Iterator[Finding]:
    """What is done in a machine needs a way in."""
    for i, machine in enumerate(draft.topology.machines):
        ssh = machine.access.ssh if machine.access else None
        here: Location = ("machines", i)
        if ssh and ssh.password_env and ssh.private_key_file:
            fix = "give one of the two"
            yield draft.error((*here, "access", "ssh"), "there are password_env and private_key_file", fix=fix)
        if ssh and isinstance(machine.runtime, ExternalRuntime) and not (ssh.password_env or ssh.private_key_file):
            message = f"{machine.name} is outside: the lab cannot give it a key of its own"
            yield draft.error((*here, "access", "ssh"), message, fix="give password_env or private_key_file")
        if ssh or draft.damaged(here) or draft.lost(kind="access"):
            continue
        if machine.ready and machine.ready.ssh:
            message = f"{machine.name} has no SSH access"
            yield draft.error((*here, "ready", "ssh"), message, fix="add 'access: {ssh: {username: …}}'")
        if isinstance(machine.runtime, VirtualMachineRuntime | ExternalRuntime):
            for key in ("configure", "diagnostics"):
                if getattr(machine, key):
                    message = f"{machine.name} cannot be entered but by SSH, and has no SSH access"
                    yield draft.error((*here, key), message, fix="add 'access: {ssh: {username: …}}'")


def steps(draft: Draft) -> Iterator[Finding]:
    """A step says what to do, once."""
    for i, machine in enumerate(draft.topology.machines):
        for j, step in enumerate(machine.configure):
            here = ("machines", i, "configure", j)
            given = [key for key in ("commands", "template", "content") if getattr(step, key)]
            if len(given) != 1:
                what = " and ".join(given) or "nothing to do"
                yield draft.error(here, f"the step has {what}", fix="give one of commands, template and content")
            elif given == ["commands"] and step.path:
                fix = "give content or template for a file, or remove path"
                yield draft.error((*here, "path"), "commands do not make a file", fix=fix)
            elif given == ["content"] and not step.path:
                yield draft.error(here, "the content goes nowhere", fix="add path: FILE, the file in the machine")
            if step.path and isinstance(machine.runtime, NamespaceRuntime) and not machine.access:
                message = f"{machine.name} is a plain namespace: its files are the computer's"
                yield draft.error((*here, "path"), message, fix="use commands only, or another runtime")


def readiness(draft: Draft) -> Iterator[Finding]:
    """What is waited for can come true."""
    for i, machine in enumerate(draft.topology.machines):
        ready, here = machine.ready, ("machines", i, "ready")
        if ready is None:
            continue
        if ready.container_health and not isinstance(machine.runtime, ContainerRuntime):
            message = f"{machine.name} is no container"
            yield draft.error((*here, "container_health"), message, fix="remove it; tcp, http and ssh are for all")
        if ready.log is not None:
            if isinstance(machine.runtime, ExternalRuntime):
                message = f"the lab does not see the log of {machine.name}, which is outside"
                yield draft.error((*here, "log"), message, fix="use tcp, http or ssh")
            try:
                re.compile(ready.log)
            except re.error as error:
                message = f"{ready.log!r} is not a regular expression: {error}"
                yield draft.error((*here, "log"), message, fix="see Python's re; put a backslash before (, [, + …")
        if ready.http is not None and (problem := _unusable(ready.http, machine)):
            address = machine.network_interfaces[0].private_ip_address
            yield draft.error((*here, "http"), problem, fix=f"write a URL such as http://{address}:8080/health")


def _unusable(url: str, machine: Machine) -> str:
    """Why a URL cannot be asked of a machine."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"{url!r} is not a URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.netloc or port == 0:
        return f"{url!r} is not a URL of HTTP or HTTPS"
    if parts.hostname is None:
        return ""
    try:
        host = IPv4Address(parts.hostname)
    except ValueError:
        host = None
    if host != machine.network_interfaces[0].private_ip_address:
        return f"{parts.hostname} is not the address of {machine.name}'s primary network interface"
    return ""
