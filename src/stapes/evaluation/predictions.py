"""What `stapes evaluate` left in a folder, read back: ``predictions.jsonl``, and the signature in ``scores.json``.

A line has ``id``, ``reference`` and ``hypothesis`` (what was said, and what was understood). Where the task has them it also
has ``reference_entities`` and ``entities`` (lists of [tag, phrase], normalised), ``reference_sentiment`` and ``sentiment``
(null or absent: the answer was no label), ``reference_translation`` and ``translation``. ``unreadable`` is why nothing could be
heard. Whatever else it has is not read here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stapes.data.manifest import parse_line
from stapes.errors import DataError
from stapes.evaluation.evaluate import PREDICTIONS, SCORES, Evaluation
from stapes.text import normalise, tags

SYNTHETIC = "synthetic:yes"  # in the signature of an evaluation
_NORMALISER = re.compile(r"(?:^|\|)norm:([^.|]+)\.")
_EVALUATED = "a folder that `stapes evaluate` wrote"


class PredictionLine(BaseModel):
    """The keys of a line of ``predictions.jsonl`` from which scores are computed."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    id: Annotated[str, Field(min_length=1)]
    reference: str
    hypothesis: str
    reference_entities: tuple[tuple[str, str], ...] | None = None
    entities: tuple[tuple[str, str], ...] | None = None
    reference_sentiment: str | None = None
    sentiment: str | None = None
    reference_translation: str | None = None
    translation: str | None = None
    unreadable: str | None = None


@dataclass(frozen=True)
class Predictions:
    """The results of one evaluation.

    Attributes:
        folder: where they were read, or what they are of.
        lines: id -> line, in the file's order.
        signature: of the evaluation.
        normaliser: what its word error rate was computed with, by name.
    """

    folder: Path
    lines: dict[str, PredictionLine]
    signature: str
    normaliser: str

    @property
    def synthetic(self) -> bool:
        """Whether any of the sound was made by a synthesiser, as the signature says."""
        return SYNTHETIC in self.signature.split("|")


def read_predictions(folder: str | Path) -> Predictions:
    """Read and check a folder of `stapes evaluate`.

    Raises:
        DataError: a file is missing, a line is wrong (file, line and key are named), an id comes twice, a reference has no
            answer beside it, or ``scores.json`` has no signature with a normaliser.
    """
    folder = Path(folder)
    signature = _signature(_existing(folder / SCORES))
    found = _NORMALISER.search(signature)
    if not found or found[1] not in normalise.NORMALISERS:
        raise DataError(folder / SCORES, f"signature {signature!r}", "one that names a normaliser (norm:...)")
    return Predictions(folder, _lines(_existing(folder / PREDICTIONS)), signature, found[1])


def predictions_of(evaluation: Evaluation, name: str) -> Predictions:
    """The same as ``read_predictions`` has of a saved evaluation; ``name`` stands for the folder in messages."""
    written = (json.dumps(found.as_line()) for found in evaluation.predictions)
    lines = {line.id: line for line in map(PredictionLine.model_validate_json, written)}
    return Predictions(Path(name), lines, evaluation.scores["signature"], evaluation.normaliser)


def finished(folder: str | Path, signature: str) -> Predictions | None:
    """The evaluation of that very signature, if it lies in the folder, whole and with every sound heard; else None."""
    try:
        found = read_predictions(folder)
    except DataError:
        return None
    heard = all(line.unreadable is None for line in found.lines.values())
    return found if found.signature == signature and heard else None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(path, "no such file", _EVALUATED)
    return path


def _signature(path: Path) -> str:
    try:
        scores = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(path, f"not JSON ({error})", "the scores of `stapes evaluate`") from None
    signature = scores.get("signature") if isinstance(scores, dict) else None
    if not isinstance(signature, str):
        raise DataError(path, "no signature", "the scores of `stapes evaluate`")
    return signature


def _lines(path: Path) -> dict[str, PredictionLine]:
    lines: dict[str, PredictionLine] = {}
    with path.open("rb") as file:
        for number, written in enumerate(file, start=1):
            if not written.strip():
                continue
            line = parse_line(path, number, written, PredictionLine)
            if line.id in lines:
                raise DataError(f"{path}:{number}", f"'id': {line.id!r} again", "ids to be unique")
            _check(line, f"{path}:{number}")
            lines[line.id] = line
    if not lines:
        raise DataError(path, "no utterances in it", "one JSON object a line", "`stapes evaluate` writes them")
    return lines


def _check(line: PredictionLine, where: str) -> None:
    """What concerns several keys at once: a reference has its answer. (No sentiment is a wrong answer.)"""
    for key in ("entities", "translation"):
        if getattr(line, f"reference_{key}") is not None and getattr(line, key) is None:
            raise DataError(where, f"'{key}': missing", f"what was answered, beside 'reference_{key}'")
    if line.reference_sentiment is not None:
        tags.sentiment(line.reference_sentiment, f"{where}: 'reference_sentiment'")
