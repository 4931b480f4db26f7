"""Pictures: golden files per format, well-formed, complete, and stable."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from testbed.errors import InputError
from testbed.graph import FORMATS, render
from testbed.graph.dot import write_dot
from testbed.graph.layout import Box, arrange
from testbed.graph.mermaid import write_mermaid
from testbed.graph.scene import Item, NetworkBox, Scene, SubnetBox, scene_of
from testbed.graph.svg import write_svg
from testbed.topology.loading import load
from testbed.topology.peering import sides

ROOT = Path(__file__).parents[3]
READY = sorted((ROOT / "topologies").glob("*.yaml"))
GOLDEN = Path(__file__).parent / "golden"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("kind", FORMATS)
def test_the_default_lab_looks_like_this(kind: str) -> None:
    """Exactly this text; ``UPDATE_GOLDEN=1`` writes it anew, after a look at the picture."""
    golden = GOLDEN / f"hub-spoke.{kind}"
    text = render(load(ROOT / "topologies" / "hub-spoke.yaml").topology, kind)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_picture_shows_every_name_and_address(path: Path, kind: str) -> None:
    """Whatever has a name or an address is in the picture, and twice gives the same picture."""
    topology = load(path).topology
    text = render(topology, kind)
    assert text == render(topology, kind)
    shown = [network.name for network in topology.virtual_networks]
    subnets = [subnet for network in topology.virtual_networks for subnet in network.subnets]
    shown += [str(prefix) for each in subnets for prefix in (each.ipv4, each.ipv6) if prefix]
    shown += [machine.name for machine in topology.machines]
    interfaces = [each for machine in topology.machines for each in machine.network_interfaces]
    shown += [str(each.private_ip_address) for each in interfaces]
    shown += [str(further.private_ip_address) for each in interfaces for further in each.ip_configurations]
    assert [word for word in shown if word not in text] == []


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_the_lines_are_those_of_the_document(path: Path) -> None:
    """A line per peering, per subnet and appliance that its routes lead to, and per pool member."""
    topology = load(path).topology
    edges = scene_of(topology).edges
    interfaces = [each for machine in topology.machines for each in machine.network_interfaces]
    members = sum(len(each.backend_address_pools) for each in interfaces)
    members += sum(len(further.backend_address_pools) for each in interfaces for further in each.ip_configurations)
    hops = {each.name: {route.next_hop_ip_address for route in each.routes} - {None} for each in topology.route_tables}
    subnets = [subnet for network in topology.virtual_networks for subnet in network.subnets]
    routed = sum(len(hops.get(each.route_table or "", ())) for each in subnets)
    assert [each.kind for each in edges].count("peering") == len(
        {frozenset((each.virtual_network, each.remote_virtual_network)) for each in sides(topology)}
    )
    assert [each.kind for each in edges].count("route") == routed
    assert [each.kind for each in edges].count("balance") == members


def _overlap(one: Box, other: Box) -> bool:
    return one.x < other.right and other.x < one.right and one.y < other.bottom and other.y < one.bottom


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_boxes_stay_inside_and_apart(path: Path) -> None:
    """Items are inside their subnet, subnets inside their network, and nothing covers its neighbour."""
    scene = scene_of(load(path).topology)
    layout = arrange(scene)
    groups = [[layout.boxes[network.id] for network in scene.networks]]
    for network in scene.networks:
        groups.append([layout.boxes[subnet.id] for subnet in network.subnets])
        inside = [(layout.boxes[subnet.id], layout.boxes[network.id]) for subnet in network.subnets]
        for subnet in network.subnets:
            groups.append([layout.boxes[item.id] for item in subnet.items])
            inside += [(layout.boxes[item.id], layout.boxes[subnet.id]) for item in subnet.items]
        for inner, outer in inside:
            assert outer.x <= inner.x
            assert inner.right <= outer.right
            assert outer.y <= inner.y
            assert inner.bottom <= outer.bottom
    for group in groups:
        assert not any(_overlap(one, other) for at, one in enumerate(group) for other in group[:at])
    assert all(box.right <= layout.width and box.bottom <= layout.height for box in layout.boxes.values())


def test_the_svg_needs_nothing_else() -> None:
    """Well-formed XML, no links, and all arrow heads defined in it."""
    text = render(load(ROOT / "topologies" / "hub-spoke.yaml").topology, "svg")
    root = ET.fromstring(text)  # noqa: S314 - our own text
    assert root.tag == f"{SVG}svg"
    assert "href" not in text
    used = set(re.findall(r"url\(#(\w+)\)", text))
    assert used == {each.get("id") for each in root.iter(f"{SVG}marker")}


HOSTILE = 'a <b> & "c"'


@pytest.fixture
def hostile() -> Scene:
    """A scene whose words would break a careless writer."""
    item = Item("i", "machine", HOSTILE, (HOSTILE,))
    return Scene("t", (NetworkBox("n", HOSTILE, (SubnetBox("s", HOSTILE, (item,), (HOSTILE,)),)),), None, ())


def test_words_are_escaped_in_svg(hostile: Scene) -> None:
    """The words come back as they were."""
    root = ET.fromstring(write_svg(hostile))  # noqa: S314 - our own text
    assert [each.text for each in root.iter(f"{SVG}text")].count(HOSTILE) == 5


def test_words_are_escaped_in_mermaid_and_dot(hostile: Scene) -> None:
    """A quotation mark does not end a label."""
    assert 'a #lt;b> #amp; #quot;c#quot;"' in write_mermaid(hostile)
    assert 'label="a <b> & \\"c\\"\\na <b> & \\"c\\""' in write_dot(hostile)


def test_an_unknown_format_is_told() -> None:
    """With the formats there are."""
    with pytest.raises(InputError, match="svg, mermaid, dot"):
        render(load(READY[0]).topology, "png")
