"""How long it takes from a health verdict to a changed data plane, with 8 members."""

from __future__ import annotations

import os
import random

from bench import documents
from bench.figures import Figure, median, percentile
from testbed.balancer.nftables import NftablesBackend, elements
from testbed.kernel import namespaces, nft
from testbed.kernel.netlink import Netlink
from testbed.plan.compile import compile_plan
from testbed.plan.numbers import Numbers
from testbed.plan.objects import Ruleset, Veth
from testbed.topology.model import Topology

__all__ = ["measure"]

MEMBERS = 8
CHANGES = 500


def measure() -> list[Figure]:
    """By turns one of the members goes down and comes back, in the fabric's real ruleset; no traffic."""
    lab = f"bench-health-{os.getpid()}"
    topology = Topology.model_validate(documents.hub_and_spokes(lab, MEMBERS, "10.0.2.4"))
    plan = compile_plan(topology, lab, Numbers({}), "/nowhere")
    rule = plan.rules[0]
    everybody = frozenset(member.id for member in rule.members)
    ruleset = next(each for each in plan.objects if isinstance(each, Ruleset) and each.namespace == plan.fabric)
    cables = [each for each in plan.objects if isinstance(each, Veth) and each.namespace == plan.fabric]
    choices = random.Random(8)  # noqa: S311 - repeatable, not secret
    times, moved, eligible = [], [], everybody
    namespaces.create(plan.fabric, lab)
    try:
        with namespaces.entered(plan.fabric), Netlink() as netlink:
            for index, cable in enumerate(cables):
                here = namespaces.path(plan.fabric)
                netlink.add_veth(cable.name, cable.mac, cable.mtu, here, f"peer{index}", cable.peer_mac)
            filled = elements(plan.rules, {rule.id: everybody})
            nft.run(nft.replacing(ruleset.text + filled, ruleset.tables))
            backend = NftablesBackend(plan.rules)
            for _ in range(CHANGES):
                eligible = everybody if eligible != everybody else everybody - {choices.choice(sorted(everybody))}
                update = backend.apply(rule.id, eligible)
                times.append(update.duration_ms)
                moved.append(float(update.moved))
            if backend.eligible()[rule.id] != eligible:
                raise SystemExit("the kernel does not hold what was applied last")
    finally:
        namespaces.delete(plan.fabric)
    return [
        Figure(f"health change, {MEMBERS} members, {CHANGES} changes: median", median(times), "ms", promise=2),
        Figure(f"health change, {MEMBERS} members, {CHANGES} changes: p99", percentile(times, 0.99), "ms", promise=10),
        Figure("health change: buckets moved, median", median(moved), ""),
    ]
