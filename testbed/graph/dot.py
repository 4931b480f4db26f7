"""A scene as a Graphviz graph: clusters in clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.graph.scene import Edge, Item, Scene

__all__ = ["write_dot"]

_ITEMS = {
    "machine": 'fillcolor="#e8f0fe", color="#3367d6"',
    "frontend": 'fillcolor="#fdebd0", color="#c2610c", shape=oval',
    "internet": 'fillcolor="#eeeeee", color="#666666", shape=ellipse',
}
_EDGES = {
    "peering": 'style=dashed, dir=none, color="#666666"',
    "route": 'color="#188038", penwidth=2',
    "balance": 'color="#c2610c"',
}


def _quoted(*lines: str) -> str:
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'


def _item(item: Item) -> str:
    return f"{item.id} [label={_quoted(item.title, *item.lines)}, {_ITEMS[item.kind]}];"


def _edge(edge: Edge, anchors: dict[str, str]) -> str:
    """Lines end at nodes; at a cluster they end at the node inside it and are cut at its border."""
    marks = [_EDGES[edge.kind]]
    if edge.label:
        marks.append(f"label={_quoted(edge.label)}")
    if edge.source in anchors:
        marks.append(f"ltail=cluster_{edge.source}")
    if edge.target in anchors:
        marks.append(f"lhead=cluster_{edge.target}")
    source, target = (anchors.get(each, each) for each in (edge.source, edge.target))
    return f"  {source} -> {target} [{', '.join(marks)}];"


def write_dot(scene: Scene) -> str:
    """The graph, ending with a line feed."""
    lines = [
        f"digraph {_quoted(scene.title)} {{",
        "  graph [compound=true, rankdir=LR, fontname=Helvetica, fontsize=11, style=rounded];",
        "  node [shape=box, style=filled, fontname=Helvetica, fontsize=10];",
        "  edge [fontname=Helvetica, fontsize=9];",
    ]
    anchors: dict[str, str] = {}
    for network in scene.networks:
        lines += [f"  subgraph cluster_{network.id} {{", f"    label={_quoted(network.title)};"]
        for subnet in network.subnets:
            lines += [f"    subgraph cluster_{subnet.id} {{", f"      label={_quoted(subnet.title, *subnet.notes)};"]
            anchors[subnet.id] = f"{subnet.id}_anchor"
            lines.append(f'      {subnet.id}_anchor [shape=point, style=invis, label=""];')
            lines += [f"      {_item(item)}" for item in subnet.items]
            lines.append("    }")
        anchors[network.id] = f"{network.id}_anchor"
        lines.append(f'    {network.id}_anchor [shape=point, style=invis, label=""];')
        lines.append("  }")
    if scene.internet:
        lines.append(f"  {_item(scene.internet)}")
    lines += [_edge(each, anchors) for each in scene.edges]
    return "\n".join([*lines, "}"]) + "\n"
