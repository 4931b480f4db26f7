"""The text of nftables objects: blocks and elements. Every chain ends with a line of its own, as nft 1.0.6 wants it."""

from __future__ import annotations

__all__ = ["block", "elements"]


def block(head: str, lines: list[str]) -> list[str]:
    """``head { lines }``, indented as the content of a table."""
    return [f"  {head} {{", *(f"    {line}" for line in lines), "  }"]


def elements(each: list[str]) -> list[str]:
    """The line that fills a set or map; no line when there is nothing."""
    return [f"elements = {{ {', '.join(each)} }}"] if each else []
