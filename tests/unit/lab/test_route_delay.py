"""What of a new document waits for ``route_update_delay``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from testbed.lab.route_delay import with_old_routes
from testbed.topology.model import Topology

HUB_SPOKE = Path(__file__).parents[3] / "topologies/hub-spoke.yaml"


def document(**changes: Any) -> Topology:
    return Topology.model_validate(yaml.safe_load(HUB_SPOKE.read_text()) | changes)


def test_other_changes_do_not_wait() -> None:
    """Without a changed route there is nothing to wait for."""
    assert with_old_routes(document(time_scale=0.5), document()) is None


def test_old_routes_stand_in_a_document_that_is_new_otherwise() -> None:
    """Tables and what subnets use are the old ones, all else is new; a table that is new is there."""
    new = document(time_scale=0.5, route_tables=[{"name": "other"}, {"name": "to-nva", "routes": []}])
    slow = with_old_routes(new, document())
    assert slow is not None
    assert slow.time_scale == 0.5
    assert [(each.name, len(each.routes)) for each in slow.route_tables] == [("to-nva", 1), ("other", 0)]


def test_a_subnet_keeps_its_table() -> None:
    """A subnet that gets another table keeps the old one for a while."""
    networks = yaml.safe_load(HUB_SPOKE.read_text())["virtual_networks"]
    del networks[1]["subnets"][0]["route_table"]
    slow = with_old_routes(document(virtual_networks=networks), document())
    assert slow is not None
    assert slow.virtual_networks == document().virtual_networks
