"""``testbed capture``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.cli.words import packet_count

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser
    from testbed.plan.model import Plan

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "run tcpdump on a machine's network interface"
EXAMPLE = """\
testbed capture hub-spoke nva1 tcp port 443
testbed capture hub-spoke nva1 -c 100 -w nva1.pcap
testbed capture hub-spoke fabric -i nva1-eth0 icmp"""

_CANNOT_WRITE = 14  # exit status of tcpdump, S_ERR_ND_WRITE_FILE


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of the machine, or 'fabric'")
    parser.add_argument("-i", "--interface", metavar="NIC", help="default: the first; in the fabric: any")
    parser.add_argument("-c", "--count", metavar="N", type=packet_count, help="stop after N packets (default: Ctrl-C)")
    parser.add_argument("-w", "--write", metavar="FILE", help="write a pcap file instead of text; - is standard output")
    parser.add_argument(
        "filter", metavar="FILTER", nargs="*", default=[], help="pcap filter expression, see pcap-filter(7)"
    )
    parser.intermixed = True


def run(arguments: argparse.Namespace) -> int:
    """Capture until interrupted, or ``-c`` packets."""
    import shutil

    from testbed.cli.children import run_child
    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.errors import InputError, LabError, MachineError
    from testbed.lab.state import State
    from testbed.lab.up import load_plan

    need_rights()
    if shutil.which("tcpdump") is None:
        raise MachineError("tcpdump is not installed", fix="apt-get install tcpdump")
    if arguments.json and arguments.write == "-":
        raise InputError("'--json' and '-w -' both want standard output", fix="leave one of them out")
    namespace, nic = _place(load_plan(State(arguments.lab)), arguments.machine, arguments.interface)
    command = ["tcpdump", "-n", "-i", nic]
    checked = run_child([*command, "-d", "--", *arguments.filter], namespace, capture=True)
    if checked.status:
        raise InputError(f"tcpdump refuses: {_said(checked.err)}", fix="see pcap-filter(7) for the words of a filter")
    command += ["-c", str(arguments.count)] if arguments.count else []
    command += ["-w", _writable(arguments.write), "-U", "-Z", "root"] if arguments.write else ["-l"]
    done = run_child([*command, "--", *arguments.filter], namespace, capture=arguments.json)
    if done.status == _CANNOT_WRITE and not arguments.write:
        raise BrokenPipeError  # "| head": whoever read us has had enough
    if done.status:
        said = _said(done.err) or "its own words are above"
        raise LabError(f"tcpdump ended with status {done.status}: {said}")
    if arguments.json:
        lines = done.out.splitlines()
        print_json({"machine": arguments.machine, "interface": nic, "file": arguments.write, "packets": lines})
    return 0


def _place(plan: Plan, machine_name: str, interface: str | None) -> tuple[str, str]:
    """The namespace and the network interface to listen on."""
    from testbed.errors import UnknownLabError

    if machine_name == "fabric":
        namespace, nics = plan.fabric, ["any"]
        nics += [each.fabric_name for machine in plan.machines for each in machine.network_interfaces]
    else:
        machine = plan.machine(machine_name)
        namespace, nics = machine.namespace, [each.name for each in machine.network_interfaces]
    if interface is not None and interface not in nics:
        fix = f"network interfaces: {', '.join(nics)}"
        raise UnknownLabError(f"{machine_name!r} has no network interface {interface!r}", fix=fix)
    return namespace, interface or nics[0]


def _said(text: str) -> str:
    """What tcpdump complains of, without its name and its remarks."""
    lines = [line.removeprefix("tcpdump: ") for line in text.splitlines()]
    return "; ".join(lines)


def _writable(name: str) -> str:
    """The file with its whole name: tcpdump gives up root, and the caller's folder, before it opens it."""
    import os
    from pathlib import Path

    from testbed.errors import InputError

    if name == "-":
        return name
    try:
        Path(name).open("ab").close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{name} cannot be written: {reason}", fix="name another file after -w") from error
    return os.path.abspath(name)  # noqa: PTH100 - Path.resolve() would follow a link
