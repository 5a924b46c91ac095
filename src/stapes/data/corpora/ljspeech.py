"""LJ Speech: one reader, public domain (keithito.com/LJ-Speech-Dataset), as its archive unpacks.

    LJSpeech-1.1/metadata.csv       LJ001-0001|text as printed|text with numbers and abbreviations spoken out
    LJSpeech-1.1/wavs/LJ001-0001.wav

The spoken form becomes ``text``, the printed one ``raw_text``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_named, read_text, require
from stapes.errors import DataError
from stapes.types import Utterance


def ljspeech(source: Path) -> Iterator[Row]:
    """Read the corpus into one split, ``train``.

    Raises:
        DataError: there is no metadata.csv in ``source``, or one of its lines has no text.
    """
    metadata = source / "metadata.csv"
    require(metadata.is_file(), source, "metadata.csv and wavs/ in it")
    for number, line in enumerate(read_text(metadata).split("\n"), start=1):
        if not line.strip():
            continue
        name, *texts = (field.strip() for field in line.split("|"))
        if not texts:
            raise DataError(f"{metadata}:{number}", repr(line[:60]), "id|text|spoken text")
        utterance = Utterance(
            id=name,
            audio=audio_named(source / "wavs" / name, ".wav"),
            text=texts[-1],
            duration=UNMEASURED,
            speaker="LJ",
            language="en",
            raw_text=texts[0],
        )
        yield Row("train", utterance)
