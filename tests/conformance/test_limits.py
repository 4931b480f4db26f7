"""Azure's limits of HA Ports rules, then and now (row 21), and of counts and ranges (row 22): on documents alone."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from documents import FIREWALL, hub_spoke, machine, rule
from facts import fact

from testbed.topology.loading import check_text
from testbed.topology.nodes import parse
from testbed.topology.repair import settle
from testbed.topology.rules import limits

Document = dict[str, Any]


def findings(document: Document, behaviour: str | None = None) -> list[str]:
    """What is said of a document, in an edition."""
    named = {"name": "lab", **document, **({"azure_behaviour": behaviour} if behaviour else {})}
    return [str(each) for each in check_text(yaml.dump(named, Dumper=yaml.CSafeDumper), "lab.yaml")[1]]


def over(document: Document) -> list[str]:
    """What is too many in a document that is too big to try every rule on."""
    root, _ = parse(yaml.dump({"name": "lab", **document}, Dumper=yaml.CSafeDumper))
    assert root
    draft, mistakes = settle(root, "lab.yaml")
    assert draft
    assert mistakes == ()
    return [each.message for each in limits.counts(draft)]


def about(words: str, found: list[str]) -> list[str]:
    return [each for each in found if words in each]


def balancer(document: Document) -> Document:
    first: Document = document["load_balancers"][0]
    return first


def with_second_rule(*, floating: tuple[bool, bool] = (False, False), pool: str = "nvas", **more: Any) -> Document:
    """Two NVAs behind the rule ``ha``, and a second rule on a frontend of its own."""
    document = hub_spoke(enable_floating_ip=floating[0])
    first = balancer(document)
    first["frontend_ip_configurations"].append({"name": "fe2", "subnet": "hub/lb", "private_ip_address": "10.0.2.5"})
    first["load_balancing_rules"].append(rule("second", "fe2", pool, enable_floating_ip=floating[1], **more))
    if pool != "nvas":
        first["backend_address_pools"].append({"name": pool})
        document["machines"].append(
            machine(
                "nva9",
                "hub/nva",
                "10.0.1.9",
                FIREWALL,
                enable_ip_forwarding=True,
                backend_address_pools=[f"ilb/{pool}"],
            )
        )
    return document


def with_second_interface(*pools: str) -> Document:
    """The first NVA has another network interface, in these pools."""
    document = hub_spoke(enable_floating_ip=True)
    document["machines"][0]["network_interfaces"].append(
        {
            "subnet": "hub/lb",
            "private_ip_address": "10.0.2.20",
            "enable_ip_forwarding": True,
            "backend_address_pools": list(pools),
        }
    )
    return document


BOTH = pytest.mark.parametrize("behaviour", ["2017-preview", "current"])


@fact(row=21, state="switchable", balancer=False)
def test_the_preview_wants_a_registration() -> None:
    """In the preview of 2017 a subscription has to register the feature `AllowILBAllPortsRule`; today it has not.

    Source: azure.md §1, "High availability ports overview" (2017)
    """
    assert about("AllowILBAllPortsRule", findings(hub_spoke(), "2017-preview"))
    assert findings(hub_spoke()) == findings(hub_spoke(), "current") == []


@fact(row=21, balancer=False)
@BOTH
def test_ha_ports_needs_the_standard_sku(behaviour: str) -> None:
    """HA Ports needs the Standard SKU.

    Source: azure.md §1, "Azure Load Balancer SKUs"
    Note: The API once accepted it on Basic, unsupported.
    """
    document = hub_spoke()
    balancer(document)["sku"] = "Basic"
    assert about("HA Ports needs SKU Standard", findings(document, behaviour))


@fact(row=21, balancer=False)
@BOTH
def test_ha_ports_is_for_internal_frontends(behaviour: str) -> None:
    """HA Ports rules are for internal frontends, not for public ones.

    Source: azure.md §1, "High availability ports overview"
    """
    document = hub_spoke()
    balancer(document)["frontend_ip_configurations"] = [{"name": "fe", "public_ip_address": "pip"}]
    assert about("HA Ports rules are for internal frontends", findings(document, behaviour))


@fact(row=21, balancer=False)
@BOTH
@pytest.mark.parametrize("floating", [(True, True), (False, False), (True, False)])
def test_a_frontend_holds_one_ha_ports_rule(behaviour: str, floating: tuple[bool, bool]) -> None:
    """A frontend holds one HA Ports rule, with floating IP or without, not both.

    Source: azure.md §1, "High availability ports overview"
    """
    document = hub_spoke(enable_floating_ip=floating[0])
    balancer(document)["load_balancing_rules"].append(rule("second", enable_floating_ip=floating[1]))
    assert about("already has the HA Ports rule 'ha'", findings(document, behaviour))


@fact(row=21, balancer=False)
@BOTH
def test_floating_rules_share_a_pool_on_frontends_of_their_own(behaviour: str) -> None:
    """Several HA Ports rules with floating IP may share a pool, each with a frontend of its own; others may not.

    Source: azure.md §1, "High availability ports overview"
    """

    def errors(floating: tuple[bool, bool]) -> list[str]:
        return about(": error: ", findings(with_second_rule(floating=floating), behaviour))

    assert errors((True, True)) == []
    assert about("RulesUseSameBackendPortProtocolAndPool", errors((False, False)))
    assert about("without floating IP, and then no other rule", errors((True, False)))


@fact(row=21, state="switchable", balancer=False)
def test_floating_ip_lets_ha_ports_and_other_rules_share_a_pool_today() -> None:
    """HA Ports and other rules may share a pool if all have floating IP; in the preview of 2017 never.

    Source: azure.md §1, "What's new in Azure Load Balancer"
    """
    port: Document = {"protocol": "Tcp", "frontend_port": 80, "backend_port": 80}
    floating = with_second_rule(floating=(True, True), **port)
    assert about("cannot be used by HA Ports and by other rules", findings(floating, "2017-preview"))
    assert not about("by HA Ports and by other rules", findings(floating, "current"))
    for behaviour in ("2017-preview", "current"):
        found = findings(with_second_rule(floating=(True, False), **port), behaviour)
        assert about("is used by HA Ports and by another rule", found)


@fact(row=21, state="switchable", balancer=False)
def test_without_floating_ip_ha_ports_is_alone_on_its_balancer_today() -> None:
    """Since 2018 an HA Ports rule without floating IP excludes every other rule on its load balancer.

    Source: azure.md §1, "High availability ports overview"
    Note: A warning: Azure documents the limit, and is not known to refuse it.
    """
    document = with_second_rule(pool="others")
    assert about("supports no other rule on load balancer 'ilb'", findings(document, "current"))
    assert not about("no other rule on load balancer", findings(document, "2017-preview"))
    assert findings(with_second_rule(pool="others", floating=(True, True))) == []


@fact(row=21, state="switchable", balancer=False)
def test_without_floating_ip_instances_have_one_internal_balancer_today() -> None:
    """Since 2018 an HA Ports rule without floating IP excludes another internal load balancer for its instances.

    Source: azure.md §1, "High availability ports overview"
    Note: A warning where the other one reaches another network interface; on the same one it is an error.
    """
    document = with_second_interface("other/nvas")
    second = hub_spoke(enable_floating_ip=True)["load_balancers"][0]
    frontends = [{"name": "fe", "subnet": "hub/lb", "private_ip_address": "10.0.2.9"}]
    document["load_balancers"].append({**second, "name": "other", "frontend_ip_configurations": frontends})
    assert not about("no other internal load balancer", findings(document))
    balancer(document)["load_balancing_rules"][0]["enable_floating_ip"] = False
    assert about("no other internal load balancer for nva1", findings(document))
    assert not about("no other internal load balancer", findings(document, "2017-preview"))


@fact(row=21, balancer=False)
@BOTH
def test_an_interface_is_behind_one_internal_balancer(behaviour: str) -> None:
    """A network interface is in pools of one internal load balancer.

    Source: azure.md §6, "Troubleshoot common Azure Load Balancer deployment errors"
    """
    document = hub_spoke()
    second = hub_spoke()["load_balancers"][0]
    frontends = [{"name": "fe", "subnet": "hub/lb", "private_ip_address": "10.0.2.9"}]
    document["load_balancers"].append({**second, "name": "other", "frontend_ip_configurations": frontends})
    document["machines"][0]["network_interfaces"][0]["backend_address_pools"].append("other/nvas")
    assert about("AnotherInternalLoadBalancerExists", findings(document, behaviour))


@fact(row=21, state="switchable", balancer=False)
def test_symmetry_with_several_interfaces_is_promised_today() -> None:
    """One appliance for both directions: in 2017 with a single network interface only, today with several as well.

    Source: azure.md §1, "High availability ports overview"
    """
    document = with_second_interface()
    assert about("does not promise", findings(document, "2017-preview"))
    assert findings(document, "current") == []


@fact(row=21, balancer=False)
def test_symmetry_is_not_promised_across_frontends() -> None:
    """Even today there is no symmetry across two frontends, pools or load balancers; source NAT is the way out.

    Source: azure.md §1, "High availability ports overview"
    """
    document = with_second_interface("ilb/inside")
    first = balancer(document)
    first["backend_address_pools"].append({"name": "inside"})
    first["frontend_ip_configurations"].append({"name": "fe2", "subnet": "hub/lb", "private_ip_address": "10.0.2.5"})
    first["load_balancing_rules"].append(rule("second", "fe2", "inside", enable_floating_ip=True))
    assert about("each frontend chooses on its own", findings(document))
    document["machines"][0]["runtime"] = {**FIREWALL, "source_nat": "all"}
    assert findings(document) == []


def many_rules(number: int) -> Document:
    """So many floating HA Ports rules, each with a frontend, all on the pool of one machine."""
    document = hub_spoke(1)
    document["virtual_networks"][0]["subnets"][1] = {"name": "lb", "address_prefix": "10.0.64.0/20"}
    addresses = [f"10.0.{64 + n // 250}.{4 + n % 250}" for n in range(number)]
    first = balancer(document)
    first["frontend_ip_configurations"] = [
        {"name": f"fe{n}", "subnet": "hub/lb", "private_ip_address": each} for n, each in enumerate(addresses)
    ]
    first["load_balancing_rules"] = [
        rule(f"ha{n}", f"fe{n}", enable_floating_ip=True, probe="health") for n in range(number)
    ]
    document["route_tables"][0]["routes"][0]["next_hop_ip_address"] = addresses[0]
    return document


@fact(row=22, balancer=False)
@pytest.mark.parametrize("number", [300, 301])
def test_at_most_300_rules_reach_an_interface(number: int) -> None:
    """At most 300 rules reach a network interface.

    Source: azure.md §6, "Azure Load Balancer limits"
    """
    found = findings(many_rules(number))
    limit = "301 rules that reach a network interface: Azure's limit is 300 (LoadBalancerRuleCountLimitReachedForNic)"
    assert len(about(limit, found)) == number - 300
    assert len(found) == number - 300


@fact(row=22, balancer=False)
@pytest.mark.parametrize("number", [600, 601])
def test_at_most_600_frontends(number: int) -> None:
    """A load balancer has at most 600 frontends.

    Source: azure.md §6, "Azure Load Balancer limits"
    """
    document = many_rules(number)
    del balancer(document)["load_balancing_rules"][1:]
    found = findings(document)
    assert len(about("601 frontends of a load balancer: Azure's limit is 600", found)) == number - 600
    assert len(found) == number - 600


@fact(row=22, balancer=False)
def test_at_most_1500_rules() -> None:
    """A load balancer has at most 1,500 rules.

    Source: azure.md §6, "Azure Load Balancer limits"
    """
    assert "1,501 rules of a load balancer: Azure's limit is 1,500" in over(many_rules(1501))
    assert not about("rules of a load balancer", over(many_rules(1500)))


@fact(row=22, balancer=False)
@pytest.mark.parametrize("number", [1000, 1001])
def test_at_most_1000_load_balancers(number: int) -> None:
    """There are at most 1,000 load balancers.

    Source: azure.md §6, "Azure Load Balancer limits"
    """
    document = hub_spoke()
    document["load_balancers"] += [{"name": f"lb{n}"} for n in range(1, number)]
    found = findings(document)
    assert len(about("1,001 load balancers in a region: Azure's limit is 1,000", found)) == number - 1000
    assert len(found) == number - 1000


def big_pool(number: int) -> Document:
    """A pool of so many network interfaces, eight to a machine."""
    document = hub_spoke(0)
    document["virtual_networks"][0]["subnets"][0]["address_prefix"] = "10.0.128.0/17"
    document["load_balancers"][0]["load_balancing_rules"][0]["enable_floating_ip"] = False
    interfaces = [
        {
            "subnet": "hub/nva",
            "private_ip_address": f"10.0.{128 + n // 250}.{4 + n % 250}",
            "enable_ip_forwarding": True,
            "backend_address_pools": ["ilb/nvas"],
        }
        for n in range(number)
    ]
    document["machines"] += [
        {"name": f"m{n}", "network_interfaces": interfaces[n : n + 8]} for n in range(0, number, 8)
    ]
    return document


@fact(row=22, balancer=False)
def test_at_most_5000_members() -> None:
    """A pool has at most 5,000 members.

    Source: azure.md §6, "Azure Load Balancer limits"
    """
    (found,) = findings(big_pool(5001))
    assert "5,001 members of a pool: Azure's limit is 5,000" in found


@fact(row=22, balancer=False)
def test_at_most_10000_members_behind_a_frontend() -> None:
    """The rules of a frontend lead to at most 10,000 members, a member counted once for each rule.

    Source: azure.md §6, "Azure Load Balancer limits"
    """
    document = big_pool(2501)
    port: Document = {"protocol": "Tcp", "enable_floating_ip": True}
    balancer(document)["load_balancing_rules"] = [
        rule(f"port{n}", frontend_port=n, backend_port=n, **port) for n in range(1, 5)
    ]
    (found,) = over(document)
    assert found == "10,004 members behind the rules of a frontend, once for each rule: Azure's limit is 10,000"
    del balancer(document)["load_balancing_rules"][3]
    assert over(document) == []


@fact(row=22, balancer=False)
def test_at_most_500000_members_behind_all_frontends() -> None:
    """The rules of all frontends lead to at most 500,000 members, a member counted once for each rule.

    Source: azure.md §6, "Azure Load Balancer limits"
    """
    document = {**big_pool(5000), "load_balancers": many_rules(101)["load_balancers"]}
    (found,) = over(document)
    assert found.startswith("505,000 members behind all frontends of a load balancer")
    del balancer(document)["load_balancing_rules"][100]
    assert over(document) == []


@fact(row=22, balancer=False)
@BOTH
def test_one_ha_ports_rule_per_internal_frontend(behaviour: str) -> None:
    """An internal frontend has at most one HA Ports rule.

    Source: azure.md §6, "Azure Load Balancer limits"
    """
    document = hub_spoke(enable_floating_ip=True)
    balancer(document)["load_balancing_rules"].append(rule("second", enable_floating_ip=True))
    assert about("one frontend holds one HA Ports rule", findings(document, behaviour))


@fact(row=22, balancer=False)
@pytest.mark.parametrize(
    ("minutes", "severity", "words"),
    [
        (3, "error", "from 4"),
        (4, None, ""),
        (30, None, ""),
        (31, "warning", "more than 30 minutes"),
        (100, "warning", "more than 30 minutes"),
        (101, "error", "100"),
    ],
)
def test_the_idle_timeout_is_4_to_100_minutes(minutes: int, severity: str | None, words: str) -> None:
    """The idle timeout is 4 to 100 minutes; its API's text says 4 to 30.

    Source: azure.md §6, "Configure load balancer TCP reset and idle timeout"
    Note: More than 30 is accepted with a warning.
    """
    found = findings(hub_spoke(idle_timeout_in_minutes=minutes))
    assert len(found) == (severity is not None)
    assert all(f": {severity}: " in each and words in each for each in found)
