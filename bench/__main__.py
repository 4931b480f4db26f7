"""``python -m bench [NAME…]``: measure, print, and write ``results/bench.json``. Needs root."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.figures import Figure

__all__ = ["main"]

NAMES = ("up", "health_update", "throughput", "security", "controller", "machines")
#: Needs a kernel that most computers do not have, so it is not among all (``make bench-ipvs``).
ELSEWHERE = ("backends",)
RESULTS = Path(__file__).parents[1] / "results" / "bench.json"


def main() -> int:
    """Run the benchmarks named, or all; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Medians and ratios of one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all when none is given")
    parser.add_argument("--results", type=Path, default=RESULTS.parent, metavar="FOLDER", help="where figures go")
    arguments = parser.parse_args()
    names = arguments.names or list(NAMES)
    known = (*NAMES, *ELSEWHERE)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    machine = f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"
    print(machine)
    figures: list[Figure] = []
    for name in names:
        for figure in importlib.import_module(f"bench.{name}").measure():
            figures.append(figure)
            print(figure, flush=True)
    results = arguments.results / (RESULTS.name if set(names) <= set(NAMES) else f"bench-{'-'.join(names)}.json")
    results.parent.mkdir(exist_ok=True)
    rows = [{**asdict(figure), "kept": figure.kept} for figure in figures]
    results.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")
    return int(any(figure.kept is False for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
