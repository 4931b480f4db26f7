"""Jinja2 templates of configure steps: what they know of the lab, and errors that name the file and the line.

Nothing is undefined in silence, nothing is escaped, and a template is shut in: it computes text, and can do nothing
else.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from testbed.errors import InputError, TestbedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import jinja2

    from testbed.access.secrets import Secrets
    from testbed.plan.model import Machine, Plan
    from testbed.topology.model import Topology

__all__ = ["Facts", "Source", "facts", "render", "used"]

#: What a template can use, by name. Plain data: strings, numbers, lists and mappings.
Facts = dict[str, Any]

_FILE = "<template>"  # what Jinja2 calls a template that is no file


@dataclass(frozen=True, slots=True)
class Source:
    """A template, and what it is called in errors: a file, or a place in the document."""

    text: str
    where: str
    machine: str


def facts(plan: Plan, topology: Topology, machine: str) -> Facts:
    """What the templates of one machine know.

    ``lab``, ``time_scale``, ``machine``, ``machines`` (by name), ``frontends``, ``trusted_prefixes`` (the IPv4 address
    spaces of all virtual networks) and ``trusted_ipv6_prefixes`` (the others).

    Raises:
        UnknownLabError: There is no such machine.
    """
    machines = {each.name: _machine(each) for each in plan.machines}
    frontends = [
        {"name": frontend.name, "load_balancer": balancer.name, "address": str(frontend.private_ip_address)}
        for balancer in topology.load_balancers
        for frontend in balancer.frontend_ip_configurations
        if frontend.private_ip_address is not None
    ]
    spaces = [prefix for network in topology.virtual_networks for prefix in network.address_space]
    return {
        "lab": plan.lab,
        "time_scale": plan.time_scale,
        "machine": machines[plan.machine(machine).name],
        "machines": machines,
        "frontends": frontends,
        "trusted_prefixes": [str(prefix) for prefix in spaces if prefix.version == 4],
        "trusted_ipv6_prefixes": [str(prefix) for prefix in spaces if prefix.version == 6],
    }


def _machine(machine: Machine) -> Facts:
    return {
        "name": machine.name,
        "network_interfaces": [
            {
                "name": each.name,
                "address": each.address,
                "prefix_length": each.prefix_length,
                "gateway": each.gateway,
                "ipv6_address": each.ipv6.address if each.ipv6 else None,
                "mac": each.mac,
                "subnet": each.subnet,
                "virtual_network": each.virtual_network,
            }
            for each in machine.network_interfaces
        ],
    }


def _environment() -> jinja2.Environment:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)


def render(source: Source, known: Mapping[str, Any], secrets: Secrets) -> str:
    """The text that a template makes. ``env('NAME')`` in it is a secret from the environment.

    Raises:
        InputError: The template is wrong, or a variable of the environment is not set.
    """
    import jinja2

    def env(name: str) -> str:
        return secrets.env(name, f"machine {source.machine!r}: {source.where}")

    try:
        return _environment().from_string(source.text).render(known, env=env)
    except TestbedError:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise _wrong(source, error.lineno, str(error.message), "correct the template") from error
    except jinja2.UndefinedError as error:
        fix = f"names that are there: {', '.join(sorted([*known, 'env']))}"
        raise _wrong(source, _line(error), secrets.redact(str(error.message)), fix) from error
    except Exception as error:  # whatever an expression in it can do wrong
        message = secrets.redact(f"{type(error).__name__}: {error}")
        raise _wrong(source, _line(error), message, "correct the template") from error


def used(source: Source, known: Mapping[str, Any]) -> Facts:
    """What of the known a template makes use of.

    Raises:
        InputError: It is not a template.
    """
    import jinja2
    from jinja2.meta import find_undeclared_variables

    try:
        names = find_undeclared_variables(_environment().parse(source.text))
    except jinja2.TemplateSyntaxError as error:
        raise _wrong(source, error.lineno, str(error.message), "correct the template") from error
    return {name: known[name] for name in sorted(names) if name in known}


def _line(error: Exception) -> int:
    """Where in the template it happened; Jinja2 puts the template's lines into tracebacks."""
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == _FILE]
    return lines[-1] or 1 if lines else 1


def _wrong(source: Source, line: int, message: str, fix: str) -> InputError:
    return InputError(f"machine {source.machine!r}: {source.where}, line {line}: {message.rstrip('.')}", fix=fix)
