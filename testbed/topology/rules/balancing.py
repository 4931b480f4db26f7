"""Load balancers: what their rules may look like and stand next to.

The limits are those of the overview of HA Ports (2017, and its later editions); error codes are those that
Azure's control plane is known to answer with.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from testbed.topology.model import Sku

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.topology.draft import Draft
    from testbed.topology.findings import Finding
    from testbed.topology.lookup import RulePlace

__all__ = [
    "frontend_kinds",
    "one_balancer_per_interface",
    "one_network",
    "one_rule_per_frontend",
    "ports_and_protocol",
    "rules_of_a_pool",
    "rules_of_an_interface",
    "skus",
]


def skus(draft: Draft) -> Iterator[Finding]:
    """HA Ports exists on Standard only."""
    for i, balancer in enumerate(draft.topology.load_balancers):
        if balancer.sku != Sku.STANDARD:
            message = f"HA Ports needs SKU Standard, not {balancer.sku.value}"
            yield draft.error(("load_balancers", i, "sku"), message, fix="write sku: Standard, or leave it out")


def frontend_kinds(draft: Draft) -> Iterator[Finding]:
    """A frontend is internal: it has a subnet, and an address in it."""
    for i, balancer in enumerate(draft.topology.load_balancers):
        children = balancer.backend_address_pools or balancer.probes or balancer.load_balancing_rules
        lost = draft.lost(kind="frontend_ip_configurations") or draft.damaged(
            ("load_balancers", i, "frontend_ip_configurations")
        )
        if children and not balancer.frontend_ip_configurations and not lost:
            yield draft.error(
                ("load_balancers", i),
                "it has pools, probes or rules, and no frontend",
                fix="add frontend_ip_configurations: [{name: fe, subnet: …, private_ip_address: …}]",
                code="LoadBalancerWithoutFrontendIPCantHaveChildResources",
            )
    for place in draft.lookup.frontends:
        frontend = place.frontend
        if frontend.public_ip_address is not None and frontend.subnet:
            yield draft.error(
                place.location,
                "a frontend has a subnet or a public address, not both",
                fix="remove public_ip_address: HA Ports rules are for internal frontends",
                code="FrontendIPConfigHasBothSubnetAndPublicIP",
            )
        elif frontend.public_ip_address is not None:
            message = "HA Ports rules are for internal frontends, this one is public"
            fix = "replace public_ip_address by subnet and private_ip_address"
            yield draft.error((*place.location, "public_ip_address"), message, fix=fix)
        else:
            for key, value in (("subnet", frontend.subnet), ("private_ip_address", frontend.private_ip_address)):
                if value is None:
                    message = f"an internal frontend needs {key}"
                    yield draft.error(place.location, message, fix=f"add '{key}:'; addresses are static in a lab")


def ports_and_protocol(draft: Draft) -> Iterator[Finding]:
    """Protocol All and ports 0 go together; 0 stands for every port. Floating IP keeps the port."""
    for place in draft.lookup.rules:
        rule = place.rule
        if place.ha_ports:
            for key, port in (("frontend_port", rule.frontend_port), ("backend_port", rule.backend_port)):
                if port != 0:
                    message = f"protocol All covers every port, so {key} is 0, not {port}"
                    yield draft.error((*place.location, key), message, fix=f"write {key}: 0")
        elif 0 in (rule.frontend_port, rule.backend_port):
            key = "frontend_port" if rule.frontend_port == 0 else "backend_port"
            message = f"{key} 0 means every port, which protocol {rule.protocol.value} cannot do"
            yield draft.error((*place.location, key), message, fix="write protocol: All, with both ports 0 (HA Ports)")
        elif rule.enable_floating_ip and rule.backend_port != rule.frontend_port:
            message = f"with floating IP the port is kept, so backend_port is {rule.frontend_port}"
            fix = f"write backend_port: {rule.frontend_port}, or enable_floating_ip: false"
            yield draft.error((*place.location, "backend_port"), message, fix=fix)


def _floating(place: RulePlace) -> str:
    return "enabled" if place.rule.enable_floating_ip else "disabled"


def _what(place: RulePlace) -> str:
    return "the HA Ports rule" if place.ha_ports else "the rule"


def _same_ports(first: RulePlace, second: RulePlace) -> bool:
    """Whether they have protocol and backend port in common."""
    one, other = first.rule, second.rule
    return (one.protocol, one.backend_port) == (other.protocol, other.backend_port)


def one_rule_per_frontend(draft: Draft) -> Iterator[Finding]:
    """A frontend has one rule for a protocol and port: so one HA Ports rule, floating or not, never both."""
    for first, second in draft.lookup.rule_pairs():
        one, other = first.rule, second.rule
        same = (one.protocol, one.frontend_port) == (other.protocol, other.frontend_port)
        if first.frontend != second.frontend or not (same or (first.ha_ports and second.ha_ports)):
            continue
        code = None
        if first.pool == second.pool and one.enable_floating_ip and other.enable_floating_ip:
            code = "RulesUseSameBackendPortProtocolAndPoolAndFrontendIPWithFloatingIPEnabled"
        elif first.pool == second.pool and not one.enable_floating_ip and not other.enable_floating_ip:
            code = "RulesUseSameBackendPortProtocolAndPool" if _same_ports(first, second) else None
        frontend = other.frontend_ip_configuration
        has = "" if first.ha_ports else f" for {one.protocol.value} {one.frontend_port}"
        message = f"frontend {frontend!r} already has {_what(first)} {one.name!r}{has}, floating IP {_floating(first)}"
        fix = "one frontend holds one HA Ports rule; remove one, or give this one a frontend of its own"
        if not first.ha_ports:
            fix = "one frontend holds one rule for a protocol and port; remove one, or use another port or frontend"
        yield draft.error((*second.location, "frontend_ip_configuration"), message, fix=fix, code=code)


def rules_of_a_pool(draft: Draft) -> Iterator[Finding]:
    """On one pool: HA Ports beside other rules only with floating IP; without it, each backend port once."""
    for first, second in draft.lookup.rule_pairs():
        if first.pool != second.pool or draft.lookup.version(first) != draft.lookup.version(second):
            continue  # rules of two IP versions cannot share members, which is reported for these
        one, other = first.rule, second.rule
        if one.enable_floating_ip and other.enable_floating_ip:
            continue
        pool = other.backend_address_pool
        location = (*second.location, "backend_address_pool")
        neither = not one.enable_floating_ip and not other.enable_floating_ip
        if first.ha_ports != second.ha_ports:
            yield draft.error(
                location,
                f"pool {pool!r} is used by HA Ports and by another rule ({one.name!r}, {other.name!r}), "
                "and not both have floating IP",
                fix="set enable_floating_ip: true on both, or give each a pool with members of its own",
            )
        elif first.frontend == second.frontend and one.frontend_port == other.frontend_port:
            continue  # reported for the frontend
        elif neither and _same_ports(first, second):
            port = "" if first.ha_ports else f" and backend port {one.protocol.value} {one.backend_port}"
            yield draft.error(
                location,
                f"rules {one.name!r} and {other.name!r}, floating IP disabled, share pool {pool!r}{port}",
                fix="set enable_floating_ip: true on both, or use one rule only",
                code="RulesUseSameBackendPortProtocolAndPool",
            )
        elif first.ha_ports and second.ha_ports and one.enable_floating_ip != other.enable_floating_ip:
            message = f"pool {pool!r} has an HA Ports rule without floating IP, and then no other rule"
            fix = "set enable_floating_ip: true on both rules, or use one rule only"
            yield draft.error(location, message, fix=fix)


def one_balancer_per_interface(draft: Draft) -> Iterator[Finding]:
    """A network interface is in pools of one internal load balancer."""
    names = {each.name for each in draft.topology.load_balancers}
    for place in draft.lookup.interfaces:
        balancers = [each.partition("/")[0] for each in place.all_pools]
        known = [name for name in dict.fromkeys(balancers) if name in names]
        if len(known) > 1:
            yield draft.error(
                (*place.location, "backend_address_pools"),
                f"the network interface is behind {len(known)} internal load balancers: {', '.join(known)}",
                fix="use pools of one load balancer; it can have several frontends",
                code="AnotherInternalLoadBalancerExists",
            )


def rules_of_an_interface(draft: Draft) -> Iterator[Finding]:
    """Through several pools: an HA Ports rule without floating IP is alone, and each backend port is used once."""
    for place in draft.lookup.configurations:
        pools = set(place.pools)
        rules = [each for each in draft.lookup.rules if each.pool in pools]
        for first, second in combinations(rules, 2):
            fixed = [each for each in (first, second) if not each.rule.enable_floating_ip]
            if first.pool == second.pool or first.balancer is not second.balancer or not fixed:
                continue  # reported for the pool, or for the second load balancer
            code = "RulesUseSameBackendPortProtocolAndIPConfig" if len(fixed) == 2 else None
            location = (*place.location, "backend_address_pools")
            if strict := [each for each in fixed if each.ha_ports]:
                other = second if strict[0] is first else first
                yield draft.error(
                    location,
                    f"HA Ports rule {strict[0].rule.name!r} has floating IP disabled, so no other rule may reach this "
                    f"network interface; {other.rule.name!r} does",
                    fix="leave one of the pools, or set enable_floating_ip: true on both rules",
                    code=code if _same_ports(first, second) else None,
                )
            elif first.ha_ports != second.ha_ports:
                yield draft.error(
                    location,
                    f"rules {first.rule.name!r} and {second.rule.name!r}, one of them HA Ports, reach this network "
                    "interface, and not both have floating IP",
                    fix="leave one of the pools, or set enable_floating_ip: true on both rules",
                )
            elif len(fixed) == 2 and _same_ports(first, second):
                port = f"{first.rule.protocol.value} {first.rule.backend_port}"
                yield draft.error(
                    location,
                    f"rules {first.rule.name!r} and {second.rule.name!r}, floating IP disabled, "
                    f"both use backend port {port} of this network interface",
                    fix="leave one of the pools, or use another backend_port",
                    code=code,
                )


def one_network(draft: Draft) -> Iterator[Finding]:
    """A rule cannot span virtual networks: its frontend and the members of its pool are in one."""
    for balancer in draft.topology.load_balancers:
        frontends = [each for each in draft.lookup.frontends if each.balancer is balancer and each.network]
        members = [
            each
            for each in draft.lookup.configurations
            if any(pool.partition("/")[0] == balancer.name for pool in each.pools)
        ]
        if not (frontends or members):
            continue
        home = frontends[0].network if frontends else members[0].network
        what = f"frontend {frontends[0].key}" if frontends else f"machine {members[0].machine.name!r}"
        for frontend in frontends:
            if frontend.network != home:
                message = f"the frontend is in {frontend.network}, {what} in {home}; a load balancer stays in one"
                fix = f"use a subnet of {home}, or another load balancer"
                yield draft.error((*frontend.location, "subnet"), message, fix=fix)
        for member in members:
            if member.network != home:
                message = f"the network interface is in {member.network}, {what} in {home}; a rule cannot span them"
                fix = f"use members in {home}, or another load balancer"
                yield draft.error((*member.location, "backend_address_pools"), message, fix=fix)
