"""A CSV or TSV table with one utterance a row.

    audio,text,speaker                  columns audio and text are needed; id, start, duration, speaker, language, raw_text,
    clips/a.mp3,"Good morning.",mary    sentiment, kind and split are used where they are there; others are ignored

Paths are relative to the table's folder, or absolute. Commas, semicolons, tabs and bars are recognised by the header.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, read_text, require
from stapes.errors import DataError
from stapes.types import Utterance

COLUMNS = ("audio", "text", "id", "start", "duration", "speaker", "language", "raw_text", "sentiment", "kind", "split")
NEEDED = COLUMNS[:2]
BEYOND = "fields beyond the last column"


def table(source: Path) -> Iterator[Row]:
    """Read a table, or all tables of a folder.

    Args:
        source: a .csv or .tsv file, whose rows go to ``train`` unless a column ``split`` says otherwise; or a folder of
            such files, each a split of its name.

    Raises:
        DataError: no table, a needed column missing, a column that looks misspelt, or a number that is none.
    """
    if source.is_dir():
        paths = sorted(path for path in source.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
        require(bool(paths), source, "a .csv or .tsv file, or a folder with some")
        for path in paths:
            yield from _rows(path, path.stem)
    else:
        require(source.is_file(), source, "a .csv or .tsv file, or a folder with some")
        yield from _rows(source, "train")


def _rows(path: Path, split: str) -> Iterator[Row]:
    lines = io.StringIO(read_text(path), newline="")
    header = lines.readline()
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=max(",;\t|", key=header.count), restkey=BEYOND, restval="")
    _check_columns(path, list(reader.fieldnames or []))
    try:
        for values in reader:
            where = f"{path}:{reader.line_num}"
            if any(values.pop(BEYOND, [])):
                raise DataError(where, "more fields than columns", "as many", "put texts that hold the separator into quotes")
            yield _row(where, path.parent, split, {key: value.strip() for key, value in values.items()})
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}", str(error), "a row of the table") from None


def _check_columns(path: Path, columns: list[str]) -> None:
    for needed in NEEDED:
        if needed not in columns:
            raise DataError(path, f"no column '{needed}' among {', '.join(columns)}", fix="rename the column that holds it")
    for column in columns:
        close = difflib.get_close_matches(column, COLUMNS, n=1, cutoff=0.8)
        if column not in COLUMNS and close and close[0] not in columns:
            raise DataError(path, f"unknown column '{column}'", fix=f"did you mean '{close[0]}'?")


def _row(where: str, folder: Path, split: str, values: dict[str, str]) -> Row:
    audio = values["audio"]
    start = _seconds(where, "start", values.get("start"))
    name = Path(audio or where).with_suffix("").as_posix() + (f"-{start:.3f}" if start else "")
    utterance = Utterance(
        id=values.get("id") or name,
        audio=folder / audio,
        text=values["text"],
        duration=_seconds(where, "duration", values.get("duration")),
        start=start,
        speaker=values.get("speaker") or None,
        language=values.get("language") or None,
        raw_text=values.get("raw_text") or None,
        sentiment=values.get("sentiment") or None,
        kind=values.get("kind") or None,
    )
    return Row(values.get("split") or split, utterance, "" if audio else "no audio")


def _seconds(where: str, column: str, written: str | None) -> float:
    if not written:
        return UNMEASURED
    try:
        return float(written)
    except ValueError:
        raise DataError(where, f"'{column}' is {written!r}", "seconds") from None
