"""Real appliances behind the balancer: what an inspection engine blocks, and what a shallow probe hides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conftest import TOPOLOGIES, testbed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fetch(lab: str, url: str) -> int:
    """Exit status of curl in web1: 28 when nothing came back in time."""
    return testbed("exec", lab, "web1", "--", "curl", "-s", "-m", "3", "-o", "/dev/null", url, check=False).status


def fetch_many(lab: str, path: str) -> set[int]:
    """Exit statuses of two dozen requests at once, each to another port: all members meet some of them."""
    script = f"""
        for port in $(seq 8001 8024); do
            (curl -s -m 3 -o /dev/null "http://10.2.0.4:$port/{path}"; echo $?) &
        done
        wait
    """
    statuses = testbed("exec", lab, "web1", "--", "sh", "-c", script).out.split()
    assert len(statuses) == 24
    return set(map(int, statuses))


def test_suricata_in_the_path_blocks_an_attack(lab: Callable[..., str]) -> None:
    """Behind the balancer, whichever of the two a flow meets: the signature is dropped, everything else passes."""
    name = lab("hub-spoke-ips", wait=90)
    assert fetch_many(name, "harmless") == {0}
    assert fetch_many(name, "?q=testbed-attack-string") == {28}
    members = testbed("status", name, "--json").json["load_balancers"][0]["members"]
    assert all(each["flows"] > 0 for each in members)


def test_a_shallow_probe_is_exposed(lab: Callable[..., str], tmp_path: Path) -> None:
    """Both members are up, and half of all flows are lost: the check finds it, and names the member."""
    text = (TOPOLOGIES / "hub-spoke-containers.yaml").read_text()
    second = text.index("  - name: nva2")
    path = tmp_path / "shallow.yaml"
    path.write_text(text[:second] + text[second:].replace("build: nft-firewall", "build: shallow-probe", 1))
    name = lab(path, wait=90)
    members = testbed("status", name, "--json").json["load_balancers"][0]["members"]
    assert all(each["healthy"] for each in members)
    done = testbed("verify", name, "symmetry", "--flows", "400", "--json", check=False)
    assert done.status == 1
    (check,) = done.json["checks"]
    assert 100 < check["lost"] < 300
    assert all("nva2" in example for example in check["examples"])
    assert "chain forward" in done.json["diagnostics"]["nva1"]


def test_a_policy_file_is_mounted(lab: Callable[..., str], tmp_path: Path) -> None:
    """What the vendor's administrator denies is denied, on every member."""
    (tmp_path / "policy").write_text("deny tcp any 8080-8090\nallow any\n")
    text = (TOPOLOGIES / "hub-spoke-containers.yaml").read_text()
    mount = "mounts: [{source: policy, target: /etc/firewall/policy}]"
    path = tmp_path / "policed.yaml"
    path.write_text(text.replace("build: nft-firewall,", f"build: nft-firewall, {mount},"))
    name = lab(path, wait=90)
    assert [fetch(name, f"http://10.2.0.4:{port}/") for port in (8079, 8080, 8090, 8091)] == [0, 28, 28, 0]
