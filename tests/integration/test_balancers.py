"""The choice of the balancer from the command line, on whatever kernel this is."""

from __future__ import annotations

import os
from contextlib import suppress

from conftest import TOPOLOGIES, testbed

from testbed.errors import MachineError
from testbed.kernel import ipvs, namespaces


def has_ipvs() -> bool:
    with suppress(MachineError):
        ipvs.load()
        return True
    return False


def test_up_with_ipvs_or_a_reason() -> None:
    """A kernel with IPVS gets the lab, as status tells; another one is told what it lacks before anything is made."""
    lab = f"t{os.getpid()}-ipvs"
    done = testbed("up", TOPOLOGIES / "hub-spoke.yaml", "--lab", lab, "--balancer", "ipvs", check=False)
    if has_ipvs():
        assert done.status == 0, done.err
        assert testbed("status", lab, "--json").json["balancer"] == "ipvs"
        testbed("down", lab)
    else:
        assert done.status == 3
        assert "the kernel has no IPVS" in done.err
        assert "CONFIG_IP_VS" in done.err
        assert namespaces.owned(lab) == ()
