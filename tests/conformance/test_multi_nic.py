"""Appliances with several network interfaces: probes are answered by the one they came in on, or fail (row 14)."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from facts import fact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labs import Lab

READY = Path(__file__).parents[2] / "topologies" / "multi-nic.yaml"
SERVER = "10.2.0.4"
PORTS = range(24_001, 24_033)


@pytest.fixture(scope="module")
def lab(labs: Callable[..., Lab]) -> Lab:
    """The ready lab: the second network interface is in the pool."""
    document: dict[str, Any] = yaml.safe_load(READY.read_text())
    document.pop("name")
    return labs(document)


@contextmanager
def trapped(lab: Lab) -> Iterator[None]:
    """The first appliance without its rule for the second network interface."""
    lab.run("nva1", "ip", "rule", "del", "priority", "101")
    try:
        lab.wait_member("nva1", healthy=False)
        yield
    finally:
        lab.run("nva1", "ip", "rule", "add", "priority", "101", "from", "10.0.1.4", "lookup", "101")
        lab.wait_member("nva1", healthy=True)


@fact(row=14, balancer=False)
def test_guests_reach_the_platform_by_the_primary_interface(lab: Lab) -> None:
    """A guest learns its host route to 168.63.129.16 for the primary network interface only.

    Source: azure.md §5, "What is IP address 168.63.129.16?"
    """
    routes = lab.run("nva1", "ip", "route", "show", "168.63.129.16").stdout.splitlines()
    assert [line.split()[:5] for line in routes] == [["168.63.129.16", "via", "10.0.3.1", "dev", "eth0"]]


@fact(row=14, balancer=False)
def test_a_probe_answered_by_another_interface_fails(lab: Lab) -> None:
    """An answer that leaves by another network interface than its probe came in on is lost: the probe fails.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    with trapped(lab), lab.tap("nva1") as tap:

        def answers() -> set[tuple[str, str]]:
            return {
                (each.source, each.destination)
                for each in tap.packets()
                if each.sent and each.destination == "168.63.129.16" and each.source_port == 8080
            }

        # It does answer, from the right address; the frame is on the wrong cable.
        lab.wait("an answer leaves", answers, lambda found: found == {("10.0.1.4", "168.63.129.16")})
        assert lab.member("nva1").detail.startswith("timeout")
        assert set(lab.owners("web1", SERVER, PORTS).values()) == {"nva2"}
        assert "dev eth0" in lab.run("nva1", "ip", "route", "get", "168.63.129.16", "from", "10.0.1.4").stdout


@fact(row=14, balancer=False)
def test_a_rule_for_the_source_address_mends_it(lab: Lab) -> None:
    """A rule of the guest for its second address, with a table that leads out of that network interface, mends it.

    Source: azure.md §9, "Azure Load Balancer health probes"
    """
    with trapped(lab):
        pass  # it was down, and comes back with the rule
    lab.forget_flows()
    assert "dev eth1" in lab.run("nva1", "ip", "route", "get", "168.63.129.16", "from", "10.0.1.4").stdout
    assert set(lab.owners("web1", SERVER, PORTS).values()) == {"nva1", "nva2"}


@fact(row=14)
def test_symmetry_holds_with_several_interfaces_and_one_frontend(lab: Lab) -> None:
    """Several network interfaces, one of them in a pool: both directions of a flow cross the same appliance.

    Source: azure.md §1, "High availability ports overview"
    """
    lab.forget_flows()
    # Asserts that one appliance sees each flow, both ways.
    assert set(lab.owners("web1", SERVER, PORTS).values()) == {"nva1", "nva2"}
    assert set(lab.owners("web2", "10.1.0.4", PORTS).values()) == {"nva1", "nva2"}


@fact(row=14, balancer=False)
def test_set_up_survives_links_that_go_and_come(lab: Lab) -> None:
    """An appliance whose network interfaces were down answers its probes again when they are back.

    Source: azure.md §3, "Azure Load Balancer health probes"
    Note: What was set up for its second network interface goes with the link; the lab's `configure` steps run anew.
    """
    lab.fault("nva2", "link-down")
    try:
        lab.wait_member("nva2", healthy=False)
    finally:
        lab.recover("nva2")
    lab.wait_member("nva2", healthy=True)
