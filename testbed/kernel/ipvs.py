"""IPVS of the namespace the thread is in: virtual services that a packet mark selects, and their destinations.

By pyroute2's ``IPVS``. Two of its traits (0.9.7) are kept from the rest of the testbed: ``update`` deletes, so only
``set`` changes anything; and it runs an event loop, which the probe controller's thread already has, so it works in a
thread of its own, which inherits the namespace.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import LabError, MachineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ONE_PACKET", "Ipvs", "Service", "load"]

#: Service flag: the choice is for one packet, and nothing is remembered (``ipvsadm -o``); only for UDP.
ONE_PACKET = 0x4
#: Flags that a service is made with: one packet, and the scheduler's three own. The kernel adds others.
_FLAGS = 0x4 | 0x38
_ALL = 0xFFFF_FFFF
_IPV4 = 2  # AF_INET
_DIRECT_ROUTING = 3  # IP_VS_CONN_F_DROUTE


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service for packets with a mark; flags of the scheduler are those of ``linux/ip_vs.h``."""

    mark: int
    scheduler: str
    flags: int
    destinations: tuple[str, ...]


def load() -> None:
    """Make sure that the kernel has IPVS, with its hands on connection tracking.

    Raises:
        MachineError: It has not.
    """
    fix = "kernel options CONFIG_IP_VS and CONFIG_IP_VS_NFCT; or take the nftables balancer, which is the default"
    if not Path("/proc/thread-self/net/ip_vs").exists():
        try:
            subprocess.run(["modprobe", "ip_vs"], check=True, capture_output=True, text=True, timeout=30)
        except FileNotFoundError as error:
            raise MachineError("the kernel has no IPVS loaded, and there is no modprobe", fix=fix) from error
        except subprocess.SubprocessError as error:
            raise MachineError("the kernel has no IPVS", fix=fix) from error
    if not Path("/proc/sys/net/ipv4/vs/conntrack").exists():
        raise MachineError("the kernel's IPVS keeps away from connection tracking", fix=fix)


class Ipvs:
    """A door to IPVS in the namespace where it is made. Close it: it has a thread and a socket."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ipvs")
        try:
            self._socket = self._run("open", _open)
        except BaseException:
            self._thread.shutdown()
            raise

    def close(self) -> None:
        """Give thread and socket back."""
        self._run("close", self._socket.close)
        self._thread.shutdown()

    def _run(self, what: str, call: Any, *words: Any) -> Any:
        try:
            return self._thread.submit(call, *words).result()
        except (OSError, _netlink_error()) as error:
            raise LabError(f"IPVS: {what}: {error}") from error

    def services(self) -> tuple[Service, ...]:
        """All services that marks select, by mark; destinations in order."""
        found = []
        for answer in self._run("list services", self._socket.service, "dump"):
            attributes = answer.get_attr("IPVS_CMD_ATTR_SERVICE")
            mark = attributes.get_attr("IPVS_SVC_ATTR_FWMARK")
            if mark:
                scheduler = str(attributes.get_attr("IPVS_SVC_ATTR_SCHED_NAME"))
                flags = attributes.get_attr("IPVS_SVC_ATTR_FLAGS")["flags"] & _FLAGS
                found.append(Service(mark, scheduler, flags, tuple(sorted(self.weights(mark)))))
        return tuple(sorted(found, key=lambda each: each.mark))

    def weights(self, mark: int) -> dict[str, int]:
        """Weight of each destination of a service."""
        answers = self._run(f"list destinations of mark {mark:#x}", self._socket.dest, "dump", _key(mark))
        found = [answer.get_attr("IPVS_CMD_ATTR_DEST") for answer in answers]
        return {
            str(each.get_attr("IPVS_DEST_ATTR_ADDR")): int(each.get_attr("IPVS_DEST_ATTR_WEIGHT"))
            for each in found
            if each is not None
        }

    def converge(self, services: Iterable[Service], weights: Mapping[int, Mapping[str, int]]) -> None:
        """Make exactly these services be there; what is new gets its weight (0 when none is given).

        Services and destinations that stay are not touched: their flows do not notice.

        Raises:
            LabError: The kernel refuses.
        """
        wanted = {each.mark: each for each in services}
        for there in self.services():
            new = wanted.get(there.mark)
            if new is None or (new.scheduler, new.flags) != (there.scheduler, there.flags):
                self._run(f"remove service of mark {there.mark:#x}", self._socket.service, "del", _key(there.mark))
        kept = {each.mark: each for each in self.services()}
        for mark, service in wanted.items():
            if mark not in kept:
                self._run(
                    f"add a service with scheduler {service.scheduler!r}", self._socket.service, "add", _new(service)
                )
            have = set(kept[mark].destinations) if mark in kept else set()
            for address in sorted(have - set(service.destinations)):
                self._destination("del", mark, address, 0)
            for address in service.destinations:
                if address not in have:
                    self._destination("add", mark, address, weights.get(mark, {}).get(address, 0))

    def set_weights(self, mark: int, weights: Mapping[str, int]) -> None:
        """Change the weights of a service's destinations; 0 gives a destination no new flows."""
        for address, weight in weights.items():
            self._destination("set", mark, address, weight)

    def _destination(self, verb: str, mark: int, address: str, weight: int) -> None:
        from pyroute2 import IPVSDest

        entry = IPVSDest(addr=address, port=0, weight=weight, fwd_method=_DIRECT_ROUTING)
        self._run(f"{verb} {address} of mark {mark:#x}", self._socket.dest, verb, _key(mark), entry)


def _open() -> Any:
    from pyroute2 import IPVS

    return IPVS()


def _netlink_error() -> type[Exception]:
    from pyroute2.netlink.exceptions import NetlinkError

    error: type[Exception] = NetlinkError
    return error


def _key(mark: int) -> Any:
    from pyroute2 import IPVSService

    return IPVSService(af=_IPV4, fwmark=mark)


def _new(service: Service) -> Any:
    from pyroute2 import IPVSService

    return IPVSService(
        af=_IPV4,
        fwmark=service.mark,
        sched_name=service.scheduler,
        netmask="255.255.255.255",
        timeout=0,
        flags={"flags": service.flags, "mask": _ALL},
    )
