"""The controller's configuration, status, and what its process loads."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from testbed.errors import LabError
from testbed.plan.model import Member, Probe, Rule
from testbed.probes.config import ControllerConfig
from testbed.probes.status import ControllerStatus, MemberStatus, RuleStatus


def _config() -> ControllerConfig:
    member = Member(3, "nva1", "eth0", "lab-nva1", "10.0.1.4", "nva1-eth0", forwards=True)
    probe = Probe("health", "Http", 8080, "/health", 5.0, 2, "AllProbedDown")
    probed = Rule(
        1,
        "lb",
        "fe",
        "r",
        "10.0.2.4",
        "hub",
        "lb/nvas",
        enable_floating_ip=False,
        idle_timeout_in_minutes=4,
        buckets=4096,
        members=(member,),
        probe=probe,
    )
    bare = Rule(
        2,
        "lb",
        "fe2",
        "r2",
        "10.0.2.5",
        "hub",
        "lb/nvas",
        enable_floating_ip=True,
        idle_timeout_in_minutes=4,
        buckets=4096,
        members=(),
        probe=None,
    )
    return ControllerConfig("lab", "lab-fabric", 0.02, "/run/x", (probed, bare))


def test_the_configuration_is_read_back() -> None:
    """`from_json` gives what `to_json` was made from, rules, members and probes included."""
    assert ControllerConfig.from_json(_config().to_json()) == _config()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rules": [{"members": 1}]}', '{"rules": [], "unknown": 1}'])
def test_another_file_is_refused(text: str) -> None:
    """A file that is no configuration is refused with what to do."""
    with pytest.raises(LabError, match="configuration cannot be read"):
        ControllerConfig.from_json(text)


def test_the_status_survives_the_socket() -> None:
    """`ControllerStatus.from_json` gives back what was sent as JSON."""
    member = MemberStatus(3, "nva1", "10.0.1.4", None, 1.5, "HTTP 200", 4, eligible=True, flows=5, packets=6)
    status = ControllerStatus("lab", 9, 1.25, (RuleStatus(1, "lb/fe/r", "lb", "fe", (member,)),))
    assert ControllerStatus.from_json(json.loads(json.dumps(asdict(status)))) == status


def test_the_controller_stays_small() -> None:
    """The controller's process loads none of the big libraries."""
    heavy = ("pydantic", "scapy", "pyroute2", "numpy", "cryptography", "yaml", "docker")
    code = f"import sys, testbed.probes.controller; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
