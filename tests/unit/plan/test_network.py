"""Where packets go: intervals, targets, and the ruleset made of them."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from testbed.plan import objects
from testbed.plan.compile import compile_plan, network_of
from testbed.plan.describe import describe
from testbed.plan.network import Drop, ToInternet, ToNetworkInterface, ToRule
from testbed.plan.numbers import Numbers
from testbed.topology.model import Topology

if TYPE_CHECKING:
    from testbed.plan.model import Plan

TOPOLOGIES = Path(__file__).parents[3] / "topologies"
GOLDEN = Path(__file__).parent / "golden"


def document(name: str) -> Topology:
    return Topology.model_validate(yaml.safe_load((TOPOLOGIES / f"{name}.yaml").read_text()))


HUB_SPOKE = document("hub-spoke")
PLAN = compile_plan(HUB_SPOKE, "hub-spoke", Numbers(), "/run/testbed/hub-spoke")
NETWORK = network_of(HUB_SPOKE, PLAN)


def target(subnet: str, address: str) -> object:
    view = next(each for each in NETWORK.subnets if each.key == subnet)
    return NETWORK.target(view, IPv4Address(address))


def test_spoke_to_spoke_goes_through_the_balancer() -> None:
    """The route table of the spoke's subnet sends what is for the other spoke to the frontend."""
    assert isinstance(target("spoke1/workload", "10.2.0.4"), ToRule)


def test_hub_to_spoke_is_direct() -> None:
    """The NVA's subnet has no route table: the peered spoke is delivered to directly."""
    found = target("hub/nva", "10.2.0.4")
    assert isinstance(found, ToNetworkInterface)
    assert found.network_interface.machine == "web2"


def test_frontend_itself_is_balanced_too() -> None:
    """Packets addressed to the frontend reach the rule without a user route."""
    assert isinstance(target("hub/nva", "10.0.2.4"), ToRule)


def test_internet_and_reserved_ranges() -> None:
    """What is public leaves from the hub; what is private and unknown is dropped."""
    assert isinstance(target("hub/nva", "203.0.113.4"), ToInternet)
    assert isinstance(target("hub/nva", "192.168.1.1"), Drop)
    assert isinstance(target("hub/nva", "10.0.1.99"), Drop)


@given(st.ip_addresses(v=4), st.sampled_from([each.key for each in NETWORK.subnets]))
def test_intervals_agree_with_targets(address: IPv4Address, key: str) -> None:
    """An address is in an interval exactly when it is balanced or leaves for the internet."""
    view = next(each for each in NETWORK.subnets if each.key == key)
    found = [each.target for each in NETWORK.intervals(view) if int(each.first) <= int(address) <= int(each.last)]
    where = NETWORK.target(view, address)
    assert found == ([where] if isinstance(where, ToRule | ToInternet) else [])


DUAL = document("dual-stack")
DUAL_NETWORK = network_of(DUAL, compile_plan(DUAL, "dual", Numbers(), "/run/testbed/dual"), 6)
_EDGES = st.sampled_from(["fd00:0:0:2::4", "fd00:0:1::", "fd00:0:1:ffff:ffff:ffff:ffff:ffff", "fd00:0:2::4", "::"])


@given(
    st.ip_addresses(v=6) | _EDGES.map(IPv6Address) | st.ip_addresses(network="fd00::/46"),
    st.sampled_from([each.key for each in DUAL_NETWORK.subnets]),
)
def test_intervals_of_ipv6_agree_with_targets(address: IPv6Address, key: str) -> None:
    """The same for IPv6, whose network knows nothing of IPv4's prefixes, routes and rules."""
    view = next(each for each in DUAL_NETWORK.subnets if each.key == key)
    assert all(each.address_prefix.version == 6 for each in view.routes)
    found = [each.target for each in DUAL_NETWORK.intervals(view) if int(each.first) <= int(address) <= int(each.last)]
    where = DUAL_NETWORK.target(view, address)
    assert found == ([where] if isinstance(where, ToRule) else [])
    assert not isinstance(where, ToInternet)


def test_ipv6_beside_ipv4_changes_nothing_of_ipv4() -> None:
    """Without its IPv6 the same document has the same IPv4 routes and policy rules."""
    raw = yaml.safe_load((TOPOLOGIES / "dual-stack.yaml").read_text())
    for machine in raw["machines"]:
        for interface in machine["network_interfaces"]:
            del interface["ip_configurations"]
    for key in ("frontend_ip_configurations", "backend_address_pools", "load_balancing_rules"):
        del raw["load_balancers"][0][key][1:]
    plain, both = (compile_plan(each, "dual", Numbers(), "/x") for each in (Topology.model_validate(raw), DUAL))

    def routing(plan: Plan) -> list[objects.Route | objects.RoutingRule]:
        """Of subnets; numbers of members are given in the order of the document, and IPv6 ones are among them."""
        found = [each for each in plan.objects if isinstance(each, objects.Route | objects.RoutingRule)]
        return [
            each for each in found if each.table >= 50_000 and ":" not in describe(each) and "-6" not in describe(each)
        ]

    assert routing(plain) == routing(both) != []


def test_rules_of_ipv6_have_no_words_of_ipv4() -> None:
    """What a part of the rules says of packets has its word in IPv6, whatever the document asks for."""
    raw = yaml.safe_load((TOPOLOGIES / "dual-stack.yaml").read_text())
    raw["switches"] = {"icmp": "Drop", "fragments": "Drop"}
    raw["peerings"][0]["allow_forwarded_traffic"] = False
    rules = raw["load_balancers"][0]["load_balancing_rules"]
    rules.append(rules[1] | {"name": "web", "protocol": "Tcp", "frontend_port": 80, "backend_port": 8080})
    rules[1] |= {"load_distribution": "SourceIPProtocol", "idle_timeout_in_minutes": 30}
    plan = compile_plan(Topology.model_validate(raw), "dual", Numbers(), "/run/testbed/dual")
    (text,) = [
        each.text for each in plan.objects if isinstance(each, objects.Ruleset) and each.tables == ("ip6 testbed",)
    ]
    assert re.findall(r".*(?:\bip (?!testbed)|(?<!-)\bicmp |\bl3proto ip\b|ipv4|\b\d+\.\d+\.\d+).*", text) == []
    assert "ip6 saddr" in text
    assert "icmpv6 type" in text
    assert "exthdr frag exists" in text


@pytest.mark.parametrize("name", ["hub-spoke", "all-ports-app", "all-ports-app-dsr", "dual-stack"])
def test_plans_are_as_recorded(name: str, request: pytest.FixtureRequest) -> None:
    """The whole plan of a ready topology; UPDATE_GOLDEN=1 records it anew."""
    import os

    plan = compile_plan(document(name), name, Numbers(), f"/run/testbed/{name}")
    text = "\n".join(f"[{each.namespace}] {describe(each)}" for each in plan.objects) + "\n"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text, request.node.name


def test_overlapping_networks_that_are_not_peered_get_tables_of_their_own() -> None:
    """Two virtual networks with the same space and the same addresses do not meet."""
    space = {"address_space": ["10.0.0.0/16"], "subnets": [{"name": "s", "address_prefix": "10.0.0.0/24"}]}
    twins = Topology.model_validate(
        {
            "name": "twins",
            "virtual_networks": [{"name": "one", **space}, {"name": "two", **space}],
            "machines": [
                {"name": f"m{name}", "network_interfaces": [{"subnet": f"{name}/s", "private_ip_address": "10.0.0.4"}]}
                for name in ("one", "two")
            ],
        }
    )
    plan = compile_plan(twins, "twins", Numbers(), "/run/testbed/twins")
    found = [each for each in plan.objects if isinstance(each, objects.Route) and each.destination == "10.0.0.4/32"]
    assert {(each.table, each.link) for each in found} == {(50001, "mone-eth0"), (50002, "mtwo-eth0")}


def test_renaming_nothing_renumbers_nothing() -> None:
    """A machine added in front of the others leaves their numbers, marks and addresses alone."""
    raw = yaml.safe_load((TOPOLOGIES / "hub-spoke.yaml").read_text())
    extra = {"name": "aaa", "network_interfaces": [{"subnet": "spoke1/workload", "private_ip_address": "10.1.0.9"}]}
    raw["machines"].insert(0, extra)
    grown = compile_plan(Topology.model_validate(raw), "hub-spoke", Numbers(dict(PLAN.ids)), "/run/testbed/hub-spoke")
    before = {each.name: each for each in PLAN.machines}
    assert all(before[each.name] == each for each in grown.machines if each.name != "aaa")
    assert grown.rules == PLAN.rules


def test_long_names_are_shortened_and_stay_apart() -> None:
    """Interfaces of machines with long, similar names get different short names of at most 15 characters."""
    raw = yaml.safe_load((TOPOLOGIES / "hub-spoke.yaml").read_text())
    for number in (5, 6):
        raw["machines"].append(
            {
                "name": f"a-machine-with-a-very-long-name-{number}",
                "network_interfaces": [{"subnet": "spoke1/workload", "private_ip_address": f"10.1.0.{number}"}],
            }
        )
    plan = compile_plan(Topology.model_validate(raw), "x", Numbers(), "/run/testbed/x")
    names = [each.fabric_name for machine in plan.machines for each in machine.network_interfaces]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 15


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_table_holds_one_route_to_a_prefix(path: Path) -> None:
    """Also where a route of the document is for a machine alone: of two, the kernel would keep the one set last."""
    topology = yaml.safe_load(path.read_text())
    address = topology["machines"][0]["network_interfaces"][0]["private_ip_address"]
    table = topology.setdefault("route_tables", [{"name": "own", "routes": []}])[0]
    table["routes"] += [{"name": "alone", "address_prefix": f"{address}/32", "next_hop_type": "VnetLocal"}]
    for network in topology["virtual_networks"]:
        for subnet in network["subnets"]:
            subnet["route_table"] = table["name"]
    plan = compile_plan(Topology.model_validate(topology), "x", Numbers(), "/run/testbed/x")
    routes = [each for each in plan.objects if isinstance(each, objects.Route)]
    places = [(each.namespace, each.table, each.destination) for each in routes]
    assert len(places) == len(set(places))
    assert any(each.destination == f"{address}/32" and each.kind == "unicast" for each in routes)
