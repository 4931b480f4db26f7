"""Templates: what they know, what they cannot do, and errors that lead to the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.access.secrets import Secrets
from testbed.access.templates import Source, facts, render, used
from testbed.errors import InputError
from testbed.plan.compile import compile_plan
from testbed.plan.numbers import Numbers
from testbed.topology.loading import load

HUB_SPOKE = Path(__file__).parents[3] / "topologies/hub-spoke.yaml"


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What a template of nva1 in the ready lab knows."""
    topology = load(HUB_SPOKE).topology
    return facts(compile_plan(topology, "lab", Numbers({}), "/run/testbed/lab"), topology, "nva1")


def made(text: str, known: dict[str, Any], **environment: str) -> str:
    return render(Source(text, "policy.nft", "nva1"), known, Secrets(environment))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ lab }} {{ machine.name }} {{ time_scale }}", "lab nva1 1"),
        ("{{ machine.network_interfaces[0].name }}", "eth0"),
        (
            "{% for nic in machine.network_interfaces %}{{ nic.address }}/{{ nic.prefix_length }}{% endfor %}",
            "10.0.1.4/24",
        ),
        ("{{ machine.network_interfaces[0].gateway }}", "10.0.1.1"),
        (
            "{% with nic = machine.network_interfaces[0] %}{{ nic.virtual_network }}/{{ nic.subnet }}{% endwith %}",
            "hub/nva",
        ),
        ("{{ machines.web1.network_interfaces[0].address }}", "10.1.0.4"),
        ("{{ machines['nva2'].network_interfaces[0].address }}", "10.0.1.5"),
        ("{{ frontends[0].address }} {{ frontends[0].load_balancer }}/{{ frontends[0].name }}", "10.0.2.4 nva-lb/fe"),
        ("{{ trusted_prefixes | join(', ') }}", "10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16"),
        ("one\n", "one\n"),
        ("<{{ '&' }}>", "<&>"),
        ("{{ env('TOKEN') }}", "s3cret"),
    ],
)
def test_what_a_template_knows(known: dict[str, Any], text: str, expected: str) -> None:
    """The facts of the lab by name, text as it is, and secrets of the environment."""
    assert made(text, known, TOKEN="s3cret") == expected  # noqa: S106 - it is none


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("a\n{{ machin.name }}\n", "line 2: 'machin' is undefined", "names that are there: env, frontends, lab"),
        ("a\n\n{{ machine.nam }}", "line 3: 'dict object' has no attribute 'nam'", "names that are there"),
        ("{% if %}", "line 1: Expected an expression, got 'end of statement block'", "correct the template"),
        ("a\nb\n{% for x in %}", "line 3: Expected an expression", "correct the template"),
        ("a\n{{ 1 / 0 }}", "line 2: ZeroDivisionError: division by zero", "correct the template"),
        (
            "{{ ''.__class__.__mro__ }}",
            "line 1: SecurityError: access to attribute '__class__'",
            "correct the template",
        ),
        ("{% include '/etc/passwd' %}", "line 1: TypeError: no loader", "correct the template"),
        ("{{ range(10 ** 9) | list }}", "line 1: OverflowError", "correct the template"),
    ],
)
def test_a_wrong_template(known: dict[str, Any], text: str, message: str, fix: str) -> None:
    """The error names the machine, the file, the line, what is wrong and what to do."""
    with pytest.raises(InputError) as raised:
        made(text, known)
    assert raised.value.message.startswith(f"machine 'nva1': policy.nft, {message}")
    assert raised.value.fix.startswith(fix)


def test_an_address_of_the_network_interface(known: dict[str, Any]) -> None:
    """The Ethernet address is Azure's kind."""
    assert made("{{ machine.network_interfaces[0].mac }}", known).count(":") == 5


def test_a_variable_that_is_not_set(known: dict[str, Any]) -> None:
    """The error says which file of which machine wants it."""
    with pytest.raises(InputError) as raised:
        made("{{ env('TOKEN') }}", known)
    assert raised.value.message == "machine 'nva1': policy.nft: the environment variable TOKEN is not set"


def test_an_error_does_not_tell_a_secret(known: dict[str, Any]) -> None:
    """A secret that ends up in Jinja2's own words is masked."""
    with pytest.raises(InputError) as raised:
        made("{{ machine[env('TOKEN')] }}", known, TOKEN="hunter2")  # noqa: S106 - it is none
    assert "hunter2" not in str(raised.value)
    assert "***" in str(raised.value)


def test_what_is_used(known: dict[str, Any]) -> None:
    """Only the facts that a template names."""
    text = "{% set x = lab %}{{ x }} {{ time_scale }} {{ env('TOKEN') }} {{ nonsense }}"
    assert used(Source(text, "policy.nft", "nva1"), known) == {"lab": "lab", "time_scale": 1.0}
    with pytest.raises(InputError, match=r"policy\.nft, line 1"):
        used(Source("{% if %}", "policy.nft", "nva1"), known)
