"""The SLUE score of two evaluations, one of SLUE-VoxPopuli with entities and one of SLUE-VoxCeleb with sentiments."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stapes.errors import DataError
from stapes.evaluation.measures import MEASURES
from stapes.evaluation.predictions import Predictions
from stapes.metrics import bootstrap
from stapes.metrics.signature import facts
from stapes.metrics.slue import slue_score
from stapes.types import Score

TITLES = {
    "voxpopuli_wer": "WER, SLUE-VoxPopuli",
    "voxceleb_wer": "WER, SLUE-VoxCeleb",
    "ner_f1": "NER F1, combined tags",
    "ner_label_f1": "NER label-F1 (no part of the score)",
    "sentiment_f1": "sentiment macro F1",
}
TAGS = "combined"  # those of the benchmark
_DIGITS = 3


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
        voxpopuli: every utterance with entities.
        voxceleb: every utterance with a sentiment.
        synthetic: the sound of VoxCeleb was made by a synthesiser; so it was where its signature says so.
        resamples: behind every interval.
        seed: of the SLUE score's.

    Returns:
        ``slue``, and its parts ``voxpopuli_wer``, ``ner_f1``, ``voxceleb_wer``, ``sentiment_f1``; ``ner_label_f1`` besides.

    Raises:
        DataError: an utterance has no label, a corpus has no word error rate, or its entities have other tags than the
            benchmark's.
    """
    parts = {
        "voxpopuli_wer": _score("wer", voxpopuli, resamples),
        "ner_f1": _score("ner_f1", voxpopuli, resamples),
        "voxceleb_wer": _score("wer", voxceleb, resamples),
        "sentiment_f1": _score("sentiment_f1", voxceleb, resamples),
    }
    tags = facts(parts["ner_f1"].signature)["tags"]
    if tags != TAGS:
        raise DataError(
            voxpopuli.folder, f"entities with tags:{tags}", f"tags:{TAGS}, the benchmark's", "evaluate a task with them"
        )
    synthetic = synthetic or "synthetic" in facts(parts["voxceleb_wer"].signature)
    whole = slue_score(**parts, synthetic=synthetic, resamples=resamples, seed=seed)
    return {"slue": whole, **parts, "ner_label_f1": _score("ner_label_f1", voxpopuli, resamples)}


def _score(name: str, predictions: Predictions, resamples: int) -> Score:
    measure = MEASURES[name]
    lines = list(predictions.lines.values())
    scored = measure.scored(lines)
    if len(scored) < len(lines):
        raise DataError(
            predictions.folder,
            f"'{measure.reference}' for {len(scored)} of {len(lines)} utterances",
            "all of them to have it, since the SLUE score is about a whole corpus",
        )
    if name not in predictions.signatures:
        fix = "evaluate a task whose answers have it"
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
    for key, title in {"slue": scores["slue"].parts["name"], **TITLES}.items():
        interval = scores[key].interval
        made.add_row(title, f"{scores[key].value:.2f}", f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "")
    made.columns[1].justify = "right"
    return Group(made, Text(scores["slue"].signature, style="dim"))
