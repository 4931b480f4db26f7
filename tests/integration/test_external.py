"""Machines outside: boxes on network interfaces of this computer, by a macvlan or by moving the interface in."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT, inside, testbed

from testbed.kernel import namespaces
from testbed.nodes.launcher import ProgramSpec, launch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two routers, each at a network interface of this computer; gives the interfaces' names."""
    names = tuple(f"tbx{os.getpid() % 10_000}{number}" for number in (1, 2))
    with ExitStack() as stack:
        for number, name in enumerate(names, 1):
            box = f"{name}-box"
            namespaces.create(box, box)
            stack.callback(namespaces.delete, box)
            stack.callback(subprocess.run, ["ip", "link", "del", name], check=False)
            mac = f"02:00:00:00:00:5{number}"
            ip("link", "add", name, "type", "veth", "peer", "eth0", "address", mac, "netns", namespace_pid(box))
            ip("link", "set", name, "up")
            for command in (
                f"ip link set eth0 up; ip address add 10.0.1.{3 + number}/24 dev eth0",
                "ip route add default via 10.0.1.1",
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0",
            ):
                inside(box, "sh", "-ec", command)
            config = json.dumps({"machine": box, "trusted_prefixes": ["10.0.0.0/8"]})
            (started,) = launch([ProgramSpec(box, box, "nft-firewall", config, str(tmp_path / f"{box}.log"))])
            stack.callback(os.kill, started.pid, 9)
        yield names[0], names[1]


def namespace_pid(name: str) -> str:
    """``ip link`` takes the path of a namespace as well as its name."""
    return str(namespaces.path(name))


def document(folder: Path, first: str, second: str) -> Path:
    """A hub with two machines outside behind a balancer, and two spokes."""
    text = (ROOT / "topologies" / "hub-spoke.yaml").read_text()
    head, _, tail = text.partition("machines:\n")
    web = tail[tail.index("  - name: web1") : tail.index("internet:")]
    own = "".join(
        f"""\
  - name: box{number}
    runtime: {{kind: external, interfaces: [{{{cable}, mac_address: "02:00:00:00:00:5{number}"}}]}}
    network_interfaces:
      - subnet: hub/nva
        private_ip_address: 10.0.1.{3 + number}
        enable_ip_forwarding: true
        backend_address_pools: [nva-lb/nvas]
"""
        for number, cable in enumerate((first, second), 1)
    )
    path = folder / "outside.yaml"
    path.write_text(head.replace("name: hub-spoke", "name: outside", 1) + "machines:\n" + own + web)
    return path


def test_boxes_on_network_interfaces_are_nvas(boxes: tuple[str, str], lab: Callable[..., str], tmp_path: Path) -> None:
    """One by a macvlan, one by an interface that is moved in; both balanced, probed, failed, and given back."""
    path = document(tmp_path, f"parent: {boxes[0]}", f"interface: {boxes[1]}")
    name = lab(path)
    links = ip("-o", "link")
    assert boxes[0] in links
    assert boxes[1] not in links
    assert testbed("verify", name, "symmetry", "distribution", "--json").json["verdict"] == "pass"
    for machine in ("box1", "box2"):
        done = testbed("verify", name, "failover", "--fault", "link-down", "--machine", machine, "--json").json
        assert done["verdict"] == "pass"
    kinds = testbed("fault", name, "box1", "--list").out.split()
    assert kinds == ["probe-down", "probe-silent", "forwarding-off", "link-down", "freeze"]
    assert testbed("up", path, "--lab", name, "--time-scale", "0.02").out.startswith(f"lab {name}: no changes")
    testbed("down", name)
    assert boxes[1] in ip("-o", "link", "show", "up")
    assert "testbed-home" not in ip("-o", "link")


#: What BusyBox's DHCP client runs when it has been answered.
TAKE = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route add default via "$router" onlink dev "$interface"
echo "$serverid $staticroutes $hostname $lease"
"""


#: Only probes come in, nothing goes out.
CLOSED = """
network_security_groups:
  - name: closed
    security_rules:
      - {name: probes, priority: 100, direction: Inbound, access: Allow, protocol: Tcp, source_address_prefix: AzureLoadBalancer}
      - {name: nobody, priority: 110, direction: Inbound, access: Deny, protocol: "*"}
      - {name: nowhere, priority: 100, direction: Outbound, access: Deny, protocol: "*"}
"""  # noqa: E501 - a line of YAML is a rule


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_box_gets_its_address_by_dhcp(
    boxes: tuple[str, str], lab: Callable[..., str], tmp_path: Path, *, closed: bool
) -> None:
    """The address of the document, the way out, the way to the platform; security groups have no say in it."""
    path = document(tmp_path, f"parent: {boxes[0]}", f"interface: {boxes[1]}")
    if closed:
        prefix = "{name: nva, address_prefix: 10.0.1.0/24"
        path.write_text(path.read_text().replace(prefix, f"{prefix}, network_security_group: closed") + CLOSED)
    running = lab(path)
    for box in ("10.0.1.4", "10.0.1.5"):
        ping = testbed("exec", running, "web1", "--", "ping", "-c", "1", "-W", "1", box, check=False)
        assert (ping.status == 0) is not closed
    script = tmp_path / "take"
    script.write_text(TAKE)
    script.chmod(0o755)
    for number, name in enumerate(boxes):
        box = f"{name}-box"
        inside(box, "ip", "address", "flush", "dev", "eth0")
        said = inside(box, "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", str(script), "-O", "staticroutes")
        assert said.split()[0] == "168.63.129.16"
        assert "168.63.129.16/32 10.0.1.1" in said
        assert f"box{number + 1}" in said
        assert f"10.0.1.{4 + number}/24" in inside(box, "ip", "address", "show", "dev", "eth0")
        assert "default via 10.0.1.1" in inside(box, "ip", "route")


def test_a_moved_interface_comes_back_without_state(
    boxes: tuple[str, str], lab: Callable[..., str], tmp_path: Path
) -> None:
    """It carries its way home itself."""
    name = lab(document(tmp_path, f"parent: {boxes[0]}", f"interface: {boxes[1]}"))
    for path in Path("/run/testbed", name).iterdir():
        path.unlink()
    testbed("down", name)
    assert boxes[1] in ip("-o", "link", "show", "up")


def test_the_computers_own_interfaces_are_refused(boxes: tuple[str, str], tmp_path: Path) -> None:
    """An address or the default route on it: an error that says how to go on all the same; the flag does."""
    path = document(tmp_path, f"parent: {boxes[0]}", f"interface: {boxes[1]}")
    name = f"own{os.getpid()}"
    ip("address", "add", "192.0.2.1/24", "dev", boxes[0])
    done = testbed("up", path, "--lab", name, check=False)
    assert done.status == 2
    for words in (boxes[0], "192.0.2.1/24", "--take-interface", "shares"):
        assert words in done.err
    assert not Path("/run/testbed", name).exists()
    try:
        testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "20", "--take-interface", boxes[0])
    finally:
        testbed("down", name)
    assert "192.0.2.1/24" in ip("-o", "address")


def test_an_interface_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With the names of those that are."""
    done = testbed("up", document(tmp_path, "parent: no-such0", "interface: no-such1"), check=False)
    assert done.status == 2
    assert "'no-such0'" in done.err
    assert "this computer has:" in done.err
