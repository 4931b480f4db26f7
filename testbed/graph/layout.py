"""Where the boxes of a scene go: hubs in the middle column, spokes at both sides, all in whole pixels.

A hub is a virtual network with a frontend or with more than one peering.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.graph.scene import Item, NetworkBox, Scene, SubnetBox

__all__ = ["HEAD", "LINE", "Box", "Layout", "arrange"]

#: Heights, in pixels: of a box's title, and of a line of text.
HEAD, LINE = 30, 16
_ITEM_WIDTH, _ITEM_GAP, _LANE = 150, 20, 40
_PAD, _COLUMN_GAP, _BOX_GAP, _MARGIN, _TITLE = 16, 200, 36, 24, 44
_PER_ROW = 4
_CHARACTER = 7  # width, on the safe side, of a character of a title
_MIDDLE, _LEFT, _RIGHT = 1, 0, 2
_LEGEND_WIDTH = 560
#: Room at the right for lines between boxes that stand above one another.
_ROUND = 120


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    x: int
    y: int
    width: int
    height: int

    @property
    def centre(self) -> int:
        """Of its width."""
        return self.x + self.width // 2

    @property
    def middle(self) -> int:
        """Of its height."""
        return self.y + self.height // 2

    @property
    def right(self) -> int:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """Its lower edge."""
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Layout:
    """Boxes by id, and the size of the picture."""

    width: int
    height: int
    boxes: dict[str, Box]


def _item_height(item: Item) -> int:
    return HEAD + LINE * len(item.lines) - 2


def _rows(subnet: SubnetBox) -> list[tuple[Item, ...]]:
    """Frontends in rows of their own, above the machines."""
    rows: list[tuple[Item, ...]] = []
    frontends = tuple(item for item in subnet.items if item.kind == "frontend")
    for items in (frontends, tuple(item for item in subnet.items if item.kind != "frontend")):
        rows += [items[at : at + _PER_ROW] for at in range(0, len(items), _PER_ROW)]
    return rows


def _row_width(count: int) -> int:
    return count * _ITEM_WIDTH + (count - 1) * _ITEM_GAP


def _head(subnet: SubnetBox) -> int:
    """The title, the notes, and room for the lines that come to pool members."""
    return HEAD + LINE * len(subnet.notes) + (_LANE // 2 if subnet.pooled else 0)


def _subnet_size(subnet: SubnetBox) -> tuple[int, int]:
    rows = _rows(subnet)
    widths = [_row_width(len(row)) for row in rows]
    texts = [_CHARACTER * len(text) for text in (subnet.title, *subnet.notes)]
    height = _head(subnet) + _PAD
    height += sum(max(map(_item_height, row)) for row in rows) + _LANE * max(len(rows) - 1, 0)
    return max(*widths, *texts, _ITEM_WIDTH) + 2 * _PAD if widths else max(*texts, _ITEM_WIDTH) + 2 * _PAD, height


def _network_size(network: NetworkBox) -> tuple[int, int]:
    sizes = [_subnet_size(each) for each in network.subnets]
    width = max([width for width, _ in sizes] + [_CHARACTER * len(network.title)])
    height = HEAD + _PAD + sum(height for _, height in sizes) + _BOX_GAP * max(len(sizes) - 1, 0)
    return width + 2 * _PAD, height


def _ordered(network: NetworkBox) -> NetworkBox:
    """Frontends on top, above the members they lead to."""

    def rank(subnet: SubnetBox) -> bool:
        return not any(item.kind == "frontend" for item in subnet.items)

    return replace(network, subnets=tuple(sorted(network.subnets, key=rank)))


def _columns(scene: Scene) -> list[list[NetworkBox]]:
    """Left, middle and right."""
    degree = Counter(end for each in scene.edges if each.kind == "peering" for end in (each.source, each.target))
    columns: list[list[NetworkBox]] = [[], [], []]
    for network in map(_ordered, scene.networks):
        frontends = any(item.kind == "frontend" for subnet in network.subnets for item in subnet.items)
        if frontends or degree[network.id] > 1:
            columns[_MIDDLE].append(network)
        else:
            columns[_LEFT if len(columns[_LEFT]) <= len(columns[_RIGHT]) else _RIGHT].append(network)
    return columns


def _place_network(network: NetworkBox, box: Box, boxes: dict[str, Box]) -> None:
    boxes[network.id] = box
    y = box.y + HEAD
    for subnet in network.subnets:
        _, height = _subnet_size(subnet)
        inner = Box(box.x + _PAD, y, box.width - 2 * _PAD, height)
        boxes[subnet.id] = inner
        y = inner.bottom + _BOX_GAP
        top = inner.y + _head(subnet)
        for row in _rows(subnet):
            x = inner.centre - _row_width(len(row)) // 2
            for item in row:
                boxes[item.id] = Box(x, top, _ITEM_WIDTH, _item_height(item))
                x += _ITEM_WIDTH + _ITEM_GAP
            top += max(map(_item_height, row)) + _LANE


def _column_height(networks: Sequence[NetworkBox]) -> int:
    return sum(_network_size(each)[1] for each in networks) + _BOX_GAP * max(len(networks) - 1, 0)


def _stacked(one: Box, other: Box) -> bool:
    return one.x < other.right and other.x < one.right


def arrange(scene: Scene) -> Layout:
    """Give every box of the scene its place."""
    columns = _columns(scene)
    tallest = max(map(_column_height, columns))
    boxes: dict[str, Box] = {}
    x = _MARGIN
    for networks in columns:
        if not networks:
            continue
        width = max(_network_size(each)[0] for each in networks)
        y = _TITLE + _MARGIN + (tallest - _column_height(networks)) // 2
        for network in networks:
            height = _network_size(network)[1]
            _place_network(network, Box(x, y, width, height), boxes)
            y += height + _BOX_GAP
        x += width + _COLUMN_GAP
    width = x - _COLUMN_GAP + _MARGIN
    height = _TITLE + _MARGIN + tallest + _MARGIN
    if scene.internet:
        size = _item_height(scene.internet)
        boxes[scene.internet.id] = Box(width // 2 - _ITEM_WIDTH // 2, height + _BOX_GAP - _MARGIN, _ITEM_WIDTH, size)
        height += _BOX_GAP + size
    around = any(each.kind == "route" and _stacked(boxes[each.source], boxes[each.target]) for each in scene.edges)
    return Layout(max(width + _ROUND * around, _LEGEND_WIDTH), height + _LANE, boxes)
