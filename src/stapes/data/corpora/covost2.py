"""CoVoST 2: Common Voice with translations, 21 languages into English and English into 15 (Wang et al., Interspeech 2021).

    en/clips/common_voice_en_1.mp3      en/validated.tsv                    Common Voice 4, as its archive unpacks
    en/covost_v2.en_de.tsv              path, translation, split            as published; joined with validated.tsv by path
    en/covost_v2.en_de.train.tsv        path, sentence, translation, client_id      what the official script makes of it

The source is the folder of one language, or the one around several. All tables of a language merge: a clip is one utterance,
with a translation for each target language. ``validated.tsv`` is needed only where the official script has not run.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, audio_named, language_code, read_text, require
from stapes.errors import DataError
from stapes.types import Utterance

NAME = re.compile(r"^covost_v2\.(?P<source>[A-Za-z-]+)_(?P<target>[A-Za-z-]+)(?:\.(?P<split>train|dev|test))?\.tsv$")
SPLITS = {"train": "train", "train_covost": "train", "dev": "dev", "test": "test"}
"""What a published table writes -> split: CoVoST 2 trains on more clips than Common Voice's own split, and marks them."""


@dataclass(frozen=True)
class _Table:
    path: Path
    source: str
    target: str
    split: str | None


def covost2(source: Path) -> Iterator[Row]:
    """Read all tables in ``source`` and in the folders in it.

    Yields:
        A row for every clip; a clip that validated.tsv does not have is that row's problem. Empty translations are left out.

    Raises:
        DataError: no table is there, a column or validated.tsv is missing, or two tables say different things of one clip.
    """
    paths = [*source.glob("covost_v2.*.tsv"), *source.glob("*/covost_v2.*.tsv")]
    found = [(path, match) for path in sorted(paths) if (match := NAME.match(path.name))]
    require(bool(found), source, "covost_v2.SOURCE_TARGET.tsv or covost_v2.SOURCE_TARGET.SPLIT.tsv in it")
    tables = [_Table(path, match["source"], match["target"], match["split"]) for path, match in found]
    cut = {(table.path.parent, table.source, table.target) for table in tables if table.split}
    clips: dict[str, Row] = {}
    for table in tables:
        if table.split or (table.path.parent, table.source, table.target) not in cut:
            yield from _merge(source, table, clips)
    yield from clips.values()


def _merge(source: Path, table: _Table, clips: dict[str, Row]) -> Iterator[Row]:
    """Add a table's rows to ``clips``, path -> row, and give those that cannot be added."""
    folder, target = _clips(source, table), language_code(table.target)
    sentences = {} if table.split else _sentences(folder.parent / "validated.tsv")
    needed = ("path", "translation", "sentence", "client_id") if table.split else ("path", "translation", "split")
    for where, values in _rows(table.path, needed):
        split = table.split or SPLITS.get(values["split"])
        if split is None:
            raise DataError(where, f"split {values['split']!r}", ", ".join(SPLITS))
        path, translation = values["path"], values["translation"].strip()
        sentence, client = (values["sentence"], values["client_id"]) if table.split else sentences.get(path, ("", ""))
        row = clips.get(path)
        if row is None:
            clip = Path(path)
            utterance = Utterance(
                id=clip.stem,
                audio=audio_named(folder / clip.stem, clip.suffix or ".mp3"),
                text=sentence.strip(),
                duration=UNMEASURED,
                speaker=client or None,
                language=language_code(table.source),
            )
            row = Row(split, utterance, "" if table.split or path in sentences else "not in validated.tsv")
        elif (row.split, row.utterance.text) != (split, sentence.strip()):
            found, expected = f"clip {path} in {split} as {sentence[:60]!r}", f"{row.split} and {row.utterance.text[:60]!r}"
            raise DataError(where, found, expected, "another table has it so; take all from one release")
        elif target in row.utterance.translations:
            yield replace(row, problem="clip written twice in one table")
            continue
        if translation:
            utterance = row.utterance
            row = replace(row, utterance=replace(utterance, translations=utterance.translations | {target: translation}))
        clips[path] = row


def _clips(source: Path, table: _Table) -> Path:
    """The folder of the sound: beside the table, or that of the language."""
    folders = [base / part / "clips" for base in (table.path.parent, source) for part in ("", table.source)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _sentences(path: Path) -> dict[str, tuple[str, str]]:
    """Path of a clip -> (sentence, client_id), of all that Common Voice has."""
    if not path.is_file():
        raise DataError(path, "no such file", "the table of Common Voice 4", "or run CoVoST's get_covost_splits.py")
    rows = _rows(path, ("path", "sentence", "client_id"))
    return {values["path"]: (values["sentence"], values["client_id"]) for _, values in rows}


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """("file:line", column -> value); nothing is quoted, and a backslash escapes, as in the official script."""
    lines = io.StringIO(read_text(path), newline="")
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", restval="")
    columns = reader.fieldnames or []
    if missing := [name for name in needed if name not in columns]:
        raise DataError(path, f"columns {', '.join(columns)}", f"{' and '.join(missing)} among them")
    for values in reader:
        if None in values or not values["path"]:
            raise DataError(f"{path}:{reader.line_num}", "more fields than columns, or no path", f"{len(columns)} fields")
        yield f"{path}:{reader.line_num}", values
