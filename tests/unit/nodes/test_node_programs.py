"""Parts of the programs that need no namespace."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys

import pytest

from testbed.errors import LabError
from testbed.kernel.processes import Process, identify
from testbed.nodes.certificate import server_context
from testbed.nodes.echo import EchoConfig
from testbed.nodes.nft_firewall import FirewallConfig, ruleset
from testbed.nodes.program import read_config
from testbed.nodes.standby import Standby


def test_the_standby_counts_misses() -> None:
    """Passive at first; three misses in a row take over, one answer gives back, and answers reset the count."""
    standby = Standby("10.0.0.1", 80, "/", 1.0)
    states = []
    for answered in (False, False, True, False, False, False, False, True, False):
        standby.heartbeat(answered=answered)
        states.append(standby.passive)
    assert states == [True, True, True, True, True, False, False, True, True]


def test_a_configuration_is_read_with_its_lists() -> None:
    """JSON lists become tuples, what is missing has its default."""
    config = read_config(FirewallConfig, '{"machine": "nva1", "trusted_prefixes": ["10.0.0.0/8"], "standby_of": null}')
    assert config == FirewallConfig("nva1", trusted_prefixes=("10.0.0.0/8",))
    assert read_config(EchoConfig, '{"machine": "web1"}').probe_source == "168.63.129.16"


@pytest.mark.parametrize("text", ["", "1", "[]", "{}", '{"machine": "x", "unknown": 1}'])
def test_a_wrong_configuration_is_refused(text: str) -> None:
    """Anything that does not fit is an error of the lab, not a traceback."""
    with pytest.raises(LabError, match="configuration cannot be used"):
        read_config(EchoConfig, text)


def test_the_firewall_has_no_empty_element_list() -> None:
    """Without trusted prefixes the set is declared without elements, which nftables would refuse if empty."""
    assert "elements" not in ruleset(())
    assert "elements = { 10.0.0.0/8, 192.168.0.0/16 }" in ruleset(("10.0.0.0/8", "192.168.0.0/16"))


def test_the_firewall_translates_what_it_is_told() -> None:
    """Flows that leave the trusted prefixes, all flows, or none."""
    assert " ip daddr != @trusted masquerade" in ruleset(())
    assert " ip daddr != @trusted masquerade" not in ruleset((), "all")
    assert "masquerade" in ruleset((), "all")
    assert "masquerade" not in ruleset((), "none")


def test_the_start_time_tells_processes_apart() -> None:
    """A process is itself as long as it lives, also with an odd name, and is not alive afterwards."""
    mine = identify(os.getpid())
    assert mine.alive()
    assert not Process(mine.pid, mine.start_time - 1).alive()
    code = "import pathlib; pathlib.Path('/proc/self/comm').write_text('a) 1 (b'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        odd = identify(child.pid)
        assert odd.alive()
        assert odd.start_time >= mine.start_time
        child.kill()
    assert not odd.alive()


def test_the_certificate_serves_tls() -> None:
    """A handshake in memory with the made certificate succeeds with TLS 1.3."""
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context = ssl.create_default_context()
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    server = server_context("nva1").wrap_bio(server_in, server_out, server_side=True)
    client = client_context.wrap_bio(server_out, server_in)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"
    assert b"nva1" in (client.getpeercert(binary_form=True) or b"")
