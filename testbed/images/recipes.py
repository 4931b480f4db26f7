"""Folders with a ``Dockerfile``: found by name or path, what they are based on, and the digest of it all."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from testbed.errors import InputError

__all__ = ["CONTAINERS", "DOCKERFILE", "Recipe", "names", "recipe"]

#: The images that come with the testbed.
CONTAINERS = Path(__file__).parents[2] / "containers"
DOCKERFILE = "Dockerfile"
_DIGITS = 12
_ARGUMENT = re.compile(r"^\s*ARG\s+(BASE|ROOT)(?:=[\"']?([^\"'\s]*)[\"']?)?\s*$", re.MULTILINE)
_DEFAULT_BASE = "base"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A folder that makes an image.

    Attributes:
        name: The image's name; the folder's, as the engine can take it.
        folder: Where its ``Dockerfile`` is.
        base: What it is based on (``ARG BASE``), if that is a folder of images too.
        needs_root: Whether it starts from Debian itself (``ARG ROOT``).
        digest: Of its files, their modes, and its base; 12 hexadecimal digits.
    """

    name: str
    folder: Path
    base: Recipe | None
    needs_root: bool
    digest: str

    @property
    def reference(self) -> str:
        """What the engine calls the image: another content is another image."""
        return f"testbed/{self.name}:{self.digest}"


def names() -> tuple[str, ...]:
    """The container images that come with the testbed."""
    return tuple(sorted(path.parent.name for path in CONTAINERS.glob(f"*/{DOCKERFILE}")))


def recipe(build: str, document_folder: Path) -> Recipe:
    """What ``runtime.build`` of a document means.

    Args:
        build: A folder with a ``Dockerfile``, relative to the document; or a name in ``containers/``, beside the
            document's folder or of the testbed itself.
        document_folder: Where the document is.

    Raises:
        InputError: There is no such folder, or the images are based on each other in a circle.
    """
    return _read(_find(build, document_folder), document_folder, ())


def _find(build: str, document_folder: Path) -> Path:
    places = [document_folder / build]
    if Path(build).name == build:
        places += [document_folder.parent / "containers" / build, CONTAINERS / build]
    for place in places:
        if (place / DOCKERFILE).is_file():
            return place.resolve()
    for place in places:
        if place.is_dir():
            raise InputError(
                f"build: {place} has no {DOCKERFILE}", fix=f"write one, or use one of: {', '.join(names())}"
            )
    close = get_close_matches(build, names(), n=1)
    fix = f"did you mean {close[0]!r}?" if close else f"a folder from the document, or one of: {', '.join(names())}"
    raise InputError(f"build: there is no folder {build!r} with a {DOCKERFILE}", fix=fix)


def _read(folder: Path, document_folder: Path, above: tuple[Path, ...]) -> Recipe:
    if folder in above:
        circle = " -> ".join(path.name for path in (*above[above.index(folder) :], folder))
        raise InputError(f"build: images are based on each other: {circle}", fix="start one of them from another image")
    arguments = dict(_ARGUMENT.findall((folder / DOCKERFILE).read_text(errors="replace")))
    base = None
    if "BASE" in arguments:
        base = _base(arguments["BASE"] or _DEFAULT_BASE, folder, document_folder, (*above, folder))
    return Recipe(_name(folder), folder, base, "ROOT" in arguments, _digest(folder, base))


def _base(build: str, folder: Path, document_folder: Path, above: tuple[Path, ...]) -> Recipe | None:
    """The recipe of a base that is a folder beside this one or in ``containers/``; None: the engine knows it."""
    if Path(build).name != build:
        return None
    for place in (folder.parent, document_folder.parent / "containers", CONTAINERS):
        if (place / build / DOCKERFILE).is_file():
            return _read((place / build).resolve(), document_folder, above)
    return None


def _name(folder: Path) -> str:
    """The folder's name in the letters of a repository's name."""
    return re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "image"


def _digest(folder: Path, base: Recipe | None) -> str:
    total = hashlib.sha256((base.digest if base else "").encode())
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            kind, content = "link", str(path.readlink()).encode()
        elif path.is_file():
            # Of the mode only what git keeps: the rest depends on who checked it out.
            kind, content = ("program" if path.stat().st_mode & 0o100 else "file"), path.read_bytes()
        else:
            continue
        head = f"{kind} {path.relative_to(folder)}\0{len(content)}\0"
        total.update(head.encode() + content)
    return total.hexdigest()[:_DIGITS]
