"""What is said of packets is what packets do, in labs that nobody has thought of.

A lab goes from one random document to the next. After each change a second ``up`` finds nothing to do, and datagrams
between the machines are seen at the interfaces that ``explain`` names, and at no others. The first failure names its
seed. For more than the few of a usual run: ``RANDOM_LABS=200 pytest tests/integration/test_random_labs.py``.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING

import pytest
from random_documents import draw

from testbed.balancer.nftables import read_eligible
from testbed.errors import DeadlineError
from testbed.kernel import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable

    from labs import Lab, Tap

_LABS = int(os.environ.get("RANDOM_LABS", "8"))
_DOCUMENTS, _DATAGRAMS = 3, 60


@dataclass(frozen=True)
class Datagram:
    """One that a machine sends; ``number`` is its source port, and in its text."""

    sender: str
    destination: str
    number: int
    port: int

    @property
    def text(self) -> bytes:
        return b"number %d." % self.number


@pytest.mark.parametrize("seed", range(_LABS))
def test_packets_do_what_is_said_of_them(own_lab: Callable[..., Lab], seed: int) -> None:
    """Through three documents, each drawn without regard to the one before it."""
    random = Random(seed)  # noqa: S311 - the same labs each time
    lab = own_lab()
    for number in range(_DOCUMENTS):
        lab.up(draw(random), healthy=False)
        assert lab.up(lab.document, healthy=False).changes == (), f"seed {seed}, document {number}"
        looks = (_differences(lab, random) for _ in range(5))
        wrong = next((each for each in looks if each is not None), ["healthy members changed during each look"])
        assert not wrong, f"seed {seed}, document {number}:\n" + "\n".join(wrong)


def _differences(lab: Lab, random: Random) -> list[str] | None:
    """Send some datagrams; each that went another way than is said. None: the healthy members changed meanwhile."""
    datagrams = _datagrams(lab, random)
    before = _eligible(lab)
    with lab.tap(*(each.name for each in lab.plan.machines)) as tap:
        for each in datagrams:
            own = lab.open(each.sender, socket.SOCK_DGRAM, each.number, ipv6=":" in each.destination)
            with own, suppress(OSError):  # it may know of no way itself
                own.sendto(each.text, (each.destination, each.port))
        said = {each: way for each in datagrams if (way := _said(lab, each)) is not None}
        with suppress(DeadlineError):  # what is still wrong then is told
            lab.wait(
                "datagrams go the ways that are said",
                lambda: _wrong(tap, said),
                lambda wrong: not wrong or _eligible(lab) != before,
            )
        wrong = _wrong(tap, said)
    return wrong if _eligible(lab) == before else None


def _wrong(tap: Tap, said: dict[Datagram, list[str]]) -> list[str]:
    packets = [each for each in tap.packets() if each.protocol == socket.IPPROTO_UDP and not each.sent]
    wrong = []
    for datagram, way in said.items():
        seen = [
            each.machine
            for each in packets
            if datagram.text in each.raw and each.destination_port != datagram.number  # an answer says it too
        ]
        if Counter(seen) != Counter(way):
            wrong.append(f"{datagram}: seen at {seen}, said of it: {way}")
    return wrong


def _eligible(lab: Lab) -> dict[int, frozenset[int]]:
    plan = lab.plan
    with namespaces.entered(plan.fabric):
        return {rule.id: frozenset(read_eligible(rule)) for rule in plan.rules}


def _datagrams(lab: Lab, random: Random) -> list[Datagram]:
    """Between machines of the document, and to frontends that are rewritten, the internet and on-premises."""
    plan = lab.plan
    own = [each for machine in plan.machines for nic in machine.network_interfaces for each in nic.versions]
    senders = [each for each in own if each.subnet]
    targets = [each.address for each in own]
    targets += [rule.frontend_address for rule in plan.rules if not rule.enable_floating_ip]
    datagrams = []
    for number in range(20_000, 20_000 + _DATAGRAMS):
        sender = random.choice(senders)
        version = [each for each in targets if (":" in each) == (":" in sender.address) and each != sender.address]
        if version:
            port = random.choice([53, 443, number + 20_000])
            datagrams.append(Datagram(sender.machine, random.choice(version), number, port))
    return datagrams


def _said(lab: Lab, datagram: Datagram) -> list[str] | None:
    """The machines that a datagram gets to; None where it is not told: loops, and first packets that went nowhere."""
    to = ip_address(datagram.destination)
    hops = lab.explain(datagram.sender, to, "udp", datagram.number, datagram.port)
    way: list[str] = []
    for each in hops:
        hop = each.hop
        if hop.loop or (each.blocked and not each.blocked.sure):
            return None
        if each.blocked or hop.refusal or hop.kind == "dropped" or (hop.rule and not each.candidates):
            return way
        if hop.rule and not (each.member or each.predicted):
            return None
        receiver = "internet" if hop.kind == "internet" else hop.receiver.machine
        way.append(receiver)
        if not _forwards(lab, receiver) or _owns(lab, receiver, datagram.destination):
            return way
    return way


def _forwards(lab: Lab, machine: str) -> bool:
    programs = {each["name"]: each["runtime"]["program"] for each in lab.document["machines"]}
    return programs.get(machine) == "nft-firewall"


def _owns(lab: Lab, machine: str, address: str) -> bool:
    interfaces = lab.plan.machine(machine).network_interfaces
    return any(each.address == address for nic in interfaces for each in nic.versions)
