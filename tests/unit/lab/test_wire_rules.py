"""Faults on a machine's wire, as nftables text."""

from __future__ import annotations

import dataclasses

import pytest

from testbed.lab.fault_record import Kind
from testbed.lab.faults import kinds, wire_rules
from testbed.plan.model import Machine, NetworkInterface


def interface(number: int) -> NetworkInterface:
    return NetworkInterface(
        machine="nva1",
        name=f"eth{number}",
        namespace="lab-nva1",
        fabric_name=f"nva1-eth{number}",
        address=f"10.0.{number}.4",
        prefix_length=24,
        mac=f"00:0d:3a:00:00:0{number}",
        virtual_network="hub",
        subnet="nva",
        enable_ip_forwarding=True,
        backend_address_pools=("lb/pool",),
        member_id=number + 1,
    )


MACHINE = Machine("nva1", "lab-nva1", "container", None, standby=False, network_interfaces=(interface(0), interface(1)))


def test_no_fault_no_table() -> None:
    """A machine without faults on the wire has no table at all; what is not on the wire makes none."""
    assert wire_rules(MACHINE, [], [8080]) == ""
    assert wire_rules(MACHINE, [Kind.CRASH, Kind.CPU_HOG], [8080]) == ""


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Kind.FREEZE, "    drop"),
        (Kind.PROBE_SILENT, "    ip saddr 168.63.129.16 tcp dport { 22, 8080 } drop"),
        (Kind.PROBE_DOWN, "    ip saddr 168.63.129.16 tcp dport { 22, 8080 } reject with tcp reset"),
        (Kind.FORWARDING_OFF, "    ip daddr != { 10.0.0.4, 10.0.1.4 } drop"),
    ],
)
def test_each_fault_has_its_rule_on_every_network_interface(kind: Kind, rule: str) -> None:
    """What the machine sends is left alone; what it gets is not."""
    lines = wire_rules(MACHINE, [kind], [8080, 22, 8080]).splitlines()
    assert lines.count(rule) == 2
    assert [line for line in lines if "hook ingress" in line] != []


def test_faults_add_up() -> None:
    """Two faults are two rules, and the more drastic one comes first."""
    lines = wire_rules(MACHINE, [Kind.FORWARDING_OFF, Kind.PROBE_SILENT], [80]).splitlines()
    rules = [line.strip() for line in lines if line.endswith("drop")]
    assert rules[:2] == ["ip saddr 168.63.129.16 tcp dport { 80 } drop", "ip daddr != { 10.0.0.4, 10.0.1.4 } drop"]


def test_a_programs_responder_fails_itself() -> None:
    """It answers 503, which the wire cannot."""
    program = dataclasses.replace(MACHINE, runtime="namespace", program="nft-firewall")
    assert wire_rules(program, [Kind.PROBE_DOWN, Kind.PROBE_SILENT], [8080]) == ""


def test_faults_fit_the_machine() -> None:
    """What is outside cannot be crashed; what nobody probes has no probe to fail."""
    assert Kind.CRASH in kinds(MACHINE)
    outside = dataclasses.replace(MACHINE, runtime="external")
    assert set(kinds(outside)) == {
        Kind.PROBE_DOWN,
        Kind.PROBE_SILENT,
        Kind.FORWARDING_OFF,
        Kind.LINK_DOWN,
        Kind.FREEZE,
    }
    idle = dataclasses.replace(
        MACHINE,
        runtime="namespace",
        network_interfaces=(dataclasses.replace(interface(0), backend_address_pools=()),),
    )
    assert set(kinds(idle)) == {Kind.FORWARDING_OFF, Kind.CPU_HOG, Kind.LINK_DOWN, Kind.FREEZE}
