"""What the two corpora of SLUE (arXiv 2111.10367) share: the names of their tables and how these write what is unknown.

    slue-CORPUS_fine-tune.tsv    slue-CORPUS_dev.tsv    slue-CORPUS_test.tsv or slue-CORPUS_test_blind.tsv

The split ``fine-tune`` becomes ``train``. A blind test set has no labels; where both of its tables are there, the one with
labels is read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import read_text, require
from stapes.errors import DataError

SPLITS = {"train": "fine-tune", "dev": "dev", "test": "test"}


def slue_rows(source: Path, corpus: str, needed: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Read the tables of a corpus that are there.

    Args:
        source: the folder of the official archive.
        corpus: "voxpopuli" or "voxceleb".
        needed: the columns that every table must have, but for those of labels in a blind one.

    Yields:
        (split, "file:line", column -> value) for every row.

    Raises:
        DataError: no table is there, one lacks a column, or a row has too few or too many fields.
    """
    tables = {split: _table(source / f"slue-{corpus}_{name}") for split, name in SPLITS.items()}
    require(any(tables.values()), source, f"slue-{corpus}_fine-tune.tsv or slue-{corpus}_dev.tsv in it")
    for split, table in tables.items():
        if table is None:
            continue
        # Fields are quoted as in CSV: the official toolkit reads these tables with pandas' defaults.
        reader = csv.DictReader(io.StringIO(read_text(table), newline=""), dialect="excel-tab", restkey="")
        columns = reader.fieldnames or []
        if missing := [name for name in needed if name not in columns and not (split == "test" and name != "id")]:
            raise DataError(table, f"columns {', '.join(columns)}", f"{' and '.join(missing)} among them")
        for values in reader:
            where = f"{table}:{reader.line_num}"
            if "" in values or None in values.values():
                raise DataError(where, "more or fewer fields than columns", f"{len(columns)} fields")
            yield split, where, values


def known(value: str | None) -> str | None:
    """The tables write what is unknown as nothing, as ``None`` or as ``nan``. Offsets forbid stripping what is known."""
    return None if value is None or value.strip() in ("", "None", "nan") else value


def _table(stem: Path) -> Path | None:
    candidates = (stem.with_name(f"{stem.name}{ending}.tsv") for ending in ("", "_blind"))
    return next((path for path in candidates if path.is_file()), None)
