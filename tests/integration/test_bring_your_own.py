"""The recipes of docs/bring-your-own-nva.md, taken from the page as they stand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT, testbed

from testbed.images import ensure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = (ROOT / "docs" / "bring-your-own-nva.md").read_text()


def block(language: str, words: str) -> str:
    """The one block of the page in this language that has these words."""
    (found,) = [
        text for text in re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if words in text
    ]
    return str(found)


def document(folder: Path, machines: str) -> Path:
    """What the page says: the ready topology with other appliances, and without the internet."""
    text = (ROOT / "topologies" / "hub-spoke.yaml").read_text()
    first, web = text.index("  - name: nva1"), text.index("  - name: web1")
    path = folder / "my-nva.yaml"
    path.write_text((text[:first] + machines + text[web : text.index("internet:")]).replace("hub-spoke", "my-nva", 1))
    return path


@pytest.mark.parametrize(("kind", "scale"), [("container", 0.02), ("vm", 0.2)])
def test_a_recipe_is_an_nva(lab: Callable[..., str], tmp_path: Path, kind: str, scale: float) -> None:
    """Nothing but what the page says: it comes up, is ready, symmetric, and fails over."""
    machines = block("yaml", f"kind: {kind}")
    if "debian:bookworm-slim" in machines:  # the same, where no registry is reached
        ensure("base", ROOT / "topologies")
        machines = machines.replace("debian:bookworm-slim", "testbed/root:bookworm-slim")
    (tmp_path / "router.sh").write_text(block("sh", "appliance is forwarding"))
    (tmp_path / "router.sh").chmod(0o755)
    name = lab(document(tmp_path, machines), time_scale=scale, wait=120)
    assert testbed("verify", name, "--json", timeout=300).json["verdict"] == "pass"


NIC = (
    "{subnet: hub/nva, private_ip_address: 10.0.1.4, enable_ip_forwarding: true, backend_address_pools: [nva-lb/nvas]}"
)


def test_the_page_speaks_of_keys_that_are_there(tmp_path: Path) -> None:
    """Fragments that need other hardware or images are documents too, once they are put in place."""
    fragments = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(fragments) == 2
    for text in fragments:
        machine = text if "- name:" in text else f"  - name: nva1\n{text}    network_interfaces:\n      - {NIC}\n"
        done = testbed("validate", document(tmp_path, machine), check=False)
        assert done.status == 0, done.out + done.err
