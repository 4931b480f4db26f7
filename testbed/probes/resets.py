"""TCP resets to both ends of a flow that the balancer has forgotten, with sequence numbers that the ends believe.

A reset is heeded only at exactly the next sequence number that its receiver expects, and the balancer does not follow
these. So each end is asked: a SYN that seems to come from the other end is answered with the two numbers it is at
(a challenge ACK, RFC 5961, section 4), and the reset follows with these. Nothing of this crosses the fabric's rules: it
is sent and read on the cables of the ends, and what a forgotten flow's ends send is dropped.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.kernel.segments import ACK, RST, SYN, Segment, SegmentSocket
from testbed.plan.numbers import LOGIN_MARK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.plan.model import Cable

__all__ = ["Ending", "Side", "reset"]

_MOST = SegmentSocket.MOST // 2
#: A socket answers one such SYN in half a second (``tcp_invalid_ratelimit``), so it is asked again after that.
_ASKED_AGAIN = 0.6
_TIMES = 3
_FIRST_SEQUENCE = 1


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a flow as it sees itself: its own address and port, its peer's.

    ``asked`` is the cable it is asked by (None: it is nowhere in the lab), ``reset`` the one that its reset is sent
    by: that of an appliance, if one is in the path.
    """

    own: tuple[str, int]
    peer: tuple[str, int]
    asked: Cable | None
    reset: Cable | None

    def to(self, flags: int, sequence: int) -> Segment:
        """A segment to it, from its peer."""
        return Segment(*self.peer, *self.own, sequence, 0, flags)


@dataclass(frozen=True, slots=True)
class Ending:
    """The two sides of a flow that is reset."""

    client: Side
    backend: Side


async def reset(endings: Sequence[Ending]) -> int:
    """Ask both sides of each flow where they are, and reset them; returns how many resets were sent.

    Works in the network namespace of the calling thread. A side that does not answer gets the number that the other
    one tells; when neither does, the flow is dead already.
    """
    sent = 0
    wire = SegmentSocket(LOGIN_MARK)  # no network security group has a say in it
    try:
        for some in (endings[start : start + _MOST] for start in range(0, len(endings), _MOST)):
            answers = await _ask(wire, [side for each in some for side in (each.client, each.backend)])
            for each in some:
                for side, other in ((each.client, each.backend), (each.backend, each.client)):
                    sent += _finish(wire, side, answers.get(_key(side)), answers.get(_key(other)))
    finally:
        wire.close()
    return sent


_Key = tuple[tuple[str, int], tuple[str, int]]


def _key(side: Side) -> _Key:
    return side.own, side.peer


async def _ask(wire: SegmentSocket, sides: Sequence[Side]) -> dict[_Key, Segment]:
    """The first answer of each side that can be asked."""
    waiting = {_key(side): side for side in sides if side.asked}
    answers: dict[_Key, Segment] = {}
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()
    wire.watch((side.own[1], side.peer[1]) for side in waiting.values())
    loop.add_reader(wire, heard.set)
    try:
        for _ in range(_TIMES):
            for side in waiting.values():
                _send(wire, side.asked, side.to(SYN, _FIRST_SEQUENCE))
            until = loop.time() + _ASKED_AGAIN
            while waiting and loop.time() < until:
                try:
                    await asyncio.wait_for(heard.wait(), until - loop.time())
                except TimeoutError:
                    break
                heard.clear()
                for segment in wire.read():
                    key = ((segment.source, segment.source_port), (segment.destination, segment.destination_port))
                    if key in waiting and segment.flags & (ACK | RST):
                        del waiting[key]
                        answers[key] = segment
            if not waiting:
                break
    finally:
        loop.remove_reader(wire)
        wire.watch(())
    return answers


def _finish(wire: SegmentSocket, side: Side, own: Segment | None, other: Segment | None) -> bool:
    """Reset one side, if it is known where it is; whether it was."""
    if own is not None:
        if own.flags & RST:  # it knows of no connection
            return False
        expected = own.acknowledgement
    elif other is not None and other.flags & ~ACK == 0:
        expected = other.sequence
    else:
        return False
    return _send(wire, side.reset, side.to(RST, expected))


def _send(wire: SegmentSocket, cable: Cable | None, segment: Segment) -> bool:
    if cable is None:
        return False
    try:
        wire.send(cable.link, cable.mac, cable.fabric_mac, segment)
    except OSError:  # the cable is unplugged
        return False
    return True
