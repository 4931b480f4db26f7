"""Which bucket a flow has in the modes without ports: the kernel's hash, whose seed is known. Pure.

``jhash`` of the kernel (``include/linux/jhash.h``) on words, after Bob Jenkins' lookup3; nftables takes its upper
part for the bucket (``reciprocal_scale``).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from testbed.plan.ruleset.choice import HASH_SEED, pair_side

if TYPE_CHECKING:
    from testbed.plan.model import Rule

__all__ = ["jhash", "pair_bucket"]

_MASK = 0xFFFF_FFFF
_INITIAL = 0xDEAD_BEEF


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _MASK


def jhash(data: bytes, seed: int) -> int:
    """The kernel's hash of 4, 8 or 12 bytes."""
    words: tuple[int, ...] = struct.unpack(f"={len(data) // 4}I", data)
    a = b = c = (_INITIAL + len(data) + seed) & _MASK
    a += words[0]
    b += words[1] if len(words) > 1 else 0
    c += words[2] if len(words) > 2 else 0
    a, b, c = a & _MASK, b & _MASK, c & _MASK
    c = ((c ^ b) - _rotated(b, 14)) & _MASK
    a = ((a ^ c) - _rotated(c, 11)) & _MASK
    b = ((b ^ a) - _rotated(a, 25)) & _MASK
    c = ((c ^ b) - _rotated(b, 16)) & _MASK
    a = ((a ^ c) - _rotated(c, 4)) & _MASK
    b = ((b ^ a) - _rotated(a, 14)) & _MASK
    return ((c ^ b) - _rotated(b, 24)) & _MASK


def pair_bucket(rule: Rule, protocol: int, source: str, destination: str) -> int | None:
    """The bucket of a flow; None when the rule hashes ports, with a seed that only the kernel knows."""
    if rule.hashes_ports:
        return None
    more = bytes([protocol, 0, 0, 0]) if rule.load_distribution == "SourceIPProtocol" else b""
    side = pair_side(rule)
    one, other = (jhash(IPv4Address(end).packed + more, HASH_SEED) for end in (source, destination))
    return (one * side >> 32) * side + (other * side >> 32)
