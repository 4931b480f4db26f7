"""The command line as people use it: real labs, real processes, pipes, signals and users without rights."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT, TOPOLOGIES, Done, testbed

from testbed.deadline import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HUB_SPOKE = TOPOLOGIES / "hub-spoke.yaml"
ABSENT_LIBRARY = """
from testbed.kernel import nft
nft._LIBRARY = "libnftables-absent.so.9"
from testbed.cli import main
raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    """One lab for all tests that leave it as it was."""
    name = f"c{os.getpid()}"
    testbed("up", HUB_SPOKE, "--lab", name, "--time-scale", "0.02", "--wait", "30")
    yield name
    testbed("down", name)
    left = [each for folder in ("/run/netns", "/run/testbed") for each in Path(folder).glob(f"{name}*")]
    assert left == []


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "testbed", *map(str, words)]


def run(words: list[str], **options: Any) -> Done:
    """A command of any kind, with what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60, **options)
    return Done(done.returncode, done.stdout, done.stderr)


def answers(shared: str) -> dict[str, tuple[object, ...]]:
    """A good use of every verb that leaves the lab as it was."""
    return {
        "doctor": ("doctor",),
        "validate": ("validate", HUB_SPOKE),
        "schema": ("schema",),
        "plan": ("plan", HUB_SPOKE),
        "graph": ("graph", HUB_SPOKE, "--format", "dot"),
        "up": ("up", HUB_SPOKE, "--lab", shared, "--time-scale", "0.02", "--wait", "10"),
        "list": ("list",),
        "status": ("status", shared),
        "verify": ("verify", shared, "symmetry", "distribution", "--flows", "400"),
        "routes": ("routes", shared, "web1"),
        "security": ("security", shared, "web1"),
        "explain": ("explain", shared, "--from", "web1", "--to", "10.2.0.4"),
        "exec": ("exec", "--json", shared, "web1", "--", "echo", "hello"),
        "capture": ("capture", shared, "nva1", "-c", "1", "tcp", "port", "8080"),
        "events": ("events", shared),
        "fault": ("fault", shared, "nva1", "--list"),
        "down": ("down", "not-there"),
    }


KEYS = {
    "doctor": {"ready", "capabilities"},
    "validate": {"valid", "findings"},
    "schema": {"$schema", "properties"},
    "plan": {"lab", "time_scale", "objects"},
    "graph": {"format", "graph"},
    "up": {"lab", "time_scale", "changes", "applied"},
    "list": {"labs"},
    "status": {"lab", "time_scale", "controller", "machines", "load_balancers"},
    "verify": {"lab", "time_scale", "verdict", "checks"},
    "routes": {"lab", "machine", "effective_routes"},
    "security": {"lab", "machine", "effective_security_rules"},
    "explain": {"lab", "hops"},
    "exec": {"machine", "status", "stdout", "stderr"},
    "capture": {"machine", "interface", "file", "packets"},
    "fault": {"machine", "kinds"},
    "down": {"removed"},
}


@pytest.mark.parametrize("verb", KEYS)
def test_each_verb_answers_with_json_alone(shared: str, verb: str) -> None:
    """With ``--json`` standard output is one document with the promised keys."""
    name, *words = answers(shared)[verb]
    done = testbed(name, "--json", *[word for word in words if word != "--json"])
    assert KEYS[verb] <= set(done.json)


def test_events_are_json_lines(shared: str) -> None:
    """Every line is a document of its own, with its time and its kind."""
    lines = testbed("events", shared).out.splitlines()
    assert {"controller", "health", "update"} <= {json.loads(line)["event"] for line in lines}
    assert testbed("events", shared, "--json").out.splitlines()[: len(lines)] == lines


@pytest.mark.parametrize("verb", [*KEYS, "events"])
def test_each_verb_is_plain_without_a_terminal(shared: str, verb: str) -> None:
    """No colour, no progress: standard error stays empty, but for what tcpdump says."""
    done = testbed(*answers(shared)[verb])
    assert done.out
    assert "\033" not in done.out + done.err
    assert "\r" not in done.out + done.err
    assert done.err == "" or verb == "capture"


def test_up_says_what_it_did_and_what_comes_next(lab: Callable[..., str]) -> None:
    """A short summary: changes, machines, members with their state, the next commands; twice changes nothing."""
    name = lab("hub-spoke")
    lines = testbed("up", HUB_SPOKE, "--lab", name, "--time-scale", "0.02", "--wait", "10").out.splitlines()
    assert lines == [
        f"lab {name}: no changes",
        "  time scale 0.02, 5 machines: nva1, nva2, web1, web2, internet",
        "  nva-lb/fe 10.0.2.4: nva1 up, nva2 up",
        f"  next: testbed status {name}, testbed verify {name}, testbed down {name}",
    ]


def test_a_wait_that_is_in_vain(tmp_path: Path) -> None:
    """A member that never answers: status 1, who it is and what was seen last; the lab stays up."""
    name = f"c{os.getpid()}-vain"
    document = tmp_path / "mute.yaml"
    text = HUB_SPOKE.read_text()
    mute = text.replace("name: nva2\n    runtime: {kind: namespace, program: nft-firewall}", "name: nva2", 1)
    assert mute != text
    document.write_text(mute)
    words = ("up", document, "--lab", name, "--time-scale", "0.02", "--wait", "1")
    try:
        done = testbed(*words, check=False)
        assert done.status == 1
        assert "nva1" not in done.err
        assert "last seen: nva2 10.0.1.5: " in done.err
        assert f"fix: the lab stays up; look at it: testbed status {name}" in done.err
        master, terminal = pty.openpty()
        subprocess.run(command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal, check=False, timeout=60)
        os.close(terminal)
        shown = os.read(master, 65536).decode()
        os.close(master)
        assert "waiting for nva2 10.0.1.5: " in shown
        (balancer,) = testbed("status", name, "--json").json["load_balancers"]
        assert {each["machine"]: each["healthy"] for each in balancer["members"]} == {"nva1": True, "nva2": False}
    finally:
        testbed("down", name)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", -9), ("kill -15 $$", -15)]
)
def test_exec_passes_the_status_on(shared: str, script: str, status: int) -> None:
    """The command's end is ours, also by a signal; as JSON a signal is told as shells do."""
    words = (shared, "web1", "--", "sh", "-c", script)
    assert testbed("exec", *words, check=False).status == status
    done = testbed("exec", "--json", *words, check=False)
    told = status if status >= 0 else 128 - status
    assert (done.status, done.json["status"]) == (told, told)


def test_exec_connects_all_three_streams(shared: str) -> None:
    """Standard input reaches the command; its output comes out as it is, byte for byte; ``--json`` survives bytes."""
    words = ("exec", shared, "web1", "--", "sh", "-c", "cat; echo oops >&2")
    done = subprocess.run(command(*words), input=b"\xff\x00x", capture_output=True, cwd=ROOT, check=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"\xff\x00x", b"oops\n")
    done = subprocess.run(
        command("exec", "--json", *words[1:]), input=b"\xff", capture_output=True, cwd=ROOT, check=True, timeout=60
    )
    assert json.loads(done.stdout)["stdout"] == "\ufffd"


def test_exec_is_in_the_machine(shared: str) -> None:
    """The command sees the machine's addresses; 'fabric' is the fabric; options of the command are its own."""
    shown = testbed("exec", shared, "web1", "ip", "-json", "address", "show", "eth0").json
    assert "10.1.0.4" in [each["local"] for each in shown[0]["addr_info"]]
    assert "nva1-eth0" in testbed("exec", shared, "fabric", "--", "ip", "-br", "link").out


def test_a_command_that_is_not_there(shared: str) -> None:
    """Status 2 and the command's name, as text and as JSON."""
    done = testbed("exec", shared, "web1", "--", "no-such-command", check=False)
    assert (done.status, done.out) == (2, "")
    assert "there is no command 'no-such-command'" in done.err
    done = testbed("exec", "--json", shared, "web1", "--", "/etc/passwd", check=False)
    assert done.status == 2
    assert "'/etc/passwd' cannot be run: permission denied" in done.json["error"]["message"]
    assert testbed("exec", shared, "web1", check=False).status == 2


def in_web1(shared: str) -> Callable[[str, str], bool]:
    """Whether ``tail`` runs in the machine by now."""

    def ready(_out: str, _err: str) -> bool:
        pids = run(["ip", "netns", "pids", f"{shared}-web1"]).out.split()
        return any(Path(f"/proc/{pid}/comm").read_text() == "tail\n" for pid in pids)

    return ready


def interrupted(words: tuple[object, ...], ready: Callable[[str, str], bool], tmp_path: Path) -> Done:
    """Run a command, wait until its output is ``ready``, press Ctrl-C, wait for its end."""
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as to_out, err.open("w") as to_err:
        process = subprocess.Popen(command(*words), cwd=ROOT, stdout=to_out, stderr=to_err, start_new_session=True)
    try:
        wait_for(f"{words} is ready", lambda: ready(out.read_text(), err.read_text()), seconds=20)
        os.killpg(process.pid, signal.SIGINT)
        status = process.wait(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return Done(status, out.read_text(), err.read_text())


def test_events_are_followed_until_ctrl_c(shared: str, tmp_path: Path) -> None:
    """What happens later is printed at once; Ctrl-C ends it with 130, whole lines and no other word."""
    before = len(testbed("events", shared).out.splitlines())
    injected = False

    def ready(out: str, _err: str) -> bool:
        nonlocal injected
        lines = out.splitlines()
        if len(lines) >= before and not injected:
            injected = True
            testbed("fault", shared, "nva1", "probe-down")
        return any(json.loads(line).get("action") == "inject" for line in lines[before:])

    try:
        done = interrupted(("events", shared, "--follow"), ready, tmp_path)
    finally:
        testbed("fault", shared, "nva1", "--clear")
    assert (done.status, done.err) == (130, "")
    assert all(json.loads(line) for line in done.out.splitlines())


def test_ctrl_c_ends_the_command_of_exec(shared: str, tmp_path: Path) -> None:
    """Ctrl-C belongs to the command, which may handle it in its own way."""
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(9))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    words = (shared, "web1", "--", sys.executable, "-c", script)
    done = interrupted(("exec", *words), lambda out, _: "ready" in out, tmp_path)
    assert (done.status, done.out, done.err) == (9, "ready\n", "")
    done = interrupted(("exec", shared, "web1", "--", "tail", "-f", "/dev/null"), in_web1(shared), tmp_path)
    assert (done.status, done.out, done.err) == (-signal.SIGINT, "", "")


def test_a_capture_ends_with_a_whole_file(shared: str, tmp_path: Path) -> None:
    """Ctrl-C ends a capture well: status 0, and the file holds whole packets of the filter."""
    file = tmp_path / "probes.pcap"
    words = ("capture", shared, "nva1", "-w", file, "tcp", "port", "8080")

    done = interrupted(words, lambda _out, _err: file.exists() and file.stat().st_size > 1000, tmp_path)
    assert (done.status, done.out) == (0, "")
    packets = run(["tcpdump", "-n", "-r", str(file)]).out.splitlines()
    assert packets
    assert all("168.63.129.16" in packet for packet in packets)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nva1", "not", "a", "filter"), "tcpdump refuses: can't parse filter expression"),
        (("nva1", "-i", "eth7"), "'nva1' has no network interface 'eth7'"),
        (("nva7",), "has no machine 'nva7'"),
        (("nva1", "-w", "/no/such/folder/x.pcap"), "/no/such/folder/x.pcap cannot be written"),
        (("nva1", "-w", "-", "--json"), "both want standard output"),
        (("nva1", "-c", "0"), "'0' is not a number of packets"),
    ],
)
def test_captures_that_cannot_be(shared: str, words: tuple[str, ...], message: str) -> None:
    """A capture that cannot be is the user's input: status 2, and what is wrong."""
    done = testbed("capture", shared, *words, check=False)
    told = done.json["error"]["message"] if "--json" in words else done.err
    assert done.status == 2
    assert message in told


def test_what_is_not_there_is_named(shared: str) -> None:
    """An unknown lab or machine: status 2, and the names that there are."""
    for verb, *words in (["status"], ["verify"], ["events"], ["routes", "web1"], ["exec", "web1", "--", "true"]):
        done = testbed(verb, "no-lab", *words, check=False)
        assert done.status == 2
        assert "there is no lab 'no-lab'" in done.err
        assert shared in done.err
    for words in (["routes", shared, "x"], ["fault", shared, "x", "crash"], ["explain", shared, "--from=x", "--to=::"]):
        done = testbed(*words[:-1], words[-1].replace("::", "10.2.0.4"), check=False)
        assert done.status == 2
        assert f"lab {shared!r} has no machine 'x'" in done.err
        assert "machines: nva1, nva2, web1, web2, internet" in done.err


def test_a_lab_that_is_not_there_is_down_already() -> None:
    """``down`` of an unknown lab is fine, and says so; a name that no lab can have is refused."""
    done = testbed("down", "no-lab")
    assert "lab no-lab: is not there, nothing to remove" in done.out
    assert testbed("down", "no-lab", "--json").json == {"removed": {}}
    assert testbed("down", "../etc", check=False).status == 2


def test_a_lab_of_another_document_is_left_alone(shared: str) -> None:
    """The same name from another document: status 2, where the lab is from, nothing changed."""
    done = testbed("up", TOPOLOGIES / "hub-spoke-scale.yaml", "--lab", shared, check=False)
    assert done.status == 2
    assert f"is up, made from {HUB_SPOKE}; nothing was changed" in done.err
    assert "no changes" in testbed("up", HUB_SPOKE, "--lab", shared, "--time-scale", "0.02").out


def test_a_lab_in_pieces_is_shown_as_it_is(lab: Callable[..., str]) -> None:
    """Dead controller, lost namespace, damaged and lost state are told; ``down`` removes all of it."""
    name = lab("hub-spoke")
    os.kill(testbed("status", name, "--json").json["controller"]["pid"], signal.SIGKILL)
    wait_for("the controller is dead", lambda: "dead (the data plane stays" in testbed("status", name).out, seconds=10)
    assert testbed("status", name, "--json").json["controller"]["alive"] is False
    subprocess.run(["ip", "netns", "delete", f"{name}-web1"], check=True)
    shown = testbed("status", name).out
    assert f"{name}-web1 gone" in shown
    assert f"{name}-web2 gone" not in shown
    done = testbed("exec", name, "web1", "--", "true", check=False)
    assert done.status == 4
    assert f"network namespace '{name}-web1' is gone" in done.err
    record = Path(f"/run/testbed/{name}/lab.json")
    record.write_text("{")
    assert testbed("status", name, check=False).status == 4
    (row,) = [each for each in testbed("list", "--json").json["labs"] if each["lab"] == name]
    assert (row["namespaces"], row["controller"], row["document"]) == (5, False, None)
    assert f"its state is lost; remove it: testbed down {name}" in testbed("list").out
    record.unlink()
    done = testbed("status", name, check=False)
    assert done.status == 2
    assert f"lab {name!r} has lost its state" in done.err
    assert f"testbed down {name}" in done.err
    assert f"lab {name}: removed" in testbed("down", name).out


def test_verify_tells_why_it_failed(lab: Callable[..., str]) -> None:
    """No member gets flows: status 1, reasons, examples of flows, and the verdict in the last line."""
    name = lab("hub-spoke")
    testbed("exec", name, "fabric", "--", "nft", "insert", "rule", "ip", "testbed", "rule_1", "drop")
    done = testbed("verify", name, "symmetry", "--flows", "300", check=False)
    assert done.status == 1
    assert "symmetry      FAIL" in done.out
    assert "because 300 of 300 flows got no answer" in done.out
    assert "e.g. " in done.out
    assert done.out.splitlines()[-1] == f"FAIL: lab {name}, 1 of 1 check failed"


#: A user who may read every file, wherever the interpreter is, and nothing else.
NOBODY = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search", "--"),
]


@pytest.mark.parametrize("verb", ["validate", "schema", "plan", "graph", "routes", "events"])
def test_what_a_user_without_rights_can_do(shared: str, verb: str) -> None:
    """Documents are checked, drawn and planned, and what is on disk is read, without root."""
    done = run([*NOBODY, *command(*answers(shared)[verb])])
    assert (done.status, done.err) == (0, "")
    assert done.out


@pytest.mark.parametrize(
    "words",
    [
        ("up", HUB_SPOKE),
        ("down", "LAB"),
        ("down", "--all"),
        ("list",),
        ("status", "LAB"),
        ("verify", "LAB"),
        ("explain", "LAB", "--from", "web1", "--to", "10.2.0.4"),
        ("exec", "LAB", "web1", "--", "true"),
        ("capture", "LAB", "nva1", "-c", "1"),
        ("fault", "LAB", "nva1", "crash"),
        ("fault", "LAB", "nva1", "--clear"),
        ("doctor",),
    ],
    ids=lambda words: " ".join(map(str, words[:2])).replace(f"{TOPOLOGIES}/", ""),
)
def test_what_a_user_without_rights_cannot_do(shared: str, words: tuple[object, ...]) -> None:
    """Everything else ends with status 3 and the way out, as text and as JSON, and changes nothing."""
    verb, *rest = [shared if word == "LAB" else word for word in words]
    done = run([*NOBODY, *command(verb, *rest)])
    assert done.status == 3
    assert "Traceback" not in done.err
    assert "sudo" in done.out + done.err
    done = run([*NOBODY, *command(verb, "--json", *rest)])
    assert (done.status, done.err) == (3, "")
    assert "sudo" in json.dumps(done.json)
    assert all(not each["faults"] for each in testbed("status", shared, "--json").json["machines"])


def test_tools_that_are_missing(shared: str) -> None:
    """Without tcpdump or libnftables: status 3, and the package that brings it; a started lab is gone again."""
    done = run(command("capture", shared, "nva1", "-c", "1"), env=os.environ | {"PATH": "/nowhere"})
    assert (done.status, done.out) == (3, "")
    assert "fix: apt-get install tcpdump" in done.err
    words = ["up", str(HUB_SPOKE), "--lab", f"c{os.getpid()}-nft"]
    done = run([sys.executable, "-c", ABSENT_LIBRARY, *words])
    assert done.status == 3
    assert "libnftables-absent.so.9 is not installed" in done.err
    assert "fix: apt-get install nftables" in done.err
    assert len(done.err.splitlines()) <= 4  # names the step, and does not print a ruleset


def test_sigterm_during_up_leaves_nothing() -> None:
    """A CI that stops the job gets a clean machine back, and the status that shells give SIGTERM."""
    name = f"term{os.getpid()}"
    command = [sys.executable, "-m", "testbed", "up", str(TOPOLOGIES / "hub-spoke.yaml"), "--lab", name]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT) as process:
        wait_for(
            "the lab is being made", lambda: Path(f"/run/netns/{name}-fabric").exists(), seconds=20, interval=0.001
        )
        process.terminate()
        assert process.wait(20) == 143
    assert not list(Path("/run/netns").glob(f"{name}-*"))
    assert not Path(f"/run/testbed/{name}").exists()
