"""The command line: ``testbed VERB …``, one small module per verb.

A verb module has ``HELP`` (one line), ``EXAMPLE``, ``add_arguments(parser)`` and ``run(arguments) -> int``; heavy
imports stand inside ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from testbed.cli.output import print_error
from testbed.cli.parser import VERBS, make_parser, parse
from testbed.errors import DocumentError, TestbedError
from testbed.topology.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VERBS", "main", "make_parser"]

_INTERRUPTED = 130  # as shells tell it: 128 + SIGINT


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = sys.argv[1:] if words is None else list(words)
    own = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in own  # for errors in the words themselves
    try:
        if not words:
            make_parser().print_help(sys.stderr)
            return 2
        arguments = parse(words)
        as_json = arguments.json
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except TestbedError as error:
        _tell(error, as_json=as_json)
        return error.exit_status
    except KeyboardInterrupt:
        print_error("interrupted", "", as_json=as_json)
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has had enough
        return 0
    except Exception as error:  # noqa: BLE001 - the last door: a fault of ours must not look like a fault of the user
        traceback.print_exc()
        fix = "please report it with the traceback on standard error"
        details = {"type": type(error).__name__}
        print_error(f"this is a fault of the testbed: {error!r}", fix, details=details, as_json=as_json)
        return 4
    return status


def _tell(error: TestbedError, *, as_json: bool) -> None:
    """Print an error; in JSON with its type, and with a document's findings one by one."""
    message = "\n".join([error.message, *getattr(error, "__notes__", ())])
    details: dict[str, object] = {"type": type(error).__name__}
    if as_json and isinstance(error, DocumentError):
        message = error.message.splitlines()[0]
        details["findings"] = [each.to_json() for each in error.findings if isinstance(each, Finding)]
    print_error(message, error.fix, details=details, as_json=as_json)
