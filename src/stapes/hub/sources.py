"""Where weights come from: ``hf:owner/name[@revision]``, ``path:/folder`` or ``pack:name``, several tried in order."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stapes.errors import WeightsError
from stapes.hub.fetch import fetch_pack
from stapes.hub.huggingface import fetch_hf, missing_from
from stapes.hub.table import find_pack, packs
from stapes.registry import nearest

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Weights:
    """Pretrained weights on this machine.

    Attributes:
        folder: in transformers' layout: ``from_pretrained(folder)`` opens it without a network.
        source: which of the sources they came from, with its kind ("pack:whisper-base").
        revision: the hub's commit, or the digest of a pack's tensors; None for a folder of the user's.
    """

    folder: Path
    source: str
    revision: str | None


def resolve(sources: str | Sequence[str], *, progress: bool = True, library: str | None = "transformers") -> Weights:
    """Have the weights on this machine, from the first source that gives them.

    Args:
        sources: one or several of ``hf:owner/name[@revision]``, ``path:/folder`` and ``pack:name``. Without a kind, the name of
            a pack, an existing folder or ``owner/name`` is understood.
        progress: show on stderr what is downloaded.
        library: whose layout a pack has to be in ("transformers" or "spacy"); None for any.

    Returns:
        Where they lie.

    Raises:
        WeightsError: no source gives them; one line says why for each.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    if not names:
        raise WeightsError("weights", "no source given", "hf:owner/name, path:/folder or pack:name")
    failures = []
    for name in names:
        try:
            return _resolve_one(name, progress, library)
        except WeightsError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise WeightsError(
        f"weights ({len(names)} sources)",
        "none can be had: " + " | ".join(str(error) for error in failures),
        fix="mend one of these, or name a folder that holds the weights (path:/folder)",
    )


def _resolve_one(name: str, progress: bool, library: str | None) -> Weights:
    kind, _, rest = with_kind(name).partition(":")
    if kind == "pack":
        pack = find_pack(rest)
        if library not in (None, pack.library):
            raise WeightsError(f"pack:{rest}", f"a model of {pack.library}", f"one of {library}")
        return Weights(fetch_pack(pack, progress=progress), f"pack:{rest}", pack.tensors)
    if kind == "path":
        return Weights(_check_folder(Path(rest).expanduser().resolve()), f"path:{rest}", None)
    folder, revision = fetch_hf(rest, progress=progress)
    return Weights(folder, f"hf:{rest}", revision)


def within(folder: Path, source: str) -> str:
    """A source as a file in ``folder`` names it: a relative ``path:`` to a folder in there gets its whole path."""
    kind, _, rest = source.partition(":")
    is_inside = kind == "path" and rest and not Path(rest).expanduser().is_absolute() and (folder / rest).is_dir()
    return f"path:{(folder / rest).resolve()}" if is_inside else source


def with_kind(name: str) -> str:
    """The source with its kind said: "whisper-base" -> "pack:whisper-base", "owner/name" -> "hf:owner/name".

    Raises:
        WeightsError: it is none of the kinds.
    """
    kind, colon, _ = name.partition(":")
    if colon and kind in ("hf", "path", "pack"):
        return name
    if name in packs():
        return f"pack:{name}"
    if Path(name).expanduser().is_dir():
        return f"path:{name}"
    if _HUB_ID.fullmatch(name):
        return f"hf:{name}"
    raise WeightsError(name, "no such weights", "hf:owner/name, path:/folder or pack:name", nearest(name, packs()))


def _check_folder(folder: Path) -> Path:
    """The folder, if it holds a model in transformers' layout."""
    if not folder.is_dir():
        raise WeightsError(f"path:{folder}", "no such folder", "one in transformers' layout")
    if missing := missing_from(folder):
        raise WeightsError(f"path:{folder}", f"{missing} is missing", "a model in transformers' layout")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"path:{folder}/config.json", "not JSON", "a model's config", "copy it again") from error
    return folder
