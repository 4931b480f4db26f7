"""The fabric delivers what Azure's virtual network would deliver, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import TOPOLOGIES, testbed

from testbed.deadline import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNREACHABLE = 28  # curl: timed out
ECHO = {"kind": "namespace", "program": "echo"}


def machine(name: str, subnet: str, address: str, **more: Any) -> dict[str, Any]:
    nic = {"subnet": subnet, "private_ip_address": address, **more.pop("nic", {})}
    return {"name": name, "runtime": ECHO, "network_interfaces": [nic], **more}


def network(name: str, space: str, *subnets: tuple[str, str] | tuple[str, str, str]) -> dict[str, Any]:
    made = []
    for each, prefix, *table in subnets:
        made.append({"name": each, "address_prefix": prefix} | ({"route_table": table[0]} if table else {}))
    return {"name": name, "address_space": [space], "subnets": made}


def write(path: Path, **document: Any) -> Path:
    path.write_text(yaml.safe_dump({"name": path.stem, **document}))
    return path


def fetch(lab: str, sender: str, address: str, port: int = 80) -> tuple[int, str]:
    """Exit status and answer of curl; the echo machine answers with its name."""
    done = testbed("exec", lab, sender, "--", "curl", "-s", "-m", "2", f"http://{address}:{port}/", check=False)
    return done.status, done.out.strip()


def test_reachability_follows_virtual_networks_and_peerings(lab: Callable[..., str], tmp_path: Path) -> None:
    """Same network and direct peers are reached, peers of peers and strangers are not, overlapping ones are apart."""
    document = write(
        tmp_path / "reach.yaml",
        virtual_networks=[
            network("hub", "10.0.0.0/16", ("a", "10.0.1.0/24"), ("b", "10.0.2.0/24")),
            network("one", "10.1.0.0/16", ("s", "10.1.0.0/24")),
            network("two", "10.2.0.0/16", ("s", "10.2.0.0/24")),
            network("twin", "10.0.0.0/16", ("a", "10.0.1.0/24")),
        ],
        peerings=[{"between": ["hub", "one"]}, {"between": ["hub", "two"]}],
        machines=[
            machine("h1", "hub/a", "10.0.1.4"),
            machine("h2", "hub/a", "10.0.1.5"),
            machine("h3", "hub/b", "10.0.2.4"),
            machine("m1", "one/s", "10.1.0.4"),
            machine("m2", "two/s", "10.2.0.4"),
            machine("t1", "twin/a", "10.0.1.4"),
            machine("t2", "twin/a", "10.0.1.6"),
        ],
    )
    name = lab(document)
    assert fetch(name, "h1", "10.0.1.5") == (0, "h2")  # same subnet, through the fabric
    assert fetch(name, "h1", "10.0.2.4") == (0, "h3")
    assert fetch(name, "m1", "10.0.1.4") == (0, "h1")
    assert fetch(name, "t2", "10.0.1.4") == (0, "t1")  # the twin's own machine of the same address
    assert fetch(name, "m1", "10.2.0.4")[0] == UNREACHABLE  # peering is not transitive
    assert fetch(name, "t2", "10.0.1.5")[0] == UNREACHABLE
    assert fetch(name, "h1", "203.0.113.4")[0] == UNREACHABLE  # no internet in this document


def route(name: str, prefix: str, kind: str = "VirtualAppliance") -> dict[str, str]:
    hop = {"next_hop_ip_address": "10.0.1.4"} if kind == "VirtualAppliance" else {}
    return {"name": name, "address_prefix": prefix, "next_hop_type": kind, **hop}


def test_user_routes_decide_at_the_sender(lab: Callable[..., str], tmp_path: Path) -> None:
    """Routes to an appliance's own interface, into nowhere, and for the own network, with an exempted subnet."""
    own = route("own", "10.1.0.0/16")
    exempt = route("exempt", "10.1.0.0/24", "VnetLocal")
    firewall = {
        "name": "fw",
        "runtime": {"kind": "namespace", "program": "nft-firewall"},
        "network_interfaces": [{"subnet": "hub/a", "private_ip_address": "10.0.1.4", "enable_ip_forwarding": True}],
    }
    document = write(
        tmp_path / "routes.yaml",
        virtual_networks=[
            network("hub", "10.0.0.0/16", ("a", "10.0.1.0/24"), ("b", "10.0.2.0/24")),
            network("one", "10.1.0.0/16", ("s", "10.1.0.0/24", "exempted"), ("t", "10.1.1.0/24", "captured")),
            network("two", "10.2.0.0/16", ("s", "10.2.0.0/24", "captured")),
        ],
        peerings=[{"between": ["hub", each], "allow_forwarded_traffic": True} for each in ("one", "two")],
        route_tables=[
            {
                "name": "exempted",
                "routes": [own, exempt, route("two", "10.2.0.0/16"), route("hole", "10.0.2.0/24", "None")],
            },
            {"name": "captured", "routes": [own]},
        ],
        machines=[
            firewall,
            machine("h3", "hub/b", "10.0.2.4"),
            machine("m1", "one/s", "10.1.0.4"),
            machine("m2", "one/s", "10.1.0.5"),
            machine("n1", "one/t", "10.1.1.4"),
            machine("n2", "one/t", "10.1.1.5"),
            machine("x1", "two/s", "10.2.0.4"),
        ],
    )
    name = lab(document)
    assert fetch(name, "m1", "10.2.0.4") == (0, "x1")
    assert fetch(name, "m1", "10.0.2.4")[0] == UNREACHABLE
    assert fetch(name, "m1", "10.1.0.5") == (0, "m2")
    assert fetch(name, "m1", "10.1.1.4") == (0, "n1")
    assert fetch(name, "n1", "10.1.1.5") == (0, "n2")
    testbed("fault", name, "fw", "crash")
    assert fetch(name, "m1", "10.2.0.4")[0] == UNREACHABLE
    assert fetch(name, "m1", "10.1.1.4")[0] == UNREACHABLE
    assert fetch(name, "n1", "10.1.1.5")[0] == UNREACHABLE  # the same subnet, captured by the route
    assert fetch(name, "m1", "10.1.0.5") == (0, "m2")  # exempted


def two_nics(path: Path) -> Path:
    document = yaml.safe_load((TOPOLOGIES / "hub-spoke.yaml").read_text())
    hub = document["virtual_networks"][0]
    hub["subnets"].append({"name": "management", "address_prefix": "10.0.9.0/24"})
    for number, each in enumerate(document["machines"][:2], 4):
        nic = {"subnet": "hub/management", "private_ip_address": f"10.0.9.{number}"}
        each["network_interfaces"].insert(0, nic)
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("mended", [False, True], ids=["trap", "mended"])
def test_a_probe_must_be_answered_by_the_interface_it_came_in_on(tmp_path: Path, *, mended: bool) -> None:
    """The host route of 168.63.129.16 leads out of the primary interface: the pool's other one stays down.

    A rule per source address mends it, as on a real machine with two network interfaces.
    """
    name = f"nics{int(mended)}"
    document = two_nics(tmp_path / "nics.yaml")
    try:
        testbed("up", document, "--lab", name, "--time-scale", "0.02")
        if mended:
            for nva, address in (("nva1", "10.0.1.4"), ("nva2", "10.0.1.5")):
                testbed("exec", name, nva, "--", "ip", "rule", "add", "from", address, "lookup", "100")
                testbed(
                    "exec",
                    name,
                    nva,
                    "--",
                    *["ip", "route", "add", "default", "via", "10.0.1.1", "dev", "eth1", "table", "100"],
                )

        def health() -> list[bool | None]:
            members = testbed("status", name, "--json").json["load_balancers"][0]["members"]
            return [each["healthy"] for each in members]

        wait_for("the probes have results", health, lambda found: found == [mended, mended], seconds=20)
    finally:
        testbed("down", name)
