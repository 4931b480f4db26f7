"""How long ``up`` and ``down`` take: 100 machines against Mininet, and the default lab until it is healthy."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from bench import commands, documents
from bench.figures import Figure, median

__all__ = ["measure"]

MACHINES = 100
ROUNDS = 5
DEFAULT_LAB = Path(__file__).parents[1] / "topologies" / "hub-spoke.yaml"


def _mininet() -> tuple[float, float]:
    """One run, in a namespace of its own so that its bridge is nowhere else; start of the interpreter excluded."""
    script = str(Path(__file__).with_name("mininet_hosts.py"))
    command = ["unshare", "--net", "/usr/bin/python3", script, str(MACHINES)]
    times = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return times["up"], times["down"]


def measure() -> list[Figure]:
    """Alternately, so that both meet the same machine; the testbed's times include starting the command."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    default: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        document = documents.write(documents.many_machines("bench-up", MACHINES), Path(directory))
        for _ in range(ROUNDS):
            ours.append((commands.seconds("up", document), commands.seconds("down", "bench-up")))
            theirs.append(_mininet())
            arguments = ("--lab", "bench-default", "--time-scale", "0.02", "--wait", "60")
            default.append(commands.seconds("up", DEFAULT_LAB, *arguments))
            commands.run("down", "bench-default")
    up, down = (median([times[index] for times in ours]) for index in (0, 1))
    mininet_up, mininet_down = (median([times[index] for times in theirs]) for index in (0, 1))
    return [
        Figure(f"up of {MACHINES} machines", up, "s"),
        Figure(f"Mininet: start of {MACHINES} hosts", mininet_up, "s"),
        Figure("up, ratio to Mininet", up / mininet_up, "", promise=0.35),
        Figure(f"down of {MACHINES} machines", down, "s"),
        Figure(f"Mininet: stop of {MACHINES} hosts", mininet_down, "s"),
        Figure("down, ratio to Mininet", down / mininet_down, "", promise=0.35),
        Figure("up of the default lab until all probes are up (scale 0.02)", median(default), "s", promise=1.5),
    ]
