"""Labs come up whole or not at all, converge, and go without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT, TOPOLOGIES, testbed

from testbed.errors import LabError, LabExistsError
from testbed.kernel import namespaces, processes
from testbed.lab.down import all_labs, down
from testbed.lab.state import ROOT as STATE_ROOT
from testbed.lab.up import up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testbed.lab.changes import Change

HUB_SPOKE = TOPOLOGIES / "hub-spoke.yaml"


@pytest.fixture
def name() -> Iterator[str]:
    """A lab name of this test's own; the lab goes with the test."""
    own = f"lc{os.getpid()}"
    yield own
    down(own)


def root_namespace() -> dict[str, object]:
    """All that a lab could touch outside itself."""

    def ask(*command: str) -> object:
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "null")

    settings = {}
    for path in sorted(Path("/proc/sys/net").rglob("*")):
        if path.is_file():
            try:
                settings[str(path)] = path.read_text()
            except OSError:  # write-only ones, such as route/flush
                settings[str(path)] = "-"
    counters = {"/proc/sys/net/netfilter/nf_conntrack_count", "/proc/sys/net/ipv4/tcp_fastopen_key"}
    return {
        "links": [(each["ifname"], each["flags"]) for each in ask("ip", "-j", "link")],  # type: ignore[attr-defined]
        "addresses": ask("ip", "-j", "addr"),
        "routes": ask("ip", "-j", "route", "show", "table", "all"),
        "rules": ask("ip", "-j", "rule"),
        "ruleset": ask("nft", "-j", "list", "ruleset"),
        "settings": {key: value for key, value in settings.items() if key not in counters},
    }


def leftovers(name: str) -> list[str]:
    """Whatever of a lab is still there: namespaces, state, processes."""
    found = [each.name for each in namespaces.owned(name)]
    found += [path.name for path in Path("/run/netns").glob(f"{name}-*")]
    found += [str(path) for path in STATE_ROOT.glob(f"*{name}*")] if STATE_ROOT.exists() else []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"/{name}/".encode() in words:
                found.append(f"process {entry.name}: {words!r}")
    return found


def test_nothing_outside_the_lab_is_touched(name: str) -> None:
    """Links, addresses, routes, rules, nftables and settings of the root namespace stay as they are."""
    before = root_namespace()
    up(HUB_SPOKE, lab=name, time_scale=0.02)
    during = root_namespace()
    down(name)
    assert during == before
    assert root_namespace() == before
    assert leftovers(name) == []


def test_up_twice_changes_nothing(name: str) -> None:
    """The second ``up`` finds everything in place and says so."""
    assert up(HUB_SPOKE, lab=name, time_scale=0.02).changes
    assert up(HUB_SPOKE, lab=name, time_scale=0.02).changes == ()
    assert "no changes" in testbed("up", HUB_SPOKE, "--lab", name, "--time-scale", "0.02").out


def test_up_repairs_what_was_broken_by_hand(name: str) -> None:
    """A removed namespace, a flushed table, a killed controller and a killed program come back."""
    outcome = up(HUB_SPOKE, lab=name, time_scale=0.02)
    plan = outcome.plan
    testbed("exec", name, "fabric", "--", "nft", "delete", "table", "ip", "testbed")
    testbed("exec", name, "fabric", "--", "ip", "route", "flush", "table", str(plan.objects and 10001))
    victims = [namespaces.inode(f"{name}-web1")]
    processes.end(processes.inside(victims))
    namespaces.delete(f"{name}-web2")
    assert up(HUB_SPOKE, lab=name, time_scale=0.02).changes
    assert up(HUB_SPOKE, lab=name, time_scale=0.02).changes == ()
    testbed("up", HUB_SPOKE, "--lab", name, "--time-scale", "0.02", "--wait", "20")
    testbed("exec", name, "web1", "--", "curl", "-sf", "-m", "5", "http://10.2.0.4:1234/")


def test_same_name_from_another_document_is_refused(name: str, tmp_path: Path) -> None:
    """A lab is not replaced by another document's; nothing changes and both documents are named."""
    up(HUB_SPOKE, lab=name, time_scale=0.02)
    other = tmp_path / "other.yaml"
    other.write_text(HUB_SPOKE.read_text().replace("10.1.0.4", "10.1.0.9"))
    with pytest.raises(LabExistsError, match=r"hub-spoke\.yaml"):
        up(other, lab=name)
    assert testbed("up", other, "--lab", name, check=False).status == 2
    assert up(HUB_SPOKE, lab=name, time_scale=0.02).changes == ()


def test_edited_document_is_applied_without_dropping_the_rest(name: str, tmp_path: Path) -> None:
    """A machine added to the document appears; the others keep their namespaces and processes."""
    document = tmp_path / "mine.yaml"
    document.write_text(HUB_SPOKE.read_text())
    up(document, lab=name, time_scale=0.02)
    before = testbed("status", name, "--json").json["machines"]
    document.write_text(
        HUB_SPOKE.read_text().replace(
            "  - name: web2\n",
            "  - name: web3\n    runtime: {kind: namespace, program: echo}\n"
            "    network_interfaces: [{subnet: spoke2/workload, private_ip_address: 10.2.0.5}]\n  - name: web2\n",
        )
    )
    testbed("up", document, "--lab", name, "--time-scale", "0.02", "--wait", "20")
    after = {each["name"]: each for each in testbed("status", name, "--json").json["machines"]}
    assert {each["name"]: each["pid"] for each in before}.items() <= {n: m["pid"] for n, m in after.items()}.items()
    testbed("exec", name, "web1", "--", "curl", "-sf", "-m", "5", "http://10.2.0.5:99/")
    document.write_text(HUB_SPOKE.read_text())
    up(document, lab=name, time_scale=0.02)
    assert not namespaces.exists(f"{name}-web3")
    assert up(document, lab=name, time_scale=0.02).changes == ()


class Injected(Exception):
    """The failure that a test puts into a step."""


def steps(name: str) -> int:
    """How many steps the default lab takes."""
    seen: list[Change] = []
    up(HUB_SPOKE, lab=name, time_scale=0.02, checkpoint=seen.append)
    down(name)
    return len(seen)


def test_a_failing_step_leaves_nothing_at_every_step(name: str) -> None:
    """Whatever step of ``up`` fails, all that was made is gone again."""
    for fatal in range(steps(name)):
        left = fatal

        def fail(change: Change) -> None:
            nonlocal left
            if left == 0:
                raise Injected(str(change))
            left -= 1

        with pytest.raises(Injected):
            up(HUB_SPOKE, lab=name, time_scale=0.02, checkpoint=fail)
        assert leftovers(name) == [], f"step {fatal}"


def test_a_failing_step_of_a_change_is_undone(name: str, tmp_path: Path) -> None:
    """A lab that is up stays what it was when a change to it fails, at every step of the change."""
    document = tmp_path / "mine.yaml"
    document.write_text(HUB_SPOKE.read_text())
    up(document, lab=name, time_scale=0.02)
    edited = HUB_SPOKE.read_text().replace("10.1.0.4", "10.1.0.9").replace("0.0.0.0/0", "10.0.0.0/8")
    seen: list[Change] = []
    document.write_text(edited)
    up(document, lab=name, time_scale=0.02, checkpoint=seen.append)
    document.write_text(HUB_SPOKE.read_text())
    up(document, lab=name, time_scale=0.02)
    for fatal in range(len(seen)):
        left = fatal

        def fail(change: Change) -> None:
            nonlocal left
            if left == 0:
                raise Injected(str(change))
            left -= 1

        document.write_text(edited)
        with pytest.raises(Injected) as caught:
            up(document, lab=name, time_scale=0.02, checkpoint=fail)
        assert not [note for note in getattr(caught.value, "__notes__", ()) if "not undone" in note]
        document.write_text(HUB_SPOKE.read_text())
        assert up(document, lab=name, time_scale=0.02).changes == (), f"step {fatal} of {len(seen)}"


KILL_AT = """
import os, signal, sys
from pathlib import Path
from testbed.lab.up import up
left = int(sys.argv[3])
def stop(change):
    global left
    if left == 0:
        os.kill(os.getpid(), int(sys.argv[4]))
    left -= 1
up(Path(sys.argv[1]), lab=sys.argv[2], time_scale=0.02, checkpoint=stop)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_any_step_down_removes_and_up_finishes(name: str, number: signal.Signals) -> None:
    """After a kill in the middle of ``up``, ``down`` leaves nothing, and another ``up`` completes the lab."""
    total = steps(name)
    for fatal in range(0, total, 7):
        command = [sys.executable, "-c", KILL_AT, str(HUB_SPOKE), name, str(fatal), str(int(number))]
        assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60).returncode != 0
        if number == signal.SIGINT:
            assert leftovers(name) == [], f"interrupted at step {fatal}"
        if fatal % 2:
            up(HUB_SPOKE, lab=name, time_scale=0.02)
            assert up(HUB_SPOKE, lab=name, time_scale=0.02).changes == ()
        down(name)
        assert leftovers(name) == [], f"killed at step {fatal} of {total}"


def test_down_works_without_state(name: str) -> None:
    """With the state directory lost, ``down`` and ``down --all`` find the lab by the marks in the kernel."""
    up(HUB_SPOKE, lab=name, time_scale=0.02)
    subprocess.run(["rm", "-rf", str(STATE_ROOT / name)], check=True)
    assert name in all_labs()
    with pytest.raises(LabExistsError, match="state is lost"):
        up(HUB_SPOKE, lab=name)
    down(name)
    assert leftovers(name) == []


def test_down_leaves_foreign_namespaces_alone(name: str) -> None:
    """A namespace that only looks like the lab's is not touched, and ``up`` refuses to take it over."""
    foreign = f"{name}-web1"
    subprocess.run(["ip", "netns", "add", foreign], check=True)
    try:
        with pytest.raises(LabError, match="already exists"):
            up(HUB_SPOKE, lab=name, time_scale=0.02)
        down(name)
        assert namespaces.exists(foreign)
    finally:
        subprocess.run(["ip", "netns", "del", foreign], check=True)


def test_two_labs_come_up_at_the_same_moment(lab: Callable[..., str]) -> None:
    """Labs do not disturb each other, not even while both are being made."""
    names = [f"two{os.getpid()}-a", f"two{os.getpid()}-b"]
    documents = ["hub-spoke", "all-ports-app"]
    failures: list[BaseException] = []

    def bring_up(number: int) -> None:
        try:
            lab(documents[number], name=names[number])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=bring_up, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert {"lab", "machines"} <= testbed("status", names[0], "--json").json.keys()
    testbed("exec", names[0], "web1", "--", "curl", "-sf", "-m", "5", "http://10.2.0.4:77/")


def test_the_data_plane_outlives_the_controller(name: str) -> None:
    """With the controller killed traffic goes on, ``status`` says so, and ``up`` starts a new one that adopts."""
    testbed("up", HUB_SPOKE, "--lab", name, "--time-scale", "0.02", "--wait", "20")
    pid = testbed("status", name, "--json").json["controller"]["pid"]
    processes.end([processes.identify(pid)])
    assert testbed("status", name, "--json").json["controller"]["alive"] is False
    testbed("exec", name, "web1", "--", "curl", "-sf", "-m", "5", "http://10.2.0.4:77/")
    changes = up(HUB_SPOKE, lab=name, time_scale=0.02).changes
    assert [type(each.object).__name__ for each in changes] == ["Controller"]
    members = testbed("status", name, "--json").json["load_balancers"][0]["members"]
    assert all(each["healthy"] for each in members)


KILL_DOWN_AT = """
import os, signal, sys
from testbed.kernel import namespaces, processes
from testbed.lab.down import down
left = int(sys.argv[2])
def stopping(work):
    def step(*words, **more):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return work(*words, **more)
    return step
namespaces.delete, processes.end = stopping(namespaces.delete), stopping(processes.end)
down(sys.argv[1])
"""


def test_killed_in_the_middle_of_down(name: str) -> None:
    """Whatever step of ``down`` is killed, the next ``down`` removes the rest, or ``up`` brings all of it back."""
    for fatal in range(8):  # two rounds of processes, six namespaces
        up(HUB_SPOKE, lab=name, time_scale=0.02)
        command = [sys.executable, "-c", KILL_DOWN_AT, name, str(fatal)]
        assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -signal.SIGKILL
        if fatal % 2:
            up(HUB_SPOKE, lab=name, time_scale=0.02)
            assert up(HUB_SPOKE, lab=name, time_scale=0.02).changes == ()
        down(name)
        assert leftovers(name) == [], f"killed at step {fatal}"


def test_counters_and_flows_outlive_a_change(name: str, tmp_path: Path) -> None:
    """An edited document replaces the rules in place: counts go on, and so does a connection to a frontend."""
    document = tmp_path / "mine.yaml"
    document.write_text((TOPOLOGIES / "all-ports-app.yaml").read_text())
    testbed("up", document, "--lab", name, "--time-scale", "0.05", "--wait", "20")
    plan = up(document, lab=name, time_scale=0.05).plan
    client = next(each for each in plan.machines if each.name not in {m.machine for m in plan.rules[0].members})
    with namespaces.entered(client.namespace):
        connection = socket.create_connection((plan.rules[0].frontend_address, 7777), 5)
    with connection:
        connection.settimeout(5)
        for number, scale in enumerate((0.05, 0.06, 0.05, 0.06)):
            up(document, lab=name, time_scale=scale)
            connection.sendall(b"%d" % number)
            assert connection.recv(1) == b"%d" % number
    members = testbed("status", name, "--json").json["load_balancers"][0]["members"]
    assert sum(each["flows"] for each in members) == 1
    assert sum(each["packets"] for each in members) >= 8


def test_up_takes_faults_away(name: str) -> None:
    """A lab that is made what its document says has no faults, and all of its probes come up again."""
    testbed("up", HUB_SPOKE, "--lab", name, "--time-scale", "0.02", "--wait", "20")
    for machine, kind in (("nva1", "freeze"), ("nva2", "link-down"), ("web2", "crash")):
        testbed("fault", name, machine, kind)
    testbed("up", HUB_SPOKE, "--lab", name, "--time-scale", "0.02", "--wait", "20")
    assert not any(each["faults"] for each in testbed("status", name, "--json").json["machines"])
    testbed("exec", name, "web1", "--", "curl", "-sf", "-m", "5", "http://10.2.0.4:99/")
