"""The SLUE score: what a model has to be evaluated on, and the score of such evaluations.

SLUE-VoxPopuli wants words and entities of every utterance, SLUE-VoxCeleb words and a sentiment. Both may be in one evaluation
(of ``ner`` or of a joint task), or in two of the same utterances, which are then joined by id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stapes.errors import DataError, RecipeError
from stapes.evaluation.measures import MEASURES
from stapes.evaluation.predictions import Predictions
from stapes.metrics import bootstrap
from stapes.metrics.signature import facts
from stapes.metrics.slue import slue_score
from stapes.tasks import Task
from stapes.tasks.style import NORMALISERS
from stapes.types import Score

TAGS, SPOKEN = "combined", "spoken"  # those of the benchmark
_DIGITS = 3


@dataclass(frozen=True)
class Corpus:
    """One of the two corpora of the score.

    Attributes:
        name: as in the score's name.
        label: what a line of predictions calls the answer that is scored beside the words.
        alone, joint: the keys of the tasks that give that label without the words' own task, and with a transcript.
    """

    name: str
    label: str
    alone: str
    joint: str


VOXPOPULI = Corpus("VoxPopuli", "entities", "ner", "asr+ner")
VOXCELEB = Corpus("VoxCeleb", "sentiment", "sentiment", "asr+sentiment")


def tasks_for(corpus: Corpus, tasks: Mapping[str, Task]) -> list[str]:
    """The keys of the tasks of a model that give what the score needs of a corpus, as few as will do.

    Words come from ``asr`` and labels from their own task. What a model has only as a joint task is taken from that, and what
    it has only as a transcript with its entities marked, from ``ner``.

    Raises:
        RecipeError: the model was not trained for what is needed.
    """
    label = next((key for key in (corpus.alone, corpus.joint) if key in tasks), None)
    if label is not None and "asr" in tasks:
        return ["asr", label]
    both = next((key for key in (corpus.alone, corpus.joint) if key in tasks and tasks[key].scores_sound), None)
    if both is None:
        expected = f"asr and {corpus.alone}, or {corpus.joint}: words and {corpus.label} of SLUE-{corpus.name}"
        raise RecipeError("tasks of the model", ", ".join(tasks), expected)
    return [both]


def joined(corpus: Corpus, evaluations: Sequence[Predictions]) -> Predictions:
    """The words and labels of a corpus, from one evaluation that has both or from two that have one each.

    Raises:
        DataError: they are more than two, none has the labels or several have, or they are not of the same utterances.
    """
    if len(evaluations) == 1:
        return evaluations[0]
    answer, reference = corpus.label, f"reference_{corpus.label}"
    has_labels = [any(getattr(line, reference) is not None for line in one.lines.values()) for one in evaluations]
    if sorted(has_labels) != [False, True]:
        found = f"{len(evaluations)} evaluations, {sum(has_labels)} of them with '{reference}'"
        raise DataError(f"SLUE-{corpus.name}", found, "one with it, and at most one other, with the words")
    words, labels = (evaluations[has_labels.index(wanted)] for wanted in (False, True))
    strangers = words.lines.keys() ^ labels.lines.keys()
    if strangers:
        found = f"{len(strangers)} ids in this or in {labels.folder} alone ({min(strangers)!r})"
        raise DataError(words.folder, found, "two evaluations of the same utterances")
    lines = {}
    for key, line in words.lines.items():
        other = labels.lines[key]
        lines[key] = line.model_copy(update={reference: getattr(other, reference), answer: getattr(other, answer)})
    measures = [name for name, measure in MEASURES.items() if measure.reference == reference and name in labels.signatures]
    signatures = words.signatures | {name: labels.signatures[name] for name in measures}
    return replace(words, lines=lines, signatures=signatures, provenance=f"{words.provenance}; {labels.provenance}")


def slue(
    voxpopuli: Predictions,
    voxceleb: Predictions,
    *,
    synthetic: bool = False,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """The SLUE score and what it consists of.

    Args:
        voxpopuli: every utterance with its words and entities (``joined``).
        voxceleb: every utterance with its words and a sentiment (``joined``).
        synthetic: the sound of VoxCeleb was made by a synthesiser. So was that of a corpus of which a signature says so.
        resamples: behind every interval.
        seed: of the SLUE score's.

    Returns:
        ``slue``, and its parts ``voxpopuli_wer``, ``ner_f1``, ``voxceleb_wer``, ``sentiment_f1``; ``ner_label_f1`` besides.

    Raises:
        DataError: an utterance has no label, a corpus has no word error rate, its words are compared otherwise than the
            benchmark compares them, or its entities have other tags.
    """
    parts = {
        "voxpopuli_wer": _score("wer", voxpopuli, resamples),
        "ner_f1": _score("ner_f1", voxpopuli, resamples),
        "voxceleb_wer": _score("wer", voxceleb, resamples),
        "sentiment_f1": _score("sentiment_f1", voxceleb, resamples),
    }
    for part, predictions in (("voxpopuli_wer", voxpopuli), ("ner_f1", voxpopuli), ("voxceleb_wer", voxceleb)):
        _require_spoken(parts[part].signature, predictions.folder)
    tags = facts(parts["ner_f1"].signature)["tags"]
    if tags != TAGS:
        raise DataError(
            voxpopuli.folder, f"entities with tags:{tags}", f"tags:{TAGS}, the benchmark's", "evaluate a task with them"
        )
    made = {VOXPOPULI.name: voxpopuli.synthetic, VOXCELEB.name: synthetic or voxceleb.synthetic}
    corpora = tuple(name for name, is_synthetic in made.items() if is_synthetic)
    whole = slue_score(**parts, synthetic=corpora, resamples=resamples, seed=seed)
    return {"slue": whole, **parts, "ner_label_f1": _score("ner_label_f1", voxpopuli, resamples)}


def _require_spoken(signature: str, folder: Path) -> None:
    """Raise DataError unless a score is of words as the benchmark compares them."""
    said = facts(signature)
    normaliser, style = said["norm"].partition(".")[0], said.get("style", SPOKEN)
    if (normaliser, style) != (NORMALISERS[SPOKEN], SPOKEN):
        wanted = f"norm:{NORMALISERS[SPOKEN]}|style:{SPOKEN}, the benchmark's"
        raise DataError(folder, f"words with norm:{normaliser}|style:{style}", wanted, "leave out --normaliser and --style")


def _score(name: str, predictions: Predictions, resamples: int) -> Score:
    measure = MEASURES[name]
    lines = list(predictions.lines.values())
    scored = measure.scored(lines)
    if len(scored) < len(lines):
        raise DataError(
            predictions.folder,
            f"'{measure.reference}' for {len(scored)} of {len(lines)} utterances",
            "all of them to have it, since the SLUE score is about a whole corpus",
            "words and labels of a corpus may be in two evaluations: name both" if not scored else "",
        )
    if name not in predictions.signatures:
        fix = "evaluate a task whose answers have it; words and labels of a corpus may be in two evaluations: name both"
        raise DataError(predictions.folder, f"no {measure.title}", f"one beside {', '.join(predictions.signatures)}", fix)
    return measure.of(scored, predictions.signatures[name], resamples)


def as_json(scores: dict[str, Score]) -> dict[str, Any]:
    """For ``stapes slue --json``: percentages, ``intervals``, the score's ``name`` and its ``signature``."""
    return {
        "name": scores["slue"].parts["name"],
        **{key: round(score.value, _DIGITS) for key, score in scores.items()},
        "intervals": {
            key: [round(end, _DIGITS) for end in score.interval] for key, score in scores.items() if score.interval is not None
        },
        "signature": scores["slue"].signature,
    }


def report(scores: dict[str, Score]) -> Group:
    """The score and its parts for people, to be printed by rich."""
    made = Table("", "%", "95 % interval")
    voxpopuli, voxceleb = (
        "synthetic " * (corpus.name in scores["slue"].parts["synthetic"]) + f"SLUE-{corpus.name}"
        for corpus in (VOXPOPULI, VOXCELEB)
    )
    titles = {
        "slue": scores["slue"].parts["name"],
        "voxpopuli_wer": f"WER, {voxpopuli}",
        "voxceleb_wer": f"WER, {voxceleb}",
        "ner_f1": f"NER F1, combined tags, {voxpopuli}",
        "ner_label_f1": f"NER label-F1 (no part of the score), {voxpopuli}",
        "sentiment_f1": f"sentiment macro F1, {voxceleb}",
    }
    for key, title in titles.items():
        interval = scores[key].interval
        made.add_row(title, f"{scores[key].value:.2f}", f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "")
    made.columns[1].justify = "right"
    return Group(made, Text(scores["slue"].signature, style="dim"))
