"""IPv6 that comes to a lab, and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
