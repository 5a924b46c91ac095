"""FLEURS: the same sentences read in 102 languages (Conneau et al., SLT 2022), as published (google/fleurs on the hub).

    data/en_us/train.tsv            id, file, raw_transcription, transcription, chars, num_samples, gender; no header
    data/en_us/audio/train/*.wav    from audio/train.tar.gz; data/en_us/train/*.wav is found too

Several recordings of a sentence stay utterances of their own. ``text`` is raw_transcription, with capitals and punctuation;
``translations`` are the same sentence in the other languages that are there, of the same split. An id is
``<sentence>_<language>_<file>``, so that a sentence stays together in all its languages when data is held out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_named, language_code, read_text, require
from stapes.errors import DataError
from stapes.types import Utterance

SPLITS = ("train", "dev", "test")
COLUMNS = ("id", "file", "raw_transcription", "transcription", "chars", "num_samples", "gender")


@dataclass(frozen=True)
class _Recording:
    sentence: str
    language: str
    audio: Path
    text: str


def fleurs(source: Path) -> Iterator[Row]:
    """Read the languages that are in ``source``: the repository, its folder ``data``, or the folder of one language.

    Raises:
        DataError: there is no table, or a line has not the seven fields.
    """
    patterns = [f"{at}{split}.tsv" for at in ("", "*/", "data/*/") for split in SPLITS]
    folders = sorted({path.parent for pattern in patterns for path in source.glob(pattern)})
    require(bool(folders), source, "data/LANGUAGE/train.tsv, dev.tsv or test.tsv in it")
    for split in SPLITS:
        recordings = [found for folder in folders for found in _recordings(folder, split)]
        texts: dict[str, dict[str, str]] = defaultdict(dict)
        for found in recordings:
            if found.text:
                texts[found.sentence].setdefault(found.language, found.text)
        for found in recordings:
            others = {language: text for language, text in texts[found.sentence].items() if language != found.language}
            utterance = Utterance(
                id=f"{found.sentence}_{found.language}_{found.audio.stem}",
                audio=found.audio,
                text=found.text,
                duration=UNMEASURED,
                language=found.language,
                translations=others,
            )
            yield Row(split, utterance)


def _recordings(folder: Path, split: str) -> Iterator[_Recording]:
    table = folder / f"{split}.tsv"
    if not table.is_file():
        return
    official, beside = folder / "audio" / split, folder / split
    sound = official if official.is_dir() or not beside.is_dir() else beside
    for number, line in enumerate(read_text(table).split("\n"), start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split("\t")
        if len(fields) != len(COLUMNS):
            raise DataError(f"{table}:{number}", f"{len(fields)} fields", f"{len(COLUMNS)}: {', '.join(COLUMNS)}")
        sentence, file, text = (field.strip() for field in fields[:3])
        audio = audio_named(sound / Path(file).stem, Path(file).suffix)
        yield _Recording(sentence, language_code(folder.resolve().name), audio, text)
