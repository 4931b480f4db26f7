"""A scene as a self-contained SVG. It brings its own light ground, so it is readable on any page."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from testbed.graph.layout import HEAD, LINE, arrange

if TYPE_CHECKING:
    from testbed.graph.layout import Box, Layout
    from testbed.graph.scene import Edge, Item, Scene

__all__ = ["write_svg"]

_STYLE = """
text { font-family: Helvetica, Arial, sans-serif; font-size: 12px; fill: #202124; }
.title { font-size: 17px; font-weight: bold; }
.head { font-weight: bold; }
.small { font-size: 11px; fill: #5f6368; }
.label { font-size: 11px; fill: #137333; text-anchor: middle; }
.plate { fill: #ffffff; }
.vnet { fill: #f5f8ff; stroke: #8ab4f8; stroke-width: 1.5; }
.subnet { fill: #ffffff; stroke: #bdc1c6; }
.machine { fill: #e8f0fe; stroke: #3367d6; }
.frontend { fill: #fdebd0; stroke: #c2610c; stroke-width: 1.5; }
.internet { fill: #eeeeee; stroke: #666666; }
.line { fill: none; }
.peering { stroke: #80868b; stroke-width: 1.5; stroke-dasharray: 6 4; }
.route { stroke: #188038; stroke-width: 2; }
.balance { stroke: #c2610c; stroke-width: 1.3; }
.centred { text-anchor: middle; }
""".strip()
#: Between lines that leave the same box, in pixels.
_TURN = 20
_LEGEND = (("peering", "peering"), ("route", "user-defined route"), ("balance", "frontend to pool member"))


def _rectangle(box: Box, kind: str, radius: int) -> str:
    return f'<rect class="{kind}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="{radius}"/>'


def _text(x: int, y: int, text: str, kind: str = "") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x}" y="{y}">{escape(text)}</text>'


def _item(item: Item, box: Box) -> list[str]:
    parts = [_rectangle(box, item.kind, 22 if item.kind == "frontend" else 6)]
    parts.append(_text(box.centre, box.y + 18, item.title, "head centred"))
    for number, line in enumerate(item.lines):
        parts.append(_text(box.centre, box.y + 18 + LINE * (number + 1), line, "small centred"))
    return parts


def _path(kind: str, steps: str, *, arrow: bool) -> str:
    end = f' marker-end="url(#{kind})"' if arrow else ""
    return f'<path class="line {kind}" d="{steps}"{end}/>'


def _sideways(source: Box, target: Box) -> tuple[int, int, int]:
    """The x to leave at, the x to arrive at, and which way the line leaves (1: to the right)."""
    if source.right <= target.x:
        return source.right, target.x, 1
    if target.right <= source.x:
        return source.x, target.right, -1
    return source.right, target.right, 1  # one above the other: round the right side


def _peering(source: Box, target: Box) -> list[str]:
    start, end, way = _sideways(source, target)
    y1, y2 = source.y + HEAD // 2, target.y + HEAD // 2
    bend = 60 * way
    back = bend if start == end or (start == source.right and end == target.right) else -bend
    steps = f"M {start} {y1} C {start + bend} {y1}, {end + back} {y2}, {end} {y2}"
    return [_path("peering", steps, arrow=False)]


def _route(edge: Edge, source: Box, target: Box, border: Box, turn: int) -> list[str]:
    """Out of the source with the label, up or down between the columns, straight to the target.

    ``border`` is the network that holds the target; ``turn`` counts the lines that left the same source before.
    """
    start, end, way = _sideways(source, target)
    y1, y2 = source.middle + _TURN * turn, target.middle
    width = 7 * len(edge.label) + 4
    label_x = start + (28 + width // 2) * way
    if end == target.right and start == source.right:  # round the right side
        steps = f"M {start} {y1} H {start + 36 + width} C {start + 76 + width} {y1}, {end + 90} {y2}, {end} {y2}"
    else:
        out = start + (36 + width) * way
        rim = (border.x if way > 0 else border.right) - 8 * way
        bend = max(abs(rim - out) // 2, 20) * way
        steps = f"M {start} {y1} H {out} C {out + bend} {y1}, {rim - bend} {y2}, {rim} {y2} H {end}"
    return [
        _path("route", steps, arrow=True),
        f'<rect class="plate" x="{label_x - width // 2}" y="{y1 - 9}" width="{width}" height="16" rx="3"/>',
        _text(label_x, y1 + 4, edge.label, "label"),
    ]


def _balance(source: Box, target: Box, trunk: int) -> list[str]:
    """Down from the frontend, along the lane above the members' row, down to the member."""
    if target.y < source.bottom:  # beside or above: straight
        return [_path("balance", f"M {source.centre} {source.bottom} L {target.centre} {target.y}", arrow=True)]
    first, lane = source.bottom + 10, target.y - 22
    steps = f"M {source.centre} {source.bottom} V {first} H {trunk} V {lane} H {target.centre} V {target.y}"
    return [_path("balance", steps, arrow=True)]


def _edges(scene: Scene, layout: Layout) -> tuple[list[str], list[str]]:
    """Lines that go below the boxes' contents, and lines that go above."""
    parents = {
        item.id: layout.boxes[subnet.id]
        for network in scene.networks
        for subnet in network.subnets
        for item in subnet.items
    }
    borders = {
        item.id: layout.boxes[network.id]
        for network in scene.networks
        for subnet in network.subnets
        for item in subnet.items
    }
    turns: Counter[str] = Counter()
    below: list[str] = []
    above: list[str] = []
    for edge in scene.edges:
        source, target = layout.boxes[edge.source], layout.boxes[edge.target]
        if edge.kind == "peering":
            below += _peering(source, target)
        elif edge.kind == "route":
            above += _route(edge, source, target, borders.get(edge.target, target), turns[edge.source])
            turns[edge.source] += 1
        else:
            above += _balance(source, target, parents[edge.target].centre)
    return below, above


def _legend(layout: Layout) -> list[str]:
    parts = []
    x, y = 24, layout.height - 16
    for kind, words in _LEGEND:
        parts.append(_path(kind, f"M {x} {y - 4} H {x + 32}", arrow=kind != "peering"))
        parts.append(_text(x + 40, y, words, "small"))
        x += 60 + 7 * len(words)
    return parts


def _markers() -> list[str]:
    colours = {"route": "#188038", "balance": "#c2610c"}
    return [
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" fill="{colour}"/></marker>'
        for kind, colour in colours.items()
    ]


def write_svg(scene: Scene) -> str:
    """The picture, ending with a line feed."""
    layout = arrange(scene)
    size = f"{layout.width} {layout.height}"
    width, height = layout.width, layout.height
    below, above = _edges(scene, layout)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{width}" height="{height}" role="img">',
        f"<title>{escape(scene.title)}</title>",
        f"<style>{_STYLE}</style>",
        "<defs>",
        *_markers(),
        "</defs>",
        f'<rect class="plate" width="{width}" height="{height}" rx="12"/>',
        _text(24, 36, scene.title, "title"),
        *below,
    ]
    for network in scene.networks:
        box = layout.boxes[network.id]
        parts += [_rectangle(box, "vnet", 10), _text(box.x + 12, box.y + 20, network.title, "head")]
        for subnet in network.subnets:
            inner = layout.boxes[subnet.id]
            parts += [_rectangle(inner, "subnet", 6), _text(inner.x + 10, inner.y + 19, subnet.title)]
            for number, note in enumerate(subnet.notes):
                parts.append(_text(inner.x + 10, inner.y + 19 + LINE * (number + 1), note, "small"))
    parts += above
    items = [item for network in scene.networks for subnet in network.subnets for item in subnet.items]
    for item in [*items, *([scene.internet] if scene.internet else [])]:
        parts += _item(item, layout.boxes[item.id])
    return "\n".join([*parts, *_legend(layout), "</svg>"]) + "\n"
