"""Machines of other kinds: many containers at once, wiring one, virtual machines until they are ready, failover."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bench import commands, documents
from bench.figures import Figure, median
from testbed.images import engine, ensure

__all__ = ["measure"]

CONTAINERS = 16
ROUNDS = 5
SCALE = "0.2"
TOPOLOGIES = Path(__file__).parents[1] / "topologies"


def _containers(folder: Path) -> list[float]:
    document = documents.write(documents.container_appliances("bench-containers", CONTAINERS), folder)
    seconds = []
    for _ in range(ROUNDS):
        seconds.append(commands.seconds("up", document, "--time-scale", "0.02", "--wait", "60"))
        commands.run("down", "bench-containers")
    return seconds


def _wiring(folder: Path) -> list[float]:
    """From the engine's word that a container started to the keeper's that it is wired, for one network interface."""
    document = documents.write(documents.container_appliances("bench-wiring", 1), folder)
    commands.run("up", document, "--time-scale", "0.02", "--wait", "60")
    found = []
    try:
        with closing(engine()) as client:
            container = client.containers.get("testbed-bench-wiring-nva1")
            for number in range(1, 2 * ROUNDS + 1):
                container.restart(timeout=0)
                found.append(_wired(number))
    finally:
        commands.run("down", "bench-wiring")
    return found


def _wired(number: int) -> float:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = Path("/run/testbed/bench-wiring/events.jsonl").read_text().splitlines()
        events = [each for each in map(json.loads, lines) if each["event"] == "container"]
        wired = [each for each in events if each["state"] == "wired"]
        if len(wired) == number:
            return float(wired[-1]["duration_ms"])
    raise TimeoutError("the container was not wired again")


def _virtual_machines() -> list[float]:
    """Until both answer their health path and let SSH in."""
    found = []
    for _ in range(3):
        document = TOPOLOGIES / "hub-spoke-vm.yaml"
        found.append(commands.seconds("up", document, "--lab", "bench-vm", "--time-scale", SCALE, "--wait", "120"))
        commands.run("down", "bench-vm")
    return found


def _failover(topology: str) -> tuple[float, float]:
    """Detection and first good packet, in milliseconds after one of two members was killed."""
    lab = f"bench-{topology}"
    commands.run("up", TOPOLOGIES / f"{topology}.yaml", "--lab", lab, "--time-scale", SCALE, "--wait", "120")
    try:
        report = json.loads(commands.run("verify", lab, "failover", "--json"))
    finally:
        commands.run("down", lab)
    (check,) = report["checks"]
    return check["detected_ms"], check["first_good_ms"]


def measure() -> list[Figure]:
    """Images are built before; the times include starting the command."""
    commands.run("images", "nft-firewall", "vm-firewall")
    ensure("nft-firewall", TOPOLOGIES)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        containers = median(_containers(folder))
        wiring = median(_wiring(folder))
    machines = median(_virtual_machines())
    figures = [
        Figure(f"up of {CONTAINERS} container NVAs until all probes are up", containers, "s", promise=8),
        Figure("wiring a container's network interface", wiring, "ms", promise=10),
        Figure("up of 2 virtual machines until both are ready (emulated)", machines, "s", promise=25),
    ]
    for topology, what in (("hub-spoke-containers", "container"), ("hub-spoke-vm", "virtual machine")):
        detected, good = _failover(topology)
        figures += [
            Figure(f"killed {what}: detected (scale {SCALE}, at most 3 probes of 1 s)", detected, "ms"),
            Figure(f"killed {what}: from detected to the first good packet", good - detected, "ms"),
        ]
    return figures
