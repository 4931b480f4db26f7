"""Which flows a measurement sends: pairs of machines, unique ports, and the key a capture finds them by."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from testbed.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from testbed.plan.model import Member

__all__ = ["RESERVED_SOURCE_PORTS", "Flow", "FlowKey", "Pair", "Tap", "Transport", "draw_server_port", "spread"]

#: Never used as source: 7 is the echo server's own port (the answer would be echoed for ever), and Azure
#: keeps UDP source port 65330 to itself (https://learn.microsoft.com/azure/virtual-network/virtual-networks-faq).
RESERVED_SOURCE_PORTS = frozenset({7, 65330})

#: Active FTP's data port. IPVS lets it pass unscheduled, so every set of flows has it.
_FTP_DATA = 20
#: Destination ports that firewalls and balancers like to treat in a special way.
_WELL_KNOWN = (53, 80, 443, 22, 3389, 1433, 445, 5060, 123, 21, 1, 65535)


class Transport(IntEnum):
    """IP protocol numbers of the flows."""

    TCP = 6
    UDP = 17


@dataclass(frozen=True, slots=True)
class Pair:
    """A client and a server address whose packets go to a balancing rule.

    ``both_directions``: the route of the answers names the rule as well. When it does not, only a member
    that answers itself or translates the source keeps the flow symmetric; the verdict is the same.
    ``answers_rule_id``: the other rule that the route of the answers names; 0: none.
    """

    client_machine: str
    client_namespace: str
    client_address: str
    client_nic: str
    server_name: str
    server_address: str
    rule_id: int
    both_directions: bool
    other_ports: frozenset[int] = frozenset()
    """Destination ports that another rule has."""
    answers_rule_id: int = 0

    @property
    def version(self) -> int:
        """Of IP."""
        return 6 if ":" in self.client_address else 4

    def __str__(self) -> str:
        return f"{self.client_machine} -> {self.server_name}"


@dataclass(frozen=True, slots=True)
class Tap:
    """A place to capture: a member's own network interface, in the member's namespace.

    ``rule_ids`` are the rules it serves; frames of other rules' flows are not its business. Empty: all.
    """

    name: str
    namespace: str
    nic: str
    address: str
    rule_ids: frozenset[int] = frozenset()

    @classmethod
    def of(cls, member: Member, rule_ids: Collection[int] = ()) -> Tap:
        """The tap on a member of the plan, named after its machine."""
        nic = member.network_interface
        return cls(member.machine, member.namespace, nic, member.address, frozenset(rule_ids))

    def serves(self, pair: Pair) -> bool:
        """Whether flows of this pair are expected here."""
        return not self.rule_ids or not self.rule_ids.isdisjoint((pair.rule_id, pair.answers_rule_id))


@dataclass(frozen=True, slots=True)
class FlowKey:
    """What every leg of a flow has in common, whatever is done to the server's address on the way.

    A member that translates addresses shows the client's tuple on one leg and another tuple on the other;
    a member that answers for a frontend sees its own address as the destination. The key covers both.
    """

    protocol: Transport
    client_address: str
    client_port: int
    server_port: int


@dataclass(frozen=True, slots=True)
class Flow:
    """One TCP connection attempt or one UDP exchange of a pair; ``number`` is its place in the set."""

    number: int
    pair: Pair
    protocol: Transport
    client_port: int
    server_port: int

    @property
    def key(self) -> FlowKey:
        """How captures find it."""
        return FlowKey(self.protocol, self.pair.client_address, self.client_port, self.server_port)

    def __str__(self) -> str:
        form = "[{}]:{}" if self.pair.version == 6 else "{}:{}"
        client = form.format(self.pair.client_address, self.client_port)
        server = form.format(self.pair.server_address, self.server_port)
        return f"{self.protocol.name.lower()} {client} -> {server} ({self.pair})"


def draw_server_port(generator: random.Random, pair: Pair) -> int:
    """A random destination port that the pair's rule covers."""
    while (port := generator.randint(1, 65535)) in pair.other_ports:
        pass
    return port


def _source_ports(generator: random.Random, count: int, avoid: frozenset[int], client: str) -> list[int]:
    allowed = [port for port in range(1, 65536) if port not in avoid]
    if count > len(allowed):
        raise InputError(
            f"client {client} has only {len(allowed)} source ports per protocol, {count} flows need one each",
            fix="ask for fewer flows, or let more machines send",
        )
    return generator.sample(allowed, count)


def spread(pairs: Sequence[Pair], count: int, seed: int, *, avoid_ports: Collection[int] = ()) -> tuple[Flow, ...]:
    """``count`` flows, dealt over the pairs in turn, TCP and UDP by halves.

    Source ports are random and unique per client address and protocol; one flow of each protocol uses source
    port 20, to a random port: no flow is the same whatever the seed, or a box would still know it from the run before.
    The next ones go to a few well-known ports, the rest to random ones. The same seed gives the same flows.

    Args:
        pairs: Who talks to whom.
        count: How many flows.
        seed: Seeds the random ports.
        avoid_ports: Source ports to leave out besides :data:`RESERVED_SOURCE_PORTS`, such as the probe's.

    Raises:
        InputError: There is no pair, or a client runs out of source ports.
    """
    if not pairs:
        raise InputError(
            "no pair of machines is balanced, there is nothing to send",
            fix="give the subnet of a machine with an echo server a route whose next hop is a frontend",
        )
    generator = random.Random(seed)  # noqa: S311 - ports of test traffic, not secrets
    avoid = RESERVED_SOURCE_PORTS | frozenset(avoid_ports) | {_FTP_DATA}
    # Both protocols of a pair come one after the other, so every pair gets as many of each.
    dealt = [(pairs[number // 2 % len(pairs)], list(Transport)[number % 2]) for number in range(count)]
    ports: dict[tuple[str, Transport], list[int]] = {}
    for pair, protocol in dealt:
        ports.setdefault((pair.client_address, protocol), []).append(0)
    for (client, protocol), needed in sorted(ports.items()):
        ports[client, protocol] = _source_ports(generator, len(needed), avoid, client)
    flows = []
    taken: set[tuple[object, ...]] = set()
    for number, (pair, protocol) in enumerate(dealt):
        place = number // len(Transport) - 1
        drawn = ports[pair.client_address, protocol].pop()
        client_port = _FTP_DATA if number < len(Transport) else drawn
        server_port = _WELL_KNOWN[place] if 0 <= place < len(_WELL_KNOWN) else generator.randint(1, 65535)
        # Two flows that are each other's answers would be one flow for every box on the way.
        while (
            server_port in pair.other_ports
            or (protocol, pair.server_address, server_port, pair.client_address, client_port) in taken
        ):
            server_port = generator.randint(1, 65535)
        taken.add((protocol, pair.client_address, client_port, pair.server_address, server_port))
        flows.append(Flow(number, pair, protocol, client_port, server_port))
    return tuple(flows)
