"""Types of arguments: which words they take, and that the others are refused with the word in the message."""

from __future__ import annotations

from argparse import ArgumentTypeError
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest

from testbed.cli import words

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (words.time_scale, "0.02", 0.02),
        (words.time_scale, "100", 100.0),
        (words.seconds, "1.5", 1.5),
        (words.port, "1", 1),
        (words.port, "65535", 65535),
        (words.flow_count, "60000", 60_000),
        (words.packet_count, "1", 1),
        (words.number, "0", 0),
        (words.address, "10.2.0.4", IPv4Address("10.2.0.4")),
        (words.address, "fd00::4", IPv6Address("fd00::4")),
    ],
)
def test_good_words(kind: Callable[[str], object], text: str, value: object) -> None:
    """A word in range becomes its value."""
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (words.time_scale, ("0", "-1", "nan", "inf", "1e9", "1e-9", "abc", "")),
        (words.seconds, ("0", "-1", "nan", "inf", "soon", "")),
        (words.port, ("0", "65536", "-1", "http", "1.0", "")),
        (words.flow_count, ("0", "60001", "many")),
        (words.packet_count, ("0", "-3", "x", "٣")),
        (words.number, ("-1", "x", "1.5", "²", "")),
        (words.address, ("10.2.0", "10.2.0.256", "::1::", "10.2.0.0/24", "web1", "")),
    ],
)
def test_bad_words(kind: Callable[[str], object], texts: tuple[str, ...]) -> None:
    """A word that is no such thing, or out of range, is refused and quoted."""
    for text in texts:
        with pytest.raises(ArgumentTypeError) as caught:
            kind(text)
        assert repr(text) in str(caught.value)
