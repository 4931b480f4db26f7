"""Health probes, and load-balancing rules that work without being useful ("Load Balancer health probes")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from testbed.topology.model import ProbeProtocol
from testbed.topology.runtimes import NamespaceRuntime, Program
from testbed.topology.switches import NumberOfProbes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.model import Probe
    from testbed.topology.nodes import Location

__all__ = ["idle_timeouts", "number_of_probes", "pools_with_members", "probe_answers", "probe_requests", "probe_use"]

#: An HTTP probe cannot go to these.
_FORBIDDEN_PORTS = frozenset({19, 21, 25, 70, 110, 119, 143, 220, 993})
_LONGEST_IDLE = 30
_PATH = re.compile(r"/[!-~]*")


def _probes(draft: Draft) -> Iterator[tuple[Location, Probe]]:
    for i, balancer in enumerate(draft.topology.load_balancers):
        for j, probe in enumerate(balancer.probes):
            yield ("load_balancers", i, "probes", j), probe


def probe_requests(draft: Draft) -> Iterator[Finding]:
    """A path for HTTP and HTTPS, none for TCP; and a port that can be probed."""
    for location, probe in _probes(draft):
        protocol = probe.protocol.value
        path = (*location, "request_path")
        if probe.protocol == ProbeProtocol.TCP:
            if probe.request_path is not None:
                yield draft.error(path, "a Tcp probe requests nothing", fix="remove it, or set protocol: Http")
            continue
        if probe.request_path is None:
            yield draft.error(location, f"probe protocol {protocol} needs a path", fix="add request_path: /health")
        elif not _PATH.fullmatch(probe.request_path):
            message = f"{probe.request_path[:60]!r} is not a path"
            yield draft.error(path, message, fix="start it with '/', and use no spaces, e.g. /health")
        if probe.port in _FORBIDDEN_PORTS:
            message = f"port {probe.port} cannot be probed over HTTP"
            ports = ", ".join(map(str, sorted(_FORBIDDEN_PORTS)))
            yield draft.error((*location, "port"), message, fix=f"use a port other than {ports}")


def number_of_probes(draft: Draft) -> Iterator[Finding]:
    """Azure accepts it and does not heed it."""
    if draft.topology.switches.number_of_probes is NumberOfProbes.RESPECTED:
        return
    for location, probe in _probes(draft):
        if probe.number_of_probes is not None:
            message = "Azure ignores number_of_probes, and so does the lab"
            yield draft.warning((*location, "number_of_probes"), message, fix="use probe_threshold, or the switch")


def probe_use(draft: Draft) -> Iterator[Finding]:
    """A rule has a probe, and a probe a rule."""
    for place in draft.lookup.rules:
        if place.rule.probe is None:
            message = "without a probe every member counts as healthy, also a dead one"
            yield draft.warning(place.location, message, fix="add 'probe:' with the name of one of the probes")
    for location, probe in _probes(draft):
        balancer = draft.topology.load_balancers[int(location[1])]
        names = {each.name for each in balancer.probes}
        # A rule that names an unknown probe is reported for that, and may mean this one.
        used = any(
            each.probe == probe.name or (each.probe and each.probe not in names)
            for each in balancer.load_balancing_rules
        )
        if not used and not draft.lost(probe.name, kind="load_balancing_rules"):
            message = "no rule uses this probe"
            yield draft.warning(location, message, fix=f"name it in a rule ('probe: {probe.name}'), or remove it")


def pools_with_members(draft: Draft) -> Iterator[Finding]:
    """A pool has members, once all machines are known."""
    for i, balancer in enumerate(draft.topology.load_balancers):
        for j, pool in enumerate(balancer.backend_address_pools):
            key = f"{balancer.name}/{pool.name}"
            if (
                draft.lookup.members(key)
                or draft.lost(key, kind="backend_address_pools")
                or draft.lost(kind="machines")
            ):
                continue
            location = ("load_balancers", i, "backend_address_pools", j)
            fix = f"add 'backend_address_pools: [{key}]' to the network interfaces of its members"
            yield draft.warning(location, "the pool has no members", fix=fix)


def idle_timeouts(draft: Draft) -> Iterator[Finding]:
    """Azure's documents say 4 to 100 minutes, its API 4 to 30."""
    for place in draft.lookup.rules:
        if place.rule.idle_timeout_in_minutes > _LONGEST_IDLE:
            yield draft.warning(
                (*place.location, "idle_timeout_in_minutes"),
                f"Azure's API refuses more than {_LONGEST_IDLE} minutes, though its documents allow 100",
                fix=f"use at most {_LONGEST_IDLE}",
            )


def probe_answers(draft: Draft) -> Iterator[Finding]:
    """A built-in appliance answers on its own port and path only."""
    for place in draft.lookup.rules:
        probe = next((each for each in place.balancer.probes if each.name == place.rule.probe), None)
        for member in draft.lookup.members(place.pool) if probe else ():
            runtime = member.machine.runtime
            if probe is None or not isinstance(runtime, NamespaceRuntime) or runtime.program != Program.NFT_FIREWALL:
                continue
            machine = ("machines", member.location[1], "runtime")
            if probe.port != runtime.probe_port:
                message = f"probe {probe.name!r} asks port {probe.port}, the appliance answers on {runtime.probe_port}"
                yield draft.warning(machine, message, fix=f"set probe_port: {probe.port}")
            elif probe.request_path not in (None, runtime.probe_path):
                message = f"probe {probe.name!r} asks {probe.request_path}, the appliance answers {runtime.probe_path}"
                yield draft.warning(machine, message, fix=f"set probe_path: {probe.request_path}")
