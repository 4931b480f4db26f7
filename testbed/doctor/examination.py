"""The list of what is tried, and the trying of it in a throw-away namespace."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from testbed.doctor import attempts
from testbed.doctor.nft_features import NFT_FEATURES
from testbed.doctor.report import Capability, Report
from testbed.errors import TestbedError
from testbed.kernel import namespaces
from testbed.runtimes.accelerator import QEMU

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Check", "examine"]

_LABS = "every lab"
_CLIENTS = "tests with real clients"
_MACHINES = "virtual machines"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to try: ``attempt`` returns what it saw, or raises."""

    name: str
    needed_for: str
    attempt: Callable[[], str]
    fix: str
    required: bool = True


def _computer() -> tuple[Check, ...]:
    return (
        Check("Python", _LABS, attempts.python_version, "apt-get install python3 (3.11 or newer)"),
        Check("rights", _LABS, attempts.rights, "run it as root, for example with sudo"),
        Check(
            "kernel",
            "symmetry of every pair of addresses",
            attempts.kernel_version,
            "a kernel of version 6.0 or newer",
            required=False,
        ),
    )


def _inside(name: str) -> Iterator[Check]:
    yield Check("veth", _LABS, partial(attempts.veth, name), "kernel option CONFIG_VETH (modprobe veth)")
    yield Check(
        "namespace settings",
        _LABS,
        partial(attempts.sysctls, name),
        "a container needs /proc/sys mounted writable",
    )
    yield Check("nftables", _LABS, partial(attempts.nft_library, name), "apt-get install nftables")
    for feature in NFT_FEATURES:
        attempt = partial(attempts.nft_text, name, feature.text)
        fix = f"kernel option {feature.option}"
        yield Check(feature.name, feature.needed_for, attempt, fix, required=feature.required)
    yield Check(
        "policy routing",
        _LABS,
        partial(attempts.mark_routing, name),
        "kernel option CONFIG_IP_MULTIPLE_TABLES",
    )
    yield Check(
        "macvlan",
        "external machines by parent",
        partial(attempts.macvlan, name),
        "kernel option CONFIG_MACVLAN (modprobe macvlan)",
        required=False,
    )
    yield Check(
        "taps", _MACHINES, partial(attempts.tap, name), "kernel option CONFIG_TUN (modprobe tun)", required=False
    )
    yield Check(
        "IPVS",
        "balancer: ipvs",
        partial(attempts.ipvs, name),
        "kernel options CONFIG_IP_VS, CONFIG_IP_VS_NFCT and CONFIG_IP_VS_MH; make test-ipvs has a kernel with them",
        required=False,
    )
    yield Check("packet rings", "verify", partial(attempts.packet_ring, name), "kernel option CONFIG_PACKET")
    yield Check("socket marks", "health probes", partial(attempts.socket_mark, name), "CAP_NET_ADMIN")


def _programs() -> Iterator[Check]:
    packages = (
        ("ip", "iproute2", "looking at a lab by hand"),
        ("nft", "nftables", "looking at a lab by hand"),
        ("tcpdump", "tcpdump", "testbed capture"),
        ("curl", "curl", _CLIENTS),
        ("iperf3", "iperf3", _CLIENTS),
        ("ssh", "openssh-client", _CLIENTS),
    )
    for program, package, needed_for in packages:
        attempt = partial(attempts.tool, program)
        yield Check(program, needed_for, attempt, f"apt-get install {package}", required=False)


def _runtimes() -> Iterator[Check]:
    yield Check(
        "container engine",
        "containers",
        attempts.engine_answers,
        "install and start it: make docker (with an init system: systemctl start docker)",
        required=False,
    )
    for program, package in ((QEMU, "qemu-system-x86"), ("qemu-img", "qemu-utils")):
        attempt = partial(attempts.tool, program)
        yield Check(program, _MACHINES, attempt, f"apt-get install {package}", required=False)
    yield Check("accelerator", _MACHINES, attempts.accelerator, "give this computer /dev/kvm", required=False)


def _try(check: Check) -> Capability:
    try:
        detail = check.attempt()
    except TestbedError as error:
        reason = error.message
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error)
    else:
        return Capability(check.name, check.needed_for, check.required, available=True, detail=detail)
    return Capability(check.name, check.needed_for, check.required, available=False, detail=reason, fix=check.fix)


def _untried(check: Check, reason: str) -> Capability:
    return Capability(check.name, check.needed_for, check.required, available=False, detail=reason, tried=False)


def examine() -> Report:
    """Try everything, and leave nothing behind.

    The throw-away namespace is named and owned like a lab's, so ``testbed down --all`` also removes one that
    a killed examination left. Never raises for what this computer lacks: that is what the report is for.
    """
    lab = f"doctor-{os.getpid()}"
    name = f"{lab}-fabric"
    found = [_try(check) for check in _computer()]
    room = Check(
        "network namespaces",
        _LABS,
        partial(attempts.named_namespace, name, lab),
        "kernel option CONFIG_NET_NS; in a container: give it CAP_SYS_ADMIN",
    )
    try:
        if all(each.available for each in found if each.required):
            found.append(_try(room))
            reason = "there is no network namespace"
        else:
            found.append(_untried(room, "it needs the rights above"))
            reason = "it needs the rights above"
        ready = found[-1].available
        found += [_try(check) if ready else _untried(check, reason) for check in _inside(name)]
    finally:
        if namespaces.exists(name):
            namespaces.delete(name)
    found += [_try(check) for check in (*_runtimes(), *_programs())]
    return Report(tuple(found))
