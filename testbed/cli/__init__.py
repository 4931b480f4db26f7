"""The command line: ``testbed VERB …``, one small module per verb.

A verb module has ``HELP`` (one line), ``EXAMPLE``, ``add_arguments(parser)`` and ``run(arguments) -> int``; heavy
imports stand inside ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from testbed import __version__
from testbed.cli.output import print_error
from testbed.errors import TestbedError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VERBS", "Verb", "main", "make_parser"]

#: In the order of a first tour.
VERBS = (
    "doctor",
    "validate",
    "schema",
    "plan",
    "graph",
    "up",
    "list",
    "status",
    "verify",
    "routes",
    "explain",
    "exec",
    "capture",
    "events",
    "fault",
    "down",
)

_DESCRIPTION = """\
Azure's internal Standard Load Balancer with an HA Ports rule, network virtual appliances (NVAs) and
hub-and-spoke networks, on one Linux machine, with a real kernel data plane.
"""
_EPILOG = """\
start here:
  testbed up topologies/hub-spoke.yaml --wait 60
  testbed verify hub-spoke
  testbed down hub-spoke

exit status: 0 fine, 1 a check failed, 2 wrong input, 3 this machine lacks something, 4 a fault of the testbed
"""


class Verb(Protocol):
    """What a verb module holds."""

    HELP: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; returns the exit status."""


class _Parser(argparse.ArgumentParser):
    """Wrong words are the user's input: exit status 2, and the way to the help."""

    def error(self, message: str) -> None:  # type: ignore[override]
        print_error(message, f"{self.prog} --help")
        raise SystemExit(2)


def _verb(name: str) -> Verb:
    return cast("Verb", import_module(f"testbed.cli.{name}_verb"))


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="testbed", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"testbed {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        verb = _verb(name)
        epilog = f"example:\n  {verb.EXAMPLE}"
        sub = verbs.add_parser(name, help=verb.HELP, description=verb.HELP, epilog=epilog, formatter_class=raw)
        verb.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="machine-readable output")
        sub.set_defaults(run=verb.run)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = make_parser().parse_args(words)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except TestbedError as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        print_error(f"{error.message}\n{notes}".rstrip(), error.fix, as_json=arguments.json)
        return error.exit_status
    except KeyboardInterrupt:
        print_error("interrupted", "")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has had enough
        return 0
    except Exception:  # noqa: BLE001 - the last door: a fault of ours must not look like a fault of the user
        traceback.print_exc()
        print_error("this is a fault of the testbed", "please report it with the lines above")
        return 4
    return status
