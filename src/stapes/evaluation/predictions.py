"""What `stapes evaluate` left in a folder, read back: ``predictions.jsonl``, and signatures and provenance in ``scores.json``.

The signatures say which scores the answers have, and how each was measured: with which normaliser, tags and tokeniser.

A line has ``id``, ``reference`` and ``hypothesis`` (what was said, and what was understood). Where the task has them it also
has ``reference_entities`` and ``entities`` (lists of [tag, phrase], normalised), ``reference_sentiment`` and ``sentiment``
(null or absent: the answer was no label), ``reference_translation`` and ``translation``. ``unreadable`` is why nothing could be
heard. Whatever else it has is not read here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stapes.data.manifest import parse_line
from stapes.errors import DataError
from stapes.evaluation.evaluate import PREDICTIONS, SCORES, Evaluation
from stapes.evaluation.scoring import data_facts
from stapes.metrics.signature import facts
from stapes.text import normalise, tags
from stapes.types import Utterance

TAG_SETS = {"combined": tuple(tags.COMBINED), "raw": (*tags.COMBINED, *tags.RAW)}
"""The tags that occur in pairs of each set; of raw ones, also those of data that had been combined already."""

_KNOWN = {"norm": tuple(normalise.NORMALISERS), "tags": tuple(TAG_SETS)}
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
        signatures: name of a score, as in ``scores.json`` -> how it was measured.
        provenance: what made the answers; empty where ``scores.json`` does not say.
    """

    folder: Path
    lines: dict[str, PredictionLine]
    signatures: dict[str, str]
    provenance: str

    @property
    def synthetic(self) -> bool:
        """Whether any of the sound was made by a synthesiser, as a signature says."""
        return any(facts(signature).get("synthetic") == "yes" for signature in self.signatures.values())


def read_predictions(folder: str | Path) -> Predictions:
    """Read and check a folder of `stapes evaluate`.

    Raises:
        DataError: a file is missing, a line is wrong (file, line and key are named), an id comes twice, a reference has no
            answer beside it, a tag is not of the set that was scored, or ``scores.json`` has no signatures, or one with a
            normaliser or a set of tags that is not known.
    """
    folder = Path(folder)
    signatures, provenance = _measured(_existing(folder / SCORES))
    tag_set = facts(signatures.get("ner_f1", "")).get("tags", "")
    return Predictions(folder, _lines(_existing(folder / PREDICTIONS), tag_set), signatures, provenance)


def setting(signature: str, fact: str) -> str:
    """What a signature says of a setting, by name: of a normaliser without its version.

    Raises:
        DataError: it says nothing.
    """
    said = facts(signature)
    if fact not in said:
        raise DataError(SCORES, f"signature {signature!r}", f"one with {fact}:...", "evaluate again")
    return said[fact].partition(".")[0]


def predictions_of(evaluation: Evaluation, name: str) -> Predictions:
    """The same as ``read_predictions`` has of a saved evaluation; ``name`` stands for the folder in messages."""
    written = (json.dumps(found.as_line()) for found in evaluation.predictions)
    lines = {line.id: line for line in map(PredictionLine.model_validate_json, written)}
    return Predictions(Path(name), lines, evaluation.scores["signatures"], evaluation.scores["provenance"])


def finished(folder: str | Path, provenance: str, utterances: Sequence[Utterance], normaliser: str) -> Predictions | None:
    """The evaluation in the folder, if it is the one that would be made now, whole and with every sound heard; else None.

    Args:
        folder: where it may lie.
        provenance: that it has to have.
        utterances: that it has to be of, labels included.
        normaliser: that its words have to be compared with, where it compares words.
    """
    try:
        found = read_predictions(folder)
    except DataError:
        return None
    said = {name: facts(signature) for name, signature in found.signatures.items()}
    data, norm = data_facts(utterances), f"{normaliser}.{normalise.version(normaliser)}"
    same = (
        found.provenance == provenance
        and any(data.items() <= each.items() for each in said.values())
        and said.get("wer", {}).get("norm", norm) == norm
        and len(found.lines) == len(utterances)
    )
    return found if same and all(line.unreadable is None for line in found.lines.values()) else None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(path, "no such file", _EVALUATED)
    return path


def _measured(path: Path) -> tuple[dict[str, str], str]:
    """Signatures and provenance."""
    try:
        scores = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(path, f"not JSON ({error})", "the scores of `stapes evaluate`") from None
    signatures = scores.get("signatures") if isinstance(scores, dict) else None
    if not isinstance(signatures, dict) or not all(isinstance(each, str) for each in signatures.values()):
        raise DataError(path, "no signatures of scores", "the scores of `stapes evaluate`", "evaluate again")
    for signature in signatures.values():
        for fact in _KNOWN.keys() & facts(signature).keys():
            if setting(signature, fact) not in _KNOWN[fact]:
                raise DataError(path, f"signature {signature!r}", f"{fact}: {' or '.join(_KNOWN[fact])}")
    return signatures, str(scores.get("provenance", ""))


def _lines(path: Path, tag_set: str) -> dict[str, PredictionLine]:
    lines: dict[str, PredictionLine] = {}
    with path.open("rb") as file:
        for number, written in enumerate(file, start=1):
            if not written.strip():
                continue
            line = parse_line(path, number, written, PredictionLine)
            if line.id in lines:
                raise DataError(f"{path}:{number}", f"'id': {line.id!r} again", "ids to be unique")
            _check(line, f"{path}:{number}", tag_set)
            lines[line.id] = line
    if not lines:
        raise DataError(path, "no utterances in it", "one JSON object a line", "`stapes evaluate` writes them")
    return lines


def _check(line: PredictionLine, where: str, tag_set: str) -> None:
    """What concerns several keys at once: a reference has its answer (no sentiment is a wrong one), tags are of one set."""
    for key in ("entities", "translation"):
        if getattr(line, f"reference_{key}") is not None and getattr(line, key) is None:
            raise DataError(where, f"'{key}': missing", f"what was answered, beside 'reference_{key}'")
    for key in ("reference_entities", "entities") if tag_set else ():
        for tag, _ in getattr(line, key) or ():
            if tag not in TAG_SETS[tag_set]:
                raise DataError(where, f"'{key}': tag '{tag}'", f"tags of the set '{tag_set}', which {SCORES} names")
    if line.reference_sentiment is not None:
        tags.sentiment(line.reference_sentiment, f"{where}: 'reference_sentiment'")
