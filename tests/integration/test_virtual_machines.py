"""Virtual machines as machines: a stock kernel and initial RAM disk behind the balancer, their faults, clear words."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import stock
from conftest import ROOT, inside, testbed

from testbed.deadline import wait_for
from testbed.kernel import processes
from testbed.runtimes import qmp
from testbed.runtimes.accelerator import QEMU, trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY = 'ready: {log: appliance is forwarding, http: "http://:8080/health"}'
#: An emulated guest on a busy computer answers late now and then; a probe waits a second here.
SCALE = 0.2


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test there is no disk of a machine, and no QEMU."""
    yield
    assert not Path("/var/tmp/testbed").exists()
    assert [words for words in command_lines() if f"{os.getpid()}-" in words] == []


def command_lines() -> Iterator[str]:
    """Of every QEMU of a lab."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if words[0] == QEMU:
                yield words[words.index("-name") + 1] if "-name" in words else ""


def test_the_trial_of_an_accelerator_passes_where_a_guest_runs() -> None:
    """Emulation runs every guest, this one as well; so what KVM makes of it says something about KVM."""
    assert trial("-accel", "tcg") == ""
    assert "no-such-accelerator" in trial("-accel", "no-such-accelerator")


def document(folder: Path, *runtimes: str, ready: str = READY) -> Path:
    """A hub with NVAs of these runtimes behind a balancer, and two spokes."""
    text = (ROOT / "topologies" / "hub-spoke.yaml").read_text()
    head, _, tail = text.partition("machines:\n")
    web = tail[tail.index("  - name: web1") : tail.index("internet:")]
    own = "".join(
        f"""\
  - name: nva{number}
    runtime: {runtime}
    network_interfaces:
      - subnet: hub/nva
        private_ip_address: 10.0.1.{3 + number}
        enable_ip_forwarding: true
        backend_address_pools: [nva-lb/nvas]
    {ready}
"""
        for number, runtime in enumerate(runtimes, 1)
    )
    path = folder / "machines.yaml"
    path.write_text(head.replace("name: hub-spoke", "name: machines", 1) + "machines:\n" + own + web)
    (folder / "router.sh").write_text(stock.ROUTER)
    (folder / "router.sh").chmod(0o755)
    return path


def pid_of(lab: str, machine: str) -> int:
    return int(json.loads(Path("/run/testbed", lab, "processes.json").read_text())[machine]["pid"])


def state_of(lab: str, machine: str) -> str:
    listed = testbed("status", lab, "--json").json["machines"]
    return str(next(each["state"] for each in listed if each["name"] == machine))


def test_a_stock_kernel_is_an_nva(lab: Callable[..., str], tmp_path: Path) -> None:
    """Symmetric, evenly spread, and a failover measured; TCP goes through with whole checksums, much of it at once."""
    name = lab(document(tmp_path, stock.runtime(), stock.runtime()), time_scale=SCALE, wait=120)
    assert testbed("verify", name, "--json", timeout=300).json["verdict"] == "pass"
    server = testbed("exec", name, "web2", "--", "sh", "-c", "iperf3 -s -1 -D -p 5300")
    assert server.status == 0
    report = testbed("exec", name, "web1", "--", "iperf3", "-J", "-c", "10.2.0.4", "-p", "5300", "-t", "2").json
    assert report["end"]["sum_received"]["bytes"] > 20_000_000
    links = inside(f"{name}-nva1", "ip", "-o", "link")
    assert "00:0d:3a:" in links
    (nic,) = qmp.ask(Path("/run/testbed", name, "nva1.qmp"), "query-rx-filter")
    assert nic["main-mac"] in links

    for kind in ("freeze", "link-down", "probe-down", "probe-silent"):
        (check,) = testbed("verify", name, "failover", "--fault", kind, "--json", timeout=300).json["checks"]
        assert check["verdict"] == "pass", (kind, check)
    testbed("fault", name, "nva2", "freeze")
    assert state_of(name, "nva2") == "paused"
    testbed("fault", name, "nva2", "--clear")

    first = pid_of(name, "nva1")
    testbed("fault", name, "nva1", "reboot")
    log = Path("/run/testbed", name, "nva1.serial.log")
    wait_for("it says again that it forwards", lambda: log.read_text().count("is forwarding") >= 3, seconds=60)
    assert pid_of(name, "nva1") == first

    os.kill(pid_of(name, "nva2"), signal.SIGKILL)
    assert state_of(name, "nva2") == "exited"
    out = testbed("up", tmp_path / "machines.yaml", "--lab", name, "--time-scale", SCALE, "--wait", "120").out
    assert out.startswith(f"lab {name}: +1 virtual machine\n")
    assert testbed("verify", name, "symmetry", "--json").json["verdict"] == "pass"

    done = testbed("exec", name, "nva1", "--", "true", check=False)
    assert done.status == 2
    assert "testbed ssh" in done.err
    kinds = testbed("fault", name, "nva1", "--list").out.split()
    assert {"crash", "freeze", "reboot", "link-down", "forwarding-off"} <= set(kinds)
    assert "cpu-hog" not in kinds  # nobody gets in


def test_down_without_state_ends_virtual_machines(lab: Callable[..., str], tmp_path: Path) -> None:
    """Who lives in the lab's namespaces belongs to it."""
    name = lab(document(tmp_path, stock.runtime()), time_scale=SCALE, wait=120)
    process = processes.identify(pid_of(name, "nva1"))
    for path in Path("/run/testbed", name).iterdir():
        path.unlink()
    testbed("down", name)
    assert not process.alive()


@pytest.mark.parametrize(
    ("runtime", "status", "words"),
    [
        ("{kind: vm, kernel: no-such-kernel}", 2, ("kernel", "no-such-kernel is not there")),
        ("{kind: vm, disk: no-such-disk.qcow2}", 2, ("disk", "no-such-disk.qcow2 is not there", "make images")),
        ("{kind: vm, disk: broken.qcow2}", 2, ("broken.qcow2", "qemu-img info")),
        ("{kind: vm, kernel: router.sh, initrd: router.sh, files: {/a: absent}}", 2, ("absent", "/a")),
        ("{kind: vm, kernel: router.sh}", 4, ("'nva1'", "QEMU ended at once")),
        ("{kind: vm, disk: empty.raw, accelerator: tcg, serial: no/such/folder/log}", 4, ("'nva1'", "no/such/folder")),
    ],
    ids=["no-kernel", "no-disk", "broken-disk", "no-file", "no-real-kernel", "no-log"],
)
def test_bad_virtual_machines_are_told(tmp_path: Path, runtime: str, status: int, words: tuple[str, ...]) -> None:
    """Each with the machine, the cause and what to do; and nothing of the lab is left."""
    (tmp_path / "broken.qcow2").write_bytes(b"QFI\xfb" + b"\xff" * 200)
    (tmp_path / "empty.raw").write_bytes(bytes(1 << 20))
    name = f"bad{os.getpid()}"
    done = testbed("up", document(tmp_path, runtime), "--lab", name, check=False)
    assert done.status == status, done.err
    for each in words:
        assert each in done.err
    assert "Traceback" not in done.err
    assert not Path("/run/testbed", name).exists()


def test_a_disk_that_does_not_boot_shows_its_console(tmp_path: Path) -> None:
    """The wait ends with what the serial console said last."""
    (tmp_path / "empty.raw").write_bytes(bytes(1 << 20))
    name = f"blank{os.getpid()}"
    path = document(tmp_path, "{kind: vm, disk: empty.raw, memory: 64M}", ready="ready: {tcp: 22}")
    done = testbed("up", path, "--lab", name, "--wait", "8", "--rollback", check=False)
    assert done.status == 1
    assert "tcp 22" in done.err
    assert "bootable" in done.err
    assert (tmp_path / "empty.raw").read_bytes() == bytes(1 << 20)
