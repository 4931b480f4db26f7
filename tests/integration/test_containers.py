"""Containers as machines: stock images, restarts, removals, an engine that goes away, and clear words for all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT, inside, testbed
from engine import OwnEngine, need_busybox

from testbed.deadline import wait_for
from testbed.errors import LabError
from testbed.images import engine
from testbed.lab.down import down
from testbed.lab.up import up
from testbed.probes import events
from testbed.runtimes.container import LAB_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker.models.containers import Container

    from testbed.lab.changes import Change

FORWARDS = "sysctls: {net.ipv4.ip_forward: 1}"
#: Answers every probe and stays; BusyBox's own shell is all it takes.
SERVE = "command: [sh, -c, 'mkdir -p /www && echo ok > /www/health && exec httpd -f -p 8080 -h /www']"


@pytest.fixture(autouse=True)
def no_containers_left() -> Iterator[None]:
    """After each test the engine has no container of a lab, and no disk is left."""
    yield
    with closing(engine()) as client:
        assert client.containers.list(all=True, filters={"label": LAB_LABEL}) == []
    assert not Path("/var/tmp/testbed").exists()


def document(folder: Path, *machines: str, name: str = "stock", image: str = "") -> Path:
    """A hub with an NVA subnet behind a balancer and two spokes; the machines' own lines are given."""
    text = (ROOT / "topologies" / "hub-spoke.yaml").read_text()
    head, _, tail = text.partition("machines:\n")
    web = tail[tail.index("  - name: web1") : tail.index("internet:")]  # a stock image translates no sources
    own = "".join(
        f"""\
  - name: nva{number}
    runtime: {{kind: container, image: "{image or need_busybox()}", {lines}}}
    network_interfaces:
      - subnet: hub/nva
        private_ip_address: 10.0.1.{3 + number}
        enable_ip_forwarding: true
        backend_address_pools: [nva-lb/nvas]
"""
        for number, lines in enumerate(machines, 1)
    )
    path = folder / f"{name}.yaml"
    path.write_text(head.replace("name: hub-spoke", f"name: {name}", 1) + "machines:\n" + own + web)
    return path


def container(lab: str, machine: str) -> Container:
    with closing(engine()) as client:
        found: Container = client.containers.get(f"testbed-{lab}-{machine}")
        return found


def happened(lab: str, event: str, **fields: object) -> bool:
    """Whether an event with these fields is in the lab's record."""
    return any(
        each.event == event and all(each.fields.get(key) == value for key, value in fields.items())
        for each in events.read(f"/run/testbed/{lab}")
    )


def states(lab: str) -> dict[str, str]:
    return {each["name"]: each["state"] for each in testbed("status", lab, "--json").json["machines"]}


@pytest.fixture
def stock(lab: Callable[..., str], tmp_path: Path) -> str:
    """A lab whose two NVAs are containers of a stock image that nobody has prepared."""
    lines = f"{FORWARDS}, {SERVE}"
    return lab(document(tmp_path, lines, lines))


def test_a_stock_image_is_an_nva(stock: str) -> None:
    """Both directions of every flow cross the same container; NICs, addresses, routes and MTU are as the plan says."""
    report = testbed("verify", stock, "symmetry", "distribution", "--json").json
    assert report["verdict"] == "pass"
    shown = testbed("exec", stock, "nva1", "--", "ip", "address", "show", "eth0").out
    assert "10.0.1.4/24" in shown
    assert "mtu 1500" in shown
    assert "default via 10.0.1.1" in testbed("exec", stock, "nva1", "--", "ip", "route").out
    attributes = container(stock, "nva1").attrs
    assert attributes["HostConfig"]["Privileged"] is False
    assert attributes["HostConfig"]["NetworkMode"] == "none"
    assert sorted(attributes["HostConfig"]["CapAdd"]) == ["NET_ADMIN", "NET_RAW"]


def test_checksums_are_whole_on_the_way_into_a_container(stock: str) -> None:
    """What a stack in user space sees is what was sent: the fabric's end finishes checksums."""
    assert "tx-checksumming: off" in inside(f"{stock}-fabric", "ethtool", "-k", "nva1-eth0")
    assert "tx-checksumming: on" in inside(f"{stock}-fabric", "ethtool", "-k", "web1-eth0")


@pytest.mark.parametrize("kind", ["crash", "freeze", "link-down", "probe-down", "probe-silent"])
def test_failover_of_containers(stock: str, kind: str) -> None:
    """Each fault is noticed, and what is left of the flows is as Azure has it; clearing brings the member back."""
    (check,) = testbed("verify", stock, "failover", "--fault", kind, "--json").json["checks"]
    assert check["verdict"] == "pass"
    assert check["old_tcp"]["reset"] == 0
    assert states(stock)["nva1"] == "running"
    assert testbed("verify", stock, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"


def test_a_broken_data_path_behind_a_good_probe_is_exposed(stock: str) -> None:
    """Forwarding off, management alive: the probe goes on to succeed, flows are lost, and the check says so."""
    testbed("fault", stock, "nva1", "forwarding-off")
    report = testbed("verify", stock, "symmetry", "--flows", "400", "--json", check=False).json
    assert report["verdict"] == "fail"
    assert 100 < report["checks"][0]["lost"] < 300
    assert inside(f"{stock}-fabric", "true") == ""
    members = testbed("status", stock, "--json").json["load_balancers"][0]["members"]
    assert all(each["healthy"] for each in members)
    testbed("fault", stock, "nva1", "--clear")
    assert testbed("verify", stock, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"


def test_a_restart_gets_its_network_interfaces_back(stock: str) -> None:
    """By hand and by the fault: the engine says so, and the keeper wires the container again."""
    container(stock, "nva1").restart(timeout=0)
    wait_for("nva1 is wired again", lambda: happened(stock, "container", machine="nva1", state="wired"), seconds=20)
    assert "10.0.1.4/24" in testbed("exec", stock, "nva1", "--", "ip", "address", "show", "eth0").out
    testbed("fault", stock, "nva2", "reboot")
    wait_for("nva2 is wired again", lambda: happened(stock, "container", machine="nva2", state="wired"), seconds=20)
    assert testbed("up", Path(f"/run/testbed/{stock}/topology.yaml"), "--lab", stock, "--time-scale", "0.02",
                   "--wait", "30", check=False).status in (0, 2)  # fmt: skip
    wait_healthy(stock)
    assert testbed("verify", stock, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"


def test_a_network_security_group_holds_for_a_container(lab: Callable[..., str], tmp_path: Path) -> None:
    """What a group denies does not get in, also not after a restart; probes that it denies are missed."""
    path = document(tmp_path, f"{FORWARDS}, {SERVE}")
    text = path.read_text().replace("10.0.1.0/24}", "10.0.1.0/24, network_security_group: nvas}", 1)
    rule = "{name: closed, priority: 100, direction: Inbound, access: Deny, protocol: Icmp}"
    path.write_text(f"{text}network_security_groups: [{{name: nvas, security_rules: [{rule}]}}]\n")
    name = lab(path)

    def answers() -> bool:
        return testbed("exec", name, "web1", "--", "ping", "-c", "1", "-W", "1", "10.0.1.4", check=False).status == 0

    assert not answers()
    testbed("fault", name, "nva1", "reboot")
    wait_for("nva1 is wired again", lambda: happened(name, "container", machine="nva1", state="wired"), seconds=20)
    wait_healthy(name)
    assert not answers()
    path.write_text(
        path.read_text().replace("protocol: Icmp", "protocol: Tcp, source_address_prefix: AzureLoadBalancer")
    )
    testbed("up", path, "--lab", name, "--time-scale", "0.02")
    assert answers()
    wait_for("its probes are missed", lambda: not member_up(name), seconds=20)


def member_up(lab: str) -> bool:
    (member,) = testbed("status", lab, "--json").json["load_balancers"][0]["members"]
    return bool(member["healthy"])


def wait_healthy(lab: str) -> None:
    def all_up() -> bool:
        members = testbed("status", lab, "--json").json["load_balancers"][0]["members"]
        return all(each["healthy"] for each in members)

    wait_for("all members are up", all_up, seconds=30)


def test_a_fault_on_the_wire_outlives_a_restart(stock: str) -> None:
    """A new network namespace does not heal what was broken on purpose."""
    testbed("fault", stock, "nva1", "probe-silent")
    container(stock, "nva1").restart(timeout=0)
    wait_for("nva1 is wired again", lambda: happened(stock, "container", machine="nva1", state="wired"), seconds=20)
    assert "drop" in inside(f"{stock}-nva1", "nft", "list", "table", "netdev", "testbed_fault")
    testbed("fault", stock, "nva1", "--clear")
    wait_healthy(stock)


def test_a_dead_container_forwards_nothing(stock: str) -> None:
    """Killed behind the lab's back: what is left of it in the kernel is unplugged."""
    container(stock, "nva1").kill()
    wait_for("the keeper hears of it", lambda: happened(stock, "container", machine="nva1", state="die"), seconds=20)
    wait_for(
        "it is unplugged", lambda: "state DOWN" in inside(f"{stock}-nva1", "ip", "link", "show", "eth0"), seconds=20
    )
    assert states(stock)["nva1"] == "exited"


def test_a_container_removed_by_hand_comes_back(stock: str, tmp_path: Path) -> None:
    """Status says that it is gone, and ``up`` makes it again."""
    container(stock, "nva2").remove(force=True)
    assert states(stock)["nva2"] == "gone"
    testbed("up", tmp_path / "stock.yaml", "--lab", stock, "--time-scale", "0.02", "--wait", "30")
    assert states(stock)["nva2"] == "running"
    assert testbed("verify", stock, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"


def test_a_changed_runtime_is_applied_to_that_machine_alone(stock: str, tmp_path: Path) -> None:
    """Another environment means another container; the other machine keeps its process."""
    before = {each["name"]: each["pid"] for each in testbed("status", stock, "--json").json["machines"]}
    path = tmp_path / "stock.yaml"
    path.write_text(path.read_text().replace(FORWARDS, f"{FORWARDS}, environment: {{COLOUR: blue}}", 1))
    out = testbed("up", path, "--lab", stock, "--time-scale", "0.02", "--wait", "30").out
    assert "+1 container" in out
    after = {each["name"]: each["pid"] for each in testbed("status", stock, "--json").json["machines"]}
    assert {name for name in before if before[name] != after[name]} == {"nva1"}
    assert "COLOUR=blue" in testbed("exec", stock, "nva1", "--", "env").out
    assert testbed("up", path, "--lab", stock, "--time-scale", "0.02").out.startswith(f"lab {stock}: no changes")


def test_a_container_can_become_a_namespace_and_back(stock: str, tmp_path: Path) -> None:
    """The document decides what a machine is made of, at any time."""
    path = tmp_path / "stock.yaml"
    text = path.read_text()
    first = text.index("runtime: {kind: container")
    line = text[first : text.index("\n", first)]
    path.write_text(text.replace(line, "runtime: {kind: namespace, program: nft-firewall}", 1))
    testbed("up", path, "--lab", stock, "--time-scale", "0.02", "--wait", "30")
    assert testbed("verify", stock, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"
    path.write_text(text)
    testbed("up", path, "--lab", stock, "--time-scale", "0.02", "--wait", "30")
    assert testbed("verify", stock, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"


def test_two_labs_of_one_image(stock: str, lab: Callable[..., str], tmp_path: Path) -> None:
    """Side by side, and the end of one is nothing to the other."""
    lines = f"{FORWARDS}, {SERVE}"
    other = lab(document(tmp_path, lines, lines, name="other"), name=f"{stock}-too")
    testbed("down", other)
    assert states(stock)["nva1"] == "running"
    assert testbed("verify", stock, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"


def test_down_without_state_removes_containers(stock: str) -> None:
    """Their label is enough."""
    subprocess.run(["rm", "-r", f"/run/testbed/{stock}"], check=True)
    assert stock in testbed("down", stock).out
    with closing(engine()) as client:
        assert client.containers.list(all=True, filters={"label": f"{LAB_LABEL}={stock}"}) == []


def test_exec_in_a_container(stock: str) -> None:
    """Its own files and rights, exit status, both streams, and standard input."""
    done = testbed("exec", stock, "nva1", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.status, done.out, done.err) == (7, "out\n", "err\n")
    answer = testbed("exec", stock, "nva1", "--json", "--", "cat", "/www/health").json
    assert (answer["status"], answer["stdout"]) == (0, "ok\n")
    assert testbed("exec", stock, "nva1", "--", "no-such-command", check=False).status in (126, 127)
    fed = subprocess.run(
        [*("python3", "-m", "testbed"), "exec", stock, "nva1", "--", "cat"],
        input="fed\n" * 20_000, capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | PYTHON,
    )  # fmt: skip
    assert fed.stdout == "fed\n" * 20_000


PYTHON = {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}


def test_configure_and_ready(lab: Callable[..., str], tmp_path: Path) -> None:
    """Steps run in an unprepared container, again after each restart and not otherwise; ready waits for all of it."""
    path = document(tmp_path, f"{FORWARDS}, command: [sleep, '600']", f"{FORWARDS}, {SERVE}")
    (tmp_path / "page.j2").write_text("{{ machine.name }} of {{ lab }} in {{ trusted_prefixes | length }} networks\n")
    steps = """
    configure:
      - {commands: [mkdir -p /www, echo once >> /www/count]}
      - {template: page.j2, path: /www/health, mode: "0600"}
      - {content: "httpd -p {{ 8080 }} -h /www\\n", path: /tmp/serve, mode: "0755"}
      - {commands: ["sh /tmp/serve"]}
    ready: {tcp: 8080, http: "http://:8080/health"}
    diagnostics: [cat /www/count, ip route]
"""
    text = path.read_text()
    end = text.index("  - name: nva2")
    path.write_text(text[:end].rstrip() + steps + text[end:])
    name = lab(path)
    assert testbed("exec", name, "nva1", "--", "cat", "/www/health").out == f"nva1 of {name} in 3 networks\n"
    testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "30")
    assert testbed("exec", name, "nva1", "--", "cat", "/www/count").out == "once\n"
    container(name, "nva1").restart(timeout=0)

    def twice() -> bool:
        return testbed("exec", name, "nva1", "--", "cat", "/www/count", check=False).out == "once\n" * 2

    wait_for("the steps are repeated", twice, seconds=30)
    wait_healthy(name)
    testbed("fault", name, "nva1", "forwarding-off")
    report = testbed("verify", name, "symmetry", "--flows", "200", "--json", check=False).json
    assert report["verdict"] == "fail"
    assert "once" in report["diagnostics"]["nva1"]
    assert "default via 10.0.1.1" in report["diagnostics"]["nva1"]


def test_an_image_of_ones_own_with_a_health_check(tmp_path: Path) -> None:
    """``build`` takes a folder beside the document; ``container_health`` waits for what its HEALTHCHECK says."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        f"FROM {need_busybox()}\n"
        'ENTRYPOINT ["sh", "-c", "mkdir -p /www && echo ok > /www/health && exec httpd -f -p 8080 -h /www"]\n'
        'HEALTHCHECK --interval=1s CMD ["cat", "/tmp/healthy"]\n'
    )
    path = document(tmp_path, FORWARDS, name="own", image="replaced")
    text = path.read_text().replace('image: "replaced"', "build: mine")
    path.write_text(text.replace("  - name: web1", "    ready: {container_health: true}\n  - name: web1"))
    name = f"own{os.getpid()}"
    done = testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "2", check=False)
    try:
        assert done.status == 1
        assert "container health: starting" in done.err
        testbed("exec", name, "nva1", "--", "sh", "-c", "echo > /tmp/healthy")
        testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "30")
    finally:
        testbed("down", name)
        with closing(engine()) as client:
            for image in client.images.list("testbed/mine"):
                client.images.remove(str(image.id), force=True)


def test_a_time_out_shows_what_was_seen_last(tmp_path: Path) -> None:
    """The condition, its last state and the end of the log are told; the lab stays unless --rollback says otherwise."""
    path = document(tmp_path, f"{FORWARDS}, command: [sh, -c, 'echo I am here; exec sleep 600']")
    path.write_text(
        path.read_text().replace("  - name: web1", '    ready: {tcp: 9999, log: "never said"}\n  - name: web1')
    )
    name = f"late{os.getpid()}"
    done = testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "2", check=False)
    try:
        assert done.status == 1
        for words in ("nva1", "tcp 9999: connection refused", "log /never said/: not seen", "I am here", "stays up"):
            assert words in done.err
        assert states(name)["nva1"] == "running"
        done = testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "1", "--rollback", check=False)
        assert done.status == 1
        assert "removed" in done.err
        assert not Path("/run/testbed", name).exists()
    finally:
        testbed("down", name)


@pytest.mark.parametrize(
    ("image", "lines", "status", "words"),
    [
        ("no-such-image:1", FORWARDS, 2, ("'no-such-image:1' is not there", "cannot be pulled", "docker load")),
        ("Not/A:Name", FORWARDS, 2, ("'Not/A:Name'",)),
        ("", "command: [sh, -c, 'echo my last words; exit 3']", 4, ("'nva1'", "my last words", "Exited (3)")),
        ("", "command: [no-such-program]", 4, ("'nva1'", "no-such-program")),
        ("", f"{SERVE}, mounts: [{{source: no-such-file, target: /x}}]", 2, ("no-such-file", "/x")),
        ("", f"{SERVE}, capabilities: [NO_SUCH_CAPABILITY]", 4, ("NO_SUCH_CAPABILITY",)),
        ("", f"{SERVE}, sysctls: {{net.no.such: 1}}", 4, ("net.no.such",)),
        ("", f"{SERVE}, memory: 1M", 4, ("memory",)),
    ],
    ids=["no-image", "no-name", "ends", "no-program", "no-mount", "no-capability", "no-sysctl", "little-memory"],
)
def test_bad_containers_are_told(tmp_path: Path, image: str, lines: str, status: int, words: tuple[str, ...]) -> None:
    """Each with the machine, the cause and what to do; and nothing of the lab is left."""
    path = document(tmp_path, lines, image=image)
    name = f"bad{os.getpid()}"
    done = testbed("up", path, "--lab", name, check=False)
    assert done.status == status, done.err
    for each in (*words, "fix:"):
        assert each in done.err
    assert "Traceback" not in done.err
    assert not Path("/run/testbed", name).exists()


def test_a_foreign_container_is_not_touched(tmp_path: Path) -> None:
    """A container that happens to have the name is told of, and left alone."""
    name = f"alien{os.getpid()}"
    with closing(engine()) as client:
        alien = client.containers.create(need_busybox(), ["sleep", "60"], name=f"testbed-{name}-nva1")
        try:
            done = testbed("up", document(tmp_path, SERVE), "--lab", name, check=False)
            assert done.status == 4
            assert f"testbed-{name}-nva1" in done.err
            alien.reload()
            assert alien.status == "created"
        finally:
            alien.remove(force=True)


def test_a_failing_step_leaves_nothing(tmp_path: Path) -> None:
    """Whatever step of ``up`` fails round a container: the container goes again with all the rest."""
    path = document(tmp_path, f"{FORWARDS}, {SERVE}")
    name = f"step{os.getpid()}"
    steps = [type(change.object).__name__ for change in up(path, lab=name).changes]
    down(name)
    first = steps.index("Instance")
    chosen = {first, first + 1, steps.index("Veth"), steps.index("NoChecksumOffload"), steps.index("Keeper")}
    for place in sorted(chosen):
        seen: list[Change] = []

        def checkpoint(change: Change, place: int = place, seen: list[Change] = seen) -> None:
            seen.append(change)
            if len(seen) > place:
                raise LabError("as the test wants it")

        with pytest.raises(LabError, match="as the test wants it"):
            up(path, lab=name, checkpoint=checkpoint)
        assert not Path("/run/testbed", name).exists()
        with closing(engine()) as client:
            assert client.containers.list(all=True, filters={"label": f"{LAB_LABEL}={name}"}) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_up_that_is_ended_at_any_moment_can_be_removed(tmp_path: Path, number: signal.Signals) -> None:
    """What it leaves is found by its marks, a container that was just being made too."""
    path = document(tmp_path, *[f"{FORWARDS}, {SERVE}"] * 4)
    name = f"cut{os.getpid()}"
    for tenths in (4, 6, 8, 10, 12):
        words = [*("python3", "-m", "testbed", "up"), str(path), "--lab", name]
        child = subprocess.Popen(words, cwd=ROOT, env=os.environ | PYTHON, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(tenths / 10)
        child.send_signal(number)
        child.wait(60)
        testbed("down", name)
        with closing(engine()) as client:
            assert client.containers.list(all=True, filters={"label": f"{LAB_LABEL}={name}"}) == []


@pytest.fixture
def own_engine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    """An engine that a test may end."""
    made = OwnEngine(tmp_path_factory.mktemp("engine"))
    made.start()
    monkeypatch.setenv("DOCKER_HOST", made.host)
    yield made
    made.remove()


def test_an_engine_that_dies_and_comes_back(own_engine: OwnEngine, tmp_path: Path) -> None:
    """Status tells of it, traffic goes on, and when it is back its restarts are heard again."""
    lines = f"{FORWARDS}, {SERVE}"
    name = f"orphan{os.getpid()}"
    path = document(tmp_path, lines, lines)
    testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "60")
    own_engine.stop(signal.SIGKILL)
    wait_for("the keeper notices", lambda: happened(name, "engine", state="away"), seconds=20)
    machines = {each["name"]: each for each in testbed("status", name, "--json").json["machines"]}
    assert machines["nva1"]["state"] == "running"
    assert "does not answer" in machines["nva1"]["detail"]
    assert testbed("verify", name, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"
    own_engine.start()
    wait_for("the keeper hears it again", lambda: happened(name, "engine", state="back"), seconds=30)
    wait_for("containers are up", lambda: set(states(name).values()) <= {"running", "exited"}, seconds=30)
    testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "60")
    assert testbed("verify", name, "symmetry", "--flows", "400", "--json").json["verdict"] == "pass"
    testbed("down", name)


def test_down_while_the_engine_is_dead(own_engine: OwnEngine, tmp_path: Path) -> None:
    """All that runs is ended and the network is gone; what only the engine can remove is told, and goes later."""
    name = f"stranded{os.getpid()}"
    testbed("up", document(tmp_path, SERVE), "--lab", name, "--time-scale", "0.02", "--wait", "60")
    pid = json.loads(Path("/run/testbed", name, "processes.json").read_text())["nva1"]["pid"]
    own_engine.stop(signal.SIGKILL)
    done = testbed("down", name, check=False)
    assert done.status == 4
    assert "does not answer" in done.err
    assert f"testbed down {name}" in done.err
    assert not Path(f"/proc/{pid}").exists()
    assert not Path("/run/netns", f"{name}-nva1").exists()
    own_engine.start()
    testbed("down", name)
    with closing(engine()) as client:
        assert client.containers.list(all=True) == []
    assert not Path("/run/testbed", name).exists()


def test_a_politely_restarted_engine(own_engine: OwnEngine, tmp_path: Path) -> None:
    """It ends its containers; ``up`` starts them again, with what they had."""
    name = f"polite{os.getpid()}"
    path = document(tmp_path, f"{FORWARDS}, {SERVE}")
    testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "60")
    testbed("exec", name, "nva1", "--", "sh", "-c", "echo kept > /etc/kept")
    own_engine.stop()
    own_engine.start()
    assert states(name)["nva1"] == "exited"
    testbed("up", path, "--lab", name, "--time-scale", "0.02", "--wait", "60")
    assert testbed("exec", name, "nva1", "--", "cat", "/etc/kept").out == "kept\n"
    testbed("down", name)


def test_without_an_engine_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine lacks something: status 3, and how to start it."""
    path = document(tmp_path, SERVE)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    done = testbed("up", path, check=False)
    assert done.status == 3
    assert "does not answer" in done.err
    monkeypatch.delenv("DOCKER_HOST")


def keeper_pid(lab: str) -> Any:
    return testbed("status", lab, "--json").json["keeper"]["pid"]


def test_a_dead_keeper_is_told_and_replaced(stock: str, tmp_path: Path) -> None:
    """``status`` says what it means, and ``up`` starts another one, without touching a container."""
    pid = keeper_pid(stock)
    os.kill(pid, signal.SIGKILL)
    wait_for("it is gone", lambda: keeper_pid(stock) is None, seconds=10)
    assert "keeper dead" in testbed("status", stock).out
    out = testbed("up", tmp_path / "stock.yaml", "--lab", stock, "--time-scale", "0.02").out
    assert out.startswith(f"lab {stock}: +1 keeper\n")
    container(stock, "nva1").restart(timeout=0)
    wait_for("nva1 is wired again", lambda: happened(stock, "container", machine="nva1", state="wired"), seconds=20)


def test_busy_loops_are_the_containers_own_and_end(stock: str) -> None:
    """``cpu-hog`` runs in the container, not beside it, and clearing ends every loop."""

    def loops() -> int:
        status = container(stock, "nva1").top()
        return sum("while :" in " ".join(row) and "timeout" not in " ".join(row) for row in status["Processes"])

    testbed("fault", stock, "nva1", "cpu-hog")
    assert loops() == (os.cpu_count() or 1) + 1
    testbed("fault", stock, "nva1", "--clear")
    wait_for("all loops have ended", lambda: loops() == 0, seconds=10)
