"""The table of network security groups comes, changes and goes with the lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import TOPOLOGIES, inside, testbed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLE = ("nft", "list", "table", "netdev", "testbed_nsg")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "groups.yaml"
    path.write_text((TOPOLOGIES / "network-security-groups.yaml").read_text())
    return path


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    data = yaml.safe_load(path.read_text())
    edit(data)
    path.write_text(yaml.safe_dump(data))


def controller(name: str) -> int:
    return int(testbed("status", name, "--json").json["controller"]["pid"])


def reaches(name: str, machine: str, address: str) -> bool:
    return testbed("exec", name, machine, "--", "ping", "-c", "1", "-W", "1", address, check=False).status == 0


def test_a_lab_with_groups_lives(lab: Callable[..., str], document: Path) -> None:
    """Groups change without the controller, come back with a cable that was lost, and go without a trace."""
    name = lab(document)
    again = ("up", document, "--lab", name, "--time-scale", "0.02", "--wait", "30")
    assert testbed(*again, "--json").json["changes"] == 0
    assert not reaches(name, "guest", "10.2.0.4")
    before = controller(name)

    def no_rule(data: dict[str, Any]) -> None:
        data["network_security_groups"][1]["security_rules"] = []

    change(document, no_rule)
    testbed(*again)
    assert reaches(name, "guest", "10.2.0.4")
    assert controller(name) == before

    inside(f"{name}-fabric", "ip", "link", "delete", "web2-eth0")
    testbed(*again)
    assert 'device "web2-eth0"' in inside(f"{name}-fabric", *TABLE)
    assert testbed(*again, "--json").json["changes"] == 0
    assert reaches(name, "guest", "10.2.0.4")

    def no_machine(data: dict[str, Any]) -> None:
        data["machines"] = [each for each in data["machines"] if each["name"] != "web2"]

    change(document, no_machine)
    testbed(*again)
    assert "web2-eth0" not in inside(f"{name}-fabric", *TABLE)

    def no_group(data: dict[str, Any]) -> None:
        data["machines"] = [each for each in data["machines"] if each["name"] != "guest"]
        del data["network_security_groups"]
        for network in data["virtual_networks"]:
            for subnet in network["subnets"]:
                subnet.pop("network_security_group", None)

    change(document, no_group)
    testbed(*again)
    assert "netdev" not in inside(f"{name}-fabric", "nft", "list", "tables")
    assert testbed(*again, "--json").json["changes"] == 0


def test_a_cable_that_comes_back_has_its_groups(lab: Callable[..., str]) -> None:
    """Whatever brings it back: here the restart of its machine; before Linux 6.16 a device takes its chain along."""
    name = lab("network-security-groups", time_scale=0.2)
    assert not reaches(name, "guest", "10.2.0.4")
    inside(f"{name}-fabric", "ip", "link", "delete", "web2-eth0")
    testbed("fault", name, "web2", "reboot")
    assert reaches(name, "web2", "10.1.0.4")
    assert not reaches(name, "guest", "10.2.0.4")


def test_what_a_rule_denies_is_told_and_counted(lab: Callable[..., str]) -> None:
    """``explain`` names the rule, ``security`` counts what it dropped."""
    name = lab("network-security-groups")
    hops = testbed("explain", name, "--from", "guest", "--to", "10.2.0.4", "--json").json["hops"]
    assert [each["blocked"] and each["blocked"]["security_rule"] for each in hops] == [None, "no-guest"]
    assert "DENIED: Inbound at web2" in testbed("explain", name, "--from", "guest", "--to", "10.2.0.4").out

    def hits() -> int:
        (interface,) = testbed("security", name, "web2", "--json").json["effective_security_rules"]
        return int(next(each["hits"] for each in interface["value"] if each["name"] == "no-guest"))

    assert hits() == 0
    assert not reaches(name, "guest", "10.2.0.4")
    assert hits() == 1
    assert "no network security group" in testbed("security", name, "internet").out
