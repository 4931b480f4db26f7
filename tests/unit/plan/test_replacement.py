"""Rulesets follow each other without losing what flows need."""

from __future__ import annotations

from testbed.plan.replacement import chains, declared, replacement

TABLE = "ip testbed"
OLD = """table ip testbed {
  map owner_1_4096 {
    size 4096
  }
  set eligible_1 {
    type mark
  }
  map packets {
    type mark : counter
  }
  counter packets_1 {
  }
  counter packets_2 {
  }
  chain rule_1 {
  }
  chain version_a {
  }
}
"""
NEW = OLD.replace("  counter packets_2 {\n  }\n", "").replace("version_a", "version_b")


def test_declarations_are_found() -> None:
    """Every object of the table, with its kind."""
    assert {("map", "owner_1_4096"), ("set", "eligible_1"), ("counter", "packets_2"), ("chain", "rule_1")} <= declared(
        OLD
    )
    assert chains(OLD) == {"rule_1", "version_a"}


def test_first_load_replaces_whatever_is_there() -> None:
    """Without an earlier text the table is removed in the same transaction; ``add`` makes that safe."""
    assert replacement(TABLE, None, NEW, "fill\n") == f"add table ip testbed\ndelete table ip testbed\n{NEW}fill\n"


def test_what_both_have_stays() -> None:
    """Rules are flushed, choices are filled anew, what is gone is deleted after nothing refers to it."""
    lines = replacement(TABLE, OLD, NEW, "fill\n").replace(NEW, "NEW\n").splitlines()
    assert lines == [
        "flush table ip testbed",
        "flush map ip testbed packets",
        "NEW",
        "flush map ip testbed owner_1_4096",
        "flush set ip testbed eligible_1",
        "fill",
        "delete chain ip testbed version_a",
        "delete counter ip testbed packets_2",
    ]


def test_a_map_that_is_new_is_not_flushed() -> None:
    """A rule with more buckets has a map of another name: made, filled, and the old one deleted."""
    wider = OLD.replace("owner_1_4096", "owner_1_65536")
    commands = replacement(TABLE, OLD, wider, "")
    assert "flush map ip testbed owner_1_65536" not in commands
    assert commands.endswith("delete map ip testbed owner_1_4096\n")


def test_a_chain_that_went_with_its_link_is_not_deleted() -> None:
    """Before Linux 6.16 a chain of a link goes with it; deleting it again would fail the transaction."""
    commands = replacement(TABLE, OLD, NEW, present={"rule_1"})
    assert "delete chain" not in commands
    assert commands.endswith("delete counter ip testbed packets_2\n")


def test_flow_records_stay() -> None:
    """The sets of a table of security groups are neither flushed nor deleted."""
    table = "netdev testbed_nsg"
    old = f"table {table} {{\n  set flows_1 {{\n  }}\n  counter nic_in_1_100 {{\n  }}\n  chain version_a {{\n  }}\n}}\n"
    new = old.replace("version_a", "version_b").replace("nic_in_1_100", "nic_in_1_110")
    assert replacement(table, old, new).replace(new, "NEW\n").splitlines() == [
        "flush table netdev testbed_nsg",
        "NEW",
        "delete chain netdev testbed_nsg version_a",
        "delete counter netdev testbed_nsg nic_in_1_100",
    ]
