"""MuST-C, v1 to v3: TED talks in English, translated (Di Gangi et al., NAACL 2019), as its archives unpack.

    en-de/data/train/txt/train.yaml     - {duration: 3.5, offset: 16.08, rW: 9, uW: 0, speaker_id: spk.767, wav: ted_767.wav}
    en-de/data/train/txt/train.en       a line a segment: the transcript
    en-de/data/train/txt/train.de       a line a segment: its translation
    en-de/data/train/wav/ted_767.wav    the whole talk

The source is the folder of one pair, or the one around several. Every pair has cut the talks for itself. Segments that are
the same in several pairs (talk, offset, duration and transcript) merge into one utterance with several translations. All
others stay utterances of their own, so that the same words may be there twice, cut otherwise; prepare one pair alone where
that matters. Ids begin with the talk, so that talks stay together when data is held out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from stapes.data.corpora.base import Row, audio_named, language_code, read_text, require
from stapes.errors import DataError
from stapes.types import Utterance

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # minutes become seconds


def must_c(source: Path) -> Iterator[Row]:
    """Read all pairs and splits in ``source``.

    Yields:
        A row for every segment; one without a translation into a language lacks that language.

    Raises:
        DataError: there is no such pair, a file of one is missing, its files differ in length, or a segment is malformed.
    """
    pairs = [source, *sorted(source.glob("en-*"))]
    pairs = [pair for pair in pairs if pair.resolve().name.startswith("en-")]
    tables = [path for pair in pairs for path in sorted(pair.glob("data/*/txt/*.yaml"))]
    require(bool(tables), source, "en-LANGUAGE/data/SPLIT/txt/SPLIT.yaml in it")
    rows: dict[tuple[str, ...], Row] = {}
    taken: set[tuple[str, str]] = set()
    for table in tables:
        split, target = table.stem, table.resolve().parents[3].name.removeprefix("en-")
        language = language_code(target)
        for utterance, translation in _segments(table, target):
            key = (split, utterance.id, utterance.text)
            if key in rows and language in rows[key].utterance.translations:
                yield Row(split, utterance, "segment written twice in one pair")
                continue
            if key not in rows:
                if (split, utterance.id) in taken:  # the same stretch, written down otherwise
                    utterance = replace(utterance, id=f"{utterance.id}_{target}")
                taken.add((split, utterance.id))
                rows[key] = Row(split, utterance)
            if translation:
                found = rows[key].utterance
                rows[key] = replace(
                    rows[key], utterance=replace(found, translations=found.translations | {language: translation})
                )
    yield from rows.values()


def _segments(table: Path, target: str) -> Iterator[tuple[Utterance, str]]:
    """The segments of one split of one pair, each with its translation."""
    try:
        segments = yaml.load(read_text(table), LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(f"{table}:{mark.line + 1}" if mark else table, "not YAML", "a list of segments") from None
    if not isinstance(segments, list):
        raise DataError(table, type(segments).__name__, "a list of segments")
    transcripts, translations = (_lines(table.with_suffix(f".{code}"), len(segments)) for code in ("en", target))
    for number, (segment, text, translation) in enumerate(zip(segments, transcripts, translations, strict=True), start=1):
        talk, speaker, start, duration = _checked(f"{table}: segment {number}", segment)
        utterance = Utterance(
            id=f"{Path(talk).stem.replace('_', '-')}_{start:.3f}_{duration:.3f}",
            audio=audio_named(table.parents[1] / "wav" / Path(talk).stem, Path(talk).suffix),
            text=text,
            duration=duration,
            start=start,
            speaker=speaker,
            language="en",
        )
        yield utterance, translation


def _lines(path: Path, count: int) -> list[str]:
    """The lines of a text; only a newline ends one, whatever other separators of Unicode the text has."""
    if not path.is_file():
        raise DataError(path, "no such file", "a line for each segment of the YAML beside it")
    lines = read_text(path).removesuffix("\n").split("\n")
    if len(lines) != count:
        raise DataError(path, f"{len(lines)} lines", f"{count}, as many as the YAML beside it has segments")
    return [line.strip() for line in lines]


def _checked(where: str, segment: Any) -> tuple[str, str | None, float, float]:
    """(wav, speaker, start, duration) of a segment."""
    try:
        start, duration = float(segment["offset"]), float(segment["duration"])
        talk, speaker = str(segment["wav"]), segment.get("speaker_id")
    except (KeyError, TypeError, ValueError):
        raise DataError(where, str(segment)[:80], "wav, and offset and duration in seconds") from None
    if not (start >= 0 and duration > 0 and math.isfinite(start + duration)):
        raise DataError(where, f"offset {start}, duration {duration}", "0 or more, and more than 0")
    return talk, str(speaker) if speaker else None, start, duration
