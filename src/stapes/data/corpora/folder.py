"""A plain folder: sound files, each with a text file of the same name beside it; and a folder of sound without speech.

    recordings/visit_01.wav     recordings/visit_01.txt     recordings/monday/note.m4a     recordings/monday/note.txt

What lies under a top folder called train, dev or test goes to that split, everything else to ``train``. The id of an
utterance is its path without the ending: ``monday/note``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_files, files, read_text, require
from stapes.data.manifest import NON_SPEECH
from stapes.errors import DataError
from stapes.types import Utterance

SPLITS = ("train", "dev", "test")


def folder(source: Path) -> Iterator[Row]:
    """Read all sound files under ``source``, with their transcripts.

    Yields:
        A row for every sound file; a transcript that is missing or not UTF-8 is the row's problem. A text without a sound is a
        row with that problem.

    Raises:
        DataError: there is no sound file under ``source``.
    """
    lonely = set(files(source, [".txt"]))
    for path, split, name in _sounds(source, "sound files, each with a .txt of the same name beside it"):
        text, problem = _transcript(path.with_suffix(".txt"))
        lonely.discard(path.with_suffix(".txt"))
        yield Row(split, Utterance(name, path, text, UNMEASURED), problem)
    for path, split, name in _placed(source, sorted(lonely)):
        yield Row(split, Utterance(name, path, "", UNMEASURED), f"no sound beside {path.name}")


def noise(source: Path) -> Iterator[Row]:
    """Read all sound files under ``source`` as sound without speech (the folder ``noise`` of MUSAN, for one).

    Raises:
        DataError: there is no sound file under ``source``.
    """
    for path, split, name in _sounds(source, "sound files"):
        yield Row(split, Utterance(name, path, "", UNMEASURED, kind=NON_SPEECH))


def _sounds(source: Path, layout: str) -> Iterator[tuple[Path, str, str]]:
    paths = list(audio_files(source)) if source.is_dir() else []
    require(bool(paths), source, f"a folder with {layout}")
    yield from _placed(source, paths)


def _placed(source: Path, paths: Iterable[Path]) -> Iterator[tuple[Path, str, str]]:
    """Each path with its split and its id."""
    for path in paths:
        relative = path.relative_to(source)
        split = relative.parts[0] if len(relative.parts) > 1 and relative.parts[0] in SPLITS else "train"
        yield path, split, relative.with_suffix("").as_posix()


def _transcript(path: Path) -> tuple[str, str]:
    """The text on one line, and what is wrong with it."""
    if not path.is_file():
        return "", f"no transcript {path.name} beside it"
    try:
        return " ".join(read_text(path).split()), ""
    except DataError as error:
        return "", f"transcript {path.name}: {error.found}"
