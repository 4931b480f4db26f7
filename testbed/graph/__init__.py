"""Pictures of a topology: SVG to look at, Mermaid for Markdown, DOT for Graphviz. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from testbed.errors import InputError

if TYPE_CHECKING:
    from testbed.topology.model import Topology

__all__ = ["FORMATS", "Format", "render"]

Format = Literal["svg", "mermaid", "dot"]
FORMATS: tuple[str, ...] = get_args(Format)


def render(topology: Topology, format: str = "svg") -> str:  # noqa: A002 - the word of the command line
    """Draw a checked topology. The same topology gives the same text.

    Raises:
        InputError: There is no such format.
    """
    from testbed.graph.dot import write_dot
    from testbed.graph.mermaid import write_mermaid
    from testbed.graph.scene import scene_of
    from testbed.graph.svg import write_svg

    writers = {"svg": write_svg, "mermaid": write_mermaid, "dot": write_dot}
    if format not in writers:
        raise InputError(f"no picture format {format!r}", fix=f"use one of {', '.join(FORMATS)}")
    return writers[format](scene_of(topology))
