"""SLUE-VoxCeleb: interviews with sentiment (arXiv 2111.10367), as the official archive unpacks.

    slue-voxceleb_fine-tune.tsv    slue-voxceleb_dev.tsv    slue-voxceleb_test.tsv or slue-voxceleb_test_blind.tsv
    fine-tune_raw/<id>.flac        dev_raw/<id>.flac        test_raw/<id>.flac

The tables have the columns id, normalized_text, speaker_id, split, sentiment, start_second, end_second: the utterance is that
stretch of its file. The official toolkit cuts it out into ``fine-tune/<id>.flac`` and so on, which is read where the uncut
file is not there. Sentiments are Negative, Neutral, Positive, ``<mixed>``, Disagreement; utterances with one of the last two
are left out, words and all, as the toolkit does when it makes its manifests. ``fine-tune`` becomes ``train``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_named
from stapes.data.corpora.slue import SPLITS, known, slue_rows
from stapes.errors import DataError
from stapes.text.tags import is_unsettled
from stapes.types import Utterance

LEFT_OUT = "mixed sentiment or disagreement, which the benchmark leaves out"


def slue_voxceleb(source: Path) -> Iterator[Row]:
    """Read the splits that are there.

    Args:
        source: the folder ``slue-voxceleb`` of the archive.

    Yields:
        Every row of the tables; those of a blind test set have no transcript, which is their problem, and those on which the
        annotators did not settle their sentiment.

    Raises:
        DataError: no table is there, one lacks a column, or a stretch is none.
    """
    for split, where, values in slue_rows(source, "voxceleb", ("id", "normalized_text", "sentiment")):
        audio, start, duration = _sound(source / SPLITS[split], where, values)
        utterance = Utterance(
            id=values["id"],
            audio=audio,
            text=known(values.get("normalized_text")) or "",
            duration=duration,
            start=start,
            speaker=known(values.get("speaker_id")),
            language="en",
            sentiment=known(values.get("sentiment")),
        )
        yield Row(split, utterance, LEFT_OUT if is_unsettled(utterance.sentiment or "") else "")


def _sound(folder: Path, where: str, values: dict[str, str]) -> tuple[Path, float, float]:
    """The uncut file with start and duration in it, or the file that the toolkit has cut."""
    name = values["id"]
    whole = audio_named(folder.with_name(f"{folder.name}_raw") / name, ".flac")
    cut = audio_named(folder / name, ".flac")
    if cut.is_file() and not whole.is_file():
        return cut, 0.0, UNMEASURED
    start, end = (_seconds(where, column, values.get(column)) for column in ("start_second", "end_second"))
    if not 0 <= start < end:
        raise DataError(where, f"from {start:g} to {end:g} s", "0 <= start_second < end_second")
    return whole, start, round(end - start, 4)


def _seconds(where: str, column: str, written: str | None) -> float:
    try:
        seconds = float(written or "")
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DataError(where, f"'{column}' is {written!r}", "seconds")
    return seconds
