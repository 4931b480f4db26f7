"""The parser of the whole command line, and what a verb module has to offer to it."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from testbed import __version__
from testbed.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GROUPS", "VERBS", "Parser", "Verb", "make_parser", "parse", "verb_module"]

#: Headings of ``testbed --help`` and their verbs, in the order of a first tour.
GROUPS = {
    "this machine": ("doctor", "images"),
    "topology documents": ("validate", "plan", "graph", "schema"),
    "labs": ("up", "list", "status", "down"),
    "proof": ("verify", "fault", "backend", "events"),
    "a look inside": ("routes", "security", "explain", "exec", "ssh", "push", "capture"),
}
VERBS = tuple(name for names in GROUPS.values() for name in names)

_DESCRIPTION = """\
Azure's internal Standard Load Balancer with an HA Ports rule, network virtual appliances (NVAs) and
hub-and-spoke networks, on one Linux machine, with a real kernel data plane.
"""
_EPILOG = """\
start here:
  testbed up topologies/hub-spoke.yaml --wait 60
  testbed verify hub-spoke
  testbed down hub-spoke

'testbed VERB --help' shows the arguments of a verb and an example; every verb knows --json.
exit status: 0 fine, 1 a check failed, 2 wrong input, 3 this machine lacks something, 4 a fault of the testbed
"""


class Verb(Protocol):
    """What a verb module holds."""

    HELP: str
    EXAMPLE: str
    """Commands to type, one a line."""

    def add_arguments(self, parser: Parser) -> None:
        """Declare the verb's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; returns the exit status."""


class Parser(argparse.ArgumentParser):
    """Wrong words are the user's input: an error like all others, and the way to the right help.

    Attributes:
        verb: Every word must be understood here, not by the parser above.
        intermixed: Options may stand between the words of an argument that takes many.
        rest: Argument that takes all words behind ``--``, or behind so many words, as they are.
    """

    verb = False
    intermixed = False
    rest: tuple[str, int] | None = None
    _inside = False

    def error(self, message: str) -> NoReturn:
        """Refuse the words.

        Raises:
            InputError: Always.
        """
        raise InputError(message, fix=f"see: {self.prog} --help")

    def parse_known_args(  # type: ignore[override] # argparse types it for any namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does, with the three additions of this class."""
        if not self.verb or self._inside:
            return super().parse_known_args(args, namespace)
        words, rest = list(args or ()), list[str]()
        if self.rest:
            words, rest = _split(words, self.rest[1])
        self._inside = True  # argparse comes back here for the two passes of intermixed words
        try:
            read = self.parse_known_intermixed_args if self.intermixed else super().parse_known_args
            found, unknown = cast("tuple[argparse.Namespace, list[str]]", read(words, namespace))
        finally:
            self._inside = False
        if unknown:
            self.error(f"not understood: {' '.join(unknown)}")
        if self.rest:
            setattr(found, self.rest[0], [*getattr(found, self.rest[0], []), *rest])
        return found, []


def _split(words: list[str], own: int) -> tuple[list[str], list[str]]:
    """What the verb reads itself, and the rest: behind ``--``, or from the word after ``own`` plain ones."""
    plain = 0
    for place, word in enumerate(words):
        if word == "--":
            return words[:place], words[place + 1 :]
        if not word.startswith("-"):
            plain += 1
            if plain > own:
                return words[:place], words[place:]
    return words, []


def verb_module(name: str) -> Verb:
    """The module of a verb."""
    return cast("Verb", import_module(f"testbed.cli.{name}_verb"))


def make_parser() -> Parser:
    """The parser of the whole command line."""
    kind: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    verbs = {name: verb_module(name) for name in VERBS}
    lines = [_DESCRIPTION]
    for heading, names in GROUPS.items():
        lines += [f"{heading}:", *(f"  {name:9} {verbs[name].HELP}" for name in names), ""]
    parser = Parser(prog="testbed", usage="testbed VERB ...", description="\n".join(lines), epilog=_EPILOG, **kind)
    parser.add_argument("--version", action="version", version=f"testbed {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True, help=argparse.SUPPRESS)
    for name, verb in verbs.items():
        example = "".join(f"\n  {line}" for line in verb.EXAMPLE.splitlines())
        epilog = f"{'examples' if len(verb.EXAMPLE.splitlines()) > 1 else 'example'}:{example}"
        sub = subparsers.add_parser(name, prog=f"testbed {name}", description=verb.HELP, epilog=epilog, **kind)
        sub.verb = True
        verb.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="machine-readable output on standard output")
        sub.set_defaults(run=verb.run)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read a command line.

    Raises:
        InputError: It is not understood.
        SystemExit: It asked for the help or the version, which has been printed.
    """
    verb = next((word for word in words if not word.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        close = get_close_matches(verb, VERBS, n=1)
        fix = f"did you mean 'testbed {close[0]}'?" if close else "see: testbed --help"
        raise InputError(f"there is no verb {verb!r}", fix=fix)
    return make_parser().parse_args(words)
