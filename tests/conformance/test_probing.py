"""TCP, HTTP and HTTPS probes: what is a success, what is a failure, and how many of them count (row 13).

One machine with many services, one probe for each: a rule needs a frontend of its own, and all share one pool.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from documents import IDLE, machine, network, rule
from facts import fact
from listeners import Act, Listener, server_tls

from testbed.topology.loading import check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from labs import Lab

ADDRESS = "10.0.1.4"
#: Interval of probes that must not time out by themselves, on a busy computer either.
UNHURRIED = 15
FIN, RST = 0x01, 0x04
#: A TCP service refuses this pattern of SYNs (R: reset), again and again.
PATTERNS = {"one-in-three-3": "RRA", "one-in-three-2": "RRA", "two-in-four": "AARR"}
STATUSES = (200, 201, 204, 301, 302, 403, 404, 500, 503)
HTTPS = ("self-made", "expired", "weak", "weak-issuer", "client-certificate", "unavailable")
#: (interval, Azure's seconds until the answer): in time, later than the interval, later than 30 s.
SLOW = {"slow-in-time": (60, 20), "slow-for-15": (15, 22), "slow-for-60": (60, 40)}


def probe(
    name: str, protocol: str, port: int, threshold: int = 1, interval: int = 5, path: str = "/"
) -> dict[str, Any]:
    made = {
        "name": name,
        "protocol": protocol,
        "port": port,
        "interval_in_seconds": interval,
        "probe_threshold": threshold,
    }
    return made if protocol == "Tcp" else {**made, "request_path": path}


PROBES = [
    probe("tcp", "Tcp", 9001),
    probe("one-in-three-3", "Tcp", 9011, 3, interval=UNHURRIED),
    probe("one-in-three-2", "Tcp", 9012, 2, interval=UNHURRIED),
    probe("two-in-four", "Tcp", 9013, 2, interval=UNHURRIED),
    probe("own-address", "Tcp", 9014),
    *(probe(f"status-{each}", "Http", 9020, path=f"/status/{each}") for each in STATUSES),
    probe("alternating", "Http", 9021, 3, interval=UNHURRIED),
    probe("mostly-silent", "Http", 9022, 3, interval=UNHURRIED),
    probe("falls-silent", "Http", 9023, 3, interval=UNHURRIED),
    probe("reset", "Http", 9024),
    *(probe(name, "Http", 9030, interval=interval, path=f"/{name}") for name, (interval, _) in SLOW.items()),
    *(probe(name, "Https", 9040 + number) for number, name in enumerate(HTTPS)),
]
FRONTENDS = {each["name"]: f"10.0.2.{number}" for number, each in enumerate(PROBES, 10)}


def document() -> dict[str, Any]:
    return {
        "virtual_networks": [network("hub", "10.0.0.0/16", servers="10.0.1.0/24", lb="10.0.2.0/24")],
        "load_balancers": [
            {
                "name": "lb",
                "frontend_ip_configurations": [
                    {"name": name, "subnet": "hub/lb", "private_ip_address": address}
                    for name, address in FRONTENDS.items()
                ],
                "backend_address_pools": [{"name": "servers"}],
                "probes": PROBES,
                "load_balancing_rules": [
                    rule(name, name, "servers", probe=name, enable_floating_ip=True) for name in FRONTENDS
                ],
            }
        ],
        "machines": [
            machine(
                "server",
                "hub/servers",
                ADDRESS,
                {**IDLE, "loopback_addresses": list(FRONTENDS.values())},
                backend_address_pools=["lb/servers"],
            )
        ],
    }


@dataclass
class Services:
    """The lab and what listens in it."""

    lab: Lab
    listeners: dict[str, Listener] = field(default_factory=dict)
    silent: bool = False

    def wait(self, name: str, *, healthy: bool) -> str:
        """Wait for the outcome of a probe; returns the last result in words."""
        return self.lab.wait_member("server", healthy=healthy, frontend=name).detail

    def sees(self, name: str, beginning: str) -> None:
        """Wait until its last result, in words, begins so."""
        self.lab.wait(
            f"{name}: the probe sees: {beginning}",
            lambda: self.lab.member("server", name).detail,
            lambda detail: detail.startswith(beginning),
        )

    def stays(self, name: str, *, healthy: bool, probes: int) -> None:
        """See its state unchanged while its listener gets so many more connections."""
        before, since = len(self.listeners[name].requests), self.lab.member("server", name).since
        assert self.lab.member("server", name).healthy is healthy
        self.lab.wait(
            f"{name}: {probes} probes", lambda: len(self.listeners[name].requests) - before, lambda n: n >= probes
        )
        state = self.lab.member("server", name)
        assert (state.healthy, state.since) == (healthy, since)

    def changes(self, name: str) -> list[bool]:
        """What its health was in turn."""
        key = f"lb/{name}/{name}"
        return [
            each.fields["healthy"]
            for each in self.lab.events()
            if each.event == "health" and each.fields["rule"] == key
        ]


@pytest.fixture(scope="module")
def services(labs: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Everything that is probed; the probes find nothing at first, since the machine is there before its services."""
    lab = labs(document(), healthy=False)
    made = Services(lab)
    ports = {each["name"]: each["port"] for each in PROBES}
    refusals = [
        f"add rule ip conformance received tcp dport {ports[name]} tcp flags & (syn | ack) == syn "
        f"numgen inc mod {len(pattern)} vmap {{ "
        + ", ".join(f"{n} : {'jump refused' if each == 'R' else 'accept'}" for n, each in enumerate(pattern))
        + " }"
        for name, pattern in PATTERNS.items()
    ]
    lab.nft(
        "server",
        "\n".join(
            [
                "add table ip conformance",
                "add chain ip conformance refused",
                "add rule ip conformance refused reject with tcp reset",
                "add chain ip conformance received { type filter hook input priority 0; }",
                *refusals,
            ]
        ),
    )

    def delayed(request: str, _number: int) -> Act:
        seconds = next(seconds for name, (_, seconds) in SLOW.items() if f"GET /{name} " in request)
        return Act(delay=seconds * lab.timing.scale)

    def status(request: str, _number: int) -> Act:
        if "/status/" not in request:
            return Act(200)
        return Act(int(request.split()[1].rpartition("/")[2]), headers=f"Location: http://{ADDRESS}:9020/moved\r\n")

    def fine(_request: str, _number: int) -> Act:
        return Act(200)

    def unavailable(_request: str, _number: int) -> Act:
        return Act(503)

    acts: dict[str, Callable[[str, int], Act] | None] = {
        "tcp": None,
        **dict.fromkeys(PATTERNS),
        "status-200": status,
        "alternating": lambda _request, number: Act(200 if number % 2 else 503),
        "mostly-silent": lambda _request, number: Act(None if number % 3 else 200),
        "falls-silent": lambda _request, _number: Act(None if made.silent else 200),
        "reset": lambda _request, _number: Act(reset=True),
        "slow-in-time": delayed,
    }

    def folder(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    contexts = {
        "self-made": server_tls(folder("a")),
        "expired": server_tls(folder("b"), days=-1),
        "weak": server_tls(folder("c"), "sha1"),
        "weak-issuer": server_tls(folder("d"), issuer_digest="sha1"),
        "client-certificate": server_tls(folder("e"), client=True),
        "unavailable": server_tls(folder("f")),
    }
    with ExitStack() as stack:
        for name, act in acts.items():
            made.listeners[name] = stack.enter_context(Listener(lab, "server", ports[name], act))
        for name, context in contexts.items():
            answer = unavailable if name == "unavailable" else fine
            listener = Listener(lab, "server", ports[name], answer, tls=context)
            made.listeners[name] = stack.enter_context(listener)
        stack.enter_context(Listener(lab, "server", ports["own-address"], address=FRONTENDS["own-address"]))
        yield made


@fact(row=13, balancer=False)
def test_a_tcp_probe_is_a_handshake_and_a_close(services: Services) -> None:
    """A TCP probe is a handshake and an orderly close; no data is sent. A completed handshake is a success.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    with services.lab.tap("server") as tap:
        assert services.wait("tcp", healthy=True) == "connected"
        services.stays("tcp", healthy=True, probes=2)
        mine = [each for each in tap.packets() if 9001 in (each.source_port, each.destination_port)]
    assert set(services.listeners["tcp"].requests) == {""}
    ports = {each.source_port for each in mine if each.destination_port == 9001}
    conversations = [[each for each in mine if port in (each.source_port, each.destination_port)] for port in ports]
    closed = [each for each in conversations if sum(packet.flags & FIN for packet in each) == 2 * FIN]
    assert closed  # the rest may be cut off by the beginning or the end of the capture
    assert not any(packet.flags & RST for each in closed for packet in each)


@fact(row=13, balancer=False)
def test_probes_come_from_the_platform_address(services: Services) -> None:
    """Probes come from 168.63.129.16.

    Source: azure.md §3, "What is IP address 168.63.129.16?"
    """
    services.wait("tcp", healthy=True)
    services.wait("status-200", healthy=True)
    for name in ("tcp", "status-200"):
        assert set(services.listeners[name].peers) == {"168.63.129.16"}


@fact(row=13, balancer=False)
def test_a_refused_tcp_probe_fails(services: Services) -> None:
    """A reset is a failure of a TCP probe. Probes go to the instance's own address, never to a floating frontend.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    assert services.wait("own-address", healthy=False) == "connection refused"


@fact(row=13, balancer=False)
def test_the_first_success_after_the_start_is_enough(services: Services) -> None:
    """An instance is up with its first success after the start, whatever the threshold.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    # Of three probes one succeeds, so three successes in a row never come.
    services.wait("one-in-three-3", healthy=True)


@fact(row=13, balancer=False)
def test_fewer_failures_than_the_threshold_change_nothing(services: Services) -> None:
    """`probeThreshold: 3`: two failures in a row do not take an instance down.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.wait("one-in-three-3", healthy=True)
    services.stays("one-in-three-3", healthy=True, probes=2)


@fact(row=13, balancer=False)
def test_the_threshold_counts_failures_and_successes(services: Services) -> None:
    """`probeThreshold: 2`: two failures in a row take an instance down, and then one success does not bring it back.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.lab.wait(
        "it was up once, and went down", lambda: services.changes("one-in-three-2")[-2:], [True, False].__eq__
    )
    services.stays("one-in-three-2", healthy=False, probes=3)


@fact(row=13, balancer=False)
def test_as_many_successes_as_the_threshold_bring_it_back(services: Services) -> None:
    """`probeThreshold: 2`: two successes in a row bring an instance back.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.lab.wait(
        "it went down and came back, twice",
        lambda: services.changes("two-in-four"),
        lambda changes: changes[-4:].count(True) == 2 and len(changes) > 5,
    )
    changes = services.changes("two-in-four")
    assert all(one != other for one, other in itertools.pairwise(changes))


@fact(row=13, balancer=False)
@pytest.mark.parametrize("status", STATUSES)
def test_only_status_200_is_a_success(services: Services, status: int) -> None:
    """An HTTP probe succeeds with status 200 only: 201, 204 and redirects are failures like 404 and 503.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.sees(f"status-{status}", f"HTTP {status}")
    assert services.lab.member("server", f"status-{status}").healthy is (status == 200)


@fact(row=13, balancer=False)
def test_redirects_are_not_followed(services: Services) -> None:
    """An HTTP probe does not follow a redirect.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.wait("status-301", healthy=False)
    asked = [each.split()[1] for each in services.listeners["status-200"].requests if each]
    assert "/status/301" in asked
    assert "/moved" not in asked


@fact(row=13, balancer=False)
def test_an_http_probe_names_no_host(services: Services) -> None:
    """An HTTP probe is a GET of the path; no host name is configured, so the request has the address alone.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.wait("status-200", healthy=True)
    request = next(each for each in services.listeners["status-200"].requests if "/status/200" in each)
    assert request.startswith("GET /status/200 HTTP/1.1\r\n")
    assert f"\r\nHost: {ADDRESS}\r\n" in request


@fact(row=13, balancer=False)
def test_an_explicit_answer_acts_at_once(services: Services) -> None:
    """An explicit HTTP answer acts at once in both directions, whatever the threshold: 200 up, another status down.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    # Every second answer is 503, so of neither there are ever two in a row; the threshold is 3.
    changes = services.lab.wait(
        "six changes", lambda: services.changes("alternating"), lambda changes: len(changes) >= 6
    )
    assert all(one != other for one, other in itertools.pairwise(changes))


@fact(row=13, balancer=False)
def test_an_explicit_answer_resets_the_count(services: Services) -> None:
    """Timeouts of an HTTP probe count up to the threshold, and a 200 in between begins the count anew.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.wait("mostly-silent", healthy=True)
    services.stays("mostly-silent", healthy=True, probes=9)


@fact(row=13, balancer=False)
def test_the_threshold_governs_timeouts_of_http(services: Services) -> None:
    """As many timeouts of an HTTP probe as the threshold says take an instance down, and one 200 brings it back.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.wait("falls-silent", healthy=True)
    before = len(services.listeners["falls-silent"].requests)
    services.silent = True
    try:
        assert services.wait("falls-silent", healthy=False).startswith("timeout")
        assert len(services.listeners["falls-silent"].requests) - before >= 3
    finally:
        services.silent = False
    services.wait("falls-silent", healthy=True)


@fact(row=13, balancer=False)
def test_a_reset_is_a_failure_of_http(services: Services) -> None:
    """An HTTP probe whose connection is reset is a failure.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.sees("reset", "connection reset")
    assert services.lab.member("server", "reset").healthy is False


@fact(row=13, balancer=False)
def test_the_timeout_of_http_is_the_interval_or_30_s(services: Services) -> None:
    """An HTTP answer has to come within the interval, and within 30 s if that is shorter.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.wait("slow-in-time", healthy=True)  # after 20 s, every minute
    for name in ("slow-for-15", "slow-for-60"):  # after 22 s of 15 s, and after 40 s of 60 s
        services.sees(name, "timeout after")
        assert services.lab.member("server", name).healthy is False
        assert True not in services.changes(name)


@fact(row=13, balancer=False)
def test_https_takes_certificates_that_nobody_trusts(services: Services) -> None:
    """HTTPS probes are HTTP probes in TLS. Who issued the certificate, for whom and for how long is not looked at.

    Source: azure.md §3, "Azure Load Balancer health probes"
    Note: Azure's page asks for SHA-256 only; that nothing else is checked is the lab's reading of it.
    """
    assert services.wait("self-made", healthy=True) == "HTTP 200"
    assert services.wait("expired", healthy=True) == "HTTP 200"
    services.sees("unavailable", "HTTP 503")
    assert services.lab.member("server", "unavailable").healthy is False


@fact(row=13, balancer=False)
@pytest.mark.parametrize("name", ["weak", "weak-issuer"])
def test_https_wants_sha_256_in_the_whole_chain(services: Services, name: str) -> None:
    """HTTPS probes fail when a certificate of the chain is signed with less than SHA-256.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.sees(name, "certificate signed with less than SHA-256")
    assert services.lab.member("server", name).healthy is False


@fact(row=13, balancer=False)
def test_https_has_no_client_certificate(services: Services) -> None:
    """HTTPS probes have no client certificate: a service that wants one fails its probe.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    services.lab.wait(
        "the handshake fails",
        lambda: services.lab.member("server", "client-certificate").detail,
        lambda detail: detail not in ("", "connection refused"),
    )
    assert services.lab.member("server", "client-certificate").healthy is False


@fact(row=13, balancer=False)
@pytest.mark.parametrize("port", [19, 21, 25, 70, 110, 119, 143, 220, 993])
def test_some_ports_cannot_be_probed_over_http(port: int) -> None:
    """Ports 19, 21, 25, 70, 110, 119, 143, 220 and 993 cannot be probed over HTTP.

    Source: azure.md §3, "Azure Load Balancer health probes"
    """
    for protocol, refused in (("Http", True), ("Https", True), ("Tcp", False)):
        found = _findings(probe("tcp", protocol, port))
        assert any(f"port {port} cannot be probed" in each for each in found) is refused


@fact(row=13, balancer=False)
def test_the_interval_is_5_seconds_or_more() -> None:
    """The interval of a probe is 15 s by default and 5 s at least.

    Source: azure.md §3, "Load Balancers (REST API)"
    """
    assert _findings(probe("tcp", "Tcp", 9001, interval=5)) == []
    (found,) = _findings(probe("tcp", "Tcp", 9001, interval=4))
    assert "from 5" in found


def _findings(first: dict[str, Any]) -> list[str]:
    import yaml

    changed = {"name": "lab", **document()}
    changed["load_balancers"][0]["probes"] = [first, *PROBES[1:]]
    return [str(each) for each in check_text(yaml.safe_dump(changed), "lab.yaml")[1]]
