"""What the probe controller costs: memory and CPU with 100 probes every 5 seconds."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path

from bench import commands, documents
from bench.figures import Figure
from testbed.lab.controller import NAME
from testbed.lab.state import State

__all__ = ["measure"]

LAB = "bench-controller"
MEMBERS, RULES = 5, 20
SECONDS = 60


def _cpu_seconds(pid: int) -> float:
    """User and system time, all threads (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} has no resident memory")


def measure() -> list[Figure]:
    """All probes are up before the clock starts; memory is read at the end."""
    with tempfile.TemporaryDirectory() as directory:
        document = documents.write(documents.many_probes(LAB, MEMBERS, RULES), Path(directory))
        with commands.lab_up(document, LAB):
            pid = State(LAB).running()[NAME].process.pid
            before = _cpu_seconds(pid)
            threading.Event().wait(SECONDS)
            cpu = (_cpu_seconds(pid) - before) / SECONDS * 100
            memory = _resident_megabytes(pid)
            status = json.loads(commands.run("status", LAB, "--json"))
    members = [member for balancer in status["load_balancers"] for member in balancer["members"]]
    if not all(member["healthy"] for member in members):
        raise SystemExit(f"not all members were up: {members}")
    probes = MEMBERS * RULES
    return [
        Figure(f"controller, {probes} probes: resident memory", memory, "MB", promise=60),
        Figure(f"controller, {probes} probes at 5 s: CPU of one core", cpu, "%", promise=2),
    ]
