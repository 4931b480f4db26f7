"""What the switches make of probes and rules, in the plan."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.plan.compile import compile_plan
from testbed.plan.numbers import Numbers
from testbed.topology.model import Topology

PROBE = {"name": "health", "protocol": "Http", "port": 8080, "request_path": "/", "interval_in_seconds": 60}


def _rule(
    probe: dict[str, Any] | None = None, switches: dict[str, Any] | None = None, members: int = 1, **rule: Any
) -> Any:
    balancer = {
        "name": "lb",
        "frontend_ip_configurations": [{"name": "fe", "subnet": "hub/a", "private_ip_address": "10.0.0.9"}],
        "backend_address_pools": [{"name": "nvas"}],
        "probes": [PROBE | (probe or {})],
        "load_balancing_rules": [
            {
                "name": "ha",
                "protocol": "All",
                "frontend_port": 0,
                "frontend_ip_configuration": "fe",
                "backend_address_pool": "nvas",
                "probe": "health",
                **rule,
            }
        ],
    }
    interface = {"subnet": "hub/a", "enable_ip_forwarding": True, "backend_address_pools": ["lb/nvas"]}
    document = {
        "name": "lab",
        "switches": switches or {},
        "virtual_networks": [
            {
                "name": "hub",
                "address_space": ["10.0.0.0/16"],
                "subnets": [{"name": "a", "address_prefix": "10.0.0.0/24"}],
            }
        ],
        "load_balancers": [balancer],
        "machines": [
            {"name": f"nva{each}", "network_interfaces": [interface | {"private_ip_address": f"10.0.0.{20 + each}"}]}
            for each in range(members)
        ],
    }
    return compile_plan(Topology.model_validate(document), "lab", Numbers(), "/run/x").rules[0]


@pytest.mark.parametrize(
    ("probe", "switch", "threshold"),
    [
        ({"number_of_probes": 3}, "Ignored", 1),
        ({"number_of_probes": 3}, "Respected", 3),
        ({"number_of_probes": 3, "probe_threshold": 2}, "Respected", 2),
        ({"number_of_probes": 3, "probe_threshold": 1}, "Respected", 1),
        ({}, "Respected", 1),
    ],
)
def test_the_threshold(probe: dict[str, Any], switch: str, threshold: int) -> None:
    """`number_of_probes` stands in for a threshold that is not given, where it is respected."""
    assert _rule(probe, {"number_of_probes": switch}).probe.probe_threshold == threshold


@pytest.mark.parametrize(
    ("probe", "switch", "seconds"),
    [
        ({}, "Interval", 30),
        ({"interval_in_seconds": 5}, "Interval", 5),
        ({"interval_in_seconds": 5}, "ThirtySeconds", 30),
        ({"interval_in_seconds": 5}, "ThirtyOneSeconds", 31),
        ({"interval_in_seconds": 5, "protocol": "Tcp", "request_path": None}, "ThirtyOneSeconds", 5),
    ],
)
def test_the_timeout(probe: dict[str, Any], switch: str, seconds: float) -> None:
    """The switch is for HTTP and HTTPS; a TCP probe waits for its interval."""
    assert _rule(probe, {"http_probe_timeout": switch}).probe.timeout_in_seconds == seconds


def test_flows_that_end() -> None:
    """Established TCP ends with the only member of a pool, unless the switch says otherwise."""
    assert _rule().flows_end_alone
    assert not _rule(members=2).flows_end_alone
    assert not _rule(switches={"single_instance_all_down": "FlowsContinue"}).flows_end_alone


@pytest.mark.parametrize(
    ("asked", "switch", "expected"),
    [(False, True, (False, False)), (True, False, (True, False)), (True, True, (True, True))],
)
def test_resets_of_idle_flows(asked: bool, switch: bool, expected: tuple[bool, bool]) -> None:  # noqa: FBT001
    """The rule asks for resets; through appliances they need the switch as well."""
    rule = _rule(switches={"tcp_reset_on_ha_ports": switch}, enable_tcp_reset=asked)
    assert (rule.reset_when_idle, rule.reset_transit_when_idle) == expected
