"""Ready topologies pass their verification, and a broken balancer does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conftest import TOPOLOGIES, testbed

if TYPE_CHECKING:
    from collections.abc import Callable

#: Made to fail: two balancers, and nothing that keeps a flow with one member.
ASYMMETRIC = "sandwich"
READY = sorted(path.stem for path in TOPOLOGIES.glob("*.yaml") if path.stem != ASYMMETRIC)


#: An emulated guest on a busy computer answers late now and then: its probes get a second.
SCALES = {"hub-spoke-vm": 0.2, "mixed": 0.2}


@pytest.mark.parametrize("topology", READY)
def test_ready_topologies_pass_all_checks(lab: Callable[..., str], topology: str) -> None:
    """Symmetry before, during and after a crash; distribution; failover."""
    if topology in SCALES:
        testbed("images", "vm-firewall", timeout=600)
    name = lab(topology, time_scale=SCALES.get(topology, 0.02), wait=90)
    report = testbed("verify", name, "--json", timeout=300).json
    assert report["lab"] == name
    assert report["verdict"] == "pass"
    found = {(each["check"], each["phase"]) for each in report["checks"]}
    expected = {("symmetry", "steady"), ("symmetry", "recovered"), ("failover", "fault"), ("distribution", "steady")}
    assert expected <= found
    for each in report["checks"]:
        if each["check"] == "symmetry":
            assert each["flows"] >= 2000
            assert each["symmetric"] == each["flows"]
            assert (each["asymmetric"], each["lost"]) == (0, 0)
            assert sum(each["per_member"].values()) == each["flows"]


def test_the_sandwich_fails_as_it_should(lab: Callable[..., str]) -> None:
    """Two members and two balancers: half of the flows are asymmetric, and the report says why."""
    done = testbed("verify", lab(ASYMMETRIC), "--json", check=False)
    assert done.status == 1
    checks = {each["check"]: each for each in done.json["checks"]}
    symmetry = checks["symmetry"]
    assert symmetry["verdict"] == "fail"
    assert 0.25 < symmetry["asymmetric"] / symmetry["flows"] < 0.75
    assert symmetry["symmetric"] + symmetry["asymmetric"] == symmetry["flows"]
    assert "balanced by another rule" in " ".join(symmetry["reasons"])
    assert checks["distribution"]["verdict"] == "pass"
    assert checks["failover"]["verdict"] == "fail"
    assert "before the fault" in checks["failover"]["reasons"][0]


@pytest.mark.parametrize("kind", ["probe-down", "probe-silent", "freeze", "link-down"])
def test_failover_of_each_kind_of_fault(lab: Callable[..., str], kind: str) -> None:
    """Established TCP stays with a member that still forwards; UDP and new flows move."""
    name = lab("hub-spoke")
    (check,) = testbed("verify", name, "failover", "--fault", kind, "--machine", "nva2", "--json").json["checks"]
    assert check["verdict"] == "pass"
    assert check["faulted"] == ["nva2"]
    assert check["udp"]["moved"] == check["udp"]["on_member"] > 0
    old = check["old_tcp"]
    assert old["reset"] == 0
    if kind.startswith("probe"):
        assert old["kept"] > 0
        assert old["silent"] == 0
        assert check["new_flows_lost"] == 0
    else:
        assert old["silent"] > 0


def break_symmetry(name: str, rule: str) -> None:
    """Replace the choice of a member by one that is wrong, and forget nothing of the rest."""
    listing = testbed("exec", name, "fabric", "--", "nft", "-a", "list", "chain", "ip", "testbed", "rule_1").out
    handles = [
        line.rpartition("# handle ")[2] for line in listing.splitlines() if "# handle" in line and "{" not in line
    ]
    commands = [f"delete rule ip testbed rule_1 handle {each}" for each in handles]
    commands += [f"add rule ip testbed rule_1 {rule}"]
    testbed("exec", name, "fabric", "--", "nft", "; ".join(commands))


@pytest.mark.parametrize(
    ("rule", "symptom"),
    [
        ("meta mark set jhash ip saddr . tcp sport mod 2 offset 1", "asymmetric"),
        ("meta mark set numgen random mod 2 offset 1", "asymmetric"),
        ("meta mark set ip saddr map { 10.1.0.4 : 1, 10.2.0.4 : 2 }", "asymmetric"),
        ("drop", "lost"),
    ],
)
def test_a_broken_balancer_fails_the_symmetry_check(lab: Callable[..., str], rule: str, symptom: str) -> None:
    """A table that sends the two directions to different members, or nowhere, is found out."""
    name = lab("hub-spoke")
    break_symmetry(name, rule)
    done = testbed("verify", name, "symmetry", "--flows", "400", "--json", check=False)
    assert done.status == 1
    (check,) = done.json["checks"]
    assert check["verdict"] == "fail"
    assert check[symptom] > 20
    assert check["examples"]


def test_a_skewed_balancer_fails_the_distribution_check(lab: Callable[..., str]) -> None:
    """Symmetric, but three quarters of the flows at one member."""
    name = lab("hub-spoke")
    break_symmetry(name, "meta mark set symhash mod 4 map { 0 : 1, 1 : 1, 2 : 1, 3 : 2 }")
    checks: list[dict[str, Any]] = testbed("verify", name, "symmetry", "distribution", "--json", check=False).json[
        "checks"
    ]
    assert {each["check"]: each["verdict"] for each in checks} == {"symmetry": "pass", "distribution": "fail"}


def test_nothing_to_verify_is_said(lab: Callable[..., str], tmp_path: Any) -> None:
    """A lab without balanced pairs is an input error that names the way out."""
    document = tmp_path / "quiet.yaml"
    document.write_text((TOPOLOGIES / "hub-spoke.yaml").read_text().replace(", program: echo}", "}"))
    name = lab(document)
    done = testbed("verify", name, check=False)
    assert done.status == 2
    assert "program: echo" in done.err
