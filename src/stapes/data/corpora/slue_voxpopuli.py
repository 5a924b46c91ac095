"""SLUE-VoxPopuli: European Parliament speech with named entities (arXiv 2111.10367), as the official archive unpacks.

    slue-voxpopuli_fine-tune.tsv    slue-voxpopuli_dev.tsv    slue-voxpopuli_test.tsv or slue-voxpopuli_test_blind.tsv
    fine-tune/<id>.ogg              dev/<id>.ogg              test/<id>.ogg

The tables have the columns id, raw_text, normalized_text, speaker_id, split, raw_ner, normalized_ner. An entity is written
``['GPE', 100, 14]``: raw tag, first character, number of characters. The split ``fine-tune`` becomes ``train``.
"""

from __future__ import annotations

import ast
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_named, read_text, require
from stapes.errors import DataError
from stapes.types import Entity, Utterance

SPLITS = {"train": "fine-tune", "dev": "dev", "test": "test"}


def slue_voxpopuli(source: Path) -> Iterator[Row]:
    """Read the splits that are there.

    Args:
        source: the folder ``slue-voxpopuli`` of the archive.

    Yields:
        Every row of the tables; those of a blind test set have no transcript, which is their problem.

    Raises:
        DataError: no table is there, one lacks a column, or its entities cannot be read.
    """
    tables = {split: _table(source, name) for split, name in SPLITS.items()}
    require(any(tables.values()), source, "slue-voxpopuli_fine-tune.tsv or slue-voxpopuli_dev.tsv in it")
    for split, table in tables.items():
        if table is not None:
            yield from _rows(split, table, source / SPLITS[split])


def _table(source: Path, name: str) -> Path | None:
    candidates = (source / f"slue-voxpopuli_{name}{ending}.tsv" for ending in ("", "_blind"))
    return next((path for path in candidates if path.is_file()), None)


def _rows(split: str, table: Path, folder: Path) -> Iterator[Row]:
    # Fields are quoted as in CSV: the official toolkit reads these tables with pandas' defaults.
    reader = csv.DictReader(io.StringIO(read_text(table), newline=""), dialect="excel-tab")
    columns = reader.fieldnames or []
    if "id" not in columns or ("normalized_text" not in columns and split != "test"):
        raise DataError(table, f"columns {', '.join(columns)}", "id and normalized_text among them")
    for values in reader:
        where = f"{table}:{reader.line_num}"
        text, raw_text = _known(values.get("normalized_text")), _known(values.get("raw_text"))
        utterance = Utterance(
            id=values["id"],
            audio=audio_named(folder / values["id"], ".ogg"),
            text=text or "",
            duration=UNMEASURED,
            speaker=_known(values.get("speaker_id")),
            language="en",
            entities=_entities(values.get("normalized_ner"), text, where),
            raw_text=raw_text,
            raw_entities=_entities(values.get("raw_ner"), raw_text, where),
        )
        yield Row(split, utterance)


def _known(value: str | None) -> str | None:
    """The tables write what is unknown as nothing, as ``None`` or as ``nan``. Offsets forbid stripping what is known."""
    return None if value is None or value.strip() in ("", "None", "nan") else value


def _entities(written: str | None, text: str | None, where: str) -> tuple[Entity, ...] | None:
    """Parse ``[['LAW', 86, 18], ...]``; None where the table has no such column or there is no text to point into."""
    if written is None or text is None:
        return None
    if _known(written) is None:
        return ()
    try:
        spans = [(str(label), int(start), int(start) + int(length)) for label, start, length in ast.literal_eval(written)]
    except (ValueError, SyntaxError, TypeError):
        raise DataError(where, f"entities {written[:60]!r}", "a list of [tag, start, length]") from None
    return tuple(Entity(label, start, end, text[start:end]) for label, start, end in spans)
