"""The doctor's report: what it concludes and how it reads."""

from __future__ import annotations

import json

from testbed.doctor.report import Capability, Report

VETH = Capability("veth", "every lab", required=True, available=True, detail="made a pair")
NO_NFT = Capability("nftables", "every lab", required=True, available=False, detail="no library", fix="get it")
NO_NETEM = Capability("netem", "delay", required=False, available=False, detail="unknown", fix="modprobe it")


def test_a_report_without_gaps_is_ready() -> None:
    """Nothing is missing when everything required is available."""
    report = Report((VETH, NO_NETEM))
    assert report.missing_required == ()
    assert report.missing_optional == (NO_NETEM,)


def test_a_required_gap_is_missing() -> None:
    """A required capability that is absent is missing; an optional one is not."""
    assert Report((NO_NETEM, NO_NFT)).missing_required == (NO_NFT,)


def test_fixes_name_the_required_ones_first_and_each_once() -> None:
    """Two gaps with one fix give one line, and what is required leads."""
    again = Capability("nft", "people", required=False, available=False, detail="", fix="get it")
    assert Report((NO_NETEM, again, NO_NFT)).fixes == ("get it", "modprobe it")


def test_json_holds_every_field() -> None:
    """The JSON form has the verdict and all fields of each capability."""
    document = json.loads(json.dumps(Report((VETH, NO_NFT)).to_json()))
    assert document["ready"] is False
    assert document["capabilities"][1] == {
        "name": "nftables",
        "needed_for": "every lab",
        "required": True,
        "available": False,
        "detail": "no library",
        "fix": "get it",
        "tried": True,
    }


def test_text_shows_what_was_seen_and_what_to_do() -> None:
    """The text form is a table, then each gap with its fix, then the verdict."""
    assert Report((VETH, NO_NFT, NO_NETEM)).to_text().splitlines() == [
        "ok       veth      made a pair",
        "MISSING  nftables  no library",
        "absent   netem     unknown",
        "",
        "No lab comes up without:",
        "  nftables, for every lab",
        "    fix: get it",
        "",
        "Optional:",
        "  netem, for delay",
        "    fix: modprobe it",
        "",
        "This computer is not ready.",
    ]


def test_text_of_a_ready_computer_says_so() -> None:
    """Without gaps there is no list of fixes."""
    assert Report((VETH,)).to_text() == "ok       veth  made a pair\n\nThis computer is ready."


def test_what_was_not_tried_is_neither_there_nor_missing() -> None:
    """Without rights most things cannot be tried; the report lists the rights and counts the rest."""
    rights = Capability("rights", "every lab", required=True, available=False, detail="user 1000", fix="sudo")
    veth = Capability("veth", "every lab", required=True, available=False, detail="needs rights", tried=False)
    report = Report((rights, veth))
    assert report.missing_required == (rights,)
    assert report.to_text().splitlines() == [
        "MISSING  rights  user 1000",
        "untried  veth    needs rights",
        "",
        "No lab comes up without:",
        "  rights, for every lab",
        "    fix: sudo",
        "",
        "Not tried yet: 1. Put right what comes before, and look again.",
        "",
        "This computer is not ready.",
    ]
