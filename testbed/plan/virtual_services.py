"""What IPVS is told: per rule one virtual service for TCP and one for UDP, and the names that flows have there. Pure.

IPVS only picks the member of a flow's first packet; conntrack remembers it. While the packet is with IPVS, its
destination is an address that stands for the rule (:func:`flow_address`), so that nothing IPVS remembers ever
looks like a packet on a cable: neither an ICMP error, nor the other direction, nor the same flow at another rule.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.plan.numbers import balance_mark
from testbed.plan.objects import VirtualService

if TYPE_CHECKING:
    from testbed.plan.model import Member, Rule

__all__ = ["HASHED", "ONE_PACKET", "asks", "destination", "flow_address", "service_marks", "services", "weights"]

#: Flags of IPVS: 0x8 falls back to another member when the hashed one has weight 0, 0x10 hashes the port as well.
HASHED = 0x18
ONE_PACKET = 0x4  # ``ipvsadm -o``
#: Datagrams leave no connection to count, so where TCP goes to whom has fewest, UDP takes turns.
_WITHOUT_CONNECTIONS = {"lc": "rr", "wlc": "wrr"}
#: 198.18.0.0/15 is set aside for measuring (RFC 2544); here it never leaves the fabric.
_MEMBERS, _FLOWS, _AGAIN = IPv4Address("198.18.0.0"), IPv4Address("198.19.0.0"), 0x8000


def asks(rule: Rule) -> bool:
    """Whether IPVS is asked for a rule's flows: not without members, for IPv6, nor where addresses alone choose.

    No scheduler hashes both addresses, so for ``SourceIP`` and ``SourceIPProtocol`` nftables picks.
    """
    return bool(rule.members) and rule.hashes_ports and rule.version == 4


def service_marks(rule: Rule) -> tuple[int, int]:
    """Packet marks that ask IPVS, for TCP and for UDP."""
    return balance_mark(rule.id), balance_mark(rule.id) | 1


def destination(member: Member) -> str:
    """The member's address among IPVS's destinations: members of unpeered networks may share their real one."""
    return str(_MEMBERS + member.id)


def flow_address(rule: Rule, *, again: bool = False) -> str:
    """Destination of the rule's packets while they are with IPVS; another one when a flow's member is picked anew."""
    return str(_FLOWS + rule.id + (_AGAIN if again else 0))


def services(rules: tuple[Rule, ...], scheduler: str) -> tuple[VirtualService, ...]:
    """The services of a lab, by mark."""
    made = []
    for rule in rules:
        if asks(rule):
            names = tuple(sorted(destination(member) for member in rule.members))
            tcp, udp = service_marks(rule)
            flags = HASHED if scheduler in ("mh", "sh") else 0
            made.append(VirtualService(tcp, scheduler, flags, names))
            made.append(VirtualService(udp, _WITHOUT_CONNECTIONS.get(scheduler, scheduler), flags | ONE_PACKET, names))
    return tuple(sorted(made, key=lambda each: each.mark))


def weights(rule: Rule, eligible: frozenset[int], scheduler: str) -> dict[str, int]:
    """Weight of each destination: 0 for who is not eligible.

    The others have 1, but for ``fo``, which gives all flows to the heaviest: the first of the document.
    """
    rank = {member.id: len(rule.members) - place for place, member in enumerate(rule.members)}
    return {
        destination(each): (rank[each.id] if scheduler == "fo" else 1) if each.id in eligible else 0
        for each in rule.members
    }
