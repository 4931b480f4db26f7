"""The firewall's policy: lines of words, made into rules of nftables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOTFS = Path(__file__).parents[3] / "containers" / "nft-firewall" / "rootfs"
PROGRAM = ROOTFS / "usr/local/sbin/firewall"


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    """What it prints; nothing is loaded."""
    words = {"PATH": "/usr/bin:/bin"} | environment
    return subprocess.run(["sh", PROGRAM], env=words, capture_output=True, text=True, check=False)


def rules(policy: str) -> list[str]:
    """The rules for new flows."""
    done = run(POLICY=policy)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.partition("chain new_flows {")[2].partition("}\n  chain")[0].splitlines()
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        ("allow any", "counter goto opening"),
        ("deny any", "counter drop"),
        ("deny tcp 10.2.0.0/16 23", "ip daddr 10.2.0.0/16 tcp dport { 23 } counter drop"),
        ("allow udp any 53,1000-2000", "udp dport { 53,1000-2000 } counter goto opening"),
        ("allow tcp from 10.1.0.0/16", "ip saddr 10.1.0.0/16 meta l4proto tcp counter goto opening"),
        ("deny any 10.2.0.4 from 10.1.0.4", "ip saddr 10.1.0.4 ip daddr 10.2.0.4 counter drop"),
        ("deny any any 99", "meta l4proto { tcp, udp } th dport { 99 } counter drop"),
        ("deny icmp 10.2.0.0/16", "ip daddr 10.2.0.0/16 meta l4proto icmp counter drop"),
        (
            "  allow   tcp  any  80  from  10.1.0.0/16  # web",
            "ip saddr 10.1.0.0/16 tcp dport { 80 } counter goto opening",
        ),
    ],
)
def test_a_line_is_a_rule(policy: str, rule: str) -> None:
    """Action, protocol, destination, ports and source are where they belong."""
    assert rules(policy) == [rule]


def test_lines_keep_their_order() -> None:
    """Semicolons and new lines both end a line; comments and empty lines are nothing."""
    assert rules("# first\ndeny tcp ; ;allow udp\n\nallow icmp") == [
        "meta l4proto tcp counter drop",
        "meta l4proto udp counter goto opening",
        "meta l4proto icmp counter goto opening",
    ]


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ("permit any", "'permit any': starts with neither allow nor deny"),
        ("allow", "'allow': which protocol? any, tcp, udp or icmp"),
        ("allow gre", "'allow gre': not understood"),
        ("deny tcp any 23 extra", "'deny tcp any 23 extra': not understood"),
        ("deny tcp any 23 from", "'deny tcp any 23 from': not understood"),
        ("deny icmp any 23", "'deny icmp any 23': not understood"),
        ("deny tcp } 23", "'deny tcp } 23': not understood"),
        ("allow any; deny tcp $(id)", "' deny tcp $(id)': not understood"),
        ("deny tcp *", "'deny tcp *': not understood"),
    ],
)
def test_a_wrong_line_is_quoted(policy: str, complaint: str) -> None:
    """Nothing is guessed: the program fails, and its message has the line."""
    done = run(POLICY=policy)
    assert done.returncode == 1
    assert complaint in done.stderr


@pytest.mark.parametrize(
    ("environment", "rule"),
    [
        ({}, 'oifname != "lo" ip daddr != { 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 168.63.129.16/32 } masquerade'),
        ({"TRUSTED_PREFIXES": "10.9.0.0/16"}, 'oifname != "lo" ip daddr != { 10.9.0.0/16 } masquerade'),
        ({"NAT": "all"}, '    oifname != "lo" masquerade'),
    ],
)
def test_translation(environment: dict[str, str], rule: str) -> None:
    """Who gets the firewall's own address is a setting."""
    assert rule in run(POLICY="allow any", **environment).stdout


def test_no_translation() -> None:
    """It can be turned off, and a wrong word is refused."""
    assert "masquerade" not in run(POLICY="allow any", NAT="none").stdout
    done = run(POLICY="allow any", NAT="some")
    assert done.returncode == 1
    assert "NAT is 'some', and can be outside, all or none" in done.stderr


def test_the_policy_that_is_shipped() -> None:
    """Everything that starts properly is let through, and the examples in the comment are not in force."""
    text = (ROOTFS / "etc/firewall/policy").read_text()
    assert rules(text) == ["counter goto opening"]
    examples = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#   ")]
    assert len(rules("\n".join(examples))) == len(examples) >= 3


def test_only_a_syn_opens_a_flow() -> None:
    """The rules themselves are stateful, whatever the kernel's own setting is."""
    out = run(POLICY="allow any").stdout
    assert "tcp flags & (fin | syn | rst | ack) == syn accept" in out
    assert "policy drop" in out
    assert out.startswith("table ip firewall\ndelete table ip firewall\n")
