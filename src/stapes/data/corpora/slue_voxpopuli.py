"""SLUE-VoxPopuli: European Parliament speech with named entities (arXiv 2111.10367), as the official archive unpacks.

    slue-voxpopuli_fine-tune.tsv    slue-voxpopuli_dev.tsv    slue-voxpopuli_test.tsv or slue-voxpopuli_test_blind.tsv
    fine-tune/<id>.ogg              dev/<id>.ogg              test/<id>.ogg

The tables have the columns id, raw_text, normalized_text, speaker_id, split, raw_ner, normalized_ner. An entity is written
``['GPE', 100, 14]``: raw tag, first character, number of characters. The split ``fine-tune`` becomes ``train``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_named
from stapes.data.corpora.slue import SPLITS, known, slue_rows
from stapes.errors import DataError
from stapes.types import Entity, Utterance


def slue_voxpopuli(source: Path) -> Iterator[Row]:
    """Read the splits that are there.

    Args:
        source: the folder ``slue-voxpopuli`` of the archive.

    Yields:
        Every row of the tables; those of a blind test set have no transcript, which is their problem.

    Raises:
        DataError: no table is there, one lacks a column, or its entities cannot be read.
    """
    for split, where, values in slue_rows(source, "voxpopuli", ("id", "normalized_text")):
        text, raw_text = known(values.get("normalized_text")), known(values.get("raw_text"))
        utterance = Utterance(
            id=values["id"],
            audio=audio_named(source / SPLITS[split] / values["id"], ".ogg"),
            text=text or "",
            duration=UNMEASURED,
            speaker=known(values.get("speaker_id")),
            language="en",
            entities=_entities(values.get("normalized_ner"), text, where),
            raw_text=raw_text,
            raw_entities=_entities(values.get("raw_ner"), raw_text, where),
        )
        yield Row(split, utterance)


def _entities(written: str | None, text: str | None, where: str) -> tuple[Entity, ...] | None:
    """Parse ``[['LAW', 86, 18], ...]``; None where the table has no such column or there is no text to point into."""
    if written is None or text is None:
        return None
    if known(written) is None:
        return ()
    try:
        spans = [(str(label), int(start), int(start) + int(length)) for label, start, length in ast.literal_eval(written)]
    except (ValueError, SyntaxError, TypeError):
        raise DataError(where, f"entities {written[:60]!r}", "a list of [tag, start, length]") from None
    return tuple(Entity(label, start, end, text[start:end]) for label, start, end in spans)
