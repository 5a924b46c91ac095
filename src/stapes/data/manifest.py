"""The manifest: one utterance a line (JSONL), checked strictly, with file, line and key in every complaint.

    {"id": "a1", "audio": "wavs/a1.wav", "text": "good morning", "duration": 1.25, "speaker": "mary"}

``audio`` is relative to the manifest's folder, or absolute; ``duration`` and ``start`` are in seconds; ``entities`` are
character offsets into ``text`` (``raw_entities`` into ``raw_text``); ``text`` is the transcript as the corpus wrote it
(normalising it is the task's business) and is empty only where ``kind`` is ``non-speech``; ``synthetic`` is true where the
sound was made by a synthesiser, and is left out where it was not.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from stapes.errors import DataError
from stapes.registry import nearest
from stapes.types import Entity, Utterance

NON_SPEECH = "non-speech"
SHOWN_LINES = 5

_Name = Annotated[str, Field(min_length=1)]
Line = TypeVar("Line", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class EntityLine(_Strict):
    """One entity as a manifest writes it."""

    label: _Name
    start: Annotated[int, Field(ge=0)]
    end: int
    text: str


class TextLine(_Strict):
    """The keys of a manifest line; the order here is the order in which they are written. Sound may be missing."""

    id: _Name
    audio: str | None = None
    text: str | None = None
    duration: float | None = None
    start: Annotated[float, Field(ge=0)] = 0.0
    speaker: str | None = None
    language: str | None = None
    entities: list[EntityLine] | None = None
    raw_text: str | None = None
    raw_entities: list[EntityLine] | None = None
    translations: dict[str, str] | None = None
    sentiment: str | None = None
    kind: Literal["speech", "non-speech"] | None = None
    synthetic: bool | None = None


class UtteranceLine(TextLine):
    """A manifest line that has its sound."""

    audio: _Name
    duration: Annotated[float, Field(gt=0)]


class _LineError(Exception):
    """What is wrong with one line, before its file and number are known."""

    def __init__(self, key: str, found: str, expected: str = "", fix: str = "") -> None:
        super().__init__(key)
        self.key, self.found, self.expected, self.fix = key, found, expected, fix


def read_manifest(path: str | Path, check_audio: bool = True) -> list[Utterance]:
    """Read and check a manifest.

    Args:
        path: the JSONL file; blank lines are skipped.
        check_audio: whether every sound file must exist.

    Returns:
        The utterances in the file's order, each with its ``source`` ("file:line").

    Raises:
        DataError: the first bad line with its key, what was found and what was expected, and how many more are bad.
    """
    return _read(Path(path), UtteranceLine, check_audio)


def read_texts(path: str | Path) -> list[Utterance]:
    """Read texts and labels that have no sound yet: a manifest in which ``audio`` and ``duration`` may be missing.

    Returns:
        The utterances in the file's order, without sound, start or duration, whatever the lines say of them.

    Raises:
        DataError: as in ``read_manifest``.
    """
    found = _read(Path(path), TextLine, check_audio=False)
    return [replace(utterance, audio=Path(), start=0.0, duration=0.0) for utterance in found]


def _read(path: Path, keys: type[TextLine], check_audio: bool) -> list[Utterance]:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise DataError(path, found, "a manifest (JSONL)", "`stapes prepare` writes one")
    utterances: list[Utterance] = []
    first_seen: dict[str, int] = {}
    bad: list[tuple[int, _LineError]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not line.strip():
                continue
            try:
                utterance = _utterance(_parse(line, keys), path.parent, check_audio, f"{path}:{number}")
                if utterance.id in first_seen:
                    raise _LineError(
                        "id", f"{utterance.id!r} again", "ids to be unique", f"line {first_seen[utterance.id]} has it"
                    )
            except _LineError as problem:
                bad.append((number, problem))
            else:
                first_seen[utterance.id] = number
                utterances.append(utterance)
    if bad:
        raise _complaint(path, bad)
    if not utterances:
        raise DataError(path, "no utterances in it", "one JSON object a line", "`stapes prepare` writes a manifest")
    return utterances


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest in one step: a reader sees the old file or the new one, never a part.

    Args:
        path: the JSONL file; its folder is made where missing.
        utterances: what to write. Sound under the manifest's folder is named relative to it, other sound by its absolute path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, (as_line(utterance, path.parent) for utterance in utterances))


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON objects, one a line, in one step."""
    with replacing(path) as file:
        for row in rows:
            file.write(f"{json.dumps(row, ensure_ascii=False)}\n".encode())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file beside ``path`` that takes its name when all is written, and is gone if it was not."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def as_line(utterance: Utterance, folder: Path) -> dict[str, Any]:
    """The JSON object of an utterance in a manifest that lies in ``folder``; what is unknown is left out."""
    audio, folder = Path(os.path.abspath(utterance.audio)), Path(os.path.abspath(folder))  # noqa: PTH100 (links stay links)
    values = {
        **{key: getattr(utterance, key) for key in UtteranceLine.model_fields},
        "audio": audio.relative_to(folder).as_posix() if audio.is_relative_to(folder) else audio.as_posix(),
        "start": utterance.start or None,
        "entities": _entity_lines(utterance.entities),
        "raw_entities": _entity_lines(utterance.raw_entities),
        "translations": utterance.translations or None,
        "synthetic": utterance.synthetic or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def data_digest(utterances: Iterable[Utterance]) -> str:
    """SHA-256 over what a score depends on, for its signature; the order of the utterances does not matter.

    Ids, references (texts, entities, translations, sentiment, kind), starts and durations (to the millisecond) enter. The
    sound enters by its times alone: hashing it would cost minutes, and a lossless copy in another format is the same data.
    """
    lines = []
    for utterance in utterances:
        line = as_line(utterance, Path())
        del line["audio"]
        line |= {"duration": round(utterance.duration * 1000), "start": round(utterance.start * 1000)}
        lines.append(json.dumps(line, sort_keys=True))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _entity_lines(entities: Sequence[Entity] | None) -> list[dict[str, Any]] | None:
    if entities is None:
        return None
    return [{"label": found.label, "start": found.start, "end": found.end, "text": found.phrase} for found in entities]


def parse_line(path: Path, number: int, line: bytes, schema: type[Line]) -> Line:
    """One line of another JSONL file than a manifest, with complaints in the same words.

    Raises:
        DataError: the line is not JSON or not as ``schema`` has it; the message names file, line and key.
    """
    try:
        return _parse(line, schema)
    except _LineError as problem:
        raise _complaint(path, [(number, problem)]) from None


def _parse(line: bytes, schema: type[Line]) -> Line:
    try:
        return schema.model_validate_json(line.strip())
    except ValidationError as error:
        raise _explain(error.errors(include_url=False)[0]) from None


def _explain(error: ErrorDetails) -> _LineError:
    """One of pydantic's errors in the words of a manifest."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    kind, found = error["type"], _short(error["input"])
    context = error.get("ctx", {})
    match kind:
        case "json_invalid":
            # The parser sees one line at a time, so its line number is always 1.
            return _LineError("", f"not JSON ({context['error'].replace('line 1 ', '')})", "one JSON object a line")
        case "model_type" if not key:
            return _LineError("", found, "a JSON object")
        case "missing":
            return _LineError(key, "missing", "a value for this key")
        case "extra_forbidden":
            known = EntityLine if len(error["loc"]) > 1 else UtteranceLine
            return _LineError(key, "unknown key", fix=nearest(str(error["loc"][-1]), known.model_fields))
        case "greater_than":
            return _LineError(key, found, f"more than {context['gt']:g}")
        case "greater_than_equal":
            return _LineError(key, found, f"at least {context['ge']:g}")
        case "literal_error":
            return _LineError(key, found, context["expected"])
        case _:
            return _LineError(key, found, EXPECTED.get(kind, error["msg"]))


EXPECTED = {
    "string_type": "a string",
    "string_too_short": "a string that is not empty",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object of strings",
    "model_type": "an object with label, start, end and text",
}


def _utterance(line: TextLine, folder: Path, check_audio: bool, source: str) -> Utterance:
    """Check what concerns several keys at once, and turn a line into an utterance."""
    text = line.text or ""
    if line.kind == NON_SPEECH and text:
        raise _LineError("text", _short(text), f"no words where kind is '{NON_SPEECH}'")
    if line.kind != NON_SPEECH and not text.strip():
        found = "missing" if line.text is None else _short(text)
        raise _LineError("text", found, "the transcript", f'for sound without speech say "kind": "{NON_SPEECH}"')
    audio = folder / (line.audio or "")
    if check_audio and not audio.is_file():
        raise _LineError(
            "audio", _short(line.audio), f"a file; there is no {audio}", "paths are relative to the manifest's folder"
        )
    values = {key: getattr(line, key) for key in UtteranceLine.model_fields}
    values |= {
        "audio": audio,
        "text": text,
        "duration": line.duration or 0.0,
        "entities": _entities("entities", line.entities, "text", text),
        "raw_entities": _entities("raw_entities", line.raw_entities, "raw_text", line.raw_text or ""),
        "translations": line.translations or {},
        "synthetic": line.synthetic or False,
    }
    return Utterance(**values, source=source)


def _entities(key: str, lines: list[EntityLine] | None, text_key: str, text: str) -> tuple[Entity, ...] | None:
    if lines is None:
        return None
    for index, line in enumerate(lines):
        where, covered = f"{key}[{index}]", text[line.start : line.end]
        if not line.start < line.end <= len(text):
            found = f"start {line.start}, end {line.end}"
            raise _LineError(where, found, f"start < end <= {len(text)}, the length of {text_key}")
        if covered != line.text:
            found = f"{text_key}[{line.start}:{line.end}] is {_short(covered)}"
            raise _LineError(where, found, _short(line.text), f"offsets are characters of {text_key}, the end excluded")
    return tuple(Entity(line.label, line.start, line.end, line.text) for line in lines)


def _complaint(path: Path, bad: list[tuple[int, _LineError]]) -> DataError:
    number, first = bad[0]
    found = f"'{first.key}': {first.found}" if first.key else first.found
    fixes = [first.fix] if first.fix else []
    if len(bad) > 1:
        others = ", ".join(str(line) for line, _ in bad[1 : SHOWN_LINES + 1]) + (", ..." if len(bad) > SHOWN_LINES + 1 else "")
        fixes.append(f"and {len(bad) - 1} more bad line{'s' if len(bad) > 2 else ''} ({others})")
    return DataError(f"{path}:{number}", found, first.expected, "; ".join(fixes))


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
