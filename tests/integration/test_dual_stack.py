"""IPv6 that comes to a lab, and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from conftest import TOPOLOGIES, inside, testbed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _ipv6(name: str) -> dict[str, str]:
    """What a lab's fabric has of IPv6 beside the loopback."""
    fabric = f"{name}-fabric"
    return {
        "routes": inside(fabric, "ip", "-6", "route", "show", "table", "all", "proto", "static"),
        "rules": inside(fabric, "ip", "-6", "rule", "show", "table", "50001"),
        "neighbours": inside(fabric, "ip", "-6", "neighbour", "show", "nud", "permanent"),
        "tables": inside(fabric, "nft", "list", "tables", "ip6"),
    }


def test_ipv6_comes_to_a_lab_that_is_up_and_goes(lab: Callable[..., str], tmp_path: Path) -> None:
    """A document that gets IPv6 addresses is applied as any other change, and so is the one without them."""
    path = tmp_path / "lab.yaml"
    plain, dual = ((TOPOLOGIES / f"{each}.yaml").read_text() for each in ("hub-spoke", "dual-stack"))
    path.write_text(plain)
    name = lab(path)
    assert not any(_ipv6(name).values())
    path.write_text(dual)
    testbed("up", path, "--lab", name, "--time-scale", 0.02, "--wait", 30)
    assert all(_ipv6(name).values())
    assert testbed("verify", name, "symmetry", "--flows", 400, "--json").json["verdict"] == "pass"
    assert "no changes" in testbed("up", path, "--lab", name, "--time-scale", 0.02).out
    path.write_text(plain)
    testbed("up", path, "--lab", name, "--time-scale", 0.02, "--wait", 30)
    assert not any(_ipv6(name).values())
    assert "no changes" in testbed("up", path, "--lab", name, "--time-scale", 0.02).out
    assert testbed("verify", name, "symmetry", "--flows", 400, "--json").json["verdict"] == "pass"


def test_a_machine_that_loses_ipv6_and_its_peers_leaves_no_routes(lab: Callable[..., str], tmp_path: Path) -> None:
    """The routes to it go in both versions, in one change: the kernel drops none of them with an address."""
    path = tmp_path / "lab.yaml"
    document = yaml.safe_load((TOPOLOGIES / "dual-stack.yaml").read_text())
    path.write_text(yaml.safe_dump(document))
    name = lab(path)
    document["peerings"] = [each for each in document["peerings"] if "spoke1" not in each["between"]]
    del document["virtual_networks"][1]["subnets"][0]["route_table"]
    web1 = next(each for each in document["machines"] if each["name"] == "web1")
    del web1["network_interfaces"][0]["ip_configurations"]
    path.write_text(yaml.safe_dump(document))
    testbed("up", path, "--lab", name, "--time-scale", 0.02)
    routes = [inside(f"{name}-fabric", "ip", version, "route", "show", "table", "all") for version in ("-4", "-6")]
    assert "via fd00:0:1::4 " not in routes[1]
    own = [line for line in routes[0].splitlines() if "dev web1-eth0" in line]
    assert len({line.partition(" table ")[2].split()[0] for line in own}) == 2, (
        own
    )  # of its subnet, and of replies from the internet
    assert "no changes" in testbed("up", path, "--lab", name, "--time-scale", 0.02).out
