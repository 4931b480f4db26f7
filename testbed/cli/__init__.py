"""The command line: ``testbed VERB …``, one small module per verb.

A verb module has ``HELP`` (one line), ``EXAMPLE``, ``add_arguments(parser)`` and ``run(arguments) -> int``; heavy
imports stand inside ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import io
import os
import signal
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

# As shells tell signals: 128 + SIGINT, 128 + SIGPIPE, 128 + SIGTERM.
_INTERRUPTED = 130
_CUT_SHORT = 141
_TERMINATED = 143


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where a terminal's alphabet is small, too
    status = _CUT_SHORT
    # As an exception, so that "up" and "verify" clean up as they do at Ctrl-C.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        try:
            status = _run(sys.argv[1:] if words is None else list(words))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _write_no_more()
        return status or _CUT_SHORT
    return status


def _terminated(_number: int, _frame: object) -> None:
    raise SystemExit(_TERMINATED)


def _write_no_more() -> None:
    """Whoever read our output has had enough (``| head``): what is left of it goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _run(words: Sequence[str]) -> int:
    own = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in own  # for errors in the words themselves
    try:
        if not words:
            make_parser().print_help(sys.stderr)
            return 2
        arguments = parse(words)
        as_json = arguments.json
        return int(arguments.run(arguments))
    except TestbedError as error:
        _tell(error, as_json=as_json)
        return error.exit_status
    except KeyboardInterrupt:
        print_error("interrupted", "", as_json=as_json)
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last door: a fault of ours must not look like a fault of the user
        traceback.print_exc()
        fix = "please report it with the traceback on standard error"
        details = {"type": type(error).__name__}
        print_error(f"this is a fault of the testbed: {error!r}", fix, details=details, as_json=as_json)
        return 4


def _tell(error: TestbedError, *, as_json: bool) -> None:
    """Print an error; in JSON with its type, and with a document's findings one by one."""
    message = "\n".join([error.message, *getattr(error, "__notes__", ())])
    details: dict[str, object] = {"type": type(error).__name__}
    if as_json and isinstance(error, DocumentError):
        message = error.message.splitlines()[0]
        details["findings"] = [each.to_json() for each in error.findings if isinstance(each, Finding)]
    try:
        print_error(message, error.fix, details=details, as_json=as_json)
    except BrokenPipeError:  # the status still tells
        _write_no_more()
