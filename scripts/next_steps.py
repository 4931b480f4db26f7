"""Prints what to type once a lab is up: ``testbed status LAB --json | next_steps.py``."""

from __future__ import annotations

import json
import os
import sys

__all__ = ["main"]

TEXT = """
The lab {lab} is up. Next:
  {testbed} exec {lab} {machine} -- ip address
  {testbed} routes {lab} {machine}
  {testbed} fault {lab} {member} probe-down
  {testbed} events {lab} --follow
  {testbed} fault {lab} {member} --clear
  {testbed} verify {lab} distribution failover
  {testbed} --help
  make lab-down LAB={lab}
"""


def main() -> None:
    """Read a lab's status from standard input and name real machines of it in the commands."""
    status = json.load(sys.stdin)
    machines = [machine["name"] for machine in status["machines"]]
    members = [member["machine"] for balancer in status["load_balancers"] for member in balancer["members"]]
    others = [name for name in machines if name not in members]
    testbed = ("" if os.geteuid() == 0 else "sudo ") + ".venv/bin/testbed"
    member = (members or machines)[0]
    print(TEXT.format(lab=status["lab"], testbed=testbed, member=member, machine=(others or machines)[0]))


if __name__ == "__main__":
    main()
