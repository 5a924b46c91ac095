"""What a corpus reader gives, and what several readers need.

A reader is a function ``(source: Path) -> Iterator[Row]`` over a corpus in the layout in which it is published. It says what
the corpus says; looking at the sound, dropping what cannot be used and writing manifests is the business of ``prepare.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from stapes.errors import DataError
from stapes.types import Utterance

UNMEASURED = 0.0
"""The duration of an utterance that the corpus does not give: it is read from the sound file."""

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".mp4", ".webm", ".aiff", ".aif"})


@dataclass(frozen=True)
class Row:
    """One utterance of a corpus.

    Attributes:
        split: the manifest it belongs to ("train").
        utterance: what the corpus says of it; ``duration`` may be UNMEASURED.
        problem: why it cannot be used, where the corpus itself already shows that.
    """

    split: str
    utterance: Utterance
    problem: str = ""


def files(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """All files under ``folder`` with one of some endings, sorted by path; hidden ones are left out."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield path


def audio_files(folder: Path) -> Iterator[Path]:
    """All sound files under ``folder``, as ``files`` gives them."""
    return files(folder, AUDIO_SUFFIXES)


def audio_named(stem: Path, suffix: str) -> Path:
    """The sound file ``stem`` + ``suffix``, or the same in another format where only that is there (a converted corpus)."""
    official = stem.parent / (stem.name + suffix)
    if official.is_file():
        return official
    others = (stem.parent / (stem.name + other) for other in sorted(AUDIO_SUFFIXES))
    return next((path for path in others if path.is_file()), official)


def language_code(tag: str) -> str:
    """The language of a corpus's tag: zh-CN, cmn_hans_cn -> zh; sv-SE, sv_se -> sv; es_419 -> es.

    It is ISO 639-1 where that has the language. Regions and scripts are dropped: that is ours, so that corpora can be mixed.
    """
    code = tag.replace("_", "-").split("-")[0].lower()
    return "zh" if code == "cmn" else code


def read_text(path: Path) -> str:
    """The content of a text file of a corpus; raises DataError unless it is UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"byte {error.start} is not UTF-8", "UTF-8 text", "convert the file") from None


def require(found: bool, source: Path, layout: str) -> None:
    """Raise DataError unless the corpus was ``found`` in ``source``; ``layout`` says what is looked for."""
    if not source.exists():
        raise DataError(source, "no such file or folder", layout)
    if not found:
        raise DataError(source, "not this corpus", layout)
