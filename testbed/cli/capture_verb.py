"""``testbed capture``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "run tcpdump on a machine's network interface"
EXAMPLE = "testbed capture hub-spoke nva1 -w nva1.pcap tcp port 443"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of the machine, or 'fabric'")
    parser.add_argument("-i", "--interface", metavar="NIC", help="default: eth0; in the fabric: any")
    parser.add_argument("-c", "--count", metavar="N", type=int, help="stop after this many packets")
    parser.add_argument("-w", "--write", metavar="FILE", help="write packets to a pcap file")
    parser.add_argument("filter", metavar="FILTER", nargs="*", help="pcap filter expression")


def run(arguments: argparse.Namespace) -> int:
    """Capture until interrupted, or ``-c`` packets."""
    import os
    import shutil
    import subprocess

    from testbed.cli.output import print_json
    from testbed.errors import MachineError, UnknownLabError
    from testbed.kernel import namespaces
    from testbed.lab.state import State
    from testbed.lab.up import load_plan

    if shutil.which("tcpdump") is None:
        raise MachineError("tcpdump is not installed", fix="apt-get install tcpdump")
    plan = load_plan(State(arguments.lab))
    if arguments.machine == "fabric":
        namespace, nics = plan.fabric, ["any"]
        nics += [each.fabric_name for machine in plan.machines for each in machine.network_interfaces]
    else:
        machine = plan.machine(arguments.machine)
        namespace, nics = machine.namespace, [each.name for each in machine.network_interfaces]
    nic = arguments.interface or nics[0]
    if nic not in nics:
        raise UnknownLabError(f"machine {arguments.machine!r} has no network interface {nic!r}", fix=", ".join(nics))
    command = ["tcpdump", "-n", "-i", nic]
    command += ["-c", str(arguments.count)] if arguments.count else []
    # tcpdump gives up root before it opens the file; a relative name is the caller's own.
    command += ["-w", os.path.abspath(arguments.write), "-Z", "root"] if arguments.write else ["-l"]  # noqa: PTH100
    command += arguments.filter
    with namespaces.entered(namespace):
        done = subprocess.run(command, check=False, capture_output=arguments.json, text=True)
    if arguments.json:
        print_json({"machine": arguments.machine, "interface": nic, "packets": done.stdout.splitlines()})
    return done.returncode
