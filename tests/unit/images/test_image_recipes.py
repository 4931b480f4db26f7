"""Which folder makes an image, what it is based on, and the digest that tells contents apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testbed.errors import InputError
from testbed.images import names, recipe
from testbed.images.recipes import CONTAINERS

if TYPE_CHECKING:
    from pathlib import Path


def folder(place: Path, name: str, dockerfile: str = "FROM scratch\n") -> Path:
    """A folder that makes an image."""
    path = place / name
    path.mkdir(parents=True)
    (path / "Dockerfile").write_text(dockerfile)
    return path


def test_a_name_is_looked_up_beside_the_document_first(tmp_path: Path) -> None:
    """A folder from the document wins over ``containers/`` beside its folder, and that over the testbed's own."""
    document = tmp_path / "topologies"
    document.mkdir()
    assert recipe("base", document).folder == CONTAINERS / "base"
    sibling = folder(tmp_path / "containers", "base")
    assert recipe("base", document).folder == sibling
    own = folder(document, "base")
    assert recipe("base", document).folder == own
    assert recipe("../containers/base", document).folder == sibling
    assert recipe(str(sibling), document).folder == sibling


def test_the_reference_names_folder_and_digest(tmp_path: Path) -> None:
    """The engine's name is made of letters that it takes, and of twelve digits."""
    found = recipe(str(folder(tmp_path, "My NVA_2")), tmp_path)
    assert found.reference == f"testbed/my-nva-2:{found.digest}"
    assert len(found.digest) == 12
    assert int(found.digest, 16) >= 0


def test_the_digest_is_of_contents_and_modes(tmp_path: Path) -> None:
    """Every change that gets into the image changes the digest, and undoing it brings the old one back."""
    path = folder(tmp_path, "nva")
    script = path / "rootfs" / "script"
    script.parent.mkdir()
    script.write_text("one")
    digests = [recipe("nva", tmp_path).digest]

    def changed() -> None:
        digests.append(recipe("nva", tmp_path).digest)

    script.write_text("two")
    changed()
    script.chmod(0o755)
    changed()
    script.rename(script.with_name("renamed"))
    changed()
    script.symlink_to("renamed")
    changed()
    script.unlink()
    script.symlink_to("elsewhere")
    changed()
    assert len(set(digests)) == len(digests)
    script.unlink()
    script.write_text("one")
    script.with_name("renamed").unlink()
    assert recipe("nva", tmp_path).digest == digests[0]


def test_who_checked_it_out_does_not_matter(tmp_path: Path) -> None:
    """Modes that git does not keep, and times, are no part of the digest."""
    path = folder(tmp_path, "nva") / "Dockerfile"
    path.chmod(0o600)
    first = recipe("nva", tmp_path).digest
    path.chmod(0o664)
    path.touch()
    assert recipe("nva", tmp_path).digest == first


def test_the_digest_covers_the_base(tmp_path: Path) -> None:
    """A changed base is another image of all that are based on it."""
    base = folder(tmp_path, "mine")
    folder(tmp_path, "middle", "ARG BASE=mine\nFROM ${BASE}\n")
    folder(tmp_path, "top", 'ARG BASE="middle"\nFROM $BASE\n')
    before = recipe("top", tmp_path)
    assert before.base is not None
    assert before.base.base is not None
    assert before.base.base.folder == base
    (base / "file").write_text("new")
    assert recipe("top", tmp_path).digest != before.digest


@pytest.mark.parametrize(
    ("dockerfile", "base"),
    [
        ("ARG BASE\nFROM ${BASE}\n", "base"),
        ("ARG BASE=nft-firewall\nFROM ${BASE}\n", "nft-firewall"),
        ("ARG BASE=debian:bookworm\nFROM ${BASE}\n", None),
        ("ARG BASE=registry.example/image\nFROM ${BASE}\n", None),
        ("FROM debian\n# ARG BASE\n", None),
    ],
)
def test_only_a_folder_is_a_base(tmp_path: Path, dockerfile: str, base: str | None) -> None:
    """``ARG BASE`` means ``containers/base``, its default a folder of that name; other references are left alone."""
    found = recipe(str(folder(tmp_path, "nva", dockerfile)), tmp_path).base
    assert (found.name if found else None) == base


def test_a_circle_is_refused(tmp_path: Path) -> None:
    """Images that are based on each other cannot be built; the message names them."""
    folder(tmp_path, "one", "ARG BASE=two\nFROM ${BASE}\n")
    folder(tmp_path, "two", "ARG BASE=one\nFROM ${BASE}\n")
    with pytest.raises(InputError, match="one -> two -> one"):
        recipe("one", tmp_path)


def test_a_wrong_name_gets_a_suggestion(tmp_path: Path) -> None:
    """The error says what was looked for and what may have been meant."""
    with pytest.raises(InputError, match=r"there is no folder 'nft-firewal'") as caught:
        recipe("nft-firewal", tmp_path)
    assert caught.value.fix == "did you mean 'nft-firewall'?"
    with pytest.raises(InputError, match=r"there is no folder 'some/where'") as caught:
        recipe("some/where", tmp_path)
    assert "nft-firewall" in caught.value.fix


def test_a_folder_without_a_dockerfile_is_refused(tmp_path: Path) -> None:
    """The error names the folder."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no Dockerfile"):
        recipe("./empty", tmp_path)


def test_every_image_of_the_testbed_has_a_readme_and_starts_from_the_base() -> None:
    """All are found, all lead to Debian by way of ``base``, and each says what it is."""
    assert {"base", "endpoint", "frr-router", "nft-firewall", "shallow-probe", "snat-gateway", "suricata-ips"} == {
        *names()
    }
    for name in names():
        found = recipe(name, CONTAINERS)
        assert (found.folder / "README.md").is_file()
        while found.base:
            found = found.base
        assert found.name == "base"
        assert found.needs_root
    assert (CONTAINERS / "vm-firewall" / "README.md").is_file()
