"""A model against a manifest: corpus scores with intervals and signatures, and what was said of each utterance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import stapes
from stapes.data.cache import read_utterance
from stapes.data.manifest import write_lines
from stapes.decoding.longform import BATCH_SECONDS, Transcript, batches, recognise
from stapes.errors import AudioError, DataError
from stapes.evaluation.scoring import check_comet, comet_score, corpus_scores, described
from stapes.metrics.wer import UtteranceErrors, per_utterance
from stapes.model import SpeechLLM
from stapes.recipe import Decoding
from stapes.tasks import Result, Task, find_task
from stapes.text import normalise
from stapes.types import Utterance

SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"


@dataclass(frozen=True)
class Prediction:
    """What a model made of one utterance.

    Attributes:
        id: of the utterance.
        reference: the words that should have come: a transcript, or a translation.
        hypothesis: those that came.
        ctc: what its CTC head alone heard; None for a model without one.
        counts: word errors of the hypothesis, both texts normalised.
        duration: in seconds.
        capped: whether the cap on its tokens cut the hypothesis off.
        labels: what else the task compares, such as ``entities`` and ``reference_entities``.
        repairs: how many places of the answer were malformed and had to be mended.
        unreadable: why its sound could not be read; None where it could.
    """

    id: str
    reference: str
    hypothesis: str
    ctc: str | None
    counts: UtteranceErrors
    duration: float
    capped: bool
    labels: dict[str, Any] = field(default_factory=dict)
    repairs: int = 0
    unreadable: str | None = None

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.counts.errors

    def as_line(self) -> dict[str, Any]:
        """A line of ``predictions.jsonl``; what does not apply is left out, but for labels that are not there."""
        texts = {"id": self.id, "reference": self.reference, "hypothesis": self.hypothesis, "ctc": self.ctc}
        counts = {"errors": self.errors, **asdict(self.counts)}
        rest = {"duration": self.duration, "capped": self.capped, "unreadable": self.unreadable}
        rest |= {"repairs": self.repairs or None}
        return {key: value for key, value in (texts | counts | rest).items() if value is not None} | self.labels


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        scores: percentages, counts, ``intervals``, ``parts`` and ``signatures`` of them, and one ``provenance``, as
            ``stapes evaluate --json`` prints them; what does not apply is absent.
        predictions: one an utterance, in the manifest's order.
        normaliser: what was done to references and hypotheses before they were compared.
        utterances: that the predictions are of, in the same order; what reports take sound and transcripts from.
    """

    scores: dict[str, Any]
    predictions: list[Prediction]
    normaliser: str
    utterances: list[Utterance] = field(default_factory=list)

    def save(self, folder: str | Path) -> None:
        """Write ``scores.json`` and ``predictions.jsonl``.

        Raises:
            DataError: the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_lines(folder / PREDICTIONS, (found.as_line() for found in self.predictions))
            # Last, since an evaluation is known by its signatures and provenance: what was cut short is not taken for whole.
            (folder / SCORES).write_text(json.dumps(self.scores, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(folder, f"cannot be written ({error.strerror})", "a folder for the results") from error


def evaluate(
    model: SpeechLLM,
    utterances: Sequence[Utterance],
    options: Decoding,
    *,
    task: str = "",
    normaliser: str | None = None,
    batch_seconds: float = BATCH_SECONDS,
    name: str = "",
    comet: str | None = None,
    on_progress: Callable[[float], None] | None = None,
    on_unreadable: Callable[[AudioError], None] | None = None,
) -> Evaluation:
    """Do a task on utterances, the way a user would, and score the result.

    An utterance whose sound cannot be read counts as one that nothing was heard in, and is reported. One without the labels of
    the task, for which there is nothing to compare an answer with, is left out and counted, as in training.

    Args:
        model: in evaluation mode.
        utterances: of a manifest; those with the labels of the task are evaluated.
        options: of decoding.
        task: the key of what is asked; the model's first if empty.
        normaliser: what is done to references and hypotheses before they are compared; the task's own if None.
        batch_seconds: sound in one batch, padding included.
        name: of the model, for the provenance.
        comet: a COMET model by which translations are scored, too (a download of gigabytes; not tested here).
        on_progress: told the seconds of sound that are done.
        on_unreadable: told of each utterance that cannot be read.

    Raises:
        DataError: no utterance, none with the labels of the task, or none with words in its reference.
        RecipeError: unknown normaliser, or COMET for anything but a translation.
        MissingDependency: COMET is asked for, and not installed.
    """
    asked = find_task(model.tasks, task)
    normaliser = normaliser or asked.normaliser
    every, utterances = utterances, [utterance for utterance in utterances if asked.has_target(utterance)]
    check(utterances or every, asked, normaliser)
    if comet is not None:
        check_comet(asked, comet)
    transcripts: dict[int, Transcript] = {}
    unreadable: dict[int, str] = {}
    for rows, sounds, failures in _read(utterances, batch_seconds):
        transcripts.update(zip(rows, recognise(model, sounds, options, batch_seconds, task=asked.key), strict=True))
        for row, error in failures.items():
            unreadable[row] = str(error)
            if on_unreadable is not None:
                on_unreadable(error)
        if on_progress is not None:
            on_progress(sum(utterances[row].duration for row in (*rows, *failures)))
    nothing = asked.parse("")
    silent = Transcript("", [], False, None if model.ctc is None else "", nothing.entities, nothing.sentiment)
    heard = [transcripts.get(row, silent) for row in range(len(utterances))]
    counts = {"utterances": len(utterances), "capped": sum(transcript.capped for transcript in heard)}
    if asked.grammar() is not None:
        counts["repairs"] = sum(transcript.repairs for transcript in heard)
    if left_out := len(every) - len(utterances):
        counts["left_out"] = left_out
    if unreadable:
        counts["unreadable"] = len(unreadable)
    if synthetic := sum(utterance.synthetic for utterance in utterances):
        counts["synthetic"] = synthetic
    references = [asked.reference(utterance) for utterance in utterances]
    # The CTC head hears words, whatever was asked; they are compared as the answer's are, where these were said.
    heard_as = normaliser if asked.scores_sound else model.transcription.normaliser
    found = corpus_scores(utterances, references, heard, asked, normaliser, heard_as if model.ctc is not None else None)
    if comet is not None:
        gpus = int(next(model.llm.parameters()).device.type == "cuda")
        found["comet"] = comet_score(utterances, references, heard, asked, comet, gpus)
    made_by = provenance(model, options, task=asked.key, name=name)
    scores = described(found, utterances) | counts | {"provenance": made_by}
    predictions = _predictions(utterances, references, heard, asked, unreadable, normaliser)
    return Evaluation(scores, predictions, normaliser, list(utterances))


def check(utterances: Sequence[Utterance], task: Task, normaliser: str | None = None) -> None:
    """Raise DataError unless every utterance can be scored, and some of them has words."""
    normaliser = normaliser or task.normaliser
    lacking = [utterance for utterance in utterances if not task.has_target(utterance)]
    if lacking:
        found = f"{len(lacking)} of {len(utterances)} utterances have no labels for the task '{task.key}'"
        raise DataError(lacking[0].source or lacking[0].id, found, "labels for all of them", "choose another --task or --data")
    if not any(map(normalise.get(normaliser), (utterance.text for utterance in utterances))):
        found = f"{len(utterances)} utterances without a word in their references (normaliser '{normaliser}')"
        raise DataError("evaluation", found, "at least one with words")


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


def provenance(model: SpeechLLM, options: Decoding, *, task: str = "", name: str = "") -> str:
    """What makes the answers, in one line: the model, what it is asked, how it decodes, in which precision.

    The arguments are those of ``evaluate``.
    """
    asked = find_task(model.tasks, task)
    made_by = {
        "stapes": stapes.__version__,
        "task": asked.key,
        **asked.provenance(),
        "model": name,
        **options.model_dump(exclude=set() if asked.grammar() is not None else {"constrained"}),
        "dtype": str(next(model.llm.parameters()).dtype).removeprefix("torch."),
    }
    return "|".join(f"{key}:{value}" for key, value in made_by.items() if value != "")


def _predictions(
    utterances: Sequence[Utterance],
    references: Sequence[Result],
    heard: Sequence[Transcript],
    task: Task,
    unreadable: dict[int, str],
    normaliser: str,
) -> list[Prediction]:
    counted = per_utterance([row.text for row in references], [transcript.text for transcript in heard], normaliser)
    return [
        Prediction(
            id=utterance.id,
            reference=reference.text,
            hypothesis=transcript.text,
            ctc=transcript.ctc_text,
            counts=errors,
            duration=utterance.duration,
            capped=transcript.capped,
            labels=task.labels(reference, transcript.result),
            repairs=transcript.repairs,
            unreadable=unreadable.get(row),
        )
        for row, (utterance, reference, transcript, errors) in enumerate(
            zip(utterances, references, heard, counted, strict=True)
        )
    ]
