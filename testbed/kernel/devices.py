"""What netlink alone does not do: taps, checksum offload, and network interfaces that move and come back."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from contextlib import suppress

from testbed.errors import LabError, MachineError
from testbed.kernel import namespaces
from testbed.kernel.netlink import Netlink

__all__ = ["HOME", "add_tap", "checksum_offload", "send_home", "set_checksum_offload", "take"]

_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_SIOCETHTOOL = 0x8946  # linux/sockios.h
_GET_TX_CHECKSUM, _SET_TX_CHECKSUM = 0x16, 0x17  # linux/ethtool.h
#: Alias of a moved network interface: where it has to go back to, which needs no state to be found.
HOME = "testbed-home:"


def add_tap(name: str) -> None:
    """Make a tap that stays when nobody has it open, in the namespace the thread is in.

    Raises:
        LabError: The name is taken, or the kernel refuses.
        MachineError: There is no ``/dev/net/tun``.
    """
    try:
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        fix = "kernel option CONFIG_TUN (modprobe tun); in a container: --device /dev/net/tun"
        raise MachineError(f"/dev/net/tun: {error.strerror}", fix=fix) from error
    try:
        fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(handle, _TUNSETPERSIST, 1)
    except OSError as error:
        raise LabError(f"make tap {name!r}: {error.strerror}") from error
    finally:
        os.close(handle)


def _ethtool(link: str, command: int, value: int) -> int:
    """A setting of one number (``struct ethtool_value``)."""
    data = array.array("B", struct.pack("=II", command, value))
    address, _ = data.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as handle:
        fcntl.ioctl(handle, _SIOCETHTOOL, struct.pack("16sP16x", link.encode(), address))
    return int(struct.unpack("=II", data.tobytes())[1])


def checksum_offload(link: str) -> bool | None:
    """Whether packets may leave by a link with unfinished checksums; None: there is no such link, or setting."""
    with suppress(OSError):
        return bool(_ethtool(link, _GET_TX_CHECKSUM, 0))
    return None


def set_checksum_offload(link: str, *, on: bool) -> None:
    """Let packets leave by a link with unfinished checksums, or finish them before.

    Raises:
        LabError: The kernel refuses.
    """
    try:
        _ethtool(link, _SET_TX_CHECKSUM, int(on))
    except OSError as error:
        raise LabError(f"checksum offload of {link!r}: {error.strerror}") from error


def take(interface: str, namespace: str, name: str) -> None:
    """Move a network interface of the computer into a namespace and rename it; its alias says where it belongs.

    Raises:
        LabError: There is no such network interface, or the kernel refuses.
    """
    with Netlink() as netlink:
        netlink.set_alias(interface, HOME + interface)
        netlink.set_link(interface, up=False)
        netlink.move(interface, namespaces.path(namespace), name)


def send_home(namespace: str) -> None:
    """Give back every network interface of the computer that is in a namespace, under its old name, and up.

    A namespace that goes takes what it holds with it; only hardware would come back, under any name.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespaces.entered(namespace), Netlink() as netlink:
            moved = {each.name: each.alias for each in netlink.links() if each.alias.startswith(HOME)}
            for name, alias in moved.items():
                netlink.set_alias(name, "")
                netlink.set_link(name, up=False)
                netlink.move(name, f"/proc/self/fd/{here}", alias.removeprefix(HOME))
    finally:
        os.close(here)
    with Netlink() as netlink:
        for alias in moved.values():
            netlink.set_link(alias.removeprefix(HOME), up=True)
