"""A model against a manifest: corpus scores with intervals and signature, and what was said of each utterance."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import stapes
from stapes.data.cache import read_utterance
from stapes.data.manifest import data_digest, write_lines
from stapes.decoding.longform import BATCH_SECONDS, Transcript, batches, recognise
from stapes.errors import AudioError, DataError
from stapes.metrics.wer import UtteranceErrors, cer, per_utterance, wer
from stapes.model import SpeechLLM
from stapes.recipe import Decoding
from stapes.text import normalise
from stapes.types import Score, Utterance

SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"
_DIGITS = 3


@dataclass(frozen=True)
class Prediction:
    """What a model made of one utterance.

    Attributes:
        id: of the utterance.
        reference: the transcript as the manifest has it.
        hypothesis: what the model wrote.
        ctc: what its CTC head alone heard; None for a model without one.
        counts: word errors of the hypothesis, both texts normalised.
        duration: in seconds.
        capped: whether the cap on its tokens cut the hypothesis off.
        unreadable: why its sound could not be read; None where it could.
    """

    id: str
    reference: str
    hypothesis: str
    ctc: str | None
    counts: UtteranceErrors
    duration: float
    capped: bool
    unreadable: str | None = None

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.counts.errors

    def as_line(self) -> dict[str, Any]:
        """A line of ``predictions.jsonl``; what does not apply is left out."""
        texts = {"id": self.id, "reference": self.reference, "hypothesis": self.hypothesis, "ctc": self.ctc}
        counts = {"errors": self.errors, **asdict(self.counts)}
        rest = {"duration": self.duration, "capped": self.capped, "unreadable": self.unreadable}
        return {key: value for key, value in (texts | counts | rest).items() if value is not None}


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        scores: percentages, counts, ``intervals`` and ``signature``, as ``stapes evaluate --json`` prints them; what does not
            apply is absent.
        predictions: one an utterance, in the manifest's order.
        normaliser: what was done to references and hypotheses before they were compared.
    """

    scores: dict[str, Any]
    predictions: list[Prediction]
    normaliser: str

    def save(self, folder: str | Path) -> None:
        """Write ``scores.json`` and ``predictions.jsonl``.

        Raises:
            DataError: the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SCORES).write_text(json.dumps(self.scores, indent=1) + "\n", encoding="utf-8")
            write_lines(folder / PREDICTIONS, (found.as_line() for found in self.predictions))
        except OSError as error:
            raise DataError(folder, f"cannot be written ({error.strerror})", "a folder for the results") from error


def evaluate(
    model: SpeechLLM,
    utterances: Sequence[Utterance],
    options: Decoding,
    *,
    normaliser: str | None = None,
    batch_seconds: float = BATCH_SECONDS,
    name: str = "",
    on_progress: Callable[[float], None] | None = None,
    on_unreadable: Callable[[AudioError], None] | None = None,
) -> Evaluation:
    """Transcribe utterances, the way a user would, and score the result.

    Nothing is left out: an utterance whose sound cannot be read counts as one that nothing was heard in, and is reported.

    Args:
        model: in evaluation mode.
        utterances: of a manifest.
        options: of decoding.
        normaliser: what is done to references and hypotheses before they are compared; the task's own if None.
        batch_seconds: sound in one batch, padding included.
        name: of the model, for the signature.
        on_progress: told the seconds of sound that are done.
        on_unreadable: told of each utterance that cannot be read.

    Raises:
        DataError: no utterance, or none with words in its reference.
        RecipeError: unknown normaliser.
    """
    normaliser = normaliser or model.task.normaliser
    if not any(map(normalise.get(normaliser), (utterance.text for utterance in utterances))):
        found = f"{len(utterances)} utterances without a word in their references (normaliser '{normaliser}')"
        raise DataError("evaluation", found, "at least one with words")
    transcripts: dict[int, Transcript] = {}
    unreadable: dict[int, str] = {}
    for rows, sounds, failures in _read(utterances, batch_seconds):
        transcripts.update(zip(rows, recognise(model, sounds, options, batch_seconds), strict=True))
        for row, error in failures.items():
            unreadable[row] = str(error)
            if on_unreadable is not None:
                on_unreadable(error)
        if on_progress is not None:
            on_progress(sum(utterances[row].duration for row in (*rows, *failures)))
    nothing = Transcript("", [], False, None if model.ctc is None else "")
    heard = [transcripts.get(row, nothing) for row in range(len(utterances))]
    counts = {"utterances": len(utterances), "capped": sum(transcript.capped for transcript in heard)}
    if unreadable:
        counts["unreadable"] = len(unreadable)
    scores = _scores(utterances, heard, normaliser, model.ctc is not None) | counts
    scores["signature"] = _signature(model, utterances, options, normaliser, name)
    return Evaluation(scores, _predictions(utterances, heard, unreadable, normaliser), normaliser)


def _read(
    utterances: Sequence[Utterance], batch_seconds: float
) -> Iterator[tuple[list[int], list[np.ndarray], dict[int, AudioError]]]:
    """The utterances by duration, longest first, a batch at a time: which they are, their samples, and those unreadable."""
    for batch in batches([utterance.duration for utterance in utterances], batch_seconds):
        rows: list[int] = []
        sounds: list[np.ndarray] = []
        failures: dict[int, AudioError] = {}
        for row in batch:
            try:
                sounds.append(read_utterance(utterances[row]))
                rows.append(row)
            except AudioError as error:
                failures[row] = AudioError(utterances[row].source or utterances[row].id, str(error))
        yield rows, sounds, failures


def _scores(utterances: Sequence[Utterance], heard: Sequence[Transcript], normaliser: str, has_ctc: bool) -> dict[str, Any]:
    """Every rate that applies, with its interval."""
    references = [utterance.text for utterance in utterances]
    hypotheses = [transcript.text for transcript in heard]
    words = wer(references, hypotheses, normaliser=normaliser)
    rates: dict[str, Score] = {"wer": words, "cer": cer(references, hypotheses, normaliser=normaliser)}
    english = all((utterance.language or "en").lower().startswith("en") for utterance in utterances)
    if english and any(map(normalise.whisper_en, references)):
        rates["wer_whisper_en"] = wer(references, hypotheses, normaliser="whisper-en")
    if has_ctc:
        rates["ctc_wer"] = wer(references, [transcript.ctc_text or "" for transcript in heard], normaliser=normaliser)
    return {
        **{rate: round(score.value, _DIGITS) for rate, score in rates.items()},
        **{kind: words.parts[kind] for kind in ("substitutions", "deletions", "insertions", "reference_words")},
        "intervals": {
            rate: [round(end, _DIGITS) for end in score.interval] for rate, score in rates.items() if score.interval is not None
        },
    }


def _signature(model: SpeechLLM, utterances: Sequence[Utterance], options: Decoding, normaliser: str, name: str) -> str:
    """What has to be equal for two scores to be comparable, in one line."""
    dtype = str(next(model.llm.parameters()).dtype).removeprefix("torch.")
    facts = {
        "stapes": stapes.__version__,
        "task": model.task.name,
        "model": name,
        "norm": f"{normaliser}.{normalise.version(normaliser)}",
        "jiwer": importlib.metadata.version("jiwer"),
        "n": len(utterances),
        "data": data_digest(utterances)[:16],
        **options.model_dump(),
        "dtype": dtype,
    }
    return "|".join(f"{key}:{value}" for key, value in facts.items() if value != "")


def _predictions(
    utterances: Sequence[Utterance], heard: Sequence[Transcript], unreadable: dict[int, str], normaliser: str
) -> list[Prediction]:
    counted = per_utterance([row.text for row in utterances], [transcript.text for transcript in heard], normaliser)
    return [
        Prediction(
            id=utterance.id,
            reference=utterance.text,
            hypothesis=transcript.text,
            ctc=transcript.ctc_text,
            counts=errors,
            duration=utterance.duration,
            capped=transcript.capped,
            unreadable=unreadable.get(row),
        )
        for row, (utterance, transcript, errors) in enumerate(zip(utterances, heard, counted, strict=True))
    ]
