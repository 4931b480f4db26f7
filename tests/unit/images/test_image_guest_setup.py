"""The virtual machine reads a NoCloud seed with a small reader of its own; it reads what YAML's own library writes."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

PROGRAM = Path(__file__).parents[3] / "containers/vm-firewall/rootfs/usr/local/sbin/guest-setup"
MACS = {"ens1": "12:34:56:00:00:01", "ens2": "12:34:56:00:00:0a"}


def show(command_line: str = "", **seed: str) -> list[str]:
    """What the guest would do, line by line."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, text in seed.items():
            (folder / name.replace("_", "-")).write_text(text)
        for name, mac in MACS.items():
            (folder / "net" / name).mkdir(parents=True)
            (folder / "net" / name / "address").write_text(f"{mac}\n")
        (folder / "cmdline").write_text(command_line)
        command = ["perl", *map(str, (PROGRAM, "--show", folder, folder / "cmdline", folder / "net"))]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        assert done.stderr == ""
    return done.stdout.splitlines()


def written(value: Any, style: int) -> str:
    """One of the ways to write the same."""
    if style == 0:
        return json.dumps(value, indent=1)
    if style == 1:
        return json.dumps(value)
    flow = {2: False, 3: None, 4: True}[style]
    return str(yaml.safe_dump(value, default_flow_style=flow, explicit_start=style == 3, sort_keys=False))


ADDRESSES = st.builds("10.{}.{}.{}".format, *[st.integers(0, 255)] * 3)
PREFIXES = st.builds("10.{}.0.0/{}".format, st.integers(0, 255), st.integers(16, 32))
ROUTES = st.fixed_dictionaries(
    {"to": PREFIXES | st.just("default"), "via": ADDRESSES}, optional={"metric": st.integers(1, 999)}
)
NICS = st.fixed_dictionaries(
    {"addresses": st.lists(PREFIXES, max_size=3)},
    optional={"mtu": st.integers(576, 9000), "routes": st.lists(ROUTES, max_size=3), "gateway4": ADDRESSES},
)
#: Words as they are in keys, comments, names and file contents, and what is awkward in YAML.
WORDS = st.text(st.sampled_from("abcXYZ019 -_#:'\"\\/@.,=+[]{}|>&*!%?~"), min_size=1, max_size=120)


def commands(nics: dict[str, dict[str, Any]]) -> list[str]:
    """What is expected of a network config."""
    found = []
    for name in sorted(nics):
        nic = nics[name]
        mac = nic.get("match", {}).get("macaddress")
        device = next((each for each, own in MACS.items() if own == str(mac).lower()), name)
        if nic.get("set-name", device) != device:
            found.append(f"link set dev {device} name {nic['set-name']}")
            device = nic["set-name"]
        found.append(f"link set dev {device}" + (f" mtu {nic['mtu']}" if "mtu" in nic else "") + " up")
        found += [f"address add {each} dev {device}" for each in nic["addresses"]]
        routes = list(nic.get("routes", []))
        if "gateway4" in nic:
            routes.append({"to": "default", "via": nic["gateway4"]})
        for route in routes:
            metric = f" metric {route['metric']}" if "metric" in route else ""
            found.append(f"route replace {route['to']} via {route['via']} onlink dev {device}{metric}")
    return [f"ip {each}" for each in found]


@settings(max_examples=60, deadline=None)
@given(first=NICS, second=NICS, named=st.booleans(), style=st.integers(0, 4))
def test_network_config(first: dict[str, Any], second: dict[str, Any], named: bool, style: int) -> None:  # noqa: FBT001 - drawn
    """Every way to write a network config gives the same commands, NICs found by MAC address in any case."""
    matched = first | {"match": {"macaddress": MACS["ens2"].upper()}}
    if named:
        matched["set-name"] = "eth0"
    nics = {"any": matched, "ens1": second}
    document: dict[str, Any] = {"version": 2, "ethernets": nics}
    text = written(document if style % 2 else {"network": document}, style)
    assert show(network_config=text) == ["hostname vm-firewall", *commands(nics)]


@settings(max_examples=100, deadline=None)
@given(keys=st.lists(WORDS.map(str.strip).filter(bool), max_size=3, unique=True), style=st.integers(0, 4))
def test_keys(keys: list[str], style: int) -> None:
    """Keys arrive as they were written, whatever quoting and folding they got; twice is once."""
    document = {"users": [{"name": "root", "ssh_authorized_keys": keys}], "ssh_authorized_keys": [*keys], "x": None}
    out = show(user_data=f"#cloud-config\n{written(document, style)}\n")
    expected = ["file /run/testbed/authorized_keys 600", *keys] if keys else []
    assert out == [*expected, "hostname vm-firewall"]


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(WORDS.map(str.rstrip).filter(bool), min_size=1, max_size=5), style=st.integers(0, 4))
def test_files(lines: list[str], style: int) -> None:
    """Files are written with their text and mode."""
    content = "\n".join(lines) + "\n"
    document = {"write_files": [{"path": "/etc/a", "permissions": "0755", "content": content}], "hostname": "fw"}
    out = show(user_data=f"#cloud-config\n{written(document, style)}\n")
    assert out == ["file /etc/a 0755", *lines, "hostname fw"]


def test_as_people_write_it() -> None:
    """Comments, literal blocks, lists that are not indented, and documents without some of it."""
    user = """#cloud-config
# keys
hostname: fw2   # its name
ssh_authorized_keys:
- ssh-ed25519 AAAA me@here   # mine
-   'ssh-rsa BBBB you'

ssh_keys:
    ed25519_private: |
        -----BEGIN-----
        abc

        -----END-----
write_files:
  - path: /etc/firewall/policy
    content: |-
      deny tcp any 23   # telnet
      allow any
runcmd: [ [ls, -l], "echo: done" ]
"""
    network = """version: 2
ethernets:
  eth0:
    match: {macaddress: "12:34:56:00:00:01"}
    addresses: [10.0.1.4/24, 'fd00::4/64']
    routes:
    - to: default
      via: 10.0.1.1
    - {to: 0.0.0.0/0, via: 10.0.1.1, on-link: true}
"""
    assert show(user_data=user, network_config=network, meta_data="local-hostname: other\n") == [
        "file /etc/ssh/ssh_host_ed25519_key 600",
        *("-----BEGIN-----", "abc", "", "-----END-----"),
        "file /etc/firewall/policy 0644",
        *("deny tcp any 23   # telnet", "allow anyfile /run/testbed/authorized_keys 600"),
        *("ssh-ed25519 AAAA me@here", "ssh-rsa BBBB you"),
        "hostname fw2",
        "ip link set dev ens1 up",
        "ip address add 10.0.1.4/24 dev ens1",
        *["ip route replace default via 10.0.1.1 onlink dev ens1"],
        *["ip route replace 0.0.0.0/0 via 10.0.1.1 onlink dev ens1"],
    ]


@pytest.mark.parametrize(
    "text", ["", "#!/bin/sh\nssh_authorized_keys: [a]\n", "#cloud-config\n", "#cloud-config\n- 1\n"]
)
def test_other_user_data_is_left_alone(text: str) -> None:
    """Scripts and empty documents do no harm."""
    assert show(user_data=text, meta_data='{"local-hostname": "nva1"}') == ["hostname nva1"]


def test_the_command_line() -> None:
    """Words of the kernel's command line do what a seed does."""
    words = "console=ttyS0 testbed.ip=eth0,10.0.1.4/24,10.0.1.1,1400 testbed.ip=eth1,10.0.2.4/24 quiet"
    words += " testbed.route=10.9.0.0/16,10.0.2.1,eth1 testbed.key=ssh-ed25519,AAAA\n"
    assert show(words) == [
        *("file /run/testbed/authorized_keys 600", "ssh-ed25519 AAAA", "hostname vm-firewall"),
        "ip link set dev eth0 mtu 1400 up",
        "ip address add 10.0.1.4/24 dev eth0",
        "ip route replace default via 10.0.1.1 dev eth0 onlink",
        "ip link set dev eth1 up",
        "ip address add 10.0.2.4/24 dev eth1",
        "ip route replace 10.9.0.0/16 via 10.0.2.1 dev eth1 onlink",
    ]
