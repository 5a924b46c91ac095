"""The table of packs (``packs.toml``): which packages carry which weights, and the digests that they must have."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from stapes.errors import WeightsError
from stapes.hub.cache import cache_folder, is_whole
from stapes.registry import nearest


@dataclass(frozen=True)
class Package:
    """A package of the Python registry, pinned.

    Attributes:
        name, version: as pip takes them.
        bytes: its size, for the progress bar.
        sha256: of the wheel.
    """

    name: str
    version: str
    bytes: int
    sha256: str

    @property
    def requirement(self) -> str:
        """``name==version``."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Copy:
    """One place where a pack's weights can be had.

    Attributes:
        format: "ctranslate2", "openai", "gguf", or "folder", which stays as it is.
        packages: all of them are needed.
        file: the parts of the weights' file in order, each "package/path/in/package"; of a folder, its files.
        sha256: of the joined file, or of the folder's files one after the other.
        extras: what lies beside the weights, by role; each "package/path/in/package".
    """

    format: str
    packages: tuple[Package, ...]
    file: tuple[str, ...]
    sha256: str
    extras: dict[str, str]

    @property
    def label(self) -> str:
        """The packages, for messages."""
        return " + ".join(package.requirement for package in self.packages)


@dataclass(frozen=True)
class Pack:
    """Weights that ship inside packages.

    Attributes:
        name: as in ``pack:name``.
        what: what it is, for people.
        licence: SPDX identifier.
        model: "whisper", "llama" or "spacy".
        tensors: ``stapes.hub.digest`` of the converted tensors; of a folder that stays as it is, of its files.
        bytes: size of the converted tensors, or of such a folder.
        copies: tried in order.
    """

    name: str
    what: str
    licence: str
    model: str
    tensors: str
    bytes: int
    copies: tuple[Copy, ...]

    @property
    def library(self) -> str:
        """Whose layout the folder is in."""
        return "spacy" if self.model == "spacy" else "transformers"

    @property
    def folder(self) -> Path:
        """Where the converted weights lie once fetched."""
        return cache_folder() / "weights" / f"{self.name}-{self.tensors[:12]}"


@dataclass(frozen=True)
class Row:
    """A line of ``stapes ls``: a pack, and where it lies if it was fetched.

    Attributes:
        name, what, licence: as in the table of packs.
        download_bytes: what fetching it costs, by its first copy.
        bytes: what it takes in the cache.
        folder: where it lies; None until it is fetched.
    """

    name: str
    what: str
    licence: str
    download_bytes: int
    bytes: int
    folder: Path | None


def read_packs(path: Path | None = None) -> dict[str, Pack]:
    """Read a table of packs.

    Args:
        path: a TOML file in the form of ``packs.toml``; None for the table of the package.
    """
    text = (path or resources.files("stapes.hub") / "packs.toml").read_text(encoding="utf-8")
    return {name: _pack(name, entry) for name, entry in tomllib.loads(text).items()}


def _pack(name: str, entry: dict[str, Any]) -> Pack:
    copies = tuple(
        Copy(
            format=copy["format"],
            packages=tuple(Package(**package) for package in copy["packages"]),
            file=tuple(copy["file"]),
            sha256=copy["sha256"],
            extras=copy.get("extras", {}),
        )
        for copy in entry["copies"]
    )
    return Pack(**{**entry, "copies": copies, "name": name})


def packs() -> dict[str, Pack]:
    """The packs that ``pack:`` can name."""
    return read_packs()


def find_pack(name: str) -> Pack:
    """The pack called ``name``.

    Raises:
        WeightsError: there is none; names the nearest.
    """
    table = packs()
    if name not in table:
        raise WeightsError(f"pack:{name}", "no such pack", fix=nearest(name, table))
    return table[name]


def available() -> list[Row]:
    """Every pack, and where it lies if it is in the cache."""
    return [
        Row(
            name=pack.name,
            what=pack.what,
            licence=pack.licence,
            download_bytes=sum(package.bytes for package in pack.copies[0].packages),
            bytes=pack.bytes,
            folder=pack.folder if is_whole(pack.folder) else None,
        )
        for pack in packs().values()
    ]
