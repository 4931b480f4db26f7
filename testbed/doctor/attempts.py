"""Trying what this computer can do: each function does one thing for real and says what it saw.

All raise :class:`OSError`, :class:`~testbed.errors.TestbedError` or :class:`subprocess.SubprocessError`
when it cannot be done. Those that take a namespace work inside it and leave what they make to its removal.
"""

from __future__ import annotations

import mmap
import os
import platform
import shutil
import socket
import struct
import sys
from contextlib import closing
from pathlib import Path

from testbed.errors import MachineError
from testbed.kernel import devices, namespaces, nft
from testbed.kernel.netlink import Netlink, RouteEntry, RuleEntry

__all__ = [
    "DEVICE",
    "accelerator",
    "engine_answers",
    "ipvs",
    "kernel_version",
    "macvlan",
    "mark_routing",
    "named_namespace",
    "nft_library",
    "nft_text",
    "packet_ring",
    "python_version",
    "rights",
    "socket_mark",
    "sysctls",
    "tap",
    "tool",
    "veth",
]

#: The link that :func:`veth` makes in the throw-away namespace.
DEVICE = "probe0"
_CAPABILITIES = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 21: "CAP_SYS_ADMIN"}  # linux/capability.h
_SOL_PACKET = 263  # linux/socket.h
_PACKET_VERSION, _PACKET_RX_RING, _TPACKET_V2 = 10, 5, 1  # linux/if_packet.h


def python_version() -> str:
    """For the record: with an older one than 3.11 the package neither installs nor imports."""
    return f"{platform.python_version()} at {sys.executable}"


def rights() -> str:
    """The capabilities that labs need, in this process."""
    words = Path("/proc/self/status").read_text().split("CapEff:")[1].split()
    held = int(words[0], 16)
    lacking = [name for bit, name in _CAPABILITIES.items() if not held >> bit & 1]
    if lacking:
        raise MachineError(f"user {os.geteuid()} lacks {', '.join(lacking)}")
    return ", ".join(_CAPABILITIES.values())


def kernel_version() -> str:
    """6.0 or newer.

    Before, symhash told the directions of a flow apart when the addresses are equal but for the last octet,
    and differ by 128 there (Linux commit 64ae13ed4784).
    """
    release = platform.release()
    if int(release.split(".")[0]) < 6:
        raise MachineError(f"Linux {release}: addresses 128 apart in the last octet are not symmetric")
    return f"Linux {release}"


def named_namespace(name: str, lab: str) -> str:
    """Make the namespace that the other attempts use."""
    namespaces.create(name, lab)
    return str(namespaces.NETNS_DIRECTORY)


def veth(name: str) -> str:
    """A cable with both ends in the namespace."""
    with namespaces.entered(name), Netlink() as netlink:
        here, there = "12:34:56:78:9a:bc", "02:00:00:00:00:01"
        netlink.add_veth(DEVICE, here, 1500, namespaces.path(name), "probe1", there)
        netlink.set_link(DEVICE, up=True)
        netlink.set_link("probe1", up=True)
    return "made a pair"


def macvlan(name: str) -> str:
    """A macvlan on one end of the cable, the way to machines outside."""
    with namespaces.entered(name), Netlink() as netlink:
        netlink.add_macvlan("probe2", "probe1", "02:00:00:00:00:02", namespaces.path(name))
    return "made one"


def tap(name: str) -> str:
    """A tap, which a virtual machine's network interface is made of."""
    with namespaces.entered(name):
        devices.add_tap("probe3")
    return "/dev/net/tun"


def engine_answers() -> str:
    """The container engine answers, and says what it is."""
    from testbed.images.engine import address, engine

    with closing(engine()) as client:
        version = client.version()
    return f"{version['Platform']['Name'] or 'Docker'} {version['Version']} at {address()}".strip()


def accelerator() -> str:
    """What virtual machines get: KVM where a smallest guest really runs with it, else emulation, which always is."""
    from testbed.runtimes.accelerator import why_no_kvm

    reason = why_no_kvm()
    return f"emulation (with KVM no guest starts: {reason})" if reason else "KVM"


def sysctls(name: str) -> str:
    """Settings of a namespace can be written; containers often have them read-only."""
    with namespaces.entered(name):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    return "net.ipv4.ip_forward is writable"


def nft_library(name: str) -> str:
    """The library answers, in process."""
    with namespaces.entered(name):
        nft.run("list tables")
    return "libnftables.so.1"


def nft_text(name: str, text: str) -> str:
    """Load a ruleset."""
    with namespaces.entered(name):
        nft.run(text.replace("{device}", DEVICE))
    return "loaded"


def mark_routing(name: str) -> str:
    """A packet mark selects a routing table, and the kernel's answer shows it."""
    rule = RuleEntry(priority=100, mark=0x10001, mask=0xFFFF, table=1001)
    with namespaces.entered(name), Netlink() as netlink:
        netlink.route("add", RouteEntry(1001, "192.0.2.0/24", "unicast", None, DEVICE))
        netlink.rule("add", rule)
        if rule not in netlink.rules():
            raise MachineError("a rule on a mark was accepted, but is not there")
    return "a mark selects a table"


def ipvs(name: str) -> str:
    """A service that a packet mark selects, and a destination; the kernel shows both."""
    from testbed.kernel import ipvs as door

    wanted = door.Service(0x8001_0001, "mh", 0x1C, ("127.0.0.1",))
    with namespaces.entered(name):
        door.load()
        with closing(door.Ipvs()) as services:
            services.converge([wanted], {})
            if services.services() != (wanted,):
                raise MachineError("a service was accepted, but is not there")
    return "made a service"


def packet_ring(name: str) -> str:
    """A memory-mapped AF_PACKET receive ring, as captures use it."""
    size = 1 << 16
    with namespaces.entered(name):
        ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
    with ring:
        ring.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        ring.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("IIII", size, 1, 2048, size // 2048))
        mmap.mmap(ring.fileno(), size).close()
    return "mapped a ring"


def socket_mark(name: str) -> str:
    """A socket with a packet mark, as health probes use it."""
    with namespaces.entered(name):
        marked = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with marked:
        marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)
    return "SO_MARK"


def tool(name: str) -> str:
    """A program on the search path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise MachineError("not installed")
    return found
