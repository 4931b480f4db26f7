"""Configure steps, readiness and diagnostics, of machines with SSH and of namespaces."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest
from access_rig import ADDRESS, PASSWORD, Rig, cabled, greet, machine, sources

from testbed.access.configure import run_steps
from testbed.access.diagnostics import collect
from testbed.access.ready import conditions, pending
from testbed.access.secrets import Secrets
from testbed.access.transport import Answer, NamespaceTransport
from testbed.errors import DeadlineError, InputError, LabError
from testbed.kernel import namespaces, processes
from testbed.nodes.certificate import server_context
from testbed.topology.runtimes import Ready

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with cabled(tmp_path) as made:
        yield made


# Steps, readiness, diagnostics


def test_steps_and_diagnostics(rig: Rig) -> None:
    """A file and commands, with a secret that nobody sees, and what the machine says of itself."""
    rig.sshd()
    (rig.folder / "policy.j2").write_text("# for {{ machine.name }}\ntoken {{ env('TOKEN') }}\n")
    steps = [
        {"template": "policy.j2", "path": f"{rig.folder}/policy", "mode": "0600"},
        {"commands": [f"test $(stat -c %a {rig.folder}/policy) = 600", "echo {{ env('TOKEN') }}; exit 9"]},
    ]
    document = machine(configure=steps, diagnostics=[f"cat {rig.folder}/policy", "exit 4"])
    secrets = Secrets({"TOKEN": PASSWORD})
    said: list[str] = []
    with rig.ssh(secrets) as ssh:
        with pytest.raises(LabError) as raised:
            run_steps(
                document,
                {"machine": {"name": "nva1"}},
                ssh,
                secrets=secrets,
                folder=rig.folder,
                say=said.append,
                seconds=30,
            )
        text = collect(document, ssh, secrets, 10)
    assert (rig.folder / "policy").read_text() == f"# for nva1\ntoken {PASSWORD}\n"
    assert "step 2, command 'echo ***; exit 9': ended with exit status 9\n    ***" in raised.value.message
    assert text == (f"$ cat {rig.folder}/policy\n# for nva1\ntoken ***\n[exit status 0]\n\n$ exit 4\n[exit status 4]\n")
    assert PASSWORD not in f"{said}{raised.value}{text}"


def test_diagnostics_of_a_machine_that_is_gone(rig: Rig) -> None:
    """They say why there are none."""
    text = collect(machine(diagnostics=["true"]), rig.ssh(), Secrets(), 10)
    assert text == f"$ true\n[not done: machine 'nva1' ({ADDRESS}) port 22: connection refused]\n"


def http(status: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        if b"GET /health?x=1 HTTP/1.1\r\n" in connection.recv(4096):
            connection.sendall(b"HTTP/1.1 " + status + b" whatever\r\n\r\n")

    return talk


def trickle(connection: socket.socket) -> None:
    connection.recv(4096)
    hung_up = select.poll()
    hung_up.register(connection, select.POLLIN)
    for _ in range(100):
        connection.sendall(b"H")
        if hung_up.poll(100):
            return


@pytest.mark.parametrize(
    ("talk", "seen"),
    [
        (http(b"200"), ""),
        (http(b"503"), "503"),
        (http(b"204"), "204"),
        (lambda connection: connection.sendall(b"hello\n"), "the answer is not HTTP"),
        (lambda connection: connection.recv(4096), "closed without an answer"),
        (trickle, "no answer within 2 s"),
        (greet(), "no answer within 2 s"),
    ],
    ids=["200", "503", "204", "not-http", "closes", "trickles", "silent"],
)
def test_ready_by_http(rig: Rig, talk: Callable[[socket.socket], None], seen: str) -> None:
    """Only 200 will do; everything else is told, within its time."""
    rig.serve(8080, talk)
    url = f"http://{ADDRESS}:8080/health?x=1"
    expected = [f"http {url}: {seen}"] if seen else []
    assert pending(conditions(Ready(http=url), sources(rig))) == expected


def test_ready_by_https(rig: Rig) -> None:
    """Any certificate will do, but it must be TLS."""
    context: ssl.SSLContext = server_context("nva1")

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    rig.serve(8443, talk)
    rig.serve(8080, http(b"200"))
    assert pending(conditions(Ready(http="https://:8443/"), sources(rig))) == []
    (text,) = pending(conditions(Ready(http="https://:8080/"), sources(rig)))
    assert text.startswith("http https://:8080/: TLS: ")


def test_ready_by_everything(rig: Rig) -> None:
    """A list of what is missing, which gets shorter as the machine comes up."""
    wanted = Ready(tcp=22, http="http://:8080/health?x=1", ssh=f"test -e {rig.folder}/done", log="ready")
    log: list[str] = ["booting"]
    all_of = conditions(wanted, sources(rig, ssh=rig.ssh, log=lambda: "\n".join(log)))
    command = f"ssh 'test -e {rig.folder}/done'"
    assert pending(all_of) == [
        "tcp 22: connection refused",
        "http http://:8080/health?x=1: connection refused",
        f"{command}: machine 'nva1' ({ADDRESS}) port 22: connection refused",
        "log /ready/: not seen (1 lines)",
    ]
    rig.sshd()
    rig.serve(8080, http(b"200"))
    assert pending(all_of) == [f"{command}: exit 1", "log /ready/: not seen (1 lines)"]
    (rig.folder / "done").touch()
    log.append("now ready")
    assert pending(all_of) == []


# A machine that is a namespace


def test_commands_in_a_namespace(rig: Rig) -> None:
    """Output, status and input as by SSH; what runs too long is ended with all it has started."""
    with NamespaceTransport(rig.machine) as transport:
        assert transport.run("cat; echo err >&2; exit 3", seconds=10, stdin=b"in") == Answer(3, "in", "err\n")
        assert f"inet {ADDRESS}/24" in transport.run("ip -4 address show eth0", seconds=10).out
        assert transport.run("kill -TERM $$", seconds=10).status == 143
        with pytest.raises(DeadlineError):
            transport.run("sleep 60 & sleep 60", seconds=0.3)
        assert processes.inside([namespaces.inode(rig.machine)]) == ()
        with pytest.raises(InputError, match="files are this computer's own"):
            transport.put(b"x", "/tmp/never", 0o644)


def test_a_command_is_not_in_the_process_list(rig: Rig) -> None:
    """It may hold a secret, and everybody can read the words of a process."""
    with NamespaceTransport(rig.machine) as transport:
        seen = transport.run(f": '{PASSWORD}'; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", seconds=30).out
    assert "pytest" in seen
    assert PASSWORD not in seen
