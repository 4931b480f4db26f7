"""Numbers that must not change while a lab lives: ids in marks, zones, tables and MAC addresses.

They are given in order of first appearance and kept in the lab's state, so that adding a machine to a running
lab renumbers nothing: established flows carry these ids in their conntrack marks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.errors import InputError

__all__ = [
    "FRAGMENT",
    "INTERNET_ZONE",
    "IPVS_MASK",
    "IPVS_TABLE",
    "LOGIN_MARK",
    "MEMBER_MASK",
    "TABLE_MASK",
    "Numbers",
    "balance_mark",
    "member_table",
    "network_table",
    "table_mark",
]

#: Packet mark, low half: the pool member that a packet is steered to.
MEMBER_MASK = 0x0000_FFFF
#: Packet mark, high half: the routing table of the sender's subnet. The top bit says "to be balanced".
TABLE_MASK = 0xFFFF_0000
#: Packet mark of the lab's own logins: no network security group has a say in them, and no routing table.
LOGIN_MARK = 0x0000_FFFF
#: Bit of the low half that no member has: the packet came in fragments.
FRAGMENT = 0x0000_8000
#: Conntrack zone of what leaves for the internet; zones of rules are their ids.
INTERNET_ZONE = 0xFFFF
#: The bit of a packet mark that says "to be balanced"; at routing only packets for IPVS still have it.
IPVS_MASK = 0x8000_0000
#: Routing table that hands packets to IPVS: everything is local there.
IPVS_TABLE = 9_000
_LIMIT = 0x7FFE


def member_table(member: int) -> int:
    """Routing table that leads to one pool member and nowhere else."""
    return 10_000 + member


def network_table(number: int) -> int:
    """Routing table of a subnet or of a virtual network."""
    return 50_000 + number


def table_mark(number: int) -> int:
    """Packet mark that selects :func:`network_table`."""
    return number << 16


def balance_mark(rule: int) -> int:
    """Packet mark that asks the balancer to choose a member for a rule."""
    return 0x8000_0000 | rule << 16


@dataclass
class Numbers:
    """Gives each key a small number within its kind, and the same one for ever."""

    known: dict[str, int] = field(default_factory=dict)

    def of(self, kind: str, key: str) -> int:
        """The number of ``key``, from 1; a new key gets the lowest that its kind has never used.

        Raises:
            InputError: The kind's 32,766 numbers are used up.
        """
        name = f"{kind}:{key}"
        if name not in self.known:
            used = {number for other, number in self.known.items() if other.startswith(f"{kind}:")}
            self.known[name] = max(used, default=0) + 1
            if self.known[name] > _LIMIT:
                raise InputError(f"too many objects of kind {kind!r}", fix=f"a lab holds at most {_LIMIT}")
        return self.known[name]
