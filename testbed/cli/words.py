"""Types of arguments: what argparse calls to read a word, with messages that say what would be right."""

from __future__ import annotations

from argparse import ArgumentTypeError
from ipaddress import IPv4Address, IPv6Address, ip_address

__all__ = ["address", "flow_count", "number", "packet_count", "port", "seconds", "time_scale"]

#: Below this Azure's shortest probe interval (5 s) would be less than a computer can keep.
_SMALLEST_SCALE = 0.001
_LARGEST_SCALE = 100


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")  # in no range


def _whole(text: str, what: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= most:
        raise ArgumentTypeError(f"{text!r} is not {what} (1-{most})")
    return int(text)


def time_scale(text: str) -> float:
    """A factor for Azure's times."""
    value = _float(text)
    if not _SMALLEST_SCALE <= value <= _LARGEST_SCALE:
        raise ArgumentTypeError(f"{text!r} is not a number from {_SMALLEST_SCALE} to {_LARGEST_SCALE}")
    return value


def seconds(text: str) -> float:
    """A span of time above zero."""
    value = _float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def port(text: str) -> int:
    """A port number."""
    return _whole(text, "a port", 65535)


def flow_count(text: str) -> int:
    """A number of flows; there are not more source ports than this."""
    return _whole(text, "a number of flows", 60_000)


def packet_count(text: str) -> int:
    """A number of packets to capture."""
    return _whole(text, "a number of packets", 2**31 - 1)


def number(text: str) -> int:
    """Any whole number from 0 on."""
    if not (text.isascii() and text.isdigit()):
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def address(text: str) -> IPv4Address | IPv6Address:
    """An IPv4 or IPv6 address."""
    try:
        return ip_address(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not an IP address") from error
