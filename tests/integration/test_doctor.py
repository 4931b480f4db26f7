"""The doctor on this machine: it finds what works, admits what does not, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from testbed.doctor import attempts, examine
from testbed.errors import LabError
from testbed.kernel import namespaces

_REPORT = "import json; from testbed.doctor import examine; print(json.dumps(examine().to_json()))"


def _state() -> dict[str, str]:
    """What the root namespace looks like, without counters and lifetimes."""
    commands = {
        "links": ["ip", "-o", "link"],
        "routes": ["ip", "route", "show", "table", "all"],
        "rules": ["ip", "rule"],
        "nftables": ["nft", "list", "ruleset"],
    }
    state = {
        name: subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name, command in commands.items()
    }
    names = sorted(each.name for each in namespaces.NETNS_DIRECTORY.glob("doctor-*"))
    return {**state, "namespaces": " ".join(names)}


def test_this_machine_is_ready() -> None:
    """Where the integration tests run, everything a lab needs works when it is tried."""
    assert examine().missing_required == ()


def test_an_examination_leaves_nothing() -> None:
    """Links, routes, rules, namespaces and nftables are as before."""
    before = _state()
    examine()
    assert _state() == before


def test_a_ruleset_that_is_refused_is_noticed() -> None:
    """What the kernel refuses is an error with its words: no row is green by chance."""
    name = f"doctor-{os.getpid()}-fabric"
    text = "table ip x {\n chain c {\n  meta mark set symhash mod 8 map @nowhere\n }\n}\n"
    namespaces.create(name, f"doctor-{os.getpid()}")
    try:
        with pytest.raises(LabError, match="nftables refuses"):
            attempts.nft_text(name, text)
        with pytest.raises(LabError, match=attempts.DEVICE):
            attempts.mark_routing(name)
    finally:
        namespaces.delete(name)


def test_without_rights_there_is_a_report() -> None:
    """Without capabilities the report names the rights, tries nothing inside, and is no traceback."""
    before = _state()
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", sys.executable, "-c", _REPORT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    report = json.loads(done.stdout)
    rows = {each["name"]: each for each in report["capabilities"]}
    assert report["ready"] is False
    assert rows["rights"]["detail"] == "user 0 lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN"
    assert "sudo" in rows["rights"]["fix"]
    assert rows["veth"]["tried"] is False
    assert rows["nftables"]["available"] is False
    assert rows["ip"]["available"] is True
    assert done.stderr == ""
    assert _state() == before


def test_a_refused_namespace_ends_in_a_report() -> None:
    """With the right to configure, but not to make a namespace, the row of namespaces carries the reason."""
    command = ["setpriv", "--bounding-set=-sys_admin", "--", sys.executable, "-c", _REPORT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    rows = {each["name"]: each for each in json.loads(done.stdout)["capabilities"]}
    assert "CAP_SYS_ADMIN" in rows["rights"]["detail"]
    assert rows["network namespaces"]["available"] is False
