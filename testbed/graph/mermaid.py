"""A scene as a Mermaid flowchart, which many Markdown viewers draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.graph.scene import Edge, Item, Scene

__all__ = ["write_mermaid"]

_SHAPES = {"machine": ("[", "]"), "frontend": ("([", "])"), "internet": ("((", "))")}
_ARROWS = {"peering": "<-.->", "route": "==>", "balance": "-->"}


def _quoted(*lines: str) -> str:
    """Mermaid has entities of its own for what would end a label."""
    safe = (line.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;") for line in lines)
    return '"' + "<br>".join(safe) + '"'


def _item(item: Item) -> str:
    opening, closing = _SHAPES[item.kind]
    return f"{item.id}{opening}{_quoted(item.title, *item.lines)}{closing}:::{item.kind}"


def _edge(edge: Edge) -> str:
    label = f"|{_quoted(edge.label)}|" if edge.label else ""
    return f"  {edge.source} {_ARROWS[edge.kind]}{label} {edge.target}"


def write_mermaid(scene: Scene) -> str:
    """The flowchart, ending with a line feed."""
    lines = ["---", f"title: {scene.title}", "---", "flowchart LR"]
    for network in scene.networks:
        lines.append(f"  subgraph {network.id}[{_quoted(network.title)}]")
        for subnet in network.subnets:
            lines.append(f"    subgraph {subnet.id}[{_quoted(subnet.title, *subnet.notes)}]")
            lines += [f"      {_item(item)}" for item in subnet.items]
            lines.append("    end")
        lines.append("  end")
    if scene.internet:
        lines.append(f"  {_item(scene.internet)}")
    lines += [_edge(each) for each in scene.edges]
    lines += [
        "  classDef machine fill:#e8f0fe,stroke:#3367d6,color:#111",
        "  classDef frontend fill:#fdebd0,stroke:#c2610c,color:#111",
        "  classDef internet fill:#eeeeee,stroke:#666666,color:#111",
    ]
    return "\n".join(lines) + "\n"
