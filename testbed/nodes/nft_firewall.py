"""The program ``nft-firewall``: a stateful network virtual appliance made of the kernel's own firewall.

It forwards flows whose start it has seen and drops the rest, so a flow whose directions cross two appliances
really breaks. What leaves for addresses outside the trusted space gets the appliance's own address, or every flow
does (``source_nat``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.errors import LabError
from testbed.kernel import nft, sysctl
from testbed.nodes.fault_switch import FaultSwitch, ResponderFault
from testbed.nodes.program import raise_descriptor_limit, read_config, until_terminated
from testbed.nodes.responder import HealthResponder
from testbed.nodes.standby import Standby

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FirewallConfig", "ruleset", "run"]


@dataclass(frozen=True, slots=True)
class FirewallConfig:
    """``heartbeat_seconds`` is in the lab's time; ``standby_of`` the active appliance's address.

    ``source_nat``: ``outside`` the trusted prefixes, ``all`` or ``none``. With ``ipv6`` it forwards, and answers
    probes, in both IP versions; it translates IPv4 only.
    """

    machine: str
    probe_port: int = 8080
    probe_path: str = "/health"
    trusted_prefixes: tuple[str, ...] = ()
    source_nat: str = "outside"
    standby_of: str | None = None
    heartbeat_seconds: float = 1.0
    control: str | None = None
    ipv6: bool = False


_TRANSLATIONS = {
    "outside": 'oifname != "lo" ip daddr != @trusted masquerade',
    "all": 'oifname != "lo" masquerade',
    "none": "counter",
}


def ruleset(trusted_prefixes: tuple[str, ...], source_nat: str = "outside", *, ipv6: bool = False) -> str:
    """The appliance's nftables tables, replacing earlier ones."""
    trusted = f"    elements = {{ {', '.join(trusted_prefixes)} }}\n" if trusted_prefixes else ""
    return f"""\
table ip testbed
delete table ip testbed
table ip testbed {{
  set trusted {{
    type ipv4_addr
    flags interval
    auto-merge
{trusted}  }}
{_forward("icmp type echo-request")}  chain leave {{
    type nat hook postrouting priority srcnat; policy accept;
    {_TRANSLATIONS[source_nat]}
  }}
}}
{_IPV6_TABLE if ipv6 else ""}"""


def _forward(echo_request: str) -> str:
    return f"""\
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state invalid counter drop
    ct state new tcp flags & (fin | syn | rst | ack) == syn accept
    ct state new meta l4proto udp accept
    ct state new {echo_request} accept
    counter drop
  }}
"""


_IPV6_TABLE = f"""\
table ip6 testbed
delete table ip6 testbed
table ip6 testbed {{
{_forward("icmpv6 type echo-request")}}}
"""


async def run(config: str, ready: Callable[[], None]) -> None:
    """Filter, and answer probes, until SIGTERM; the kernel goes on filtering afterwards.

    Raises:
        LabError: The port is taken, or the kernel refuses rules or settings.
    """
    own = read_config(FirewallConfig, config)
    raise_descriptor_limit()
    standby = None
    if own.standby_of:
        standby = Standby(own.standby_of, own.probe_port, own.probe_path, own.heartbeat_seconds)
    switch = FaultSwitch(own.control, f"tcp dport {own.probe_port}")

    def healthy() -> bool:
        return switch.fault is not ResponderFault.PROBE_DOWN and not (standby and standby.passive)

    try:  # the port first of all: who has it is the machine's firewall
        responder = HealthResponder(own.machine, own.probe_port, own.probe_path, healthy, ipv6=own.ipv6)
    except OSError as error:
        raise LabError(f"machine {own.machine!r}: port {own.probe_port} cannot be had: {error}") from error
    rules = ruleset(own.trusted_prefixes, own.source_nat, ipv6=own.ipv6)
    nft.run(rules)  # before the settings: it brings connection tracking, and theirs
    sysctl.write("net.netfilter.nf_conntrack_tcp_loose", "0")
    sysctl.write("net.ipv4.ip_forward", "1")
    if own.ipv6:
        sysctl.write("net.ipv6.conf.all.forwarding", "1")
    async with switch:
        working = [responder.serve(), *([standby.watch()] if standby else [])]
        tasks = [asyncio.create_task(each) for each in (*working, until_terminated())]
        ready()
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()
