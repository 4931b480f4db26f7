"""Golden files: one bad document per mistake, with the exact words that the user reads."""

from __future__ import annotations

import ast
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed.errors import DocumentError
from testbed.topology import rules, wording
from testbed.topology.draft import Draft
from testbed.topology.loading import check, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.topology.findings import Finding

ERRORS = Path(__file__).parent / "errors"
DOCUMENTS = sorted(ERRORS.glob("*.yaml"))
RULES = sorted(path for path in Path(rules.__file__).parent.glob("*.py") if path.name != "__init__.py")


@pytest.fixture(autouse=True)
def _beside_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings name the file as it was given; so the golden files hold no machine's paths."""
    monkeypatch.chdir(ERRORS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_bad_document_says_what_is_wrong(document: Path) -> None:
    """Exactly these words; ``UPDATE_GOLDEN=1`` writes them anew."""
    golden = document.with_suffix(".txt")
    _, findings = check(Path(document.name))
    text = "".join(f"{each}\n" for each in findings)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert findings != ()
    assert text == golden.read_text()


def test_every_golden_text_has_its_document() -> None:
    """No text stays behind when its document goes."""
    assert {path.stem for path in ERRORS.glob("*.txt")} == {path.stem for path in DOCUMENTS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_errors_refuse_a_document_and_warnings_do_not(document: Path) -> None:
    """``check`` and ``load`` agree, and the error carries every finding and its words."""
    topology, findings = check(document)
    wrong = any(each.severity == "error" for each in findings)
    assert (topology is None) == wrong
    if not wrong:
        assert load(document).warnings == findings
        return
    with pytest.raises(DocumentError) as caught:
        load(document)
    assert caught.value.findings == findings
    assert all(str(each) in str(caught.value) for each in findings)


def _call_sites(path: Path) -> set[tuple[str, int, int]]:
    """Where a rule module makes a finding."""
    return {
        (path.name, node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"error", "warning"}
    }


def test_every_message_of_every_rule_has_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding that no golden file shows is a finding that nobody has read."""
    seen: set[tuple[str, int]] = set()

    def watched(original: Callable[..., Finding]) -> Callable[..., Finding]:
        def make(*args: Any, **kwargs: Any) -> Finding:
            frame = inspect.currentframe()
            assert frame is not None
            assert frame.f_back is not None
            seen.add((Path(frame.f_back.f_code.co_filename).name, frame.f_back.f_lineno))
            return original(*args, **kwargs)

        return make

    monkeypatch.setattr(Draft, "error", watched(Draft.error))
    monkeypatch.setattr(Draft, "warning", watched(Draft.warning))
    for document in DOCUMENTS:
        check(document)
    sites = set().union(*(_call_sites(path) for path in RULES))
    assert len(sites) > 40
    unseen = {site for site in sites if not any(site[0] == name and site[1] <= line <= site[2] for name, line in seen)}
    assert unseen == set()


def test_every_wording_has_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of structural error is shown by a golden file, and no other kind comes up in them."""
    seen: set[str] = set()

    def watched(error: Any) -> tuple[str, str]:
        seen.add(error["type"])
        return wording.put(error)

    monkeypatch.setattr("testbed.topology.repair.put", watched)
    for document in DOCUMENTS:
        check(document)
    assert seen == set(wording.KINDS)


def test_a_mistake_hides_no_other_and_causes_none() -> None:
    """Broken fragments and wrong references in one document: all reported, in the order of the lines."""
    _, findings = check(Path("many-mistakes.yaml"))
    assert [each.line for each in findings] == sorted(each.line for each in findings)
    assert len({(each.path, each.message) for each in findings}) == len(findings)
    assert len(findings) > 20
    assert not any("lost" in each.message for each in findings)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("two-rules-on-a-pool", "RulesUseSameBackendPortProtocolAndPool"),
        ("two-rules-on-an-interface", "RulesUseSameBackendPortProtocolAndIPConfig"),
        ("two-balancers-on-an-interface", "AnotherInternalLoadBalancerExists"),
        ("balancer-without-frontend", "LoadBalancerWithoutFrontendIPCantHaveChildResources"),
        ("frontend-with-subnet-and-public-address", "FrontendIPConfigHasBothSubnetAndPublicIP"),
        (
            "two-floating-rules-on-a-frontend",
            "RulesUseSameBackendPortProtocolAndPoolAndFrontendIPWithFloatingIPEnabled",
        ),
        ("all-with-ports", None),
        ("public-frontend", None),
        ("ha-ports-and-other-rules-on-a-pool", None),
    ],
)
def test_codes_are_azures_or_none(name: str, code: str | None) -> None:
    """Where Azure's error code is known it is given, and none is made up."""
    _, findings = check(Path(f"{name}.yaml"))
    assert {each.code for each in findings if each.code} == ({code} if code else set())
