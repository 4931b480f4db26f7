"""``testbed push``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from testbed.cli.parser import Parser

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "copy a file to a machine by SSH (SFTP)"
EXAMPLE = """\
testbed push hub-spoke-vm nva1 policy.nft:/etc/nftables.conf
testbed push hub-spoke-vm nva1 check.sh:/usr/local/bin/"""


def add_arguments(parser: Parser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("lab", metavar="LAB", help="name of the lab")
    parser.add_argument("machine", metavar="MACHINE", help="name of a machine that has access.ssh in the document")
    parser.add_argument(
        "what",
        metavar="FILE:PATH",
        help="a file here, and its name there, with the same mode; a PATH that ends in / keeps the name too",
    )


def run(arguments: argparse.Namespace) -> int:
    """Copy it, whole or not at all."""
    from testbed.access.secrets import Secrets
    from testbed.access.ssh import ssh_of
    from testbed.cli.output import print_json
    from testbed.cli.rights import need_rights
    from testbed.lab.state import State
    from testbed.lab.up import load_plan_and_topology

    name, path = _split(arguments.what)
    data, mode = _read(name)
    need_rights()
    state, secrets = State(arguments.lab), Secrets()
    plan, _ = load_plan_and_topology(state)
    with secrets.guarded(), ssh_of(plan, arguments.machine, state.directory, secrets) as transport:
        transport.put(data, path, mode)
    if arguments.json:
        report = {"machine": arguments.machine, "file": name, "path": path, "bytes": len(data), "mode": f"{mode:04o}"}
        print_json(report)
    else:
        print(f"{arguments.machine}: {path}, {len(data)} bytes")
    return 0


def _split(words: str) -> tuple[str, str]:
    """The file here, and its whole name there."""
    from pathlib import PurePath

    from testbed.errors import InputError

    name, colon, path = words.partition(":")
    if not (name and colon and path):
        raise InputError(f"{words!r} is not FILE:PATH", fix="e.g. policy.nft:/etc/nftables.conf")
    return name, path + PurePath(name).name if path.endswith("/") else path


def _read(name: str) -> tuple[bytes, int]:
    """What is in the file, and its mode."""
    import stat
    from pathlib import Path

    from testbed.errors import InputError

    file = Path(name)
    try:
        return file.read_bytes(), stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"{name} cannot be read: {reason}", fix="name a file of this computer before the colon"
        ) from error
