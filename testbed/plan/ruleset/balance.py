"""Which member a balanced packet goes to: the rules' maps and sets, their chains, and what is rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.plan.numbers import INTERNET_ZONE, MEMBER_MASK, TABLE_MASK, balance_mark
from testbed.plan.ruleset import ipvs
from testbed.plan.ruleset.choice import flow_hash, hash_type
from testbed.plan.ruleset.context import idle_seconds
from testbed.plan.ruleset.rewriting import TOO_BIG, take_over, tell
from testbed.plan.ruleset.strangers import stranger_objects, strangers, unbalanced_strangers
from testbed.plan.ruleset.text import block, elements
from testbed.topology.switches import Transport

if TYPE_CHECKING:
    from testbed.plan.model import Rule
    from testbed.plan.ruleset.context import Fabric

__all__ = ["balance", "counters", "pick", "rule_chains", "rule_objects", "timeouts"]

#: Seconds that the kernel remembers a flow with data that is not acknowledged, if it is not told otherwise.
_UNANSWERED = 300


def rule_objects(fabric: Fabric, rule: Rule) -> list[str]:
    """The owner map and the eligible set, which change while the lab runs; and the rewritten flows.

    What cannot be changed in place is part of a name, see :mod:`testbed.plan.replacement`.
    """
    lines = block(f"map {rule.owner_map}", [f"typeof {hash_type(rule)} : meta mark", f"size {rule.buckets}"])
    lines += block(f"set eligible_{rule.id}", ["type mark", f"size {MEMBER_MASK}"])
    if rule.flows_end_alone:  # that its admin state keeps flows on, though it gets no new ones
        lines += block(f"set persistent_{rule.id}", ["type mark", f"size {MEMBER_MASK}"])
    return lines + stranger_objects(rule, idle_seconds(rule, fabric.time_scale))


def timeouts(fabric: Fabric) -> list[str]:
    """How long an idle TCP connection keeps its member, also one that one side has closed."""
    lines: list[str] = []
    for seconds in sorted({idle_seconds(rule, fabric.time_scale) for rule in fabric.rules}):
        states = ["established", "fin_wait", "close_wait"]
        if seconds > _UNANSWERED:
            states += ["unack", "retrans"]
        policy = f"policy = {{ {', '.join(f'{state} : {seconds}' for state in states)} }}"
        lines += block(f"ct timeout idle_{seconds}", ["protocol tcp", "l3proto ip", policy])
    return lines


def counters(fabric: Fabric) -> list[str]:
    """Per member: flows given to it, packets steered to it."""
    if not fabric.rules:
        return []
    ids = sorted({member.id for rule in fabric.rules for member in rule.members})
    lines: list[str] = []
    for kind in ("flows", "packets"):
        for member in ids:
            lines += block(f"counter {kind}_{member}", [])
        named = elements([f'{member} : "{kind}_{member}"' for member in ids])
        lines += block(f"map {kind}", ["type mark : counter", *named])
    return lines


def balance(fabric: Fabric) -> list[str]:
    """Where marked packets meet their rule's chain, and what is the internet's is told apart."""
    lines = ["type filter hook prerouting priority mangle; policy accept;"]
    if fabric.rules:
        chains = [f"{balance_mark(rule.id):#010x} : goto rule_{rule.id}" for rule in fabric.rules]
        lines.append(f"meta mark vmap {{ {', '.join(chains)} }}")
        lines += unbalanced_strangers(fabric.rules)
    if internet := fabric.internet:
        marks = [f"{sender:#010x} : {back:#010x}" for sender, back in internet.return_marks]
        cable = f'iifname "{internet.fabric_name}"'
        lines += [
            f'ct zone {INTERNET_ZONE} ct state new {cable} drop comment "nobody outside opens a flow"',
            f"{cable} ct mark != 0 meta mark set ct mark accept",
            f"{cable} drop",
            f"ct zone {INTERNET_ZONE} ct state new ct mark set meta mark map {{ {', '.join(marks)} }}",
        ]
    return block("chain balance", lines)


def pick(rule: Rule) -> list[str]:
    """How a new flow gets its member."""
    return [f"meta mark set {flow_hash(rule)} map @{rule.owner_map}"]


def rule_chains(fabric: Fabric, rule: Rule) -> list[str]:
    """How a rule chooses, and what is done to packets that have their member."""
    # Established TCP stays where it is, whatever the probes say: Azure promises it if there is more than one member.
    kept = f"@persistent_{rule.id}" if rule.flows_end_alone else "!= 0"
    lines = []
    if fabric.switches.icmp is Transport.DROP:  # what tells of a flow goes with the flow all the same
        lines.append('meta l4proto icmp ct state != related drop comment "ICMP is not balanced"')
    lines += [
        f"ct mark @eligible_{rule.id} meta mark set ct mark goto steered_{rule.id}",  # most packets end here
        f"tcp flags & (syn | ack) != syn ct mark {kept} meta mark set ct mark goto steered_{rule.id}",
        *strangers(rule),
        f"ct state related ct mark != 0 meta mark set ct mark goto steered_{rule.id}",
        *pick(rule),
        f'meta mark & {TABLE_MASK:#010x} != 0 drop comment "no member is eligible"',
        *(ipvs.question(rule) if fabric.balancer == "ipvs" else []),
        "ct mark set meta mark",
        f'meta l4proto tcp ct timeout set "idle_{idle_seconds(rule, fabric.time_scale)}"',
        "counter name meta mark map @flows",
        f"goto steered_{rule.id}",
    ]
    steered = ["counter name meta mark map @packets"]
    rewriting: list[str] = []
    if not rule.enable_floating_ip and rule.members:
        steered.append(f"ip daddr {rule.frontend_address} goto addressed_{rule.id}")
        rewriting = _addressed(fabric, rule)
    asking = ipvs.ways_to_ask(fabric, rule) if fabric.balancer == "ipvs" else []
    return [*asking, *block(f"chain rule_{rule.id}", lines), *block(f"chain steered_{rule.id}", steered), *rewriting]


def _addressed(fabric: Fabric, rule: Rule) -> list[str]:
    """What is done, per member, to packets for the frontend of a rule without floating IP."""
    kind, code = TOO_BIG[rule.version]
    told = f"icmp type {kind} icmp code {code} ct state related"
    lines, members = [], []
    for what, way in (("meta l4proto { tcp, udp }", "to"), (told, "tell")):
        chains = ", ".join(f"{member.id} : goto {way}_{rule.id}_{member.id}" for member in rule.members)
        lines.append(f"{what} meta mark vmap {{ {chains} }}")
    for member in rule.members:
        port = [f"{rule.protocol.lower()} dport set {rule.rewritten_port}"] if rule.rewritten_port else []
        members += block(f"chain to_{rule.id}_{member.id}", [*port, take_over(fabric, rule, member)])
        members += block(f"chain tell_{rule.id}_{member.id}", tell(rule, member))
    return [*block(f"chain addressed_{rule.id}", lines), *members]
