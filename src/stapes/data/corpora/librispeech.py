"""LibriSpeech: read audiobooks (Panayotov et al., ICASSP 2015), as openslr.org/12 unpacks.

    LibriSpeech/train-clean-100/19/198/19-198.trans.txt     one line an utterance: 19-198-0000 NORTHANGER ABBEY
    LibriSpeech/train-clean-100/19/198/19-198-0000.flac

Each part becomes a split of its own name. The transcripts are all capitals, which say nothing; they are lower-cased.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_named, read_text, require
from stapes.types import Utterance


def librispeech(source: Path) -> Iterator[Row]:
    """Read all parts under ``source``: the folder LibriSpeech, the one around it, or a single part.

    Raises:
        DataError: there is no transcript file under ``source``.
    """
    transcripts = sorted(source.rglob("*.trans.txt"))
    require(bool(transcripts), source, "PART/SPEAKER/CHAPTER/*.trans.txt under it")
    for path in transcripts:
        for line in read_text(path).splitlines():
            name, _, text = line.partition(" ")
            if name:
                yield Row(
                    path.resolve().parents[2].name,
                    Utterance(
                        id=name,
                        audio=audio_named(path.parent / name, ".flac"),
                        text=text.strip().lower(),
                        duration=UNMEASURED,
                        speaker=name.split("-")[0],
                        language="en",
                    ),
                )
